// Tests of p2pchat::peer_set: which peers were heard from, and which is evicted.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <list>
#include <random>

using p2pchat::endpoint;
using p2pchat::peer;
using p2pchat::peer_set;

namespace {

endpoint numbered(int number) {
    return {"10.1." + std::to_string(number / 256) + "." + std::to_string(number % 256), 5000};
}

std::vector<endpoint> addresses(const peer_set& peers) {
    std::vector<endpoint> result;
    for (const auto& p : peers.snapshot()) result.push_back(p.address);
    return result;
}

/// The same, the simple way: a list, the one heard from last at its end.
class slow_peer_set {
public:
    explicit slow_peer_set(std::size_t max) : max_(max) {}

    bool heard(const endpoint& address, const std::string& team) {
        const bool known = remove(address);
        if (!known && peers_.size() == max_) peers_.pop_front();
        peers_.push_back({address, team, {}, false, {}});
        return !known;
    }

    bool remove(const endpoint& address) {
        const auto size = peers_.size();
        peers_.remove_if([&](const peer& p) { return p.address == address; });
        return peers_.size() != size;
    }

    std::vector<std::pair<endpoint, std::string>> sorted() const {
        std::vector<std::pair<endpoint, std::string>> result;
        for (const auto& p : peers_) result.emplace_back(p.address, p.team);
        std::sort(result.begin(), result.end());
        return result;
    }

private:
    std::size_t max_;
    std::list<peer> peers_;
};

}  // namespace

TEST_CASE("a new set is empty") {
    const peer_set peers(4);
    CHECK(peers.size() == 0);
    CHECK(peers.snapshot().empty());
    CHECK_FALSE(peers.contains(numbered(1)));
}

TEST_CASE("a peer is new once, and there are no duplicates") {
    peer_set peers(4);
    CHECK(peers.heard(numbered(1), "BTC"));
    CHECK_FALSE(peers.heard(numbered(1), "BTC"));
    CHECK(peers.heard(numbered(2), "BTC"));
    CHECK_FALSE(peers.heard(numbered(1), "BTC"));
    CHECK(peers.size() == 2);
    CHECK(peers.contains(numbered(1)));
}

TEST_CASE("another port is another peer") {
    peer_set peers(4);
    CHECK(peers.heard({"10.18.1.7", 5000}, "BTC"));
    CHECK(peers.heard({"10.18.1.7", 5001}, "BTC"));
    CHECK(peers.size() == 2);
}

TEST_CASE("the team of a peer is the last one that was heard") {
    peer_set peers(4);
    peers.heard(numbered(1), "BTC");
    peers.heard(numbered(1), "ETH");
    REQUIRE(peers.size() == 1);
    CHECK(peers.snapshot()[0].team == "ETH");
    peers.heard(numbered(2), "XMR");
    peers.heard(numbered(1), "BTC");
    CHECK(peers.snapshot()[0].team == "BTC");
}

TEST_CASE("a set knows when a peer was last heard from") {
    using clock = std::chrono::system_clock;
    peer_set peers(4);
    const auto before = clock::now();
    peers.heard(numbered(1), "BTC");
    const auto first = peers.snapshot().at(0).last_heard;
    REQUIRE(support::wait_until([&] { return clock::now() > first; }));
    peers.heard(numbered(1), "BTC");
    const auto second = peers.snapshot().at(0).last_heard;
    CHECK(before <= first);
    CHECK(first < second);
    CHECK(second <= clock::now());
}

TEST_CASE("the peer not heard from for longest is evicted when the set is full") {
    peer_set peers(3);
    for (int i = 1; i <= 3; ++i) peers.heard(numbered(i), "BTC");
    peers.heard(numbered(1), "BTC");
    CHECK(peers.heard(numbered(4), "BTC"));
    CHECK(addresses(peers) == std::vector<endpoint>{numbered(1), numbered(3), numbered(4)});
    CHECK(peers.heard(numbered(2), "BTC"));
    CHECK(addresses(peers) == std::vector<endpoint>{numbered(1), numbered(2), numbered(4)});
}

TEST_CASE("a set of one, and a set of none, hold no more") {
    peer_set one(1), none(0);
    for (int i = 0; i < 10; ++i) {
        CHECK(one.heard(numbered(i), "BTC"));
        none.heard(numbered(i), "BTC");
    }
    CHECK(addresses(one) == std::vector<endpoint>{numbered(9)});
    CHECK(none.size() == 0);
    CHECK_FALSE(none.contains(numbered(9)));
}

TEST_CASE("removing a peer returns what was known of it") {
    peer_set peers(4);
    peers.heard(numbered(1), "BTC");
    peers.heard(numbered(2), "ETH");
    peer removed;
    CHECK(peers.remove(numbered(1), removed));
    CHECK(removed.address == numbered(1));
    CHECK(removed.team == "BTC");
    CHECK_FALSE(peers.contains(numbered(1)));
    CHECK(peers.size() == 1);
    CHECK_FALSE(peers.remove(numbered(1), removed));
    CHECK(peers.heard(numbered(1), "BTC"));
}

TEST_CASE("clearing removes all peers") {
    peer_set peers(4);
    for (int i = 1; i <= 4; ++i) peers.heard(numbered(i), "BTC");
    peers.clear();
    CHECK(peers.size() == 0);
    CHECK_FALSE(peers.contains(numbered(1)));
    CHECK(peers.heard(numbered(1), "BTC"));
}

TEST_CASE("a snapshot is ordered by address and stays as it is") {
    peer_set peers(10);
    for (int i : {5, 3, 9, 1}) peers.heard(numbered(i), "BTC");
    const auto snapshot = peers.snapshot();
    peers.clear();
    REQUIRE(snapshot.size() == 4);
    CHECK(snapshot[0].address == numbered(1));
    CHECK(snapshot[1].address == numbered(3));
    CHECK(snapshot[2].address == numbered(5));
    CHECK(snapshot[3].address == numbered(9));
    CHECK_FALSE(snapshot[0].linked);
}

TEST_CASE("the set agrees with a simple list over many random changes") {
    constexpr std::size_t max = 20;
    peer_set peers(max);
    slow_peer_set expected(max);
    std::mt19937 random(6);
    for (int i = 0; i < 20000; ++i) {
        const endpoint address = numbered(static_cast<int>(random() % 30));
        const std::string team = std::to_string(random() % 3);
        peer removed;
        if (random() % 4 == 0)
            CHECK(peers.remove(address, removed) == expected.remove(address));
        else
            CHECK(peers.heard(address, team) == expected.heard(address, team));
        CHECK(peers.size() == expected.sorted().size());
    }
    const auto snapshot = peers.snapshot();
    const auto sorted = expected.sorted();
    REQUIRE(snapshot.size() == sorted.size());
    for (std::size_t i = 0; i < sorted.size(); ++i) {
        CHECK(snapshot[i].address == sorted[i].first);
        CHECK(snapshot[i].team == sorted[i].second);
    }
}

TEST_CASE("many threads at once leave the set consistent") {
    constexpr std::size_t max = 50;
    peer_set peers(max);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < 4; ++seed) {
        threads.emplace_back([&, seed] {
            std::mt19937 random(seed);
            for (int i = 0; i < 5000; ++i) {
                const endpoint address = numbered(static_cast<int>(random() % 100));
                peer removed;
                if (random() % 8 == 0) peers.remove(address, removed);
                peers.heard(address, "BTC");
                peers.contains(address);
                if (i % 500 == 0 && peers.snapshot().size() > max) ++wrong;
                if (peers.size() > max) ++wrong;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
    const auto all = addresses(peers);
    CHECK(all.size() <= max);
    CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
}
