// The same work by ZeroMQ; see zeromq_contenders.hpp.
//
// SPDX-License-Identifier: MIT
#include "zeromq_contenders.hpp"

#include <cstdlib>
#include <utility>

#include <zmq.h>

#include "measure.hpp"

namespace bench {

zeromq_context::zeromq_context(int max_sockets) : context_(zmq_ctx_new()) {
    zmq_ctx_set(context_, ZMQ_MAX_SOCKETS, max_sockets);
}

zeromq_context::~zeromq_context() { zmq_ctx_term(context_); }

zeromq_socket::zeromq_socket(const zeromq_context& context, int type)
    : socket_(zmq_socket(context.get(), type)) {
    require(socket_ != nullptr, "ZeroMQ cannot make a socket");
    const int none = 0;
    zmq_setsockopt(socket_, ZMQ_LINGER, &none, sizeof none);
}

zeromq_socket::~zeromq_socket() {
    if (socket_) zmq_close(socket_);
}

zeromq_socket::zeromq_socket(zeromq_socket&& other) noexcept
    : socket_(std::exchange(other.socket_, nullptr)) {}

void zeromq_socket::bind() {
    require(zmq_bind(socket_, "tcp://127.0.0.1:*") == 0, "ZeroMQ cannot bind");
}

std::uint16_t zeromq_socket::port() const {
    char text[128];
    std::size_t size = sizeof text;
    require(zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, text, &size) == 0, "no ZeroMQ endpoint");
    const std::string name(text);
    return static_cast<std::uint16_t>(std::atoi(name.c_str() + name.rfind(':') + 1));
}

void zeromq_socket::connect(std::uint16_t port) {
    const auto to = "tcp://127.0.0.1:" + std::to_string(port);
    require(zmq_connect(socket_, to.c_str()) == 0, "ZeroMQ cannot connect");
}

void zeromq_socket::subscribe() {
    require(zmq_setsockopt(socket_, ZMQ_SUBSCRIBE, "", 0) == 0, "ZeroMQ cannot subscribe");
}

void zeromq_socket::send(std::string_view message) {
    require(zmq_send(socket_, message.data(), message.size(), 0) >= 0, "ZeroMQ cannot send");
}

std::string_view zeromq_socket::receive(char* buffer, std::size_t size) {
    const int received = zmq_recv(socket_, buffer, size, 0);
    require(received >= 0, "ZeroMQ cannot receive");
    return {buffer, static_cast<std::size_t>(received)};
}

bool zeromq_socket::poll(long milliseconds) {
    zmq_pollitem_t item{socket_, 0, ZMQ_POLLIN, 0};
    return zmq_poll(&item, 1, milliseconds) > 0;
}

zeromq_receiver::zeromq_receiver(int type, bool replies, handler take)
    : replies_(replies), take_(std::move(take)), socket_(context_, type) {
    socket_.bind();
    port_ = socket_.port();
    thread_ = std::thread([this] { serve(); });
}

zeromq_receiver::~zeromq_receiver() {
    zeromq_socket last(context_, replies_ ? ZMQ_REQ : ZMQ_PUSH);
    last.connect(port_);
    last.send({});
    thread_.join();
}

void zeromq_receiver::serve() {
    char buffer[4096];
    for (;;) {
        const auto message = socket_.receive(buffer, sizeof buffer);
        if (message.empty()) return;
        take_(message);
        if (replies_) socket_.send("taken");
    }
}

zeromq_replier::zeromq_replier(handler take) : zeromq_receiver(ZMQ_REP, true, std::move(take)) {}

zeromq_puller::zeromq_puller(handler take) : zeromq_receiver(ZMQ_PULL, false, std::move(take)) {}

zeromq_requester::zeromq_requester(std::uint16_t port) : socket_(context_, ZMQ_REQ) {
    socket_.connect(port);
}

void zeromq_requester::trip(std::string_view message) {
    socket_.send(message);
    char answer[16];
    require(socket_.receive(answer, sizeof answer) == "taken", "not the answer");
}

zeromq_pusher::zeromq_pusher(std::uint16_t port) : socket_(context_, ZMQ_PUSH) {
    socket_.connect(port);
}

zeromq_broadcaster::zeromq_broadcaster(std::size_t subscribers, handler take)
    : take_(std::move(take)),
      receiving_(static_cast<int>(subscribers) + 16),
      publisher_(sending_, ZMQ_PUB) {
    publisher_.bind();
    subscribers_.reserve(subscribers);
    for (std::size_t i = 0; i < subscribers; ++i) {
        subscribers_.emplace_back(receiving_, ZMQ_SUB);
        subscribers_.back().subscribe();
        subscribers_.back().connect(publisher_.port());
    }
    await_subscriptions();
}

// A publisher does not know its subscribers, so it publishes until each has received something. Any
// surplus is read and discarded up to a mark.
void zeromq_broadcaster::await_subscriptions() {
    const stopwatch watch;
    std::vector<bool> has(subscribers_.size());
    std::size_t missing = has.size();
    while (missing > 0) {
        if (watch.seconds() > 20) fail(std::to_string(missing) + " subscriptions do not arrive");
        publisher_.send("subscribed?");
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        for (std::size_t i = 0; i < has.size(); ++i) {
            if (!has[i] && subscribers_[i].poll(0)) {
                has[i] = true;
                --missing;
            }
        }
    }
    publisher_.send("now");
    char buffer[256];
    for (auto& subscriber : subscribers_)
        while (subscriber.receive(buffer, sizeof buffer) != "now") continue;
}

void zeromq_broadcaster::broadcast(std::string_view message) {
    publisher_.send(message);
    char buffer[256];
    for (std::size_t i = 0; i < subscribers_.size(); ++i)
        take_(i, subscribers_[i].receive(buffer, sizeof buffer));
}

}  // namespace bench
