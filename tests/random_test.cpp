// Fifty nodes in one process that link, send, leave and die at random for some seconds. In the end
// every message is accounted for: delivered and shown once, or reported undelivered; none is shown
// twice. P2PCHAT_RANDOM_SECONDS and P2PCHAT_RANDOM_SEED set its length and its course.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "support.hpp"

#include <array>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>

using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::message;
using p2pchat::node;
using support::raw_peer;
using support::wait_until;
using namespace std::chrono_literals;

namespace {

unsigned long from_environment(const char* name, unsigned long otherwise) {
    const char* const value = std::getenv(name);
    return value ? std::strtoul(value, nullptr, 10) : otherwise;
}

/// Whether a message with this outcome cannot have reached the other side.
bool is_surely_not_shown(std::error_code error) {
    return error == std::errc::connection_refused || error == errc::queue_full;
}

/// Every message by its number: how often it was shown, and the outcome that its sender got.
class ledger {
public:
    explicit ledger(std::size_t max) : entries_(max) {}

    /// The number of a new message; false when the ledger is full.
    bool open(std::size_t& number) {
        number = next_++;
        return number < entries_.size();
    }

    void note_outcome(std::size_t number, std::error_code error) {
        entry& e = entries_[number];
        ++e.outcomes;
        if (!error) e.delivered = true;
        if (is_surely_not_shown(error)) e.never = true;
        ++settled_;
    }
    void note_refusal(std::size_t number) {
        entries_[number].refused = entries_[number].never = true;
        ++settled_;
    }
    void note_shown(std::size_t number) { ++entries_.at(number).shown; }

    bool is_settled() const { return settled_ >= size(); }
    std::size_t size() const { return (std::min)(next_.load(), entries_.size()); }

    void check() const {
        std::array<std::size_t, 5> sums{};
        for (std::size_t i = 0; i < size(); ++i) check(entries_[i], sums);
        std::cout << size() << " messages: " << sums[0] << " delivered, " << sums[1]
                  << " undelivered (" << sums[2] << " of these shown all the same), " << sums[3]
                  << " refused\n";
        CHECK(sums[4] == 0);
        CHECK(sums[0] > 0);
        CHECK(sums[1] > 0);
    }

private:
    struct entry {
        std::atomic<unsigned char> shown{0}, outcomes{0};
        std::atomic<bool> delivered{false}, refused{false}, never{false};
    };

    static void check(const entry& e, std::array<std::size_t, 5>& sums) {
        ++sums[e.refused ? 3 : e.delivered ? 0 : 1];
        if (!e.delivered && e.shown) ++sums[2];
        const bool once = e.outcomes + e.refused == 1;
        const bool right = e.delivered ? e.shown == 1 : e.never ? e.shown == 0 : e.shown <= 1;
        if (once && right) return;
        if (++sums[4] > 10) return;  // enough to see what is wrong
        CHECK(e.outcomes + e.refused == 1);
        INFO("delivered " << e.delivered << ", never " << e.never << ", shown " << int{e.shown});
        CHECK(right);
    }

    std::vector<entry> entries_;
    std::atomic<std::size_t> next_{0}, settled_{0};
};

/// A node whose handler records its messages, and answers some of them.
class citizen {
public:
    explicit citizen(ledger& book) : book_(book), node_(settings()) {
        node_.on_message([this](const message& m) { on_message(m); });
        REQUIRE_FALSE(node_.start());
        address_ = node_.address();
    }

    node& get() { return node_; }
    const endpoint& address() const { return address_; }

    void post(const endpoint& to, std::size_t padding) {
        std::size_t number = 0;
        if (!book_.open(number)) return;
        const std::string text =
            'm' + std::to_string(number) + ' ' + std::string(padding, 'x') + '.';
        const auto done = [this, number](std::error_code e) { book_.note_outcome(number, e); };
        if (node_.post(to, text, done)) book_.note_refusal(number);
    }

    void send(const endpoint& to) {
        std::size_t number = 0;
        if (!book_.open(number)) return;
        book_.note_outcome(number, node_.send(to, 'm' + std::to_string(number)));
    }

private:
    static p2pchat::config settings() {
        auto result = support::local();
        result.connect_timeout = result.handshake_timeout = result.delivery_timeout = 10s;
        return result;
    }

    void on_message(const message& m) {
        if (m.text[0] != 'm') return;
        const std::size_t number = std::stoul(m.text.substr(1));
        book_.note_shown(number);
        if (number % 32 == 0) post(m.reply_to(), 10);
    }

    ledger& book_;
    endpoint address_;
    node node_;
};

/// Fifty places, each with a citizen; one that dies is replaced.
class town {
public:
    explicit town(std::size_t max_messages) : book_(max_messages) {
        for (auto& place : places_) place = std::make_shared<citizen>(book_);
    }

    void live(unsigned long seed, std::chrono::steady_clock::time_point end) {
        std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
        while (std::chrono::steady_clock::now() < end) {
            act(random);
            std::this_thread::sleep_for(200us);  // leaves some of the machine to others
        }
    }

    void finish() {
        CHECK(wait_until([this] { return book_.is_settled(); }));
        for (auto& place : places_) place.reset();
        CHECK(book_.is_settled());
        book_.check();
    }

    std::size_t links() {
        std::size_t result = 0;
        for (auto& place : places_) result += support::linked_peers(place->get());
        return result;
    }

private:
    std::shared_ptr<citizen> anybody(std::mt19937& random) {
        const std::lock_guard<std::mutex> lock(mutex_);
        return places_[random() % places_.size()];
    }

    void act(std::mt19937& random) {
        const auto who = anybody(random);
        const endpoint whom = anybody(random)->address();
        const auto dice = random() % 1000;
        if (dice < 600) return talk(*who, random);
        if (dice < 700) return who->post(whom, random() % 100);
        if (dice < 750) return who->send(whom);
        if (dice < 900) return static_cast<void>(who->get().connect(whom));
        if (dice < 940) return static_cast<void>(who->get().leave(whom));
        if (dice < 945) return static_cast<void>(who->get().broadcast("to all"));
        if (dice < 990) return visit(whom, random);
        die(random);
    }

    /// Some messages, small and large, to peers with a link.
    static void talk(citizen& who, std::mt19937& random) {
        for (const auto& p : who.get().peers()) {
            if (!p.linked || random() % 4) continue;
            for (auto count = random() % 20; count > 0; --count)
                who.post(p.address, random() % 50 ? random() % 100 : random() % 20000);
        }
    }

    /// A stranger links, says something, and breaks off in the middle.
    static void visit(const endpoint& whom, std::mt19937& random) {
        p2pchat::tcp_socket socket;
        if (socket.connect(whom, support::patience)) return;
        const endpoint name = socket.local();
        raw_peer stranger(std::move(socket));
        stranger.send(support::wire(name, "CONNECT\n"));
        if (random() % 2) stranger.line();
        stranger.send(support::wire(name, "hello\n") + support::wire(name, "half a li"));
        if (random() % 2) stranger.reset();
    }

    void die(std::mt19937& random) {
        auto successor = std::make_shared<citizen>(book_);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            std::swap(places_[random() % places_.size()], successor);
        }
        // More messages than are sent at once: even the shortest run has some undelivered.
        const auto whom = anybody(random)->address();
        for (int i = 0; i < 20; ++i) successor->post(whom, 100);
        successor->get().stop();
    }

    ledger book_;
    std::mutex mutex_;  // guards places_
    std::array<std::shared_ptr<citizen>, 50> places_;
};

}  // namespace

TEST_CASE("every message is accounted for while nodes link, send, leave and die at random") {
    support::alone([] {
        const unsigned long seed = from_environment("P2PCHAT_RANDOM_SEED", 1);
        const unsigned long seconds = from_environment("P2PCHAT_RANDOM_SECONDS", 2);
        std::cout << "seed " << seed << ", " << seconds << " seconds\n";
        town all(seconds * 200000);
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
        std::vector<std::thread> threads;
        for (unsigned long i = 0; i < 6; ++i)
            threads.emplace_back([&all, seed, i, end] { all.live(seed * 1000 + i, end); });
        for (auto& thread : threads) thread.join();
        std::cout << all.links() << " links at the end; ";
        all.finish();
    });
}
