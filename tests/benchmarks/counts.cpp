// What can be counted rather than timed: allocations for a message in the steady state, wake-ups of
// a node that has nothing to do, and, by callgrind, instructions for a message.
//
//     counts [rounds]      prints allocations and wake-ups
//     counts KIND COUNT    handles so many messages of a kind, for counts.py to run by callgrind
//
// SPDX-License-Identifier: MIT
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "measure.hpp"
#include "ours.hpp"
#include "raw.hpp"

namespace {
std::atomic<std::uint64_t> allocations{0};
}

void* operator new(std::size_t size) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    if (void* memory = std::malloc(size > 0 ? size : 1)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace bench;

constexpr std::uint64_t messages = 20000;

/// Allocations of the whole program for each of `messages` calls, after as many calls to warm up:
/// buffers that follow the load have grown by then.
template <typename F>
double allocations_each(F&& send) {
    for (std::uint64_t i = 0; i < messages; ++i) send(i == messages - 1);
    const auto before = allocations.load();
    for (std::uint64_t i = 0; i < messages; ++i) send(i == messages - 1);
    return static_cast<double>(allocations - before) / static_cast<double>(messages);
}

/// Checks that the texts arrive as they were sent, in order. Allocates nothing.
class expectation {
public:
    void take(std::string_view text) {
        require(text == next_.get(), "not the message that was sent");
        next_.next();
        ++taken_;
    }
    std::uint64_t taken() const { return taken_; }

private:
    numbered_text next_;
    std::atomic<std::uint64_t> taken_{0};
};

/// A raw sender that allocates nothing; it waits for each confirmation, or only for the last.
double receiving(bool one_by_one) {
    expectation expected;
    const auto node = start_node([&](const auto& m) { expected.take(m.text); });
    const auto link = open_link(loopback(1), node->address().port());
    ack_reader acks;
    numbered_text text;
    std::string line;
    line.reserve(2 * message_bytes);
    std::uint64_t sent = 0;
    return allocations_each([&](bool last) {
        line.assign(head).append(text.get()).push_back('\n');
        text.next();
        send_all(link.get(), line);
        ++sent;
        char buffer[256];
        while ((one_by_one || last) &&
               acks.take(receive_some(link.get(), buffer, sizeof buffer)) < sent)
            continue;
        while (last && expected.taken() < sent) std::this_thread::yield();
    });
}

double sending_one_by_one() {
    expectation expected;
    link_receiver receiver([&](const parsed& m) { expected.take(m.text); });
    const auto node = start_node();
    const p2pchat::endpoint to(loopback(1), receiver.port());
    make_link(*node, to);
    numbered_text text;
    return allocations_each([&](bool) {
        require_ok(node->send(to, text.get()), "send");
        text.next();
    });
}

double posting() {
    expectation expected;
    link_receiver receiver([&](const parsed& m) { expected.take(m.text); });
    const auto node = start_node();
    const p2pchat::endpoint to(loopback(1), receiver.port());
    make_link(*node, to);
    numbered_text text;
    std::atomic<std::uint64_t> done{0};
    std::uint64_t sent = 0;
    return allocations_each([&](bool last) {
        const auto count = [&](std::error_code error) {
            require_ok(error, "post");
            ++done;
        };
        require_ok(node->post(to, text.get(), count, p2pchat::when_full::wait), "post");
        text.next();
        ++sent;
        while (last && done < sent) std::this_thread::yield();
    });
}

/// How often any thread of this program has gone to sleep so far; each time ends in a wake-up.
long sleeps() {
    long result = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::ifstream file(task.path() / "status");
        std::string name;
        while (file >> name) {
            long value = 0;
            if (name == "voluntary_ctxt_switches:" && file >> value) result += value;
        }
    }
    return result;
}

/// A node with a link that is idle, too; the main thread sleeps once.
double wakeups_a_minute(int seconds) {
    link_receiver receiver([](const parsed&) {});
    auto quick = settings();
    quick.delivery_timeout = std::chrono::milliseconds(200);  // the last timer of a message
    const auto node = start_node([](const auto&) {}, quick);
    make_link(*node, {loopback(1), receiver.port()});
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const auto before = sleeps();
    std::this_thread::sleep_for(std::chrono::seconds(seconds));
    const auto ours = sleeps() - before - 1;
    return static_cast<double>(ours) * 60 / seconds;
}

void print(const char* what, double value, double wanted) {
    std::printf("  %-58s %8.3f", what, value);
    if (wanted >= 0)
        std::printf("  wanted: at most %g: %s", wanted, value <= wanted ? "reached" : "MISSED");
    std::printf("\n");
}

// ---------------------------------------------------------------------------------- instructions

/// A child process that runs `work`, which is not counted, with one end of a socket pair. It has to
/// be made before any thread.
class other_process {
public:
    explicit other_process(const std::function<void(int end)>& work) {
        int ends[2];
        require(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "cannot make a socket pair");
        child_ = fork();
        require(child_ >= 0, "cannot fork");
        if (child_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            ::close(ends[0]);
            work(ends[1]);
            _exit(0);
        }
        ::close(ends[1]);
        end_ = descriptor(ends[0]);
    }
    ~other_process() {
        end_.reset();
        waitpid(child_, nullptr, 0);
    }
    void tell(std::uint16_t value) {
        send_all(end_.get(), {reinterpret_cast<const char*>(&value), sizeof value});
    }
    std::uint16_t hear() { return hear_from(end_.get()); }

    static std::uint16_t hear_from(int end) {
        std::uint16_t value = 0;
        require(recv(end, &value, sizeof value, MSG_WAITALL) == sizeof value, "nothing heard");
        return value;
    }

private:
    descriptor end_;
    pid_t child_;
};

void send_lines(std::uint16_t port, std::uint64_t count) {
    const auto link = open_link(loopback(1), port);
    numbered_text text;
    ack_reader acks;
    char buffer[256];
    for (std::uint64_t i = 1; i <= count; ++i) {
        send_all(link.get(), std::string(head).append(text.get()).append("\n"));
        text.next();
        const auto confirmed = acks.take(receive_some(link.get(), buffer, sizeof buffer));
        require(confirmed == i, "confirmed something else than what was sent");
    }
}

void send_one_shots(std::uint16_t port, std::uint64_t count) {
    numbered_text text;
    for (std::uint64_t i = 0; i < count; ++i) {
        const auto peer = connect_to(loopback(1), port);
        send_all(peer.get(), std::string(head).append(text.get()));
        text.next();
        shutdown(peer.get(), SHUT_WR);
        char c;
        require(recv(peer.get(), &c, 1, 0) == 0, "not confirmed by a close");
    }
}

template <typename F>
void receive(std::uint64_t count, F send) {
    other_process sender([&](int end) { send(other_process::hear_from(end), count); });
    numbered_text expected;
    std::atomic<std::uint64_t> taken{0};
    const auto node = start_node([&](const auto& m) {
        require(m.text == expected.get(), "not the message that was sent");
        expected.next();
        ++taken;
    });
    sender.tell(node->address().port());
    while (taken < count) std::this_thread::sleep_for(std::chrono::milliseconds(100));
}

void send_on_link(std::uint64_t count) {
    other_process other([&](int end) {
        numbered_text expected;
        link_receiver receiver([&](const parsed& m) {
            require(m.text == expected.get(), "not the message that was sent");
            expected.next();
        });
        const auto port = receiver.port();
        send_all(end, {reinterpret_cast<const char*>(&port), sizeof port});
        char c;
        require(recv(end, &c, 1, 0) == 0, "not the end");
    });
    const auto node = start_node();
    const p2pchat::endpoint to(loopback(1), other.hear());
    make_link(*node, to);
    numbered_text text;
    for (std::uint64_t i = 0; i < count; ++i) {
        require_ok(node->send(to, text.get()), "send");
        text.next();
    }
}

void parse_only(std::uint64_t count) {
    const std::string sample = std::string(head) + "123456789012345";
    for (std::uint64_t i = 0; i < count; ++i) {
        p2pchat::message_view found;
        require_ok(p2pchat::parse(std::string_view(sample), found), "parse");
    }
}

void handle(std::string_view kind, std::uint64_t count) {
    alarm(300);
    if (kind == "parse") parse_only(count);
    if (kind == "receive-link") receive(count, send_lines);
    if (kind == "receive-one-shot") receive(count, send_one_shots);
    if (kind == "send-link") send_on_link(count);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 3) {
        handle(argv[1], std::strtoull(argv[2], nullptr, 10));
        return 0;
    }
    const int rounds = begin(argc, argv);
    std::printf("\nallocations for a message on a link, steady state\n");
    print("received by a node, one by one", receiving(true), 0.001);
    print("received by a node, in a stream", receiving(false), 0.001);
    print("sent by a node, one by one", sending_one_by_one(), -1);
    print("posted by a node, in a stream, with a completion", posting(), -1);
    std::printf("\nwake-ups in a minute of a node with an idle link\n");
    print("threads of the program that woke up", wakeups_a_minute(rounds + 1), 4);
}
