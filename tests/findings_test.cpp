// What is told is true: what an attack on the library from outside its own suite has found. A
// process that dies or is stopped, a network that cuts a message, a peer that answers or is slow.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "process.hpp"
#include "support.hpp"

#if defined(__linux__)
#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <future>
#include <stdexcept>
#endif

namespace {

using namespace support;
using p2pchat::endpoint;
using p2pchat::errc;

const endpoint somebody("127.0.0.1", 9);

/// A peer that takes one-shots, and confirms each after a while.
class slow_peer {
public:
    explicit slow_peer(milliseconds pace) : serving_([this, pace] { serve(pace); }) {}
    slow_peer(const slow_peer&) = delete;
    slow_peer& operator=(const slow_peer&) = delete;
    ~slow_peer() {
        over_ = true;
        serving_.join();
    }

    endpoint address() const { return listener_.address(); }
    std::size_t confirmed() const { return confirmed_; }

private:
    void serve(milliseconds pace) {
        while (!over_) {
            p2pchat::tcp_socket accepted;
            if (listener_.socket().accept(accepted, 20ms)) continue;
            raw_peer peer(std::move(accepted));
            peer.read_to_end();
            std::this_thread::sleep_for(pace);  // it is slow: that is the case
            ++confirmed_;
        }
    }

    raw_listener listener_;
    std::atomic<std::size_t> confirmed_{0};
    std::atomic<bool> over_{false};
    std::thread serving_;
};

#if defined(__linux__)

/// A node with little room, whose handler stays in its first message.
void be_busy(process& parent) {
    gate handling, told;
    auto settings = local("Busy");
    settings.max_received_bytes = 2000;
    recording_node node(settings, [&](recording_node&, const p2pchat::message&) {
        handling.open();
        if (told.wait()) throw std::runtime_error("a handler that throws");
    });
    parent.say(to_string(node.address()));
    for (auto what = parent.hear(); !what.empty(); what = parent.hear()) {
        if (what == "handling?") parent.say(handling.wait());
        if (what == "received?") parent.say(node->statistics().received);
        if (what == "connections?") parent.say(node->statistics().connections);
        if (what == "throw") told.open();
    }
}

/// More than the loop learns of at once: it takes them in batches of 256.
constexpr std::uint16_t many = 300;

/// So long a process stands still, and so short are its time-outs.
constexpr milliseconds standstill{1000};

p2pchat::config short_patience() {
    auto settings = local("Child");
    settings.quiet_period = settings.delivery_timeout = standstill;
    return settings;
}

void receive(process& parent) {
    recording_node node(short_patience());
    parent.say(to_string(node.address()));
    const std::string text = parent.hear();
    node.wait_messages(parent.hear_number());
    parent.say(node.seen().count_text(text));
}

/// Has the listeners of this process take so much on each connection while nobody reads.
bool take_much(int bytes) {
    bool done = false;
    for (int handle = 0; handle < 1024; ++handle) {
        int listens = 0;
        socklen_t size = sizeof listens;
        if (::getsockopt(handle, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0)
            done = ::setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) == 0;
    }
    return done;
}

/// More than is read of one connection in one turn, or in two.
constexpr int much = 4 << 20;

void receive_much(process& parent) {
    auto settings = local("Child");
    settings.max_message_bytes = 2 * much;
    settings.first_message_timeout = standstill;
    recording_node node(settings);
    parent.say(take_much(4 * much) ? to_string(node.address()) : "refused");
    parent.hear();
}

void post_to_all(process& parent) {
    outcomes sent;
    recording_node node(short_patience());
    parent.say(to_string(node.address()));
    parent.hear();
    for (const auto& peer : node->peers()) sent.post(*node, peer.address, "to all");
    sent.wait();
    parent.say(sent.count({}));
    parent.say(linked_peers(*node));
}

void send_one(process& parent) {
    recording_node node(short_patience());
    parent.say(node->send(parent.hear_address(), "by itself").message());
}

/// Has a listener's connections get the first segment of a message of 536 bytes and lose the other,
/// as on a path that takes packets of 535 bytes. Loopback itself cuts nothing.
void lose_second_segment(raw_listener& listener) {
    // The sizes are those of TCP packets, with a header of 32 bytes; a filter can shorten them.
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
                          BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 200, 1, 0),
                          BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 44, 1, 2),
                          BPF_STMT(BPF_RET | BPF_K, 32 + 483),  // the message: of it the beginning
                          BPF_STMT(BPF_RET | BPF_K, 0),         // its rest, sent again
                          BPF_STMT(BPF_RET | BPF_K, 0xffff)};   // without bytes
    const sock_fprog filter{sizeof code / sizeof *code, code};
    const int handle = static_cast<int>(listener.socket().native_handle());
    REQUIRE(::setsockopt(handle, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0);
}

/// Has all connections of this host come from one port; what leads to that is connected to itself.
bool connects_from(std::uint16_t port) {
    std::ofstream range("/proc/sys/net/ipv4/ip_local_port_range");
    range << port << ' ' << port << '\n' << std::flush;
    if (!range.good()) MESSAGE("skipped: this needs a /proc/sys that can be written");
    return range.good();
}

/// Calls `test` with a node, and the port on which nobody listens and from which it connects.
template <class Test>
void connect_to_itself(const Test& test) {
    const bool ran = support::run_on_own_host([&] {
        recording_node node;
        const endpoint nowhere = raw_listener().address();
        if (connects_from(nowhere.port())) test(node, nowhere);
    });
    if (!ran) MESSAGE("skipped: this needs Linux network namespaces (root, iproute2)");
}

/// Has a listener's connections take little until somebody reads.
void take_little(raw_listener& listener) {
    const int handle = static_cast<int>(listener.socket().native_handle());
    const int bytes = 4096, segment = 536;
    REQUIRE(::setsockopt(handle, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0);
    REQUIRE(::setsockopt(handle, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment) == 0);
}

/// Whether all that was sent is where the other side can read it, the end too.
bool has_arrived(raw_peer& peer) {
    int left = -1;
    const int handle = static_cast<int>(peer.socket().native_handle());
    return ::ioctl(handle, TIOCOUTQ, &left) == 0 && left == 0;
}

/// Whether something has come for which what goes before it is missing.
bool has_gap(raw_peer& peer) {
    tcp_info info{};
    socklen_t size = sizeof info;
    const int handle = static_cast<int>(peer.socket().native_handle());
    return ::getsockopt(handle, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_rcv_ooopack > 0;
}

#endif

}  // namespace

#if defined(__linux__)

TEST_CASE("what a process that dies had not taken is not told delivered") {
    process busy(be_busy);
    const endpoint address = busy.hear_address();
    std::deque<raw_peer> peers;
    for (int i = 0; i < 100; ++i) {
        peers.emplace_back(address);
        CHECK(peers.back().send(wire(somebody, "pay 100 to Bob")));
        peers.back().half_close();
    }
    raw_peer not_whole(address);
    CHECK(not_whole.send(wire(somebody, "pay 100")));
    outcomes sent;
    recording_node from;
    REQUIRE(busy.ask("handling?") == 1);  // from then on its room is not given back
    read_all(address);
    const std::size_t before = busy.ask("connections?");
    CHECK_FALSE(sent.post(*from, address, "pay 100 to Bob"));
    CHECK(wait_until([&] { return busy.ask("connections?") > before; }));
    read_all(address);
    const std::size_t taken = busy.ask("received?");
    REQUIRE(taken < peers.size());

    SUBCASE("killed") { busy.kill(); }
    SUBCASE("by an exception of its handler") {
        busy.say("throw");
        busy.wait_end();
    }
    std::size_t delivered = 0;
    for (auto& peer : peers) delivered += peer.read_to_end() == ending::closed ? 1u : 0u;
    CHECK(delivered == taken);
    CHECK(not_whole.read_to_end() == ending::reset);
    CHECK(sent.wait());
    CHECK(sent.count(errc::not_taken) == 1);
}

TEST_CASE("a message of two segments of which one is lost is not told delivered") {
    raw_listener listener;
    lose_second_segment(listener);
    outcomes sent;
    recording_node node;
    const std::string text(536 - wire(node.address(), "", "BTC").size(), 'x');
    std::error_code error;
    std::thread sender;
    SUBCASE("send") {
        sender = std::thread([&] { error = node->send(listener.address(), text); });
    }
    SUBCASE("post") {
        CHECK_FALSE(sent.post(*node, listener.address(), text));
        error = make_error_code(errc::not_taken);  // of the other way
    }
    const bool posts = !sender.joinable();
    raw_peer peer = listener.accept();
    // Where the system has no room left for TIME_WAIT, the rest would come to the listener, whose
    // filter drops it, too.
    listener.socket().close();
    char bytes[1024];
    std::size_t size = 0;
    CHECK_FALSE(peer.socket().receive(bytes, sizeof bytes, size, patience));
    CHECK(size == 483);
    CHECK(wait_until([&] { return has_gap(peer); }));  // the end came, before the rest
    peer.close();                                      // nothing more came: it takes that for all
    if (!posts) sender.join();
    CHECK(sent.wait());
    CHECK(error == errc::not_taken);
    CHECK(sent.count(errc::not_taken) == (posts ? 1u : 0u));
}

TEST_CASE("a process that stood still shows what came meanwhile whole") {
    process child(receive);
    const endpoint address = child.hear_address();
    std::deque<raw_peer> peers;
    for (int i = 0; i < many; ++i) {
        peers.emplace_back(address);
        CHECK(peers.back().send(wire(somebody, "pay 100 to Bob")));
    }
    read_all(address);
    child.stop();
    for (auto& peer : peers) {
        CHECK(peer.send(" only if he asks"));
        peer.half_close();
    }
    std::this_thread::sleep_for(standstill);  // its time-outs pass: that is the case
    child.go_on();
    for (auto& peer : peers) CHECK(peer.read_to_end() == ending::closed);
    child.say("pay 100 to Bob only if he asks");
    CHECK(child.ask(std::to_string(peers.size())) == peers.size());
}

TEST_CASE("a process that stood still takes what came meanwhile, and is more than a turn reads") {
    process child(receive_much);
    const std::string name = child.hear();
    if (name == "refused") {
        MESSAGE("skipped: only root may have a receive buffer of that size");
        return;
    }
    endpoint address;
    REQUIRE_FALSE(p2pchat::parse(name, address));
    raw_peer peer(address);
    CHECK(peer.send(wire(somebody, "begun")));
    read_all(address);
    child.stop();
    CHECK(peer.send(std::string(much, 'x')));
    peer.half_close();
    CHECK(wait_until([&] { return has_arrived(peer); }));
    std::this_thread::sleep_for(standstill);  // its time-out passes: that is the case
    child.go_on();
    CHECK(peer.read_to_end() == ending::closed);
}

TEST_CASE("a process that stood still gives up no link whose confirmation came meanwhile") {
    process child(post_to_all);
    const endpoint address = child.hear_address();
    std::deque<raw_peer> peers;
    for (std::uint16_t port = 1; port <= many; ++port) {
        peers.emplace_back(address);
        CHECK(peers.back().send(wire({"127.0.0.1", port}, "CONNECT\n")));
        CHECK(peers.back().line() == wire(address, "CONNECT", "Child"));
    }
    child.say("post");
    for (auto& peer : peers) CHECK(peer.line() == wire(address, "to all", "Child"));
    child.stop();
    for (auto& peer : peers) CHECK(peer.send("ACK 1\n"));
    std::this_thread::sleep_for(standstill);  // its time-outs pass: that is the case
    child.go_on();
    CHECK(child.hear_number() == peers.size());  // delivered
    CHECK(child.hear_number() == peers.size());  // linked
}

TEST_CASE("a process that stood still is told of the message that was taken meanwhile") {
    process child(send_one);
    raw_listener listener;
    child.say(to_string(listener.address()));
    raw_peer peer = listener.accept();
    CHECK(peer.read_to_end() == ending::closed);
    child.stop();
    peer.close();
    std::this_thread::sleep_for(standstill);  // its time-outs pass: that is the case
    child.go_on();
    CHECK(child.hear() == std::error_code().message());
}

TEST_CASE("a link that is stopped in the middle of a line ends in order only if it has confirmed") {
    raw_listener listener;
    take_little(listener);
    outcomes sent;
    recording_node node;
    auto connecting =
        std::async(std::launch::async, [&] { return node->connect(listener.address()); });
    raw_peer peer = listener.accept();
    CHECK(peer.line() == wire(node.address(), "CONNECT", node->team()));
    peer.send(wire(listener.address(), "CONNECT\n"));
    CHECK(connecting.get().linked);
    std::string lines;
    for (const char letter : {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l'}) {
        const std::string text(20000, letter);
        REQUIRE_FALSE(sent.post(*node, listener.address(), text));
        lines += wire(node.address(), text, node->team()) + '\n';
    }
    peer.send(wire(listener.address(), "taken\n"));
    REQUIRE(node.wait_text("taken"));
    read_all(node.address());
    // Room, but not so much that the node is told.
    std::string read(3000, '\0');
    std::size_t size = 0;
    REQUIRE_FALSE(peer.socket().receive(&read[0], read.size(), size, patience));
    read.resize(size);
    node->stop();
    // In order it ends only if there was room for the rest of the line and the confirmation.
    const bool in_order = peer.read_to_end() == ending::closed;
    read += peer.text();
    const std::string last = in_order ? "\nACK 1\n" : "";
    REQUIRE(read.size() > last.size());
    const bool confirmed = read.substr(read.size() - last.size()) == last;
    CHECK(confirmed);
    if (in_order) read.resize(read.size() - last.size());
    const bool as_posted = read == lines.substr(0, read.size());
    CHECK(as_posted);
    CHECK(sent.wait());
    CHECK(sent.count({}) == 0);
}

TEST_CASE("a CONNECT that comes back by a port that is connected to itself makes no link") {
    connect_to_itself([](recording_node& node, const endpoint& nowhere) {
        const auto result = node->connect(nowhere);
        CHECK(result.error == std::errc::connection_refused);
        CHECK_FALSE(result.linked);
        CHECK(node->statistics().delivered == 0);
        CHECK(node->peers().empty());
    });
}

TEST_CASE("what comes back by a port that is connected to itself was delivered to nobody") {
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

TEST_CASE("on each network a node claims the address that it has there, whenever that came") {
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
    std::size_t messages = 0;
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
        REQUIRE(other->wait_messages(++messages));
        const auto heard = other->seen().messages.back();
        CHECK(heard.text == text);
        CHECK(heard.sender == claim);
        CHECK(heard.verified);
        network.there.run([&] { CHECK_FALSE((*other)->send(heard.reply_to(), text)); });
        CHECK(node->wait_text(text));
        network.here.run([&] { CHECK((*node)->connect(to).linked); });
        CHECK(other->wait_messages(++messages));
        CHECK(other->seen().messages.back().sender == claim);
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

TEST_CASE("a child process that was forked keeps neither the port nor a message's outcome") {
    const auto live_on = [](process&) {
        for (;;) ::pause();
    };
    recording_node other;
    auto settings = local();
    settings.port = other.address().port();
    process holds_listener(live_on);
    other->stop();
    recording_node again(settings);
    raw_peer peer(again.address());
    CHECK(wait_until([&] { return again->statistics().connections == 1; }));
    process holds_connection(live_on);
    CHECK(peer.send(wire(somebody, "taken")));
    peer.half_close();
    CHECK(peer.read_to_end() == ending::closed);
}

TEST_CASE("a link may be silent for as long as the system can count") {
    raw_listener listener;
    p2pchat::tcp_socket socket;
    CHECK_FALSE(socket.connect(listener.address(), patience));
    for (const auto idle : {32767s, 32768s, std::chrono::seconds::max()}) {
        socket.keep_alive(15s);
        socket.keep_alive(idle);
        int value = 0;
        socklen_t size = sizeof value;
        const int handle = static_cast<int>(socket.native_handle());
        CHECK(::getsockopt(handle, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size) == 0);
        CHECK(value == 32767);
    }
}

TEST_CASE("at max_connections the host gives way that has most") {
    auto settings = local();
    settings.max_connections = 4;
    recording_node node(settings);
    const auto accepted = [&](std::size_t count) {
        return wait_until([&] { return node->statistics().connections == count; });
    };
    p2pchat::tcp_socket probe;
    if (probe.listen({"::1", 0})) return;  // a machine without IPv6
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

TEST_CASE("many ports of one host hold up nobody else") {
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
    for (auto& peer : silent) {  // as those before them end
        raw_peer accepted = peer.accept();
        CHECK(accepted.read_to_end() == ending::closed);
    }
    CHECK(sent.wait());
    CHECK(sent.count({}) == 9);
}

#endif

TEST_CASE("whoever has joined leaves once, and nobody else does") {
    auto settings = local();
    settings.max_peers = 1;
    recording_node node(settings);
    const auto say = [&](const endpoint& who, std::string_view text) {
        CHECK(one_shot(node.address(), wire(who, text)) == ending::closed);
    };
    const endpoint first("127.0.0.1", 1), second("127.0.0.1", 2);
    const auto events = [&](const endpoint& who) {
        const auto seen = node.seen();
        std::size_t joined = 0, left = 0;
        for (const auto& one : seen.joined) joined += one.address == who ? 1u : 0u;
        for (const auto& one : seen.left) left += one.first.address == who ? 1u : 0u;
        return std::make_pair(joined, left);
    };
    using counts = std::pair<std::size_t, std::size_t>;

    SUBCASE("a stranger's exit") {
        say(first, "exit");
        say(second, "hello");
        CHECK(node.wait_joined(1));
        CHECK(events(first) == counts(0, 0));
    }
    SUBCASE("exit twice") {
        say(first, "hello");
        say(first, "exit");
        say(first, "exit");
        say(second, "hello");
        CHECK(node.wait_joined(2));
        CHECK(events(first) == counts(1, 1));
    }
    SUBCASE("one who gives way to another") {
        say(first, "hello");
        say(second, "hello");
        CHECK(node.wait_left(1));
        CHECK(node.seen().left[0].second == p2pchat::departure::forgotten);
        CHECK(events(first) == counts(1, 1));
        say(first, "again");
        CHECK(node.wait_left(2));
        CHECK(events(first) == counts(2, 1));
        CHECK(events(second) == counts(1, 1));
    }
    SUBCASE("one who is linked does not give way") {
        typed_link link(node);
        say(first, "hello");
        say(second, "hello");
        CHECK(node.wait_left(1));
        CHECK(link.send("still here"));
        CHECK(node.wait_text("still here"));
        CHECK(node->peers().size() == 2);
        link.peer.close();
        CHECK(node.wait_left(2));
        CHECK(events(link.address()) == counts(1, 1));
        CHECK(events(second) == counts(1, 0));
    }
}

TEST_CASE("a peer that is reached by one address and goes by another is one peer") {
    auto by_other = local("Other");
    by_other.address = "127.0.0.77";  // another name of it
    recording_node other(by_other), node;
    const endpoint reached("127.0.0.1", other.address().port());
    SUBCASE("we open the link") { CHECK(node->connect(reached).linked); }
    SUBCASE("it does") {
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

TEST_CASE("by the address that it was reached at, a linked peer is reached by its link") {
    auto by_other = local("Other");
    by_other.address = "127.0.0.77";  // another name of it
    outcomes sent;
    recording_node other(by_other), node;
    const endpoint reached("127.0.0.1", other.address().port());
    CHECK_FALSE(node->connect(reached, [](p2pchat::connect_result) {}));
    for (int i = 0; i < 10; ++i) CHECK_FALSE(sent.post(*node, reached, std::to_string(i)));
    CHECK(sent.wait());
    CHECK(sent.count({}) == 10);
    CHECK(other->statistics().connections == 1);
    REQUIRE(other.wait_messages(11));
    for (std::size_t i = 0; i < 10; ++i)
        CHECK(other.seen().messages[i + 1].text == std::to_string(i));
}

TEST_CASE("what waits for a linked peer by another name of it is not passed when the link ends") {
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
    CHECK_FALSE(sent.post(*node, reached.address(), "first"));  // waits for what is not confirmed
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
    CHECK_FALSE(sent.post(*node, reached.address(), "third"));  // by that name it is known no more
    raw_peer anew = reached.accept();
    CHECK(anew.read_to_end() == ending::closed);
    CHECK(anew.text() == wire(node.address(), "third", "BTC"));
}

TEST_CASE("where there was a link, the second message in a short while opens another") {
    raw_listener listener;
    outcomes sent;
    recording_node node;
    const auto link = [&] {
        raw_peer peer = listener.accept();
        CHECK(peer.line() == wire(node.address(), "CONNECT", "BTC"));
        CHECK(peer.send(wire(listener.address(), "CONNECT\n")));
        return peer;
    };
    const auto by_one_shot = [&](std::string_view text) {
        raw_peer peer = listener.accept();
        CHECK(peer.read_to_end() == ending::closed);
        CHECK(peer.text() == wire(node.address(), text, "BTC"));
        peer.close();
        CHECK(sent.wait());
    };
    std::thread connecting([&] { CHECK(node->connect(listener.address()).linked); });
    raw_peer first = link();
    connecting.join();
    bool leaves = false;
    SUBCASE("after it broke") {}
    SUBCASE("not after exit") { leaves = true; }
    if (leaves) {
        CHECK(first.send(wire(listener.address(), "exit\n")));
        first.read_to_end();
        first.close();
        CHECK(node.wait_left(1));
        for (int i = 0; i < 3; ++i) {
            CHECK_FALSE(sent.post(*node, listener.address(), "one-shot"));
            by_one_shot("one-shot");
        }
        return;
    }
    first.close();
    CHECK(node.wait_left(1));
    CHECK_FALSE(sent.post(*node, listener.address(), "one"));
    by_one_shot("one");
    CHECK_FALSE(sent.post(*node, listener.address(), "two"));
    {
        raw_peer peer = link();
        CHECK(peer.line() == wire(node.address(), "two", "BTC"));
        CHECK(peer.send("ACK 1\n"));
        CHECK(sent.wait());
        CHECK(sent.count({}) == 2);
        CHECK(node->statistics().delivered == 3);  // with the first CONNECT, without the second
    }
    CHECK(node.wait_left(2));
    CHECK_FALSE(sent.post(*node, listener.address(), "three"));
    by_one_shot("three");
    CHECK_FALSE(sent.post(*node, listener.address(), "four"));
    {
        raw_peer peer = listener.accept();
        CHECK(peer.line() == wire(node.address(), "CONNECT", "BTC"));
    }  // it knows links no more, and is not asked again
    by_one_shot("four");
    CHECK_FALSE(sent.post(*node, listener.address(), "five"));
    by_one_shot("five");
    CHECK(sent.count({}) == 5);
}

TEST_CASE("settings that cannot be kept are refused, and large ones mean what they say") {
    const auto refused = [](const std::function<void(p2pchat::config&)>& set) {
        auto settings = local();
        set(settings);
        p2pchat::node node(settings);
        return node.start();
    };
    using config = p2pchat::config;
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

TEST_CASE("an answer that begins like the message is no echo") {
    raw_listener listener;
    outcomes sent;
    recording_node node;
    std::error_code error;
    std::thread sender;
    SUBCASE("send") {
        sender = std::thread([&] { error = node->send(listener.address(), "taken"); });
    }
    SUBCASE("post") { CHECK_FALSE(sent.post(*node, listener.address(), "taken")); }
    const bool posts = !sender.joinable();
    raw_peer peer = listener.accept();
    CHECK(peer.read_to_end() == ending::closed);
    CHECK(peer.send("1"));  // as our address begins
    peer.close();
    if (!posts) sender.join();
    CHECK(sent.wait());
    CHECK_FALSE(error);
    CHECK(sent.count({}) == (posts ? 1u : 0u));
}

TEST_CASE("two that go by the same address and team, each behind its own router, link") {
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

TEST_CASE("over loopback a node that was given no address claims that of the connection") {
    auto settings = local();
    settings.address.clear();
    outcomes sent;
    recording_node node(settings);
    for (const char* address : {"127.0.0.1", "::1"}) {
        CAPTURE(std::string(address));
        p2pchat::tcp_socket probe;
        if (probe.listen({address, 0})) continue;  // a machine without IPv6
        raw_listener listener({address, 0});
        CHECK_FALSE(sent.post(*node, listener.address(), "who"));
        raw_peer peer = listener.accept();
        CHECK(peer.read_to_end() == ending::closed);
        CHECK(peer.text() == wire({address, node.address().port()}, "who", "BTC"));
        peer.close();
        CHECK(sent.wait());
    }
}

TEST_CASE("as many messages of ours as connections are allowed lock nobody out, nor we ourselves") {
    auto settings = local();
    settings.max_connections = 3;
    outcomes sent;
    recording_node node(settings), other;
    std::deque<raw_listener> silent;
    for (const char* address : {"127.0.0.1", "127.0.0.2", "127.0.0.3"})
        silent.emplace_back(endpoint(address, 0));
    std::deque<raw_peer> under_way, without_message;
    SUBCASE("ours first") {
        for (auto& peer : silent) CHECK_FALSE(sent.post(*node, peer.address(), "no answer"));
        for (auto& peer : silent) under_way.push_back(peer.accept());
        for (int i = 0; i < 10; ++i)
            CHECK(one_shot(node.address(), wire(somebody, "honest")) == ending::closed);
        CHECK(node.wait_messages(10));
        CHECK(node.seen().rejected.empty());
    }
    SUBCASE("theirs first") {
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

TEST_CASE("who waits for an outcome does so no longer than two time-outs, whatever is queued") {
    auto settings = local();
    settings.connect_timeout = settings.handshake_timeout = settings.delivery_timeout = 250ms;
    outcomes sent;
    recording_node node(settings);
    slow_peer slow(50ms);
    const std::size_t queued = 40;
    CHECK(one_shot(node.address(), wire(slow.address(), "here I am")) == ending::closed);
    CHECK(node.wait_joined(1));
    for (std::size_t i = 0; i < queued; ++i)
        CHECK_FALSE(sent.post(*node, slow.address(), "queued"));
    std::error_code error;
    SUBCASE("send") { error = node->send(slow.address(), "waits"); }
    SUBCASE("connect") { error = node->connect(slow.address()).error; }
    SUBCASE("broadcast") {
        const auto all = node->broadcast("waits");
        REQUIRE(all.size() == 1);
        error = all.front().error;
    }
    CHECK(slow.confirmed() < queued / 2);  // in that time, ten
    CHECK(error == std::errc::timed_out);
}
