// How the benchmarks measure; see measure.hpp.
//
// SPDX-License-Identifier: MIT
#include "measure.hpp"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

namespace bench {

namespace {

extern "C" void out_of_time(int) {
    static const char text[] = "FAILED: out of time\n";
    const auto written = write(STDERR_FILENO, text, sizeof text - 1);
    _exit(written < 0 ? 3 : 2);
}

void raise_descriptor_limit() {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

void fail(const std::string& why) {
    std::fflush(stdout);
    std::fprintf(stderr, "FAILED: %s\n", why.c_str());
    std::_Exit(1);
}

void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(cpu), &set);
    require(sched_setaffinity(0, sizeof set, &set) == 0, "cannot pin to a CPU");
}

bool has_second_cpu() { return sysconf(_SC_NPROCESSORS_ONLN) > 1; }

int begin(int argc, char** argv, unsigned seconds) {
    std::signal(SIGALRM, out_of_time);
    alarm(seconds);
    pin(0);
    raise_descriptor_limit();
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 9;
    require(rounds > 0, "the argument is the number of rounds");
    return rounds;
}

void wait_until(const std::function<bool()>& done, const char* what) {
    const stopwatch watch;
    while (!done()) {
        if (watch.seconds() > 20) fail(std::string("waited in vain for ") + what);
        std::this_thread::yield();
    }
}

double median(std::vector<double> values) {
    require(!values.empty(), "no values");
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

std::string short_number(double value) {
    const char* suffix = "";
    if (value >= 1e6) {
        value /= 1e6;
        suffix = " M";
    } else if (value >= 1e4) {
        value /= 1e3;
        suffix = " k";
    }
    const int decimals = value >= 100 ? 0 : value >= 10 ? 1 : 2;
    char text[32];
    std::snprintf(text, sizeof text, "%.*f%s", decimals, value, suffix);
    return text;
}

row::row(std::string title, std::string unit, better direction)
    : title_(std::move(title)), unit_(std::move(unit)), direction_(direction) {}

void row::add(std::string name, std::function<double()> run) {
    contender one;
    one.name = std::move(name);
    one.run = std::move(run);
    contenders_.push_back(std::move(one));
}

void row::add_ours(std::string name, std::function<double()> run, double wanted) {
    add(std::move(name), std::move(run));
    contenders_.back().wanted = wanted;
}

void row::measure(int rounds) {
    for (auto& one : contenders_) one.run();
    for (int i = 0; i < rounds; ++i)
        for (auto& one : contenders_) one.results.push_back(one.run());
    print();
}

// Results of the same round are compared, so that a disturbance of a whole round (another program
// on the same CPU) drops out.
double row::ratio_to_floor(const contender& one) const {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < one.results.size(); ++i)
        ratios.push_back(one.results[i] / contenders_.front().results[i]);
    return median(std::move(ratios));
}

void row::print() const {
    std::printf("\n%s%s (%s)\n", encrypted ? "encrypted " : "", title_.c_str(), unit_.c_str());
    for (const auto& one : contenders_) print(one);
    std::fflush(stdout);
}

void row::print(const contender& one) const {
    const auto [low, high] = std::minmax_element(one.results.begin(), one.results.end());
    const double value = median(one.results);
    const double ratio = ratio_to_floor(one);
    std::printf("  %-40s %9s  [%s .. %s]  %.2f x floor", one.name.c_str(),
                short_number(value).c_str(), short_number(*low).c_str(),
                short_number(*high).c_str(), ratio);
    if (one.wanted > 0) {
        const bool more = direction_ == better::more;
        const bool ok = more ? ratio >= one.wanted : ratio <= one.wanted;
        std::printf("  wanted: at %s %.2f x floor: %s", more ? "least" : "most", one.wanted,
                    ok ? "reached" : "MISSED");
    }
    std::printf("\n");
}

}  // namespace bench
