// Tests of p2pchat::node: starting and stopping, the peers that it knows, handlers and threads.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "support.hpp"

#include <future>
#include <memory>
#include <set>

namespace {

using namespace support;
using p2pchat::config;
using p2pchat::departure;
using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::message;
using p2pchat::node;
using p2pchat::when_full;

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

TEST_CASE("start refuses a bad team") {
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

TEST_CASE("start refuses a taken port") {
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

TEST_CASE("a node that is to encrypt does not start without OpenSSL") {
    auto settings = local();
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

// ------------------------------------------------------------------------------------------- peers

TEST_CASE("a node that was heard from is a peer, one that was only sent to is not") {
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

TEST_CASE("without a key, another team at a known address is another peer") {
    recording_node a;
    const endpoint address("127.0.0.1", 5000);
    introduce(a, address, "BTC");
    introduce(a, address, "BTC");
    CHECK(a.seen().joined.size() == 1);
    introduce(a, address, "ETH");
    REQUIRE(a->peers().size() == 1);
    CHECK(a->peers()[0].team == "ETH");
    REQUIRE(a.seen().left.size() == 1);
    CHECK(a.seen().left[0].first.address == address);
    CHECK(a.seen().left[0].first.team == "BTC");
    CHECK(a.seen().left[0].second == departure::replaced);
    REQUIRE(a.wait_joined(2));
    CHECK(a.seen().joined[1].address == address);
    CHECK(a.seen().joined[1].team == "ETH");
}

TEST_CASE("exit in any case of letters makes a peer leave, and is not shown") {
    recording_node a;
    for (const std::string text : {"exit", "EXIT", "Exit", " eXiT\r\n"}) {
        CAPTURE(text);
        introduce(a, {"127.0.0.1", 5000}, "BTC");
        const auto before = a.seen().left.size();
        CHECK(one_shot(a.address(), wire({"127.0.0.1", 5000}, text)) == ending::closed);
        REQUIRE(a.wait_left(before + 1));
        CHECK(a.seen().left.back().first.address == endpoint("127.0.0.1", 5000));
        CHECK(a.seen().left.back().second == departure::left);
        CHECK(a->peers().empty());
    }
    for (const auto& m : a.seen().messages) CHECK(m.text == "hello");
}

TEST_CASE("an exit from an unknown sender removes nobody") {
    recording_node a;
    introduce(a, {"127.0.0.1", 5000});
    CHECK(one_shot(a.address(), wire({"127.0.0.1", 6000}, "exit")) == ending::closed);
    introduce(a, {"127.0.0.1", 7000});
    CHECK(addresses(*a) == std::vector<endpoint>{{"127.0.0.1", 5000}, {"127.0.0.1", 7000}});
    for (const auto& gone : a.seen().left) CHECK(gone.first.address != endpoint("127.0.0.1", 5000));
}

TEST_CASE("a peer that joined leaves once, and no other peer leaves") {
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
    SUBCASE("a peer that is evicted") {
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
    SUBCASE("a linked peer is not evicted") {
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

TEST_CASE("leaving says exit, and a peer that left can come back") {
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

TEST_CASE("stop says exit to all peers if leave_on_stop is set, and not otherwise") {
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

TEST_CASE("a stop with leave_on_stop does not wait for peers that do not answer") {
    config settings = local();
    settings.leave_on_stop = true;
    settings.drain_timeout = 100ms;
    settings.connect_timeout = settings.delivery_timeout = std::chrono::hours(1);
    recording_node a(settings);
    raw_listener silent;
    introduce(a, silent.address());
    const stopwatch watch;
    a->stop();
    CHECK(watch.is_short());
}

namespace {

using deliveries = std::vector<p2pchat::delivery>;

/// Without waiting.
std::future<deliveries> broadcast(node& from, const std::string& text) {
    const auto outcome = std::make_shared<std::promise<deliveries>>();
    REQUIRE_FALSE(
        from.broadcast(text, [outcome](const deliveries& all) { outcome->set_value(all); }));
    return outcome->get_future();
}

}  // namespace

TEST_CASE("broadcast reaches all peers at the same time, and has an outcome for each") {
    recording_node a;
    constexpr std::size_t count = 8;
    std::vector<raw_listener> listeners(count);
    for (auto& listener : listeners) introduce(a, listener.address());
    support::nobody nobody;
    introduce(a, nobody.address());

    std::future<deliveries> result;
    SUBCASE("waiting") {
        result = std::async(std::launch::async, [&] { return a->broadcast("to all"); });
    }
    SUBCASE("without waiting") { result = broadcast(*a, "to all"); }
    // None is answered before all are connected: one after another would not get past the first.
    std::vector<raw_peer> peers;
    for (auto& listener : listeners) peers.push_back(listener.accept());
    for (auto& peer : peers) CHECK(peer.read_to_end() == ending::closed);
    peers.back().reset();
    for (auto& peer : peers) peer.close();

    const auto outcomes = result.get();
    REQUIRE(outcomes.size() == count + 1);
    for (const auto& delivery : outcomes) {
        if (delivery.to == nobody.address())
            CHECK(delivery.error == std::errc::connection_refused);
        else if (delivery.to == listeners.back().address())
            CHECK(delivery.error == errc::not_taken);
        else
            CHECK_FALSE(delivery.error);
    }
}

TEST_CASE("a broadcast has no outcome without peers, and an error for each if it cannot be sent") {
    recording_node a;
    CHECK(a->broadcast("hi").empty());
    CHECK(broadcast(*a, "hi").get().empty());
    introduce(a, {"127.0.0.1", 5000});
    const auto refused = a->broadcast("one\ntwo");
    REQUIRE(refused.size() == 1);
    CHECK(refused[0].error == errc::bad_text);
    CHECK(a->broadcast("one\ntwo", {}) == errc::bad_text);
    CHECK(a->broadcast("exit", {}) == errc::is_command);
    const auto too_long = broadcast(*a, std::string(70000, 'x')).get();
    REQUIRE(too_long.size() == 1);
    CHECK(too_long[0].error == errc::message_too_long);
}

TEST_CASE("a broadcast that nobody waits for has its outcomes when the node stops") {
    recording_node a;
    raw_listener silent;
    introduce(a, silent.address());
    auto result = broadcast(*a, "hi");
    const auto peer = silent.accept();
    a->stop();
    const auto outcomes = result.get();
    REQUIRE(outcomes.size() == 1);
    CHECK(outcomes[0].error == errc::stopped);
    CHECK(a->broadcast("hi", {}) == errc::stopped);
}

// ---------------------------------------------------------------------------- handlers and threads

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

TEST_CASE("a completion may post and stop") {
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

TEST_CASE("the statistics count messages received, sent and refused") {
    recording_node a, b;
    support::nobody nobody;
    CHECK_FALSE(a->send(b.address(), "one"));
    CHECK_FALSE(a->send(b.address(), "two"));
    CHECK(a->send(nobody.address(), "three"));
    CHECK(one_shot(b.address(), "no message at all") == ending::reset);
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

// ---------------------------------------------------------------------------------------- stopping

TEST_CASE("a stopped node takes and sends nothing, and may be stopped again") {
    alone([] {
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

TEST_CASE("stopping hands over the messages that were confirmed") {
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

TEST_CASE("stopping waits for handlers no longer than drain_timeout, and counts dropped messages") {
    support::gate gate;
    config settings = local();
    settings.drain_timeout = 20ms;
    recording_node b(settings, [&](recording_node&, const message&) { gate.wait(); });
    recording_node a;
    for (int i = 0; i < 5; ++i) CHECK_FALSE(a->send(b.address(), std::to_string(i)));
    REQUIRE(b.wait_messages(1));
    auto stopping = std::async(std::launch::async, [&] { b->stop(); });
    CHECK(wait_until([&] { return b->send(a.address(), "x") == errc::stopped; }));
    std::this_thread::sleep_for(
        2 * settings.drain_timeout);  // stop() began before send() returned stopped
    gate.open();
    stopping.get();
    CHECK(b.seen().messages.size() == 1);
    CHECK(b->statistics().dropped == 4);
    CHECK(b->statistics().received == 5);
}

TEST_CASE("no handler is called after drain_timeout") {
    gate handling;
    auto settings = local();
    settings.drain_timeout = 20ms;
    recording_node node(settings,
                        [&](recording_node&, const p2pchat::message&) { handling.wait(); });
    one_shot(node.address(), wire(somebody, "handled"));
    REQUIRE(node.wait_messages(1));
    one_shot(node.address(), wire({"127.0.0.1", 10}, "dropped"));
    one_shot(node.address(), wire({"127.0.0.1", 10}, "exit"));
    one_shot(node.address(), "no message");
    auto stopping = std::async(std::launch::async, [&] { node->stop(); });
    CHECK(wait_until([&] { return node->send({"127.0.0.1", 9}, "x") == errc::stopped; }));
    std::this_thread::sleep_for(
        2 * settings.drain_timeout);  // stop() began before send() returned stopped
    handling.open();
    stopping.get();
    const auto seen = node.seen();
    CHECK(seen.messages.size() == 1);
    CHECK(seen.joined.size() == 1);
    CHECK(seen.left.empty());
    CHECK(seen.rejected.empty());
    CHECK(node->statistics().dropped == 1);
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

TEST_CASE("a stop in the middle of everything leaves every send with one outcome") {
    alone([] {
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

TEST_CASE("a stop during a start returns, and so does one after it") {
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
        std::this_thread::sleep_for(1ms * (round % 4));  // in either order
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

TEST_CASE("a node stopped by its handler starts again only when its pending sends have ended") {
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
        CHECK(one_shot(node.address(), wire(somebody, "stop")) != ending::open);
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

TEST_CASE("a node has two threads, however many connections there are") {
    const auto threads = [] { return of_process("Threads:"); };
    if (threads() == 0) return;
    // The system may still count threads of earlier tests that are ending.
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
