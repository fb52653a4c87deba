// The same work by ZeroMQ's sockets over TCP. Built where libzmq is found.
//
// SPDX-License-Identifier: MIT
#ifndef P2PCHAT_BENCHMARKS_ZEROMQ_CONTENDERS_HPP
#define P2PCHAT_BENCHMARKS_ZEROMQ_CONTENDERS_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace bench {

/// A context with one I/O thread of its own, as each process would have.
class zeromq_context {
public:
    explicit zeromq_context(int max_sockets = 16);
    ~zeromq_context();
    void* get() const { return context_; }

private:
    void* context_;
};

class zeromq_socket {
public:
    zeromq_socket(const zeromq_context& context, int type);
    ~zeromq_socket();
    zeromq_socket(zeromq_socket&& other) noexcept;
    zeromq_socket& operator=(zeromq_socket&&) = delete;

    void bind();  ///< to a free port of 127.0.0.1
    std::uint16_t port() const;
    void connect(std::uint16_t port);
    void subscribe();
    bool poll(long milliseconds);  ///< whether something has come
    void send(std::string_view message);
    std::string_view receive(char* buffer, std::size_t size);  ///< empty: ended

private:
    void* socket_;
};

/// A receiving socket with a thread that hands on what comes, until an empty message.
class zeromq_receiver {
public:
    using handler = std::function<void(std::string_view)>;
    zeromq_receiver(int type, bool replies, handler take);
    ~zeromq_receiver();
    std::uint16_t port() const { return port_; }

private:
    void serve();

    bool replies_;
    handler take_;
    zeromq_context context_;
    zeromq_socket socket_;
    std::uint16_t port_;
    std::thread thread_;
};

class zeromq_replier : public zeromq_receiver {
public:
    explicit zeromq_replier(handler take);
};

class zeromq_puller : public zeromq_receiver {
public:
    explicit zeromq_puller(handler take);
};

class zeromq_requester {
public:
    explicit zeromq_requester(std::uint16_t port);
    void trip(std::string_view message);

private:
    zeromq_context context_;
    zeromq_socket socket_;
};

class zeromq_pusher {
public:
    explicit zeromq_pusher(std::uint16_t port);
    void push(std::string_view message) { socket_.send(message); }

private:
    zeromq_context context_;
    zeromq_socket socket_;
};

/// PUB to many SUBs of one program, until the last has it.
class zeromq_broadcaster {
public:
    using handler = std::function<void(std::size_t subscriber, std::string_view)>;
    zeromq_broadcaster(std::size_t subscribers, handler take);
    void broadcast(std::string_view message);

private:
    void await_subscriptions();

    handler take_;
    zeromq_context sending_;
    zeromq_context receiving_;
    zeromq_socket publisher_;
    std::vector<zeromq_socket> subscribers_;
};

}  // namespace bench

#endif
