// Tests of the limits: those of config, the system's file descriptors, and the share that each
// host has of them.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>

#if defined(__linux__)
#include <malloc.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

namespace {

using namespace support;
using p2pchat::config;
using p2pchat::departure;
using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::message;
using p2pchat::when_full;

/// A message of `size` bytes, sender and team included.
std::string message_of(std::size_t size, const endpoint& sender) {
    const std::size_t around = wire(sender, "", "BTC").size();
    return wire(sender, std::string(size - around, 'x'), "BTC");
}

/// A node whose handler is held in its first message. The inbox has room for few.
struct busy_node {
    gate inside, go_on;
    recording_node node;

    busy_node()
        : node(small(), [this](recording_node&, const message&) {
              inside.open();
              go_on.wait();
          }) {
        CHECK(one_shot(node.address(), wire(somebody, "keep busy")) == ending::closed);
        CHECK(inside.wait());
    }
    ~busy_node() { go_on.open(); }

    static config small() {
        auto settings = local("Busy");
        settings.max_received_bytes = 2000;
        return settings;
    }

    /// Returns when the node has read all that was sent to it before: it refuses at once what is no
    /// message, room or not. Data on a connection that was accepted before is read in a later turn,
    /// not before earlier data; so the second such connection is read after all of it. (For the
    /// first this is not certain: the one that was accepted may have been another.)
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

    /// Fills the inbox, so that no other message has room.
    void fill() {
        for (;;) {
            const auto taken = node->statistics().received;
            fillers.emplace_back(node.address());
            fillers.back().send(wire(somebody, "filler"));
            fillers.back().half_close();
            read_all();
            if (node->statistics().received == taken) return;
        }
    }

    std::deque<raw_peer> fillers;
};

#if defined(__linux__)

/// How many descriptors this process may have; the old limit comes back at the end.
class descriptor_limit {
public:
    descriptor_limit() { ::getrlimit(RLIMIT_NOFILE, &before_); }
    descriptor_limit(const descriptor_limit&) = delete;
    descriptor_limit& operator=(const descriptor_limit&) = delete;
    ~descriptor_limit() { ::setrlimit(RLIMIT_NOFILE, &before_); }

    bool set(rlim_t soft) {
        const rlimit wanted{soft, before_.rlim_max};
        return soft <= before_.rlim_max && ::setrlimit(RLIMIT_NOFILE, &wanted) == 0;
    }

private:
    rlimit before_{};
};

#endif

}  // namespace

// ---------------------------------------------------------------------------------------- settings

TEST_CASE("the default limits are the documented ones") {
    const config settings;
    CHECK(settings.max_message_bytes == 64 * 1024);
    CHECK(settings.max_connections == 1024);
    CHECK(settings.max_peers == 4096);
    CHECK(settings.connect_timeout == 5s);
    CHECK(settings.delivery_timeout == 5s);
    CHECK(settings.first_message_timeout == 10s);
    CHECK(settings.quiet_period == 2s);
}

TEST_CASE("invalid settings are refused, and the largest possible ones work") {
    const auto refused = [](const std::function<void(config&)>& set) {
        auto settings = local();
        set(settings);
        p2pchat::node node(settings);
        return node.start();
    };
    for (auto size : {&config::max_message_bytes, &config::max_connections, &config::max_peers,
                      &config::max_queued_bytes, &config::max_received_bytes})
        CHECK(refused([&](config& c) { c.*size = 0; }) == errc::bad_setting);
    for (auto time :
         {&config::connect_timeout, &config::handshake_timeout, &config::delivery_timeout,
          &config::first_message_timeout, &config::quiet_period, &config::drain_timeout})
        for (const auto value : {milliseconds(-1), milliseconds::min()})
            CHECK(refused([&](config& c) { c.*time = value; }) == errc::bad_setting);
    CHECK(refused([](config& c) { c.keep_alive = -1s; }) == errc::bad_setting);

    auto settings = local();
    settings.max_message_bytes = settings.max_connections = settings.max_links =
        settings.max_peers = settings.max_queued_bytes = settings.max_received_bytes = SIZE_MAX;
    outcomes sent;
    recording_node node(settings), other(settings);
    CHECK_FALSE(sent.post(*node, other.address(), "one-shot"));
    CHECK(sent.wait());
    CHECK(sent.count({}) == 1);
    CHECK(node->connect(other.address()).linked);
    CHECK_FALSE(node->send(other.address(), "on a link"));
    CHECK(other.wait_text("on a link"));
}

TEST_CASE("a timeout may be as long as can be represented") {
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

// ------------------------------------------------------------------------------- max_message_bytes

TEST_CASE("a message may have max_message_bytes and no more") {
    config settings = local();
    settings.max_message_bytes = 1000;
    recording_node a(settings), b(settings);
    const std::size_t around = wire(a.address(), "", "BTC").size();
    const std::string longest(1000 - around, 'x');
    CHECK_FALSE(a->send(b.address(), longest));
    CHECK(b.wait_text(longest));
    CHECK(a->send(b.address(), longest + 'x') == errc::message_too_long);

    CHECK(one_shot(b.address(), wire(a.address(), longest + "xx", "BTC")) == ending::reset);
    CHECK(b.wait_rejected(errc::message_too_long));
}

TEST_CASE("a message may have 64 KiB by default") {
    recording_node a, b;
    const std::string longest(64 * 1024 - wire(a.address(), "", "BTC").size(), 'x');
    CHECK_FALSE(a->send(b.address(), longest));
    CHECK(b.wait_text(longest));
    CHECK(a->send(b.address(), longest + 'x') == errc::message_too_long);
}

TEST_CASE("a one-shot may have max_message_bytes and a line's end, but not one byte more") {
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

TEST_CASE("a max_message_bytes of few bytes is kept, too") {
    auto settings = local();
    settings.max_message_bytes = 100;
    recording_node node(settings);
    raw_listener listener;
    CHECK(node->send(listener.address(), std::string(100, 'x')) == errc::message_too_long);
}

TEST_CASE("a line of a link may have max_message_bytes and no more") {
    config settings = local();
    settings.max_message_bytes = 1000;
    recording_node a(settings);
    typed_link link(a);
    const std::size_t around = wire(link.address(), "").size();
    const std::string longest(1000 - around, 'x');
    link.send(longest);
    CHECK(a.wait_text(longest));
    CHECK(link.wait_ack(1));
    CHECK(a->send(link.address(), std::string(1000, 'x')) == errc::message_too_long);
    SUBCASE("one byte more") { link.send(longest + "x"); }
    SUBCASE("without an end") { link.peer.send(std::string(100000, 'x')); }
    CHECK(link.peer.read_to_end() != ending::open);
    CHECK(a.wait_rejected(errc::message_too_long));
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].second == departure::lost);
}

// --------------------------------------------------------------------------------- max_connections

TEST_CASE("a message gets through thousands of silent connections") {
    std::size_t count = 3000;
    config settings = local();
#if defined(__linux__)
    descriptor_limit limit;
    if (!limit.set(5000)) {
        count = 600;
        settings.max_connections = 200;
    }
#else
    count = 600;
    settings.max_connections = 200;
#endif
    recording_node a(settings);
    std::deque<raw_peer> silent;
    for (std::size_t i = 0; i < count; ++i) silent.emplace_back(a.address());
    const stopwatch watch;
    check_serves(a);
    CHECK(watch.is_short());
    const std::size_t over = count + 1 - settings.max_connections;
    CHECK(a.wait_rejected(errc::connection_limit, over));
    CHECK(a.seen().count_rejected(errc::connection_limit) == over);
    CHECK(a->statistics().connections == count + 1);
    // The oldest was closed.
    CHECK(silent.front().read_to_end() == ending::reset);
    silent.back().send(wire(somebody, "the newest"));
    silent.back().half_close();
    CHECK(silent.back().read_to_end() == ending::closed);
    CHECK(a.wait_text("the newest"));
}

TEST_CASE("the oldest connection without a message is closed at max_connections") {
    config settings = local();
    settings.max_connections = 3;
    recording_node a(settings);
    std::deque<raw_peer> silent;
    for (int i = 0; i < 3; ++i) silent.emplace_back(a.address());
    REQUIRE(wait_until([&] { return a->statistics().connections == 3; }));
    raw_peer newest(a.address());
    CHECK(silent[0].read_to_end() == ending::reset);
    CHECK(a.wait_rejected(errc::connection_limit));
    CHECK(a.seen().rejected.size() == 1);
    for (int i : {1, 2}) {
        auto& peer = silent[static_cast<std::size_t>(i)];
        peer.send(wire(somebody, std::to_string(i)));
        peer.half_close();
        CHECK(peer.read_to_end() == ending::closed);
        CHECK(a.wait_text(std::to_string(i)));
    }
}

TEST_CASE("the host with the most connections loses one at max_connections") {
    if (!has_ipv6()) return;
    auto settings = local();
    settings.max_connections = 4;
    recording_node node(settings);
    const auto accepted = [&](std::size_t count) {
        return wait_until([&] { return node->statistics().connections == count; });
    };
    raw_peer honest({"::1", node.address().port()});
    CHECK(accepted(1));
    std::deque<raw_peer> flood;
    for (std::size_t i = 2; i <= 20; ++i) {
        flood.emplace_back(node.address());
        CHECK(accepted(i));
    }
    for (std::size_t i = 0; i < 16; ++i) CHECK(flood[i].read_to_end() == ending::reset);
    CHECK(honest.send(wire({"::1", 9}, "at last")));
    honest.half_close();
    CHECK(honest.read_to_end() == ending::closed);
    CHECK(node.wait_text("at last"));
}

TEST_CASE("many silent ports of one host hold up no other host") {
    if (!has_wide_loopback()) return;
    auto settings = local();
    settings.max_connections = 8;  // a quarter of them for a host
    outcomes sent;
    std::deque<raw_listener> silent(8);
    raw_listener elsewhere({"127.0.0.2", 0});
    recording_node node(settings);
    for (auto& peer : silent) CHECK_FALSE(sent.post(*node, peer.address(), "no answer"));
    CHECK_FALSE(sent.post(*node, elsewhere.address(), "to another host"));
    raw_peer other = elsewhere.accept();
    CHECK(other.read_to_end() == ending::closed);
    other.close();
    CHECK(wait_until([&] { return sent.count({}) == 1; }));
    for (auto& peer : silent) {  // each as an earlier one ends
        raw_peer accepted = peer.accept();
        CHECK(accepted.read_to_end() == ending::closed);
    }
    CHECK(sent.wait());
    CHECK(sent.count({}) == 9);
}

TEST_CASE("max_connections messages of ours lock out neither other senders nor our own node") {
    if (!has_wide_loopback()) return;
    auto settings = local();
    settings.max_connections = 3;
    outcomes sent;
    recording_node node(settings), other;
    std::deque<raw_listener> silent;
    for (const char* address : {"127.0.0.1", "127.0.0.2", "127.0.0.3"})
        silent.emplace_back(endpoint(address, 0));
    std::deque<raw_peer> under_way, without_message;
    SUBCASE("our messages first") {
        for (auto& peer : silent) CHECK_FALSE(sent.post(*node, peer.address(), "no answer"));
        for (auto& peer : silent) under_way.push_back(peer.accept());
        for (int i = 0; i < 10; ++i)
            CHECK(one_shot(node.address(), wire(somebody, "honest")) == ending::closed);
        CHECK(node.wait_messages(10));
        CHECK(node.seen().rejected.empty());
    }
    SUBCASE("their connections first") {
        for (std::size_t i = 0; i < settings.max_connections; ++i)
            without_message.emplace_back(node.address());
        CHECK(
            wait_until([&] { return node->statistics().connections == settings.max_connections; }));
        CHECK_FALSE(sent.post(*node, other.address(), "ours"));
        CHECK(other.wait_text("ours"));
        CHECK(sent.wait());
        CHECK(node.seen().rejected.empty());
        for (auto& peer : without_message) {
            CHECK(peer.send(wire(somebody, "honest")));
            peer.half_close();
            CHECK(peer.read_to_end() == ending::closed);
        }
    }
}

TEST_CASE("a message waits at max_connections until a connection of ours ends") {
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

TEST_CASE("incoming connections are served while max_connections of ours are open") {
    auto settings = local();
    settings.max_connections = 1;
    outcomes sent;
    recording_node node(settings);
    raw_listener listener;
    CHECK_FALSE(sent.post(*node, listener.address(), "ours"));
    raw_peer ours = listener.accept();
    CHECK(one_shot(node.address(), wire(somebody, "theirs")) == ending::closed);
    CHECK(node.wait_text("theirs"));
    CHECK(node.seen().rejected.empty());
    CHECK(ours.read_to_end() == ending::closed);
    ours.close();
    CHECK(sent.wait());
    CHECK(sent.count({}) == 1);
}

TEST_CASE("a message that fails at once lets the next one begin at max_connections") {
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

TEST_CASE("links do not count as connections") {
    config settings = local();
    settings.max_connections = 2;
    recording_node a(settings);
    std::deque<typed_link> links;
    for (int i = 0; i < 5; ++i) links.emplace_back(a);
    for (auto& link : links) {
        link.send("hi");
        CHECK(link.wait_ack(1));
    }
    CHECK(a.seen().rejected.empty());
}

TEST_CASE("a flood of silent connections ends no link") {
    config settings = local();
    settings.max_connections = 5;
    recording_node a(settings);
    typed_link link(a);
    std::deque<raw_peer> silent;
    for (int i = 0; i < 20; ++i) silent.emplace_back(a.address());
    CHECK(a.wait_rejected(errc::connection_limit, 15));
    link.send("still here");
    CHECK(link.wait_ack(1));
}

#if defined(__linux__)

// -------------------------------------------------------------------------------- file descriptors

TEST_CASE("a node without file descriptors waits, does not spin, and serves when there are some") {
    recording_node a;
    descriptor_limit limit;
    // Sockets made before the limit falls, and connected after.
    std::vector<int> sockets;
    for (int i = 0; i < 5; ++i) sockets.push_back(::socket(AF_INET, SOCK_STREAM, 0));
    const int next = ::dup(sockets[0]);
    REQUIRE(next >= 0);
    ::close(next);
    // Descriptors below `next` may be free again later; those that are now are taken.
    REQUIRE(limit.set(static_cast<rlim_t>(next)));

    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(a.address().port());
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (const int socket : sockets)
        CHECK(::connect(socket, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0);
    const std::string text = wire({"127.0.0.1", 4999}, "late");
    for (const int socket : sockets) {
        CHECK(::send(socket, text.data(), text.size(), MSG_NOSIGNAL) > 0);
        ::shutdown(socket, SHUT_WR);
    }
    const auto before = processor_time();
    std::this_thread::sleep_for(500ms);  // the time in which it could spin
    CHECK(processor_time() - before < 250ms);
    CHECK(a->statistics().connections == 0);

    REQUIRE(limit.set(static_cast<rlim_t>(next) + 100));
    CHECK(a.wait_messages(5));
    for (const int socket : sockets) ::close(socket);
    check_serves(a);
}

TEST_CASE("a silent connection gives way to our messages when file descriptors run out") {
    outcomes sent;
    recording_node a;
    raw_listener listener;
    raw_peer silent(a.address());
    REQUIRE(wait_until([&] { return a->statistics().connections == 1; }));
    descriptor_limit limit;
    const int next = ::dup(0);
    REQUIRE(next >= 0);
    ::close(next);
    REQUIRE(limit.set(static_cast<rlim_t>(next)));

    CHECK_FALSE(sent.post(*a, listener.address(), "out of the way"));
    CHECK(a.wait_rejected(errc::connection_limit));
    CHECK(silent.read_to_end() == ending::reset);
    REQUIRE(limit.set(static_cast<rlim_t>(next) + 100));
    raw_peer peer = listener.accept();
    CHECK(peer.read_to_end() == ending::closed);
    peer.close();
    CHECK(sent.wait());
    CHECK(sent.count({}) == 1);
}

#endif

// ------------------------------------------------------------------------- max_links and max_peers

TEST_CASE("a CONNECT beyond max_links is taken like a one-shot, and the links stay") {
    config settings = local();
    settings.max_links = 1;
    recording_node a(settings), b, c;
    link(b, a);
    const auto second = c->connect(a.address());
    CHECK_FALSE(second.error);
    CHECK_FALSE(second.linked);
    CHECK(is_linked(a, b.address()));
    CHECK_FALSE(c->send(a.address(), "one-shot"));
    CHECK(a.wait_text("one-shot"));
    CHECK_FALSE(b->send(a.address(), "link"));
    CHECK(a.wait_text("link"));
    CHECK_FALSE(a->connect(c.address()).linked);

    CHECK_FALSE(b->leave(a.address()));
    CHECK(wait_until([&] { return c->connect(a.address()).linked; }));
}

TEST_CASE("the host with the most links loses one at max_links, first one that was never used") {
    if (!has_ipv6()) return;
    config settings = local();
    settings.max_links = 3;
    recording_node a(settings);
    std::deque<typed_link> links;
    for (int i = 0; i < 3; ++i) links.emplace_back(a);
    links[0].send("hi");
    CHECK(links[0].wait_ack(1));
    const auto connect_from_elsewhere = [&](std::uint16_t port) {
        raw_peer peer({"::1", a.address().port()});
        peer.send(wire({"::1", port}, "CONNECT") + '\n');
        return peer;
    };
    raw_peer other = connect_from_elsewhere(9);
    CHECK(other.line().find(" CONNECT") != std::string::npos);
    CHECK(links[1].peer.read_to_end() == ending::reset);
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].first.address == links[1].address());
    CHECK(a.seen().left[0].second == departure::lost);
    // Now no host has so many links that another would still have fewer after gaining one.
    raw_peer surplus = connect_from_elsewhere(10);
    surplus.half_close();
    CHECK(surplus.read_to_end() == ending::closed);
    CHECK(surplus.text().empty());
    for (const std::size_t i : {0u, 2u}) {
        links[i].send("still here");
        CHECK(links[i].wait_ack(i == 0 ? 2 : 1));
    }
}

TEST_CASE("a link that we open has its share of max_links, too") {
    if (!has_ipv6()) return;
    config settings = local();
    settings.max_links = 2;
    recording_node a(settings);
    typed_link first(a), second(a);
    recording_node b, c;
    CHECK(a->connect({"::1", b.address().port()}).linked);
    CHECK(first.peer.read_to_end() == ending::reset);
    CHECK_FALSE(a->connect({"::1", c.address().port()}).linked);
    second.send("still here");
    CHECK(second.wait_ack(1));
}

TEST_CASE("links that are being opened count towards max_links") {
    auto settings = local();
    settings.max_links = 2;
    recording_node node(settings);
    std::deque<raw_listener> listeners(4);
    std::vector<std::thread> opening;
    for (auto& listener : listeners)
        opening.emplace_back([&] { static_cast<void>(node->connect(listener.address())); });
    // Two ask for a link, with an LF; the others send CONNECT as a one-shot.
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
    CHECK(another.send(wire(somebody, "CONNECT\n")));
    another.half_close();
    CHECK(another.read_to_end() == ending::closed);
    CHECK(another.text().empty());
    for (auto& peer : peers) peer.close();
    for (auto& thread : opening) thread.join();
}

TEST_CASE("links that failed or have ended no longer count towards max_links") {
    auto settings = local();
    settings.max_links = 1;
    recording_node node(settings);
    nobody nowhere;
    for (int round = 0; round < 3; ++round) {
        CHECK(node->connect(nowhere.address()).error == std::errc::connection_refused);
        recording_node other;
        CHECK(node->connect(other.address()).linked);
        CHECK_FALSE(node->leave(other.address()));
        CHECK(wait_until([&] {  // the old link is gone once another may be made
            return node->connect(other.address()).linked;
        }));
        other->stop();
        CHECK(wait_until([&] { return linked_peers(*node) == 0; }));
        raw_peer theirs(node.address());
        CHECK(theirs.send(wire(somebody, "CONNECT\n")));
        CHECK(theirs.line() == wire(node.address(), "CONNECT", "BTC"));
        theirs.reset();
        CHECK(node.wait_left(static_cast<std::size_t>(2 * (round + 1))));
    }
}

TEST_CASE("the peer not heard from for longest is evicted at max_peers") {
    config settings = local();
    settings.max_peers = 2;
    recording_node a(settings);
    introduce(a, {"127.0.0.1", 5000});
    introduce(a, {"127.0.0.1", 6000});
    introduce(a, {"127.0.0.1", 5000});
    introduce(a, {"127.0.0.1", 7000});
    CHECK(addresses(*a) == std::vector<endpoint>{{"127.0.0.1", 5000}, {"127.0.0.1", 7000}});
}

TEST_CASE("messages may be under way to max_peers and max_links peers at once, and to no more") {
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

// -------------------------------------------------------------------------------- max_queued_bytes

TEST_CASE("a post beyond max_queued_bytes is refused at once") {
    outcomes results;
    config settings = local();
    settings.max_queued_bytes = 10000;
    recording_node a(settings);
    raw_listener silent;
    const std::string text(1000, 'x');
    std::error_code error;
    int posted = 0;
    for (; posted < 20 && !error; ++posted) error = results.post(*a, silent.address(), text);
    CHECK(error == errc::queue_full);
    CHECK(posted >= 9);
    CHECK(posted <= 11);
    CHECK(a->send(silent.address(), text) == errc::queue_full);
    recording_node b;
    CHECK_FALSE(a->send(b.address(), "others are not concerned"));
    a->stop();
    CHECK(results.count(errc::stopped) == static_cast<std::size_t>(posted - 1));
    CHECK(results.each_once());
}

TEST_CASE("a post beyond max_queued_bytes waits for room if asked to") {
    config settings = local();
    settings.max_queued_bytes = 3000;
    recording_node a(settings);
    raw_listener slow;
    const std::string text(1000, 'x');
    std::error_code error;
    while (!error) error = a->post(slow.address(), text);
    REQUIRE(error == errc::queue_full);
    auto waiting = std::async(std::launch::async,
                              [&] { return a->post(slow.address(), text, {}, when_full::wait); });
    CHECK(waiting.wait_for(50ms) == std::future_status::timeout);
    raw_peer first = slow.accept();
    CHECK(first.read_to_end() == ending::closed);
    first.close();
    CHECK_FALSE(waiting.get());
}

TEST_CASE("a post that waits for room is woken as soon as there is some") {
    config settings = local();
    settings.max_queued_bytes = 1500;
    recording_node a(settings);
    const std::string text(1000, 'x');
    std::unique_ptr<typed_link> link;
    std::future<std::error_code> waiting;
    const auto fill = [&](const endpoint& to) {
        REQUIRE_FALSE(a->post(to, text));
        waiting = std::async(std::launch::async,
                             [&a, to, text] { return a->post(to, text, {}, when_full::wait); });
        CHECK(waiting.wait_for(50ms) == std::future_status::timeout);
    };
    SUBCASE("by the end of a one-shot") {
        raw_listener slow;
        fill(slow.address());
        raw_peer first = slow.accept();
        CHECK(first.read_to_end() == ending::closed);
    }
    SUBCASE("by a confirmation on a link") {
        link = std::make_unique<typed_link>(a);
        fill(link->address());
        CHECK(link->peer.send("ACK 1\n"));
    }
    const bool woken = waiting.wait_for(patience / 6) == std::future_status::ready;
    a->stop();  // ends it if nothing else has
    CHECK(woken);
    CHECK_FALSE(waiting.get());
}

TEST_CASE("a post waits for room for delivery_timeout at most") {
    config settings = local();
    settings.max_queued_bytes = 1500;
    settings.delivery_timeout = 200ms;
    recording_node a(settings);
    raw_listener listener;
    const std::string text(1000, 'x');
    const stopwatch watch;
    // The connections end after 200 ms each, so the queue moves; but nobody waits for longer.
    for (int i = 0; i < 3; ++i)
        static_cast<void>(a->post(listener.address(), text, {}, when_full::wait));
    CHECK(watch.is_short());
}

TEST_CASE("a post on a link beyond max_queued_bytes is refused, or waits") {
    outcomes results;
    config settings = local();
    settings.max_queued_bytes = 10000;
    recording_node a(settings);
    typed_link link(a);
    const std::string text(1000, 'x');
    while (!results.post(*a, link.address(), text)) REQUIRE(results.accepted() < 20);
    CHECK(results.accepted() >= 8);
    CHECK(a->post(link.address(), text) == errc::queue_full);
    auto waiting = std::async(std::launch::async, [&] {
        return results.post(*a, link.address(), text, when_full::wait);
    });
    CHECK(waiting.wait_for(50ms) == std::future_status::timeout);
    link.peer.send("ACK 2\n");
    CHECK_FALSE(waiting.get());
    link.peer.send("ACK " + std::to_string(results.accepted() - 1) + "\n");
    CHECK(wait_until([&] { return results.count({}) + 1 == results.accepted(); }));
    a->stop();
    CHECK(results.each_once());
    CHECK(results.count(errc::stopped) == 1);
}

TEST_CASE("a post that waits for room on a link goes on without the link when it breaks") {
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
    const stopwatch watch;
    link.peer.reset();
    CHECK_FALSE(waiting.get());
    CHECK(watch.is_short());
    raw_peer next = link.listener.accept();
    CHECK(next.read_to_end() == ending::closed);
    CHECK(next.text() == wire(node.address(), text + "!", "BTC"));
}

TEST_CASE("unconfirmed messages of an older link count towards max_queued_bytes") {
    config settings = local();
    settings.max_queued_bytes = 1000;
    recording_node a(settings);
    typed_link link(a);
    const std::string text(600, 'x');
    REQUIRE_FALSE(a->post(link.address(), text));
    CHECK(link.message() == wire(a.address(), text, a->team()));
    raw_peer again(a.address());
    again.send(link.line("CONNECT"));
    CHECK(again.line() == wire(a.address(), "CONNECT", a->team()));
    CHECK(a->post(link.address(), text) == errc::queue_full);
    link.peer.send("ACK 1\n");
    CHECK(wait_until([&] { return !a->post(link.address(), text); }));
    CHECK(again.line() == wire(a.address(), text, a->team()));
}

// ------------------------------------------------------------------------------ max_received_bytes

TEST_CASE("a slow handler slows its senders, and nothing is lost") {
    outcomes results;
    support::gate gate;
    config settings = local();
    settings.max_received_bytes = 32 * 1024;
    recording_node b(settings, [&](recording_node&, const message&) { gate.wait(); });
    recording_node a;
    constexpr std::size_t count = 20;
    for (std::size_t i = 0; i < count; ++i)
        REQUIRE_FALSE(results.post(*a, b.address(), std::to_string(i) + std::string(10000, 'x')));
    CHECK(wait_until([&] { return b->statistics().received >= 2; }));
    std::this_thread::sleep_for(100ms);  // time for something to go wrong
    CHECK(b->statistics().received < 8);
    gate.open();
    CHECK(results.wait());
    CHECK(results.count({}) == count);
    CHECK(b.wait_messages(count));
    CHECK(b.seen().messages.size() == count);
}

TEST_CASE("a slow handler slows a link's sender, and nothing is lost or deadlocked") {
    outcomes results;
    support::gate gate;
    config settings = local();
    settings.max_received_bytes = 32 * 1024;
    recording_node b(settings, [&](recording_node&, const message&) { gate.wait(); });
    recording_node a(settings);
    link(a, b);
    constexpr std::size_t count = 20;
    for (std::size_t i = 0; i < count; ++i)
        REQUIRE_FALSE(
            results.post(*a, b.address(), std::to_string(i) + ' ' + std::string(10000, 'x')));
    CHECK(wait_until([&] { return b->statistics().received >= 3; }));
    std::this_thread::sleep_for(100ms);  // time for something to go wrong
    CHECK(b->statistics().received < 9);
    CHECK(results.count({}) < 9);
    CHECK_FALSE(b->send(a.address(), "the other way is free"));
    gate.open();
    CHECK(results.wait());
    CHECK(results.count({}) == count);
    CHECK(b.wait_messages(count));
}

TEST_CASE("a link whose messages are not handled is read no further than its window") {
    gate handling;
    auto settings = local();
    settings.max_received_bytes = 1024;
    recording_node node(settings, [&](recording_node&, const message&) { handling.wait(); });
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
    CHECK(error == std::errc::timed_out);  // only what the system's buffers hold was taken
    handling.open();
}

#if defined(__GLIBC__) && __GLIBC_MINOR__ >= 33

TEST_CASE("large messages that have been handled take no memory") {
    constexpr std::size_t count = 1000, size = 60 * 1024;
    gate handling;
    std::atomic<std::size_t> handled{0};
    auto settings = local();
    settings.max_received_bytes = 2 * count * size;
    p2pchat::node busy(settings);  // one that records nothing
    busy.on_message([&](const message&) {
        handling.wait();
        ++handled;
    });
    REQUIRE_FALSE(busy.start());
    outcomes sent;
    recording_node from;
    REQUIRE(from->connect(busy.address()).linked);
    const std::string text(size, 'x');
    const auto allocated = [] {  // and not freed
        const auto now = ::mallinfo2();
        return now.uordblks + now.hblkhd;
    };
    const std::size_t before = allocated();
    for (std::size_t i = 0; i < count; ++i)
        REQUIRE_FALSE(sent.post(*from, busy.address(), text, when_full::wait));
    REQUIRE(sent.wait());
    CHECK(handled == 0);
    handling.open();
    REQUIRE(wait_until([&] { return handled == count; }));
    CHECK(allocated() < before + count * size / 4);
}

#endif

TEST_CASE("posts that want an outcome wait while max_received_bytes wait for the handlers") {
    gate handling;
    auto settings = local();
    settings.max_received_bytes = 2000;
    outcomes sent;
    recording_node node(settings, [&](recording_node&, const message&) { handling.wait(); });
    raw_listener listener;
    for (int i = 0; i < 2; ++i)
        CHECK(one_shot(node.address(), message_of(1000, {"127.0.0.1", 9})) == ending::closed);
    REQUIRE(wait_until([&] {  // it closes before it hands the message over
        return sent.post(*node, listener.address(), "refused") == errc::queue_full;
    }));
    CHECK_FALSE(node->post(listener.address(), "without an outcome"));
    auto waiting = std::async(std::launch::async, [&] {
        return sent.post(*node, listener.address(), "waits", when_full::wait);
    });
    CHECK(waiting.wait_for(50ms) == std::future_status::timeout);
    const stopwatch watch;
    handling.open();
    CHECK_FALSE(waiting.get());
    CHECK(watch.is_short());
}

TEST_CASE("refusals that no handler fetches are counted, and fill no memory") {
    gate handling;
    auto settings = local();
    settings.max_received_bytes = 2000;
    recording_node node(settings, [&](recording_node&, const message&) { handling.wait(); });
    for (int i = 0; i < 2; ++i)
        CHECK(one_shot(node.address(), message_of(1000, {"127.0.0.1", 9})) == ending::closed);
    for (int i = 0; i < 100; ++i) CHECK(one_shot(node.address(), "no message") == ending::reset);
    CHECK(wait_until([&] { return node->statistics().rejected == 100; }));
    handling.open();
    CHECK(node.wait_messages(2));
    CHECK(node.seen().rejected.size() < 50);
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
    CHECK(busy.node.wait_connected(49));
    CHECK(openers.front().send(wire({"127.0.0.1", 1}, "over the link\n")));
    CHECK(openers.front().line() == "ACK 1");
    CHECK(linked_peers(*busy.node) == 49);
}

TEST_CASE("a message that waits for room is not shown if its sender gives up") {
    busy_node busy;
    busy.fill();
    raw_peer peer(busy.node.address());
    CHECK(peer.send(wire(somebody, "given up")));
    peer.half_close();
    busy.read_all();
    peer.reset();
    busy.go_on.open();
    for (auto& filler : busy.fillers) CHECK(filler.read_to_end() == ending::closed);
    CHECK(one_shot(busy.node.address(), wire(somebody, "the last")) == ending::closed);
    CHECK(busy.node.wait_text("the last"));
    CHECK(busy.node.seen().count_text("given up") == 0);
}

TEST_CASE("a node that has said exit still takes and confirms messages that wait for room") {
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

TEST_CASE("a handler that posts does not wait for room that only it can make") {
    std::error_code refused;
    gate done;
    recording_node to;
    auto settings = local();
    settings.max_received_bytes = 1000;
    recording_node node(settings, [&](recording_node& us, const message&) {
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
    CHECK(one_shot(node.address(), wire(somebody, "post")) == ending::closed);
    CHECK(done.wait());
    CHECK(watch.is_short());
    CHECK(refused == errc::queue_full);
}
