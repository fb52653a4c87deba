// Things that cross: a start and a stop, an exit and what is under way, a full inbox and whoever
// gives up meanwhile, a peer that never ends.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

namespace {

using namespace support;
using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::when_full;

/// A node whose handler stays in its first message until it is let go. The inbox has room for few.
struct busy_node {
    gate inside, go_on;
    recording_node node;

    busy_node()
        : node(small(), [this](recording_node&, const p2pchat::message&) {
              inside.open();
              go_on.wait();
          }) {
        CHECK(one_shot(node.address(), wire(other(), "keep busy")) == ending::closed);
        CHECK(inside.wait());
    }
    ~busy_node() { go_on.open(); }

    static p2pchat::config small() {
        auto settings = local("Busy");
        settings.max_received_bytes = 2000;
        return settings;
    }
    static endpoint other() { return {"127.0.0.1", 9}; }

    /// Returns when the node has read all that was sent to it before: it refuses at once what is no
    /// message, room or not. What is sent on a connection that was accepted before is read in a
    /// later turn, behind or beside what came earlier: so the second one that was is behind it all.
    /// (Of the first it is not known: what was accepted may have been another.)
    void read_all() {
        for (int i = 0; i < 3; ++i) {
            const auto accepted = node->statistics().connections;
            raw_peer probe(node.address());
            CHECK(wait_until([&] { return node->statistics().connections > accepted; }));
            probe.send("no message");
            probe.half_close();
            CHECK(probe.read_to_end() == ending::reset);
        }
    }

    /// No message more has room.
    void fill() {
        for (;;) {
            const auto taken = node->statistics().received;
            fillers.emplace_back(node.address());
            fillers.back().send(wire(other(), "filler"));
            fillers.back().half_close();
            read_all();
            if (node->statistics().received == taken) return;
        }
    }

    std::deque<raw_peer> fillers;
};

}  // namespace

TEST_CASE("what is sent after a quiet time is not late, and loses no link") {
    auto settings = local();
    settings.delivery_timeout = 400ms;
    recording_node from(settings);
    std::deque<recording_node> others(30);
    for (auto& other : others) REQUIRE(from->connect(other.address()).linked);
    for (int round = 0; round < 2; ++round) {
        std::this_thread::sleep_for(1s);  // more than twice delivery_timeout: that is the case
        for (const auto& outcome : from->broadcast("after a while")) CHECK_FALSE(outcome.error);
    }
    CHECK(linked_peers(*from) == others.size());
}

TEST_CASE("a peer that answers without end holds up neither send nor stop") {
    raw_listener listener;
    auto settings = local();
    SUBCASE("send") { settings.delivery_timeout = 300ms; }
    SUBCASE("stop") {}
    const bool stops = settings.delivery_timeout == patience;
    recording_node node(settings);
    const stopwatch watch;
    std::error_code error;
    std::atomic<bool> answering{false}, over{false};
    std::thread sender([&] { error = node->send(listener.address(), "short"); });
    std::thread peer([&] {
        auto accepted = listener.accept();
        const std::string much(4 * 1024 * 1024, 'x');
        while (!over && accepted.send(much)) answering = true;
    });
    if (stops) {
        CHECK(wait_until([&] { return answering.load(); }));
        node->stop();
    }
    sender.join();
    CHECK(watch.is_short());
    CHECK((stops ? error == errc::stopped : error == std::errc::timed_out));
    over = true;
    peer.join();
}

TEST_CASE("at max_connections a message that fails at once lets the next one begin") {
    auto settings = local();
    settings.max_connections = 1;
    outcomes sent;
    recording_node node(settings), live;
    raw_listener slow;
    CHECK_FALSE(sent.post(*node, slow.address(), "first"));
    raw_peer first = slow.accept();
    CHECK_FALSE(sent.post(*node, endpoint("255.255.255.255", 9), "nobody can"));
    CHECK_FALSE(sent.post(*node, live.address(), "next"));
    first.close();
    CHECK(sent.wait());
    CHECK(live.wait_text("next"));
}

TEST_CASE("a stop beside a start returns, and so does one after it") {
    for (int round = 0; round < 20; ++round) {
        gate inside, go_on;
        recording_node other;
        recording_node node(local(), [&](recording_node& self, const p2pchat::message&) {
            self->stop();
            inside.open();
            go_on.wait();
        });
        CHECK_FALSE(other->send(node.address(), "stop"));
        CHECK(inside.wait());
        std::thread starting([&] { static_cast<void>(node->start()); });  // waits for the handler
        std::atomic<bool> returned{false};
        std::thread stopping([&] {
            node->stop();
            returned = true;
        });
        std::this_thread::sleep_for(1ms * (round % 4));  // whatever the order
        go_on.open();
        starting.join();
        const bool prompt = wait_until([&] { return returned.load(); }, patience / 2);
        CHECK(prompt);
        node->stop();
        stopping.join();
        CHECK(node->send(other.address(), "stopped") == errc::stopped);
        if (!prompt) return;
    }
}

TEST_CASE("a node stopped by its handler starts again only when its senders have given up") {
    std::deque<raw_listener> silent(20);
    recording_node node(local(),
                        [](recording_node& self, const p2pchat::message&) { self->stop(); });
    for (int round = 0; round < 5; ++round) {
        std::vector<std::thread> senders;
        std::deque<raw_peer> accepted;
        for (auto& peer : silent) {
            senders.emplace_back([&] { CHECK(node->send(peer.address(), "x") == errc::stopped); });
            accepted.push_back(peer.accept());
        }
        CHECK(one_shot(node.address(), wire({"127.0.0.1", 9}, "stop")) != ending::open);
        CHECK(wait_until([&] { return !node->start(); }));
        for (auto& peer : accepted) {
            char text[256];
            std::size_t size = 1;
            std::error_code error;
            while (!error && size != 0) error = peer.socket().receive(text, sizeof text, size, {});
            CHECK(error != std::errc::operation_would_block);
        }
        for (auto& sender : senders) sender.join();
    }
}

TEST_CASE("links that are opened while the inbox is full wait, and fill no memory") {
    busy_node busy;
    busy.fill();
    const auto taken = busy.node->statistics().received;
    std::deque<raw_peer> openers;
    for (std::uint16_t port = 1; port <= 50; ++port) {
        openers.emplace_back(busy.node.address());
        CHECK(openers.back().send(wire({"127.0.0.1", port}, "CONNECT\n")));
    }
    busy.read_all();
    CHECK(busy.node->statistics().received == taken);
    CHECK(linked_peers(*busy.node) == 0);
    openers.back().reset();  // has given up

    busy.go_on.open();
    for (std::size_t i = 0; i + 1 < openers.size(); ++i)
        CHECK(openers[i].line() == wire(busy.node.address(), "CONNECT", "Busy"));
    CHECK(busy.node.wait([&](const record& r) { return r.count_text("CONNECT") == 49; }));
    CHECK(openers.front().send(wire({"127.0.0.1", 1}, "over the link\n")));
    CHECK(openers.front().line() == "ACK 1");
    CHECK(linked_peers(*busy.node) == 49);
}

TEST_CASE("a message that waits for room is not shown when its sender gives up") {
    busy_node busy;
    busy.fill();
    raw_peer peer(busy.node.address());
    CHECK(peer.send(wire({"127.0.0.1", 9}, "given up")));
    peer.half_close();
    busy.read_all();
    peer.reset();
    busy.go_on.open();
    for (auto& filler : busy.fillers) CHECK(filler.read_to_end() == ending::closed);
    CHECK(one_shot(busy.node.address(), wire({"127.0.0.1", 9}, "the last")) == ending::closed);
    CHECK(busy.node.wait_text("the last"));
    CHECK(busy.node.seen().count_text("given up") == 0);
}

TEST_CASE("who says exit still takes, and confirms, what had no room yet") {
    outcomes sent;
    busy_node busy;
    recording_node peer;
    CHECK(peer->connect(busy.node.address()).linked);
    for (int i = 0; i < 50; ++i) CHECK_FALSE(sent.post(*peer, busy.node.address(), "message"));
    CHECK_FALSE(busy.node->leave(peer.address()));
    busy.go_on.open();
    CHECK(sent.wait());
    CHECK(sent.count({}) == 50);
    CHECK(busy.node.wait([](const record& r) { return r.count_text("message") == 50; }));
}

TEST_CASE("of two links to one peer the newer is used, and the older ends when it is idle") {
    outcomes sent;
    recording_node node;
    raw_listener listener;
    std::thread opening([&] { CHECK(node->connect(listener.address()).linked); });
    raw_peer first = listener.accept();
    CHECK(first.line() == wire(node.address(), "CONNECT", "BTC"));
    CHECK(first.send(wire(listener.address(), "CONNECT\n")));
    opening.join();
    CHECK_FALSE(sent.post(*node, listener.address(), "under way"));
    CHECK(first.line() == wire(node.address(), "under way", "BTC"));

    raw_peer second(node.address());  // the same peer, at the same time
    CHECK(second.send(wire(listener.address(), "CONNECT\n")));
    CHECK(second.line() == wire(node.address(), "CONNECT", "BTC"));
    CHECK_FALSE(sent.post(*node, listener.address(), "by the newer"));

    CHECK(first.send(wire(listener.address(), "not heard of it yet\n") + "ACK 1\n"));
    CHECK(first.line() == "ACK 1");
    CHECK(second.line() == wire(node.address(), "by the newer", "BTC"));  // nor passed the other
    CHECK(second.send("ACK 1\n"));
    CHECK(node.wait_text("not heard of it yet"));
    CHECK(sent.wait());
    CHECK(sent.count({}) == 2);
    CHECK(first.read_to_end() == ending::closed);
    first.close();
    CHECK(linked_peers(*node) == 1);
    CHECK(node.seen().left.empty());
}

TEST_CASE("what is posted after exit waits until that has arrived") {
    outcomes sent;
    recording_node node;
    typed_link link(node);
    for (const char* text : {"before", "exit", "after"})
        CHECK_FALSE(sent.post(*node, link.address(), text));
    CHECK(link.message() == wire(node.address(), "before", "BTC"));
    CHECK(link.message() == wire(node.address(), "exit", "BTC"));
    p2pchat::tcp_socket none;
    CHECK(link.listener.socket().accept(none, 50ms) == std::errc::timed_out);

    const stopwatch watch;
    CHECK(link.peer.send("ACK 2\n"));
    raw_peer next = link.listener.accept();
    CHECK(watch.is_short());  // it does not wait for the other side to close the link too
    CHECK(next.read_to_end() == ending::closed);
    CHECK(next.text() == wire(node.address(), "after", "BTC"));
    next.close();
    CHECK(sent.wait());
    CHECK(sent.count({}) == 3);
}

TEST_CASE("what is posted after an exit that nobody confirms is sent all the same") {
    outcomes sent;
    recording_node node;
    typed_link link(node);
    for (const char* text : {"exit", "after"}) CHECK_FALSE(sent.post(*node, link.address(), text));
    CHECK(link.message() == wire(node.address(), "exit", "BTC"));
    link.peer.reset();
    raw_peer next = link.listener.accept();
    CHECK(next.read_to_end() == ending::closed);
    next.close();
    CHECK(sent.wait());
    CHECK(sent.count(errc::link_lost) == 1);
    CHECK(sent.count({}) == 1);
}

TEST_CASE("links that are being opened count for max_links") {
    auto settings = local();
    settings.max_links = 2;
    recording_node node(settings);
    std::deque<raw_listener> listeners(4);
    std::vector<std::thread> opening;
    for (auto& listener : listeners)
        opening.emplace_back([&] { static_cast<void>(node->connect(listener.address())); });
    // Two ask for a link, by a line's end; the others say it as a one-shot.
    std::deque<raw_peer> peers;
    std::size_t asking = 0;
    for (auto& listener : listeners) {
        peers.push_back(listener.accept());
        char text[256];
        std::size_t size = 0;
        CHECK_FALSE(peers.back().socket().receive(text, sizeof text, size, patience));
        if (std::string_view(text, size).back() == '\n') ++asking;
    }
    CHECK(asking == 2);
    raw_peer another(node.address());
    CHECK(another.send(wire({"127.0.0.1", 9}, "CONNECT\n")));
    another.half_close();
    CHECK(another.read_to_end() == ending::closed);
    CHECK(another.text().empty());
    for (auto& peer : peers) peer.close();
    for (auto& thread : opening) thread.join();
}

TEST_CASE("links that did not come about, and those that have ended, count for max_links no more") {
    auto settings = local();
    settings.max_links = 1;
    recording_node node(settings);
    nobody nowhere;
    for (int round = 0; round < 3; ++round) {
        CHECK(node->connect(nowhere.address()).error == std::errc::connection_refused);
        recording_node other;
        CHECK(node->connect(other.address()).linked);
        CHECK_FALSE(node->leave(other.address()));
        CHECK(wait_until([&] {  // the link is gone when another may be made
            return node->connect(other.address()).linked;
        }));
        other->stop();
        CHECK(wait_until([&] { return linked_peers(*node) == 0; }));
        raw_peer theirs(node.address());
        CHECK(theirs.send(wire({"127.0.0.1", 9}, "CONNECT\n")));
        CHECK(theirs.line() == wire(node.address(), "CONNECT", "BTC"));
        theirs.reset();
        CHECK(node.wait_left(static_cast<std::size_t>(2 * (round + 1))));
    }
}

TEST_CASE("what was not sent yet when stop was called is reported so, and not sent") {
    bool unsent = false;
    for (int round = 0; round < 200 && !unsent; ++round) {  // mostly stop comes first
        recording_node from, to;
        CHECK(from->connect(to.address()).linked);
        outcomes sent;
        CHECK_FALSE(sent.post(*from, to.address(), "now or never"));
        from->stop();
        CHECK(sent.wait());
        CHECK(to.wait_left(1));
        unsent = sent.count(errc::stopped) == 1 && to.seen().count_text("now or never") == 0;
    }
    CHECK(unsent);
}

TEST_CASE("a time-out may be as long as can be said") {
    auto settings = local();
    settings.connect_timeout = settings.handshake_timeout = settings.delivery_timeout =
        settings.first_message_timeout = settings.quiet_period = milliseconds::max();
    recording_node from(settings), to(settings);
    CHECK_FALSE(from->send(to.address(), "short"));
    CHECK_FALSE(from->send(to.address(), std::string(5000, 'x')));
    CHECK(from->connect(to.address()).linked);
    CHECK_FALSE(from->send(to.address(), "over the link"));

    p2pchat::tcp_socket listener, accepted;
    CHECK_FALSE(listener.listen({"127.0.0.1", 0}));
    std::thread connecting([&] {
        p2pchat::tcp_socket socket;
        CHECK_FALSE(socket.connect(listener.local(), milliseconds::max()));
    });
    CHECK_FALSE(listener.accept(accepted, milliseconds::max()));
    connecting.join();
}

TEST_CASE("connecting to ourselves by loopback is told too") {
    auto settings = local();
    settings.address = "192.0.2.1";
    recording_node node(settings);
    const endpoint loopback("127.0.0.1", node.address().port());
    CHECK(node->connect(loopback).error == errc::own_address);
}

TEST_CASE("a handler that posts does not wait for room in the inbox that only it can make") {
    std::error_code refused;
    gate done;
    recording_node to;
    auto settings = local();
    settings.max_received_bytes = 1000;
    recording_node node(settings, [&](recording_node& us, const p2pchat::message&) {
        const auto post = [&](when_full mode) {
            return us->post(
                to.address(), "x", [](std::error_code) {}, mode);
        };
        // Outcomes come back to the inbox, and this thread fetches none: so it fills.
        for (std::size_t count = 1; !post(when_full::refuse) && to.wait_messages(count);) ++count;
        refused = post(when_full::wait);
        done.open();
    });
    const stopwatch watch;
    CHECK(one_shot(node.address(), wire({"127.0.0.1", 9}, "post")) == ending::closed);
    CHECK(done.wait());
    CHECK(watch.is_short());
    CHECK(refused == errc::queue_full);
}
