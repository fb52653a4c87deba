// Tests of discovery: on loopback, typed by hand, and between hosts on networks of our own; and of
// peer exchange over links.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "support.hpp"

#include <algorithm>
#include <memory>
#include <set>

#if !defined(_WIN32)
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

using p2pchat::candidate;
using p2pchat::config;
using p2pchat::endpoint;
using support::local;
using support::raw_listener;
using support::raw_peer;
using support::recording_node;
using support::typed_link;
using support::wait_until;
using support::wire;
using namespace std::chrono_literals;

namespace {

/// A discovery port of its own, because tests run in parallel.
class meeting {
public:
    std::uint16_t port() const { return port_; }
    config of(const std::string& team, const std::string& address = "127.0.0.1") const {
        auto settings = local(team);
        settings.address = address;
        settings.discovery = true;
        settings.discovery_port = port_;
        return settings;
    }

private:
    std::uint16_t port_ = support::new_discovery_port();
};

std::set<std::string> names(const std::vector<candidate>& all) {
    std::set<std::string> result;
    for (const auto& one : all) result.insert(to_string(one.address) + ' ' + one.team);
    return result;
}

std::string name_of(recording_node& one) { return to_string(one.address()) + ' ' + one->team(); }

}  // namespace

TEST_CASE("nodes on loopback find each other, and are no peers because of it") {
    const meeting here;
    recording_node a(here.of("Ann")), b(here.of("Bob"));
    REQUIRE(a.wait_found(1));
    REQUIRE(b.wait_found(1));
    CHECK(names(a->candidates()) == std::set<std::string>{name_of(b)});
    CHECK(names(b->candidates()) == std::set<std::string>{name_of(a)});
    CHECK(names(a.seen().found) == std::set<std::string>{name_of(b)});
    CHECK(std::chrono::system_clock::now() - a->candidates().front().last_heard < 1min);
    CHECK(a->statistics().announced != 0);
    CHECK(a->statistics().unannounced == 0);
    for (auto* one : {&a, &b}) {
        CHECK((*one)->peers().empty());
        CHECK((*one)->statistics().connections == 0);
    }
    b->stop();
    REQUIRE(a.wait_gone(1));  // at once, not only when candidates expire
    CHECK(a->candidates().empty());
    CHECK(names(a.seen().gone) == std::set<std::string>{name_of(b)});
}

TEST_CASE("nodes with different discovery ports, or without discovery, do not find each other") {
    const meeting here, elsewhere;
    recording_node a(here.of("Ann")), other(elsewhere.of("Other"));
    auto settings = here.of("Mute");
    settings.discovery = false;
    recording_node mute(settings), b(here.of("Bob"));
    REQUIRE(a.wait_found(1));
    REQUIRE(b.wait_found(1));
    CHECK(names(a->candidates()) == std::set<std::string>{name_of(b)});
    CHECK(mute->candidates().empty());
    CHECK(mute->statistics().announced == 0);
    CHECK(other->candidates().empty());
}

TEST_CASE("nodes of different applications do not find each other") {
    const meeting here;
    const auto of = [&](const std::string& team, const std::string& application) {
        auto settings = here.of(team);
        settings.application = application;
        return settings;
    };
    recording_node none(of("None", "")), watcher(of("Watcher", "watcher")), a(of("Ann", "chat")),
        b(of("Bob", "chat")), other(of("Other", ""));
    for (auto* one : {&none, &a, &b, &other}) REQUIRE(one->wait_found(1));
    CHECK(wait_until([&] { return watcher->statistics().ignored >= 4; }));
    CHECK(names(none->candidates()) == std::set<std::string>{name_of(other)});
    CHECK(names(a->candidates()) == std::set<std::string>{name_of(b)});
    CHECK(a->candidates().front().knows == "app=chat");
    CHECK(watcher->candidates().empty());

    for (const std::string bad : {"two words", "\n"}) {
        p2pchat::node node(of("Bad", bad));
        CHECK(node.start() == p2pchat::errc::bad_setting);
    }
    p2pchat::node node(of("Bad", std::string(33, 'a')));
    CHECK(node.start() == p2pchat::errc::bad_setting);
}

TEST_CASE("a discovery port of 0 is refused") {
    auto settings = local();
    settings.discovery_port = 0;
    p2pchat::node node(settings);
    CHECK(node.start() == p2pchat::errc::bad_setting);
}

TEST_CASE("many nodes know each other at once") {
    if (!support::has_wide_loopback()) return;
#if defined(_WIN32)
    constexpr int count = 10;  // Wine is slow
#else
    constexpr int count = 60;
#endif
    const meeting here;
    support::stopwatch clock;
    std::vector<std::unique_ptr<recording_node>> all;
    for (int i = 0; i < count; ++i)
        all.push_back(std::make_unique<recording_node>(
            here.of("T" + std::to_string(i), "127.0.2." + std::to_string(i + 1))));
    for (auto& one : all) CHECK(one->wait_found(all.size() - 1));
    CHECK(clock.is_short());
}

#if !defined(_WIN32)

namespace {

sockaddr_in native(const endpoint& from) {
    sockaddr_in result{};
    result.sin_family = AF_INET;
    result.sin_port = htons(from.port());
    ::inet_pton(AF_INET, from.address().c_str(), &result.sin_addr);
    return result;
}

/// A datagram socket, for datagrams typed by hand.
class raw_datagrams {
public:
    explicit raw_datagrams(const std::string& address = "127.0.0.1", std::uint16_t port = 0,
                           bool shares = false) {
        if (shares) set(SOL_SOCKET, SO_REUSEADDR, 1);
        const auto local = native(endpoint(address, port));
        REQUIRE(::bind(socket_, reinterpret_cast<const sockaddr*>(&local), sizeof local) == 0);
        ::in_addr device = local.sin_addr;
        set(IPPROTO_IP, IP_MULTICAST_IF, device);
        set(SOL_SOCKET, SO_BROADCAST, 1);
    }
    raw_datagrams(const raw_datagrams&) = delete;
    raw_datagrams& operator=(const raw_datagrams&) = delete;
    ~raw_datagrams() { ::close(socket_); }

    endpoint address() const {
        sockaddr_in found{};
        socklen_t size = sizeof found;
        ::getsockname(socket_, reinterpret_cast<sockaddr*>(&found), &size);
        char text[INET_ADDRSTRLEN] = "";
        ::inet_ntop(AF_INET, &found.sin_addr, text, sizeof text);
        return {text, ntohs(found.sin_port)};
    }
    void send(const std::string& bytes, const endpoint& to) {
        const auto target = native(to);
        CHECK(::sendto(socket_, bytes.data(), bytes.size(), 0,
                       reinterpret_cast<const sockaddr*>(&target),
                       sizeof target) == static_cast<ssize_t>(bytes.size()));
    }
    /// The next datagram; empty if none came in that time.
    std::string receive(std::chrono::milliseconds timeout = support::patience) {
        pollfd wanted{socket_, POLLIN, 0};
        if (::poll(&wanted, 1, static_cast<int>(timeout.count())) != 1) return {};
        char bytes[2000];
        const auto size = ::recv(socket_, bytes, sizeof bytes, 0);
        return size > 0 ? std::string(bytes, static_cast<std::size_t>(size)) : std::string();
    }

private:
    template <class Value>
    void set(int level, int name, const Value& value) {
        ::setsockopt(socket_, level, name, &value, sizeof value);
    }

    int socket_ = ::socket(AF_INET, SOCK_DGRAM, 0);
};

/// Padded as announcements are, so that it is longer than any answer.
std::string filled(std::string text) {
    text.resize(128, ' ');
    return text;
}

const std::string group = "239.255.112.50";

}  // namespace

// ------------------------------------------------------------------------------- typed by hand

TEST_CASE("HELLO is answered where it came from, and never with more bytes than it had") {
    const meeting here;
    recording_node a(here.of("Ann"));
    raw_datagrams hand;
    hand.send(filled(wire(hand.address(), "HELLO tls and more")), {group, here.port()});
    REQUIRE(a.wait_found(1));
    CHECK(a.seen().found.front().team == "Raw");
    CHECK(a.seen().found.front().knows == "tls and more");
    CHECK(a.seen().found.front().address == hand.address());
    CHECK(hand.receive() == wire(a.address(), "HERE", "Ann"));

    raw_datagrams shorter;
    shorter.send(wire(shorter.address(), "HELLO", "R"), {group, here.port()});
    REQUIRE(a.wait_found(2));
    hand.send(filled(wire(hand.address(), "HELLO")), {group, here.port()});  // asks again
    CHECK_FALSE(hand.receive().empty());
    CHECK(shorter.receive(600ms).empty());  // an answer waits for half a second at most
}

TEST_CASE("HERE is answered only if it is new and not an answer itself") {
    const meeting here;
    recording_node a(here.of("Ann"));
    raw_datagrams hand, other;
    hand.send(filled(wire(hand.address(), "HERE")), {group, here.port()});
    CHECK(hand.receive() == wire(a.address(), "HERE", "Ann"));
    hand.send(filled(wire(hand.address(), "HERE")), {group, here.port()});
    other.send(filled(wire(other.address(), "HERE")), a.address());  // to the node's own port
    REQUIRE(a.wait_found(2));
    CHECK(hand.receive(600ms).empty());
    CHECK(other.receive(1ms).empty());
}

TEST_CASE("false datagrams make no candidate") {
    const meeting here;
    recording_node a(here.of("Ann"));
    raw_datagrams hand, other;
    const endpoint to(group, here.port());
    const std::string long_one(400, 'x');
    const std::vector<std::string> all = {
        "",
        "HELLO",
        std::string("\0\1\2", 3),
        wire({"127.0.0.9", hand.address().port()}, "HELLO"),  // another address
        wire(other.address(), "HELLO"),                       // another port
        wire(a.address(), "HELLO"),                           // the node's own address
        wire(hand.address(), "HOWDY"),
        wire(hand.address(), "HELLOO"),
        wire(hand.address(), "hello"),
        wire(hand.address(), "HELLO", std::string(65, 't')),
        wire(hand.address(), "HELLO " + long_one + ' ' + long_one),
    };
    for (const auto& bytes : all) hand.send(bytes, to);
    CHECK(wait_until([&] { return a->statistics().ignored == all.size(); }));
    hand.send(wire(hand.address(), "HERE"), to);
    REQUIRE(a.wait_found(1));
    CHECK(names(a->candidates()) == std::set<std::string>{to_string(hand.address()) + " Raw"});

    other.send(wire(hand.address(), "exit"), to);  // for another sender
    other.send(wire(other.address(), "HERE"), to);
    REQUIRE(a.wait_found(2));
    CHECK(a.seen().gone.empty());
    hand.send(wire(hand.address(), "exit"), to);
    REQUIRE(a.wait_gone(1));
    CHECK(a->candidates().size() == 1);
}

TEST_CASE(
    "a candidate whose link breaks, or that cannot be reached, is found again once heard again") {
    const meeting here;
    recording_node a(here.of("Ann"));
    const auto typed = std::make_unique<raw_listener>();
    const endpoint there = typed->address();
    raw_datagrams hand("127.0.0.1", there.port());
    std::size_t times = 0;
    const auto is_found = [&] {
        ++times;
        return wait_until([&] {  // a datagram may be lost
            hand.send(wire(there, "HERE"), {group, here.port()});
            return a.seen().found.size() >= times;
        });
    };
    const auto link = [&] {
        raw_peer peer(a.address());
        peer.send(wire(there, "CONNECT") + '\n');
        CHECK_FALSE(peer.line().empty());
        return peer;
    };
    REQUIRE(is_found());
    SUBCASE("link reset") { link().reset(); }
    SUBCASE("link closed, as by a program that ends") { link().close(); }
    SUBCASE("refusing a connection") {
        typed->socket().close();
        CHECK(a->connect(there).error == std::errc::connection_refused);
    }
    SUBCASE("refusing a connection, with a message waiting") {
        typed->socket().close();
        CHECK_FALSE(a->post(there, "first"));
        CHECK(a->connect(there).error == std::errc::connection_refused);
    }
    SUBCASE("resetting a CONNECT") {
        CHECK_FALSE(a->connect(there, {}));
        typed->accept().reset();
    }
    REQUIRE(a.wait_gone(1));
    CHECK(a->candidates().empty());
    CHECK(is_found());
    CHECK(a->candidates().size() == 1);
}

TEST_CASE("a candidate that announces another team is gone, and found as another one") {
    const meeting here;
    recording_node a(here.of("Ann"));
    raw_datagrams hand;
    const auto announce = [&](std::string_view team) {
        hand.send(wire(hand.address(), "HERE", team), {group, here.port()});
    };
    announce("Bob");
    REQUIRE(a.wait_found(1));
    announce("Mallory");
    REQUIRE(a.wait_found(2));
    CHECK(a.seen().found[1].team == "Mallory");
    REQUIRE(a.seen().gone.size() == 1);
    CHECK(a.seen().gone[0].team == "Bob");
    CHECK(names(a->candidates()) == std::set<std::string>{to_string(hand.address()) + " Mallory"});
    // However often it does so, it uses up its own share.
    for (int i = 0; i < 100; ++i) announce("T" + std::to_string(i));
    CHECK(wait_until([&] { return a->statistics().ignored >= 92; }));
    CHECK(a.seen().found.size() <= 8);
}

TEST_CASE("what is kept for a team is not sent to another one that is found at its address") {
    const meeting here;
    support::outcomes posts;
    recording_node a(here.of("Ann"));
    const auto place = std::make_unique<support::nobody>();
    const endpoint there = place->address();
    raw_datagrams hand("127.0.0.1", there.port());
    const auto announce = [&](std::string_view team) {
        hand.send(wire(there, "HERE", team), {group, here.port()});
    };
    SUBCASE("it was found") {
        announce("Bob");
        REQUIRE(a.wait_found(1));
    }
    SUBCASE("it was heard from, which an announcement does not undo") {
        CHECK(support::one_shot(a.address(), wire(there, "hi", "Bob")) == support::ending::closed);
        REQUIRE(a.wait_joined(1));
        announce("Mallory");
        REQUIRE(a.wait_found(1));
    }
    REQUIRE_FALSE(
        posts.post(*a, there, "for Bob", p2pchat::when_full::refuse, p2pchat::when_absent::keep));
    REQUIRE(wait_until([&] { return a->kept().size() == 1; }));
    CHECK(a->kept().front().team == "Bob");
    raw_listener listener(there);
    announce("Mallory");
    REQUIRE(a.wait_found(2));
    CHECK(a.seen().found.back().team == "Mallory");
    CHECK(support::is_left_alone(listener));
    CHECK(a->kept().size() == 1);
    announce("Bob");
    raw_peer peer = listener.accept();
    CHECK(peer.read_to_end() == support::ending::closed);
    CHECK(peer.text() == wire(a.address(), "for Bob", "Ann"));
    peer.close();
    CHECK(posts.wait());
    CHECK(posts.count({}) == 1);
}

TEST_CASE("a candidate that leaves a link, or has another, stays found") {
    const meeting here;
    recording_node a(here.of("Ann"));
    raw_listener typed;
    const endpoint there = typed.address();
    raw_datagrams hand("127.0.0.1", there.port());
    hand.send(wire(there, "HERE"), {group, here.port()});
    REQUIRE(a.wait_found(1));
    raw_peer older(a.address()), newer(a.address());
    for (raw_peer* const one : {&older, &newer}) {
        one->send(wire(there, "CONNECT") + '\n');
        CHECK_FALSE(one->line().empty());
    }
    older.reset();
    newer.send(wire(there, "exit") + '\n');
    REQUIRE(a.wait_left(1));
    newer.reset();
    CHECK(wait_until([&] { return support::linked_peers(*a) == 0; }));
    CHECK(a->candidates().size() == 1);
    CHECK(a.seen().gone.empty());
}

TEST_CASE("one address has no more than eight candidates, and all together have 256") {
    if (!support::has_wide_loopback()) return;
    const meeting here;
    recording_node a(here.of("Ann"));
    std::vector<std::unique_ptr<raw_datagrams>> all;
    for (int i = 0; i < 9; ++i) {
        all.push_back(std::make_unique<raw_datagrams>());
        all.back()->send(wire(all.back()->address(), "HERE"), {group, here.port()});
    }
    CHECK(wait_until([&] { return a->statistics().ignored == 1; }));
    CHECK(a->candidates().size() == 8);
    const auto heard = [&] { return a.seen().found.size() + a->statistics().ignored; };
    for (std::size_t i = 0; i < 600; ++i) {
        raw_datagrams one("127.0." + std::to_string(3 + i / 200) + '.' +
                          std::to_string(1 + i % 200));
        one.send(wire(one.address(), "HERE"), {group, here.port()});
        if (i % 50 == 0)  // few enough at a time for the system's buffer
            REQUIRE(wait_until([&] { return heard() == 9 + i + 1; }));
    }
    CHECK(wait_until([&] { return heard() == 9 + 600; }));
    CHECK(a.seen().found.size() >= 256);
    CHECK(a->candidates().size() <= 256);
    const auto seen = a.seen();
    CHECK(seen.found.size() - seen.gone.size() == a->candidates().size());
    CHECK(seen.found.size() < 400);  // a flood causes few events
}

// It takes twenty seconds, and is run in suite `network`.
TEST_CASE("newcomers do not evict a candidate that has been heard for 20 seconds" *
          doctest::skip()) {
    if (!support::has_wide_loopback()) return;
    const meeting here;
    recording_node a(here.of("Ann"));
    const auto say = [&](raw_datagrams& one) {
        one.send(wire(one.address(), "HERE"), {group, here.port()});
    };
    raw_datagrams settled;
    say(settled);
    REQUIRE(a.wait_found(1));
    const auto heard = [&] { return a->candidates().front().last_heard; };
    const auto first = heard();
    REQUIRE(wait_until([&] {
        settled.receive(500ms);  // nothing comes
        say(settled);
        return heard() - first > 21s;
    }));
    for (std::size_t i = 1; i <= 256; ++i) {  // one more than there is room for
        raw_datagrams newcomer("127.0.3." + std::to_string(i % 256));
        say(newcomer);
        REQUIRE(a.wait_found(1 + i));
    }
    REQUIRE(a.wait_gone(1));
    CHECK(a.seen().gone[0].address != settled.address());
}

TEST_CASE("one host that comes and goes keeps nobody else from being found") {
    if (!support::has_wide_loopback()) return;
    const meeting here;
    recording_node a(here.of("Ann"));
    const endpoint to(group, here.port());
    std::vector<std::unique_ptr<raw_datagrams>> ports;
    for (int i = 0; i < 8; ++i) ports.push_back(std::make_unique<raw_datagrams>());
    const auto come_and_go = [&] {
        for (auto& one : ports)
            for (const char* const word : {"HELLO", "exit"})
                one->send(wire(one->address(), word, "Flood"), to);
    };
    for (std::size_t i = 1; i <= 20; ++i) {
        for (int times = 0; times < 2; ++times) come_and_go();
        raw_datagrams newcomer("127.0.3." + std::to_string(i));
        newcomer.send(wire(newcomer.address(), "HELLO"), to);
        REQUIRE(
            a.wait([&](const support::record& r) {  // few enough at a time for the system's buffer
                return std::any_of(r.found.begin(), r.found.end(), [&](const candidate& who) {
                    return who.address == newcomer.address();
                });
            }));
    }
    CHECK(a.seen().found.size() < 20 + 2 * ports.size());
}

// ------------------------------------------------------------------------- on networks of our own

#if defined(__linux__)

namespace {

using support::host;
using support::segment;

/// A node on a host; it detects its own address.
class node_on {
public:
    node_on(host& where, const std::string& team, config settings) : where_(where) {
        settings.team = team;
        where_.run([&] { node_ = std::make_unique<recording_node>(settings); });
    }
    node_on(host& where, const std::string& team) : node_on(where, team, anywhere()) {}
    ~node_on() {
        where_.run([&] { node_.reset(); });
    }
    static config anywhere() {
        auto settings = local();
        settings.address.clear();
        settings.discovery = true;
        return settings;
    }

    recording_node* operator->() noexcept { return node_.get(); }
    p2pchat::node& operator*() noexcept { return **node_; }

    /// What it has found so far, each as "TEAM at ADDRESS".
    std::set<std::string> found() {
        std::set<std::string> result;
        for (const auto& one : (**node_).candidates())
            result.insert(one.team + " at " + one.address.address());
        return result;
    }
    /// Sends from a thread of this host, so that the socket is there.
    std::error_code send(const endpoint& to, const std::string& text) {
        std::error_code error;
        where_.run([&] { error = (*node_)->send(to, text); });
        return error;
    }

private:
    host& where_;
    std::unique_ptr<recording_node> node_;
};

using found = std::set<std::string>;

}  // namespace

TEST_CASE("two programs on a machine without any network find each other") {
    host alone;
    if (!alone.usable() || !alone.command("ip link set lo up")) return;
    node_on a(alone, "Ann"), b(alone, "Bob");
    REQUIRE(a->wait_found(1));
    REQUIRE(b->wait_found(1));
    CHECK(a.found() == found{"Bob at 127.0.0.1"});
    CHECK_FALSE(a.send(a->seen().found.front().address, "hello"));
    CHECK(b->wait_text("hello"));
}

TEST_CASE("hosts on one segment find each other, by IPv4 only once") {
    segment lan;
    if (!lan.usable()) return;
    host first, second, third;
    lan.plug(first, "lan", "10.99.0.1/24");
    lan.plug(second, "lan", "10.99.0.2/24");
    lan.plug(third, "lan", "10.99.0.3/24");
    node_on a(first, "Ann"), b(second, "Bob"), c(third, "Cy");
    for (node_on* one : {&a, &b, &c}) REQUIRE((*one)->wait_found(2));
    CHECK(a.found() == found{"Bob at 10.99.0.2", "Cy at 10.99.0.3"});
    CHECK(c.found() == found{"Ann at 10.99.0.1", "Bob at 10.99.0.2"});
    CHECK(b->seen().found.size() == 2);
    CHECK_FALSE(a.send(a->seen().found.front().address, "hello"));
    CHECK((*a).statistics().ignored == 0);
}

TEST_CASE("two programs on one machine of a network find each other there") {
    segment lan;
    if (!lan.usable()) return;
    host first;
    lan.plug(first, "lan", "10.99.0.1/24");
    node_on a(first, "Ann"), b(first, "Bob");
    REQUIRE(a->wait_found(1));
    REQUIRE(b->wait_found(1));
    CHECK(a.found() == found{"Bob at 10.99.0.1"});
}

TEST_CASE("a host on two segments is found on each by its address there") {
    segment left, right;
    if (!left.usable() || !right.usable()) return;
    host first, between, last;
    left.plug(first, "lan", "10.99.0.1/24");
    left.plug(between, "one", "10.99.0.2/24");
    right.plug(between, "two", "10.98.0.2/24");
    right.plug(last, "lan", "10.98.0.3/24");
    node_on a(first, "Ann"), b(between, "Bob"), c(last, "Cy");
    REQUIRE(a->wait_found(1));
    REQUIRE(b->wait_found(2));
    REQUIRE(c->wait_found(1));
    CHECK(a.found() == found{"Bob at 10.99.0.2"});
    CHECK(b.found() == found{"Ann at 10.99.0.1", "Cy at 10.98.0.3"});
    CHECK(c.found() == found{"Bob at 10.98.0.2"});
}

TEST_CASE("hosts without IPv4 find each other by IPv6") {
    segment lan;
    if (!lan.usable()) return;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    MESSAGE("skipped: qemu-user swaps half of the interface's number in an IPv6 address");
    return;
#endif
    host first, second;
    lan.plug(first, "lan", "");
    lan.plug(second, "lan", "");
    node_on a(first, "Ann"), b(second, "Bob");
    REQUIRE(a->wait_found(1));
    REQUIRE(b->wait_found(1));
    const endpoint to = a->seen().found.front().address;
    CHECK(to.scope() != 0);
    CHECK_FALSE(a.send(to, "over IPv6"));
    CHECK(b->wait_text("over IPv6"));
}

TEST_CASE("a node known by a loopback address, or by one of its own, announces nowhere else") {
    segment lan, other_lan;
    if (!lan.usable() || !other_lan.usable()) return;
    host first, second, third;
    lan.plug(first, "lan", "10.99.0.1/24");
    other_lan.plug(first, "other", "10.98.0.1/24");
    lan.plug(second, "lan", "10.99.0.2/24");
    other_lan.plug(third, "lan", "10.98.0.3/24");
    auto settings = node_on::anywhere();
    node_on there(second, "There"), beyond(third, "Beyond");
    settings.address = "127.0.0.1";
    node_on hidden(first, "Hidden", settings);
    settings.address = "10.99.0.1";
    node_on shown(first, "Shown", settings), last(first, "Last");
    REQUIRE(there->wait_found(2));
    REQUIRE(beyond->wait_found(1));
    CHECK(there.found() == found{"Last at 10.99.0.1", "Shown at 10.99.0.1"});
    CHECK(beyond.found() == found{"Last at 10.98.0.1"});
    CHECK((*there).statistics().ignored == 0);
    CHECK(wait_until([&] { return (*hidden).statistics().announced != 0; }));
    CHECK((*hidden).candidates().empty());
}

TEST_CASE("other nodes are found although a stranger has the discovery port") {
    segment lan;
    if (!lan.usable()) return;
    host first, second;
    lan.plug(first, "lan", "10.99.0.1/24");
    lan.plug(second, "lan", "10.99.0.2/24");
    std::unique_ptr<raw_datagrams> stranger;
    first.run([&] { stranger = std::make_unique<raw_datagrams>("0.0.0.0", 21975); });
    node_on b(second, "Bob"), a(first, "Ann");
    REQUIRE(a->wait_found(1));
    REQUIRE(b->wait_found(1));
    CHECK(a.found() == found{"Bob at 10.99.0.2"});
    CHECK((*a).statistics().unannounced != 0);
    first.run([&] { stranger.reset(); });
}

TEST_CASE("a node with many networks announces on those that lead to others, and counts the rest") {
    segment lan;
    if (!lan.usable()) return;
    host first, second;
    bool tunnels = false;
    SUBCASE("a default route") {}
    SUBCASE("a broadcast address") { tunnels = true; }
    for (int i = 1; i <= 20; ++i) {
        const std::string number = std::to_string(i), name = "d" + number;
        const std::string add = tunnels ? "ip tuntap add mode tun name " + name
                                        : "ip link add " + name + " type veth peer e" + number;
        const bool made = first.command(add + " && ip addr add 10.50." + number + ".1/24 dev " +
                                        name + " && ip link set " + name + " up");
        if (!made) MESSAGE("skipped: no such devices here");
        if (!made) return;
    }
    lan.plug(first, "lan", "10.99.0.1/24");
    lan.plug(second, "lan", "10.99.0.2/24");
    if (!tunnels) REQUIRE(first.command("ip route add default via 10.99.0.254"));
    node_on a(first, "Ann"), b(second, "Bob");
    REQUIRE(a->wait_found(1));
    REQUIRE(b->wait_found(1));
    CHECK(a.found() == found{"Bob at 10.99.0.2"});
    CHECK((*a).statistics().unannounced >= 21 - 16);
}

TEST_CASE("a datagram from outside our networks is ignored") {
    segment lan;
    if (!lan.usable()) return;
    host first, second;
    lan.plug(first, "lan", "10.99.0.1/24");
    lan.plug(second, "lan", "10.99.0.2/24");
    REQUIRE(second.command("ip addr add 172.20.0.1/32 dev lan"));
    REQUIRE(first.command("ip route add 172.20.0.1/32 dev lan"));
    auto settings = node_on::anywhere();
    settings.address = "10.99.0.2";
    node_on a(first, "Ann"), b(second, "Bob", settings);
    REQUIRE(a->wait_found(1));  // so the Ethernet works
    const auto say = [&](const std::string& from) {
        raw_datagrams hand(from);
        hand.send(wire(hand.address(), "HELLO"), {"10.99.0.1", 21975});
        hand.send(wire(hand.address(), "HELLO"), {"10.99.0.255", 21975});
    };
    second.run([&] { say("172.20.0.1"); });
    second.run([&] { say("10.99.0.2"); });
    REQUIRE(a->wait_found(2));
    CHECK(wait_until([&] { return (*a).statistics().ignored >= 2; }));
    CHECK((*a).statistics().ignored == 2);
    CHECK(a.found() == found{"Bob at 10.99.0.2", "Raw at 10.99.0.2"});
}

#endif
#endif

// -------------------------------------------------------------------------------- peer exchange

TEST_CASE("a link exchanges peers if both sides have discovery on") {
    const meeting here, there;
    recording_node a(here.of("Ann")), b(there.of("Bob"));
    REQUIRE(b->connect(a.address()).linked);
    typed_link hand(a);
    CHECK(hand.peer.line() == "KNOWS 1");
    hand.peer.send("KNOWS 1\nPEERS\n");
    CHECK(hand.peer.line() == "PEERS");
    CHECK(hand.peer.line() == "PEER " + to_string(b.address()) + "/Bob");
    hand.peer.send("PEERS\nPEERS\n");  // too soon, and not answered
    hand.send("done");
    CHECK(a.wait_text("done"));
    CHECK(hand.peer.line() == "ACK 1");
    CHECK(a.seen().rejected.empty());

    recording_node deaf(local("Deaf"));
    typed_link without(deaf);
    without.peer.send("KNOWS 1\nPEERS\nPEER 127.0.0.1:5000/BTC\n");
    without.send("done");
    CHECK(without.peer.line() == "ACK 1");
    CHECK(deaf.seen().rejected.empty());
    CHECK(deaf->candidates().empty());
}

TEST_CASE("the peers that a linked peer names become candidates, up to the number asked for") {
    const meeting here;
    recording_node a(here.of("Ann"));
    raw_listener named;
    typed_link liar(a);
    CHECK(liar.peer.line() == "KNOWS 1");
    liar.peer.send("PEER 127.0.0.1:4999/Early\nKNOWS 1\n");  // unasked
    CHECK(liar.peer.line() == "PEERS");
    std::string lines = "PEER " + to_string(a.address()) + "/Ann\n" +  // ourselves
                        "PEER 10.1.2.3:5000/Far\n" +                   // not on loopback
                        "PEER [fe80::1]:5000/Scope\nPEER 127.0.0.1:5000\nPEER x/Y\nPEER /\nPEER\n" +
                        "PEER " + to_string(named.address()) + "/Named\n";
    for (int i = 0; i < 10000; ++i)
        lines += "PEER 127.0.9." + std::to_string(i % 250) + ':' + std::to_string(5000 + i) + "/T" +
                 std::to_string(i) + '\n';
    liar.peer.send(lines);
    liar.send("done");
    REQUIRE(a.wait_text("done"));
    const auto candidates = a->candidates();
    CHECK(candidates.size() == 50 - 7);  // malformed ones count, too
    CHECK(names(candidates).count(to_string(named.address()) + " Named") == 1);
    CHECK(a->statistics().ignored == 1 + 7 + 10000 - 42);
    CHECK(a->peers().size() == 1);
    p2pchat::tcp_socket none;
    CHECK(named.socket().accept(none, 50ms) == std::errc::timed_out);
}

#if defined(__linux__)  // where a connection may come from any address of loopback

namespace {

/// A linked peer at an address of its own, typed by hand, which has been asked for its peers.
class teller {
public:
    teller(const std::string& at, const endpoint& node) : head_(at + ":5000 Teller ") {
        const auto local = native(endpoint(at, 0)), to = native(node);
        REQUIRE(::bind(socket_, reinterpret_cast<const sockaddr*>(&local), sizeof local) == 0);
        REQUIRE(::connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0);
        say(head_ + "CONNECT\nKNOWS 1\n");
        std::string heard;
        char bytes[256];
        while (heard.find("PEERS\n") == std::string::npos) {
            pollfd wanted{socket_, POLLIN, 0};
            const auto patience = static_cast<int>(support::patience.count());
            REQUIRE(::poll(&wanted, 1, patience) == 1);
            const auto size = ::recv(socket_, bytes, sizeof bytes, 0);
            REQUIRE(size > 0);
            heard.append(bytes, static_cast<std::size_t>(size));
        }
    }
    teller(const teller&) = delete;
    teller& operator=(const teller&) = delete;
    ~teller() { ::close(socket_); }

    void tell(const std::string& of) { say("PEER " + of + "/Told\n"); }
    void send(const std::string& text) { say(head_ + text + '\n'); }

private:
    void say(const std::string& line) {
        REQUIRE(::send(socket_, line.data(), line.size(), MSG_NOSIGNAL) ==
                static_cast<ssize_t>(line.size()));
    }

    const std::string head_;
    int socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
};

}  // namespace

TEST_CASE("a candidate only named by a peer does not evict one that was heard itself") {
    const meeting here;
    recording_node a(here.of("Ann"));
    raw_datagrams hand;
    hand.send(wire(hand.address(), "HERE"), {group, here.port()});
    REQUIRE(a.wait_found(1));
    std::vector<std::unique_ptr<teller>> liars;
    for (int i = 1; i <= 6; ++i) {
        liars.push_back(std::make_unique<teller>("127.0.6." + std::to_string(i), a.address()));
        for (int k = 0; k < 50; ++k)
            liars.back()->tell("127.0.7." + std::to_string(i) + ':' + std::to_string(5000 + k));
        liars.back()->send("done " + std::to_string(i));
        REQUIRE(a.wait_text("done " + std::to_string(i)));
    }
    CHECK(a->candidates().size() == 256);
    CHECK(names(a->candidates()).count(to_string(hand.address()) + " Raw") == 1);
}

TEST_CASE(
    "a host that also names peers is heard itself, and its ports have no more than their share") {
    const meeting here;
    recording_node a(here.of("Ann"));
    const std::string there = "127.0.6.1";
    teller peer(there, a.address());
    std::vector<std::unique_ptr<raw_datagrams>> ports;
    for (int i = 0; i < 10; ++i) ports.push_back(std::make_unique<raw_datagrams>(there));
    for (auto& one : ports) peer.tell(to_string(one->address()));
    for (int k = 0; k < 39; ++k) peer.tell("127.0.7.1:" + std::to_string(5000 + k));
    REQUIRE(a.wait_found(49));
    const endpoint to(group, here.port());
    for (auto& one : ports) one->send(filled(wire(one->address(), "HERE", "Itself")), to);
    const auto themselves = [&] {
        const auto all = a->candidates();
        return std::count_if(all.begin(), all.end(),
                             [](const candidate& who) { return who.team == "Itself"; });
    };
    CHECK(wait_until([&] { return a->statistics().ignored == 2; }));
    CHECK(themselves() == 8);
    CHECK(ports.front()->receive() == wire(a.address(), "HERE", "Ann"));  // as to a new candidate
    peer.tell(to_string(ports.front()->address()));  // this one has announced itself
    CHECK(wait_until([&] { return a->statistics().ignored == 3; }));
    CHECK(themselves() == 8);
}

#endif

TEST_CASE("twenty nodes in a chain, each given one address, come to know all others") {
    if (!support::has_wide_loopback()) return;
    constexpr std::size_t count = 20;
    std::vector<std::unique_ptr<recording_node>> all;
    const std::vector<meeting> apart(count);  // no datagram reaches another node
    for (std::size_t i = 0; i < count; ++i)
        all.push_back(std::make_unique<recording_node>(
            apart[i].of("T" + std::to_string(i), "127.0.5." + std::to_string(i + 1))));
    for (std::size_t i = 1; i < count; ++i)
        REQUIRE((**all[i]).connect(all[i - 1]->address()).linked);
    // As a program that wants to talk to all does.
    const auto meet = [](recording_node& one) {
        for (const auto& found : one->candidates())
            static_cast<void>(one->connect(found.address, {}));
    };
    CHECK(wait_until([&] {
        std::size_t known = 0;
        for (auto& one : all) {
            meet(*one);
            known += (**one).peers().size();
        }
        return known == count * (count - 1);
    }));
}
