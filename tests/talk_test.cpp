// The first program of the README, as processes of its own: what it shows, sends and does not do.
// POSIX only.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "support.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

using support::recording_node;

namespace {

/// A running program of the first screen.
class talk {
public:
    explicit talk(std::vector<std::string> arguments) {
        const char* const path = std::getenv("P2PCHAT_TALK");
        REQUIRE_MESSAGE(path != nullptr, "P2PCHAT_TALK is to say where the program is");
        arguments.insert(arguments.begin(), path);
        int in[2], out[2];
        REQUIRE(pipe(in) == 0);
        REQUIRE(pipe(out) == 0);
        input_ = in[1];
        output_ = out[0];
        for (const int end : {input_, output_}) fcntl(end, F_SETFD, FD_CLOEXEC);
        signal(SIGPIPE, SIG_IGN);  // what is typed to a program that has left is lost, no more
        process_ = fork();
        REQUIRE(process_ >= 0);
        if (process_ == 0) become(arguments, in[0], out[1]);
        for (const int end : {in[0], out[1]}) close(end);
    }
    talk(const talk&) = delete;
    talk& operator=(const talk&) = delete;
    ~talk() {
        if (process_ > 0) kill(process_, SIGKILL);
        static_cast<void>(finish());
        close(output_);
    }

    void type(const std::string& line) {
        const std::string keys = line + '\n';
        REQUIRE(write(input_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
    }

    /// Waits until `text` has come, after what an earlier call waited for.
    bool shows(std::string_view text) {
        const auto end = std::chrono::steady_clock::now() + support::patience;
        while (text_.find(text, seen_) == std::string::npos) {
            if (std::chrono::steady_clock::now() < end && read_more()) continue;
            MESSAGE("waited for: ", std::string(text), "\nand there was: ", text_.substr(seen_));
            return false;
        }
        seen_ = text_.find(text, seen_) + text.size();
        return true;
    }

    /// The port by which it is known, as it says itself; it is on this machine.
    std::uint16_t port() {
        REQUIRE(shows("I am "));
        const auto begin = seen_;
        REQUIRE(shows("\n"));
        p2pchat::endpoint result;
        REQUIRE_FALSE(parse(std::string_view(text_).substr(begin, seen_ - begin - 1), result));
        return result.port();
    }

    /// Ends its input; its exit status, or -1 for any other end.
    int finish() {
        if (input_ >= 0) close(input_);
        input_ = -1;
        int status = 0;
        if (process_ > 0 && waitpid(process_, &status, 0) == process_) process_ = 0;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

private:
    [[noreturn]] static void become(std::vector<std::string>& arguments, int in, int out) {
        std::vector<char*> argv;
        for (auto& argument : arguments) argv.push_back(argument.data());
        argv.push_back(nullptr);
        dup2(in, 0);
        for (const int stream : {1, 2}) dup2(out, stream);
        for (const int end : {in, out}) close(end);
        execv(argv[0], argv.data());
        _exit(127);
    }

    /// Waits for more output; false at its end.
    bool read_more() {
        struct pollfd waits = {output_, POLLIN, 0};
        if (poll(&waits, 1, 100) <= 0) return true;
        char buffer[4096];
        const auto size = read(output_, buffer, sizeof buffer);
        if (size > 0) text_.append(buffer, static_cast<std::size_t>(size));
        return size > 0;
    }

    pid_t process_ = 0;
    int input_ = -1;
    int output_ = -1;
    std::string text_;
    std::size_t seen_ = 0;
};

p2pchat::endpoint here(std::uint16_t port) { return {"127.0.0.1", port}; }

/// As it stands at the end of a line, in this system's words.
std::string says(std::error_code error) { return error.message() + '\n'; }
std::string says(std::errc value) { return says(std::make_error_code(value)); }

}  // namespace

TEST_CASE("two of the first program talk with each other and with a node, and none answers") {
    talk a({"0"});
    const auto at = here(a.port());
    talk b({"0", to_string(at)});
    const auto b_port = b.port();
    REQUIRE(a.shows(" BTC: CONNECT\n"));
    recording_node node;
    REQUIRE_FALSE(node->connect(at).error);
    REQUIRE(a.shows(to_string(node.address()) + " BTC: CONNECT\n"));

    b.type("Hi from b");
    CHECK(b.shows(": delivered\n"));
    CHECK(a.shows(':' + std::to_string(b_port) + " BTC: Hi from b\n"));
    CHECK_FALSE(node->send(at, "Hi from a node"));
    CHECK(a.shows(to_string(node.address()) + " BTC: Hi from a node\n"));

    // Were there an answer to it, it would go out before the handler of the next.
    CHECK_FALSE(node->send(at, "and again"));
    CHECK(a.shows("and again\n"));
    a.type("to all");
    CHECK(b.shows(" BTC: to all\n"));
    CHECK(node.wait_text("to all"));
    CHECK(a.shows(": delivered\n"));
    CHECK(a.shows(": delivered\n"));
    CHECK(node.seen().messages.size() == 1);
    b.type("the end");
    CHECK(a.shows(" BTC: the end\n"));
    CHECK(node.seen().messages.size() == 1);
    CHECK(a.finish() == 0);
    CHECK(b.finish() == 0);
}

TEST_CASE("the first program says what was not delivered, and that nobody is known") {
    talk a({"0", "127.0.0.1:0", "127.0.0.1:1"});
    const auto at = here(a.port());
    CHECK(a.shows("127.0.0.1:0: " + says(p2pchat::errc::bad_port)));
    CHECK(a.shows("127.0.0.1:1: " + says(std::errc::connection_refused)));
    a.type("Hello?");
    CHECK(a.shows("nobody is known yet\n"));
    CHECK(support::one_shot(at, support::wire(here(1), "gone soon")) == support::ending::closed);
    CHECK(a.shows("127.0.0.1:1 Raw: gone soon\n"));
    a.type("Hello again");
    CHECK(a.shows("127.0.0.1:1: " + says(std::errc::connection_refused)));

    talk second({std::to_string(at.port())});
    CHECK(second.shows(says(std::errc::address_in_use)));
    CHECK(second.finish() == 1);
}

#if defined(__linux__)

TEST_CASE("the first program shows a forged message with its origin, and writes to nobody for it") {
    support::lan lan;
    if (!lan.usable()) return;
    std::unique_ptr<talk> a;
    lan.here.run([&] { a = std::make_unique<talk>(std::vector<std::string>{"0"}); });
    const p2pchat::endpoint at(lan.here_address().address(), a->port());
    lan.there.run([&] {
        const auto forged = support::wire({"10.99.0.9", 5000}, "trust me");
        CHECK(support::one_shot(at, forged) == support::ending::closed);
    });
    CHECK(a->shows("10.99.0.2:"));
    CHECK(a->shows(" Raw: trust me\n"));
    a->type("who are you?");
    CHECK(a->shows("nobody is known yet\n"));
}

#endif
