// How costs grow: the memory of an idle link, and a round trip beside many of them; then what a
// message costs with more open links, known peers, posting threads and bytes. The latter are
// points, one a line, for growth.py to print as tables and to draw.
//
// SPDX-License-Identifier: MIT
#include <cstdio>

#include <malloc.h>

#ifdef BENCH_ASIO
#include "asio_contenders.hpp"
#endif
#include "farm.hpp"
#include "measure.hpp"
#include "ours.hpp"
#include "raw.hpp"

namespace {

using namespace bench;

constexpr int trips = 1000;
constexpr std::uint32_t idle_links = encrypted ? 1000 : 10000;

/// Checks a text of numbered_text.
void take(std::string_view text) { number_of(text); }

class raw_side {
public:
    std::uint16_t port() const { return receiver_.port(); }
    void connect() { link_ = open_link(loopback(1), port()); }
    void trip() {
        line_.assign(head).append(text_.get()).push_back('\n');
        send_all(link_.get(), line_);
        char answer[64];
        const auto confirmed = acks_.take(receive_some(link_.get(), answer, sizeof answer));
        require(confirmed == ++sent_, "confirmed something else than what was sent");
    }

private:
    link_receiver receiver_{[](const parsed& m) { take(m.text); }};
    descriptor link_;
    numbered_text text_;
    std::string line_;
    ack_reader acks_;
    std::uint64_t sent_ = 0;
};

class our_side {
public:
    std::uint16_t port() const { return receiver_->address().port(); }
    std::size_t peers() const { return receiver_->peers().size(); }
    void connect() { make_link(*sender_, receiver_->address()); }
    void trip() { require_ok(sender_->send(receiver_->address(), text_.get()), "send"); }

private:
    static p2pchat::config roomy() {
        auto result = settings();
        result.max_links = 20000;
        result.max_peers = 200000;
        return result;
    }

    std::unique_ptr<p2pchat::node> receiver_ = start_node(
        [](const auto& m) {
            if (m.text != "hello") take(m.text);  // as link_farm introduces a peer
        },
        roomy());
    std::unique_ptr<p2pchat::node> sender_ = start_node();
    numbered_text text_;
};

#ifdef BENCH_ASIO
class asio_side {
public:
    std::uint16_t port() const { return receiver_.port(); }
    void connect() { sender_ = std::make_unique<asio_async_sender>(port()); }
    void trip() { sender_->trip(std::string(head).append(text_.get()).append("\n")); }

private:
    asio_link_receiver receiver_{[](const parsed& m) { take(m.text); }};
    std::unique_ptr<asio_async_sender> sender_;
    numbered_text text_;
};
#endif

/// The median of some round trips, in microseconds.
template <typename Side>
double trip_time(Side& side) {
    return median_microseconds(trips, [&side] { side.trip(); });
}

// ------------------------------------------------------------------------------------ idle links

double resident_bytes() {
    long pages = 0;
    auto* file = std::fopen("/proc/self/statm", "r");
    require(file && std::fscanf(file, "%*d %ld", &pages) == 1, "cannot read /proc/self/statm");
    std::fclose(file);
    return static_cast<double>(pages * sysconf(_SC_PAGESIZE));
}

void print_memory(const char* name, double bytes, double wanted) {
    std::printf("  %-40s %9.0f", name, bytes / idle_links);
    if (wanted > 0)
        std::printf("  wanted: at most %.0f: %s", wanted,
                    bytes / idle_links <= wanted ? "reached" : "MISSED");
    std::printf("\n");
}

/// Compares a pair with one link and a pair beside idle ones. Returns the bytes of an idle link.
template <typename Side>
double beside_idle_links(const char* name, double wanted_bytes, double wanted_ratio,
                         link_farm& farm, int rounds) {
    const auto lonely = std::make_shared<Side>();
    lonely->connect();
    const auto crowded = std::make_shared<Side>();
    malloc_trim(0);
    const auto before = resident_bytes();
    farm.open(crowded->port(), idle_links);
    const auto after_opening = resident_bytes();
    farm.send_on_each();
    const auto after_traffic = resident_bytes();
    std::printf("\n%s: memory for an idle link of %u (bytes, resident)\n", name, idle_links);
    print_memory("after it was opened", after_opening - before, wanted_bytes);
    print_memory("after it has carried a message", after_traffic - before, wanted_bytes);

    crowded->connect();
    row one(std::string(name) + ": round trip p50 with " + std::to_string(idle_links) +
                " idle links over that with 1",
            "us", better::less);
    one.add("1 link", [=] { return trip_time(*lonely); });
    one.add_ours(
        "with them", [=] { return trip_time(*crowded); }, wanted_ratio);
    one.measure(rounds);
    farm.send_on_each();
    farm.close_all();
    return (after_traffic - before) / idle_links;
}

void idle_link_rows(link_farm& farm, int rounds) {
    const double least = beside_idle_links<raw_side>("raw sockets, epoll", 0, 0, farm, rounds);
#ifdef BENCH_ASIO
    beside_idle_links<asio_side>("Asio", 0, 0, farm, rounds);
#endif
    beside_idle_links<our_side>("p2pchat", encrypted ? 1.2 * least : 1024, 1.1, farm, rounds);
}

// ---------------------------------------------------------------------------------------- curves

/// One point, "what TAB how many TAB cost TAB raw cost": for growth.py.
void print_point(const char* what, std::uint64_t how_many, double cost, double raw) {
    std::printf("%s\t%llu\t%.4g\t%.4g\n", what, static_cast<unsigned long long>(how_many), cost,
                raw);
    std::fflush(stdout);
}

template <typename Side>
double trip_time(Side& side, int rounds) {
    std::vector<double> medians;
    for (int i = 0; i < rounds; ++i) medians.push_back(trip_time(side));
    return median(std::move(medians));
}

template <typename Side>
std::vector<double> trips_beside_links(link_farm& farm, const std::vector<std::uint32_t>& counts,
                                       int rounds) {
    Side pair;
    pair.connect();
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
    const auto raw = trips_beside_links<raw_side>(farm, counts, rounds);
    const auto ours = trips_beside_links<our_side>(farm, counts, rounds);
    for (std::size_t i = 0; i < counts.size(); ++i)
        print_point("links", counts[i], ours[i], raw[i]);
}

void against_peers(link_farm& farm, int rounds) {
    our_side pair;
    pair.connect();
    std::uint32_t introduced = 1;
    for (const std::uint32_t count : {1u, 10u, 100u, 1000u, 10000u, 100000u}) {
        farm.introduce_peers(pair.port(), count - introduced);
        introduced = count;
        wait_until([&] { return pair.peers() >= count; }, "peers to be known");
        print_point("peers", count, trip_time(pair, rounds), 0);
    }
}

/// Posts from several threads over one link until the last is confirmed; microseconds a message.
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
        print_point("senders", static_cast<std::uint64_t>(threads), median(std::move(times)), 0);
    }
}

void against_size(int rounds) {
    posters work;
    for (const std::size_t bytes : {40u, 256u, 1024u, 4096u, 16384u, 65536u}) {
        std::vector<double> times;
        const auto count = std::max<std::uint64_t>(1000, 2000000 / bytes);
        for (int i = 0; i < rounds; ++i) times.push_back(work.run(1, bytes, count));
        print_point("bytes", bytes, median(std::move(times)), 0);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = begin(argc, argv, 200);
    link_farm farm;
    idle_link_rows(farm, rounds);
    if (encrypted) return 0;
    const int fewer = (rounds + 1) / 2;
    against_links(farm, fewer);
    against_peers(farm, fewer);
    against_senders(fewer);
    against_size(fewer);
}
