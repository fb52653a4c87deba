// What the other suites did not notice when it was broken on purpose: bounds to the byte, and what
// only shows when a node is started again.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <deque>
#include <random>

namespace {

using namespace support;
using p2pchat::errc;

/// A message of `size` bytes, sender and team included.
std::string message_of(std::size_t size, const p2pchat::endpoint& sender) {
    const std::size_t around = wire(sender, "", "BTC").size();
    return wire(sender, std::string(size - around, 'x'), "BTC");
}

}  // namespace

TEST_CASE("a one-shot may have max_message_bytes, a line's end behind it, and not one byte more") {
    auto settings = local();
    settings.max_message_bytes = 1000;
    recording_node node(settings);
    const p2pchat::endpoint sender("127.0.0.1", 5000);

    CHECK(one_shot(node.address(), message_of(1000, sender)) == ending::closed);
    CHECK(one_shot(node.address(), message_of(1000, sender) + "\r\n") == ending::closed);
    CHECK(node.wait_messages(2));
    CHECK(node.seen().rejected.empty());

    CHECK(one_shot(node.address(), message_of(1001, sender)) == ending::reset);
    CHECK(node.wait_rejected(errc::message_too_long));
    CHECK(node.seen().messages.size() == 2);
}

TEST_CASE("a node that stopped with messages under way on a link starts again and forgets them") {
    recording_node a, b;
    for (int round = 0; round < 20; ++round) {
        CHECK_FALSE(a->connect(b.address()).error);
        outcomes sent;
        for (int i = 0; i < 50; ++i) CHECK_FALSE(sent.post(*a, b.address(), "under way"));
        a->stop();
        CHECK(sent.wait());
        CHECK(sent.each_once());
        REQUIRE_FALSE(a->start());
        CHECK_FALSE(a->send(b.address(), "again " + std::to_string(round)));
        CHECK(b.wait_text("again " + std::to_string(round)));
    }
}

TEST_CASE("whatever ends in between, time-outs come in their order") {
    auto settings = local();
    settings.first_message_timeout = std::chrono::seconds(2);
    settings.quiet_period = std::chrono::milliseconds(200);
    recording_node node(settings);
    std::deque<raw_peer> peers;
    std::vector<std::size_t> ending;
    std::vector<p2pchat::endpoint> silent, begun;
    std::mt19937 random(7);
    for (std::size_t i = 0; i < 300; ++i) {
        raw_peer& peer = peers.emplace_back(node.address());
        const auto from = peer.socket().local();
        const auto kind = random() % 3;
        if (kind == 0) ending.push_back(i);
        if (kind == 1) silent.push_back(from);
        if (kind == 2) begun.push_back(from);
        if (kind == 2) CHECK(peer.send("no"));
        // One at a time: so no two of them have the same time.
        REQUIRE(wait_until([&] { return node->statistics().connections == i + 1; }));
    }
    std::shuffle(ending.begin(), ending.end(), random);
    for (const auto i : ending) peers[i].reset();
    REQUIRE(node.wait([](const record& r) { return r.rejected.size() == 300; }));

    std::vector<p2pchat::endpoint> late;
    std::size_t quiet = 0;
    for (const auto& [from, why] : node.seen().rejected) {
        if (why == std::errc::timed_out) late.push_back(from);
        if (why != errc::bad_address) continue;
        CHECK(late.empty());
        ++quiet;
    }
    CHECK(quiet == begun.size());
    CHECK(late == silent);
}

TEST_CASE("at max_connections a message waits until a connection of ours ends") {
    auto settings = local();
    settings.max_connections = 1;
    recording_node node(settings);
    raw_listener first, second;
    outcomes sent;
    CHECK_FALSE(sent.post(*node, first.address(), "one"));
    raw_peer held = first.accept();
    CHECK_FALSE(sent.post(*node, second.address(), "two"));
    p2pchat::tcp_socket none;
    CHECK(second.socket().accept(none, std::chrono::milliseconds(50)) == std::errc::timed_out);

    CHECK(held.read_to_end() == ending::closed);
    held.close();
    raw_peer next = second.accept();
    CHECK(next.read_to_end() == ending::closed);
    next.close();
    CHECK(sent.wait());
    CHECK(sent.count({}) == 2);
}

TEST_CASE("who has a link says exit over it: a one-shot that says so for it removes nobody") {
    recording_node node;
    const p2pchat::endpoint claim("127.0.0.1", 9);
    raw_peer linked(node.address());
    linked.send(wire(claim, "CONNECT\n"));
    CHECK(linked.line() == wire(node.address(), "CONNECT", "BTC"));

    one_shot(node.address(), wire(claim, "exit"));
    CHECK(node.wait_rejected(errc::sender_not_verified));
    REQUIRE(node->peers().size() == 1);
    CHECK(node->peers()[0].linked);
    CHECK(node.seen().left.empty());

    linked.send(wire(claim, "exit\n"));
    CHECK(node.wait_left(1));
    CHECK(node->peers().empty());
}

TEST_CASE("a one-shot of several lines may come line by line") {
    recording_node node;
    raw_peer peer(node.address());
    const p2pchat::endpoint sender("127.0.0.1", 9);
    peer.send(wire(sender, "one\n"));
    CHECK(wait_until([&] { return node->statistics().connections == 1; }));
    peer.send("two\n");
    peer.send("three");
    peer.half_close();
    CHECK(peer.read_to_end() == ending::closed);
    CHECK(node.wait_text("one\ntwo\nthree"));
}

TEST_CASE("of a link whose messages nobody handles no more is read than its window") {
    gate handling;
    auto settings = local();
    settings.max_received_bytes = 1024;
    recording_node node(settings, [&](recording_node&, const p2pchat::message& m) {
        if (m.text != "CONNECT") handling.wait();
    });
    const p2pchat::endpoint claim("127.0.0.1", 9);
    raw_peer linked(node.address());
    linked.send(wire(claim, "CONNECT\n"));
    CHECK(linked.line() == wire(node.address(), "CONNECT", "BTC"));

    std::string lines;
    while (lines.size() < 64 * 1024) lines += wire(claim, std::string(1000, 'x')) + '\n';
    std::error_code error;
    std::size_t total = 0, sent = 0;
    for (; !error && total < 64 * 1024 * 1024; total += sent)
        error = linked.socket().send(lines, sent, 1000ms);
    CHECK(error == std::errc::timed_out);  // what the systems' buffers hold was taken, not more
    handling.open();
}
