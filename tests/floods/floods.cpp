// Floods a node, in a process of its own, and measures what an honest sender gets meanwhile and how
// much memory and how many threads and descriptors the node takes, beside the same for a node that
// is left in quiet. Linux; loopback only; bounded in count and time.
//
//     floods            thirty seconds of each flood
//     floods SECONDS    so many of each
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

namespace {

using p2pchat::endpoint;
using p2pchat::message;
using p2pchat::tcp_socket;
using std::chrono::milliseconds;
using clock_type = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr int connections_a_second = 10000;
constexpr std::size_t silent_ones = 3000, slow_ones = 1000, posting_ones = 1000, valid_ones = 3000;
constexpr milliseconds slow_handler = 1ms;

[[noreturn]] void fail(const std::string& why) {
    std::cerr << "floods: " << why << '\n';
    std::exit(1);
}

p2pchat::config settings(const char* team) {
    p2pchat::config result;
    result.team = team;
    result.address = "127.0.0.1";
    return result;
}

/// As many descriptors as the system allows.
void allow_descriptors() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

// ------------------------------------------------------------------------------- the flooded node

/// The child process: a node that serves until its standard input ends.
int be_the_node(milliseconds handler_time) {
    p2pchat::node node(settings("Flooded"));
    node.on_message([=](const message&) {
        if (handler_time != 0ms) std::this_thread::sleep_for(handler_time);
    });
    node.on_rejected([](const endpoint&, std::error_code) {});
    if (auto error = node.start()) fail("the node: " + error.message());
    std::cout << node.address() << '\n' << std::flush;
    std::cin.get();
    return 0;
}

/// A node in a process of its own, so that what it takes is its own.
class node_process {
public:
    node_process(const char* program, milliseconds handler_time) {
        int in[2], out[2];
        if (::pipe(in) != 0 || ::pipe(out) != 0) fail("no pipe");
        child_ = ::fork();
        if (child_ < 0) fail("no process");
        if (child_ == 0) {
            ::dup2(in[0], 0);
            ::dup2(out[1], 1);
            for (int end : {in[0], in[1], out[0], out[1]}) ::close(end);
            const auto time = std::to_string(handler_time.count());
            ::execl(program, program, "--node", time.c_str(), nullptr);
            ::_exit(127);
        }
        ::close(in[0]);
        ::close(out[1]);
        input_ = in[1];
        read_address(out[0]);
        ::close(out[0]);
        watcher_ = std::thread([this] { watch(); });
    }
    node_process(const node_process&) = delete;
    node_process& operator=(const node_process&) = delete;

    /// Ends it in order; false if it did not.
    bool end() {
        ending_ = true;
        watcher_.join();
        ::close(input_);
        int status = 0;
        return ::waitpid(child_, &status, 0) == child_ && status == 0;
    }

    const endpoint& address() const noexcept { return address_; }
    double peak_mebibytes() const { return static_cast<double>(status("VmHWM:")) / 1024; }
    long threads() const noexcept { return threads_; }
    long descriptors() const noexcept { return descriptors_; }

private:
    void read_address(int from) {
        std::string line;
        for (char c = 0; ::read(from, &c, 1) == 1 && c != '\n';) line.push_back(c);
        if (parse(line, address_)) fail("the node does not start");
    }

    void watch() {
        while (!ending_) {
            threads_ = (std::max)(threads_.load(), status("Threads:"));
            descriptors_ = (std::max)(descriptors_.load(), count_descriptors());
            std::this_thread::sleep_for(100ms);
        }
    }

    long status(const std::string& wanted) const {
        std::ifstream file("/proc/" + std::to_string(child_) + "/status");
        for (std::string word; file >> word;)
            if (long value = 0; word == wanted && file >> value) return value;
        return 0;
    }

    /// FDSize only ever grows, in powers of two; the directory's entries are exact.
    long count_descriptors() const {
        const auto command = "ls /proc/" + std::to_string(child_) + "/fd | wc -l";
        long count = 0;
        if (std::FILE* const pipe = ::popen(command.c_str(), "r")) {
            if (std::fscanf(pipe, "%ld", &count) != 1) count = 0;
            ::pclose(pipe);
        }
        return count;
    }

    endpoint address_;
    pid_t child_ = 0;
    int input_ = -1;
    std::atomic<bool> ending_{false};
    std::atomic<long> threads_{0}, descriptors_{0};
    std::thread watcher_;
};

// ------------------------------------------------------------------------------------- the floods

/// Floods a node until the end, and says what it has managed.
using flood = std::function<std::string(const endpoint& to, clock_type::time_point end)>;

std::string leave_in_quiet(const endpoint&, clock_type::time_point end) {
    std::this_thread::sleep_until(end);
    return "nothing";
}

/// Connections that are reset as soon as they stand, some every millisecond.
std::string connect_and_go(const endpoint& to, clock_type::time_point end) {
    const auto start = clock_type::now();
    long made = 0;
    while (clock_type::now() < end) {
        const std::chrono::duration<double> time = clock_type::now() - start;
        const auto due = static_cast<long>(time.count() * connections_a_second);
        for (; made < due && clock_type::now() < end; ++made) {
            tcp_socket socket;
            if (socket.connect(to, 1000ms)) break;
            socket.reset();
        }
        std::this_thread::sleep_for(1ms);
    }
    const std::chrono::duration<double> time = clock_type::now() - start;
    return std::to_string(std::lround(static_cast<double>(made) / time.count())) +
           " connections a second";
}

/// Whether the node has ended this connection, which it writes nothing to.
bool has_ended(tcp_socket& socket) {
    char byte = 0;
    std::size_t size = 0;
    const auto error = socket.receive(&byte, 1, size, {});
    return error != std::errc::operation_would_block;
}

/// Keeps `count` connections open, silent or with a byte a second on each; those that the node ends
/// are opened again, every second.
std::string hold_open(std::size_t count, bool dripping, const endpoint& to,
                      clock_type::time_point end) {
    std::vector<tcp_socket> sockets(count);
    std::size_t opened = 0;
    for (auto next = clock_type::now(); next < end; next += 1s) {
        for (auto& socket : sockets) {
            std::size_t sent = 0;
            if (!socket.is_open() || has_ended(socket)) {
                socket = tcp_socket();
                if (!socket.connect(to, 1000ms)) ++opened;
            }
            if (dripping) static_cast<void>(socket.send("1", sent, {}));
        }
        std::this_thread::sleep_until((std::min)(next + 1s, end));
    }
    return std::to_string(count) + " at once, opened " + std::to_string(opened) + " times";
}

/// A peer by a link of its own, which posts as fast as the connection takes it.
class poster {
public:
    poster(const endpoint& to, std::size_t index) {
        const auto name = "127.0.0.1:" + std::to_string(index + 1) + " Flood ";
        while (lines_.size() < 4096) lines_ += name + "a message as people write them\n";
        messages_in_lines_ = lines_.size() / (name.size() + 31);
        std::size_t sent = 0;
        if (socket_.connect(to, 1000ms) || socket_.send(name + "CONNECT\n", sent, 1000ms))
            socket_.close();
        // What it has posted waits in the node and in the system's receive buffers, not here.
        const int size = 16 * 1024;
        ::setsockopt(static_cast<int>(socket_.native_handle()), SOL_SOCKET, SO_SNDBUF, &size,
                     sizeof size);
    }

    bool works() const noexcept { return socket_.is_open(); }
    pollfd entry() const noexcept {
        return {static_cast<int>(socket_.native_handle()), POLLIN | POLLOUT, 0};
    }

    /// Writes what can be written, and reads confirmations away.
    void go_on() {
        char answers[4096];
        std::size_t size = 0;
        auto error = socket_.receive(answers, sizeof answers, size, {});
        if (error ? error != std::errc::operation_would_block : size == 0) return socket_.close();
        for (;;) {
            error = socket_.send(std::string_view(lines_).substr(written_), size, {});
            written_ += size;
            if (error) break;
            written_ = 0;
            posted_ += messages_in_lines_;
        }
        if (error != std::errc::operation_would_block) socket_.close();
    }

    std::size_t posted() const noexcept { return posted_; }

private:
    tcp_socket socket_;
    std::string lines_;
    std::size_t messages_in_lines_ = 0, written_ = 0, posted_ = 0;
};

std::string post_at_full_speed(const endpoint& to, clock_type::time_point end) {
    std::vector<poster> peers;
    for (std::size_t i = 0; i < posting_ones; ++i) peers.emplace_back(to, i);
    std::vector<pollfd> entries;
    while (clock_type::now() < end) {
        entries.clear();
        for (auto& each : peers) entries.push_back(each.entry());
        ::poll(entries.data(), entries.size(), 50);
        for (std::size_t i = 0; i < peers.size(); ++i)
            if (entries[i].revents != 0 && peers[i].works()) peers[i].go_on();
    }
    std::size_t posted = 0, left = 0;
    for (auto& each : peers) posted += each.posted(), left += each.works();
    return std::to_string(left) + " links at the end, " + std::to_string(posted) + " posted";
}

/// Keeps `valid_ones` messages under way, each on a connection of its own; what was taken or has
/// given way is sent again at once.
std::string send_one_shots(const endpoint& to, clock_type::time_point end) {
    std::vector<tcp_socket> sockets(valid_ones);
    std::size_t sent = 0, bytes = 0;
    while (clock_type::now() < end) {
        for (auto& socket : sockets) {
            if (socket.is_open() && !has_ended(socket)) continue;
            socket = tcp_socket();
            if (socket.connect(to, 1000ms)) break;
            static_cast<void>(socket.send("127.0.0.1:9 Flood me first", bytes, {}));
            static_cast<void>(socket.shutdown_send());
            ++sent;
        }
        std::this_thread::sleep_for(1ms);
    }
    return std::to_string(valid_ones) + " at once, sent " + std::to_string(sent);
}

// ------------------------------------------------------------------------------- the honest sender

/// What became of an honest sender's messages, one every 20 ms.
struct experience {
    std::vector<double> milliseconds;  // of the delivered ones
    std::size_t undelivered = 0;

    double share(double part) const {
        if (milliseconds.empty()) return 0;
        auto sorted = milliseconds;
        std::sort(sorted.begin(), sorted.end());
        return sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1))];
    }
};

experience be_honest(const endpoint& to, bool by_link, clock_type::time_point end) {
    auto honest = settings("Honest");
    honest.address = to.address();
    p2pchat::node us(honest);
    if (auto error = us.start()) fail("the honest sender: " + error.message());
    experience result;
    while (clock_type::now() < end) {
        if (by_link) us.connect(to);
        const auto start = clock_type::now();
        const auto error = us.send(to, "are you there");
        const std::chrono::duration<double, std::milli> time = clock_type::now() - start;
        if (error)
            ++result.undelivered;
        else
            result.milliseconds.push_back(time.count());
        std::this_thread::sleep_for(20ms);
    }
    return result;
}

// --------------------------------------------------------------------------------------- the table

struct scene {
    const char* name;
    milliseconds handler_time;
    flood work;
    const char* honest_to = "127.0.0.1";  // the flood goes to this one
};

const scene scenes[] = {
    {"quiet", 0ms, leave_in_quiet},
    {"connections", 0ms, connect_and_go},
    {"silent", 0ms, [](auto& to, auto end) { return hold_open(silent_ones, false, to, end); }},
    {"slow", 0ms, [](auto& to, auto end) { return hold_open(slow_ones, true, to, end); }},
    {"quiet, slow handler", slow_handler, leave_in_quiet},
    {"posting, slow handler", slow_handler, post_at_full_speed},
    {"one-shots, slow handler", slow_handler, send_one_shots, "::1"},
};

void print(const char* how, const experience& e) {
    std::printf("  %-9s %6zu delivered  p50 %8.2f  p99 %8.2f  max %8.2f ms  %zu not delivered\n",
                how, e.milliseconds.size(), e.share(0.5), e.share(0.99), e.share(1), e.undelivered);
}

/// Plays a scene and prints what it was like. False: the honest sender was not served.
bool play(const char* program, const scene& what, std::chrono::seconds time) {
    node_process node(program, what.handler_time);
    const endpoint honest_to(what.honest_to, node.address().port());
    const auto end = clock_type::now() + time;
    experience by_one_shots, by_link;
    std::string managed;
    std::thread flooding([&] { managed = what.work(node.address(), end); });
    std::thread linked([&] { by_link = be_honest(honest_to, true, end); });
    by_one_shots = be_honest(honest_to, false, end);
    linked.join();
    flooding.join();
    const double memory = node.peak_mebibytes();
    const bool ended = node.end();

    std::printf("%s: %s\n", what.name, managed.c_str());
    print("one-shots", by_one_shots);
    print("link", by_link);
    std::printf("  the node's process: peak %.1f MiB, %ld threads, %ld descriptors\n", memory,
                node.threads(), node.descriptors());
    std::fflush(stdout);
    const bool served = !by_one_shots.milliseconds.empty() && !by_link.milliseconds.empty();
    const bool always = by_one_shots.undelivered + by_link.undelivered == 0;
    return ended && served && node.threads() == 3 && (always || what.handler_time != 0ms);
}

}  // namespace

int main(int argc, char** argv) {
    allow_descriptors();
    if (argc == 3) return be_the_node(milliseconds(std::atoi(argv[2])));
    if (::access("/proc/self/status", R_OK) != 0) {
        std::puts("skipped: this needs /proc");
        return 77;
    }
    const std::chrono::seconds time(argc == 2 ? std::atoi(argv[1]) : 30);
    bool well = true;
    for (const auto& each : scenes) well = play(argv[0], each, time) && well;
    return well ? 0 : 1;
}
