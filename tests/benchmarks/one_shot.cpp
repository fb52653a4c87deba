// One-shots a second: a connection for each message, confirmed by the receiver's close. One sender,
// then eight at once, for raw sockets, Asio and p2pchat.
//
// SPDX-License-Identifier: MIT
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#ifdef BENCH_ASIO
#include "asio_contenders.hpp"
#endif
#include "measure.hpp"
#include "ours.hpp"
#include "raw.hpp"

namespace {

using namespace bench;

constexpr int messages_a_run = encrypted ? 320 : 3200;
constexpr std::uint64_t stride = 1000000000;  // sender s numbers its texts from s * stride

/// Checks that each sender's messages come whole, in order, none missing and none twice.
class tally {
public:
    void take(std::string_view text) {
        const auto number = number_of(text);
        auto& next = next_.at(number / stride);
        require(number % stride == next, "a message is missing, doubled or out of order");
        ++next;
        taken_.fetch_add(1, std::memory_order_release);
    }
    void take_message(std::string_view bytes) {
        parsed message;
        require(parse_digits(bytes, message), "not a message");
        take(message.text);
    }
    std::uint64_t taken() const { return taken_.load(std::memory_order_acquire); }

private:
    std::array<std::uint64_t, 8> next_{};
    std::atomic<std::uint64_t> taken_{0};
};

/// Assembles the message of each connection until its stream ends.
class collector {
public:
    explicit collector(tally& to) : tally_(to) {}

    /// Reads what is there; true when the stream has ended and its message was taken.
    bool read(int fd) {
        for (;;) {
            const auto received = receive(fd, buffer_, sizeof buffer_);
            if (received < 0 && errno == EAGAIN) return false;
            require(received >= 0, "cannot receive");
            if (received == 0) return true;
            tally_.take_message({buffer_, static_cast<std::size_t>(received)});
        }
    }

private:
    tally& tally_;
    char buffer_[4096];
};

/// Accepts, reads to the end, closes: one connection after the other.
class blocking_receiver {
public:
    blocking_receiver() : listener_(listen_anywhere()), thread_([this] { serve(); }) {}
    ~blocking_receiver() {
        shutdown(listener_.get(), SHUT_RDWR);
        thread_.join();
    }
    std::uint16_t port() const { return port_of(listener_.get()); }
    tally& messages() { return tally_; }

private:
    void serve() {
        collector reader(tally_);
        for (;;) {
            const descriptor peer(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (peer.get() < 0) return;
            begin_encrypted(peer.get(), true);
            reader.read(peer.get());
        }
    }

    tally tally_;
    descriptor listener_;
    std::thread thread_;
};

/// The same by epoll; reads at once after accept, since the message is mostly there already.
class epoll_receiver {
public:
    epoll_receiver() : listener_(listen_anywhere()), wake_(eventfd(0, EFD_CLOEXEC)) {
        set_nonblocking(listener_.get());
        events_.watch(listener_.get());
        events_.watch(wake_.get());
        thread_ = std::thread([this] { serve(); });
    }
    ~epoll_receiver() {
        const std::uint64_t one = 1;
        require(write(wake_.get(), &one, sizeof one) == sizeof one, "cannot wake the receiver");
        thread_.join();
    }
    std::uint16_t port() const { return port_of(listener_.get()); }
    tally& messages() { return tally_; }

private:
    void serve() {
        int ready[64];
        for (;;) {
            const int count = events_.wait(ready);
            for (int i = 0; i < count; ++i) {
                if (ready[i] == wake_.get()) return;
                if (ready[i] == listener_.get())
                    accept_all();
                else if (reader_.read(ready[i]))
                    close_connection(ready[i]);
            }
        }
    }
    void accept_all() {
        for (;;) {
            descriptor peer(
                accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (peer.get() < 0) return;
            begin_encrypted(peer.get(), true);
            if (!reader_.read(peer.get())) events_.watch(peer.release());
        }
    }

    tally tally_;
    collector reader_{tally_};
    event_waiter events_;
    descriptor listener_;
    descriptor wake_;
    std::thread thread_;
};

class our_receiver {
public:
    our_receiver() : node_(start_node([this](const auto& m) { tally_.take(m.text); })) {}
    std::uint16_t port() const { return node_->address().port(); }
    tally& messages() { return tally_; }

private:
    tally tally_;
    std::unique_ptr<p2pchat::node> node_;
};

#ifdef BENCH_ASIO
class asio_receiver {
public:
    std::uint16_t port() const { return server_.port(); }
    tally& messages() { return tally_; }

private:
    tally tally_;
    asio_one_shot_receiver server_{[this](std::string_view m) { tally_.take_message(m); }};
};

class asio_sender {
public:
    void send(const std::string& address, std::uint16_t port, std::string_view text) {
        sender_.send(address, port, std::string(head) + std::string(text));
    }

private:
    asio_one_shot_sender sender_;
};
#endif

class raw_sender {
public:
    void send(const std::string& address, std::uint16_t port, std::string_view text) {
        const auto peer = connect_to(address, port);
        begin_encrypted(peer.get(), false);
        send_all(peer.get(), std::string(head) + std::string(text));
        end_sending(peer.get());
        char c;
        require(receive(peer.get(), &c, 1) == 0, "not confirmed by a close");
    }
};

class our_sender {
public:
    void send(const std::string& address, std::uint16_t port, std::string_view text) {
        require_ok(node_->send({address, port}, text), "send");
    }

private:
    std::unique_ptr<p2pchat::node> node_ = start_node();
};

template <typename Receiver, typename Sender>
class one_shots {
public:
    explicit one_shots(std::size_t senders) : senders_(senders) {
        for (std::uint64_t i = 0; i < senders; ++i) texts_.emplace_back(message_bytes, i * stride);
    }

    /// Messages a second, until the last is confirmed and was handed over.
    double run() {
        round_ = round_ % 9 + 1;
        const stopwatch watch;
        std::vector<std::thread> others;
        for (std::size_t i = 1; i < senders_.size(); ++i)
            others.emplace_back([this, i] { send_share(i); });
        send_share(0);
        for (auto& other : others) other.join();
        sent_ += messages_a_run;
        wait_until([this] { return receiver_.messages().taken() >= sent_; }, "one-shots");
        require(receiver_.messages().taken() == sent_, "more messages than were sent");
        return messages_a_run / watch.seconds();
    }

private:
    void send_share(std::size_t sender) {
        const auto to = loopback(round_);
        const auto share = messages_a_run / static_cast<int>(senders_.size());
        for (int i = 0; i < share; ++i) {
            senders_[sender].send(to, receiver_.port(), texts_[sender].get());
            texts_[sender].next();
        }
    }

    Receiver receiver_;
    std::vector<Sender> senders_;
    std::vector<numbered_text> texts_;
    int round_ = 0;
    std::uint64_t sent_ = 0;
};

template <typename Receiver, typename Sender>
auto contender(std::size_t senders) {
    return std::make_shared<one_shots<Receiver, Sender>>(senders);
}

void measure(const char* title, std::size_t senders, double wanted, int rounds) {
    row one(title, "messages/s", better::more);
    one.add("raw sockets, epoll (floor)", contender<epoll_receiver, raw_sender>(senders));
    one.add("raw sockets, blocking", contender<blocking_receiver, raw_sender>(senders));
#ifdef BENCH_ASIO
    one.add("Asio", contender<asio_receiver, asio_sender>(senders));
#endif
    one.add("raw senders to a p2pchat node", contender<our_receiver, raw_sender>(senders));
    one.add("p2pchat nodes to a raw receiver", contender<epoll_receiver, our_sender>(senders));
    one.add_ours("p2pchat", contender<our_receiver, our_sender>(senders), wanted);
    one.measure(rounds);
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = begin(argc, argv);
    measure("one-shot, 1 sender", 1, 0.95, rounds);
    measure("one-shot, 8 senders", 8, 0.85, rounds);
}
