// One stream of posts over a link: messages a second that are received, parsed, handed to a
// handler and confirmed. The floor is a mutexed buffer that one writer swaps out and sends.
//
// SPDX-License-Identifier: MIT
#include <condition_variable>
#include <mutex>

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

constexpr std::uint64_t messages_a_run = 500000;

/// The receiving handler of all contenders: each text must be the next one.
class expectation {
public:
    void take(std::string_view text) {
        require(text == next_.get(), "not the message that was sent");
        next_.next();
        taken_.store(taken_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }
    std::uint64_t taken() const { return taken_.load(std::memory_order_acquire); }

private:
    numbered_text next_;
    std::atomic<std::uint64_t> taken_{0};
};

/// Any thread appends under the lock; one writer swaps the whole buffer out and sends it.
class buffered_sender {
public:
    explicit buffered_sender(std::uint16_t port)
        : link_(open_link("127.0.0.1", port)), thread_([this] { serve(); }) {}
    ~buffered_sender() {
        {
            const std::lock_guard lock(mutex_);
            ended_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }

    void post(std::string_view text) {
        std::unique_lock lock(mutex_);
        room_.wait(lock, [this] { return queued_.size() < 256 * 1024; });
        queued_.append(head).append(text).push_back('\n');
        ++posted_;
        if (queued_.size() == message_bytes + 1) changed_.notify_one();
    }
    std::uint64_t confirmed() const { return confirmed_; }

private:
    void serve() {
        std::string sending;
        while (next_batch(sending)) {
            send_all(link_.get(), sending);
            sending.clear();
            while (confirmed_ < batch_end_) receive_confirmation();
        }
    }
    bool next_batch(std::string& sending) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return ended_ || !queued_.empty(); });
        std::swap(sending, queued_);
        batch_end_ = posted_;
        room_.notify_all();
        return !sending.empty();
    }
    void receive_confirmation() {
        char buffer[4096];
        confirmed_ = acks_.take(receive_some(link_.get(), buffer, sizeof buffer));
    }

    std::mutex mutex_;  // guards the next five
    std::condition_variable changed_;
    std::condition_variable room_;
    std::string queued_;
    std::uint64_t posted_ = 0;
    bool ended_ = false;
    std::uint64_t batch_end_ = 0;
    ack_reader acks_;
    std::atomic<std::uint64_t> confirmed_{0};
    descriptor link_;
    std::thread thread_;
};

class raw_stream {
public:
    double run() {
        const stopwatch watch;
        for (std::uint64_t i = 0; i < messages_a_run; ++i) {
            sender_.post(text_.get());
            text_.next();
        }
        sent_ += messages_a_run;
        wait_until([this] { return sender_.confirmed() == sent_; }, "confirmations");
        require(expected_.taken() == sent_, "confirmed, but not taken");
        return static_cast<double>(messages_a_run) / watch.seconds();
    }

private:
    expectation expected_;
    numbered_text text_;
    std::uint64_t sent_ = 0;
    link_receiver receiver_{[this](const parsed& m) { expected_.take(m.text); }};
    buffered_sender sender_{receiver_.port()};
};

class our_stream {
public:
    our_stream() { make_link(*sender_, receiver_->address()); }

    double run() {
        const auto to = receiver_->address();
        const stopwatch watch;
        for (std::uint64_t i = 0; i < messages_a_run; ++i) post(to);
        sent_ += messages_a_run;
        wait_until([this] { return confirmed_ + undelivered_ == sent_; }, "completions");
        require(undelivered_ == 0, "some posts were not delivered");
        wait_until([this] { return expected_.taken() == sent_; }, "messages that were confirmed");
        return static_cast<double>(messages_a_run) / watch.seconds();
    }

private:
    // Used by the handlers' thread only.
    static void count(std::atomic<std::uint64_t>& what) {
        what.store(what.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }
    void post(const p2pchat::endpoint& to) {
        const auto done = [this](std::error_code error) {
            count(error ? undelivered_ : confirmed_);
        };
        require_ok(sender_->post(to, text_.get(), done, p2pchat::when_full::wait), "post");
        text_.next();
    }

    expectation expected_;
    numbered_text text_;
    std::uint64_t sent_ = 0;
    std::atomic<std::uint64_t> confirmed_{0};
    std::atomic<std::uint64_t> undelivered_{0};
    std::unique_ptr<p2pchat::node> receiver_ =
        start_node([this](const auto& m) { expected_.take(m.text); });
    std::unique_ptr<p2pchat::node> sender_ = start_node();
};

#ifdef BENCH_ASIO
class asio_stream {
public:
    double run() {
        const auto count = messages_a_run / 10;  // ten times slower than the others
        const stopwatch watch;
        for (std::uint64_t i = 0; i < count; ++i) {
            sender_.post(std::string(head).append(text_.get()).append("\n"));
            text_.next();
        }
        sent_ += count;
        wait_until([this] { return expected_.taken() == sent_; }, "messages");
        return static_cast<double>(count) / watch.seconds();
    }

private:
    expectation expected_;
    numbered_text text_;
    std::uint64_t sent_ = 0;
    asio_link_receiver receiver_{[this](const parsed& m) { expected_.take(m.text); }};
    asio_queue_sender sender_{receiver_.port()};
};
#endif

#ifdef BENCH_ZEROMQ
class zeromq_stream {
public:
    double run() {
        const auto count = messages_a_run / 2;
        const stopwatch watch;
        for (std::uint64_t i = 0; i < count; ++i) {
            line_.assign(head).append(text_.get());
            sender_.push(line_);
            text_.next();
        }
        sent_ += count;
        wait_until([this] { return expected_.taken() == sent_; }, "messages");
        return static_cast<double>(count) / watch.seconds();
    }

private:
    void take(std::string_view bytes) {
        parsed message;
        require(parse_digits(bytes, message), "not a message");
        expected_.take(message.text);
    }

    expectation expected_;
    numbered_text text_;
    std::string line_;
    std::uint64_t sent_ = 0;
    zeromq_puller receiver_{[this](std::string_view bytes) { take(bytes); }};
    zeromq_pusher sender_{receiver_.port()};
};
#endif

}  // namespace

int main(int argc, char** argv) {
    const int rounds = begin(argc, argv);
    row one("link, one stream of posts, 40 bytes each", "messages/s", better::more);
    one.add("raw sockets, swapped buffer (floor)", std::make_shared<raw_stream>());
#ifdef BENCH_ASIO
    one.add("Asio, chat example's queue, unconfirmed", std::make_shared<asio_stream>());
#endif
#ifdef BENCH_ZEROMQ
    one.add("ZeroMQ, PUSH and PULL, unconfirmed", std::make_shared<zeromq_stream>());
#endif
    one.add_ours("p2pchat", std::make_shared<our_stream>(), encrypted ? 0.4 : 0.33);
    one.measure(rounds);
}
