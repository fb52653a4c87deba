// Tests of addresses: which one a node claims, which one a peer is known by, and how the node's own
// is recognized.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "support.hpp"

#include <future>
#include <memory>

#if defined(__linux__)
#include <fstream>
#endif

namespace {

using namespace support;
using p2pchat::config;
using p2pchat::departure;
using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::node;

config with_address(std::string address) {
    config settings = local();
    settings.address = std::move(address);
    return settings;
}

#if defined(__linux__)

/// Has all connections of this host come from one port; a connection to that port is then
/// connected to itself.
bool connects_from(std::uint16_t port) {
    std::ofstream range("/proc/sys/net/ipv4/ip_local_port_range");
    range << port << ' ' << port << '\n' << std::flush;
    if (!range.good()) MESSAGE("skipped: this needs a /proc/sys that can be written");
    return range.good();
}

/// Calls `test` with a node and a port on which nobody listens, but from which it connects.
template <class Test>
void connect_to_itself(const Test& test) {
    const bool ran = run_on_own_host([&] {
        recording_node node;
        const endpoint nowhere = raw_listener().address();
        if (connects_from(nowhere.port())) test(node, nowhere);
    });
    if (!ran) MESSAGE("skipped: this needs Linux network namespaces (root, iproute2)");
}

#endif

}  // namespace

// --------------------------------------------------------------------------------- our own address

TEST_CASE("start refuses a bad address") {
    for (const std::string address :
         {"nonsense", "10.18.1", "10.18.1.7:5000", "[::1]", " ", "0.0.0.0", "::"}) {
        CAPTURE(address);
        node bad(with_address(address));
        CHECK(bad.start() == errc::bad_address);
        CHECK(bad.address() == endpoint());
    }
}

TEST_CASE("a node is known by the address it was given, and by the port it listens on") {
    recording_node a(with_address("127.0.0.1"));
    CHECK(a.address().address() == "127.0.0.1");
    CHECK(a.address().port() != 0);
    recording_node b(with_address("192.0.2.7"));
    CHECK(b.address().address() == "192.0.2.7");
}

TEST_CASE("a node without a given address is known by the detected one") {
    recording_node a(with_address(""));
    CHECK(a.address().same_address(p2pchat::detect_address()));
    CHECK(a.address().port() != 0);
}

TEST_CASE("a node without a given address claims that of the connection over loopback") {
    auto settings = local();
    settings.address.clear();
    outcomes sent;
    recording_node node(settings);
    for (const char* address : {"127.0.0.1", "::1"}) {
        CAPTURE(std::string(address));
        if (std::string_view(address) == "::1" && !has_ipv6()) continue;
        raw_listener listener({address, 0});
        CHECK_FALSE(sent.post(*node, listener.address(), "who"));
        raw_peer peer = listener.accept();
        CHECK(peer.read_to_end() == ending::closed);
        CHECK(peer.text() == wire({address, node.address().port()}, "who", "BTC"));
        peer.close();
        CHECK(sent.wait());
    }
}

TEST_CASE("nodes talk over IPv6") {
    if (!has_ipv6()) return;
    recording_node a(with_address("::1")), b(with_address("::1"));
    CHECK(a.address().address() == "::1");
    CHECK_FALSE(a->send(b.address(), "hi"));
    REQUIRE(b.wait_messages(1));
    CHECK(b.seen().messages[0].sender == a.address());
    CHECK(b.seen().messages[0].verified);
    CHECK_FALSE(b->send(a.address(), "hello"));
    CHECK(a.wait_text("hello"));
}

TEST_CASE("a node may send to itself, and is not its own peer") {
    recording_node a;
    const auto error = a->send(a.address(), "hi");
    if (error)
        CHECK(error == errc::own_address);
    else
        CHECK(a.wait_text("hi"));
    CHECK(a->peers().empty());
    CHECK(a.seen().joined.empty());
}

TEST_CASE("connecting to our own address by loopback is refused") {
    auto settings = local();
    settings.address = "192.0.2.1";
    recording_node node(settings);
    const endpoint loopback("127.0.0.1", node.address().port());
    CHECK(node->connect(loopback).error == errc::own_address);
}

TEST_CASE("a CONNECT with our own address makes neither a link nor a peer") {
    recording_node node;
    raw_peer peer(node.address());
    peer.send(wire(node.address(), "CONNECT\n"));
    CHECK(peer.read_to_end() == ending::closed);
    CHECK(peer.text().empty());
    CHECK(node.wait_rejected(errc::own_address));
    CHECK(node->peers().empty());
}

TEST_CASE("a peer that answers CONNECT with our own address is linked, but never verified") {
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

TEST_CASE("our own port is recognized over loopback too, but not at another host's address") {
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

// ------------------------------------------------------------------------------ the peer's address

TEST_CASE("a peer reached at one address and known by another is one peer") {
    if (!has_wide_loopback()) return;
    auto by_other = local("Other");
    by_other.address = "127.0.0.77";  // it claims this one
    recording_node other(by_other), node;
    const endpoint reached("127.0.0.1", other.address().port());
    SUBCASE("we open the link") { CHECK(node->connect(reached).linked); }
    SUBCASE("the peer opens it") {
        CHECK(other->connect(node.address()).linked);
        CHECK(node->connect(other.address()).linked);
    }
    REQUIRE(node->peers().size() == 1);
    CHECK(node->peers()[0].address == other.address());
    CHECK_FALSE(other->send(node.address(), "who am I"));
    REQUIRE(node.wait_text("who am I"));
    const auto before = other->statistics().connections;
    CHECK_FALSE(node->send(node.seen().messages.back().reply_to(), "an answer"));
    for (const auto& outcome : node->broadcast("to all")) CHECK_FALSE(outcome.error);
    CHECK(other.wait_text("to all"));
    CHECK(other.seen().count_text("to all") == 1);
    CHECK(other->statistics().connections == before);  // it all went over the link
    CHECK_FALSE(node->leave(other.address()));
    CHECK(wait_until([&] { return other->peers().empty(); }));
}

TEST_CASE("messages to the address at which a linked peer was reached go over its link") {
    if (!has_wide_loopback()) return;
    auto by_other = local("Other");
    by_other.address = "127.0.0.77";  // it claims this one
    outcomes sent;
    recording_node other(by_other), node;
    const endpoint reached("127.0.0.1", other.address().port());
    CHECK_FALSE(node->connect(reached, [](p2pchat::connect_result) {}));
    for (int i = 0; i < 10; ++i) CHECK_FALSE(sent.post(*node, reached, std::to_string(i)));
    CHECK(sent.wait());
    CHECK(sent.count({}) == 10);
    CHECK(other->statistics().connections == 1);
    REQUIRE(other.wait_messages(10));
    for (std::size_t i = 0; i < 10; ++i) CHECK(other.seen().messages[i].text == std::to_string(i));
}

TEST_CASE(
    "messages that wait under a linked peer's other address stay in order when the link ends") {
    raw_listener reached, known;
    outcomes sent;
    recording_node node;
    CHECK_FALSE(node->connect(reached.address(), [](p2pchat::connect_result) {}));
    raw_peer link = reached.accept();
    CHECK(link.line() == wire(node.address(), "CONNECT", "BTC"));
    CHECK(link.send(wire(known.address(), "CONNECT\n")));
    CHECK_FALSE(sent.post(*node, reached.address(), "not confirmed"));
    CHECK(link.line() == wire(node.address(), "not confirmed", "BTC"));
    CHECK(link.send(wire(known.address(), "exit\n")));
    CHECK(node.wait_left(1));
    CHECK_FALSE(sent.post(*node, reached.address(), "first"));  // waits for the unconfirmed one
    link.reset();
    raw_peer one = known.accept();
    CHECK_FALSE(sent.post(*node, reached.address(), "second"));
    CHECK(one.read_to_end() == ending::closed);
    CHECK(one.text() == wire(node.address(), "first", "BTC"));
    one.close();
    raw_peer another = known.accept();
    CHECK(another.read_to_end() == ending::closed);
    CHECK(another.text() == wire(node.address(), "second", "BTC"));
    another.close();
    CHECK(sent.wait());
    CHECK(sent.count(errc::link_lost) == 1);
    CHECK(sent.count({}) == 2);
    CHECK_FALSE(
        sent.post(*node, reached.address(), "third"));  // the link's address no longer applies
    raw_peer anew = reached.accept();
    CHECK(anew.read_to_end() == ending::closed);
    CHECK(anew.text() == wire(node.address(), "third", "BTC"));
}

TEST_CASE("two nodes with the same address and team, each behind its own router, can link") {
    raw_listener listener;
    recording_node node;
    p2pchat::connect_result result;
    std::thread connecting([&] { result = node->connect(listener.address()); });
    raw_peer peer = listener.accept();
    const std::string greeting = peer.line();
    CHECK(greeting == wire(node.address(), "CONNECT", "BTC"));
    CHECK(peer.send(greeting + '\n'));
    connecting.join();
    CHECK_FALSE(result.error);
    CHECK(result.linked);
}

#if defined(__linux__)

// ------------------------------------------------------------------------------ hosts of their own

TEST_CASE("a CONNECT that a port connected to itself returns makes no link") {
    connect_to_itself([](recording_node& node, const endpoint& nowhere) {
        const auto result = node->connect(nowhere);
        CHECK(result.error == std::errc::connection_refused);
        CHECK_FALSE(result.linked);
        CHECK(node->statistics().delivered == 0);
        CHECK(node->peers().empty());
    });
}

TEST_CASE("a message that a port connected to itself returns was delivered to nobody") {
    outcomes sent;
    connect_to_itself([&](recording_node& node, const endpoint& nowhere) {
        const auto refused = std::errc::connection_refused;
        SUBCASE("send") { CHECK(node->send(nowhere, "to nobody") == refused); }
        SUBCASE("post") {
            CHECK_FALSE(sent.post(*node, nowhere, "to nobody"));
            CHECK(sent.wait());
            CHECK(sent.count(refused) == 1);
        }
        CHECK(node->statistics().delivered == 0);
    });
}

TEST_CASE("a node claims on each network the address that it has there, even one added later") {
    lan network;
    if (!network.usable()) return;
    std::unique_ptr<recording_node> node, other;
    auto settings = local();
    settings.address.clear();
    network.here.run([&] { node = std::make_unique<recording_node>(settings); });
    network.there.run([&] { other = std::make_unique<recording_node>(settings); });
    const struct {
        const char *here, *there, *bits;
    } networks[] = {{"10.99.0.1", "10.99.0.2", nullptr},
                    {"10.98.0.1", "10.98.0.2", "/24"},
                    {"fd00:98::1", "fd00:98::2", "/64 nodad"}};
    std::size_t networks_heard = 0;
    for (const auto& one : networks) {
        CAPTURE(std::string(one.here));
        const auto add = [&one](host& at, const std::string& address) {
            return !one.bits || at.command("ip addr add " + address + one.bits + " dev lan");
        };
        REQUIRE(add(network.here, one.here));
        REQUIRE(add(network.there, one.there));
        const endpoint claim(one.here, node->address().port());
        const endpoint to(one.there, other->address().port());
        const std::string text = std::string("from ") + one.here;
        network.here.run([&] { CHECK_FALSE((*node)->send(to, text)); });
        REQUIRE(other->wait_messages(++networks_heard));
        const auto heard = other->seen().messages.back();
        CHECK(heard.text == text);
        CHECK(heard.sender == claim);
        CHECK(heard.verified);
        network.there.run([&] { CHECK_FALSE((*other)->send(heard.reply_to(), text)); });
        CHECK(node->wait_text(text));
        network.here.run([&] { CHECK((*node)->connect(to).linked); });
        REQUIRE(other->wait_connected(networks_heard));
        CHECK(other->seen().connected.back().address == claim);
    }
    CHECK(other->seen().rejected.empty());
    CHECK(node->seen().rejected.empty());
    const auto port = node->address().port();
    const auto known_by = [&](const char* address) {
        network.here.run([&] { CHECK(node->address() == endpoint(address, port)); });
    };
    network.here.run([&] {
        for (const auto& one : networks)
            CHECK((*node)->connect({one.here, port}).error == errc::own_address);
    });
    known_by("10.99.0.1");
    network.here.command("ip addr flush dev lan scope global");
    network.here.command("ip addr add 10.97.0.1/24 dev lan");
    known_by("10.97.0.1");
    network.here.run([&] { node.reset(); });
    network.there.run([&] { other.reset(); });
}

TEST_CASE("a peer behind NAT is known, listed and reached by the address it comes from") {
    support::lan lan;
    if (!lan.usable()) return;
    lan_node a(lan);
    const endpoint claimed("192.168.1.2", 5000);
    const auto peer = a.link_from_there(claimed);
    const endpoint origin = peer->socket().local();

    REQUIRE(a->wait_connected(1));
    CHECK(a->seen().connected[0].address == origin);
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
    CHECK(a->seen().left[0].first.address == endpoint("10.99.0.2", victim.port()));
    CHECK(is_linked(*a, victim));
    sending = std::async(std::launch::async, [&] { return (**a).send(victim, "again"); });
    CHECK(genuine->line() == wire(a->address(), "again", "BTC"));
    genuine->send("ACK 2\n");
    CHECK_FALSE(sending.get());
}

TEST_CASE("a claim of a loopback address or of ours from another host means that host") {
    support::lan lan;
    if (!lan.usable()) return;
    lan_node a(lan);
    const auto say = [&](const std::string& bytes) {
        lan.there.run([&] { CHECK(one_shot(a->address(), bytes) == ending::closed); });
    };
    const endpoint peer("10.99.0.2", 5000);
    std::string claim;
    SUBCASE("loopback") { claim = "127.0.1.1:5000"; }
    SUBCASE("ours") { claim = "10.99.0.1:5000"; }
    say(claim + " Crew Hi there");
    REQUIRE(a->wait_text("Hi there"));
    const auto heard = a->seen().messages.back();
    CHECK(heard.sender == peer);
    CHECK(heard.verified);
    CHECK(heard.reply_to() == peer);
    say(claim + " Crew exit");
    REQUIRE(a->wait_left(1));
    CHECK(a->seen().left[0].first.address == peer);
    CHECK(a->seen().messages.size() == 1);

    endpoint claimed;
    REQUIRE_FALSE(parse(claim, claimed));
    const auto link = a.link_from_there(claimed);
    REQUIRE(a->wait_joined(2));
    CHECK(is_linked(*a, peer));
    link->send(claim + " Crew Hi\n");
    CHECK(link->line() == "ACK 1");
    REQUIRE(a->wait_text("Hi"));
    CHECK(a->seen().messages.back().sender == peer);
    CHECK(a->seen().messages.back().verified);
    link->send(claim + " Crew exit\n");
    REQUIRE(a->wait_left(2));
    CHECK(a->seen().left[1].first.address == peer);
    CHECK(a->seen().rejected.empty());
}

TEST_CASE("a line whose sender is not its link's is shown unverified") {
    support::lan lan;
    if (!lan.usable()) return;
    lan_node a(lan);
    lan.here.run([&] {
        CHECK(one_shot(a->address(), wire({"10.99.0.1", 6000}, "hello")) == ending::closed);
    });
    REQUIRE(a->wait_joined(1));
    const endpoint honest("10.99.0.2", 5000);
    const auto peer = a.link_from_there(honest);
    peer->send(wire({"10.99.0.77", 6000}, "forged\n"));
    REQUIRE(a->wait_text("forged"));
    CHECK_FALSE(a->seen().messages.back().verified);
    peer->send(wire({"10.99.0.77", 6000}, "exit\n"));
    peer->send(wire({"10.99.0.1", 6000}, "exit\n"));
    peer->send(wire(honest, "marker\n"));
    REQUIRE(a->wait_text("marker"));
    CHECK(a->seen().left.empty());
    bool known = false;
    for (const auto& p : (**a).peers()) known = known || p.address == endpoint("10.99.0.1", 6000);
    CHECK(known);
}

#endif
