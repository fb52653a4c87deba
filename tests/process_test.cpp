// Processes that are killed, suspended or forked, and a network that loses a segment: Linux only.
//
// SPDX-License-Identifier: MIT

#include "process.hpp"
#include "support.hpp"

#if defined(__linux__)

#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <stdexcept>

namespace {

using namespace support;
using p2pchat::endpoint;
using p2pchat::errc;

/// A node with little room, whose handler is held in its first message.
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

/// More events than the loop takes at once: its batches are of 256.
constexpr std::uint16_t many = 300;

/// How long a process is suspended; its timeouts are as short.
constexpr milliseconds suspension{1000};

p2pchat::config short_patience() {
    auto settings = local("Child");
    settings.quiet_period = settings.delivery_timeout = suspension;
    return settings;
}

void receive(process& parent) {
    recording_node node(short_patience());
    parent.say(to_string(node.address()));
    const std::string text = parent.hear();
    node.wait_messages(parent.hear_number());
    parent.say(node.seen().count_text(text));
}

/// Lets each connection of this process's listeners take so many bytes while nobody reads.
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

/// More than one or two turns read from one connection.
constexpr int much = 4 << 20;

void receive_much(process& parent) {
    auto settings = local("Child");
    settings.max_message_bytes = 2 * much;
    settings.first_message_timeout = suspension;
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
                          BPF_STMT(BPF_RET | BPF_K, 32 + 483),  // the beginning of the message
                          BPF_STMT(BPF_RET | BPF_K, 0),         // its rest, which is sent again
                          BPF_STMT(BPF_RET | BPF_K, 0xffff)};   // packets without data
    const sock_fprog filter{sizeof code / sizeof *code, code};
    const int handle = static_cast<int>(listener.socket().native_handle());
    REQUIRE(::setsockopt(handle, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0);
}

/// Whether all that was sent has reached the other side, the end of the stream too.
bool has_arrived(raw_peer& peer) {
    int left = -1;
    const int handle = static_cast<int>(peer.socket().native_handle());
    return ::ioctl(handle, TIOCOUTQ, &left) == 0 && left == 0;
}

/// Whether a segment has come while one before it is missing.
bool has_gap(raw_peer& peer) {
    tcp_info info{};
    socklen_t size = sizeof info;
    const int handle = static_cast<int>(peer.socket().native_handle());
    return ::getsockopt(handle, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_rcv_ooopack > 0;
}

}  // namespace

TEST_CASE("a message that a dying process has not taken is not reported as delivered") {
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
    REQUIRE(busy.ask("handling?") == 1);  // from now on no room is given back
    read_all(address);
    const std::size_t before = busy.ask("connections?");
    CHECK_FALSE(sent.post(*from, address, "pay 100 to Bob"));
    CHECK(wait_until([&] { return busy.ask("connections?") > before; }));
    read_all(address);
    const std::size_t taken = busy.ask("received?");
    REQUIRE(taken < peers.size());

    SUBCASE("killed") { busy.kill(); }
    SUBCASE("its handler throws") {
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

TEST_CASE("a process that was suspended shows the messages that came meanwhile whole") {
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
    std::this_thread::sleep_for(suspension);  // its timeouts pass meanwhile
    child.go_on();
    for (auto& peer : peers) CHECK(peer.read_to_end() == ending::closed);
    child.say("pay 100 to Bob only if he asks");
    CHECK(child.ask(std::to_string(peers.size())) == peers.size());
}

TEST_CASE("a process that was suspended takes a message longer than one turn reads") {
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
    std::this_thread::sleep_for(suspension);  // its timeout passes meanwhile
    child.go_on();
    CHECK(peer.read_to_end() == ending::closed);
}

TEST_CASE("a process that was suspended closes no link whose confirmation came meanwhile") {
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
    std::this_thread::sleep_for(suspension);  // its timeouts pass meanwhile
    child.go_on();
    CHECK(child.hear_number() == peers.size());  // delivered
    CHECK(child.hear_number() == peers.size());  // linked
}

TEST_CASE("a process that was suspended reports a message that was taken meanwhile") {
    process child(send_one);
    raw_listener listener;
    child.say(to_string(listener.address()));
    raw_peer peer = listener.accept();
    CHECK(peer.read_to_end() == ending::closed);
    child.stop();
    peer.close();
    std::this_thread::sleep_for(suspension);  // its timeouts pass meanwhile
    child.go_on();
    CHECK(child.hear() == std::error_code().message());
}

TEST_CASE("a forked child process keeps neither the port nor a message's outcome") {
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

TEST_CASE("a message of which one of two segments is lost is not reported as delivered") {
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
        error = make_error_code(errc::not_taken);  // as with send
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
    CHECK(wait_until([&] { return has_gap(peer); }));  // the end came before the rest
    peer.close();  // as a peer that takes it for the whole message
    if (!posts) sender.join();
    CHECK(sent.wait());
    CHECK(error == errc::not_taken);
    CHECK(sent.count(errc::not_taken) == (posts ? 1u : 0u));
}

#endif
