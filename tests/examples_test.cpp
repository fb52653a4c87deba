// The small programs of examples/, as processes of their own, with a suite for each;
// P2PCHAT_PROGRAM is the program. talk and bot announce themselves on the network, which must not
// leave the test: their suites need Linux.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "menu_program.hpp"
#include "support.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

using support::ending;
using support::one_shot;
using support::raw_peer;
using support::recording_node;
using support::wire;

namespace {

/// A running small program.
class small_program : public support::menu_program {
public:
    explicit small_program(const words& arguments) : menu_program(arguments) {}

    /// The port that it listens on, as it prints it.
    std::uint16_t port() {
        REQUIRE(expect("I am "));
        const auto begin = text().rfind("I am ");
        REQUIRE(expect("\n"));
        const auto line = text().substr(begin, text().find('\n', begin) - begin);
        return static_cast<std::uint16_t>(std::stoi(line.substr(line.find_last_of(": ") + 1)));
    }

    /// Ends its input; its exit status.
    int leave() {
        end_input();
        return finish();
    }
};

p2pchat::endpoint here(std::uint16_t port) { return {"127.0.0.1", port}; }

/// An error as it is printed at the end of a line, in this system's words.
std::string says(std::error_code error) { return error.message() + '\n'; }
template <typename Errc>
std::string says(Errc value) {
    return says(make_error_code(value));
}

/// Another instance cannot listen on the same port, says so, and ends.
void check_port_in_use(const small_program::words& arguments) {
    small_program second(arguments);
    CHECK(second.expect(says(std::errc::address_in_use)));
    CHECK(second.leave() == 1);
}

}  // namespace

TEST_SUITE("accept_loop") {
    TEST_CASE("the accept loop receives a node's message, and one that comes in pieces") {
        small_program loop({"0"});
        const auto at = here(loop.port());
        recording_node node;
        CHECK_FALSE(node->send(at, "Hi"));
        CHECK(loop.expect(to_string(node.address()) + " BTC: Hi\n"));
        raw_peer peer(at);
        for (const auto* const piece : {"127.0.0.1:1 R", "aw in pie", "ces"}) peer.send(piece);
        peer.half_close();
        CHECK(peer.read_to_end() == ending::closed);
        CHECK(loop.expect("127.0.0.1:1 Raw: in pieces\n"));
        check_port_in_use({std::to_string(at.port())});
        CHECK(loop.leave() == 0);
    }

    TEST_CASE("the accept loop resets malformed messages and silent connections, and goes on") {
        small_program loop({"0"});
        const auto at = here(loop.port());
        CHECK(one_shot(at, "no message") == ending::reset);
        CHECK(one_shot(at, wire(here(1), std::string(70000, 'x'))) == ending::reset);
        raw_peer silent(at);
        recording_node node;
        CHECK_FALSE(node->send(at, "after the silent one"));
        CHECK(loop.expect(" BTC: after the silent one\n"));
        CHECK(silent.read_to_end() == ending::reset);
        CHECK(loop.text().find("Raw") == std::string::npos);
        raw_peer last(at);
        CHECK(loop.leave() == 0);
    }
}

TEST_SUITE("parser") {
    TEST_CASE("the parser writes each message in columns, and explains each malformed line") {
        const std::string good =
            "10.18.1.7:5000 Team_BTC Hi there\n"
            " <[fe80::1]:6000>  <BTC>   inner   spaces  \n";
        const std::string columns =
            "10.18.1.7\t5000\tTeam_BTC\tHi there\nfe80::1\t6000\tBTC\tinner   spaces\n";
        small_program parser({});
        parser.type(good);
        CHECK(parser.leave() == 0);
        CHECK(parser.text() == columns);
        small_program strict({});
        strict.type("10.18.1.7:5000 Hello\n" + good + "10.18.1.7:0 BTC port\n");
        CHECK(strict.leave() == 1);
        CHECK(strict.text().find(columns) != std::string::npos);
        CHECK(std::count(strict.text().begin(), strict.text().end(), '\n') == 4);
        CHECK(strict.text().find("line 1: " + says(p2pchat::errc::too_few_words)) !=
              std::string::npos);
        CHECK(strict.text().find("line 4: " + says(p2pchat::errc::bad_port)) != std::string::npos);
    }
}

TEST_SUITE("main_loop") {
    TEST_CASE("the main loop shows incoming messages") {
        small_program gui({"0"});
        const auto at = here(gui.port());
        recording_node node;
        for (const auto* const text : {"Hi", "and again"}) {
            CHECK_FALSE(node->send(at, text));
            CHECK(gui.expect(std::string("BTC: ") + text + '\n'));
        }
        check_port_in_use({std::to_string(at.port())});
        CHECK(gui.leave() == 0);
    }

    TEST_CASE("a stalled main loop keeps no sender waiting, and loses no message") {
        small_program gui({"0"});
        const auto at = here(gui.port());
        recording_node node;
        REQUIRE_FALSE(node->connect(at).error);
        const std::string kilobyte(1024, 'x');
        for (int i = 0; i < 500; ++i)  // it stalls once nobody reads its output
            REQUIRE_FALSE(node->send(at, kilobyte));
        CHECK_FALSE(node->send(at, "the last"));
        CHECK(gui.expect("501. BTC: the last\n"));
        CHECK(gui.leave() == 0);
    }
}

#if defined(__linux__)

namespace {

/// On a host without a network: what a program announces there goes nowhere.
void run_alone(std::function<void()> test) {
    support::host machine;
    if (machine.usable() && machine.command("ip link set lo up")) machine.run(std::move(test));
}

}  // namespace

TEST_SUITE("bot") {
    TEST_CASE("the bot answers the questions it knows, in order, and nothing else") {
        run_alone([] {
            small_program bot({"0"});
            const auto at = here(bot.port());
            recording_node node;
            const char* const said[] = {"!roll", "Hello", "a 3", "!ROLL", "!time"};
            for (const auto* const text : said) CHECK_FALSE(node->send(at, text));
            REQUIRE(node.wait_messages(2));
            const auto messages = node.seen().messages;
            CHECK(messages.size() == 2);
            for (const auto& m : messages) CHECK((m.team == "bot" && m.reply_to() == at));
            CHECK(messages[0].text.size() == 3);
            CHECK(messages[0].text.substr(0, 2) == "a ");
            CHECK((messages[0].text[2] >= '1' && messages[0].text[2] <= '6'));
            CHECK(std::stoll(messages[1].text) > 1700000000);
            CHECK(messages[1].text.find(" seconds since 1970") == 10);
            CHECK(bot.leave() == 0);
            CHECK(bot.text().find('\n') == bot.text().size() - 1);  // and has nothing to report
        });
    }

    TEST_CASE("the bot does not wait for a silent peer, and reports undelivered answers") {
        run_alone([] {
            small_program bot({"0"});
            const auto at = here(bot.port());
            support::raw_listener silent;
            CHECK(one_shot(at, wire(silent.address(), "!time")) == ending::closed);
            raw_peer answered = silent.accept();
            recording_node node;
            CHECK_FALSE(node->send(at, "!roll"));
            CHECK(node.wait_messages(1));
            answered.reset();
            CHECK(bot.expect(to_string(silent.address()) + ": " + says(p2pchat::errc::not_taken)));
            CHECK(one_shot(at, wire(here(1), "!time")) == ending::closed);
            CHECK(bot.expect("127.0.0.1:1: " + says(std::errc::connection_refused)));
            check_port_in_use({std::to_string(at.port())});
            CHECK(bot.leave() == 0);
        });
    }
}

TEST_SUITE("talk") {
    TEST_CASE("two instances of the first program find each other, talk, and answer nothing") {
        run_alone([] {
            small_program a({"ann", "0"}), b({"bob", "0"});
            const auto at = here(a.port());
            const auto b_port = b.port();
            REQUIRE(support::wait_until([&] {
                b.enter("Hi from b");
                return b.expect("\n") && b.text().find(": delivered\n") != std::string::npos;
            }));
            CHECK(a.expect(':' + std::to_string(b_port) + " bob: Hi from b\n"));
            recording_node node;
            REQUIRE_FALSE(node->connect(at).error);
            CHECK_FALSE(node->send(at, "Hi from a node"));
            CHECK(a.expect(to_string(node.address()) + " BTC: Hi from a node\n"));

            // Were there an answer to it, it would go out before the handler of the next.
            CHECK_FALSE(node->send(at, "and again"));
            CHECK(a.expect("and again\n"));
            a.enter("to all");
            CHECK(b.expect(" ann: to all\n"));
            CHECK(node.wait_text("to all"));
            CHECK(a.expect(": delivered\n"));
            CHECK(a.expect(": delivered\n"));
            CHECK(node.seen().messages.size() == 1);
            b.enter("the end");
            CHECK(a.expect(" bob: the end\n"));
            CHECK(node.seen().messages.size() == 1);
            CHECK(a.leave() == 0);
            CHECK(b.leave() == 0);
        });
    }

    TEST_CASE("the first program reports undelivered messages, and that no peer is known") {
        run_alone([] {
            small_program a({"ann", "0"});
            const auto at = here(a.port());
            a.enter("Hello?");
            CHECK(a.expect("nobody is known yet\n"));
            CHECK(one_shot(at, wire(here(1), "gone soon")) == ending::closed);
            CHECK(a.expect("127.0.0.1:1 Raw: gone soon\n"));
            a.enter("Hello again");
            CHECK(a.expect("127.0.0.1:1: " + says(std::errc::connection_refused)));

            check_port_in_use({"cat", std::to_string(at.port())});

            small_program nobody({});
            CHECK(nobody.expect(says(p2pchat::errc::bad_team)));
            CHECK(nobody.leave() == 1);
        });
    }

    TEST_CASE(
        "the first program shows a forged message with its origin, and does not write to it") {
        support::lan lan;
        if (!lan.usable()) return;
        std::unique_ptr<small_program> a;
        lan.here.run([&] {
            a = std::make_unique<small_program>(small_program::words{"ann", "0"});
        });
        const p2pchat::endpoint at(lan.here_address().address(), a->port());
        lan.there.run([&] {
            const auto forged = wire({"10.99.0.9", 5000}, "trust me");
            CHECK(one_shot(at, forged) == ending::closed);
        });
        CHECK(a->expect("10.99.0.2:"));
        CHECK(a->expect(" Raw: trust me\n"));
        a->enter("who are you?");
        CHECK(a->expect("nobody is known yet\n"));
    }
}

#endif
