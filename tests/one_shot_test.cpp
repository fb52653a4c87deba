// Tests of one-shots: what arrives, how they end, timeouts, and the Python original on the other
// side.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <algorithm>
#include <deque>
#include <future>
#include <random>

#if defined(__linux__)
#include <sys/socket.h>
#endif

namespace {

using namespace support;
using p2pchat::config;
using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::message;

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
            std::this_thread::sleep_for(pace);  // the peer is slow
            ++confirmed_;
        }
    }

    raw_listener listener_;
    std::atomic<std::size_t> confirmed_{0};
    std::atomic<bool> over_{false};
    std::thread serving_;
};

}  // namespace

// ------------------------------------------------------------------------------------ what travels

TEST_CASE("a message arrives as it was sent") {
    recording_node a(local("Team_BTC")), b(local("ETH"));
    CHECK_FALSE(a->send(b.address(), "Hi  there"));
    REQUIRE(b.wait_messages(1));
    const message m = b.seen().messages[0];
    CHECK(m.sender == a.address());
    CHECK(m.team == "Team_BTC");
    CHECK(m.text == "Hi  there");
    CHECK(m.verified);
    CHECK(m.origin.address() == "127.0.0.1");
    CHECK(m.reply_to() == a.address());
}

TEST_CASE("white space at the ends of a text is dropped, any other byte arrives") {
    recording_node a, b;
    const std::string text = "\x1b[2J \xff\xfe \x01 \xc3\xbc\t.";
    CHECK_FALSE(a->send(b.address(), " \t\r\n" + text + "\n "));
    CHECK(b.wait_text(text));
}

TEST_CASE("a text that looks like a control line is a text all the same") {
    recording_node a, b;
    for (const std::string text :
         {"ACK 1", "ACK", "CONNECT me", "exit now", "<x>", "127.0.0.1:1 T x"}) {
        CAPTURE(text);
        CHECK_FALSE(a->send(b.address(), text));
        CHECK(b.wait_text(text));
    }
}

TEST_CASE("a one-shot is the message, a half-close, and nothing else") {
    recording_node a(local("Team_BTC"));
    raw_listener listener;
    auto result = std::async(std::launch::async, [&] { return a->send(listener.address(), "Hi"); });
    raw_peer peer = listener.accept();
    CHECK(peer.read_to_end() == ending::closed);
    CHECK(peer.text() == to_string(a.address()) + " Team_BTC Hi");
    peer.close();
    CHECK_FALSE(result.get());
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

TEST_CASE("a CONNECT as a one-shot is no message, and its sender is a peer") {
    recording_node a;
    CHECK(one_shot(a.address(), wire({"127.0.0.1", 5000}, "CONNECT")) == ending::closed);
    REQUIRE(a.wait_connected(1));
    CHECK(a.seen().connected[0].address == endpoint("127.0.0.1", 5000));
    CHECK(a.seen().connected[0].team == "Raw");
    CHECK_FALSE(a.seen().connected[0].linked);
    CHECK(a.seen().messages.empty());
    CHECK(addresses(*a) == std::vector<endpoint>{{"127.0.0.1", 5000}});
}

TEST_CASE("messages posted to one peer arrive in order, and are reported once and in order") {
    outcomes results;
    recording_node a, b;
    constexpr std::size_t count = 100;
    for (std::size_t i = 0; i < count; ++i)
        REQUIRE_FALSE(results.post(*a, b.address(), std::to_string(i)));
    CHECK(results.wait());
    REQUIRE(b.wait_messages(count));
    const record seen = b.seen();
    CHECK(seen.messages.size() == count);
    for (std::size_t i = 0; i < count; ++i) CHECK(seen.messages[i].text == std::to_string(i));
    CHECK(results.count({}) == count);
    CHECK(results.each_once());
    CHECK(results.in_order());
}

TEST_CASE("a post without a completion arrives too") {
    recording_node a, b;
    CHECK_FALSE(a->post(b.address(), "hi"));
    CHECK(b.wait_text("hi"));
}

// -------------------------------------------------------------------------------------- what fails

TEST_CASE("a message that cannot be sent is refused at once") {
    recording_node a, b;
    const std::string nul("a\0b", 3);
    for (const std::string& text :
         {std::string(), std::string(" \n"), std::string("one\ntwo"), std::string("a\rb"), nul}) {
        CAPTURE(text);
        CHECK(a->send(b.address(), text) == errc::bad_text);
        CHECK(a->post(b.address(), text) == errc::bad_text);
    }
    for (const endpoint& to : {endpoint("0.0.0.0", 5000), endpoint("::", 5000)}) {
        CHECK(a->send(to, "hi") == errc::bad_address);
        CHECK(a->post(to, "hi") == errc::bad_address);
        CHECK(a->connect(to).error == errc::bad_address);
    }
    CHECK(a->send(endpoint(), "hi") == std::errc::invalid_argument);
    CHECK(a->send({"127.0.0.1", 0}, "hi") == errc::bad_port);
    CHECK(b.seen().messages.empty());
}

TEST_CASE("a refused post does not call its completion") {
    recording_node a;
    std::atomic<int> calls{0};
    CHECK(a->post(endpoint(), "hi", [&](std::error_code) { ++calls; }));
    CHECK(a->post({"127.0.0.1", 5000}, "", [&](std::error_code) { ++calls; }));
    a->stop();
    CHECK(calls == 0);
}

TEST_CASE("sending to a port where nobody listens is refused") {
    recording_node a;
    support::nobody nobody;
    CHECK(a->send(nobody.address(), "hi") == std::errc::connection_refused);
    const auto result = a->connect(nobody.address());
    CHECK(result.error == std::errc::connection_refused);
    CHECK_FALSE(result.linked);
    CHECK(a->statistics().undelivered == 2);
}

TEST_CASE("a message that the other side resets was not taken") {
    recording_node a;
    raw_listener listener;
    auto result = std::async(std::launch::async, [&] { return a->send(listener.address(), "hi"); });
    raw_peer peer = listener.accept();
    SUBCASE("before reading it") {}
    SUBCASE("after reading it") { CHECK(peer.read_to_end() == ending::closed); }
    peer.reset();
    CHECK(result.get() == errc::not_taken);
}

TEST_CASE("a message that is not taken does not fail those behind it") {
    outcomes results;
    recording_node a;
    raw_listener listener;
    for (const char* text : {"refused", "second", "third"})
        REQUIRE_FALSE(results.post(*a, listener.address(), text));
    listener.accept().reset();
    for (const char* text : {"second", "third"}) {
        raw_peer peer = listener.accept();
        CHECK(peer.read_to_end() == ending::closed);
        CHECK(peer.text() == wire(a.address(), text, a->team()));
    }
    CHECK(results.wait());
    CHECK(results.count(errc::not_taken) == 1);
    CHECK(results.count({}) == 2);
}

TEST_CASE("no message is shown twice, and a refused one is never shown") {
    outcomes results;
    recording_node a, b;
    std::size_t refused = 0;
    for (int i = 0; i < 300; ++i) {
        if (results.post(*a, b.address(), std::to_string(i))) ++refused;
    }
    CHECK(results.wait());
    const std::size_t delivered = results.count({});
    REQUIRE(b.wait_messages(delivered));
    CHECK(b.seen().messages.size() == delivered);
    CHECK(delivered + refused == 300);
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

// ---------------------------------------------------------- timeouts, and peers that do not answer

TEST_CASE("a message that nobody confirms times out after delivery_timeout") {
    config settings = local();
    settings.delivery_timeout = 100ms;
    recording_node a(settings);
    raw_listener listener;
    auto result = std::async(std::launch::async, [&] { return a->send(listener.address(), "hi"); });
    raw_peer peer = listener.accept();
    const stopwatch watch;
    CHECK(result.get() == std::errc::timed_out);
    CHECK(watch.is_short());
    CHECK(a->statistics().undelivered == 1);
}

TEST_CASE("a peer that does not answer holds up no other peer") {
    outcomes results;
    recording_node a, b;
    raw_listener silent;
    REQUIRE_FALSE(results.post(*a, silent.address(), "to nobody"));
    raw_peer held = silent.accept();
    CHECK_FALSE(a->send(b.address(), "hi"));
    CHECK(b.wait_text("hi"));
    held.close();
    CHECK(results.wait());
}

TEST_CASE("a blocking call waits no longer than two timeouts, whatever is queued before it") {
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

TEST_CASE("timeouts come in their order, whatever ends in between") {
    auto settings = local();
    settings.first_message_timeout = std::chrono::seconds(2);
    settings.quiet_period = std::chrono::milliseconds(200);
    // All have to come before the first times out: on a slow machine there are fewer.
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
        // One at a time, so that no two have the same deadline.
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

TEST_CASE("an answer to a one-shot is ignored") {
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

TEST_CASE("an answer that begins like the message is not taken for its echo") {
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
    CHECK(peer.send("1"));  // as our address begins, and the message with it
    peer.close();
    if (!posts) sender.join();
    CHECK(sent.wait());
    CHECK_FALSE(error);
    CHECK(sent.count({}) == (posts ? 1u : 0u));
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

#if defined(__linux__)

TEST_CASE("a connection that is not established times out after connect_timeout") {
    raw_listener listener;
    // A listener whose queue is full lets further connections wait.
    REQUIRE(::listen(static_cast<int>(listener.socket().native_handle()), 0) == 0);
    std::vector<p2pchat::tcp_socket> sockets(8);
    for (auto& socket : sockets) static_cast<void>(socket.connect(listener.address(), 20ms));
    config settings = local();
    settings.connect_timeout = 100ms;
    recording_node a(settings);
    const stopwatch watch;
    CHECK(a->send(listener.address(), "hi") == std::errc::timed_out);
    CHECK(a->connect(listener.address()).error == std::errc::timed_out);
    CHECK(watch.is_short());
}

#endif

// ----------------------------------------------------------------------------- the Python original

TEST_CASE("a node understands the original") {
    recording_node a;
    original python;
    CHECK_FALSE(python.send(a.address(), "Hi from 1991"));
    REQUIRE(a.wait_messages(1));
    CHECK(a.seen().messages[0].text == "Hi from 1991");
    CHECK(a.seen().messages[0].sender == python.address());
    CHECK(a.seen().messages[0].team == "Python");
    CHECK(addresses(*a) == std::vector<endpoint>{python.address()});
    CHECK_FALSE(python.send(a.address(), "EXIT"));
    CHECK(a.wait_left(1));
    CHECK(a->peers().empty());
}

TEST_CASE("the original understands a node") {
    recording_node a(local("Team_BTC"));
    original python;
    CHECK_FALSE(a->send(python.address(), "Hi"));
    CHECK(python.wait_printed(to_string(a.address()) + " Team_BTC Hi"));
    CHECK_FALSE(a->leave(python.address()));
    CHECK(python.wait_printed(to_string(a.address()) + " (Team_BTC) disconnected."));
}

TEST_CASE("connecting to the original sends CONNECT and makes no link") {
    recording_node a(local("Team_BTC"));
    original python;
    const auto result = a->connect(python.address());
    CHECK_FALSE(result.error);
    CHECK_FALSE(result.linked);
    CHECK(python.wait_printed(to_string(a.address()) + " Team_BTC CONNECT"));
    CHECK_FALSE(a->send(python.address(), "Hi"));
    CHECK(python.wait_printed(to_string(a.address()) + " Team_BTC Hi"));
}

TEST_CASE("other programs of the course say in words of their own that they leave") {
    recording_node a;
    const endpoint peer("127.0.0.1", 5000), absent("10.99.0.77", 5000);
    const auto say = [&](const std::string& bytes) {
        CHECK(one_shot(a.address(), bytes) == ending::closed);
    };
    const std::string sender = to_string(peer);
    std::size_t times = 0;
    for (const std::string& words :
         {sender + " Miners DISCONNECT", sender + " Miners [PEER_QUIT]", sender + " DISCONNECTED",
          '<' + sender + "> @ <Miners>\nexit\n<end>"}) {
        say(wire(peer, "hi", "Miners"));
        REQUIRE(a.wait_joined(++times));
        say(words);
        REQUIRE(a.wait_left(times));
        CHECK(a.seen().left.back().first.address == peer);
    }
    CHECK(a.seen().messages.size() == times);
    for (const std::string text : {"disconnect", "DISCONNECTED", "quit", "DISCONNECT now"}) {
        say(wire(peer, text, "Miners"));
        CHECK(a.wait_text(text));
    }
    CHECK(a->peers().size() == 1);
    CHECK(one_shot(a.address(), to_string(peer) + " disconnected") == ending::reset);
    CHECK(a.wait_rejected(errc::too_few_words));
}

TEST_CASE("a CONNECT to a program that reads to the end is half-closed, and connects") {
    config settings = local();
    settings.handshake_timeout = 500ms;
    recording_node a(settings);
    raw_listener listener;
    auto result = std::async(std::launch::async, [&] { return a->connect(listener.address()); });
    raw_peer peer = listener.accept();
    SUBCASE("that closes") {
        CHECK(peer.read_to_end() == ending::closed);
        peer.close();
    }
    SUBCASE("that answers late") {
        CHECK(peer.read_to_end() == ending::closed);
        CHECK(peer.send(wire(listener.address(), "CONNECT\n")));
    }
    const auto connected = result.get();
    CHECK_FALSE(connected.error);
    CHECK_FALSE(connected.linked);
}

#if defined(__linux__)

TEST_CASE("a program that closes on CONNECT can listen on its port again at once") {
    recording_node a;
    raw_listener listener;
    const auto port = listener.address().port();
    auto result = std::async(std::launch::async, [&] { return a->connect(listener.address()); });
    raw_peer peer = listener.accept();
    CHECK(peer.line() == wire(a.address(), "CONNECT", "BTC"));
    peer.close();
    CHECK_FALSE(result.get().error);
    listener.socket().close();
    CHECK(wait_until([&] {
        const int fd = ::socket(AF_INET, SOCK_STREAM, 0);  // without SO_REUSEADDR
        sockaddr_in any{};
        any.sin_family = AF_INET;
        any.sin_port = htons(port);
        const bool bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0;
        ::close(fd);
        return bound;
    }));
}

#endif

#if !defined(_WIN32)  // which does not say what is acknowledged

TEST_CASE("a message that a program takes without closing is unconfirmed, and holds up no other") {
    config settings = local();
    settings.delivery_timeout = 2s;
    recording_node a(settings);
    raw_listener listener;
    outcomes results;
    const auto keep = [&](std::string_view text) {
        CHECK_FALSE(results.post(*a, listener.address(), text, p2pchat::when_full::refuse,
                                 p2pchat::when_absent::keep));
    };
    const auto began = std::chrono::steady_clock::now();
    keep("first");
    keep("second");
    raw_peer first = listener.accept();
    raw_peer second = listener.accept();
    const auto whole = std::chrono::steady_clock::now() - began;
    CHECK(first.read_to_end() == ending::closed);  // not reset: it may still be read
    CHECK(first.text() == wire(a.address(), "first", "BTC"));
    CHECK(second.read_to_end() == ending::closed);
    CHECK(results.wait());
    CHECK(std::chrono::steady_clock::now() - began - whole < whole);  // a fifth of that
    CHECK(results.count(errc::unconfirmed) == 2);
    CHECK(results.count(std::errc::timed_out) == 2);
    CHECK(a->kept().empty());

    CHECK_FALSE(results.post(*a, listener.address(), "third"));
    raw_peer third = listener.accept();
    CHECK(third.read_to_end() == ending::closed);
    third.close();
    CHECK(results.wait());
    CHECK(results.count({}) == 1);
    auto result =
        std::async(std::launch::async, [&] { return a->send(listener.address(), "fourth"); });
    raw_peer fourth = listener.accept();
    CHECK(result.get() == errc::unconfirmed);
}

#endif

TEST_CASE("a message that the original cuts at 1024 bytes is reported as not taken") {
    recording_node a;
    original python;
    const std::size_t around = wire(a.address(), "", "BTC").size();
    CHECK_FALSE(a->send(python.address(), std::string(1024 - around, 'x')));
    CHECK(a->send(python.address(), std::string(1025 - around, 'y')) == errc::not_taken);
    CHECK(a->send(python.address(), std::string(60000, 'z')) == errc::not_taken);
}
