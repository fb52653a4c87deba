// Tests of messages kept for absent peers.
//
// SPDX-License-Identifier: MIT

#include "process.hpp"
#include "support.hpp"

#include <string>

using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::when_absent;
using p2pchat::when_full;
using support::is_left_alone;
using support::local;
using support::nobody;
using support::outcomes;
using support::raw_listener;
using support::raw_peer;
using support::recording_node;
using support::typed_link;
using support::wait_until;
using support::wire;
using namespace std::chrono_literals;

namespace {

/// A peer that is absent until the test starts it.
class absentee {
public:
    explicit absentee(p2pchat::config settings = local("Bob")) : settings_(std::move(settings)) {
        settings_.port = place_.address().port();
    }
    const endpoint& address() const noexcept { return place_.address(); }
    const p2pchat::config& settings() const noexcept { return settings_; }

private:
    const nobody place_;
    p2pchat::config settings_;
};

std::error_code keep(outcomes& of, recording_node& from, const endpoint& to,
                     const std::string& text) {
    return of.post(*from, to, text, when_full::refuse, when_absent::keep);
}

std::vector<std::string> kept(recording_node& by) {
    std::vector<std::string> result;
    for (const auto& one : by->kept()) result.push_back(one.text);
    return result;
}

using texts = std::vector<std::string>;

texts shown(const recording_node& by) {
    texts result;
    for (const auto& one : by.seen().messages) result.push_back(one.text);
    return result;
}

}  // namespace

TEST_CASE("messages to an absent peer are sent in order when the peer is heard") {
    const absentee bob;
    outcomes posts;
    recording_node a(local("Ann"));
    REQUIRE_FALSE(keep(posts, a, bob.address(), "one"));
    REQUIRE(wait_until([&] { return kept(a) == texts{"one"}; }));
    REQUIRE_FALSE(keep(posts, a, bob.address(), "two"));
    REQUIRE_FALSE(keep(posts, a, bob.address(), "three"));
    REQUIRE(wait_until([&] { return kept(a) == texts{"one", "two", "three"}; }));
    CHECK(a->kept().front().to == bob.address());
    CHECK(a->send(bob.address(), "not kept") == std::errc::connection_refused);

    recording_node b(bob.settings());
    REQUIRE_FALSE(b->send(a.address(), "I am here"));
    CHECK(posts.wait());
    CHECK(posts.count({}) == 3);
    CHECK(b.wait_messages(3));
    CHECK(shown(b) == texts{"one", "two", "three"});
    CHECK(kept(a).empty());
    REQUIRE(a.seen().kept.size() == 3);  // each told once
    CHECK(a.seen().kept.front().text == "one");
    CHECK(a.seen().kept.front().to == bob.address());
}

TEST_CASE("a kept message is sent to the team that was at the address, and to no other") {
    outcomes posts;
    recording_node a(local("Ann"));
    const nobody place;
    const auto say = [&](const std::string& team, const std::string& text) {
        CHECK(support::one_shot(a.address(), wire(place.address(), text, team)) ==
              support::ending::closed);
        REQUIRE(a.wait_text(text));
    };
    say("Bob", "I go out");
    REQUIRE_FALSE(keep(posts, a, place.address(), "for Bob"));
    REQUIRE(wait_until([&] { return kept(a) == texts{"for Bob"}; }));
    CHECK(a->kept().front().team == "Bob");
    REQUIRE(a.wait([](const support::record& r) { return r.kept.size() == 1; }));
    CHECK(a.seen().kept.front().team == "Bob");

    raw_listener there(place.address());
    const auto next_text = [&] {
        raw_peer peer = there.accept();
        CHECK(peer.read_to_end() == support::ending::closed);
        return peer.text();
    };
    SUBCASE("while another one was there, by one-shots") {
        say("Mallory", "hello");
        REQUIRE_FALSE(keep(posts, a, place.address(), "for Mallory"));
        CHECK(next_text() == wire(a.address(), "for Mallory", "Ann"));
        say("Mallory", "is that all?");
    }
    SUBCASE("while another one was there, by a link") {
        raw_peer mallory(a.address());
        mallory.send(wire(place.address(), "CONNECT\n", "Mallory"));
        CHECK(mallory.line() == wire(a.address(), "CONNECT", "Ann"));
        REQUIRE_FALSE(a->post(place.address(), "for Mallory"));
        CHECK(mallory.line() == wire(a.address(), "for Mallory", "Ann"));
        mallory.send("ACK 1\n" + wire(place.address(), "exit\n", "Mallory"));
        CHECK(mallory.line() == "ACK 1");
    }
    CHECK(kept(a) == texts{"for Bob"});
    say("Bob", "I am back");
    CHECK(next_text() == wire(a.address(), "for Bob", "Ann"));
    CHECK(wait_until([&] { return kept(a).empty(); }));
    CHECK(posts.wait());
}

TEST_CASE("a message kept before a restart waits for the same team") {
    outcomes posts;
    recording_node a(local("Ann"));
    raw_listener there;
    std::atomic<int> delivered{0};
    const auto keep_again = [&](const std::string& text, const std::string& team) {
        return a->keep({there.address(), text, team},
                       [&](std::error_code error) { delivered += error ? 0 : 1; });
    };
    const auto say = [&](const std::string& team, const std::string& text) {
        CHECK(support::one_shot(a.address(), wire(there.address(), text, team)) ==
              support::ending::closed);
    };
    const auto next_text = [&] {
        raw_peer peer = there.accept();
        CHECK(peer.read_to_end() == support::ending::closed);
        return peer.text();
    };
    REQUIRE_FALSE(keep_again("for Bob", "Bob"));
    CHECK(is_left_alone(there));
    REQUIRE_FALSE(keep_again("for anybody", ""));
    CHECK(next_text() == wire(a.address(), "for anybody", "Ann"));
    say("Mallory", "hello");
    REQUIRE(a.wait_text("hello"));
    CHECK(kept(a) == texts{"for Bob"});
    say("Bob", "I am here");
    CHECK(next_text() == wire(a.address(), "for Bob", "Ann"));
    CHECK(wait_until([&] { return delivered == 2; }));
    CHECK(keep_again("exit", "Bob") == errc::is_command);
    CHECK(a->keep({{}, "text", "Bob"}) == errc::bad_address);
}

TEST_CASE("kept messages go over a new link, ahead of later posts") {
    const absentee bob;
    outcomes posts;
    recording_node a(local("Ann"));
    for (int i = 0; i < 50; ++i) REQUIRE_FALSE(keep(posts, a, bob.address(), std::to_string(i)));
    REQUIRE(wait_until([&] { return kept(a).size() == 50; }));
    recording_node b(bob.settings());
    REQUIRE(b->connect(a.address()).linked);
    for (int i = 50; i < 100; ++i) REQUIRE_FALSE(keep(posts, a, bob.address(), std::to_string(i)));
    CHECK(posts.wait());
    CHECK(posts.count({}) == 100);
    REQUIRE(b.wait_messages(100));
    texts all;
    for (int i = 0; i < 100; ++i) all.push_back(std::to_string(i));
    CHECK(shown(b) == all);
}

TEST_CASE("kept messages are sent when discovery finds a peer that has said nothing") {
    auto settings = local("Bob");
    settings.discovery = true;
    settings.discovery_port = support::new_discovery_port();
    const absentee bob(settings);
    settings.team = "Ann";
    outcomes posts;
    recording_node a(settings);
    REQUIRE_FALSE(keep(posts, a, bob.address(), "found you"));
    REQUIRE(wait_until([&] { return kept(a).size() == 1; }));
    recording_node b(bob.settings());
    CHECK(b.wait_text("found you"));
    CHECK(posts.wait());
    CHECK(posts.count({}) == 1);
}

TEST_CASE("a message kept for too long is expired; one still kept at the end is not sent") {
    nobody absent;
    auto settings = local("Ann");
    settings.keep_for = 0s;
    outcomes posts;
    recording_node a(settings);
    REQUIRE_FALSE(keep(posts, a, absent.address(), "for no time"));
    CHECK(posts.wait());
    CHECK(posts.count(errc::expired) == 1);
    CHECK(make_error_code(errc::expired) == std::errc::timed_out);
    a->stop();

    outcomes others;
    recording_node b(local("Bob"));
    REQUIRE_FALSE(keep(others, b, absent.address(), "for long"));
    REQUIRE(wait_until([&] { return kept(b).size() == 1; }));
    b->stop();
    CHECK(others.wait());
    CHECK(others.count(errc::not_sent) == 1);
    CHECK(make_error_code(errc::not_sent) == std::errc::operation_canceled);
    CHECK(kept(b).empty());
    settings.keep_for = -1s;
    CHECK(p2pchat::node(settings).start() == errc::bad_setting);
}

TEST_CASE("kept messages are bounded, for one peer and for all") {
    nobody first, second;
    auto settings = local("Ann");
    settings.max_queued_bytes = 4000;
    settings.max_kept_bytes = 6000;
    outcomes posts;
    recording_node a(settings);
    const std::string text(1000, 'x');
    for (std::size_t i = 1; i <= 3; ++i) {
        REQUIRE_FALSE(keep(posts, a, first.address(), text));
        REQUIRE(wait_until([&] { return kept(a).size() == i; }));
    }
    CHECK(keep(posts, a, first.address(), text) == errc::queue_full);
    for (std::size_t i = 4; i <= 5; ++i) {
        REQUIRE_FALSE(keep(posts, a, second.address(), text));
        REQUIRE(wait_until([&] { return kept(a).size() == i; }));
    }
    CHECK(keep(posts, a, second.address(), text) == errc::queue_full);
    nobody third;  // its first attempt is made, and then there is no room
    REQUIRE_FALSE(keep(posts, a, third.address(), text));
    CHECK(wait_until([&] { return posts.count(std::errc::connection_refused) == 1; }));
    CHECK(kept(a).size() == 5);
}

TEST_CASE("a message that a present peer did not take is not kept") {
    outcomes posts;
    recording_node a(local("Ann"));
    raw_listener listener;
    REQUIRE_FALSE(keep(posts, a, listener.address(), "no"));
    listener.accept().reset();
    CHECK(posts.wait());
    CHECK(posts.count(errc::not_taken) == 1);

    typed_link hand(a);
    REQUIRE_FALSE(keep(posts, a, hand.address(), "lost"));
    CHECK(hand.peer.line() == wire(a.address(), "lost", "Ann"));
    hand.peer.reset();  // it may have been taken
    CHECK(posts.wait());
    CHECK(posts.count(errc::link_lost) == 1);
    CHECK(kept(a).empty());
}

TEST_CASE("messages that a link did not confirm before an orderly end are sent over the next one") {
    outcomes posts;
    recording_node a(local("Ann"));
    typed_link hand(a);
    for (const char* text : {"one", "two", "three"})
        REQUIRE_FALSE(keep(posts, a, hand.address(), text));
    CHECK(hand.peer.line() == wire(a.address(), "one", "Ann"));
    CHECK(hand.peer.line() == wire(a.address(), "two", "Ann"));
    CHECK(hand.peer.line() == wire(a.address(), "three", "Ann"));
    hand.peer.send("ACK 1\n");
    hand.peer.half_close();
    REQUIRE(wait_until([&] { return kept(a) == texts{"two", "three"}; }));

    raw_peer again(a.address());
    again.send(hand.line("CONNECT"));
    CHECK(again.line() == wire(a.address(), "CONNECT", "Ann"));
    CHECK(again.line() == wire(a.address(), "two", "Ann"));
    CHECK(again.line() == wire(a.address(), "three", "Ann"));
    again.send("ACK 2\n");
    CHECK(posts.wait());
    CHECK(posts.count({}) == 3);
    CHECK(posts.in_order());
}

#if defined(__linux__)

TEST_CASE("a message to a program that is killed before it confirms is not sent again") {
    support::process dying([](support::process& parent) {
        auto settings = local("Bob");
        settings.confirm_later = true;
        recording_node bob(settings);
        parent.say(to_string(bob.address()));
        endpoint ann;
        if (!parse(parent.hear(), ann)) static_cast<void>(bob->connect(ann));
        parent.say(bob.wait_text("pay 1") ? "shown" : "not shown");
        parent.hear();
    });
    const endpoint bob = dying.hear_address();
    outcomes posts;
    recording_node a(local("Ann"));
    SUBCASE("over a link that it opened") {
        dying.say(to_string(a.address()));
        REQUIRE(a.wait_connected(1));
    }
    SUBCASE("over a link that we opened") {
        REQUIRE(a->connect(bob).linked);
        dying.say("no link");
    }
    REQUIRE_FALSE(keep(posts, a, bob, "pay 1"));
    REQUIRE(dying.hear() == "shown");
    dying.kill();
    REQUIRE(a.wait_left(1));
    CHECK(a.seen().left[0].second == p2pchat::departure::lost);
    CHECK(kept(a).empty());
    CHECK(wait_until([&] { return posts.count(errc::link_lost) == 1 || !kept(a).empty(); }));
    CHECK(posts.count(errc::link_lost) == 1);
}

#endif

TEST_CASE("a message that an incomplete ACK may have confirmed is not sent again") {
    outcomes posts;
    recording_node a(local("Ann"));
    typed_link hand(a);
    REQUIRE_FALSE(keep(posts, a, hand.address(), "one"));
    CHECK(hand.message() == wire(a.address(), "one", "Ann"));
    hand.peer.send("ACK 1");
    hand.peer.half_close();
    CHECK(posts.wait());
    CHECK(posts.count(errc::link_lost) == 1);
    CHECK(kept(a).empty());
}

TEST_CASE("a message that waits for a link to close does not overtake its unconfirmed ones") {
    outcomes posts;
    recording_node a(local("Ann"));
    typed_link hand(a);
    REQUIRE_FALSE(keep(posts, a, hand.address(), "one"));
    CHECK(hand.message() == wire(a.address(), "one", "Ann"));
    hand.send("exit");
    REQUIRE(hand.wait_ack(1));
    REQUIRE_FALSE(keep(posts, a, hand.address(), "two"));
    hand.peer.half_close();
    CHECK(wait_until([&] { return kept(a) == texts{"one", "two"}; }));
}

TEST_CASE(
    "a message that waits for a link to close, and finds no room, does not overtake, either") {
    auto settings = local("Ann");
    settings.max_kept_bytes = 2000;
    const std::string one(1000, '1'), two(1000, '2');
    outcomes posts;
    recording_node a(settings);
    typed_link hand(a);
    REQUIRE_FALSE(keep(posts, a, hand.address(), one));
    CHECK(hand.message() == wire(a.address(), one, "Ann"));
    hand.send("exit");
    REQUIRE(hand.wait_ack(1));
    REQUIRE_FALSE(keep(posts, a, hand.address(), two));
    hand.peer.half_close();
    REQUIRE(wait_until([&] { return kept(a) == texts{one}; }));

    CHECK(support::one_shot(a.address(), hand.line("I am here")) == support::ending::closed);
    raw_peer first = hand.listener.accept();
    CHECK(first.read_to_end() == support::ending::closed);
    CHECK(first.text() == wire(a.address(), one, "Ann"));
    first.close();
    CHECK(posts.wait());
    CHECK(posts.count({}) == 1);
    CHECK(posts.count(errc::queue_full) == 1);
}

TEST_CASE("a message that arrives on a closed link is not taken") {
    recording_node a(local("Ann"));
    typed_link hand(a);
    REQUIRE_FALSE(a->leave(hand.address(), {}));
    CHECK(hand.message() == wire(a.address(), "exit", "Ann"));
    hand.peer.send("ACK 1\n");
    CHECK(hand.peer.read_to_end() == support::ending::closed);
    hand.send("too late to be confirmed");
    hand.peer.half_close();
    // What comes next is the next thing that it hears.
    raw_peer other(a.address());
    other.send(wire(other.socket().local(), "next"));
    other.half_close();
    CHECK(a.wait_text("next"));
    CHECK(shown(a) == texts{"next"});
}

TEST_CASE("a message that comes back unsent goes ahead of those that had no room") {
    const nobody place;
    auto settings = local("Ann");
    settings.max_queued_bytes = 1000;
    outcomes posts;
    recording_node a(settings);
    const std::string rest(60, '.');
    for (const std::string which : {"1", "2", "3"}) {
        REQUIRE_FALSE(keep(posts, a, place.address(), which + rest));
        REQUIRE(wait_until([&] { return kept(a).size() == std::stoul(which); }));
    }
    // Each has the others tried again; what is posted behind them is told when they have failed.
    REQUIRE_FALSE(posts.post(*a, place.address(), "refused"));
    const auto refused = std::errc::connection_refused;
    REQUIRE(wait_until([&] { return posts.count(refused) == 1; }));
    raw_listener there(place.address());
    REQUIRE_FALSE(posts.post(*a, place.address(), std::string(850, 'x')));
    raw_peer busy = there.accept();
    support::one_shot(a.address(), wire(place.address(), "I am here"));
    REQUIRE(wait_until([&] { return kept(a) == texts{"2" + rest, "3" + rest}; }));
    there.socket().close();
    busy.reset();
    CHECK(wait_until([&] { return kept(a) == texts{"1" + rest, "2" + rest, "3" + rest}; }));
}
