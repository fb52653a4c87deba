// The first program of the README, as processes of its own: what it shows, sends and does not do.
// Linux only: what it announces must not leave the test.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "menu_program.hpp"
#include "support.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <string_view>

#if defined(__linux__)

using support::recording_node;

namespace {

/// A running program of the first screen.
class talk : public support::menu_program {
public:
    explicit talk(const words& arguments) : menu_program(arguments) {}

    /// The port by which it is known, as it says itself; it is on this machine.
    std::uint16_t port() {
        REQUIRE(expect("I am "));
        const auto begin = text().rfind("I am ") + 5;
        REQUIRE(expect("\n"));
        const auto end = text().find('\n', begin);
        p2pchat::endpoint result;
        REQUIRE_FALSE(parse(std::string_view(text()).substr(begin, end - begin), result));
        return result.port();
    }

    /// Ends its input; its exit status.
    int leave() {
        end_input();
        return finish();
    }
};

p2pchat::endpoint here(std::uint16_t port) { return {"127.0.0.1", port}; }

/// As it stands at the end of a line, in this system's words.
std::string says(std::error_code error) { return error.message() + '\n'; }
std::string says(std::errc value) { return says(std::make_error_code(value)); }

}  // namespace

TEST_CASE("two of the first program find each other, talk, also with a node, and none answers") {
    support::host machine;  // what they announce goes nowhere else
    if (!machine.usable() || !machine.command("ip link set lo up")) return;
    machine.run([] {
        talk a({"0"}), b({"0"});
        const auto at = here(a.port());
        const auto b_port = b.port();
        REQUIRE(support::wait_until([&] {
            b.enter("Hi from b");
            return b.expect("\n") && b.text().find(": delivered\n") != std::string::npos;
        }));
        CHECK(a.expect(':' + std::to_string(b_port) + " BTC: Hi from b\n"));
        recording_node node;
        REQUIRE_FALSE(node->connect(at).error);
        REQUIRE(a.expect(to_string(node.address()) + " BTC: CONNECT\n"));
        CHECK_FALSE(node->send(at, "Hi from a node"));
        CHECK(a.expect(to_string(node.address()) + " BTC: Hi from a node\n"));

        // Were there an answer to it, it would go out before the handler of the next.
        CHECK_FALSE(node->send(at, "and again"));
        CHECK(a.expect("and again\n"));
        a.enter("to all");
        CHECK(b.expect(" BTC: to all\n"));
        CHECK(node.wait_text("to all"));
        CHECK(a.expect(": delivered\n"));
        CHECK(a.expect(": delivered\n"));
        CHECK(node.seen().messages.size() == 1);
        b.enter("the end");
        CHECK(a.expect(" BTC: the end\n"));
        CHECK(node.seen().messages.size() == 1);
        CHECK(a.leave() == 0);
        CHECK(b.leave() == 0);
    });
}

TEST_CASE("the first program says what was not delivered, and that nobody is known") {
    support::host machine;
    if (!machine.usable() || !machine.command("ip link set lo up")) return;
    machine.run([] {
        talk a({"0"});
        const auto at = here(a.port());
        a.enter("Hello?");
        CHECK(a.expect("nobody is known yet\n"));
        CHECK(support::one_shot(at, support::wire(here(1), "gone soon")) ==
              support::ending::closed);
        CHECK(a.expect("127.0.0.1:1 Raw: gone soon\n"));
        a.enter("Hello again");
        CHECK(a.expect("127.0.0.1:1: " + says(std::errc::connection_refused)));

        talk second({std::to_string(at.port())});
        CHECK(second.expect(says(std::errc::address_in_use)));
        CHECK(second.leave() == 1);
    });
}

TEST_CASE("the first program shows a forged message with its origin, and writes to nobody for it") {
    support::lan lan;
    if (!lan.usable()) return;
    std::unique_ptr<talk> a;
    lan.here.run([&] { a = std::make_unique<talk>(talk::words{"0"}); });
    const p2pchat::endpoint at(lan.here_address().address(), a->port());
    lan.there.run([&] {
        const auto forged = support::wire({"10.99.0.9", 5000}, "trust me");
        CHECK(support::one_shot(at, forged) == support::ending::closed);
    });
    CHECK(a->expect("10.99.0.2:"));
    CHECK(a->expect(" Raw: trust me\n"));
    a->enter("who are you?");
    CHECK(a->expect("nobody is known yet\n"));
}

#endif
