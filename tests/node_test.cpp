// Tests of p2pchat::node: starting and stopping, sending and receiving one-shots, who is who, the
// bounds of config, and the Python original on the other side.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "support.hpp"

#include <future>
#include <memory>
#include <set>

#if defined(__linux__)
#include <sys/socket.h>
#endif

using p2pchat::config;
using p2pchat::departure;
using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::message;
using p2pchat::node;
using p2pchat::when_full;
using support::ending;
using support::local;
using support::original;
using support::outcomes;
using support::raw_listener;
using support::raw_peer;
using support::record;
using support::recording_node;
using support::wait_until;
using namespace std::chrono_literals;

namespace {

std::vector<endpoint> addresses(const node& of) {
    std::vector<endpoint> result;
    for (const auto& p : of.peers()) result.push_back(p.address);
    return result;
}

config with_address(std::string address) {
    config settings = local();
    settings.address = std::move(address);
    return settings;
}

/// Makes the node hear from an address, whoever listens there.
void introduce(recording_node& to, const endpoint& sender, std::string_view team = "Raw") {
    const auto before = to.seen().messages.size();
    REQUIRE(support::one_shot(to.address(), support::wire(sender, "hello", team)) ==
            ending::closed);
    REQUIRE(to.wait_messages(before + 1));
}

}  // namespace

TEST_CASE("a node that was not started has no address and sends nothing") {
    node quiet(local("BTC"));
    CHECK(quiet.team() == "BTC");
    CHECK(quiet.address() == endpoint());
    CHECK(quiet.send({"127.0.0.1", 5000}, "hi") == errc::stopped);
    CHECK(quiet.post({"127.0.0.1", 5000}, "hi") == errc::stopped);
    CHECK(quiet.connect({"127.0.0.1", 5000}).error == errc::stopped);
    CHECK(quiet.leave({"127.0.0.1", 5000}) == errc::stopped);
    CHECK(quiet.broadcast("hi").empty());
    CHECK(quiet.peers().empty());
    CHECK(quiet.statistics().received == 0);
}

TEST_CASE("starting tells a bad team") {
    for (const std::string& team :
         {std::string(), std::string("two words"), std::string("BTC\n"), std::string(65, 'T'),
          std::string("B\0C", 3), std::string("<BTC>")}) {
        CAPTURE(team);
        node bad(local(team));
        CHECK(bad.start() == errc::bad_team);
    }
    node longest(local(std::string(64, 'T')));
    CHECK_FALSE(longest.start());
}

TEST_CASE("starting tells a bad address") {
    for (const std::string address :
         {"nonsense", "10.18.1", "10.18.1.7:5000", "[::1]", " ", "0.0.0.0", "::"}) {
        CAPTURE(address);
        node bad(with_address(address));
        CHECK(bad.start() == errc::bad_address);
        CHECK(bad.address() == endpoint());
    }
}

TEST_CASE("starting tells a taken port") {
    recording_node first;
    config settings = local();
    settings.port = first.address().port();
    node second(settings);
    CHECK(second.start() == std::errc::address_in_use);
    CHECK(second.send(first.address(), "hi") == errc::stopped);
}

TEST_CASE("starting twice is refused, and leaves the node running") {
    recording_node a, b;
    CHECK(a->start() == errc::already_running);
    CHECK_FALSE(b->send(a.address(), "hi"));
    CHECK(a.wait_text("hi"));
}

TEST_CASE("a node is known by the address it was given, and by the port it listens on") {
    recording_node a(with_address("127.0.0.1"));
    CHECK(a.address().address() == "127.0.0.1");
    CHECK(a.address().port() != 0);
    recording_node b(with_address("192.0.2.7"));
    CHECK(b.address().address() == "192.0.2.7");
}

TEST_CASE("without an address given, a node is known by the detected one") {
    recording_node a(with_address(""));
    CHECK(a.address().same_address(p2pchat::detect_address()));
    CHECK(a.address().port() != 0);
}

TEST_CASE("a node listens on the port it was given") {
    config settings = local();
    {
        recording_node first;
        settings.port = first.address().port();
    }
    node second(settings);
    REQUIRE(wait_until([&] { return !second.start(); }));  // another test may have it for a while
    CHECK(second.address().port() == settings.port);
}

TEST_CASE("the bounds are by default what is promised") {
    const config settings;
    CHECK(settings.max_message_bytes == 64 * 1024);
    CHECK(settings.max_connections == 1024);
    CHECK(settings.max_peers == 4096);
    CHECK(settings.connect_timeout == 5s);
    CHECK(settings.delivery_timeout == 5s);
    CHECK(settings.first_message_timeout == 10s);
    CHECK(settings.quiet_period == 2s);
}

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

TEST_CASE("white space at the ends of a text does not travel, any other byte does") {
    recording_node a, b;
    const std::string text = "\x1b[2J \xff\xfe \x01 \xc3\xbc\t.";
    CHECK_FALSE(a->send(b.address(), " \t\r\n" + text + "\n "));
    CHECK(b.wait_text(text));
}

TEST_CASE("a text that looks like control is a text all the same") {
    recording_node a, b;
    for (const std::string text :
         {"ACK 1", "ACK", "CONNECT me", "exit now", "<x>", "127.0.0.1:1 T x"}) {
        CAPTURE(text);
        CHECK_FALSE(a->send(b.address(), text));
        CHECK(b.wait_text(text));
    }
}

TEST_CASE("what cannot be sent is refused at once") {
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

TEST_CASE("a message may have max_message_bytes and no more") {
    config settings = local();
    settings.max_message_bytes = 1000;
    recording_node a(settings), b(settings);
    const std::size_t around = support::wire(a.address(), "", "BTC").size();
    const std::string longest(1000 - around, 'x');
    CHECK_FALSE(a->send(b.address(), longest));
    CHECK(b.wait_text(longest));
    CHECK(a->send(b.address(), longest + 'x') == errc::message_too_long);

    CHECK(support::one_shot(b.address(), support::wire(a.address(), longest + "xx", "BTC")) ==
          ending::reset);
    CHECK(b.wait_rejected(errc::message_too_long));
}

TEST_CASE("by default a message may have 64 KiB") {
    recording_node a, b;
    const std::string longest(64 * 1024 - support::wire(a.address(), "", "BTC").size(), 'x');
    CHECK_FALSE(a->send(b.address(), longest));
    CHECK(b.wait_text(longest));
    CHECK(a->send(b.address(), longest + 'x') == errc::message_too_long);
}

TEST_CASE("sending to a port where nobody listens says so") {
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
    SUBCASE("before it read it") {}
    SUBCASE("after it read it") { CHECK(peer.read_to_end() == ending::closed); }
    peer.reset();
    CHECK(result.get() == errc::not_taken);
}

TEST_CASE("a message that nobody confirms times out after delivery_timeout") {
    config settings = local();
    settings.delivery_timeout = 100ms;
    recording_node a(settings);
    raw_listener listener;
    auto result = std::async(std::launch::async, [&] { return a->send(listener.address(), "hi"); });
    raw_peer peer = listener.accept();
    const support::stopwatch watch;
    CHECK(result.get() == std::errc::timed_out);
    CHECK(watch.is_short());
    CHECK(a->statistics().undelivered == 1);
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

#if defined(__linux__)

TEST_CASE("a connection that does not come about times out after connect_timeout") {
    raw_listener listener;
    // A listener whose queue is full lets further connections wait.
    REQUIRE(::listen(static_cast<int>(listener.socket().native_handle()), 0) == 0);
    std::vector<p2pchat::tcp_socket> sockets(8);
    for (auto& socket : sockets) static_cast<void>(socket.connect(listener.address(), 20ms));
    config settings = local();
    settings.connect_timeout = 100ms;
    recording_node a(settings);
    const support::stopwatch watch;
    CHECK(a->send(listener.address(), "hi") == std::errc::timed_out);
    CHECK(a->connect(listener.address()).error == std::errc::timed_out);
    CHECK(watch.is_short());
}

#endif

TEST_CASE("whoever was heard from is a peer, whoever was sent to is not") {
    recording_node a(local("BTC")), b(local("ETH"));
    CHECK_FALSE(a->send(b.address(), "hi"));
    REQUIRE(b.wait_joined(1));
    CHECK(b.seen().joined[0].address == a.address());
    CHECK(b.seen().joined[0].team == "BTC");
    CHECK(addresses(*b) == std::vector<endpoint>{a.address()});
    CHECK(b->peers()[0].team == "BTC");
    CHECK_FALSE(b->peers()[0].linked);
    CHECK(a->peers().empty());
    CHECK(a.seen().joined.empty());
}

TEST_CASE("a peer joins once, before its message is shown") {
    std::atomic<bool> known{false};
    recording_node b(local(), [&](recording_node& self, const message& m) {
        const auto record = self.seen();
        known = record.joined.size() == 1 && record.joined[0].address == m.sender;
    });
    recording_node a;
    for (int i = 0; i < 3; ++i) CHECK_FALSE(a->send(b.address(), "hi"));
    REQUIRE(b.wait_messages(3));
    CHECK(known);
    CHECK(b.seen().joined.size() == 1);
    CHECK(b->peers().size() == 1);
}

TEST_CASE("peers are listed in the order of their addresses") {
    recording_node a;
    for (const int port : {7000, 5000, 6000})
        introduce(a, {"127.0.0.1", static_cast<std::uint16_t>(port)});
    CHECK(addresses(*a) ==
          std::vector<endpoint>{{"127.0.0.1", 5000}, {"127.0.0.1", 6000}, {"127.0.0.1", 7000}});
}

TEST_CASE("without OpenSSL there is no encryption, and a node that is to have it does not start") {
    auto settings = support::local();
    for (const auto wanted : {p2pchat::encryption::preferred, p2pchat::encryption::required}) {
        settings.encryption = wanted;
        node unencrypted(settings);
        CHECK(unencrypted.start() == errc::not_supported);
        CHECK(unencrypted.start() == std::errc::not_supported);
        CHECK_FALSE(unencrypted.key());
    }
    settings.encryption = p2pchat::encryption::off;
    node open(settings);
    CHECK_FALSE(open.start());
    CHECK_FALSE(open.key());
}

TEST_CASE("a peer's last team counts") {
    recording_node a;
    introduce(a, {"127.0.0.1", 5000}, "BTC");
    introduce(a, {"127.0.0.1", 5000}, "ETH");
    REQUIRE(a->peers().size() == 1);
    CHECK(a->peers()[0].team == "ETH");
}

TEST_CASE("no more than max_peers are remembered, the one not heard from for longest gives way") {
    config settings = local();
    settings.max_peers = 2;
    recording_node a(settings);
    introduce(a, {"127.0.0.1", 5000});
    introduce(a, {"127.0.0.1", 6000});
    introduce(a, {"127.0.0.1", 5000});
    introduce(a, {"127.0.0.1", 7000});
    CHECK(addresses(*a) == std::vector<endpoint>{{"127.0.0.1", 5000}, {"127.0.0.1", 7000}});
}

TEST_CASE("exit, in any case of letters, makes a peer leave and is not shown") {
    recording_node a;
    for (const std::string text : {"exit", "EXIT", "Exit", " eXiT\r\n"}) {
        CAPTURE(text);
        introduce(a, {"127.0.0.1", 5000}, "BTC");
        const auto before = a.seen().left.size();
        CHECK(support::one_shot(a.address(), support::wire({"127.0.0.1", 5000}, text)) ==
              ending::closed);
        REQUIRE(a.wait_left(before + 1));
        CHECK(a.seen().left.back().first.address == endpoint("127.0.0.1", 5000));
        CHECK(a.seen().left.back().second == departure::left);
        CHECK(a->peers().empty());
    }
    for (const auto& m : a.seen().messages) CHECK(m.text == "hello");
}

TEST_CASE("exit of somebody unknown removes nobody") {
    recording_node a;
    introduce(a, {"127.0.0.1", 5000});
    CHECK(support::one_shot(a.address(), support::wire({"127.0.0.1", 6000}, "exit")) ==
          ending::closed);
    introduce(a, {"127.0.0.1", 7000});
    CHECK(addresses(*a) == std::vector<endpoint>{{"127.0.0.1", 5000}, {"127.0.0.1", 7000}});
    for (const auto& gone : a.seen().left) CHECK(gone.first.address != endpoint("127.0.0.1", 5000));
}

TEST_CASE("leaving says exit, and who left can come back") {
    recording_node a, b;
    REQUIRE_FALSE(a->send(b.address(), "hi"));
    CHECK_FALSE(a->leave(b.address()));
    REQUIRE(b.wait_left(1));
    CHECK(b.seen().left[0].first.address == a.address());
    CHECK(b.seen().left[0].second == departure::left);
    CHECK(b->peers().empty());
    CHECK_FALSE(a->send(b.address(), "here again"));
    CHECK(b.wait_joined(2));
    CHECK(addresses(*b) == std::vector<endpoint>{a.address()});
}

TEST_CASE("stopping says exit to all peers if asked, and not otherwise") {
    recording_node b;
    original python;
    for (const bool asked : {true, false}) {
        config settings = local();
        settings.leave_on_stop = asked;
        recording_node a(settings);
        CHECK_FALSE(a->send(b.address(), "hi"));
        REQUIRE(b.wait_text("hi"));
        CHECK_FALSE(b->send(a.address(), "hello"));
        REQUIRE_FALSE(python.send(a.address(), "hi"));
        REQUIRE(a.wait_messages(2));
        a->stop();
        if (asked) {
            CHECK(python.wait_printed(to_string(a.address()) + " (BTC) disconnected."));
            CHECK(b.wait_left(1));
            CHECK(b.seen().left[0].first.address == a.address());
        } else {
            CHECK(addresses(*b) == std::vector<endpoint>{a.address()});
            CHECK(python.printed().size() == 1);
        }
    }
}

TEST_CASE("stopping with leave_on_stop does not wait for peers that do not answer") {
    config settings = local();
    settings.leave_on_stop = true;
    settings.drain_timeout = 100ms;
    settings.connect_timeout = settings.delivery_timeout = std::chrono::hours(1);
    recording_node a(settings);
    raw_listener silent;
    introduce(a, silent.address());
    const support::stopwatch watch;
    a->stop();
    CHECK(watch.is_short());
}

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

TEST_CASE("connecting to the original says CONNECT and makes no link") {
    recording_node a(local("Team_BTC"));
    original python;
    const auto result = a->connect(python.address());
    CHECK_FALSE(result.error);
    CHECK_FALSE(result.linked);
    CHECK(python.wait_printed(to_string(a.address()) + " Team_BTC CONNECT"));
    CHECK_FALSE(a->send(python.address(), "Hi"));
    CHECK(python.wait_printed(to_string(a.address()) + " Team_BTC Hi"));
}

TEST_CASE("a message that the original cut at 1024 bytes comes back as not taken") {
    recording_node a;
    original python;
    const std::size_t around = support::wire(a.address(), "", "BTC").size();
    CHECK_FALSE(a->send(python.address(), std::string(1024 - around, 'x')));
    CHECK(a->send(python.address(), std::string(1025 - around, 'y')) == errc::not_taken);
    CHECK(a->send(python.address(), std::string(60000, 'z')) == errc::not_taken);
}

TEST_CASE("the text CONNECT of a one-shot is shown, and its sender is a peer") {
    recording_node a;
    CHECK(support::one_shot(a.address(), support::wire({"127.0.0.1", 5000}, "CONNECT")) ==
          ending::closed);
    CHECK(a.wait_text("CONNECT"));
    CHECK(addresses(*a) == std::vector<endpoint>{{"127.0.0.1", 5000}});
}

TEST_CASE("what is posted to one peer arrives in order, each reported once and in order") {
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

TEST_CASE("a message that was not taken takes none of those with it that wait behind it") {
    outcomes results;
    recording_node a;
    raw_listener listener;
    for (const char* text : {"refused", "second", "third"})
        REQUIRE_FALSE(results.post(*a, listener.address(), text));
    listener.accept().reset();
    for (const char* text : {"second", "third"}) {
        raw_peer peer = listener.accept();
        CHECK(peer.read_to_end() == ending::closed);
        CHECK(peer.text() == support::wire(a.address(), text, a->team()));
    }
    CHECK(results.wait());
    CHECK(results.count(errc::not_taken) == 1);
    CHECK(results.count({}) == 2);
}

TEST_CASE("a post without a completion arrives too") {
    recording_node a, b;
    CHECK_FALSE(a->post(b.address(), "hi"));
    CHECK(b.wait_text("hi"));
}

TEST_CASE("a peer that does not answer holds up nobody else") {
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

TEST_CASE("broadcast reaches every peer side by side, and has an outcome for each") {
    recording_node a;
    constexpr std::size_t count = 8;
    std::vector<raw_listener> listeners(count);
    for (auto& listener : listeners) introduce(a, listener.address());
    support::nobody nobody;
    introduce(a, nobody.address());

    auto result = std::async(std::launch::async, [&] { return a->broadcast("to all"); });
    // None is answered before all are connected: one after another would not get past the first.
    std::vector<raw_peer> peers;
    for (auto& listener : listeners) peers.push_back(listener.accept());
    for (auto& peer : peers) CHECK(peer.read_to_end() == ending::closed);
    peers.back().reset();
    for (auto& peer : peers) peer.close();

    const auto deliveries = result.get();
    REQUIRE(deliveries.size() == count + 1);
    for (const auto& delivery : deliveries) {
        if (delivery.to == nobody.address())
            CHECK(delivery.error == std::errc::connection_refused);
        else if (delivery.to == listeners.back().address())
            CHECK(delivery.error == errc::not_taken);
        else
            CHECK_FALSE(delivery.error);
    }
}

TEST_CASE("broadcast to nobody, and of what cannot be sent") {
    recording_node a;
    CHECK(a->broadcast("hi").empty());
    introduce(a, {"127.0.0.1", 5000});
    const auto refused = a->broadcast("one\ntwo");
    REQUIRE(refused.size() == 1);
    CHECK(refused[0].error == errc::bad_text);
}

TEST_CASE("over max_queued_bytes a post is refused at once") {
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

TEST_CASE("over max_queued_bytes a post waits for room if asked to") {
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

TEST_CASE("a post that waits for room does so for delivery_timeout at most") {
    config settings = local();
    settings.max_queued_bytes = 1500;
    settings.delivery_timeout = 200ms;
    recording_node a(settings);
    raw_listener listener;
    const std::string text(1000, 'x');
    const support::stopwatch watch;
    // The connections end after 200 ms each, so the queue moves; but nobody waits for longer.
    for (int i = 0; i < 3; ++i)
        static_cast<void>(a->post(listener.address(), text, {}, when_full::wait));
    CHECK(watch.is_short());
}

TEST_CASE("a handler that is slow slows its senders, and nothing is lost") {
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
    std::this_thread::sleep_for(100ms);  // time to do wrong
    CHECK(b->statistics().received < 8);
    gate.open();
    CHECK(results.wait());
    CHECK(results.count({}) == count);
    CHECK(b.wait_messages(count));
    CHECK(b.seen().messages.size() == count);
}

TEST_CASE("handlers may call anything of the node") {
    std::atomic<int> answered{0};
    recording_node b(local("B"), [&](recording_node& self, const message& m) {
        if (m.text != "ask") return;
        const auto peers = self->peers();
        const bool fine = self.address() && self->team() == "B" && peers.size() == 1 &&
                          self->statistics().received == 1 && !self->send(m.sender, "answer") &&
                          !self->post(m.sender, "posted") && !self->connect(m.sender).error &&
                          self->broadcast("broadcast").size() == 1 && !self->leave(m.sender) &&
                          self->start() == errc::already_running;
        if (fine) ++answered;
    });
    recording_node a(local("A"));
    CHECK_FALSE(a->send(b.address(), "ask"));
    for (const char* text : {"answer", "posted", "broadcast"}) CHECK(a.wait_text(text));
    CHECK(a.wait_left(1));
    CHECK(wait_until([&] { return answered == 1; }));
}

TEST_CASE("two nodes whose handlers answer each other play on") {
    constexpr int rounds = 100;
    const auto answer = [](recording_node& self, const message& m) {
        const int ball = std::stoi(m.text);
        if (ball < rounds && self->send(m.sender, std::to_string(ball + 1))) FAIL_CHECK("not sent");
    };
    recording_node a(local("A"), answer), b(local("B"), answer);
    CHECK_FALSE(a->send(b.address(), "0"));
    CHECK(b.wait_text(std::to_string(rounds)));
    CHECK(wait_until([&] { return a->statistics().delivered == rounds / 2 + 1; }));
}

TEST_CASE("a completion may post, and stop") {
    recording_node a, b;
    std::atomic<bool> done{false};
    CHECK_FALSE(a->post(b.address(), "first", [&](std::error_code) {
        CHECK_FALSE(a->post(b.address(), "second", [&](std::error_code) {
            a->stop();
            done = true;
        }));
    }));
    CHECK(b.wait_text("second"));
    CHECK(wait_until([&] { return done.load(); }));
    CHECK(a->send(b.address(), "third") == errc::stopped);
}

TEST_CASE("handlers are called one at a time") {
    std::atomic<int> inside{0}, most{0};
    recording_node b(local(), [&](recording_node&, const message&) {
        most = (std::max)(most.load(), ++inside);
        std::this_thread::yield();
        --inside;
    });
    std::vector<std::unique_ptr<recording_node>> senders;
    for (int i = 0; i < 4; ++i) senders.push_back(std::make_unique<recording_node>());
    std::vector<std::thread> threads;
    for (auto& sender : senders) {
        threads.emplace_back([&] {
            for (int i = 0; i < 25; ++i) CHECK_FALSE((*sender)->send(b.address(), "hi"));
        });
    }
    for (auto& thread : threads) thread.join();
    CHECK(b.wait_messages(100));
    CHECK(most == 1);
}

TEST_CASE("many threads send through one node, and each message arrives once") {
    recording_node a, b;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 50; ++i)
                CHECK_FALSE(a->send(b.address(), std::to_string(t) + "/" + std::to_string(i)));
        });
    }
    for (auto& thread : threads) thread.join();
    REQUIRE(b.wait_messages(200));
    std::set<std::string> texts;
    for (const auto& m : b.seen().messages) texts.insert(m.text);
    CHECK(texts.size() == 200);
    CHECK(b.seen().messages.size() == 200);
}

TEST_CASE("counters count what came, went and was refused") {
    recording_node a, b;
    support::nobody nobody;
    CHECK_FALSE(a->send(b.address(), "one"));
    CHECK_FALSE(a->send(b.address(), "two"));
    CHECK(a->send(nobody.address(), "three"));
    CHECK(support::one_shot(b.address(), "no message at all") == ending::reset);
    REQUIRE(
        b.wait([](const record& r) { return r.messages.size() == 2 && r.rejected.size() == 1; }));
    CHECK(a->statistics().delivered == 2);
    CHECK(a->statistics().undelivered == 1);
    CHECK(a->statistics().connections == 0);
    CHECK(b->statistics().connections == 3);
    CHECK(b->statistics().received == 2);
    CHECK(b->statistics().rejected == 1);
    CHECK(b->statistics().dropped == 0);
}

TEST_CASE("nodes talk over IPv6") {
    p2pchat::tcp_socket probe;
    if (probe.listen({"::1", 0})) {
        MESSAGE("skipped: this system has no IPv6");
        return;
    }
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

TEST_CASE("a stopped node takes and sends nothing, and stopping again is nothing") {
    support::alone([] {
        recording_node a, b;
        const endpoint address = a.address();
        CHECK_FALSE(b->send(address, "hi"));
        a->stop();
        a->stop();
        CHECK(b->send(address, "hi"));
        CHECK(a->send(b.address(), "hi") == errc::stopped);
        CHECK(a->post(b.address(), "hi") == errc::stopped);
        CHECK(a.seen().messages.size() == 1);
    });
}

TEST_CASE("a node that was never started can be stopped") {
    node a(local());
    a.stop();
    a.stop();
}

TEST_CASE("stopping reports every pending send as stopped") {
    outcomes results;
    config settings = local();
    settings.connect_timeout = settings.delivery_timeout = std::chrono::hours(1);
    recording_node a(settings);
    std::vector<raw_listener> silent(4);
    for (int i = 0; i < 10; ++i)
        for (auto& listener : silent) REQUIRE_FALSE(results.post(*a, listener.address(), "hi"));
    auto sending =
        std::async(std::launch::async, [&] { return a->send(silent[0].address(), "hi"); });
    auto connecting =
        std::async(std::launch::async, [&] { return a->connect(silent[1].address()); });
    raw_peer held = silent[0].accept();
    a->stop();
    CHECK(results.count(errc::stopped) == 40);
    CHECK(results.each_once());
    CHECK(sending.get() == errc::stopped);
    CHECK(connecting.get().error == errc::stopped);
}

TEST_CASE("stopping ends a post that waits for room") {
    config settings = local();
    settings.max_queued_bytes = 1500;
    settings.connect_timeout = settings.delivery_timeout = std::chrono::hours(1);
    recording_node a(settings);
    raw_listener silent;
    const std::string text(1000, 'x');
    while (!a->post(silent.address(), text)) {
    }
    auto waiting = std::async(std::launch::async,
                              [&] { return a->post(silent.address(), text, {}, when_full::wait); });
    CHECK(waiting.wait_for(20ms) == std::future_status::timeout);
    a->stop();
    CHECK(waiting.get() == errc::stopped);
}

TEST_CASE("stopping hands over what was confirmed") {
    support::gate gate;
    config settings = local();
    recording_node b(settings, [&](recording_node&, const message&) { gate.wait(); });
    recording_node a;
    for (int i = 0; i < 5; ++i) CHECK_FALSE(a->send(b.address(), std::to_string(i)));
    auto stopping = std::async(std::launch::async, [&] { b->stop(); });
    CHECK(wait_until([&] { return b->send(a.address(), "x") == errc::stopped; }));
    gate.open();
    stopping.get();
    CHECK(b.seen().messages.size() == 5);
    CHECK(b->statistics().dropped == 0);
}

TEST_CASE("stopping waits for handlers no longer than drain_timeout, and counts what it dropped") {
    support::gate gate;
    config settings = local();
    settings.drain_timeout = 20ms;
    recording_node b(settings, [&](recording_node&, const message&) { gate.wait(); });
    recording_node a;
    for (int i = 0; i < 5; ++i) CHECK_FALSE(a->send(b.address(), std::to_string(i)));
    REQUIRE(b.wait_messages(1));
    auto stopping = std::async(std::launch::async, [&] { b->stop(); });
    CHECK(wait_until([&] { return b->send(a.address(), "x") == errc::stopped; }));
    std::this_thread::sleep_for(2 * settings.drain_timeout);  // it began before it said stopped
    gate.open();
    stopping.get();
    CHECK(b.seen().messages.size() == 1);
    CHECK(b->statistics().dropped == 4);
    CHECK(b->statistics().received == 5);
}

TEST_CASE("a handler may stop its node") {
    std::atomic<bool> returned{false};
    recording_node b(local(), [&](recording_node& self, const message&) {
        self->stop();
        self->stop();
        returned = true;
    });
    recording_node a;
    CHECK_FALSE(a->send(b.address(), "hi"));
    CHECK(wait_until([&] { return returned.load(); }));
    CHECK(b->send(a.address(), "x") == errc::stopped);
    b->stop();
}

TEST_CASE("many threads may stop a node at once") {
    outcomes results;
    recording_node a, b;
    for (int i = 0; i < 50; ++i) REQUIRE_FALSE(results.post(*a, b.address(), "hi"));
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&] { a->stop(); });
    for (auto& thread : threads) thread.join();
    CHECK(results.count({}) + results.count(errc::stopped) == 50);
    CHECK(results.each_once());
}

TEST_CASE("stop in the middle of everything leaves every send with one outcome") {
    support::alone([] {
        for (int round = 0; round < 5; ++round) {
            outcomes results;
            recording_node b;
            raw_peer half_open(b.address()), silent(b.address());
            half_open.send("127.0.0.1:50");
            {
                recording_node a;
                std::atomic<bool> ending{false};
                std::vector<std::thread> threads;
                for (int t = 0; t < 3; ++t) {
                    threads.emplace_back([&] {
                        while (!ending) static_cast<void>(results.post(*a, b.address(), "hi"));
                    });
                }
                threads.emplace_back([&] {
                    while (!ending) static_cast<void>(a->broadcast("all"));
                });
                threads.emplace_back([&] {
                    while (!ending) static_cast<void>(a->connect(b.address()));
                });
                CHECK(b.wait_messages(20));
                if (round % 2)
                    a->stop();
                else
                    b->stop();
                ending = true;
                for (auto& thread : threads) thread.join();
            }
            CHECK(results.each_once());
        }
    });
}

TEST_CASE("no message is shown twice, and none is shown that was reported undelivered by refusal") {
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

TEST_CASE("one node has two threads, whatever comes") {
    const auto threads = [] { return support::of_process("Threads:"); };
    if (threads() == 0) return;
    // Those of the tests before may still be on their way out of the system's books.
    static_cast<void>(wait_until([&] { return threads() == 1; }, 1s));
    const std::size_t before = threads();
    {
        recording_node a;
        CHECK(threads() == before + 2);
        std::vector<raw_peer> peers;
        for (int i = 0; i < 50; ++i) peers.emplace_back(a.address());
        CHECK(wait_until([&] { return a->statistics().connections == 50; }));
        CHECK(threads() == before + 2);
    }
    CHECK(wait_until([&] { return threads() == before; }));
}
