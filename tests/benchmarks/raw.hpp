// The floors' building blocks: raw sockets, the least that a program must do to speak the wire
// format, and texts that number their messages. POSIX; epoll, so Linux only.
//
// SPDX-License-Identifier: MIT
#ifndef P2PCHAT_BENCHMARKS_RAW_HPP
#define P2PCHAT_BENCHMARKS_RAW_HPP

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#ifdef BENCH_ENCRYPTED
#include <openssl/ssl.h>
#endif
#include <sys/socket.h>
#include <unistd.h>

namespace bench {

// -------------------------------------------------------------------------------------- sockets

// As the system's calls; with BENCH_ENCRYPTED over TLS from begin_encrypted() on, whose handshake
// is completed by the first call that receives or sends. See encrypted.cpp.
#ifdef BENCH_ENCRYPTED
SSL* new_tls(bool accepts);
SSL* take_tls(int fd);  ///< the caller owns it
void begin_encrypted(int fd, bool accepts);
ssize_t receive(int fd, char* buffer, std::size_t size);
ssize_t send_some(int fd, std::string_view data);
void end_sending(int fd);
void close_connection(int fd);
#else
inline void begin_encrypted(int, bool) {}
inline ssize_t receive(int fd, char* buffer, std::size_t size) { return recv(fd, buffer, size, 0); }
inline ssize_t send_some(int fd, std::string_view data) {
    return send(fd, data.data(), data.size(), MSG_NOSIGNAL);
}
inline void end_sending(int fd) { shutdown(fd, SHUT_WR); }
inline void close_connection(int fd) { ::close(fd); }
#endif

class descriptor {
public:
    descriptor() = default;
    explicit descriptor(int fd) : fd_(fd) {}
    ~descriptor() { reset(); }
    descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    descriptor& operator=(descriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }
    void reset() {
        if (fd_ >= 0) close_connection(std::exchange(fd_, -1));
    }

private:
    int fd_ = -1;
};

/// "127.0.0.k": one-shots rotate over these, since each leaves a port in TIME_WAIT for each
/// destination.
std::string loopback(int k);

descriptor listen_anywhere();
std::uint16_t port_of(int fd);
descriptor connect_to(const std::string& address, std::uint16_t port);
void set_nonblocking(int fd);
void send_all(int fd, std::string_view data);

/// Waits for data and returns it; empty at the end of the stream.
std::string_view receive_some(int fd, char* buffer, std::size_t size);

/// Waits for events on one epoll: spins for a while, yielding, before it sleeps.
class event_waiter {
public:
    explicit event_waiter(std::chrono::microseconds spin = {});
    void watch(int fd);
    int wait(int (&ready)[64]);

private:
    descriptor epoll_;
    std::chrono::microseconds spin_;
};

// --------------------------------------------------------------------------------------- format

/// The start of each message of the benchmarks; with a text of 15 bytes the message has 40.
inline constexpr std::string_view head = "127.0.0.1:50000 Team_BTC ";
inline constexpr std::size_t message_bytes = 40;

/// The text of message 0, 1, 2 and so on: its number, with zeros in front to fill up the message.
class numbered_text {
public:
    explicit numbered_text(std::size_t whole_message = message_bytes, std::uint64_t first = 0);
    std::string_view get() const { return text_; }
    void next();

private:
    std::string text_;
};

/// The number of a text of numbered_text; fails for any other text.
std::uint64_t number_of(std::string_view text);

struct parsed {
    std::uint32_t address = 0;
    std::uint16_t port = 0;
    std::string_view team;
    std::string_view text;
};

/// Parses one message into views, digit by digit: the least possible work.
bool parse_digits(std::string_view bytes, parsed& result);

// ----------------------------------------------------------------------------------------- link

/// Opens a link: CONNECT there and back.
descriptor open_link(const std::string& address, std::uint16_t port, std::string_view claim = head);

/// One epoll loop that takes in any number of links: answers CONNECT, parses each line, hands it
/// to the handler, confirms once for all that one read brought.
class link_receiver {
public:
    using handler = std::function<void(const parsed&)>;

    explicit link_receiver(handler on_line, std::chrono::microseconds spin = {});
    ~link_receiver();
    std::uint16_t port() const { return port_; }
    std::size_t links() const { return links_; }
    std::uint64_t taken() const { return taken_; }

private:
    struct link {
        std::uint32_t taken = 0;
        bool open = false;
        std::unique_ptr<std::string> partial;  // only while a line is incomplete
    };

    void serve();
    void accept_all();
    void read_from(int fd);
    void take_lines(int fd, link& from, std::string_view bytes);
    void answer_connect(int fd, link& from);
    void confirm(int fd, const link& to);
    void end(int fd);

    handler on_line_;
    event_waiter events_;
    descriptor listener_;
    descriptor wake_;
    std::uint16_t port_;
    std::atomic<std::size_t> links_{0};
    std::atomic<std::uint64_t> taken_{0};
    std::vector<link> by_descriptor_;
    std::vector<char> buffer_;
    std::thread thread_;
};

/// The confirmations that come back on one link.
class ack_reader {
public:
    /// Takes in what was received; returns the highest number confirmed so far.
    std::uint64_t take(std::string_view bytes);

private:
    std::uint64_t confirmed_ = 0;
    std::uint64_t number_ = 0;
};

}  // namespace bench

#endif
