// How the cost of a message grows with links, senders, message size and peers known: one line
// each, "what TAB how many TAB cost TAB raw cost", for growth.py to print and draw.
//
// SPDX-License-Identifier: MIT
#include <cstdio>

#include "farm.hpp"
#include "measure.hpp"
#include "ours.hpp"
#include "raw.hpp"

namespace {

using namespace bench;

constexpr int trips = 1000;

void print(const char* what, std::uint64_t how_many, double cost, double raw) {
    std::printf("%s\t%llu\t%.4g\t%.4g\n", what, static_cast<unsigned long long>(how_many), cost,
                raw);
    std::fflush(stdout);
}

p2pchat::config roomy() {
    auto result = settings();
    result.max_links = 20000;
    result.max_peers = 200000;
    return result;
}

/// Round trips of ours between two nodes.
class our_pair {
public:
    our_pair() { make_link(*sender_, receiver_->address()); }
    std::uint16_t port() const { return receiver_->address().port(); }
    std::size_t peers() const { return receiver_->peers().size(); }
    void trip() { require_ok(sender_->send(receiver_->address(), text_.get()), "send"); }

private:
    std::unique_ptr<p2pchat::node> receiver_ = start_node([](const auto&) {}, roomy());
    std::unique_ptr<p2pchat::node> sender_ = start_node();
    numbered_text text_;
};

/// The same with raw sockets.
class raw_pair {
public:
    std::uint16_t port() const { return receiver_.port(); }
    void trip() {
        line_.assign(head).append(text_.get()).push_back('\n');
        send_all(link_.get(), line_);
        char answer[64];
        const auto confirmed = acks_.take(receive_some(link_.get(), answer, sizeof answer));
        require(confirmed == ++sent_, "confirmed something else than what was sent");
    }

private:
    link_receiver receiver_{[](const parsed& m) { number_of(m.text); }};
    descriptor link_ = open_link(loopback(1), receiver_.port());
    numbered_text text_;
    std::string line_;
    ack_reader acks_;
    std::uint64_t sent_ = 0;
};

template <typename Pair>
double trip_time(Pair& pair, int rounds) {
    std::vector<double> medians;
    for (int i = 0; i < rounds; ++i)
        medians.push_back(median_microseconds(trips, [&pair] { pair.trip(); }));
    return median(std::move(medians));
}

template <typename Pair>
std::vector<double> trips_beside_links(link_farm& farm, const std::vector<std::uint32_t>& counts,
                                       int rounds) {
    Pair pair;
    std::vector<double> result;
    std::uint32_t links = 1;
    for (const auto count : counts) {
        farm.open(pair.port(), count - links);
        links = count;
        result.push_back(trip_time(pair, rounds));
    }
    farm.close_all();
    return result;
}

void against_links(link_farm& farm, int rounds) {
    const std::vector<std::uint32_t> counts = {1, 10, 100, 1000, 10000};
    const auto raw = trips_beside_links<raw_pair>(farm, counts, rounds);
    const auto ours = trips_beside_links<our_pair>(farm, counts, rounds);
    for (std::size_t i = 0; i < counts.size(); ++i) print("links", counts[i], ours[i], raw[i]);
}

void against_peers(link_farm& farm, int rounds) {
    our_pair pair;
    std::uint32_t introduced = 1;
    for (const std::uint32_t count : {1u, 10u, 100u, 1000u, 10000u, 100000u}) {
        farm.introduce_peers(pair.port(), count - introduced);
        introduced = count;
        wait_until([&] { return pair.peers() >= count; }, "peers to be known");
        print("peers", count, trip_time(pair, rounds), 0);
    }
}

/// Posts from several threads over one link, until the last is confirmed: microseconds each.
class posters {
public:
    posters() { make_link(*sender_, receiver_->address()); }

    double run(int threads, std::size_t bytes, std::uint64_t count) {
        taken_bytes_ = confirmed_ = 0;
        const auto share = count / static_cast<std::uint64_t>(threads);
        const auto total = share * static_cast<std::uint64_t>(threads);
        const stopwatch watch;
        std::vector<std::thread> others;
        for (int i = 1; i < threads; ++i) others.emplace_back([=] { post_some(bytes, share); });
        post_some(bytes, share);
        for (auto& other : others) other.join();
        wait_until([&] { return confirmed_ == total; }, "completions");
        const auto text_bytes = bytes - head.size();
        wait_until([&] { return taken_bytes_ == total * text_bytes; }, "messages");
        return watch.microseconds() / static_cast<double>(total);
    }

private:
    void post_some(std::size_t bytes, std::uint64_t count) {
        numbered_text text(bytes);
        const auto done = [this](std::error_code error) {
            require_ok(error, "post");
            ++confirmed_;
        };
        for (std::uint64_t i = 0; i < count; ++i)
            require_ok(sender_->post(to_, text.get(), done, p2pchat::when_full::wait), "post");
    }

    std::atomic<std::uint64_t> taken_bytes_{0};
    std::atomic<std::uint64_t> confirmed_{0};
    std::unique_ptr<p2pchat::node> receiver_ =
        start_node([this](const auto& m) { taken_bytes_ += m.text.size(); });
    std::unique_ptr<p2pchat::node> sender_ = start_node();
    p2pchat::endpoint to_ = receiver_->address();
};

void against_senders(int rounds) {
    posters work;
    for (const int threads : {1, 2, 4, 8, 16, 32, 64}) {
        std::vector<double> times;
        for (int i = 0; i < rounds; ++i) times.push_back(work.run(threads, message_bytes, 64000));
        print("senders", static_cast<std::uint64_t>(threads), median(std::move(times)), 0);
    }
}

void against_size(int rounds) {
    posters work;
    for (const std::size_t bytes : {40u, 256u, 1024u, 4096u, 16384u, 65536u}) {
        std::vector<double> times;
        const auto count = std::max<std::uint64_t>(1000, 2000000 / bytes);
        for (int i = 0; i < rounds; ++i) times.push_back(work.run(1, bytes, count));
        print("bytes", bytes, median(std::move(times)), 0);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = begin(argc, argv);
    link_farm farm;
    against_links(farm, rounds);
    against_peers(farm, rounds);
    against_senders(rounds);
    against_size(rounds);
}
