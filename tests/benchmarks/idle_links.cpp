// What idle links cost: a round trip beside 10,000 of them over one beside none, and the memory
// that each takes.
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

constexpr int trips_a_run = 1000;
constexpr std::uint32_t idle_links = encrypted ? 1000 : 10000;

/// Takes each text that the links and the sender may send: zeros and a number.
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
    void connect() { make_link(*sender_, receiver_->address()); }
    void trip() { require_ok(sender_->send(receiver_->address(), text_.get()), "send"); }

private:
    static p2pchat::config roomy() {
        auto result = settings();
        result.max_links = result.max_peers = 2 * idle_links;
        return result;
    }

    std::unique_ptr<p2pchat::node> receiver_ =
        start_node([](const auto& m) { take(m.text); }, roomy());
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

/// Two of a kind, one alone with its link, one among idle ones. Returns what an idle link takes.
template <typename Side>
double measure(const char* name, double wanted_bytes, double wanted_ratio, link_farm& farm,
               int rounds) {
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
    const auto run = [](Side& side) {
        return median_microseconds(trips_a_run, [&side] { side.trip(); });
    };
    row one(std::string(name) + ": round trip p50 with " + std::to_string(idle_links) +
                " idle links over that with 1",
            "us", better::less);
    one.add("1 link", [=] { return run(*lonely); });
    one.add_ours(
        "with them", [=] { return run(*crowded); }, wanted_ratio);
    one.measure(rounds);
    farm.send_on_each();
    farm.close_all();
    return (after_traffic - before) / idle_links;
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = begin(argc, argv);
    link_farm farm;
    const double least = measure<raw_side>("raw sockets, epoll", 0, 0, farm, rounds);
#ifdef BENCH_ASIO
    measure<asio_side>("Asio", 0, 0, farm, rounds);
#endif
    measure<our_side>("p2pchat", encrypted ? 1.2 * least : 1024, 1.1, farm, rounds);
}
