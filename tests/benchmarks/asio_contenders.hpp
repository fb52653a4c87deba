// The same work by Asio, written as its examples are. Built where Asio is found.
//
// SPDX-License-Identifier: MIT
#ifndef P2PCHAT_BENCHMARKS_ASIO_CONTENDERS_HPP
#define P2PCHAT_BENCHMARKS_ASIO_CONTENDERS_HPP

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <asio.hpp>
#ifdef BENCH_ENCRYPTED
#include <asio/ssl.hpp>
#endif

#include "raw.hpp"

namespace bench {

#ifdef BENCH_ENCRYPTED
using asio_socket = asio::ssl::stream<asio::ip::tcp::socket>;
#else
using asio_socket = asio::ip::tcp::socket;
#endif

/// An io_context with a thread that runs it.
class asio_thread {
public:
    asio_thread() : thread_([this] { context_.run(); }) {}
    ~asio_thread() {
        context_.stop();
        thread_.join();
    }
    asio::io_context& context() { return context_; }

private:
    asio::io_context context_{1};
    asio::executor_work_guard<asio::io_context::executor_type> work_{context_.get_executor()};
    std::thread thread_;
};

class asio_one_shot_receiver {
public:
    explicit asio_one_shot_receiver(std::function<void(std::string_view)> take);
    std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

private:
    void accept();

    std::function<void(std::string_view)> take_;
    asio_thread io_;
    asio::ip::tcp::acceptor acceptor_;
};

class asio_one_shot_sender {
public:
    void send(const std::string& address, std::uint16_t port, std::string_view message);

private:
    std::unique_ptr<asio::io_context> context_ = std::make_unique<asio::io_context>(1);
};

/// What link_receiver does, by Asio.
class asio_link_receiver {
public:
    explicit asio_link_receiver(std::function<void(const parsed&)> take);
    std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

private:
    void accept();

    std::function<void(const parsed&)> take_;
    asio_thread io_;
    asio::ip::tcp::acceptor acceptor_;
};

/// One round trip after the other, by blocking calls.
class asio_blocking_sender {
public:
    explicit asio_blocking_sender(std::uint16_t port);
    void trip(const std::string& line);

private:
    asio::io_context context_{1};
    asio_socket socket_;
    ack_reader acks_;
    std::uint64_t sent_ = 0;
};

/// The same by asynchronous calls, the io_context run by the sender itself.
class asio_async_sender {
public:
    explicit asio_async_sender(std::uint16_t port);
    void trip(const std::string& line);

private:
    asio::io_context context_{1};
    asio_socket socket_;
    ack_reader acks_;
    std::uint64_t sent_ = 0;
    char buffer_[256];
};

/// The queue of Asio's chat example: a deque of messages, each with a write of its own.
class asio_queue_sender {
public:
    explicit asio_queue_sender(std::uint16_t port);
    void post(std::string line);

private:
    void read();  // reads confirmations and discards them
    void write();

    asio_thread io_;
    asio_socket socket_;
    char buffer_[1024];
    std::deque<std::string> queue_;
    std::atomic<std::size_t> queued_{0};
};

/// Many links at once: one message to each, until the last has confirmed.
class asio_broadcaster {
public:
    asio_broadcaster(std::size_t links, std::uint16_t port);
    void broadcast(const std::string& line);

private:
    struct peer {
        asio_socket socket;
        ack_reader acks;
        char buffer[64];
    };
    void read(peer& from);

    asio::io_context context_{1};
    std::vector<std::unique_ptr<peer>> peers_;
    std::uint64_t sent_ = 0;
    std::size_t missing_ = 0;
};

}  // namespace bench

#endif
