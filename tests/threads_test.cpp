// Tests of which thread does what: however long handlers take and whatever they call, links live,
// confirmations go out and timers run; and handlers in a thread that the program lends.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <memory>
#include <thread>

using p2pchat::config;
using p2pchat::errc;
using p2pchat::message;
using support::local;
using support::outcomes;
using support::patience;
using support::recording_node;
using support::typed_link;
using support::wait_until;
using namespace std::chrono_literals;

namespace {

/// Called when the last copy of what holds it is destroyed.
class on_destruction {
public:
    explicit on_destruction(std::function<void()> call) : call_(std::move(call)) {}
    on_destruction(const on_destruction&) = delete;
    ~on_destruction() { call_(); }

private:
    std::function<void()> call_;
};

/// A port where nobody accepts: whoever sends to it waits.
using silent_peer = support::raw_listener;

}  // namespace

TEST_CASE("200 links live while a handler blocks, and nothing on them is lost") {
    constexpr std::size_t rounds = 20;
    support::gate gate;
    recording_node busy(local(), [&](recording_node&, const message&) { gate.wait(); });
    std::vector<std::unique_ptr<typed_link>> links;
    for (int i = 0; i < 200; ++i) links.push_back(std::make_unique<typed_link>(busy));
    const support::stopwatch watch;
    for (std::size_t said = 0; said < rounds; ++said) {
        for (auto& link : links) CHECK(link->send(std::to_string(said)));
        for (auto& link : links) CHECK(link->wait_ack(said + 1));
    }
    outcomes results;
    for (auto& link : links) CHECK_FALSE(results.post(*busy, link->address(), "for you"));
    for (auto& link : links) {
        CHECK(link->message() == support::wire(busy.address(), "for you", "BTC"));
        CHECK(link->peer.send("ACK 1\n"));
    }
    CHECK(wait_until([&] { return busy->statistics().delivered == links.size(); }));
    CHECK(watch.is_short());
    CHECK(busy.seen().messages.size() == 1);
    gate.open();
    CHECK(busy.wait_messages(links.size() * rounds));
    CHECK(results.wait());
    CHECK(results.count({}) == links.size());
    CHECK(support::linked_peers(*busy) == links.size());
}

TEST_CASE("a thousand handlers of a millisecond hold up no confirmation until the last") {
    constexpr std::size_t count = 1000;
    std::atomic<std::size_t> handled{0};
    recording_node busy(local(), [&](recording_node&, const message& m) {
        if (m.text != "short") std::this_thread::sleep_for(1ms);
        ++handled;
    });
    outcomes results;
    recording_node flood, other;
    REQUIRE_FALSE(flood->connect(busy.address()).error);
    REQUIRE_FALSE(other->connect(busy.address()).error);
    for (std::size_t i = 0; i < count; ++i)
        REQUIRE_FALSE(results.post(*flood, busy.address(), "x"));
    CHECK(wait_until([&] { return handled != 0; }));
    int confirmed = 0;
    for (; handled < count; ++confirmed) CHECK_FALSE(other->send(busy.address(), "short"));
    CHECK(confirmed > 10);
    CHECK(results.wait());
    CHECK(results.count({}) == count);
    CHECK(busy.wait_messages(count + static_cast<std::size_t>(confirmed)));
}

TEST_CASE("a handler that waits for an outcome gets it at once, again and again") {
    // Each time the standby drives the loop meanwhile, and the driver takes it back.
    constexpr std::size_t count = 2000;
    recording_node echo, third, sender;
    std::atomic<std::size_t> failed{0};
    recording_node relay(local(), [&](recording_node& self, const message& m) {
        if (self->send(echo.address(), m.text)) ++failed;
    });
    REQUIRE_FALSE(relay->connect(echo.address()).error);
    REQUIRE_FALSE(sender->connect(relay.address()).error);
    std::atomic<bool> ending{true};
    SUBCASE("alone") {}
    SUBCASE("while another thread brings work, too") { ending = false; }
    std::size_t others = 0;
    std::thread other([&] {
        for (; !ending; ++others) CHECK_FALSE(relay->send(third.address(), "other"));
    });
    const support::stopwatch watch;
    for (std::size_t i = 0; i < count; ++i) {
        CHECK_FALSE(sender->post(relay.address(), std::to_string(i)));
        const bool arrived = echo.wait_messages(i + 1);
        CHECK(arrived);
        if (!arrived) break;
    }
    CHECK(watch.is_short());
    ending = true;
    other.join();
    CHECK(third.wait([&](const support::record& r) { return r.count_text("other") == others; }));
    CHECK(failed == 0);
    const auto seen = echo.seen().messages;
    for (std::size_t i = 0; i < seen.size(); ++i) CHECK(seen[i].text == std::to_string(i));
}

TEST_CASE("a message posted by another thread during a long handler is sent, and times out") {
    support::gate gate;
    config settings = local();
    settings.delivery_timeout = 100ms;
    recording_node busy(settings, [&](recording_node&, const message&) { gate.wait(); });
    recording_node other;
    CHECK_FALSE(other->send(busy.address(), "blocks"));
    REQUIRE(busy.wait_text("blocks"));
    CHECK_FALSE(busy->post(other.address(), "posted"));
    CHECK(other.wait_text("posted"));
    const silent_peer silent;
    CHECK(busy->send(silent.address(), "hi") == std::errc::timed_out);
    CHECK_FALSE(busy->post(silent.address(), "hi"));
    CHECK(wait_until([&] { return busy->statistics().undelivered == 2; }));
    CHECK(busy.seen().messages.size() == 1);
    gate.open();
}

TEST_CASE("a timeout begins when its message is posted, however long the loop has not turned") {
    using clock = std::chrono::steady_clock;
    config settings = local();
    settings.delivery_timeout = 200ms;
    support::gate reported;
    clock::time_point posted, over;
    std::error_code outcome;
    const auto post = [&](recording_node& by, const p2pchat::endpoint& to) {
        posted = clock::now();
        CHECK_FALSE(by->post(to, "no answer", [&](std::error_code error) {
            over = clock::now();
            outcome = error;
            reported.open();
        }));
    };
    silent_peer nobody;
    const auto pass = [&](std::chrono::milliseconds time) {
        p2pchat::tcp_socket none;
        CHECK(nobody.socket().accept(none, time) == std::errc::timed_out);
    };
    recording_node node(settings, [&](recording_node& self, const message& m) {
        if (m.text != "post") return;
        pass(6ms);  // the standby leaves the loop to the driver for 10 ms
        post(self, m.sender);
    });
    typed_link silent(node);
    SUBCASE("after an idle time") {
        pass(100ms);
        post(node, silent.address());
    }
    SUBCASE("in a handler, while no thread drives the loop") { silent.send("post"); }
    REQUIRE(reported.wait());
    CHECK(outcome == std::errc::timed_out);
    CHECK(over - posted >= settings.delivery_timeout);
}

TEST_CASE("a handler that stops its node ends everything at once, although it goes on itself") {
    support::gate gate, stopped;
    recording_node busy(local(), [&](recording_node& self, const message& m) {
        if (m.text != "stop") return;
        self->stop();
        stopped.open();
        gate.wait();
    });
    recording_node peer;
    REQUIRE_FALSE(peer->connect(busy.address()).error);
    silent_peer silent, other;
    outcomes results;
    std::error_code told;
    CHECK_FALSE(results.post(*busy, silent.address(), "pending"));
    std::thread caller([&] { told = busy->send(other.address(), "pending, too"); });
    const auto first = silent.accept(), second = other.accept();
    CHECK_FALSE(peer->send(busy.address(), "stop"));
    CHECK(stopped.wait());
    caller.join();
    CHECK(told == errc::stopped);
    CHECK(peer.wait_left(1));
    CHECK(busy->post(peer.address(), "x") == errc::stopped);
    CHECK(busy->statistics().undelivered == 2);
    CHECK(results.count(errc::stopped) == 0);  // its completion waits for the handler
    gate.open();
    busy->stop();
    CHECK(results.count(errc::stopped) == 1);
    CHECK(results.each_once());
    CHECK_FALSE(busy->start());
    CHECK_FALSE(peer->send(busy.address(), "again"));
}

TEST_CASE("a handler may send, post and wait for room, and then stop") {
    config settings = local();
    settings.max_queued_bytes = 100;
    support::gate done;
    recording_node echo;
    recording_node busy(settings, [&](recording_node& self, const message&) {
        for (const bool by_link : {false, true}) {
            if (by_link) CHECK(wait_until([&] { return self->connect(echo.address()).linked; }));
            CHECK_FALSE(self->send(echo.address(), "sent"));
            for (int i = 0; i < 10; ++i)
                CHECK_FALSE(self->post(echo.address(), "posted", {}, p2pchat::when_full::wait));
            // Refused while the queue is full; once delivered, so is all before it.
            CHECK(wait_until([&] {
                const auto all = self->broadcast("to all");
                return all.size() == 1 && !all.front().error;
            }));
        }
        self->stop();
        CHECK(self->send(echo.address(), "x") == errc::stopped);
        done.open();
    });
    CHECK_FALSE(echo->send(busy.address(), "go"));
    CHECK(done.wait());
    CHECK(echo.wait([](const support::record& r) {
        return r.count_text("sent") == 2 && r.count_text("posted") == 20;
    }));
}

TEST_CASE("an object captured by a completion may call the node when it is destroyed") {
    recording_node busy, peer;
    std::atomic<int> destroyed{0};
    const auto capture = [&] {
        return std::make_shared<on_destruction>([&] {
            CHECK(busy->statistics().received == 0);
            static_cast<void>(busy->peers());
            ++destroyed;
        });
    };
    SUBCASE("refused") {
        const auto post = [&](const p2pchat::endpoint& to, const std::string& text) {
            return busy->post(to, text, [kept = capture()](std::error_code) {});
        };
        CHECK(post({}, "hi") == errc::bad_address);
        CHECK(post(peer.address(), std::string(70000, 'x')) == errc::message_too_long);
        CHECK(destroyed == 2);
        busy->stop();
        CHECK(post(peer.address(), "hi") == errc::stopped);
        CHECK(destroyed == 3);
    }
    SUBCASE("called") {
        CHECK_FALSE(busy->post(peer.address(), "hi", [kept = capture()](std::error_code) {}));
        CHECK(wait_until([&] { return destroyed == 1; }));
    }
    SUBCASE("timed out") {
        const silent_peer silent;
        config settings = local();
        settings.delivery_timeout = 50ms;
        recording_node hasty(settings);
        CHECK_FALSE(hasty->post(silent.address(), "hi", [kept = capture()](std::error_code) {}));
        CHECK(wait_until([&] { return destroyed == 1; }));
    }
    SUBCASE("stopped") {
        const silent_peer silent;
        CHECK_FALSE(busy->post(silent.address(), "hi", [kept = capture()](std::error_code) {}));
        busy->stop();
        CHECK(destroyed == 1);
    }
}

TEST_CASE("handlers_in_run calls handlers in run_for, by the thread that calls it") {
    config settings = local();
    settings.handlers_in_run = true;
    std::vector<std::thread::id> threads;
    recording_node lent(settings, [&](recording_node& self, const message& m) {
        threads.push_back(std::this_thread::get_id());
        CHECK_FALSE(self->run_for(1ms));
        CHECK_FALSE(self->send(m.sender, "answer"));
    });
    recording_node peer;
    SUBCASE("between calls links live, and messages are confirmed and wait") {
        CHECK(peer->connect(lent.address()).linked);
        for (int i = 0; i < 100; ++i) CHECK_FALSE(peer->send(lent.address(), std::to_string(i)));
        CHECK_FALSE(lent->send(peer.address(), "hi"));
        CHECK(lent.seen().messages.empty());
        CHECK(lent->run_for(0ms));
        CHECK(lent.seen().messages.size() == 100);
        CHECK(peer.wait([](const support::record& r) { return r.count_text("answer") == 100; }));
    }
    SUBCASE("messages that come during a call are handled in it") {
        std::thread sender([&] {
            for (int i = 0; i < 100; ++i) CHECK_FALSE(peer->send(lent.address(), "hi"));
        });
        CHECK(wait_until([&] { return lent->run_for(1ms) && threads.size() == 100; }));
        sender.join();
    }
    SUBCASE("two threads run it one after the other") {
        std::atomic<bool> ending{false};
        std::thread other([&] {
            while (lent->run_for(1ms) && !ending) {
            }
        });
        for (int i = 0; i < 100; ++i) {
            CHECK_FALSE(peer->post(lent.address(), "hi"));
            CHECK(lent->run_for(0ms));
        }
        ending = true;
        other.join();
        CHECK(wait_until([&] { return lent->run_for(1ms) && threads.size() == 100; }));
        return;
    }
    for (const auto id : threads) CHECK(id == std::this_thread::get_id());
}

TEST_CASE("run_for waits for as long as it is told to, and ends with the node") {
    config settings = local();
    settings.handlers_in_run = true;
    support::gate called;
    recording_node lent(settings, [&](recording_node& self, const message& m) {
        if (m.text == "stop") self->stop();
        called.open();
    });
    recording_node peer;
    const auto began = std::chrono::steady_clock::now();
    CHECK(lent->run_for(20ms));
    CHECK(std::chrono::steady_clock::now() - began >= 20ms);
    SUBCASE("stopped by another thread") {
        std::thread other([&] {
            CHECK(called.wait());
            lent->stop();
        });
        CHECK_FALSE(peer->send(lent.address(), "hi"));
        CHECK_FALSE(lent->run_for(patience));
        other.join();
    }
    SUBCASE("stopped by a handler") {
        CHECK_FALSE(peer->send(lent.address(), "stop"));
        CHECK_FALSE(lent->run_for(patience));
    }
    CHECK_FALSE(lent->run_for(patience));
    CHECK_FALSE(lent->start());
    CHECK(lent->run_for(0ms));
}

TEST_CASE("stop calls the handlers that are left, and a node without handlers_in_run is not run") {
    recording_node peer;
    CHECK_FALSE(peer->run_for(patience));
    config settings = local();
    settings.handlers_in_run = true;
    recording_node lent(settings);
    outcomes results;
    const silent_peer silent;
    CHECK_FALSE(peer->send(lent.address(), "hi"));
    CHECK_FALSE(results.post(*lent, silent.address(), "hi"));
    CHECK_FALSE(results.post(*lent, peer.address(), "hi"));
    CHECK(peer.wait_text("hi"));
    lent->stop();
    CHECK(lent.seen().count_text("hi") == 1);
    CHECK(results.count(errc::stopped) + results.count({}) == 2);
    CHECK(results.each_once());
}

TEST_CASE("sixteen threads that broadcast without end neither hold up a stop nor disturb a start") {
    recording_node a, b;
    REQUIRE_FALSE(a->send(b.address(), "hi"));
    REQUIRE(b.wait_joined(1));
    std::atomic<bool> ending{false};
    std::atomic<int> refused{0};
    std::vector<std::thread> speakers;
    for (int i = 0; i < 16; ++i)
        speakers.emplace_back([&] {
            while (!ending)
                for (const auto& [to, error] : b->broadcast("hi"))
                    if (error == errc::stopped) ++refused;
        });
    for (int i = 0; i < 20; ++i) {
        b->stop();
        const int before = refused;
        CHECK(wait_until([&] { return refused > before; }));
        CHECK_FALSE(b->start());
        CHECK_FALSE(a->send(b.address(), "hi"));
    }
    ending = true;
    for (auto& speaker : speakers) speaker.join();
}

TEST_CASE("a thread that runs a stopped node holds up neither a stop nor a start") {
    config settings = local();
    settings.handlers_in_run = true;
    recording_node lent(settings), peer;
    std::atomic<bool> ending{false};
    std::thread other([&] {
        while (!ending) lent->run_for(0ms);
    });
    for (int i = 0; i < 20; ++i) {
        CHECK_FALSE(peer->send(lent.address(), "hi"));
        lent->stop();
        CHECK_FALSE(lent->start());
    }
    CHECK(lent.wait_messages(20));
    ending = true;
    other.join();
}
