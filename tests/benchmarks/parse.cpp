// Parsing one message of 40 bytes, by p2pchat and by usual hand-written parsers; with Google
// Benchmark, repetitions interleaved.
//
// SPDX-License-Identifier: MIT
#include <charconv>
#include <cstdio>
#include <map>
#include <regex>
#include <sstream>

#include <benchmark/benchmark.h>

#include "measure.hpp"
#include "p2pchat.hpp"
#include "raw.hpp"

namespace {

using bench::require;

const std::string sample = std::string(bench::head) + "123456789012345";

struct parts {
    std::string address;
    unsigned port = 0;
    std::string team;
    std::string text;
};

bool by_from_chars(std::string_view bytes, bench::parsed& result) {
    const char* at = bytes.data();
    const char* const end = at + bytes.size();
    for (const char mark : {'.', '.', '.', ':', ' '}) {
        unsigned part = 0;
        const auto [next, error] = std::from_chars(at, end, part);
        if (error != std::errc{} || next == end || *next != mark) return false;
        if (part > (mark == ' ' ? 65535u : 255u)) return false;
        if (mark == ' ')
            result.port = static_cast<std::uint16_t>(part);
        else
            result.address = result.address << 8 | part;
        at = next + 1;
    }
    const std::string_view rest(at, static_cast<std::size_t>(end - at));
    const auto space = rest.find(' ');
    if (space == 0 || space >= rest.size() - 1) return false;
    result.team = rest.substr(0, space);
    result.text = rest.substr(space + 1);
    return true;
}

bool by_sscanf(const char* bytes, parts& result) {
    char address[64];
    char team[65];
    int text = 0;
    if (std::sscanf(bytes, "%63[0-9.]:%u %64s %n", address, &result.port, team, &text) != 3)
        return false;
    result.address = address;
    result.team = team;
    result.text = bytes + text;
    return true;
}

bool by_streams(const std::string& bytes, parts& result) {
    std::istringstream in(bytes);
    std::getline(in, result.address, ':');
    in >> result.port >> result.team >> std::ws;
    return static_cast<bool>(std::getline(in, result.text));
}

bool by_regex(const std::string& bytes, parts& result) {
    static const std::regex format(R"(^([0-9.]+):([0-9]+) (\S{1,64}) (.+)$)");
    std::smatch match;
    if (!std::regex_match(bytes, match, format)) return false;
    result.address = match[1];
    result.port = static_cast<unsigned>(std::stoul(match[2]));
    result.team = match[3];
    result.text = match[4];
    return true;
}

/// Each parser has to parse the sample correctly before its speed counts.
void check(const bench::parsed& found) {
    require(found.address == 0x7f000001 && found.port == 50000, "wrong sender");
    require(found.team == "Team_BTC" && found.text == "123456789012345", "wrong team or text");
}

void check(const parts& found) {
    require(found.address == "127.0.0.1" && found.port == 50000, "wrong sender");
    require(found.team == "Team_BTC" && found.text == "123456789012345", "wrong team or text");
}

void check(const p2pchat::message_view& found) {
    require(found.sender == p2pchat::endpoint("127.0.0.1", 50000), "wrong sender");
    require(found.team == "Team_BTC" && found.text == "123456789012345", "wrong team or text");
}

template <typename Result, typename F>
void time_parser(benchmark::State& state, F parse) {
    Result result;
    require(parse(result), "the sample was refused");
    check(result);
    for (auto _ : state) {
        benchmark::DoNotOptimize(sample.data());
        Result again;
        benchmark::DoNotOptimize(parse(again));
        benchmark::DoNotOptimize(again);
    }
}

constexpr const char* floor_name = "digit loop (floor)";
constexpr const char* our_name = "p2pchat";

void add_all() {
    const auto add = [](const char* name, auto function) {
        benchmark::RegisterBenchmark(name, function);
    };
    add(floor_name, [](benchmark::State& s) {
        time_parser<bench::parsed>(s, [](auto& r) { return bench::parse_digits(sample, r); });
    });
    add("from_chars", [](benchmark::State& s) {
        time_parser<bench::parsed>(s, [](auto& r) { return by_from_chars(sample, r); });
    });
    add("sscanf", [](benchmark::State& s) {
        time_parser<parts>(s, [](auto& r) { return by_sscanf(sample.c_str(), r); });
    });
    add("streams", [](benchmark::State& s) {
        time_parser<parts>(s, [](auto& r) { return by_streams(sample, r); });
    });
    add("std::regex", [](benchmark::State& s) {
        time_parser<parts>(s, [](auto& r) { return by_regex(sample, r); });
    });
    add(our_name, [](benchmark::State& s) {
        time_parser<p2pchat::message_view>(
            s, [](auto& r) { return !p2pchat::parse(std::string_view(sample), r); });
    });
}

/// Keeps the medians for the comparison at the end.
class median_reporter : public benchmark::ConsoleReporter {
public:
    median_reporter() : ConsoleReporter(OO_Tabular) {}
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const auto& run : runs) {
            if (run.aggregate_name != "median") continue;
            ConsoleReporter::ReportRuns({run});
            medians_[run.run_name.function_name] = run.GetAdjustedCPUTime();
        }
    }
    void print_ratio() const {
        const auto ours = medians_.at(our_name), floor = medians_.at(floor_name);
        std::printf(
            "\nparse one message into views (ns)\n  %-40s %9.1f\n  %-40s %9.1f  "
            "%.2f x floor  wanted: at most 1.60 x floor: %s\n",
            floor_name, floor, our_name, ours, ours / floor,
            ours <= 1.6 * floor ? "reached" : "MISSED");
    }

private:
    std::map<std::string, double> medians_;
};

}  // namespace

int main(int argc, char** argv) {
    const auto repetitions = std::to_string(bench::begin(argc, argv));
    add_all();
    std::vector<std::string> flags = {
        argv[0], "--benchmark_repetitions=" + repetitions, "--benchmark_min_time=0.05",
        "--benchmark_enable_random_interleaving=true", "--benchmark_report_aggregates_only=true"};
    std::vector<char*> pointers;
    for (auto& flag : flags) pointers.push_back(flag.data());
    int count = static_cast<int>(pointers.size());
    benchmark::Initialize(&count, pointers.data());
    median_reporter reporter;
    benchmark::RunSpecifiedBenchmarks(&reporter);
    reporter.print_ratio();
}
