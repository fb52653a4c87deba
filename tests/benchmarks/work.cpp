// Does a given number of messages of one kind of work, for instructions.py to count by callgrind.
// The other side is raw and runs in a process of its own, so that it is not counted.
//
// SPDX-License-Identifier: MIT
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "measure.hpp"
#include "ours.hpp"
#include "raw.hpp"

namespace {

using namespace bench;

/// A child process that runs `work` with one end of a socket pair; made before any thread.
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

}  // namespace

int main(int argc, char** argv) {
    require(argc == 3, "usage: work parse|receive-link|receive-one-shot|send-link count");
    alarm(300);
    const std::string_view what = argv[1];
    const auto count = std::strtoull(argv[2], nullptr, 10);
    if (what == "parse") parse_only(count);
    if (what == "receive-link") receive(count, send_lines);
    if (what == "receive-one-shot") receive(count, send_one_shots);
    if (what == "send-link") send_on_link(count);
}
