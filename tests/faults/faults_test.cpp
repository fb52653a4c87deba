// Two nodes talk while system calls fail, at every point in turn: each call of each kind, with each
// error. Nothing crashes, hangs or leaks, no outcome is lost, nothing comes twice, and once calls
// succeed again the nodes work. Linux.
//
// SPDX-License-Identifier: MIT

#include "../support.hpp"
#include "faults.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

using namespace support;
using p2pchat::endpoint;
using p2pchat::node;

/// A message and its outcome. Nothing here allocates, since that could fail.
struct entry {
    std::atomic<bool> owed{false};  // a post that was accepted
    std::atomic<int> outcomes{0};
    std::atomic<bool> delivered{false};
    std::atomic<int> arrived{0};
};

class ledger {
public:
    static constexpr std::size_t capacity = 100;

    entry& next() { return entries_[count_++]; }
    std::size_t number_of(const entry& e) const { return static_cast<std::size_t>(&e - entries_); }

    /// A text is its number, and padding.
    void arrived(std::string_view text) {
        const bool ours = text.size() > 2 && text[0] == 'm';
        if (ours) ++entries_[(text[1] - '0') * 10 + (text[2] - '0')].arrived;
    }

    /// What has gone wrong; nullptr if nothing has (yet).
    const char* problem() const {
        for (std::size_t i = 0; i < count_; ++i)
            if (const char* text = problem_of(entries_[i])) return text;
        return nullptr;
    }

    bool all_delivered() const {
        return std::all_of(entries_, entries_ + count_,
                           [](const entry& e) { return e.delivered.load(); });
    }

private:
    static const char* problem_of(const entry& e) {
        if (e.outcomes > (e.owed ? 1 : 0)) return "a post has more than one outcome";
        if (e.arrived > 1) return "a message came twice";
        if (e.owed && e.outcomes == 0) return "a post has no outcome";
        if (e.delivered && e.arrived == 0)
            return "a message was reported delivered, and never came";
        return nullptr;
    }

    entry entries_[capacity];
    std::size_t count_ = 0;
};

/// The text of message `number`; a long one goes by the io thread and in several segments.
std::string_view text_of(std::size_t number, bool is_long) {
    static const auto texts = [] {
        std::vector<std::string> result;
        for (std::size_t i = 0; i < ledger::capacity; ++i) {
            result.push_back("m" + std::to_string(i / 10) + std::to_string(i % 10));
            result.back().append(3000, '.');
        }
        return result;
    }();
    return std::string_view(texts[number]).substr(0, is_long ? 3003 : 3);
}

p2pchat::config settings() { return local("Fault"); }

/// Two nodes and the messages between them.
class conversation {
public:
    conversation() : a_(made()), b_(made()) {}

    /// False if a node does not start.
    bool start() { return start(*a_) && start(*b_); }

    void talk() {
        send(*a_, *b_, false);
        send(*a_, *b_, true);
        look_around();
        for (const bool is_long : {false, true, false}) {
            post(*a_, *b_, is_long);
            post(*b_, *a_, is_long);
        }
        begin_to_connect();
        for (const bool is_long : {true, false, true}) {
            post(*a_, *b_, is_long);
            post(*b_, *a_, is_long);
        }
        send(*a_, *b_, false);
        send(*b_, *a_, true);
        leave();
        send(*b_, *a_, false);
    }

    /// Stops with some messages under way.
    void stop() {
        connect();
        for (const bool is_long : {true, false}) {
            post(*a_, *b_, is_long);
            post(*b_, *a_, is_long);
        }
        a_->stop();
        b_->stop();
    }

    /// Whether everything works, at least after leftovers of the faults are cleared away.
    bool works_again() {
        return gets_through(*a_, *b_, "one") &&
               gets_through(*b_, *a_, text_of(0, true).substr(3)) &&
               wait_until([&] { return !a_->connect(b_->address()).error; }) &&
               gets_through(*a_, *b_, "two") && gets_through(*b_, *a_, "three");
    }

    /// What has gone wrong; nullptr if nothing has.
    const char* problem() {
        wait_until([this] { return !ledger_.problem(); }, 10s);
        return ledger_.problem();
    }

    bool all_delivered() const { return ledger_.all_delivered(); }

private:
    std::unique_ptr<node> made() {
        for (;;) {
            try {
                auto result = std::make_unique<node>(settings());
                result->on_message([this](const p2pchat::message& m) {
                    const faults::truce ours;
                    ledger_.arrived(m.text);
                });
                result->on_peer_joined([](const p2pchat::peer&) {});
                result->on_peer_left([](const p2pchat::peer&, p2pchat::departure) {});
                result->on_rejected([](const endpoint&, std::error_code) {});
                return result;
            } catch (const std::bad_alloc&) {
            }
        }
    }

    static bool start(node& which) {
        for (int tries = 0; tries < 20; ++tries) {
            std::error_code error = std::make_error_code(std::errc::not_enough_memory);
            attempt([&] { error = which.start(); });
            if (!error) return true;
        }
        return false;
    }

    /// Nothing but std::bad_alloc is thrown.
    template <class Work>
    static void attempt(Work work) {
        try {
            work();
        } catch (const std::bad_alloc&) {
        }
    }

    void send(node& from, node& to, bool is_long) {
        entry& e = ledger_.next();
        const auto text = text_of(ledger_.number_of(e), is_long);
        attempt([&] { e.delivered = !from.send(to.address(), text); });
    }

    void post(node& from, node& to, bool is_long) {
        entry& e = ledger_.next();
        const auto text = text_of(ledger_.number_of(e), is_long);
        e.owed = true;
        std::error_code refused = std::make_error_code(std::errc::not_enough_memory);
        attempt([&] {
            refused = from.post(to.address(), text, [&e](std::error_code error) {
                e.delivered = !error;
                ++e.outcomes;
            });
        });
        if (refused) e.owed = false;
    }

    void connect() {
        attempt([this] { static_cast<void>(a_->connect(b_->address())); });
    }
    /// The next posts wait for the link.
    void begin_to_connect() {
        attempt([this] { static_cast<void>(a_->connect(b_->address(), {})); });
    }
    void leave() {
        attempt([this] { static_cast<void>(a_->leave(b_->address())); });
    }

    void look_around() {
        attempt([] { static_cast<void>(p2pchat::detect_address()); });
        attempt([] {
            endpoint found;
            static_cast<void>(resolve("localhost", 1, found));
        });
        attempt([this] { static_cast<void>(a_->peers()); });
    }

    static bool gets_through(node& from, node& to, std::string_view text) {
        return wait_until([&] { return !from.send(to.address(), text); });
    }

    ledger ledger_;  // outlives the nodes
    std::unique_ptr<node> a_, b_;
};

/// Results that are not failures: a call that has to be repeated, or that does only a part.
bool is_harmless(const faults::way& how) {
    if (how.which == faults::call::close) return true;
    if (how.which == faults::call::accept && how.error == ECONNABORTED) return true;
    if (how.which == faults::call::connect) return how.error == EINTR || how.error == EINPROGRESS;
    if (how.which == faults::call::thread) return false;
    return how.error == EINTR || how.error == EAGAIN || how.error < 0;
}

/// Lets them talk, under faults from the first call to the last; what went wrong, or nullptr.
const char* talk_through(bool harmless) {
    conversation two;
    if (!two.start()) return "a node does not start";
    two.talk();
    faults::disarm();
    if (const char* text = two.problem()) return text;
    if (harmless && !two.all_delivered()) return "a message is lost though nothing broke";
    if (!two.works_again()) return "the next conversation does not work";
    faults::resume();
    two.stop();
    faults::disarm();
    if (const char* text = two.problem()) return text;
    if (!two.start()) return "a node does not start again";
    return two.works_again() ? nullptr : "the conversation after that does not work";
}

/// A leak occupies the lowest free descriptors.
int open_descriptors() {
    int count = 0;
    for (int i = 0; i < 1024; ++i) count += ::fcntl(i, F_GETFD) >= 0;
    return count;
}

char under_way[100];  // the point, printed if it hangs

void on_alarm(int) {
    static_cast<void>(!::write(2, "hangs: ", 7));
    static_cast<void>(!::write(2, under_way, std::strlen(under_way)));
    static_cast<void>(!::write(2, "\n", 1));
    std::abort();
}

/// What went wrong at one point, and whether any call failed there at all.
struct finding {
    const char* problem;
    bool hit;
};

finding try_point(const faults::way& how, int first, int count) {
    std::snprintf(under_way, sizeof under_way, "%s, call %d, %d times", how.name, first, count);
    const long blocks = faults::blocks();
    const int descriptors = open_descriptors();
    alarm(120);
    faults::arm(how, first, count);
    const char* problem = talk_through(is_harmless(how));
    faults::disarm();
    alarm(0);
    if (!problem && faults::blocks() != blocks) problem = "memory leaks";
    if (!problem && open_descriptors() != descriptors) problem = "a descriptor leaks";
    return {problem, faults::struck() > 0};
}

/// Tries all points of one way; returns how many there were.
int try_way(const faults::way& how, int count) {
    for (int first = 1;; ++first) {
        const auto found = try_point(how, first, count);
        CHECK_MESSAGE(!found.problem, under_way, ": ",
                      std::string(found.problem ? found.problem : ""));
        if (!found.hit) return first - 1;
    }
}

/// Whether to try this way: P2PCHAT_FAULTS names one, or all if it is not set.
bool is_wanted(const faults::way& how) {
    const char* const only = std::getenv("P2PCHAT_FAULTS");
    return !only || std::strncmp(how.name, only, std::strlen(only)) == 0;
}

int try_all(int count) {
    std::signal(SIGALRM, on_alarm);
    talk_through(true);  // so that what is made once in a process exists
    int points = 0;
    for (const auto& how : faults::all_ways()) {
        if (!is_wanted(how)) continue;
        // Each makes accepting pause for 100 ms, so only one error is tried.
        if (count > 1 && how.which == faults::call::accept && how.error != EMFILE) continue;
        const int here = try_way(how, count);
        if (std::getenv("P2PCHAT_FAULTS_LIST")) std::printf("%-28s %4d\n", how.name, here);
        points += here;
    }
    return points;
}

}  // namespace

TEST_CASE("a system call that fails once loses nothing, and the nodes go on") {
    const int points = try_all(1);
    MESSAGE(points << " points");
    CHECK(points > 0);
}

TEST_CASE("a system call that fails, and the two after it, lose nothing, and the nodes go on") {
    const int points = try_all(3);
    MESSAGE(points << " points");
    CHECK(points > 0);
}

TEST_CASE("a machine without a route has the address of an interface") {
    faults::arm({faults::call::connect, ENETUNREACH, "connect"}, 1, 2);
    const auto found = p2pchat::detect_address();
    CHECK(faults::struck() == 2);
    faults::disarm();
    CHECK(endpoint(found.bytes(), 1, 0));  // of the loopback interface, if there is no other
    CHECK(found.port() == 0);
}

TEST_CASE("a peer set without memory for another peer throws, and stays as it was") {
    p2pchat::peer_set known(1000);
    int refused = 0;
    for (std::uint16_t port = 1; port <= 300; ++port) {
        for (int call = 1;; ++call) {
            faults::arm({faults::call::memory, ENOMEM, "memory"}, call, 1);
            bool added = false, threw = false;
            try {
                added = known.heard({"127.0.0.1", port}, "a team of more than a few bytes");
            } catch (const std::bad_alloc&) {
                threw = true;
            }
            const bool struck = faults::struck() != 0;
            faults::disarm();
            CHECK(threw == struck);
            CHECK(added == !threw);
            CHECK(known.size() == (threw ? port - 1u : port));
            if (!struck) break;
            ++refused;
        }
    }
    CHECK(refused >= 600);
    for (std::uint16_t port = 1; port <= 300; ++port) {
        p2pchat::peer removed;
        CHECK(known.remove({"127.0.0.1", port}, removed));
    }
    CHECK(known.size() == 0);
}

TEST_CASE("a message waits for a descriptor until another connection gives one back") {
    outcomes sent;
    recording_node a;
    support::raw_listener first, second;
    CHECK_FALSE(sent.post(*a, first.address(), "has one"));
    auto peer = first.accept();

    faults::arm({faults::call::socket, EMFILE, "socket"}, 1, 1);
    CHECK_FALSE(sent.post(*a, second.address(), "has none"));
    CHECK(wait_until([] { return faults::struck() == 1; }));
    faults::disarm();

    peer.read_to_end();
    peer.close();
    auto next = second.accept();
    CHECK(next.read_to_end() == ending::closed);
    CHECK(next.text() == support::wire(a.address(), "has none", "BTC"));
    next.close();
    CHECK(sent.wait());
    CHECK(sent.count({}) == 2);
}

TEST_CASE("messages to a peer that had a link fail if there is no memory for a connection to it") {
    recording_node a, b;
    REQUIRE(a->connect(b.address()).linked);
    const auto gone = b.address();
    b->stop();
    CHECK(wait_until([&] { return linked_peers(*a) == 0; }));
    // The second message within a second opens a link again.
    std::atomic<int> outcomes{0}, without_memory{0};
    const auto note = [&](std::error_code error) {
        if (error == std::errc::not_enough_memory) ++without_memory;
        ++outcomes;
    };
    const int count = 10;  // later ones, and the CONNECT, reuse what these leave behind
    for (int i = 0; i < count; ++i) CHECK_FALSE(a->post(gone, "first", note));
    CHECK(wait_until([&] { return outcomes == count; }));
    faults::arm({faults::call::memory, ENOMEM, "memory"}, 1, 1 << 30);
    {
        const faults::truce ours;
        CHECK_FALSE(a->post(gone, "second", note));
        CHECK_FALSE(a->post(gone, "third", note));
        CHECK(wait_until([&] { return outcomes == count + 2; }));
    }
    faults::disarm();
    CHECK(without_memory == 2);
    CHECK_FALSE(b->start());
    CHECK_FALSE(a->send(b.address(), "again"));
}
