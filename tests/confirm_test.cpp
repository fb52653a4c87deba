// Tests of confirm_later: messages that the program itself confirms.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using p2pchat::errc;
using support::local;
using support::outcomes;
using support::raw_peer;
using support::recording_node;

namespace {

/// Settings of a node that confirms later.
p2pchat::config later() {
    auto settings = local();
    settings.confirm_later = true;
    return settings;
}

std::string line(const std::string& text) { return "127.0.0.1:9 Ann " + text + '\n'; }

/// A link to `node`, typed by hand; the answer to CONNECT has been read.
raw_peer linked(recording_node& node) {
    raw_peer peer(node.address());
    REQUIRE(peer.send(line("CONNECT")));
    REQUIRE(peer.line() == "127.0.0.1:" + std::to_string(node.address().port()) + " BTC CONNECT");
    return peer;
}

/// The receipts of all messages, in the order of their arrival.
std::vector<std::uint64_t> receipts(recording_node& node) {
    std::vector<std::uint64_t> result;
    for (const auto& m : node.seen().messages) result.push_back(m.receipt);
    return result;
}

}  // namespace

TEST_CASE("a one-shot is delivered when the program has confirmed it, and not before") {
    recording_node node(later()), sender;
    outcomes sent;
    REQUIRE_FALSE(sent.post(*sender, node.address(), "hi"));
    REQUIRE(node.wait_text("hi"));
    const auto receipt = node.seen().messages.front().receipt;
    REQUIRE(receipt != 0);
    // If it were confirmed already, its outcome would come before this one's.
    const support::nobody absent;
    REQUIRE(sender->send(absent.address(), "nobody is there") == std::errc::connection_refused);
    CHECK(sent.count({}) == 0);
    SUBCASE("taken") {
        node->confirm(receipt);
        REQUIRE(sent.wait());
        CHECK(sent.count({}) == 1);
    }
    SUBCASE("not taken") {
        node->confirm(receipt, false);
        REQUIRE(sent.wait());
        CHECK(sent.count(make_error_code(errc::not_taken)) == 1);
        CHECK(node.wait_rejected(make_error_code(errc::not_taken)));
    }
    SUBCASE("the node stops first") {
        node->stop();
        REQUIRE(sent.wait());
        CHECK(sent.count({}) == 0);
        node->confirm(receipt);
    }
    node->confirm(receipt);  // neither a second time nor an unknown receipt does anything
    node->confirm(0);
    node->confirm(receipt + 1000, false);
    CHECK(sent.each_once());
}

TEST_CASE(
    "a handler may confirm its message, and a node without confirm_later confirms by itself") {
    recording_node node(later(), [](recording_node& self, const p2pchat::message& m) {
        self->confirm(m.receipt, m.text != "bad");
    });
    recording_node sender;
    CHECK_FALSE(sender->send(node.address(), "good"));
    CHECK(sender->send(node.address(), "bad") == errc::not_taken);
    CHECK_FALSE(node->send(sender.address(), "hi"));
    REQUIRE(sender.wait_text("hi"));
    CHECK(sender.seen().messages.back().receipt == 0);
}

TEST_CASE("a confirmation on a link waits for those of the messages before it") {
    recording_node node(later());
    auto peer = linked(node);
    REQUIRE(peer.send(line("1") + line("2") + line("3")));
    REQUIRE(node.wait_messages(3));
    const auto got = receipts(node);
    REQUIRE(got.size() == 3);
    node->confirm(got[1]);
    REQUIRE_FALSE(node->post({"127.0.0.1", 9}, "a line to see that no ACK came before it"));
    CHECK(peer.line().find("a line to see") != std::string::npos);
    node->confirm(got[0]);
    CHECK(peer.line() == "ACK 2");
    node->confirm(got[2]);
    CHECK(peer.line() == "ACK 3");
    REQUIRE(peer.send("ACK 1\n" + line("exit")));
    CHECK(peer.line() == "ACK 4");
    CHECK(peer.read_to_end() == support::ending::closed);
}

TEST_CASE("a link with an unconfirmed message ends in order only when that is confirmed") {
    recording_node node(later());
    auto peer = linked(node);
    REQUIRE(peer.send(line("1") + line("exit")));
    REQUIRE(node.wait_left(1));
    SUBCASE("it is confirmed") {
        node->confirm(receipts(node)[0]);
        CHECK(peer.line() == "ACK 2");
        CHECK(peer.read_to_end() == support::ending::closed);
    }
    SUBCASE("it is refused") {
        node->confirm(receipts(node)[0], false);
        CHECK(peer.read_to_end() == support::ending::reset);
    }
    SUBCASE("the node stops") {
        node->stop();
        CHECK(peer.read_to_end() == support::ending::reset);
    }
    SUBCASE("the other side half-closes before that") {
        peer.half_close();
        CHECK(peer.read_to_end() == support::ending::reset);
        node->confirm(receipts(node)[0]);
    }
    CHECK(peer.text().empty());
}

TEST_CASE("refusing a message on a link ends the link, and fails all that is unconfirmed on it") {
    recording_node node(later()), sender;
    REQUIRE(sender->connect(node.address()).linked);
    outcomes sent;
    for (const auto* text : {"1", "2", "3"})
        REQUIRE_FALSE(sent.post(*sender, node.address(), text));
    REQUIRE(node.wait_messages(3));
    const auto got = receipts(node);
    node->confirm(got[0]);
    REQUIRE(support::wait_until([&] { return sent.count({}) == 1; }));
    node->confirm(got[1], false);
    REQUIRE(sent.wait());
    CHECK(sent.count(make_error_code(errc::link_lost)) == 2);
    CHECK(node.wait_rejected(make_error_code(errc::not_taken)));
    node->confirm(got[2]);  // its link is gone
}

TEST_CASE("a confirmation is sent before a refusal ends the link") {
    recording_node node(later()), sender;
    REQUIRE(sender->connect(node.address()).linked);
    outcomes sent;
    for (const auto* text : {"1", "2"}) REQUIRE_FALSE(sent.post(*sender, node.address(), text));
    REQUIRE(node.wait_messages(2));
    const auto got = receipts(node);
    node->confirm(got[0]);
    node->confirm(got[1], false);
    REQUIRE(sent.wait());
    CHECK(sent.count({}) == 1);
    CHECK(sent.count(make_error_code(errc::link_lost)) == 1);
}

TEST_CASE("a message that is not confirmed within delivery_timeout is refused") {
    auto settings = later();
    settings.delivery_timeout = 50ms;
    recording_node node(settings), sender;
    SUBCASE("a one-shot") { CHECK(sender->send(node.address(), "hi") == errc::not_taken); }
    SUBCASE("on a link") {
        REQUIRE(sender->connect(node.address()).linked);
        CHECK(sender->send(node.address(), "hi") == errc::link_lost);
    }
    CHECK(node.wait_rejected(std::errc::timed_out));
    node->confirm(node.seen().messages.back().receipt);
}

TEST_CASE("unconfirmed messages hold up others at max_received_bytes until they are confirmed") {
    auto settings = later();
    settings.max_received_bytes = 4000;
    constexpr std::size_t count = 100;
    recording_node node(settings), sender;
    outcomes sent;
    std::vector<raw_peer> one_shots;
    SUBCASE("over a link") {
        REQUIRE(sender->connect(node.address()).linked);
        for (std::size_t i = 0; i < count; ++i)
            REQUIRE_FALSE(sent.post(*sender, node.address(), std::to_string(i)));
    }
    SUBCASE("one-shots") {
        for (std::size_t i = 0; i < count; ++i) {
            one_shots.emplace_back(node.address());
            REQUIRE(one_shots.back().send(line(std::to_string(i))));
            one_shots.back().half_close();
        }
        REQUIRE(support::wait_until([&] { return node->statistics().connections == count; }));
    }
    std::size_t confirmed = 0;
    while (confirmed < count) {
        REQUIRE(support::wait_until([&] { return receipts(node).size() > confirmed; }));
        const auto got = receipts(node);
        CHECK(got.size() - confirmed < 60);
        for (; confirmed < got.size(); ++confirmed) node->confirm(got[confirmed]);
    }
    REQUIRE(sent.wait());
    CHECK(sent.count({}) == sent.accepted());
    for (auto& each : one_shots) CHECK(each.read_to_end() == support::ending::closed);
}

TEST_CASE("a receipt from before a restart of the node confirms nothing after it") {
    recording_node node(later()), sender;
    outcomes sent;
    REQUIRE_FALSE(sent.post(*sender, node.address(), "before"));
    REQUIRE(node.wait_text("before"));
    node->stop();
    REQUIRE(sent.wait());
    REQUIRE_FALSE(node->start());
    REQUIRE_FALSE(sent.post(*sender, node.address(), "after"));
    REQUIRE(node.wait_text("after"));
    const auto got = receipts(node);
    CHECK(got[1] > got[0]);
    node->confirm(got[0]);
    CHECK(sent.count({}) == 0);
    node->confirm(got[1]);
    REQUIRE(sent.wait());
    CHECK(sent.count({}) == 1);
}
