// What the other suites did not notice when it was broken on purpose, or did not reach at all:
// bounds to the byte, what only shows when a node is started again, and rare turns of events.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <deque>
#include <future>
#include <random>

namespace {

using namespace support;
using p2pchat::departure;
using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::when_full;

/// A message of `size` bytes, sender and team included.
std::string message_of(std::size_t size, const endpoint& sender) {
    const std::size_t around = wire(sender, "", "BTC").size();
    return wire(sender, std::string(size - around, 'x'), "BTC");
}

}  // namespace

TEST_CASE("a one-shot may have max_message_bytes, a line's end behind it, and not one byte more") {
    auto settings = local();
    settings.max_message_bytes = 1000;
    recording_node node(settings);
    const endpoint sender("127.0.0.1", 5000);

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
    // All are to come before it is over for the first: on a slow machine they are fewer.
    const auto enough = std::chrono::steady_clock::now() + settings.first_message_timeout / 2;
    recording_node node(settings);
    std::deque<raw_peer> peers;
    std::vector<std::size_t> ending;
    std::vector<endpoint> silent, begun;
    std::mt19937 random(7);
    for (std::size_t i = 0; i < 150 && std::chrono::steady_clock::now() < enough; ++i) {
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
    REQUIRE(node.wait([&](const record& r) { return r.rejected.size() == peers.size(); }));

    std::vector<endpoint> late;
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
    outcomes sent;
    recording_node node(settings);
    raw_listener first, second;
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
    const endpoint claim("127.0.0.1", 9);
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
    const endpoint sender("127.0.0.1", 9);
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
    const endpoint claim("127.0.0.1", 9);
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

// ------------------------------------------------------------------------------------ addresses

TEST_CASE("our own address in a CONNECT from this machine makes neither link nor peer") {
    recording_node node;
    raw_peer peer(node.address());
    peer.send(wire(node.address(), "CONNECT\n"));
    CHECK(peer.read_to_end() == ending::closed);
    CHECK(peer.text().empty());
    CHECK(node.wait_rejected(errc::own_address));
    CHECK(node->peers().empty());
}

TEST_CASE("a peer that answers CONNECT with our own address is linked, and never verified") {
    recording_node node;
    raw_listener listener;
    auto connecting =
        std::async(std::launch::async, [&] { return node->connect(listener.address()); });
    raw_peer peer = listener.accept();
    CHECK(peer.line() == wire(node.address(), "CONNECT", "BTC"));
    peer.send(wire(node.address(), "CONNECT\n") + wire(node.address(), "I am you\n"));
    CHECK(connecting.get().linked);
    REQUIRE(node.wait_messages(1));
    CHECK_FALSE(node.seen().messages[0].verified);
    CHECK(node.seen().messages[0].reply_to() == listener.address());
}

TEST_CASE("our own port is ours by loopback too, and not by somebody else's address") {
    auto settings = local();
    settings.address = "198.51.100.1";  // only a name here: nothing is sent there
    recording_node node(settings);
    const endpoint here("127.0.0.1", node.address().port());
    one_shot(here, wire(node.address(), "by its name"));
    one_shot(here, wire(here, "by loopback"));
    one_shot(here, wire({"::1", here.port()}, "by the other loopback"));
    CHECK(node.wait_rejected(errc::own_address, 3));
    CHECK(node->peers().empty());

    const endpoint other("198.51.100.2", node.address().port());
    one_shot(here, wire(other, "another with the same port"));
    CHECK(node.wait_messages(4));
    REQUIRE(node->peers().size() == 1);
    CHECK(node->peers()[0].address == other);
}

// ---------------------------------------------------------------------------------------- links

TEST_CASE("a line of a link may bracket its words, or name an IPv6 address") {
    recording_node node;
    typed_link link(node);
    link.peer.send("<" + to_string(link.address()) + "> <Raw> in brackets\n");
    link.peer.send("[::1]:9 Raw by IPv6\n");
    CHECK(node.wait_text("in brackets"));
    CHECK(node.wait_text("by IPv6"));
    CHECK(link.wait_ack(2));
    CHECK(node.seen().rejected.empty());
}

TEST_CASE("of a link that says exit twice its peer leaves once") {
    recording_node node;
    typed_link link(node);
    link.peer.send(link.line("exit") + link.line("exit"));
    CHECK(link.wait_ack(2));
    CHECK(link.peer.read_to_end() == ending::closed);
    link.peer.close();
    one_shot(node.address(), wire(link.address(), "back"));
    CHECK(node.wait_joined(2));
    CHECK(node.seen().left.size() == 1);
}

TEST_CASE("what comes behind an ACK of what was never sent is not taken") {
    recording_node node;
    typed_link link(node);
    link.peer.send("ACK 99\n" + link.line("behind"));
    REQUIRE(node.wait_left(1));
    CHECK(node.seen().left[0].second == departure::lost);
    one_shot(node.address(), wire(link.address(), "later"));
    CHECK(node.wait_text("later"));
    CHECK(node.seen().count_text("behind") == 0);
}

TEST_CASE("having left, a node closes the link though the other side does not") {
    auto settings = local();
    settings.delivery_timeout = 300ms;
    outcomes sent;
    recording_node node(settings);
    typed_link link(node);
    CHECK_FALSE(sent.post(*node, link.address(), "exit"));
    CHECK(link.message() == wire(node.address(), "exit", "BTC"));
    link.peer.send("ACK 1\n");
    CHECK(sent.wait());
    CHECK(sent.count({}) == 1);
    CHECK(link.peer.line().empty());  // the half-close
    CHECK(wait_until([&] { return !link.peer.send("\n"); }));
}

TEST_CASE("having heard exit, a node closes the link though the other side does not") {
    auto settings = local();
    settings.delivery_timeout = 300ms;
    recording_node node(settings);
    typed_link link(node);
    CHECK(link.send("exit"));
    CHECK(link.wait_ack(1));
    CHECK(link.peer.line().empty());  // the half-close
    CHECK(wait_until([&] { return !link.peer.send("\n"); }));
}

TEST_CASE("a confirmation that comes after the time-out changes no outcome, and keeps the link") {
    auto settings = local();
    settings.delivery_timeout = 4s;
    outcomes sent;
    recording_node node(settings);
    typed_link link(node);
    CHECK_FALSE(sent.post(*node, link.address(), "one"));
    CHECK_FALSE(sent.post(*node, link.address(), "two"));
    CHECK(link.message() == wire(node.address(), "one", "BTC"));
    std::this_thread::sleep_for(settings.delivery_timeout /
                                2);  // two's time is over, one's was not
    link.peer.send("ACK 1\n");
    CHECK(sent.wait());
    CHECK(sent.count({}) == 1);
    CHECK(sent.count(std::errc::timed_out) == 1);

    link.peer.send("ACK 2\n");
    CHECK(sent.post(*node, link.address(), "three") == std::error_code());
    CHECK(link.message() == wire(node.address(), "two", "BTC"));
    CHECK(link.message() == wire(node.address(), "three", "BTC"));
    link.peer.send("ACK 3\n");
    CHECK(sent.wait());
    CHECK(sent.each_once());
    CHECK(sent.count({}) == 2);
    CHECK(node->statistics().delivered == 2);
    CHECK(node->statistics().undelivered == 1);
}

TEST_CASE("who waits for room on a link goes on without it when it breaks") {
    auto settings = local();
    settings.max_queued_bytes = 1500;
    recording_node node(settings);
    typed_link link(node);
    const std::string text(1000, 'x');
    REQUIRE_FALSE(node->post(link.address(), text));
    auto waiting = std::async(std::launch::async, [&] {
        return node->post(link.address(), text + "!", {}, when_full::wait);
    });
    CHECK(node->post(link.address(), text) == errc::queue_full);
    const support::stopwatch watch;
    link.peer.reset();
    CHECK_FALSE(waiting.get());
    CHECK(watch.is_short());
    raw_peer next = link.listener.accept();
    CHECK(next.read_to_end() == ending::closed);
    CHECK(next.text() == wire(node.address(), text + "!", "BTC"));
}

// ------------------------------------------------------------------------------------ one-shots

TEST_CASE("what a peer answers to a one-shot is nothing to us") {
    recording_node node;
    raw_listener listener;
    for (const bool by_post : {false, true}) {
        outcomes posted;
        auto sending = std::async(std::launch::async, [&] {
            return by_post ? posted.post(*node, listener.address(), "hi")
                           : node->send(listener.address(), "hi");
        });
        raw_peer peer = listener.accept();
        peer.send("HTTP/1.1 400 Bad Request\r\n");
        CHECK(peer.read_to_end() == ending::closed);
        peer.close();
        CHECK_FALSE(sending.get());
        CHECK(posted.wait());
        CHECK(posted.count({}) == posted.accepted());
    }
    CHECK(node->statistics().delivered == 2);
    CHECK(node.seen().rejected.empty());
}

TEST_CASE("max_message_bytes holds for messages of any size") {
    auto settings = local();
    settings.max_message_bytes = 100;
    recording_node node(settings);
    raw_listener listener;
    CHECK(node->send(listener.address(), std::string(100, 'x')) == errc::message_too_long);
}

#if !defined(_WIN32)  // where the system takes all of it at once
TEST_CASE("a peer that closes before it has all of a message has not taken it") {
    auto settings = local();
    settings.max_message_bytes = 32 * 1024 * 1024;
    outcomes sent;
    recording_node node(settings);
    raw_listener listener;
    CHECK_FALSE(sent.post(*node, listener.address(), std::string(30 * 1024 * 1024, 'x')));
    raw_peer peer = listener.accept();
    peer.half_close();
    CHECK(sent.wait());
    CHECK(sent.count(errc::not_taken) == 1);
}
#endif

// --------------------------------------------------------------------------------------- bounds

TEST_CASE("at max_connections of ours, whoever comes is served all the same") {
    auto settings = local();
    settings.max_connections = 1;
    outcomes sent;
    recording_node node(settings);
    raw_listener listener;
    CHECK_FALSE(sent.post(*node, listener.address(), "ours"));
    raw_peer ours = listener.accept();
    CHECK(one_shot(node.address(), wire({"127.0.0.1", 9}, "theirs")) == ending::closed);
    CHECK(node.wait_text("theirs"));
    CHECK(node.seen().rejected.empty());
    CHECK(ours.read_to_end() == ending::closed);
    ours.close();
    CHECK(sent.wait());
    CHECK(sent.count({}) == 1);
}

TEST_CASE("messages are under way to max_peers and max_links others at once, and to no more") {
    auto settings = local();
    settings.max_peers = settings.max_links = 1;
    outcomes sent;
    recording_node node(settings);
    raw_listener first, second, third;
    CHECK_FALSE(sent.post(*node, first.address(), "1"));
    CHECK_FALSE(sent.post(*node, second.address(), "2"));
    CHECK(sent.post(*node, third.address(), "3") == errc::queue_full);
    raw_peer peer = first.accept();
    CHECK(peer.read_to_end() == ending::closed);
    peer.close();
    CHECK(wait_until([&] { return sent.count({}) == 1; }));
    CHECK_FALSE(sent.post(*node, third.address(), "3"));
}

TEST_CASE("while max_received_bytes wait for the handlers, posts that want an outcome wait too") {
    gate handling;
    auto settings = local();
    settings.max_received_bytes = 2000;
    outcomes sent;
    recording_node node(settings,
                        [&](recording_node&, const p2pchat::message&) { handling.wait(); });
    raw_listener listener;
    for (int i = 0; i < 2; ++i)
        CHECK(one_shot(node.address(), message_of(1000, {"127.0.0.1", 9})) == ending::closed);
    REQUIRE(wait_until([&] {  // it closes before it hands over
        return sent.post(*node, listener.address(), "refused") == errc::queue_full;
    }));
    CHECK_FALSE(node->post(listener.address(), "without an outcome"));
    auto waiting = std::async(std::launch::async, [&] {
        return sent.post(*node, listener.address(), "waits", when_full::wait);
    });
    CHECK(waiting.wait_for(50ms) == std::future_status::timeout);
    const support::stopwatch watch;
    handling.open();
    CHECK_FALSE(waiting.get());
    CHECK(watch.is_short());
}

TEST_CASE("refusals that no handler fetches are counted, and fill no memory") {
    gate handling;
    auto settings = local();
    settings.max_received_bytes = 2000;
    recording_node node(settings,
                        [&](recording_node&, const p2pchat::message&) { handling.wait(); });
    for (int i = 0; i < 2; ++i)
        CHECK(one_shot(node.address(), message_of(1000, {"127.0.0.1", 9})) == ending::closed);
    for (int i = 0; i < 100; ++i) CHECK(one_shot(node.address(), "no message") == ending::reset);
    CHECK(wait_until([&] { return node->statistics().rejected == 100; }));
    handling.open();
    CHECK(node.wait_messages(2));
    CHECK(node.seen().rejected.size() < 50);
}

// ------------------------------------------------------------------------------------- handlers

TEST_CASE("a node without handlers takes, counts and sends all the same") {
    p2pchat::node node(local());
    REQUIRE_FALSE(node.start());
    const endpoint sender("127.0.0.1", 9);
    CHECK(one_shot(node.address(), wire(sender, "hello")) == ending::closed);
    CHECK(one_shot(node.address(), "no message") == ending::reset);
    CHECK(node.peers().size() == 1);
    CHECK(one_shot(node.address(), wire(sender, "exit")) == ending::closed);
    CHECK(wait_until([&] { return node.peers().empty(); }));
    CHECK(node.statistics().received == 2);
    CHECK(node.statistics().rejected == 1);
}

TEST_CASE("after drain_timeout no handler is called, whatever waits for it") {
    gate handling;
    auto settings = local();
    settings.drain_timeout = 20ms;
    recording_node node(settings,
                        [&](recording_node&, const p2pchat::message&) { handling.wait(); });
    one_shot(node.address(), wire({"127.0.0.1", 9}, "handled"));
    REQUIRE(node.wait_messages(1));
    one_shot(node.address(), wire({"127.0.0.1", 10}, "dropped"));
    one_shot(node.address(), wire({"127.0.0.1", 10}, "exit"));
    one_shot(node.address(), "no message");
    auto stopping = std::async(std::launch::async, [&] { node->stop(); });
    CHECK(wait_until([&] { return node->send({"127.0.0.1", 9}, "x") == errc::stopped; }));
    std::this_thread::sleep_for(2 * settings.drain_timeout);  // it began before it said stopped
    handling.open();
    stopping.get();
    const auto seen = node.seen();
    CHECK(seen.messages.size() == 1);
    CHECK(seen.joined.size() == 1);
    CHECK(seen.left.empty());
    CHECK(seen.rejected.empty());
    CHECK(node->statistics().dropped == 1);
}
