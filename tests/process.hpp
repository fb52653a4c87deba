// A child process, for tests of processes that die or are suspended. Linux only.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_PROCESS_HPP
#define P2PCHAT_TESTS_PROCESS_HPP

#include "support.hpp"

#if defined(__linux__)
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdio>

namespace support {

using p2pchat::endpoint;

/// A child process, which exchanges lines with us and is killed with this object. It has to be made
/// before the test starts a thread, unless it only stays alive.
class process {
public:
    explicit process(const std::function<void(process&)>& task) {
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        id_ = ::fork();
        REQUIRE(id_ >= 0);
        line_ = ends[id_ == 0 ? 1 : 0];
        ::close(ends[id_ == 0 ? 0 : 1]);
        if (id_ == 0) live(task);
    }
    process(const process&) = delete;
    process& operator=(const process&) = delete;
    ~process() {
        kill();
        ::close(line_);
    }

    /// For both sides, as are the following.
    void say(std::string_view what) {
        const std::string line = std::string(what) + '\n';
        CHECK(::send(line_, line.data(), line.size(), MSG_NOSIGNAL) ==
              static_cast<ssize_t>(line.size()));
    }
    void say(std::size_t number) { say(std::to_string(number)); }

    /// The next line from the other side; empty when it has ended.
    std::string hear() {
        std::string line;
        pollfd entry{line_, POLLIN, 0};
        for (char c = 0; ::poll(&entry, 1, static_cast<int>(patience.count())) == 1;) {
            if (::recv(line_, &c, 1, 0) != 1) return {};
            if (c == '\n') return line;
            line.push_back(c);
        }
        return {};
    }
    std::size_t hear_number() {
        const std::string line = hear();
        REQUIRE_FALSE(line.empty());
        return std::stoul(line);
    }
    std::size_t ask(std::string_view what) {
        say(what);
        return hear_number();
    }
    endpoint hear_address() {
        endpoint result;
        REQUIRE_FALSE(p2pchat::parse(hear(), result));
        return result;
    }

    /// Suspends it, and returns when it is suspended.
    void stop() {
        int status = 0;
        REQUIRE(::kill(id_, SIGSTOP) == 0);
        REQUIRE(::waitpid(id_, &status, WUNTRACED) == id_);
        REQUIRE(WIFSTOPPED(status));
    }
    void go_on() { REQUIRE(::kill(id_, SIGCONT) == 0); }

    void kill() {
        if (id_ <= 0) return;
        ::kill(id_, SIGKILL);
        wait_end();
    }
    void wait_end() {
        int status = 0;
        while (::waitpid(id_, &status, 0) == id_ && !WIFEXITED(status) && !WIFSIGNALED(status)) {
        }
        id_ = 0;
    }

private:
    [[noreturn]] void live(const std::function<void(process&)>& task) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::signal(SIGABRT, SIG_DFL);  // doctest would report it as ours
        static_cast<void>(std::freopen("/dev/null", "w", stderr));
        try {
            task(*this);
        } catch (...) {
            ::_exit(1);
        }
        ::_exit(0);
    }

    pid_t id_ = 0;
    int line_ = -1;
};

}  // namespace support

#endif

#endif  // P2PCHAT_TESTS_PROCESS_HPP
