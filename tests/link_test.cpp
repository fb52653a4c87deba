// Tests of links: typed by hand, between two nodes, and at every kind of end.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "support.hpp"

#include <algorithm>
#include <deque>
#include <future>
#include <memory>
#include <set>

#if defined(__linux__)
#include <netinet/tcp.h>
#endif

using p2pchat::config;
using p2pchat::departure;
using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::message;
using p2pchat::when_full;
using support::ending;
using support::local;
using support::one_shot;
using support::outcomes;
using support::raw_listener;
using support::raw_peer;
using support::record;
using support::recording_node;
using support::typed_link;
using support::wait_until;
using support::wire;
using namespace std::chrono_literals;

namespace {

bool is_linked(recording_node& a, const endpoint& to) {
    for (const auto& p : a->peers())
        if (p.address == to) return p.linked;
    return false;
}

void link(recording_node& a, recording_node& b) {
    const auto result = a->connect(b.address());
    REQUIRE_FALSE(result.error);
    REQUIRE(result.linked);
    REQUIRE(wait_until([&] { return is_linked(a, b.address()) && is_linked(b, a.address()); }));
}

/// Nobody comes to this port.
bool is_left_alone(raw_listener& listener) {
    p2pchat::tcp_socket peer;
    return static_cast<bool>(listener.socket().accept(peer, 50ms));
}

/// A node and a peer typed by hand, each of which has said CONNECT to the other.
struct both_connect {
    explicit both_connect(bool ours_is_higher) {
        const auto lower = [](const auto& one, const auto& other) {
            return one.address() < other.address();
        };
        listener = ours_is_higher ? std::min_element(some.begin(), some.end(), lower)
                                  : std::max_element(some.begin(), some.end(), lower);
        do {
            REQUIRE(nodes.size() < 100);
            node = &nodes.emplace_back();
        } while ((listener->address() < node->address()) != ours_is_higher);
        connected = std::async(std::launch::async,
                               [this] { return (*node)->connect(listener->address()); });
        ours = std::make_unique<raw_peer>(listener->accept());
        CHECK(ours->line() == greeting());
        theirs = std::make_unique<raw_peer>(node->address());
        theirs->send(line("CONNECT"));
        support::read_all(node->address());
    }

    std::string greeting() const { return wire(node->address(), "CONNECT", (*node)->team()); }
    std::string line(std::string_view text) const { return wire(listener->address(), text) + '\n'; }

    std::deque<raw_listener> some{10};
    std::deque<raw_listener>::iterator listener;
    std::deque<recording_node> nodes;
    recording_node* node = nullptr;
    std::unique_ptr<raw_peer> ours, theirs;  // by whom each was opened
    std::future<p2pchat::connect_result> connected;
};

}  // namespace

// ------------------------------------------------------------------------------- typed by hand

TEST_CASE("CONNECT ended by LF is answered in kind, and makes a linked peer") {
    recording_node a(local("Team_BTC"));
    raw_peer peer(a.address());
    peer.send("127.0.0.1:5000 Raw CONNECT\n");
    CHECK(peer.line() == to_string(a.address()) + " Team_BTC CONNECT");
    REQUIRE(a.wait_joined(1));
    CHECK(a.wait_text("CONNECT"));
    const auto peers = a->peers();
    REQUIRE(peers.size() == 1);
    CHECK(peers[0].address == endpoint("127.0.0.1", 5000));
    CHECK(peers[0].team == "Raw");
    CHECK(peers[0].linked);
}

TEST_CASE("lines of a link are messages, and are confirmed") {
    recording_node a;
    typed_link link(a);
    link.send("one");
    CHECK(link.wait_ack(1));
    link.send("two  words");
    CHECK(link.wait_ack(2));
    REQUIRE(a.wait_text("two  words"));
    const message m = a.seen().messages.back();
    CHECK(m.sender == link.address());
    CHECK(m.team == "Raw");
    CHECK(m.verified);
    CHECK(m.origin == link.peer.socket().local());
}

TEST_CASE(
    "what is sent to a linked peer goes over the link, and is delivered when it is confirmed") {
    recording_node a(local("Team_BTC"));
    typed_link link(a);
    auto sending = std::async(std::launch::async, [&] { return a->send(link.address(), "hello"); });
    CHECK(link.message() == to_string(a.address()) + " Team_BTC hello");
    CHECK(sending.wait_for(50ms) == std::future_status::timeout);
    link.peer.send("ACK 1\n");
    CHECK_FALSE(sending.get());
    CHECK(is_left_alone(link.listener));
}

TEST_CASE("one ACK confirms all messages before it") {
    outcomes results;
    recording_node a;
    typed_link link(a);
    for (int i = 0; i < 10; ++i) REQUIRE_FALSE(results.post(*a, link.address(), std::to_string(i)));
    for (int i = 0; i < 10; ++i)
        CHECK(link.message() == wire(a.address(), std::to_string(i), "BTC"));
    link.peer.send("ACK 4\n");
    CHECK(wait_until([&] { return results.count({}) == 4; }));
    link.peer.send("ACK 10\n");
    CHECK(results.wait());
    CHECK(results.count({}) == 10);
    CHECK(results.in_order());
}

TEST_CASE("lines may be split anywhere") {
    recording_node a;
    raw_listener listener;
    raw_peer peer(a.address());
    const std::string bytes = wire(listener.address(), "CONNECT\n") +
                              wire(listener.address(), "one\n") +
                              wire(listener.address(), "two\r\n");
    for (const char byte : bytes) REQUIRE(peer.send({&byte, 1}));
    CHECK(a.wait_text("one"));
    CHECK(a.wait_text("two"));
    CHECK(peer.line() == wire(a.address(), "CONNECT", "BTC"));
    CHECK(a.seen().messages.size() == 3);
}

TEST_CASE("many lines may come in one segment, CONNECT among them") {
    recording_node a;
    raw_listener listener;
    raw_peer peer(a.address());
    std::string bytes = wire(listener.address(), "CONNECT\n");
    for (int i = 0; i < 1000; ++i) bytes += wire(listener.address(), std::to_string(i)) + '\n';
    REQUIRE(peer.send(bytes));
    REQUIRE(a.wait_messages(1001));
    const record seen = a.seen();
    for (std::size_t i = 0; i < 1000; ++i) CHECK(seen.messages[i + 1].text == std::to_string(i));
    CHECK(peer.line() == wire(a.address(), "CONNECT", "BTC"));
    std::string last;
    while (last != "ACK 1000") {
        last = peer.line();
        REQUIRE_FALSE(last.empty());
    }
}

TEST_CASE("lines in one segment that begin alike, or nearly, keep their senders, teams and texts") {
    recording_node a;
    raw_listener other;
    typed_link link(a);
    const std::string from = to_string(link.address());
    const std::string stranger = to_string(other.address());
    using namespace std::string_literals;
    link.peer.send(from + " Raw one\n" + from + " Raw two\n" + from + " Raw  three\n" + from +
                   " Raw\tfour\n" + from + " Raw2 five\n" + from + " Raw2 six\n" + from +
                   " Raw2 \0bad\n"s + from + " Raw2\n" + from + " <Raw2> seven\n" + stranger +
                   " Raw2 eight\n" + stranger + " Raw2 nine\n" + from + " Raw2 ten \n" + from +
                   " Raw2 ten Raw2\n");
    REQUIRE(a.wait_messages(12));
    CHECK(link.wait_ack(11));
    const record seen = a.seen();
    const std::vector<std::pair<std::string, std::string>> sent{
        {"Raw", "one"},   {"Raw", "two"},  {"Raw", "three"},    {"Raw", "four"},
        {"Raw2", "five"}, {"Raw2", "six"}, {"Raw2", "seven"},   {"Raw2", "eight"},
        {"Raw2", "nine"}, {"Raw2", "ten"}, {"Raw2", "ten Raw2"}};
    for (std::size_t i = 0; i < sent.size(); ++i) {
        const auto& message = seen.messages[i + 1];
        CAPTURE(i);
        CHECK(message.team == sent[i].first);
        CHECK(message.text == sent[i].second);
        CHECK(message.sender == (i == 7 || i == 8 ? other.address() : link.address()));
    }
    REQUIRE(seen.rejected.size() == 2);
    CHECK(seen.rejected[0].second == errc::bad_text);
    CHECK(seen.rejected[1].second == errc::too_few_words);
    for (const auto& known : a->peers())
        if (known.address == link.address()) CHECK(known.team == "Raw2");
}

TEST_CASE("lines keep their bytes, and lose white space at their ends") {
    recording_node a;
    typed_link link(a);
    link.peer.send(" " + wire(link.address(), "\x1b[2J\xff\t.") + " \r\n");
    CHECK(a.wait_text("\x1b[2J\xff\t."));
    CHECK(link.wait_ack(1));
}

TEST_CASE("an idle link stays, whatever the time-outs of one-shots") {
    config settings = local();
    settings.first_message_timeout = settings.quiet_period = 300ms;
    settings.handshake_timeout = settings.delivery_timeout = 20ms;
    recording_node a(settings);
    typed_link link(a);
    std::this_thread::sleep_for(500ms);  // the time to do wrong
    CHECK(is_linked(a, link.address()));
    CHECK(link.send("still here"));
    CHECK(a.wait_text("still here"));
}

TEST_CASE("exit ends a link in order: confirmed, told as left, closed") {
    recording_node a;
    typed_link link(a);
    link.send("one");
    link.send("exit");
    CHECK(link.wait_ack(2));
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].first.address == link.address());
    CHECK(a.seen().left[0].second == departure::left);
    CHECK(a->peers().empty());
    link.peer.half_close();
    CHECK(link.peer.read_to_end() == ending::closed);
    CHECK(a.seen().left.size() == 1);
    CHECK(a.seen().count_text("one") == 1);
    CHECK(a.seen().count_text("exit") == 0);
}

TEST_CASE("leaving says exit on the link, and is delivered when it is confirmed") {
    recording_node a;
    typed_link link(a);
    auto leaving = std::async(std::launch::async, [&] { return a->leave(link.address()); });
    CHECK(link.message() == wire(a.address(), "exit", "BTC"));
    link.peer.send("ACK 1\n");
    CHECK_FALSE(leaving.get());
    link.peer.half_close();
    CHECK(link.peer.read_to_end() == ending::closed);
    CHECK(wait_until([&] { return !is_linked(a, link.address()); }));
}

TEST_CASE("what a person says, behind the name, is no command") {
    recording_node a, b;
    SUBCASE("one-shot") {}
    SUBCASE("over a link") { REQUIRE(a->connect(b.address()).linked); }
    const std::size_t linked = support::linked_peers(*a);
    for (const char* text : {"Ann: exit", "Ann: EXIT", "Ann: CONNECT"}) {
        CHECK_FALSE(a->send(b.address(), text));
        CHECK(b.wait_text(text));
    }
    CHECK(support::linked_peers(*a) == linked);
    CHECK(b->peers().size() == 1);

    // And what is no more than the word is one, white space at its ends or not.
    CHECK_FALSE(a->send(b.address(), " Exit\t"));
    REQUIRE(b.wait_left(1));
    CHECK(b.seen().left[0].second == departure::left);
    CHECK(b->peers().empty());
}

TEST_CASE("what was sent before exit still arrives") {
    outcomes results;
    recording_node a;
    typed_link link(a);
    for (int i = 0; i < 10; ++i) REQUIRE_FALSE(results.post(*a, link.address(), std::to_string(i)));
    REQUIRE_FALSE(results.post(*a, link.address(), "exit"));
    for (int i = 0; i < 10; ++i)
        CHECK(link.message() == wire(a.address(), std::to_string(i), "BTC"));
    CHECK(link.message() == wire(a.address(), "exit", "BTC"));
    link.peer.send("ACK 11\n");
    CHECK(results.wait());
    CHECK(results.count({}) == 11);
}

TEST_CASE("a link that ends without exit was stopped, one that is reset is lost") {
    recording_node a;
    typed_link link(a);
    SUBCASE("half-closed") {
        link.peer.half_close();
        REQUIRE(a.wait_left(1));
        CHECK(a.seen().left[0].second == departure::stopped);
    }
    SUBCASE("reset") {
        link.peer.reset();
        REQUIRE(a.wait_left(1));
        CHECK(a.seen().left[0].second == departure::lost);
    }
    CHECK(a.seen().left[0].first.address == link.address());
    CHECK_FALSE(is_linked(a, link.address()));
    CHECK(a.seen().left.size() == 1);
}

TEST_CASE("the last lines of a link that ends at once are taken") {
    recording_node a;
    typed_link link(a);
    std::string bytes;
    for (int i = 0; i < 100; ++i) bytes += link.line(std::to_string(i));
    link.peer.send(bytes);
    link.peer.half_close();
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].second == departure::stopped);
    CHECK(a.seen().messages.size() == 101);
    CHECK(link.wait_ack(100));
}

TEST_CASE("half a line at the end of a link is no message") {
    recording_node a;
    typed_link link(a);
    link.send("whole");
    link.peer.send(wire(link.address(), "half"));
    link.peer.half_close();
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().count_text("whole") == 1);
    CHECK(a.seen().count_text("half") == 0);
    CHECK(link.wait_ack(1));
    CHECK(link.peer.read_to_end() != ending::open);
    CHECK(link.acked == 1);
}

TEST_CASE("a line that is neither message nor control is told, and the link goes on") {
    recording_node a;
    typed_link link(a);
    std::size_t told = 0;
    for (const std::string line : {"hello", "PING 1", "ACK", "ACK x", "ACK -1", "ACK 1 2", "ack 0",
                                   "exit", "CONNECT", "\x1b[2J", "nonsense Raw text"}) {
        CAPTURE(line);
        link.peer.send(line + '\n');
        CHECK(a.wait_rejected(errc::protocol_error, ++told));
    }
    link.peer.send("\n \r\n");  // empty lines are nothing
    link.send("still here");
    CHECK(link.wait_ack(1));
    CHECK(a.wait_text("still here"));
    CHECK(a.seen().rejected.size() == told);
    CHECK(is_linked(a, link.address()));
}

TEST_CASE("a line of a link that is a bad message is told, not taken, and the link goes on") {
    recording_node a;
    typed_link link(a);
    link.peer.send("127.0.0.1:0 Raw text\n");
    CHECK(a.wait_rejected(errc::bad_port));
    link.peer.send("127.0.0.256:5000 Raw text\n");
    CHECK(a.wait_rejected(errc::bad_address));
    link.peer.send("127.0.0.1:5000 Raw\n");
    CHECK(a.wait_rejected(errc::too_few_words));
    link.peer.send("127.0.0.1:5000 <> text\n");
    CHECK(a.wait_rejected(errc::bad_team));
    link.peer.send("127.0.0.1:5000 Raw a\rb\n");
    CHECK(a.wait_rejected(errc::bad_text));
    link.send("still here");
    CHECK(link.wait_ack(1));
    CHECK(a.wait_messages(2));
    CHECK(a.seen().rejected.size() == 5);
}

TEST_CASE("an ACK of what was never sent ends the link") {
    recording_node a;
    typed_link link(a);
    SUBCASE("by one") { link.peer.send("ACK 1\n"); }
    SUBCASE("by far") { link.peer.send("ACK 1000000000000000000\n"); }
    CHECK(a.wait_rejected(errc::protocol_error));
    CHECK(link.peer.read_to_end() != ending::open);
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].second == departure::lost);
    CHECK_FALSE(is_linked(a, link.address()));
}

TEST_CASE("what was taken is confirmed before a link is refused, and nothing else is sent") {
    config settings = local();
    settings.max_message_bytes = 1000;
    recording_node a(settings);
    typed_link link(a);
    std::string bad = "ACK 99\n";
    SUBCASE("for an ACK of what was never sent") {}
    SUBCASE("for a line that is too long") { bad = link.line(std::string(1000, 'x')); }
    link.peer.send(link.line("one") + link.line("two") + bad + link.line("behind"));
    CHECK(link.peer.line() == "ACK 2");
    CHECK(link.peer.read_to_end() == ending::reset);
    CHECK(link.peer.text().empty());
    CHECK(a.seen().count_text("behind") == 0);
}

TEST_CASE("an ACK of a number beyond all numbers confirms nothing") {
    config settings = local();
    settings.delivery_timeout = 200ms;
    recording_node a(settings);
    typed_link link(a);
    auto sending = std::async(std::launch::async, [&] { return a->send(link.address(), "hi"); });
    CHECK_FALSE(link.message().empty());
    link.peer.send("ACK 18446744073709551617\nACK 99999999999999999999999999\n");
    CHECK(sending.get());
    CHECK(a.wait_rejected(errc::protocol_error));
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

TEST_CASE("over max_links a CONNECT is taken as one-shots are, and the links stay") {
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

TEST_CASE("at max_links the host that has most gives one up, first one that never said anything") {
    config settings = local();
    settings.max_links = 3;
    recording_node a(settings);
    p2pchat::tcp_socket probe;
    if (probe.listen({"::1", 0})) return;  // a machine without IPv6
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
    // Now no host has so many that another would still have fewer with one more.
    raw_peer surplus = connect_from_elsewhere(10);
    surplus.half_close();
    CHECK(surplus.read_to_end() == ending::closed);
    CHECK(surplus.text().empty());
    for (const std::size_t i : {0u, 2u}) {
        links[i].send("still here");
        CHECK(links[i].wait_ack(i == 0 ? 2 : 1));
    }
}

TEST_CASE("at max_links a link that we open has its share, too") {
    config settings = local();
    settings.max_links = 2;
    recording_node a(settings);
    p2pchat::tcp_socket probe;
    if (probe.listen({"::1", 0})) return;  // a machine without IPv6
    typed_link first(a), second(a);
    recording_node b, c;
    CHECK(a->connect({"::1", b.address().port()}).linked);
    CHECK(first.peer.read_to_end() == ending::reset);
    CHECK_FALSE(a->connect({"::1", c.address().port()}).linked);
    second.send("still here");
    CHECK(second.wait_ack(1));
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

// --------------------------------------------------------------------------- connecting by node

TEST_CASE("connect says CONNECT ended by LF, and makes a link when it is answered in kind") {
    recording_node a(local("Team_BTC"));
    raw_listener listener;
    auto connecting =
        std::async(std::launch::async, [&] { return a->connect(listener.address()); });
    raw_peer peer = listener.accept();
    CHECK(peer.line() == to_string(a.address()) + " Team_BTC CONNECT");
    peer.send(wire(listener.address(), "CONNECT\n"));
    const auto result = connecting.get();
    CHECK_FALSE(result.error);
    CHECK(result.linked);
    CHECK(is_linked(a, listener.address()));
    CHECK(a.wait_joined(1));

    auto sending =
        std::async(std::launch::async, [&] { return a->send(listener.address(), "hi"); });
    CHECK(peer.line() == to_string(a.address()) + " Team_BTC hi");
    peer.send("ACK 1\n" + wire(listener.address(), "hello\n"));
    CHECK_FALSE(sending.get());
    CHECK(a.wait_text("hello"));
    CHECK(peer.line() == "ACK 1");
}

TEST_CASE("a peer that only closes is connected without a link") {
    recording_node a;
    raw_listener listener;
    auto connecting =
        std::async(std::launch::async, [&] { return a->connect(listener.address()); });
    {
        raw_peer peer = listener.accept();
        CHECK_FALSE(peer.line().empty());
    }
    const auto result = connecting.get();
    CHECK_FALSE(result.error);
    CHECK_FALSE(result.linked);
    CHECK_FALSE(is_linked(a, listener.address()));
}

TEST_CASE("a peer that resets the CONNECT did not take it") {
    recording_node a;
    raw_listener listener;
    auto connecting =
        std::async(std::launch::async, [&] { return a->connect(listener.address()); });
    listener.accept().reset();
    const auto result = connecting.get();
    CHECK(result.error == errc::not_taken);
    CHECK_FALSE(result.linked);
}

TEST_CASE("a peer that says nothing to the CONNECT times out after handshake_timeout") {
    config settings = local();
    settings.handshake_timeout = 100ms;
    recording_node a(settings);
    raw_listener listener;
    auto connecting =
        std::async(std::launch::async, [&] { return a->connect(listener.address()); });
    raw_peer peer = listener.accept();
    SUBCASE("nothing at all") {}
    SUBCASE("half a line") { peer.send(wire(listener.address(), "CONN")); }
    const support::stopwatch watch;
    const auto result = connecting.get();
    CHECK(result.error == std::errc::timed_out);
    CHECK(watch.is_short());
    CHECK_FALSE(result.linked);
    CHECK(peer.read_to_end() != ending::open);
}

TEST_CASE("an answer to CONNECT that is none makes no link") {
    for (const std::string answer : {"HTTP/1.1 400 Bad Request\r\n", "hello\n", "ACK 1\n", "\n\n\n",
                                     "127.0.0.1:9 Raw hello\n"}) {
        CAPTURE(answer);
        config settings = local();
        settings.handshake_timeout = 500ms;
        recording_node a(settings);
        raw_listener listener;
        auto connecting =
            std::async(std::launch::async, [&] { return a->connect(listener.address()); });
        raw_peer peer = listener.accept();
        peer.send(answer);
        const auto result = connecting.get();
        CHECK(result.error);
        CHECK_FALSE(result.linked);
        CHECK_FALSE(is_linked(a, listener.address()));
    }
}

TEST_CASE("what is posted while the link is being made arrives once, after it or by itself") {
    outcomes results;
    recording_node a, b;
    auto connecting = std::async(std::launch::async, [&] { return a->connect(b.address()); });
    for (int i = 0; i < 50; ++i) REQUIRE_FALSE(results.post(*a, b.address(), std::to_string(i)));
    CHECK_FALSE(connecting.get().error);
    CHECK(results.wait());
    CHECK(results.count({}) == 50);
    REQUIRE(b.wait_messages(51));
    std::vector<std::string> texts;
    for (const auto& m : b.seen().messages)
        if (m.text != "CONNECT") texts.push_back(m.text);
    REQUIRE(texts.size() == 50);
    for (std::size_t i = 0; i < 50; ++i) CHECK(texts[i] == std::to_string(i));
}

// ---------------------------------------------------------------------------------- two nodes

TEST_CASE("two nodes make a link, know it, and use it both ways") {
    recording_node a(local("A")), b(local("B"));
    link(a, b);
    CHECK(a->peers()[0].team == "B");
    CHECK(b->peers()[0].team == "A");
    CHECK(a.wait_joined(1));
    CHECK(b.wait_joined(1));
    const auto connections = b->statistics().connections;
    for (int i = 0; i < 10; ++i) {
        CHECK_FALSE(a->send(b.address(), "to b"));
        CHECK_FALSE(b->send(a.address(), "to a"));
        for (const auto& delivery : a->broadcast("to all")) CHECK_FALSE(delivery.error);
    }
    CHECK(b.wait([](const record& r) {
        return r.count_text("to b") == 10 && r.count_text("to all") == 10;
    }));
    CHECK(a.wait([](const record& r) { return r.count_text("to a") == 10; }));
    CHECK(b->statistics().connections == connections);
    CHECK(a->statistics().connections == 0);
    CHECK(b.seen().messages.size() == 21);
    CHECK(b.seen().messages.back().verified);
    CHECK(b.seen().messages.back().sender == a.address());
}

TEST_CASE("connecting to a linked peer again keeps the link") {
    recording_node a, b;
    link(a, b);
    for (int i = 0; i < 3; ++i) {
        CHECK(a->connect(b.address()).linked);
        CHECK(b->connect(a.address()).linked);
        CHECK_FALSE(a->send(b.address(), "hi"));
        CHECK_FALSE(b->send(a.address(), "hi"));
    }
    CHECK(a->peers().size() == 1);
    CHECK(b->peers().size() == 1);
    CHECK(a.seen().left.empty());
    CHECK(b.seen().left.empty());
}

TEST_CASE("two nodes that connect to each other at once deliver every message once") {
    for (int round = 0; round < 20; ++round) {
        outcomes to_a, to_b;
        recording_node a, b;
        std::thread other([&] {
            CHECK_FALSE(b->connect(a.address()).error);
            for (int i = 0; i < 20; ++i) CHECK_FALSE(to_a.post(*b, a.address(), std::to_string(i)));
        });
        CHECK_FALSE(a->connect(b.address()).error);
        for (int i = 0; i < 20; ++i) CHECK_FALSE(to_b.post(*a, b.address(), std::to_string(i)));
        other.join();
        CHECK(to_a.wait());
        CHECK(to_b.wait());
        CHECK(to_a.count({}) == 20);
        CHECK(to_b.count({}) == 20);
        for (recording_node* node : {&a, &b}) {
            for (int i = 0; i < 20; ++i) {
                CHECK(node->wait_text(std::to_string(i)));
                CHECK(node->seen().count_text(std::to_string(i)) == 1);
            }
            CHECK(node->seen().left.empty());
            CHECK((*node)->peers().size() == 1);
        }
        CHECK(wait_until([&] { return is_linked(a, b.address()) && is_linked(b, a.address()); }));
    }
}

TEST_CASE("both sides send at full speed with full buffers, and neither dead-locks") {
    outcomes to_a, to_b;
    recording_node a, b;
    link(a, b);
    constexpr std::size_t count = 500;
    const std::string text(20000, 'x');
    const auto flood = [&](recording_node& from, recording_node& to, outcomes& results) {
        for (std::size_t i = 0; i < count; ++i)
            CHECK_FALSE(
                results.post(*from, to.address(), std::to_string(i) + ' ' + text, when_full::wait));
    };
    std::thread other([&] { flood(b, a, to_a); });
    flood(a, b, to_b);
    other.join();
    CHECK(to_a.wait());
    CHECK(to_b.wait());
    CHECK(to_a.count({}) == count);
    CHECK(to_b.count({}) == count);
    CHECK(to_b.in_order());
    REQUIRE(b.wait_messages(count + 1));
    REQUIRE(a.wait([](const record& r) { return r.messages.size() >= count; }));
    const record seen = b.seen();
    CHECK(seen.messages.size() == count + 1);
    for (std::size_t i = 0; i < count; ++i)
        CHECK(seen.messages[i + 1].text.substr(0, 5) ==
              (std::to_string(i) + ' ' + text).substr(0, 5));
}

TEST_CASE("thousands of posts are in flight on one link, each reported once and in order") {
    outcomes results;
    recording_node a, b;
    link(a, b);
    constexpr std::size_t count = 5000;
    for (std::size_t i = 0; i < count; ++i)
        REQUIRE_FALSE(results.post(*a, b.address(), std::to_string(i), when_full::wait));
    CHECK(results.wait());
    CHECK(results.count({}) == count);
    CHECK(results.each_once());
    CHECK(results.in_order());
    REQUIRE(b.wait_messages(count + 1));
    const record seen = b.seen();
    REQUIRE(seen.messages.size() == count + 1);
    for (std::size_t i = 0; i < count; ++i) CHECK(seen.messages[i + 1].text == std::to_string(i));
}

TEST_CASE("a slow handler slows a link's sender, and nothing is lost or dead-locked") {
    outcomes results;
    support::gate gate;
    config settings = local();
    settings.max_received_bytes = 32 * 1024;
    recording_node b(settings, [&](recording_node&, const message& m) {
        if (m.text != "CONNECT") gate.wait();
    });
    recording_node a(settings);
    link(a, b);
    constexpr std::size_t count = 20;
    for (std::size_t i = 0; i < count; ++i)
        REQUIRE_FALSE(
            results.post(*a, b.address(), std::to_string(i) + ' ' + std::string(10000, 'x')));
    CHECK(wait_until([&] { return b->statistics().received >= 3; }));
    std::this_thread::sleep_for(100ms);  // the time to do wrong
    CHECK(b->statistics().received < 9);
    CHECK(results.count({}) < 9);
    CHECK_FALSE(b->send(a.address(), "the other way is free"));
    gate.open();
    CHECK(results.wait());
    CHECK(results.count({}) == count);
    CHECK(b.wait_messages(count + 1));
}

TEST_CASE("over max_queued_bytes a post on a link is refused, or waits") {
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

TEST_CASE("of two links that are opened at once that of the higher address stands") {
    SUBCASE("ours: theirs is closed, unanswered") {
        both_connect at_once(true);
        at_once.ours->send(at_once.line("CONNECT"));
        CHECK(at_once.theirs->read_to_end() == ending::closed);
        CHECK(at_once.theirs->text().empty());
        CHECK(at_once.connected.get().linked);
    }
    SUBCASE("ours, but it breaks: theirs is answered then") {
        both_connect at_once(true);
        p2pchat::tcp_socket& theirs = at_once.theirs->socket();
        char none[1];
        std::size_t size = 0;
        CHECK(theirs.receive(none, 1, size, 50ms) == std::errc::timed_out);
        at_once.ours->reset();
        CHECK(at_once.theirs->line() == at_once.greeting());
        CHECK(is_linked(*at_once.node, at_once.listener->address()));
    }
    SUBCASE("theirs: it is answered, and ours is closed") {
        both_connect at_once(false);
        CHECK(at_once.theirs->line() == at_once.greeting());
        CHECK(at_once.ours->read_to_end() != ending::open);
        CHECK(at_once.connected.get().linked);
    }
}

TEST_CASE("leaving ends the link on both sides, and later messages go one-shot") {
    recording_node a, b;
    link(a, b);
    CHECK_FALSE(a->leave(b.address()));
    REQUIRE(b.wait_left(1));
    CHECK(b.seen().left[0].second == departure::left);
    CHECK(wait_until([&] { return !is_linked(a, b.address()) && !is_linked(b, a.address()); }));
    CHECK_FALSE(a->send(b.address(), "one-shot"));
    CHECK(b.wait_text("one-shot"));
    CHECK_FALSE(b->send(a.address(), "one-shot"));
    CHECK(a.wait_text("one-shot"));
    link(b, a);
    CHECK_FALSE(a->send(b.address(), "linked again"));
    CHECK(b.wait_text("linked again"));
}

TEST_CASE("both sides leave at once") {
    for (int round = 0; round < 10; ++round) {
        recording_node a, b;
        link(a, b);
        std::error_code other_error;
        std::thread other([&] { other_error = b->leave(a.address()); });
        const auto error = a->leave(b.address());
        other.join();
        CHECK_FALSE(error);
        CHECK_FALSE(other_error);
        CHECK(wait_until([&] { return !is_linked(a, b.address()) && !is_linked(b, a.address()); }));
        CHECK_FALSE(a->send(b.address(), "after"));
        CHECK(b.wait_text("after"));
    }
}

TEST_CASE("leaving after both connected at once ends whatever links there are") {
    for (int round = 0; round < 30; ++round) {
        recording_node a, b;
        std::thread other([&] { CHECK_FALSE(b->connect(a.address()).error); });
        CHECK_FALSE(a->connect(b.address()).error);
        other.join();
        CHECK_FALSE(a->leave(b.address()));
        CHECK(b.wait_left(1));
        CHECK(wait_until([&] { return !is_linked(a, b.address()) && !is_linked(b, a.address()); },
                         support::patience / 2));  // and not by a time-out
        CHECK(b->peers().empty());
    }
}

TEST_CASE("stopping one side is told to the other as stopped, with what was pending reported") {
    support::alone([] {
        outcomes results;
        auto b = std::make_unique<recording_node>();
        recording_node a;
        link(a, *b);
        for (int i = 0; i < 100; ++i)
            REQUIRE_FALSE(results.post(*a, b->address(), std::to_string(i)));
        (*b)->stop();
        CHECK(results.wait());
        CHECK(results.each_once());
        REQUIRE(a.wait_left(1));
        CHECK(a.seen().left[0].first.address == b->address());
        CHECK((*b)->statistics().received + results.accepted() - results.count({}) >= 100);
        CHECK(b->seen().messages.size() == (*b)->statistics().received);
        CHECK(b->seen().messages.size() >= results.count({}));
        CHECK(a->send(b->address(), "hi"));
    });
}

TEST_CASE("an idle link whose other side is stopped is told as stopped") {
    recording_node a, b;
    link(a, b);
    b->stop();
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].second == departure::stopped);
}

TEST_CASE("an idle link whose other side is stopped with leave_on_stop is told as left") {
    config settings = local();
    settings.leave_on_stop = true;
    recording_node a, b(settings);
    link(a, b);
    b->stop();
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].second == departure::left);
    CHECK(a->peers().empty());
}

TEST_CASE("stopping the sending side in the middle reports each post once") {
    for (int round = 0; round < 5; ++round) {
        outcomes results;
        recording_node b;
        {
            recording_node a;
            link(a, b);
            for (int i = 0; i < 2000; ++i)
                static_cast<void>(results.post(*a, b.address(), std::to_string(i)));
            REQUIRE(b.wait_messages(10));
            a->stop();
            CHECK(results.each_once());
            CHECK(results.count({}) + results.count(errc::stopped) == results.accepted());
        }
        REQUIRE(b.wait_left(1));
        CHECK(b.seen().left[0].second != departure::left);
        const record seen = b.seen();
        CHECK(seen.messages.size() >= results.count({}) + 1);
        for (std::size_t i = 1; i < seen.messages.size(); ++i)
            CHECK(seen.messages[i].text == std::to_string(i - 1));
    }
}

// ------------------------------------------------------------------------- links that break

TEST_CASE("when a link breaks in the middle, what was not confirmed is link_lost") {
    outcomes results;
    recording_node a;
    typed_link link(a);
    for (int i = 0; i < 100; ++i)
        REQUIRE_FALSE(results.post(*a, link.address(), std::to_string(i)));
    for (int i = 0; i < 100; ++i) CHECK_FALSE(link.message().empty());
    link.peer.send("ACK 40\n");
    CHECK(wait_until([&] { return results.count({}) == 40; }));
    SUBCASE("by a reset") { link.peer.reset(); }
    SUBCASE("by a close") { link.peer.close(); }
    CHECK(results.wait());
    CHECK(results.count({}) == 40);
    CHECK(results.count(errc::link_lost) == 60);
    CHECK(results.each_once());
    CHECK(a.wait_left(1));
    // Nothing that may have been shown is sent again.
    CHECK(is_left_alone(link.listener));
    CHECK(a->statistics().delivered == 40);
    CHECK(a->statistics().undelivered == 60);
}

TEST_CASE("after a link is gone, messages go one-shot") {
    recording_node a;
    typed_link link(a);
    SUBCASE("reset") { link.peer.reset(); }
    SUBCASE("closed") { link.peer.close(); }
    REQUIRE(a.wait_left(1));
    auto sending =
        std::async(std::launch::async, [&] { return a->send(link.address(), "fall back"); });
    {
        raw_peer peer = link.listener.accept();
        CHECK(peer.read_to_end() == ending::closed);
        CHECK(peer.text() == wire(a.address(), "fall back", "BTC"));
    }
    CHECK_FALSE(sending.get());
}

TEST_CASE("a link whose other side confirms nothing is given up after delivery_timeout") {
    config settings = local();
    settings.delivery_timeout = 200ms;
    recording_node a(settings);
    typed_link link(a);
    const support::stopwatch watch;
    const auto error = a->send(link.address(), "hi");
    CHECK((error == std::errc::timed_out || error == errc::link_lost));
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].second == departure::lost);
    CHECK_FALSE(is_linked(a, link.address()));
    CHECK(is_left_alone(link.listener));
    CHECK(watch.is_short());
}

TEST_CASE("a link whose other side reads nothing is given up after delivery_timeout") {
    const support::stopwatch watch;
    outcomes results;
    config settings = local();
    settings.delivery_timeout = 200ms;
    settings.max_queued_bytes = 256 * 1024;
    recording_node a(settings);
    typed_link link(a);
    const std::string text(60000, 'x');
    std::size_t posted = 0;
    while (!results.post(*a, link.address(), text)) REQUIRE(++posted < 10);
    CHECK(results.wait());
    CHECK(results.each_once());
    CHECK(results.count({}) == 0);
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].second == departure::lost);
    CHECK(watch.is_short());
}

#if defined(__linux__)

TEST_CASE("for a peer that says much and reads nothing one confirmation waits, not one of each") {
    raw_listener there;  // its connections take little until it reads
    const int handle = static_cast<int>(there.socket().native_handle());
    const int bytes = 4096, segment = 536;
    REQUIRE(::setsockopt(handle, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0);
    REQUIRE(::setsockopt(handle, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment) == 0);
    outcomes posts;
    recording_node a;
    REQUIRE_FALSE(a->connect(there.address(), {}));
    raw_peer peer = there.accept();
    CHECK(peer.line() == wire(a.address(), "CONNECT", a->team()));
    peer.send(wire(there.address(), "CONNECT") + '\n');
    REQUIRE(wait_until([&] { return is_linked(a, there.address()); }));
    const std::string text(1000, 'x');
    while (!posts.post(*a, there.address(), text)) {  // until nothing more can be written
    }
    constexpr std::size_t count = 300;
    for (std::size_t i = 1; i <= count; ++i) {
        peer.send(wire(there.address(), "hi") + '\n');
        REQUIRE(a.wait_messages(i));
    }
    std::size_t confirmations = 0;
    for (std::string line; line != "ACK " + std::to_string(count);) {
        line = peer.line();
        REQUIRE_FALSE(line.empty());
        confirmations += line.rfind("ACK ", 0) == 0 ? 1u : 0u;
    }
    CHECK(confirmations == 1);
    // In order, the system would remember for all of loopback how long this peer took to answer.
    peer.reset();
    REQUIRE(a.wait_left(1));
}

#endif

TEST_CASE("links are made and lost many times, and nothing stays behind") {
    recording_node a;
    raw_listener listener;
    for (std::size_t i = 0; i < 50; ++i) {
        raw_peer peer(a.address());
        peer.send(wire(listener.address(), "CONNECT\n"));
        CHECK_FALSE(peer.line().empty());
        CHECK(is_linked(a, listener.address()));
        if (i % 2)
            peer.reset();
        else
            peer.close();
        REQUIRE(a.wait_left(i + 1));
    }
    CHECK(a.seen().left.size() == 50);
}

TEST_CASE("a peer that links anew while its old link stands is served on the new one") {
    recording_node a;
    raw_listener listener;
    raw_peer first(a.address()), second(a.address());
    first.send(wire(listener.address(), "CONNECT\n"));
    CHECK_FALSE(first.line().empty());
    second.send(wire(listener.address(), "CONNECT\n"));
    second.send(wire(listener.address(), "on the second\n"));
    CHECK(a.wait_text("on the second"));
    CHECK_FALSE(second.line().empty());
    CHECK(is_linked(a, listener.address()));
    first.reset();
    second.send(wire(listener.address(), "still\n"));
    CHECK(a.wait_text("still"));
    CHECK(a->peers().size() == 1);
}

#if defined(__linux__)

// ------------------------------------------------------------------------ between two machines

namespace {

/// A node on this end of a LAN; whatever opens sockets for it runs there.
struct lan_node {
    support::lan& lan;
    std::unique_ptr<recording_node> node;

    explicit lan_node(support::lan& at, config settings = local()) : lan(at) {
        settings.address = lan.here_address().address();
        lan.here.run([&] { node = std::make_unique<recording_node>(settings); });
    }
    lan_node(const lan_node&) = delete;
    lan_node& operator=(const lan_node&) = delete;
    ~lan_node() {
        lan.here.run([this] { node.reset(); });
    }

    recording_node& operator*() { return *node; }
    recording_node* operator->() { return node.get(); }

    /// Links from the other end, claiming `sender`.
    std::unique_ptr<raw_peer> link_from_there(const endpoint& sender) {
        std::unique_ptr<raw_peer> peer;
        lan.there.run([&] {
            peer = std::make_unique<raw_peer>(node->address());
            peer->send(wire(sender, "CONNECT\n"));
            CHECK(peer->line() == wire(node->address(), "CONNECT", "BTC"));
        });
        return peer;
    }
};

}  // namespace

TEST_CASE("what is under way on an older link counts until it is confirmed, and no longer") {
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

TEST_CASE("a peer behind NAT is known, listed and reached by the address it comes from") {
    support::lan lan;
    if (!lan.usable()) return;
    lan_node a(lan);
    const endpoint claimed("192.168.1.2", 5000);
    const auto peer = a.link_from_there(claimed);
    const endpoint origin = peer->socket().local();

    REQUIRE(a->wait_text("CONNECT"));
    CHECK_FALSE(a->seen().messages[0].verified);
    CHECK(a->seen().messages[0].sender == claimed);
    CHECK(a->seen().messages[0].reply_to() == origin);
    CHECK(a->wait_rejected(errc::sender_not_verified));
    const auto peers = (**a).peers();
    REQUIRE(peers.size() == 1);
    CHECK(peers[0].address == origin);
    CHECK(peers[0].linked);

    auto sending =
        std::async(std::launch::async, [&] { return (**a).send(origin, "through the link"); });
    CHECK(peer->line() == wire(a->address(), "through the link", "BTC"));
    peer->send("ACK 1\n");
    CHECK_FALSE(sending.get());

    peer->send(wire(claimed, "back\n"));
    CHECK(a->wait_text("back"));
    CHECK_FALSE(a->seen().messages.back().verified);
    CHECK(a->seen().messages.back().reply_to() == origin);
    CHECK(peer->line() == "ACK 1");

    peer->send(wire(claimed, "exit\n"));
    REQUIRE(a->wait_left(1));
    CHECK(a->seen().left[0].first.address == origin);
    CHECK(a->seen().left[0].second == departure::left);
    CHECK((**a).peers().empty());
}

TEST_CASE("a link that claims another's address neither takes over nor ends that peer's traffic") {
    support::lan lan;
    if (!lan.usable()) return;
    lan_node a(lan);
    std::unique_ptr<raw_listener> listener;
    std::unique_ptr<raw_peer> genuine;
    lan.here.run([&] {
        listener = std::make_unique<raw_listener>(endpoint("10.99.0.1", 0));
        genuine = std::make_unique<raw_peer>(a->address());
        genuine->send(wire(listener->address(), "CONNECT\n"));
        CHECK_FALSE(genuine->line().empty());
    });
    REQUIRE(a->wait_joined(1));
    const endpoint victim = listener->address();

    const auto forged = a.link_from_there(victim);
    auto sending =
        std::async(std::launch::async, [&] { return (**a).send(victim, "to the genuine one"); });
    CHECK(genuine->line() == wire(a->address(), "to the genuine one", "BTC"));
    genuine->send("ACK 1\n");
    CHECK_FALSE(sending.get());

    forged->send(wire(victim, "exit\n"));
    REQUIRE(a->wait_left(1));
    CHECK(a->seen().left[0].first.address == forged->socket().local());
    CHECK(is_linked(*a, victim));
    sending = std::async(std::launch::async, [&] { return (**a).send(victim, "again"); });
    CHECK(genuine->line() == wire(a->address(), "again", "BTC"));
    genuine->send("ACK 2\n");
    CHECK_FALSE(sending.get());
}

TEST_CASE("a line that claims another sender than its link's is shown unverified") {
    support::lan lan;
    if (!lan.usable()) return;
    lan_node a(lan);
    lan.here.run([&] {
        CHECK(one_shot(a->address(), wire({"10.99.0.1", 6000}, "hello")) == ending::closed);
    });
    REQUIRE(a->wait_joined(1));
    const endpoint honest("10.99.0.2", 5000);
    const auto peer = a.link_from_there(honest);
    peer->send(wire({"10.99.0.1", 6000}, "forged\n"));
    REQUIRE(a->wait_text("forged"));
    CHECK_FALSE(a->seen().messages.back().verified);
    peer->send(wire({"10.99.0.1", 6000}, "exit\n"));
    peer->send(wire(honest, "marker\n"));
    static_cast<void>(
        wait_until([&] { return a->seen().count_text("marker") || !a->seen().left.empty(); }));
    for (const auto& gone : a->seen().left) CHECK(gone.first.address == honest);
    bool known = false;
    for (const auto& p : (**a).peers()) known = known || p.address == endpoint("10.99.0.1", 6000);
    CHECK(known);
}

TEST_CASE("a peer that vanishes in the middle is noticed by what is not confirmed") {
    const support::stopwatch watch;
    support::lan lan;
    if (!lan.usable()) return;
    outcomes results;
    config settings = local();
    settings.delivery_timeout = 500ms;
    lan_node a(lan, settings);
    const endpoint there("10.99.0.2", 5000);
    const auto peer = a.link_from_there(there);
    REQUIRE(a->wait_joined(1));
    lan.unplug();
    for (int i = 0; i < 10; ++i) REQUIRE_FALSE(results.post(**a, there, std::to_string(i)));
    CHECK(results.wait());
    CHECK(results.count({}) == 0);
    CHECK(results.each_once());
    REQUIRE(a->wait_left(1));
    CHECK(a->seen().left[0].second == departure::lost);
    CHECK_FALSE(is_linked(*a, there));
    CHECK(watch.is_short());
}

TEST_CASE("a peer that vanishes while nothing is said is noticed by keep-alive") {
    const support::stopwatch watch;
    support::lan lan;
    if (!lan.usable()) return;
    config settings = local();
    settings.keep_alive = 1s;
    lan_node a(lan, settings);
    const endpoint there("10.99.0.2", 5000);
    const auto peer = a.link_from_there(there);
    REQUIRE(a->wait_joined(1));
    lan.unplug();
    REQUIRE(a->wait_left(1));
    CHECK(a->seen().left[0].first.address == there);
    CHECK(a->seen().left[0].second == departure::lost);
    CHECK_FALSE(is_linked(*a, there));
    CHECK(watch.is_short());
}

#endif
