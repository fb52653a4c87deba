// Round trips on a link: one message there, its confirmation back, the median. First with
// everything on one CPU, then with the two sides on two.
//
// SPDX-License-Identifier: MIT
#include <charconv>

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

constexpr int trips_a_run = 2000;

/// What both ends of a round trip agree on: which message is next.
class expectation {
public:
    void take(std::string_view text) {
        require(text == next_.get(), "not the message that was sent");
        next_.next();
    }

private:
    numbered_text next_;
};

/// A receiver that sleeps in recv() and confirms each message.
class blocking_receiver {
public:
    blocking_receiver() : listener_(listen_anywhere()), thread_([this] { serve(); }) {}
    ~blocking_receiver() { thread_.join(); }
    std::uint16_t port() const { return port_of(listener_.get()); }

private:
    void serve() {
        const descriptor peer(accept(listener_.get(), nullptr, nullptr));
        begin_encrypted(peer.get(), true);
        char buffer[4096];
        std::uint32_t taken = 0;
        for (;;) {
            auto line = receive_some(peer.get(), buffer, sizeof buffer);
            if (line.empty()) return;
            line.remove_suffix(1);
            parsed message;
            require(parse_digits(line, message), "a line that is no message");
            if (message.text == "CONNECT") {
                send_all(peer.get(), "127.0.0.1:1 Team_RAW CONNECT\n");
                continue;
            }
            expected_.take(message.text);
            char answer[32] = "ACK ";
            auto* end = std::to_chars(answer + 4, answer + 31, ++taken).ptr;
            *end++ = '\n';
            send_all(peer.get(), {answer, static_cast<std::size_t>(end - answer)});
        }
    }

    expectation expected_;
    descriptor listener_;
    std::thread thread_;
};

/// The sending side with raw sockets; `before_receive` is how it waits for the confirmation.
class raw_sender {
public:
    explicit raw_sender(std::uint16_t port) : link_(open_link("127.0.0.1", port)) {}

    template <typename F>
    void trip(F&& before_receive) {
        line_.assign(head).append(text_.get()).push_back('\n');
        text_.next();
        send_all(link_.get(), line_);
        before_receive();
        char answer[64];
        const auto confirmed = acks_.take(receive_some(link_.get(), answer, sizeof answer));
        require(confirmed == ++sent_, "confirmed something else than what was sent");
    }
    int fd() const { return link_.get(); }

private:
    descriptor link_;
    numbered_text text_;
    std::string line_;
    ack_reader acks_;
    std::uint64_t sent_ = 0;
};

class raw_blocking {
public:
    double run() {
        return median_microseconds(trips_a_run, [this] { sender_.trip([] {}); });
    }

private:
    blocking_receiver receiver_;
    raw_sender sender_{receiver_.port()};
};

/// The receiver on CPU `receiver_cpu`, this side on CPU 0.
class raw_epoll {
public:
    explicit raw_epoll(int receiver_cpu, std::chrono::microseconds spin = {}) : events_(spin) {
        const on_cpu there(receiver_cpu);
        receiver_ = std::make_unique<link_receiver>(
            [this](const parsed& m) { expected_.take(m.text); }, spin);
        sender_ = std::make_unique<raw_sender>(receiver_->port());
        events_.watch(sender_->fd());
    }
    double run() {
        return median_microseconds(trips_a_run, [this] { sender_->trip([this] { wait(); }); });
    }

private:
    void wait() {
        int ready[64];
        events_.wait(ready);
    }

    expectation expected_;
    event_waiter events_;
    std::unique_ptr<link_receiver> receiver_;
    std::unique_ptr<raw_sender> sender_;
};

class ours {
public:
    explicit ours(int receiver_cpu) : sender_(start_node()) {
        const on_cpu there(receiver_cpu);
        receiver_ = start_node([this](const auto& m) {
            expected_.take(m.text);
            ++taken_;
        });
        make_link(*sender_, receiver_->address());
    }
    double run() {
        const auto to = receiver_->address();
        const auto result = median_microseconds(trips_a_run, [&] {
            require_ok(sender_->send(to, text_.get()), "send");
            text_.next();
        });
        sent_ += trips_a_run;
        wait_until([this] { return taken_ == sent_; }, "messages that were confirmed");
        return result;
    }

private:
    expectation expected_;
    numbered_text text_;
    std::uint64_t sent_ = 0;
    std::atomic<std::uint64_t> taken_{0};
    std::unique_ptr<p2pchat::node> receiver_;
    std::unique_ptr<p2pchat::node> sender_;
};

#ifdef BENCH_ASIO
template <typename Sender>
class asio_round_trip {
public:
    explicit asio_round_trip(int receiver_cpu) {
        const on_cpu there(receiver_cpu);
        receiver_ = std::make_unique<asio_link_receiver>(
            [this](const parsed& m) { expected_.take(m.text); });
        sender_ = std::make_unique<Sender>(receiver_->port());
    }
    double run() {
        return median_microseconds(trips_a_run, [this] {
            line_.assign(head).append(text_.get()).push_back('\n');
            text_.next();
            sender_->trip(line_);
        });
    }

private:
    expectation expected_;
    numbered_text text_;
    std::string line_;
    std::unique_ptr<asio_link_receiver> receiver_;
    std::unique_ptr<Sender> sender_;
};
#endif

#ifdef BENCH_ZEROMQ
class zeromq_round_trip {
public:
    explicit zeromq_round_trip(int receiver_cpu) {
        const on_cpu there(receiver_cpu);
        receiver_ = std::make_unique<zeromq_replier>([this](std::string_view line) {
            require(line.substr(0, head.size()) == head, "not the message that was sent");
            expected_.take(line.substr(head.size()));
        });
        pin(0);
        sender_ = std::make_unique<zeromq_requester>(receiver_->port());
    }
    double run() {
        return median_microseconds(trips_a_run, [this] {
            line_.assign(head).append(text_.get());
            text_.next();
            sender_->trip(line_);
        });
    }

private:
    expectation expected_;
    numbered_text text_;
    std::string line_;
    std::unique_ptr<zeromq_replier> receiver_;
    std::unique_ptr<zeromq_requester> sender_;
};
#endif

void add_others(row& one, int receiver_cpu) {
#ifdef BENCH_ASIO
    one.add("Asio, blocking sender",
            std::make_shared<asio_round_trip<asio_blocking_sender>>(receiver_cpu));
    one.add("Asio", std::make_shared<asio_round_trip<asio_async_sender>>(receiver_cpu));
#endif
#ifdef BENCH_ZEROMQ
    one.add("ZeroMQ, REQ and REP", std::make_shared<zeromq_round_trip>(receiver_cpu));
#endif
    (void)one;
    (void)receiver_cpu;
}

void on_one_cpu(int rounds) {
    row one("link, round trip p50, one CPU", "us", better::less);
    one.add("raw sockets, epoll (floor)", std::make_shared<raw_epoll>(0));
    one.add("raw sockets, blocking", std::make_shared<raw_blocking>());
    add_others(one, 0);
    one.add_ours("p2pchat", std::make_shared<ours>(0), encrypted ? 1.3 : 1.6);
    one.measure(rounds);
}

void across_two_cpus(int rounds) {
    using std::chrono::microseconds;
    row one("link, round trip p50, across two CPUs", "us", better::less);
    one.add("raw sockets, epoll, spins for 50 us (floor)",
            std::make_shared<raw_epoll>(1, microseconds(50)));
    one.add("raw sockets, epoll", std::make_shared<raw_epoll>(1));
    add_others(one, 1);
    one.add_ours("p2pchat", std::make_shared<ours>(1), encrypted ? 1.3 : 1.6);
    one.measure(rounds);
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = begin(argc, argv);
    on_one_cpu(rounds);
    if (has_second_cpu()) across_two_cpus(rounds);
}
