// The same work by Asio; see asio_contenders.hpp.
//
// SPDX-License-Identifier: MIT
#include "asio_contenders.hpp"

#include "measure.hpp"

namespace bench {

namespace {

using asio::ip::tcp;

// The TLS handshake and close_notify.
#ifdef BENCH_ENCRYPTED
asio_socket begin(tcp::socket socket, bool accepts) {
    socket.set_option(tcp::no_delay(true));
    return {std::move(socket), new_tls(accepts)};
}
template <typename F>
void accept_encrypted(asio_socket& socket, F then) {
    socket.async_handshake(asio_socket::server, [then](asio::error_code error) {
        require(!error, "Asio cannot make it encrypted");
        then();
    });
}
template <typename F>
void end(asio_socket& socket, F then) {
    socket.async_shutdown([then](asio::error_code) { then(); });
}
#else
asio_socket begin(tcp::socket socket, bool) { return socket; }
template <typename F>
void accept_encrypted(asio_socket&, F then) {
    then();
}
template <typename F>
void end(asio_socket&, F then) {
    then();
}
#endif

class one_shot_session : public std::enable_shared_from_this<one_shot_session> {
public:
    one_shot_session(tcp::socket socket, std::function<void(std::string_view)>& take)
        : socket_(begin(std::move(socket), true)), take_(take) {}

    void start() {
        accept_encrypted(socket_, [self = shared_from_this()] { self->read(); });
    }

    void read() {
        auto self = shared_from_this();
        socket_.async_read_some(asio::buffer(buffer_),
                                [self](asio::error_code error, std::size_t received) {
                                    if (error == asio::error::eof)
                                        return end(self->socket_, [self] {});
                                    require(!error, "Asio cannot receive");
                                    self->take_({self->buffer_, received});
                                    self->read();
                                });
    }

private:
    asio_socket socket_;
    std::function<void(std::string_view)>& take_;
    char buffer_[1024];
};

class link_session : public std::enable_shared_from_this<link_session> {
public:
    link_session(tcp::socket socket, std::function<void(const parsed&)>& take)
        : socket_(begin(std::move(socket), true)), take_(take) {}

    void start() {
        accept_encrypted(socket_, [self = shared_from_this()] { self->read(); });
    }

    void read() {
        auto self = shared_from_this();
        const auto room = asio::buffer(buffer_ + kept_, sizeof buffer_ - kept_);
        socket_.async_read_some(room, [self](asio::error_code error, std::size_t received) {
            if (!error) self->take_lines(received);
        });
    }

private:
    void take_lines(std::size_t received) {
        std::string_view bytes(buffer_, kept_ + received);
        answer_.clear();
        const auto before = taken_;
        for (auto end = bytes.find('\n'); end != std::string_view::npos; end = bytes.find('\n')) {
            take_line(bytes.substr(0, end));
            bytes.remove_prefix(end + 1);
        }
        std::copy(bytes.begin(), bytes.end(), buffer_);
        kept_ = bytes.size();
        if (taken_ != before) answer_ += "ACK " + std::to_string(taken_) + '\n';
        if (answer_.empty()) return read();
        auto self = shared_from_this();
        asio::async_write(socket_, asio::buffer(answer_),
                          [self](asio::error_code error, std::size_t) {
                              if (!error) self->read();
                          });
    }
    void take_line(std::string_view line) {
        parsed message;
        require(parse_digits(line, message), "a line that is no message");
        if (message.text == "CONNECT") {
            answer_ += "127.0.0.1:1 Team_RAW CONNECT\n";
            return;
        }
        ++taken_;
        take_(message);
    }

    asio_socket socket_;
    std::function<void(const parsed&)>& take_;
    std::string answer_;
    std::size_t kept_ = 0;
    std::uint32_t taken_ = 0;
    char buffer_[1024];
};

// A handshake by raw sockets, then Asio's socket.
asio_socket open_asio_link(asio::io_context& context, const std::string& address,
                           std::uint16_t port) {
    const int fd = open_link(address, port).release();
#ifdef BENCH_ENCRYPTED
    return {tcp::socket(context, tcp::v4(), fd), take_tls(fd)};
#else
    return {context, tcp::v4(), fd};
#endif
}

}  // namespace

asio_one_shot_receiver::asio_one_shot_receiver(std::function<void(std::string_view)> take)
    : take_(std::move(take)), acceptor_(io_.context(), {tcp::v4(), 0}) {
    accept();
}

void asio_one_shot_receiver::accept() {
    acceptor_.async_accept([this](asio::error_code error, tcp::socket peer) {
        if (error) return;
        std::make_shared<one_shot_session>(std::move(peer), take_)->start();
        accept();
    });
}

void asio_one_shot_sender::send(const std::string& address, std::uint16_t port,
                                std::string_view message) {
    tcp::socket made(*context_);
    made.connect({asio::ip::make_address(address), port});
    auto socket = begin(std::move(made), false);
    asio::error_code error;
#ifdef BENCH_ENCRYPTED
    socket.handshake(asio_socket::client);
    asio::write(socket, asio::buffer(message));
    socket.shutdown(error);  // both ways
    if (!error) error = asio::error::eof;
#else
    asio::write(socket, asio::buffer(message));
    socket.shutdown(tcp::socket::shutdown_send);
    char c;
    socket.read_some(asio::buffer(&c, 1), error);
#endif
    require(error == asio::error::eof, "not confirmed by a close");
}

asio_link_receiver::asio_link_receiver(std::function<void(const parsed&)> take)
    : take_(std::move(take)), acceptor_(io_.context(), {tcp::v4(), 0}) {
    accept();
}

void asio_link_receiver::accept() {
    acceptor_.async_accept([this](asio::error_code error, tcp::socket peer) {
        if (error) return;
        peer.set_option(tcp::no_delay(true));
        std::make_shared<link_session>(std::move(peer), take_)->start();
        accept();
    });
}

asio_blocking_sender::asio_blocking_sender(std::uint16_t port)
    : socket_(open_asio_link(context_, "127.0.0.1", port)) {}

void asio_blocking_sender::trip(const std::string& line) {
    asio::write(socket_, asio::buffer(line));
    char answer[64];
    const auto received = socket_.read_some(asio::buffer(answer));
    require(acks_.take({answer, received}) == ++sent_, "confirmed something else");
}

asio_async_sender::asio_async_sender(std::uint16_t port)
    : socket_(open_asio_link(context_, "127.0.0.1", port)) {}

void asio_async_sender::trip(const std::string& line) {
    asio::async_write(socket_, asio::buffer(line), [this](asio::error_code error, std::size_t) {
        require(!error, "Asio cannot send");
        socket_.async_read_some(
            asio::buffer(buffer_), [this](asio::error_code failed, std::size_t received) {
                require(!failed, "Asio cannot receive");
                require(acks_.take({buffer_, received}) == ++sent_, "confirmed something else");
            });
    });
    context_.restart();
    context_.run();
}

asio_queue_sender::asio_queue_sender(std::uint16_t port)
    : socket_(open_asio_link(io_.context(), "127.0.0.1", port)) {
    asio::post(io_.context(), [this] { read(); });
}

void asio_queue_sender::read() {
    socket_.async_read_some(asio::buffer(buffer_), [this](asio::error_code error, std::size_t) {
        if (!error) read();
    });
}

void asio_queue_sender::post(std::string line) {
    wait_until([this] { return queued_ < 6400; }, "room in Asio's queue");  // 256 KiB of 40 bytes
    ++queued_;
    asio::post(io_.context(), [this, line = std::move(line)]() mutable {
        queue_.push_back(std::move(line));
        if (queue_.size() == 1) write();
    });
}

void asio_queue_sender::write() {
    asio::async_write(socket_, asio::buffer(queue_.front()),
                      [this](asio::error_code error, std::size_t) {
                          require(!error, "Asio cannot send");
                          queue_.pop_front();
                          --queued_;
                          if (!queue_.empty()) write();
                      });
}

asio_broadcaster::asio_broadcaster(std::size_t links, std::uint16_t port) {
    for (std::size_t i = 0; i < links; ++i) {
        peers_.push_back(
            std::make_unique<peer>(peer{open_asio_link(context_, "127.0.0.1", port), {}, {}}));
        read(*peers_.back());
    }
}

void asio_broadcaster::read(peer& from) {
    from.socket.async_read_some(asio::buffer(from.buffer),
                                [this, &from](asio::error_code error, std::size_t received) {
                                    require(!error, "Asio cannot receive");
                                    if (from.acks.take({from.buffer, received}) == sent_)
                                        --missing_;
                                    read(from);
                                });
}

void asio_broadcaster::broadcast(const std::string& line) {
    ++sent_;
    missing_ = peers_.size();
    for (auto& to : peers_) {
        asio::async_write(to->socket, asio::buffer(line), [](asio::error_code error, std::size_t) {
            require(!error, "Asio cannot send");
        });
    }
    while (missing_ > 0) context_.run_one();
}

}  // namespace bench
