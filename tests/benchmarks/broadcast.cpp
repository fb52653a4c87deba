// Broadcasts to 1,000 linked peers, until the last has confirmed. The peers are one raw epoll loop
// that speaks the link protocol, the same for raw sockets, Asio and p2pchat.
//
// SPDX-License-Identifier: MIT
#include <cerrno>

#include <sys/socket.h>

#ifdef BENCH_ASIO
#include "asio_contenders.hpp"
#endif
#ifdef BENCH_ZEROMQ
#include "zeromq_contenders.hpp"
#endif
#include "measure.hpp"
#include "ours.hpp"
#include "raw.hpp"

namespace {

using namespace bench;

constexpr std::size_t peers = 1000;
constexpr int broadcasts_a_run = 5;

/// Broadcast b, the b-th from 0, must come to `peers` receivers before b + 1 comes to any.
class expectation {
public:
    void take(std::string_view text) {
        require(number_of(text) == taken_ / peers, "not the broadcast that was sent");
        ++taken_;
    }

private:
    std::uint64_t taken_ = 0;
};

class receivers {
public:
    std::uint16_t port() const { return receiver_.port(); }
    void require_taken(std::uint64_t broadcasts) const {
        require(receiver_.taken() == broadcasts * peers, "confirmed, but not taken by all");
    }

private:
    expectation expected_;
    link_receiver receiver_{[this](const parsed& m) { expected_.take(m.text); }};
};

/// Milliseconds for one of several broadcasts in a row, `send` making one and waiting for its end.
template <typename F>
double milliseconds_each(numbered_text& text, F&& send) {
    const stopwatch watch;
    for (int i = 0; i < broadcasts_a_run; ++i) {
        send(text.get());
        text.next();
    }
    return watch.seconds() * 1e3 / broadcasts_a_run;
}

class raw_broadcast {
public:
    raw_broadcast() {
        for (std::size_t i = 0; i < peers; ++i) {
            links_.push_back(open_link("127.0.0.1", receivers_.port()));
            set_nonblocking(links_.back().get());
            events_.watch(links_.back().get());
        }
        acks_.resize(static_cast<std::size_t>(links_.back().get()) + 1);
    }
    double run() {
        const auto result =
            milliseconds_each(text_, [this](std::string_view text) { broadcast(text); });
        receivers_.require_taken(sent_);
        return result;
    }

private:
    void broadcast(std::string_view text) {
        line_.assign(head).append(text).push_back('\n');
        ++sent_;
        for (const auto& link : links_) send_all(link.get(), line_);
        std::size_t missing = peers;
        while (missing > 0) {
            int ready[64];
            const int count = events_.wait(ready);
            for (int i = 0; i < count; ++i) missing -= confirmed(ready[i]);
        }
    }
    std::size_t confirmed(int fd) {
        char buffer[64];
        auto& acks = acks_[static_cast<std::size_t>(fd)];
        return acks.take(receive_some(fd, buffer, sizeof buffer)) == sent_;
    }

    receivers receivers_;
    event_waiter events_;
    std::vector<descriptor> links_;
    std::vector<ack_reader> acks_;  // by descriptor
    std::string line_;
    numbered_text text_;
    std::uint64_t sent_ = 0;
};

class our_broadcast {
public:
    our_broadcast() {
        for (std::size_t i = 0; i < peers; ++i) {
            const auto address =
                "127.1." + std::to_string(i / 250) + '.' + std::to_string(i % 250 + 1);
            make_link(*node_, {address, receivers_.port()});
        }
    }
    double run() {
        const auto result =
            milliseconds_each(text_, [this](std::string_view text) { broadcast(text); });
        receivers_.require_taken(sent_);
        return result;
    }

private:
    void broadcast(std::string_view text) {
        const auto outcomes = node_->broadcast(text);
        require(outcomes.size() == peers, "not to all peers");
        for (const auto& one : outcomes) require_ok(one.error, "broadcast");
        ++sent_;
    }

    receivers receivers_;
    std::unique_ptr<p2pchat::node> node_ = start_node();
    numbered_text text_;
    std::uint64_t sent_ = 0;
};

#ifdef BENCH_ASIO
class asio_broadcast {
public:
    double run() {
        const auto result = milliseconds_each(text_, [this](std::string_view text) {
            broadcaster_.broadcast(std::string(head).append(text).append("\n"));
        });
        receivers_.require_taken(sent_ += broadcasts_a_run);
        return result;
    }

private:
    receivers receivers_;
    asio_broadcaster broadcaster_{peers, receivers_.port()};
    numbered_text text_;
    std::uint64_t sent_ = 0;
};
#endif

#ifdef BENCH_ZEROMQ
class zeromq_broadcast {
public:
    double run() {
        return milliseconds_each(text_, [this](std::string_view text) {
            line_.assign(head).append(text);
            broadcaster_.broadcast(line_);
        });
    }

private:
    std::string line_;
    numbered_text text_;
    zeromq_broadcaster broadcaster_{peers, [this](std::size_t, std::string_view message) {
                                        require(message == line_, "not what was published");
                                    }};
};
#endif

}  // namespace

int main(int argc, char** argv) {
    const int rounds = begin(argc, argv);
    row one("broadcast to 1,000 linked peers, until the last has confirmed", "ms", better::less);
    one.add("raw sockets, epoll (floor)", std::make_shared<raw_broadcast>());
#ifdef BENCH_ASIO
    one.add("Asio", std::make_shared<asio_broadcast>());
#endif
#ifdef BENCH_ZEROMQ
    one.add("ZeroMQ, PUB and SUB, unconfirmed", std::make_shared<zeromq_broadcast>());
#endif
    one.add_ours("p2pchat", std::make_shared<our_broadcast>(), 1.15);
    one.measure(rounds);
}
