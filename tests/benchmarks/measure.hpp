// How the benchmarks measure: contenders for the same work take turns, round after round, on one
// CPU, and are compared by their medians. POSIX only (Linux for pinning).
//
// SPDX-License-Identifier: MIT
#ifndef P2PCHAT_BENCHMARKS_MEASURE_HPP
#define P2PCHAT_BENCHMARKS_MEASURE_HPP

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace bench {

/// Whether this program was built to measure with encryption.
#ifdef BENCH_ENCRYPTED
inline constexpr bool encrypted = true;
#else
inline constexpr bool encrypted = false;
#endif

/// Ends the program: a benchmark that lost a message, or took too long, has no figure to show.
[[noreturn]] void fail(const std::string& why);

inline void require(bool ok, const char* why) {
    if (!ok) fail(why);
}

/// Pins the program to CPU 0, bounds its time, allows it as many descriptors as the system lets
/// it have; returns the number of rounds, the first argument or else nine.
int begin(int argc, char** argv, unsigned seconds = 100);

/// Pins the calling thread, and those it starts from now on.
void pin(int cpu);
bool has_second_cpu();

/// While it lives, the calling thread starts its threads on that CPU; CPU 0 again afterwards.
class on_cpu {
public:
    explicit on_cpu(int cpu) { pin(cpu); }
    ~on_cpu() { pin(0); }
    on_cpu(const on_cpu&) = delete;
    on_cpu& operator=(const on_cpu&) = delete;
};

class stopwatch {
public:
    double seconds() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }
    double microseconds() const { return seconds() * 1e6; }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Waits until `done()`, yielding, for 20 seconds at most.
void wait_until(const std::function<bool()>& done, const char* what);

double median(std::vector<double> values);

/// The median of `count` calls, in microseconds each.
template <typename F>
double median_microseconds(int count, F&& call) {
    std::vector<double> times;
    times.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
        const stopwatch watch;
        call();
        times.push_back(watch.microseconds());
    }
    return median(std::move(times));
}

enum class better { more, less };

/// One row of the table: contenders for the same work. The first one added is the floor.
class row {
public:
    row(std::string title, std::string unit, better direction);

    void add(std::string name, std::function<double()> run);
    /// `wanted`: the bound of its ratio to the floor; 0: none.
    void add_ours(std::string name, std::function<double()> run, double wanted);

    template <typename T>
    void add(std::string name, std::shared_ptr<T> work) {
        add(std::move(name), [work] { return work->run(); });
    }
    template <typename T>
    void add_ours(std::string name, std::shared_ptr<T> work, double wanted) {
        add_ours(
            std::move(name), [work] { return work->run(); }, wanted);
    }

    /// Each contender once without counting, then `rounds` times in turn; prints the row.
    void measure(int rounds);

private:
    struct contender {
        std::string name;
        std::function<double()> run;
        std::vector<double> results;
        double wanted = 0;  // if ours
    };
    void print() const;
    void print(const contender& one) const;
    double ratio_to_floor(const contender& one) const;

    std::string title_;
    std::string unit_;
    better direction_;
    std::vector<contender> contenders_;
};

/// Three significant digits: "6.12", "32.1 k", "10.3 M".
std::string short_number(double value);

}  // namespace bench

#endif
