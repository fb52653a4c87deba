// p2pchat.hpp - a chat peer for the local network, in one header. C++17, no dependencies.
//
// SPDX-License-Identifier: MIT
// Copyright (c) 2026 The p2pchat authors
//
// What it is
//   A node listens on a TCP port, takes in short text messages, sends them to other nodes and
//   knows which peers it has heard from. A node talks to one peer by one-shots (a connection for
//   each message) or, where both sides can, over a link (a connection that stays, on which every
//   message is confirmed).
//
// How to include it
//   Include this file wherever its declarations are wanted. In exactly one source file define
//   P2PCHAT_IMPLEMENTATION before: there, and nowhere else, the operating system's headers come
//   in. Link with the system's threads (-pthread) and, on Windows, with ws2_32.
//
//       #define P2PCHAT_IMPLEMENTATION            // in one source file
//       #include "p2pchat.hpp"
//       #include <iostream>
//
//       int main() {
//           p2pchat::config config;
//           config.team = "BTC";
//           config.port = 5000;
//
//           p2pchat::node node(config);
//           node.on_message([&](const p2pchat::message& m) {
//               std::cout << m.sender << ' ' << m.team << ": " << m.text << '\n';
//               node.post(m.sender, "got it");
//           });
//           if (auto error = node.start()) { std::cerr << error.message() << '\n'; return 1; }
//
//           if (auto error = node.send({"10.18.1.2", 6000}, "Hi"))
//               std::cerr << error.message() << '\n';
//           for (const auto& peer : node.peers())
//               std::cout << peer.address << " - " << peer.team << '\n';
//       }
//
// The wire
//   message = sender SP team SP text
//   sender  = IPv4 ":" port | "[" IPv6 "]" ":" port         port 1..65535
//   team    = 1..64 bytes, no white space
//   text    = 1.. bytes, no CR, LF or NUL; UTF-8 by convention, kept byte for byte
//
//   A one-shot is one connection with one message, ended by the sender's half-close; the
//   receiver's orderly close says that it was taken, a reset that it was not. A link opens with
//   the message CONNECT ended by LF, is answered in kind, and goes on with one message a line in
//   both directions; "ACK n" confirms the n-th message after CONNECT and all before it.
//   Nothing is encrypted and nobody is authenticated: see `message::verified` for what is known.
//
// Errors
//   Calls return std::error_code: one of p2pchat::errc, or the system's in the generic category,
//   so that comparing with std::errc works alike everywhere. Nothing but std::bad_alloc is
//   thrown, nothing is printed, no signal is raised.
//
// Threads
//   A node has two of its own: one does all input and output, one calls the handlers, one at a
//   time and in order. Handlers may call anything of the node, send() and stop() included; while
//   one runs, further messages wait in bounded memory and then in their senders. They must not
//   throw and must not destroy the node. Other classes: as their comments say.
//
// Where things are: >> errors, >> endpoint, >> message, >> socket, >> peers, >> config, >> node;
// then the implementation: >> platform and again the same names.

#ifndef P2PCHAT_HPP
#define P2PCHAT_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace p2pchat {

/// This header's version: major.minor.patch, as semantic versioning has it.
inline constexpr std::string_view version = "1.0.0";

// ------------------------------------------------------------------------------------ >> errors

/// What the library itself finds wrong. Each compares equal to the std::errc named with it.
enum class errc {
    bad_address = 1,      ///< no numeric IPv4 or IPv6 address (invalid_argument)
    bad_port,             ///< no port in 1..65535 (invalid_argument)
    bad_team,             ///< not 1..64 bytes without white space (invalid_argument)
    bad_text,             ///< empty, or CR, LF or NUL in it (invalid_argument)
    too_few_words,        ///< not "sender team text" (invalid_argument)
    no_message,           ///< the connection ended before its first byte (no_message)
    message_too_long,     ///< over config::max_message_bytes (message_size)
    not_taken,            ///< the peer closed without taking the message (connection_reset)
    link_lost,            ///< the link broke before the confirmation (connection_aborted)
    queue_full,           ///< over config::max_queued_bytes (no_buffer_space)
    stopped,              ///< the node does not run, or stopped meanwhile (operation_canceled)
    already_running,      ///< start() of a node that runs (already_connected)
    connection_limit,     ///< gave way to a newer one at config::max_connections (connection_aborted)
    sender_not_verified,  ///< the sender does not come from the address it claims
    own_address,          ///< our own address is never a peer (invalid_argument)
    protocol_error,       ///< a line of a link that is neither message nor control (protocol_error)
};

/// The category of errc. Thread-safe.
const std::error_category& category() noexcept;
std::error_code make_error_code(errc value) noexcept;

// ---------------------------------------------------------------------------------- >> endpoint

/// An IP address and a TCP port: the name of a peer. IPv4-mapped IPv6 is the IPv4 address. A
/// regular value type of 24 bytes; ordered by address, then port.
class endpoint {
public:
    /// Nobody: no address, port 0.
    endpoint() noexcept = default;

    /// From a numeric address ("10.18.1.7", "fe80::1", "fe80::1%2") and a port. Anything else than
    /// a numeric address gives nobody; use parse() or resolve() to be told why.
    endpoint(std::string_view address, std::uint16_t port) noexcept;

    /// From sixteen bytes in network order, IPv4 as ::ffff:a.b.c.d, and the scope of a link-local
    /// address (0: none).
    endpoint(const unsigned char (&address)[16], std::uint16_t port, std::uint32_t scope) noexcept;

    /// Whether it has an address, other than 0.0.0.0 or ::, and a port: somebody to connect to.
    explicit operator bool() const noexcept;

    std::uint16_t port() const noexcept { return port_; }
    std::string address() const;  ///< numeric, without port and brackets
    std::uint32_t scope() const noexcept { return scope_; }
    const unsigned char (&bytes() const noexcept)[16] { return bytes_; }

    bool is_v4() const noexcept;
    bool is_loopback() const noexcept;
    bool same_address(const endpoint& other) const noexcept;  ///< equal but for port and scope

    friend bool operator==(const endpoint& a, const endpoint& b) noexcept { return compare(a, b) == 0; }
    friend bool operator!=(const endpoint& a, const endpoint& b) noexcept { return compare(a, b) != 0; }
    friend bool operator<(const endpoint& a, const endpoint& b) noexcept { return compare(a, b) < 0; }

private:
    static int compare(const endpoint& a, const endpoint& b) noexcept;

    unsigned char bytes_[16] = {};
    std::uint32_t scope_ = 0;
    std::uint16_t port_ = 0;
};

/// Reads "10.18.1.7:5000" or "[fe80::1]:5000" (a scope as in "[fe80::1%2]:5000" by its number).
/// bad_address or bad_port says what is wrong; `result` is then left as it was.
std::error_code parse(std::string_view text, endpoint& result) noexcept;

/// The same text back; IPv6 in the shortest form, lower case (RFC 5952).
std::string to_string(const endpoint& value);
std::ostream& operator<<(std::ostream& out, const endpoint& value);

/// Looks a host name (or numeric address) up, IPv4 preferred. Blocks for as long as the system's
/// resolver does. Errors: bad_address for a name that nobody knows, bad_port for port 0.
std::error_code resolve(std::string_view host, std::uint16_t port, endpoint& result);

/// The address that this machine would use to reach the LAN, with port 0; found without sending a
/// packet. Loopback where there is no network.
endpoint detect_address();

// ----------------------------------------------------------------------------------- >> message

inline constexpr std::size_t max_team_bytes = 64;

/// A message as parse() finds it: views into the bytes that were parsed.
struct message_view {
    endpoint sender;
    std::string_view team;
    std::string_view text;
};

/// A received message as handlers get it.
struct message {
    endpoint sender;        ///< who it says it is from
    std::string team;       ///< of the sender
    std::string text;       ///< without white space at its ends; any other byte but NUL as it came
    bool verified = false;  ///< the sender's IP is where it came from, or that is this machine
    endpoint origin;        ///< where it really came from: the connection's other end

    /// Where an answer reaches whoever wrote this.
    const endpoint& reply_to() const noexcept { return verified ? sender : origin; }
};

/// Reads one message. Liberal: white space at both ends is dropped, sender and team may stand in
/// angle brackets, several white spaces separate as well as one, the text may run over several
/// lines. Allocates nothing. Errors say which part is wrong: too_few_words, bad_address, bad_port,
/// bad_team, bad_text; `result` is then unspecified.
std::error_code parse(std::string_view bytes, message_view& result) noexcept;

/// Writes one message into `result`. Strict: refuses whatever parse() would not give back as it
/// is, white space at the ends of the text included. Errors: as parse().
std::error_code format(const endpoint& sender, std::string_view team, std::string_view text,
                       std::string& result);

// ------------------------------------------------------------------------------------ >> socket

/// A TCP socket: owning, movable, closed when destroyed. Not inherited by child processes, raises
/// no SIGPIPE. Each call waits for as long as its time-out says and then returns
/// std::errc::timed_out; a time-out of zero never waits and returns
/// std::errc::operation_would_block. Not thread-safe.
class tcp_socket {
public:
    using native_handle_type = std::intptr_t;
    using milliseconds = std::chrono::milliseconds;
    static constexpr native_handle_type invalid = -1;

    tcp_socket() noexcept = default;
    ~tcp_socket() { close(); }
    tcp_socket(tcp_socket&& other) noexcept;
    tcp_socket& operator=(tcp_socket&& other) noexcept;

    /// Listens on a local address and port; {"::", port} is every address, IPv4 too where the
    /// system can. Port 0 asks for a free one: see local(). A port in use is
    /// std::errc::address_in_use.
    std::error_code listen(const endpoint& local);

    /// The next connection made to a listening socket.
    std::error_code accept(tcp_socket& peer, milliseconds timeout) noexcept;

    /// Connects. With a time-out of zero it starts to, and returns std::errc::operation_in_progress;
    /// once the socket can be written to, finish_connect() tells how that ended.
    std::error_code connect(const endpoint& to, milliseconds timeout) noexcept;
    std::error_code finish_connect() noexcept;

    /// Sends all of `data`, or with a time-out of zero what the system takes at once; `sent` says
    /// how much that was, after an error too.
    std::error_code send(std::string_view data, std::size_t& sent, milliseconds timeout) noexcept;

    /// Receives up to `size` bytes; no error and `received` 0 is the other side's half-close.
    std::error_code receive(char* buffer, std::size_t size, std::size_t& received,
                            milliseconds timeout) noexcept;

    /// Half-close: ends our stream and goes on receiving.
    std::error_code shutdown_send() noexcept;

    /// Sends at once rather than waiting for more; for links, whose messages are small.
    void no_delay() noexcept;

    /// Has the system probe a connection that was silent for `idle`, and end it when nothing
    /// answers for about as long again.
    void keep_alive(std::chrono::seconds idle) noexcept;

    endpoint local() const noexcept;
    endpoint remote() const noexcept;

    bool is_open() const noexcept { return handle_ != invalid; }
    native_handle_type native_handle() const noexcept { return handle_; }
    void close() noexcept;
    void reset() noexcept;  ///< close, and let the other side see a reset

private:
    native_handle_type handle_ = invalid;
};

// ------------------------------------------------------------------------------------- >> peers

/// Somebody we have heard from.
struct peer {
    endpoint address;
    std::string team;
    std::chrono::system_clock::time_point last_heard;
    bool linked = false;  ///< in node::peers(): a link to it stands
};

/// Peers by their address, no more than a maximum: when full, the one not heard from for longest
/// gives way. Thread-safe. The cost of a call does not grow with the number of peers, snapshot's
/// apart.
class peer_set {
public:
    explicit peer_set(std::size_t max_peers);
    ~peer_set();

    /// Notes that `address` was heard from just now; true when it is new. The last team counts.
    bool heard(const endpoint& address, std::string_view team);

    /// Forgets a peer: false if it is not known. Fills `removed` with what was known of it.
    bool remove(const endpoint& address, peer& removed);

    void clear() noexcept;
    bool contains(const endpoint& address) const;
    std::size_t size() const;
    std::vector<peer> snapshot() const;  ///< ordered by address

private:
    struct state;
    std::unique_ptr<state> state_;
};

// ------------------------------------------------------------------------------------ >> config

/// What a node is to be. Times are bounds on waiting, sizes are bounds on memory.
struct config {
    std::string team;        ///< 1..64 bytes, no white space
    std::uint16_t port = 0;  ///< to listen on, on every address; 0: a free one, see node::address()
    std::string address;     ///< numeric IP to be known by; empty: detect_address()

    std::size_t max_message_bytes = 64 * 1024;   ///< of one message, sender and team included
    std::size_t max_connections = 1024;          ///< open at once, links not counted
    std::size_t max_links = 1024;                ///< open at once; over it peers get one-shots
    std::size_t max_peers = 4096;                ///< remembered
    std::size_t max_queued_bytes = 256 * 1024;   ///< to one peer, not yet confirmed; 256 KiB at most
    std::size_t max_received_bytes = 1024 * 1024;  ///< received, waiting for the handlers

    std::chrono::milliseconds connect_timeout{5000};
    std::chrono::milliseconds handshake_timeout{5000};  ///< CONNECT until its answer
    std::chrono::milliseconds delivery_timeout{5000};   ///< connected, until confirmed
    std::chrono::milliseconds first_message_timeout{10000};  ///< accepted, until the message is whole
    std::chrono::milliseconds quiet_period{2000};  ///< nothing more came: the message is whole
    std::chrono::milliseconds drain_timeout{1000};  ///< stop() hands over what it has confirmed
    std::chrono::seconds keep_alive{15};  ///< a link silent for this long is probed by the system

    bool leave_on_stop = false;  ///< stop() first says `exit` to all peers, for drain_timeout at most
};

// -------------------------------------------------------------------------------------- >> node

/// How a peer went.
enum class departure {
    left,     ///< it said `exit`
    lost,     ///< its link broke
    stopped,  ///< its link ended in order, without `exit`: the program ended
};

/// What became of a message to one peer of several.
struct delivery {
    endpoint to;
    std::error_code error;  ///< none: delivered
};

/// What node::connect() came to.
struct connect_result {
    std::error_code error;  ///< none: connected
    bool linked = false;    ///< by a link; else the peer knows one-shots only
};

/// What came, went, and was refused, since the node was made.
struct counters {
    std::uint64_t connections = 0;  ///< accepted
    std::uint64_t received = 0;     ///< messages taken
    std::uint64_t rejected = 0;     ///< connections, messages and claims: each a call of on_rejected
    std::uint64_t delivered = 0;    ///< messages
    std::uint64_t undelivered = 0;  ///< messages
    std::uint64_t dropped = 0;      ///< taken, but stop() did not wait for their handler
};

/// What post() does when max_queued_bytes wait for the peer already.
enum class when_full {
    refuse,  ///< return errc::queue_full at once
    wait,    ///< wait for room, for delivery_timeout at most
};

/// A chat peer. Every member but the constructor, the destructor and the on_… may be called from
/// any thread, handlers included.
class node {
public:
    using message_handler = std::function<void(const message&)>;
    using joined_handler = std::function<void(const peer&)>;
    using left_handler = std::function<void(const peer&, departure)>;
    using rejected_handler = std::function<void(const endpoint& from, std::error_code why)>;
    using completion = std::function<void(std::error_code)>;

    explicit node(config settings);
    ~node();  ///< stop()

    /// The handlers; set them before start().
    void on_message(message_handler handler);
    void on_peer_joined(joined_handler handler);  ///< a verified peer was heard for the first time
    void on_peer_left(left_handler handler);
    /// A connection, a message or a claim that was refused. A message whose claim to its sender is
    /// refused (sender_not_verified, own_address) comes to on_message all the same.
    void on_rejected(rejected_handler handler);

    /// Listens and begins to serve. Errors: bad_team, bad_address, already_running,
    /// std::errc::address_in_use, or what the system says.
    std::error_code start();

    /// Ends everything: each pending send is reported `stopped`, confirmed messages still go to
    /// the handlers (for drain_timeout at most), the threads are joined. Idempotent. From a
    /// handler it returns at once, and the thread it is called from ends with that handler.
    void stop() noexcept;

    endpoint address() const;  ///< by which others know us; nobody before start()
    const std::string& team() const noexcept;

    /// Sends and waits. No error: delivered, that is, the other side has taken it. White space at
    /// both ends of the text does not travel. The text `exit` says that we leave, and ends a link.
    /// Errors: bad_address, bad_text, message_too_long, queue_full, stopped at once; later
    /// not_taken, link_lost, std::errc::timed_out, connection_refused or what else the system says.
    std::error_code send(const endpoint& to, std::string_view text);

    /// The same without waiting: an error is a refusal at once, no error means that `done` (if
    /// any) will be called exactly once, like a handler. What is posted to one peer arrives in
    /// the order posted.
    std::error_code post(const endpoint& to, std::string_view text, completion done = {},
                         when_full mode = when_full::refuse);

    /// Sends to all peers side by side and waits for the last outcome.
    std::vector<delivery> broadcast(std::string_view text);

    /// Says CONNECT: makes a link where the other side can, to be used from then on.
    connect_result connect(const endpoint& to);

    /// Says `exit`.
    std::error_code leave(const endpoint& to) { return send(to, "exit"); }

    /// Whom we know: heard from and verified, or linked to us. Ordered by address.
    std::vector<peer> peers() const;

    counters statistics() const noexcept;

private:
    class impl;
    std::unique_ptr<impl> impl_;
};

}  // namespace p2pchat

template <>
struct std::is_error_code_enum<p2pchat::errc> : std::true_type {};

template <>
struct std::hash<p2pchat::endpoint> {
    std::size_t operator()(const p2pchat::endpoint& value) const noexcept;
};

#endif  // P2PCHAT_HPP

// =============================================================================================
// Implementation: from here on nothing is for users.
// =============================================================================================

#if defined(P2PCHAT_IMPLEMENTATION) && !defined(P2PCHAT_IMPLEMENTED)
#define P2PCHAT_IMPLEMENTED

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <list>
#include <mutex>
#include <new>
#include <ostream>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>

// ---------------------------------------------------------------------------------- >> platform
//
// The one place that knows Windows from POSIX. Each function stands here once for each system,
// side by side; sockets are non-blocking and not inherited from the moment they are made, where
// the system can do that in one step. Errors leave in the generic category.

#if defined(_WIN32)

#if defined(_WINSOCKAPI_) && !defined(_WINSOCK2API_) && defined(_MSC_VER)
#error "Include p2pchat.hpp before <windows.h> here, or define WIN32_LEAN_AND_MEAN."
#endif
#include <winsock2.h>

#include <mstcpip.h>
#include <ws2tcpip.h>
#if defined(_MSC_VER)
#pragma comment(lib, "ws2_32")
#endif

namespace p2pchat::detail::os {

using handle = tcp_socket::native_handle_type;
using native = SOCKET;
using poll_entry = WSAPOLLFD;
using length = int;
using size = int;
inline constexpr int send_flags = 0;

inline native raw(handle socket) noexcept { return static_cast<native>(socket); }

inline std::error_code generic(std::errc value) noexcept { return std::make_error_code(value); }

/// Winsock's codes, which <system_error> does not map everywhere, as those of <cerrno>.
inline std::error_code error_of(int code) noexcept {
    switch (code) {
        case 0: return {};
        case WSAEWOULDBLOCK: return generic(std::errc::operation_would_block);
        case WSAEINPROGRESS: return generic(std::errc::operation_in_progress);
        case WSAEINTR: return generic(std::errc::interrupted);
        case WSAEACCES: return generic(std::errc::permission_denied);
        case WSAEINVAL: return generic(std::errc::invalid_argument);
        case WSAEMFILE: return generic(std::errc::too_many_files_open);
        case WSAENOTSOCK: return generic(std::errc::not_a_socket);
        case WSAEADDRINUSE: return generic(std::errc::address_in_use);
        case WSAEADDRNOTAVAIL: return generic(std::errc::address_not_available);
        case WSAEAFNOSUPPORT: return generic(std::errc::address_family_not_supported);
        case WSAENETDOWN: return generic(std::errc::network_down);
        case WSAENETUNREACH: return generic(std::errc::network_unreachable);
        case WSAENETRESET: return generic(std::errc::network_reset);
        case WSAECONNABORTED: return generic(std::errc::connection_aborted);
        case WSAECONNRESET: return generic(std::errc::connection_reset);
        case WSAENOBUFS: return generic(std::errc::no_buffer_space);
        case WSAEISCONN: return generic(std::errc::already_connected);
        case WSAENOTCONN: return generic(std::errc::not_connected);
        case WSAESHUTDOWN: return generic(std::errc::broken_pipe);
        case WSAETIMEDOUT: return generic(std::errc::timed_out);
        case WSAECONNREFUSED: return generic(std::errc::connection_refused);
        case WSAEHOSTUNREACH: return generic(std::errc::host_unreachable);
        default: return {code, std::system_category()};
    }
}

inline std::error_code last_error() noexcept { return error_of(WSAGetLastError()); }

/// Winsock runs from the first socket to the end of the process.
inline std::error_code start_sockets() noexcept {
    static const int code = [] {
        WSADATA data;
        return WSAStartup(MAKEWORD(2, 2), &data);
    }();
    return error_of(code);
}

inline void close(handle socket) noexcept { ::closesocket(raw(socket)); }

inline handle prepared(native socket) noexcept {
    if (socket == INVALID_SOCKET) return tcp_socket::invalid;
    unsigned long on = 1;
    ::ioctlsocket(socket, FIONBIO, &on);
    ::SetHandleInformation(reinterpret_cast<HANDLE>(socket), HANDLE_FLAG_INHERIT, 0);
    return static_cast<handle>(socket);
}

inline handle open(int family, int type) noexcept {
    return prepared(
        ::WSASocketW(family, type, 0, nullptr, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT));
}

inline handle accept(handle listener) noexcept {
    return prepared(::accept(raw(listener), nullptr, nullptr));
}

/// SO_REUSEADDR would let two programs share a port here; this forbids it, to others too.
inline void own_port(handle socket) noexcept {
    const int on = 1;
    ::setsockopt(raw(socket), SOL_SOCKET, SO_EXCLUSIVEADDRUSE, reinterpret_cast<const char*>(&on),
                 sizeof on);
}

inline void keep_alive(handle socket, int seconds) noexcept {
    tcp_keepalive values{1, static_cast<ULONG>(seconds) * 1000,
                         static_cast<ULONG>((std::max)(1, seconds / 3)) * 1000};
    DWORD returned = 0;
    ::WSAIoctl(raw(socket), SIO_KEEPALIVE_VALS, &values, sizeof values, nullptr, 0, &returned,
               nullptr, nullptr);
}

inline int poll(poll_entry* entries, std::size_t count, int timeout) noexcept {
    return ::WSAPoll(entries, static_cast<ULONG>(count), timeout);
}

/// A channel to wake a poller by: a datagram socket connected to itself.
inline std::error_code open_channel(handle& in, handle& out) noexcept {
    if (auto error = start_sockets()) return error;
    in = open(AF_INET, SOCK_DGRAM);
    if (in == tcp_socket::invalid) return last_error();
    out = in;
    sockaddr_in self{};
    self.sin_family = AF_INET;
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int size = sizeof self;
    auto* const address = reinterpret_cast<sockaddr*>(&self);
    if (::bind(raw(in), address, size) == 0 && ::getsockname(raw(in), address, &size) == 0 &&
        ::connect(raw(in), address, size) == 0)
        return {};
    const auto error = last_error();
    close(in);
    return error;
}

inline void close_channel(handle in, handle) noexcept { close(in); }

inline void signal_channel(handle out) noexcept { ::send(raw(out), "", 1, 0); }

inline void drain_channel(handle in) noexcept {
    char bytes[64];
    while (::recv(raw(in), bytes, sizeof bytes, 0) > 0) {}
}

/// Calls `visit` with the addresses of this machine's interfaces until it returns true.
template <typename Visitor>
void visit_interfaces(const Visitor& visit) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (::getaddrinfo("", "0", &hints, &list) != 0) return;
    for (auto* entry = list; entry && !visit(entry->ai_addr); entry = entry->ai_next) {}
    ::freeaddrinfo(list);
}

}  // namespace p2pchat::detail::os

#else  // POSIX

#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace p2pchat::detail::os {

using handle = tcp_socket::native_handle_type;
using native = int;
using poll_entry = pollfd;
using length = socklen_t;
using size = std::size_t;
#if defined(MSG_NOSIGNAL)
inline constexpr int send_flags = MSG_NOSIGNAL;
#else
inline constexpr int send_flags = 0;  // SO_NOSIGPIPE does it, see prepared()
#endif

inline native raw(handle socket) noexcept { return static_cast<native>(socket); }

inline std::error_code error_of(int code) noexcept {
    // EAGAIN and EWOULDBLOCK may differ: let one of them stand for both.
    if (code == EAGAIN) code = EWOULDBLOCK;
    return {code, std::generic_category()};
}

inline std::error_code last_error() noexcept { return error_of(errno); }

inline std::error_code start_sockets() noexcept { return {}; }

inline void close(handle socket) noexcept { ::close(raw(socket)); }

inline handle set_flags(int descriptor) noexcept {
    if (descriptor < 0) return tcp_socket::invalid;
    ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    ::fcntl(descriptor, F_SETFL, O_NONBLOCK);
    return descriptor;
}

#if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)

inline handle open(int family, int type) noexcept {
    return ::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

inline handle accept(handle listener) noexcept {
    return ::accept4(raw(listener), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

#else  // macOS: two steps, between which a fork() in another thread may inherit

inline handle prepared(int socket) noexcept {
    const int on = 1;
    if (socket >= 0) ::setsockopt(socket, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
    return set_flags(socket);
}

inline handle open(int family, int type) noexcept { return prepared(::socket(family, type, 0)); }

inline handle accept(handle listener) noexcept {
    return prepared(::accept(raw(listener), nullptr, nullptr));
}

#endif

/// Lets a port be taken again at once after its last user ended.
inline void own_port(handle socket) noexcept {
    const int on = 1;
    ::setsockopt(raw(socket), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
}

#if defined(TCP_KEEPIDLE)
inline constexpr int keep_idle = TCP_KEEPIDLE;
#else
inline constexpr int keep_idle = TCP_KEEPALIVE;  // macOS's name for it
#endif

inline void keep_alive(handle socket, int seconds) noexcept {
    const int on = 1, interval = (std::max)(1, seconds / 3), probes = 3;
    ::setsockopt(raw(socket), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(raw(socket), IPPROTO_TCP, keep_idle, &seconds, sizeof seconds);
    ::setsockopt(raw(socket), IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    ::setsockopt(raw(socket), IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

inline int poll(poll_entry* entries, std::size_t count, int timeout) noexcept {
    return ::poll(entries, static_cast<nfds_t>(count), timeout);
}

/// A channel to wake a poller by: a pipe.
inline std::error_code open_channel(handle& in, handle& out) noexcept {
    int ends[2];
    if (::pipe(ends) != 0) return last_error();
    in = set_flags(ends[0]);
    out = set_flags(ends[1]);
    return {};
}

inline void close_channel(handle in, handle out) noexcept {
    close(in);
    close(out);
}

inline void signal_channel(handle out) noexcept {
    // A full pipe is as good as one byte more: the poller wakes.
    while (::write(raw(out), "", 1) < 0 && errno == EINTR) {}
}

inline void drain_channel(handle in) noexcept {
    char bytes[64];
    while (::read(raw(in), bytes, sizeof bytes) > 0) {}
}

/// Calls `visit` with the addresses of this machine's interfaces until it returns true.
template <typename Visitor>
void visit_interfaces(const Visitor& visit) {
    ifaddrs* list = nullptr;
    if (::getifaddrs(&list) != 0) return;
    for (auto* entry = list; entry; entry = entry->ifa_next) {
        const bool usable = entry->ifa_addr && (entry->ifa_flags & IFF_UP) != 0;
        if (usable && visit(entry->ifa_addr)) break;
    }
    ::freeifaddrs(list);
}

}  // namespace p2pchat::detail::os

#endif

// ------------------------------------------------------------------------------------ >> errors

namespace p2pchat {

namespace detail {

struct errc_text {
    const char* text;
    std::errc like;
};

inline errc_text describe(errc value) noexcept {
    switch (value) {
        case errc::bad_address: return {"not an IP address", std::errc::invalid_argument};
        case errc::bad_port: return {"not a port (1 to 65535)", std::errc::invalid_argument};
        case errc::bad_team:
            return {"not a team name (1 to 64 bytes, no white space)", std::errc::invalid_argument};
        case errc::bad_text:
            return {"not a text (empty, or with a line break or NUL)", std::errc::invalid_argument};
        case errc::too_few_words:
            return {"not a message (sender, team, text)", std::errc::invalid_argument};
        case errc::no_message: return {"closed without a message", std::errc::no_message};
        case errc::message_too_long: return {"message too long", std::errc::message_size};
        case errc::not_taken:
            return {"the peer closed without taking the message", std::errc::connection_reset};
        case errc::link_lost:
            return {"the link broke before the message was confirmed", std::errc::connection_aborted};
        case errc::queue_full:
            return {"too much is waiting for this peer already", std::errc::no_buffer_space};
        case errc::stopped: return {"the node does not run", std::errc::operation_canceled};
        case errc::already_running: return {"the node runs already", std::errc::already_connected};
        case errc::connection_limit:
            return {"gave way to a newer connection", std::errc::connection_aborted};
        case errc::sender_not_verified:
            return {"the sender is not where it says it is", std::errc::permission_denied};
        case errc::own_address: return {"that is our own address", std::errc::invalid_argument};
        case errc::protocol_error:
            return {"neither a message nor a control line", std::errc::protocol_error};
    }
    return {"unknown error", std::errc::invalid_argument};
}

class errc_category final : public std::error_category {
public:
    const char* name() const noexcept override { return "p2pchat"; }
    std::string message(int value) const override { return describe(static_cast<errc>(value)).text; }
    std::error_condition default_error_condition(int value) const noexcept override {
        return std::make_error_condition(describe(static_cast<errc>(value)).like);
    }
};

}  // namespace detail

const std::error_category& category() noexcept {
    static const detail::errc_category instance;
    return instance;
}

std::error_code make_error_code(errc value) noexcept {
    return {static_cast<int>(value), category()};
}

// ---------------------------------------------------------------------------------- >> endpoint

namespace detail {

inline constexpr errc no_error = errc{};

inline std::error_code to_error(errc value) noexcept {
    return value == no_error ? std::error_code() : make_error_code(value);
}

inline constexpr unsigned char v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

inline bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

inline int hex_digit(char c) noexcept {
    if (is_digit(c)) return c - '0';
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/// Reads a decimal number of at most `max`, without superfluous zeros, and moves `p` behind it.
inline bool scan_number(const char*& p, const char* end, unsigned max, unsigned& value) noexcept {
    const char* const start = p;
    value = 0;
    while (p != end && is_digit(*p)) {
        value = value * 10 + static_cast<unsigned>(*p++ - '0');
        if (value > max) return false;
    }
    return p != start && (*start != '0' || p - start == 1);
}

inline bool scan_v4(const char*& p, const char* end, unsigned char* out) noexcept {
    for (int i = 0; i < 4; ++i) {
        unsigned octet = 0;
        if (i != 0 && (p == end || *p++ != '.')) return false;
        if (!scan_number(p, end, 255, octet)) return false;
        out[i] = static_cast<unsigned char>(octet);
    }
    return true;
}

/// Up to four hexadecimal digits.
inline bool scan_group(const char*& p, const char* end, unsigned& value) noexcept {
    const char* const start = p;
    value = 0;
    for (int digit; p != end && p - start < 4 && (digit = hex_digit(*p)) >= 0; ++p)
        value = value * 16 + static_cast<unsigned>(digit);
    return p != start;
}

/// The text forms of RFC 4291, section 2.2; `text` is the address and nothing else.
inline bool parse_v6(std::string_view text, unsigned char (&out)[16]) noexcept {
    const char* p = text.data();
    const char* const end = p + text.size();
    unsigned char bytes[16] = {};
    int count = 0, gap = -1;  // bytes read; where "::" stood among them
    if (text.size() >= 2 && p[0] == ':' && p[1] == ':') {
        gap = 0;
        p += 2;
    }
    while (p != end) {
        const char* const start = p;
        unsigned group = 0;
        if (count > 14 || !scan_group(p, end, group)) return false;
        if (p != end && *p == '.') {  // the last four bytes, written as IPv4
            p = start;
            if (count > 12 || !scan_v4(p, end, bytes + count) || p != end) return false;
            count += 4;
            break;
        }
        bytes[count++] = static_cast<unsigned char>(group >> 8);
        bytes[count++] = static_cast<unsigned char>(group & 0xff);
        if (p == end) break;
        if (*p++ != ':' || p == end) return false;
        if (*p == ':') {
            if (gap >= 0) return false;
            gap = count;
            ++p;
        }
    }
    if (gap < 0 ? count != 16 : count > 14) return false;
    const auto head = static_cast<std::size_t>(gap < 0 ? count : gap);
    const auto tail = static_cast<std::size_t>(count) - head;
    std::memset(out, 0, sizeof out);
    std::memcpy(out, bytes, head);
    std::memcpy(out + sizeof out - tail, bytes + head, tail);
    return true;
}

/// A numeric address, an IPv6 one with its scope after a '%' or without.
inline bool parse_address(std::string_view text, unsigned char (&out)[16],
                          std::uint32_t& scope) noexcept {
    scope = 0;
    if (text.find(':') == std::string_view::npos) {
        const char* p = text.data();
        std::memcpy(out, v4_prefix, sizeof v4_prefix);
        return scan_v4(p, p + text.size(), out + 12) && p == text.data() + text.size();
    }
    if (const auto percent = text.find('%'); percent != std::string_view::npos) {
        const char* p = text.data() + percent + 1;
        unsigned value = 0;
        if (!scan_number(p, text.data() + text.size(), 0x7fffffff, value)) return false;
        if (p != text.data() + text.size()) return false;
        scope = value;
        text = text.substr(0, percent);
    }
    return parse_v6(text, out);
}

/// Reads an endpoint at the beginning of [p, end) and moves `p` behind it.
inline errc scan_endpoint(const char*& p, const char* end, endpoint& result) noexcept {
    unsigned char address[16];
    std::uint32_t scope = 0;
    unsigned port = 0;
    if (p != end && *p == '[') {
        const auto size = static_cast<std::size_t>(end - p);
        const auto* const close = static_cast<const char*>(std::memchr(p, ']', size));
        if (!close) return errc::bad_address;
        const std::string_view inside(p + 1, static_cast<std::size_t>(close - p - 1));
        if (inside.find(':') == std::string_view::npos || !parse_address(inside, address, scope))
            return errc::bad_address;
        p = close + 1;
    } else {
        std::memcpy(address, v4_prefix, sizeof v4_prefix);
        if (!scan_v4(p, end, address + 12)) return errc::bad_address;
    }
    if (p == end || *p++ != ':' || !scan_number(p, end, 65535, port) || port == 0)
        return errc::bad_port;
    result = endpoint(address, static_cast<std::uint16_t>(port), scope);
    return no_error;
}

inline void append_v4(std::string& out, const unsigned char* bytes) {
    for (int i = 0; i < 4; ++i) {
        if (i != 0) out += '.';
        out += std::to_string(bytes[i]);
    }
}

/// The longest run of two or more zero groups, the first of equals: [first, last).
inline void longest_zeros(const unsigned (&groups)[8], int& first, int& last) noexcept {
    first = last = 0;
    for (int i = 0; i < 8; ++i) {
        int end = i;
        while (end < 8 && groups[end] == 0) ++end;
        if (end - i > last - first && end - i >= 2) {
            first = i;
            last = end;
        }
        i = end > i ? end - 1 : i;
    }
}

inline void append_v6(std::string& out, const unsigned char (&bytes)[16]) {
    unsigned groups[8];
    for (int i = 0; i < 8; ++i)
        groups[i] = static_cast<unsigned>(bytes[2 * i]) << 8 | bytes[2 * i + 1];
    int first = 0, last = 0;
    longest_zeros(groups, first, last);
    for (int i = 0; i < 8; ++i) {
        if (i == first && last > first) {
            out += "::";
            i = last - 1;
            continue;
        }
        if (i != 0 && i != last) out += ':';
        bool leading = true;
        for (int shift = 12; shift >= 0; shift -= 4) {
            const unsigned digit = groups[i] >> shift & 0xf;
            leading = leading && digit == 0 && shift != 0;
            if (!leading) out += "0123456789abcdef"[digit];
        }
    }
}

/// As on the wire, or with the scope, which means something on this machine only.
inline void append_endpoint(std::string& out, const endpoint& value, bool with_scope) {
    if (value.is_v4()) {
        append_v4(out, value.bytes() + 12);
    } else {
        out += '[';
        append_v6(out, value.bytes());
        if (with_scope && value.scope() != 0) out += '%' + std::to_string(value.scope());
        out += ']';
    }
    out += ':';
    out += std::to_string(value.port());
}

/// An endpoint in the form that the system's calls take.
struct native_address {
    sockaddr_storage storage{};
    os::length size = sizeof(sockaddr_storage);

    native_address() noexcept = default;
    explicit native_address(const endpoint& value) noexcept {
        if (value.is_v4()) {
            sockaddr_in v4{};
            v4.sin_family = AF_INET;
            v4.sin_port = htons(value.port());
            std::memcpy(&v4.sin_addr, value.bytes() + 12, 4);
            std::memcpy(&storage, &v4, size = sizeof v4);
        } else {
            sockaddr_in6 v6{};
            v6.sin6_family = AF_INET6;
            v6.sin6_port = htons(value.port());
            v6.sin6_scope_id = value.scope();
            std::memcpy(&v6.sin6_addr, value.bytes(), 16);
            std::memcpy(&storage, &v6, size = sizeof v6);
        }
    }

    int family() const noexcept { return storage.ss_family; }
    sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
};

inline endpoint to_endpoint(const sockaddr* address) noexcept {
    unsigned char bytes[16];
    if (address->sa_family == AF_INET) {
        sockaddr_in v4;
        std::memcpy(&v4, address, sizeof v4);
        std::memcpy(bytes, v4_prefix, sizeof v4_prefix);
        std::memcpy(bytes + 12, &v4.sin_addr, 4);
        return {bytes, ntohs(v4.sin_port), 0};
    }
    if (address->sa_family != AF_INET6) return {};
    sockaddr_in6 v6;
    std::memcpy(&v6, address, sizeof v6);
    std::memcpy(bytes, &v6.sin6_addr, 16);
    return {bytes, ntohs(v6.sin6_port), v6.sin6_scope_id};
}

}  // namespace detail

endpoint::endpoint(std::string_view address, std::uint16_t port) noexcept {
    if (detail::parse_address(address, bytes_, scope_))
        port_ = port;
    else
        *this = endpoint();
}

endpoint::endpoint(const unsigned char (&address)[16], std::uint16_t port,
                   std::uint32_t scope) noexcept
    : scope_(scope), port_(port) {
    std::memcpy(bytes_, address, sizeof bytes_);
}

endpoint::operator bool() const noexcept {
    static constexpr unsigned char none[16] = {};
    const unsigned char* const address = is_v4() ? bytes_ + 12 : bytes_;
    return port_ != 0 && std::memcmp(address, none, is_v4() ? 4 : 16) != 0;
}

std::string endpoint::address() const {
    std::string out;
    if (is_v4())
        detail::append_v4(out, bytes_ + 12);
    else
        detail::append_v6(out, bytes_);
    if (scope_ != 0) out += '%' + std::to_string(scope_);
    return out;
}

bool endpoint::is_v4() const noexcept {
    return std::memcmp(bytes_, detail::v4_prefix, sizeof detail::v4_prefix) == 0;
}

bool endpoint::is_loopback() const noexcept {
    static constexpr unsigned char v6_loopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    return is_v4() ? bytes_[12] == 127 : std::memcmp(bytes_, v6_loopback, sizeof bytes_) == 0;
}

bool endpoint::same_address(const endpoint& other) const noexcept {
    return std::memcmp(bytes_, other.bytes_, sizeof bytes_) == 0;
}

int endpoint::compare(const endpoint& a, const endpoint& b) noexcept {
    if (const int order = std::memcmp(a.bytes_, b.bytes_, sizeof a.bytes_)) return order;
    if (a.scope_ != b.scope_) return a.scope_ < b.scope_ ? -1 : 1;
    return static_cast<int>(a.port_) - static_cast<int>(b.port_);
}

std::error_code parse(std::string_view text, endpoint& result) noexcept {
    const char* p = text.data();
    const char* const end = p + text.size();
    endpoint found;
    if (const errc error = detail::scan_endpoint(p, end, found); error != detail::no_error)
        return make_error_code(error);
    if (p != end) return make_error_code(errc::bad_port);
    result = found;
    return {};
}

std::string to_string(const endpoint& value) {
    std::string out;
    detail::append_endpoint(out, value, true);
    return out;
}

std::ostream& operator<<(std::ostream& out, const endpoint& value) {
    return out << to_string(value);
}

std::error_code resolve(std::string_view host, std::uint16_t port, endpoint& result) {
    if (port == 0) return make_error_code(errc::bad_port);
    if (auto error = detail::os::start_sockets()) return error;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (host.empty() || ::getaddrinfo(std::string(host).c_str(), nullptr, &hints, &list) != 0)
        return make_error_code(errc::bad_address);
    endpoint found;
    for (auto* entry = list; entry && !found.is_v4(); entry = entry->ai_next) {
        const endpoint candidate = detail::to_endpoint(entry->ai_addr);
        const endpoint with_port(candidate.bytes(), port, candidate.scope());
        if (with_port && (!found || with_port.is_v4())) found = with_port;
    }
    ::freeaddrinfo(list);
    if (!found) return make_error_code(errc::bad_address);
    result = found;
    return {};
}

namespace detail {

/// The local address of the route to `target`: connecting a datagram socket sends nothing.
inline endpoint route_source(const endpoint& target) noexcept {
    native_address address(target), local;
    const os::handle socket = os::open(address.family(), SOCK_DGRAM);
    if (socket == tcp_socket::invalid) return {};
    endpoint found;
    if (::connect(os::raw(socket), address.get(), address.size) == 0 &&
        ::getsockname(os::raw(socket), local.get(), &local.size) == 0)
        found = to_endpoint(local.get());
    os::close(socket);
    return {found.bytes(), 0, found.scope()};
}

inline bool is_named(const endpoint& address) noexcept {
    return static_cast<bool>(endpoint(address.bytes(), 1, 0));
}

}  // namespace detail

endpoint detect_address() {
    const endpoint loopback("127.0.0.1", 0);
    if (detail::os::start_sockets()) return loopback;
    // Documentation addresses (RFC 5737, RFC 3849), which only a default route leads to.
    for (const char* target : {"192.0.2.1", "2001:db8::1"})
        if (const auto found = detail::route_source({target, 9}); detail::is_named(found)) return found;
    // A LAN without a default route: the first interface that is not loopback, IPv4 preferred.
    endpoint best = loopback;
    detail::os::visit_interfaces([&](const sockaddr* entry) {
        const endpoint found = detail::to_endpoint(entry);
        const endpoint address(found.bytes(), 0, found.scope());
        if (!detail::is_named(address) || address.is_loopback()) return false;
        if (best.is_loopback() || address.is_v4()) best = address;
        return best.is_v4();
    });
    return best;
}

// ----------------------------------------------------------------------------------- >> message

namespace detail {

inline bool is_space(char c) noexcept { return c == ' ' || (c >= '\t' && c <= '\r'); }

inline void skip_space(const char*& p, const char* end) noexcept {
    while (p != end && is_space(*p)) ++p;
}

inline std::string_view trimmed(std::string_view text) noexcept {
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    return text;
}

/// Whether a byte below 14 is among these: what a text may not hold (NUL, LF, CR) lies there.
/// Eight bytes at a time: 5 ns for 40 bytes, where a loop over bytes takes 20.
inline bool has_low_byte(std::string_view text) noexcept {
    constexpr std::uint64_t each = 0x0101010101010101u;
    std::uint64_t found = 0;
    std::size_t i = 0;
    for (; i + 8 <= text.size(); i += 8) {
        std::uint64_t word;
        std::memcpy(&word, text.data() + i, 8);
        found |= (word - each * 14) & ~word;
    }
    bool tail = false;
    for (; i < text.size(); ++i) tail |= static_cast<unsigned char>(text[i]) < 14;
    return tail || (found & each * 0x80) != 0;
}

/// Several lines may come from a one-shot, ended by LF or CR LF.
inline bool is_text(std::string_view text) noexcept {
    if (text.empty()) return false;
    if (!has_low_byte(text)) return true;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\0') return false;
        if (text[i] == '\r' && (i + 1 == text.size() || text[i + 1] != '\n')) return false;
    }
    return true;
}

/// What we send: one line that parse() gives back as it is.
inline bool is_sendable(std::string_view text) noexcept {
    return !text.empty() && text.size() == trimmed(text).size() &&
           (!has_low_byte(text) || text.find_first_of({"\r\n\0", 3}) == std::string_view::npos);
}

inline bool is_team(std::string_view team) noexcept {
    if (team.empty() || team.size() > max_team_bytes) return false;
    return std::none_of(team.begin(), team.end(), [](char c) { return is_space(c) || c == '\0'; });
}

inline bool in_brackets(std::string_view word) noexcept {
    return word.size() >= 2 && word.front() == '<' && word.back() == '>';
}

inline errc scan_message(std::string_view bytes, message_view& result) noexcept {
    const char* p = bytes.data();
    const char* end = p + bytes.size();
    skip_space(p, end);
    while (end != p && is_space(end[-1])) --end;
    if (p == end) return errc::too_few_words;

    const bool bracket = *p == '<';
    if (bracket) ++p;
    if (const errc error = scan_endpoint(p, end, result.sender); error != no_error) return error;
    if (bracket && (p == end || *p++ != '>')) return errc::bad_port;
    if (p == end) return errc::too_few_words;
    if (!is_space(*p)) return errc::bad_port;
    skip_space(p, end);

    const char* const team = p;
    while (p != end && !is_space(*p)) ++p;
    if (p == end) return errc::too_few_words;
    result.team = {team, static_cast<std::size_t>(p - team)};
    if (in_brackets(result.team)) result.team = result.team.substr(1, result.team.size() - 2);
    if (result.team.empty() || result.team.size() > max_team_bytes ||
        std::memchr(team, '\0', static_cast<std::size_t>(p - team)))
        return errc::bad_team;
    skip_space(p, end);

    result.text = {p, static_cast<std::size_t>(end - p)};
    return is_text(result.text) ? no_error : errc::bad_text;
}

}  // namespace detail

std::error_code parse(std::string_view bytes, message_view& result) noexcept {
    return detail::to_error(detail::scan_message(bytes, result));
}

std::error_code format(const endpoint& sender, std::string_view team, std::string_view text,
                       std::string& result) {
    if (sender.port() == 0) return make_error_code(errc::bad_port);
    if (!sender) return make_error_code(errc::bad_address);
    if (!detail::is_team(team) || detail::in_brackets(team)) return make_error_code(errc::bad_team);
    if (!detail::is_sendable(text)) return make_error_code(errc::bad_text);
    result.clear();
    detail::append_endpoint(result, sender, false);
    result.append(1, ' ').append(team).append(1, ' ').append(text);
    return {};
}

// ------------------------------------------------------------------------------------ >> socket

namespace detail {

using clock = std::chrono::steady_clock;

/// Milliseconds until `end`, rounded up, as poll() takes them.
inline int remaining(clock::time_point end, clock::time_point now) noexcept {
    if (end <= now) return 0;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now).count();
    return static_cast<int>((std::min<long long>)(left, 1000 * 60 * 60));
}

/// Waits until a socket can be read from or written to. Its errors are found by the next call.
inline std::error_code wait_ready(os::handle socket, bool to_write, clock::time_point end) noexcept {
    for (;;) {
        os::poll_entry entry{};
        entry.fd = os::raw(socket);
        entry.events = to_write ? POLLOUT : POLLIN;
        const int left = remaining(end, clock::now());
        const int count = os::poll(&entry, 1, left);
        if (count > 0) return {};
        if (count == 0 && left == 0) return std::make_error_code(std::errc::timed_out);
        if (count < 0 && os::last_error() != std::errc::interrupted) return os::last_error();
    }
}

/// Repeats a call that does not block until it succeeds, fails or its time is over. A time-out of
/// zero is one try.
template <typename Call>
std::error_code until_ready(os::handle socket, bool to_write, std::chrono::milliseconds timeout,
                            const Call& call) noexcept {
    const auto end = timeout.count() > 0 ? clock::now() + timeout : clock::time_point();
    for (;;) {
        const std::error_code error = call();
        if (error == std::errc::interrupted) continue;
        if (error != std::errc::operation_would_block || timeout.count() <= 0) return error;
        if (auto failed = wait_ready(socket, to_write, end)) return failed;
    }
}

inline void set_option(os::handle socket, int level, int name, int value) noexcept {
    ::setsockopt(os::raw(socket), level, name, reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace detail

tcp_socket::tcp_socket(tcp_socket&& other) noexcept
    : handle_(std::exchange(other.handle_, invalid)) {}

tcp_socket& tcp_socket::operator=(tcp_socket&& other) noexcept {
    if (this != &other) {
        close();
        handle_ = std::exchange(other.handle_, invalid);
    }
    return *this;
}

std::error_code tcp_socket::listen(const endpoint& local) {
    using namespace detail;
    close();
    if (auto error = os::start_sockets()) return error;
    native_address address(local);
    handle_ = os::open(address.family(), SOCK_STREAM);
    if (!is_open()) return os::last_error();
    os::own_port(handle_);
    if (!local.is_v4()) set_option(handle_, IPPROTO_IPV6, IPV6_V6ONLY, is_named(local) ? 1 : 0);
    if (::bind(os::raw(handle_), address.get(), address.size) == 0 &&
        ::listen(os::raw(handle_), SOMAXCONN) == 0)
        return {};
    const auto error = os::last_error();
    close();
    return error;
}

std::error_code tcp_socket::accept(tcp_socket& peer, milliseconds timeout) noexcept {
    using namespace detail;
    return until_ready(handle_, false, timeout, [&]() -> std::error_code {
        const auto handle = os::accept(handle_);
        if (handle == invalid) return os::last_error();
        peer.close();
        peer.handle_ = handle;
        return {};
    });
}

std::error_code tcp_socket::connect(const endpoint& to, milliseconds timeout) noexcept {
    using namespace detail;
    close();
    if (!to) return make_error_code(to.port() == 0 ? errc::bad_port : errc::bad_address);
    if (auto error = os::start_sockets()) return error;
    native_address address(to);
    handle_ = os::open(address.family(), SOCK_STREAM);
    if (!is_open()) return os::last_error();
    std::error_code error;
    if (::connect(os::raw(handle_), address.get(), address.size) != 0) {
        error = os::last_error();
        const bool under_way = error == std::errc::operation_in_progress ||
                               error == std::errc::operation_would_block ||
                               error == std::errc::interrupted;
        if (under_way && timeout.count() <= 0)
            return std::make_error_code(std::errc::operation_in_progress);
        if (under_way) error = wait_ready(handle_, true, clock::now() + timeout);
    }
    if (!error) error = finish_connect();
    if (error) close();
    return error;
}

std::error_code tcp_socket::finish_connect() noexcept {
    using namespace detail;
    int code = 0;
    os::length size = sizeof code;
    if (::getsockopt(os::raw(handle_), SOL_SOCKET, SO_ERROR, reinterpret_cast<char*>(&code), &size) != 0)
        return os::last_error();
    if (code != 0) return os::error_of(code);
    // A port of this machine on which nobody listens can be connected to itself, where it happens
    // to be the port that the system chose for us.
    return local() == remote() ? std::make_error_code(std::errc::connection_refused)
                               : std::error_code();
}

std::error_code tcp_socket::send(std::string_view data, std::size_t& sent,
                                 milliseconds timeout) noexcept {
    using namespace detail;
    sent = 0;
    return until_ready(handle_, true, timeout, [&]() -> std::error_code {
        while (sent < data.size()) {
            const auto left = (std::min<std::size_t>)(data.size() - sent, 1u << 30);
            const auto count = ::send(os::raw(handle_), data.data() + sent,
                                      static_cast<os::size>(left), os::send_flags);
            if (count < 0) return os::last_error();
            sent += static_cast<std::size_t>(count);
        }
        return {};
    });
}

std::error_code tcp_socket::receive(char* buffer, std::size_t size, std::size_t& received,
                                    milliseconds timeout) noexcept {
    using namespace detail;
    received = 0;
    return until_ready(handle_, false, timeout, [&]() -> std::error_code {
        const auto count = ::recv(os::raw(handle_), buffer, static_cast<os::size>(size), 0);
        if (count < 0) return os::last_error();
        received = static_cast<std::size_t>(count);
        return {};
    });
}

std::error_code tcp_socket::shutdown_send() noexcept {
    constexpr int our_side = 1;  // SHUT_WR, SD_SEND
    return ::shutdown(detail::os::raw(handle_), our_side) == 0 ? std::error_code()
                                                               : detail::os::last_error();
}

void tcp_socket::no_delay() noexcept { detail::set_option(handle_, IPPROTO_TCP, TCP_NODELAY, 1); }

void tcp_socket::keep_alive(std::chrono::seconds idle) noexcept {
    const auto seconds = (std::min<long long>)(idle.count(), 1 << 15);
    if (seconds > 0) detail::os::keep_alive(handle_, static_cast<int>(seconds));
}

endpoint tcp_socket::local() const noexcept {
    detail::native_address address;
    if (::getsockname(detail::os::raw(handle_), address.get(), &address.size) != 0) return {};
    return detail::to_endpoint(address.get());
}

endpoint tcp_socket::remote() const noexcept {
    detail::native_address address;
    if (::getpeername(detail::os::raw(handle_), address.get(), &address.size) != 0) return {};
    return detail::to_endpoint(address.get());
}

void tcp_socket::close() noexcept {
    if (is_open()) detail::os::close(std::exchange(handle_, invalid));
}

void tcp_socket::reset() noexcept {
    if (!is_open()) return;
    const linger at_once{1, 0};
    ::setsockopt(detail::os::raw(handle_), SOL_SOCKET, SO_LINGER,
                 reinterpret_cast<const char*>(&at_once), sizeof at_once);
    close();
}

// ------------------------------------------------------------------------------------- >> peers

struct peer_set::state {
    mutable std::mutex mutex;  // guards the two below
    std::list<peer> by_age;    // heard from most recently first
    std::unordered_map<endpoint, std::list<peer>::iterator> by_address;
    std::size_t max = 0;

    bool add(const endpoint& address, std::string_view team);
};

peer_set::peer_set(std::size_t max_peers) : state_(new state) { state_->max = max_peers; }

peer_set::~peer_set() = default;

bool peer_set::heard(const endpoint& address, std::string_view team) {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    auto& by_age = state_->by_age;
    if (by_age.empty() || by_age.front().address != address) {  // else: it goes on talking
        const auto found = state_->by_address.find(address);
        if (found == state_->by_address.end()) return state_->add(address, team);
        by_age.splice(by_age.begin(), by_age, found->second);
    }
    peer& known = by_age.front();
    if (known.team != team) known.team = team;
    known.last_heard = std::chrono::system_clock::now();
    return false;
}

bool peer_set::state::add(const endpoint& address, std::string_view team) {
    if (max == 0) return false;
    if (by_address.size() >= max) {
        by_address.erase(by_age.back().address);
        by_age.pop_back();
    }
    by_age.push_front({address, std::string(team), std::chrono::system_clock::now(), false});
    try {
        by_address.emplace(address, by_age.begin());
    } catch (...) {
        by_age.pop_front();
        throw;
    }
    return true;
}

bool peer_set::remove(const endpoint& address, peer& removed) {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    const auto found = state_->by_address.find(address);
    if (found == state_->by_address.end()) return false;
    removed = std::move(*found->second);
    state_->by_age.erase(found->second);
    state_->by_address.erase(found);
    return true;
}

void peer_set::clear() noexcept {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->by_address.clear();
    state_->by_age.clear();
}

bool peer_set::contains(const endpoint& address) const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->by_address.count(address) != 0;
}

std::size_t peer_set::size() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->by_address.size();
}

std::vector<peer> peer_set::snapshot() const {
    std::vector<peer> result;
    {
        const std::lock_guard<std::mutex> lock(state_->mutex);
        result.assign(state_->by_age.begin(), state_->by_age.end());
    }
    std::sort(result.begin(), result.end(),
              [](const peer& a, const peer& b) { return a.address < b.address; });
    return result;
}

}  // namespace p2pchat

std::size_t std::hash<p2pchat::endpoint>::operator()(const p2pchat::endpoint& value) const noexcept {
    std::uint64_t half[2];
    std::memcpy(half, value.bytes(), sizeof half);
    std::uint64_t mixed = half[0] ^ (std::uint64_t{value.port()} << 32 | value.scope());
    mixed = (mixed ^ mixed >> 29) * 0xbf58476d1ce4e5b9u + half[1];
    mixed = (mixed ^ mixed >> 32) * 0x94d049bb133111ebu;
    return static_cast<std::size_t>(mixed ^ mixed >> 31);
}

#endif  // P2PCHAT_IMPLEMENTATION
