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
//   in. That one needs exceptions. Link with the system's threads (-pthread) and, on Windows, with
//   ws2_32.
//
//       #define P2PCHAT_IMPLEMENTATION            // in one source file
//       #include "p2pchat.hpp"
//       #include <cstdlib>
//       #include <iostream>
//
//       int main(int argc, char** argv) {         // talk PORT [ADDRESS:PORT of somebody]...
//           p2pchat::config config;
//           config.team = "BTC";
//           config.port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 5000);
//
//           p2pchat::node node(config);
//           node.on_message([](const p2pchat::message& m) {
//               std::cout << m.reply_to() << ' ' << m.team << ": " << m.text << '\n' << std::flush;
//           });
//           if (auto error = node.start()) { std::cerr << error.message() << '\n'; return 1; }
//           std::cout << "I am " << node.address() << '\n' << std::flush;
//
//           for (int i = 2; i < argc; ++i) {      // from here on we know each other
//               p2pchat::endpoint somebody;
//               auto error = parse(argv[i], somebody);
//               if (!error) error = node.connect(somebody).error;
//               if (error) std::cerr << argv[i] << ": " << error.message() << '\n';
//           }
//           for (std::string line; std::getline(std::cin, line);) {
//               const auto outcomes = node.broadcast(line);  // to all we know; waits for the last
//               if (outcomes.empty()) std::cerr << "nobody is known yet\n";
//               for (const auto& [to, error] : outcomes)
//                   std::cerr << to << ": " << (error ? error.message() : "delivered") << '\n';
//           }
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

#if defined(_MSVC_LANG) ? _MSVC_LANG < 201703L : __cplusplus < 201703L
#error "p2pchat.hpp needs C++17: compile with -std=c++17 or later (MSVC: /std:c++17)."
#endif

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
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
    bad_address = 1,   ///< no numeric IPv4 or IPv6 address (invalid_argument)
    bad_port,          ///< no port in 1..65535 (invalid_argument)
    bad_team,          ///< not 1..64 bytes without white space (invalid_argument)
    bad_text,          ///< empty, or CR, LF or NUL in it (invalid_argument)
    too_few_words,     ///< not "sender team text" (invalid_argument)
    no_message,        ///< the connection ended before its first byte (no_message)
    message_too_long,  ///< over config::max_message_bytes (message_size)
    not_taken,         ///< the peer closed without taking the message (connection_reset)
    link_lost,         ///< the link broke before the confirmation (connection_aborted)
    queue_full,        ///< over config::max_queued_bytes (no_buffer_space)
    stopped,           ///< the node does not run, or stopped meanwhile (operation_canceled)
    already_running,   ///< start() of a node that runs (already_connected)
    connection_limit,  ///< gave way to a newer one at config::max_connections (connection_aborted)
    sender_not_verified,  ///< the sender does not come from the address it claims
    own_address,          ///< our own address is never a peer (invalid_argument)
    protocol_error,       ///< a line of a link that is neither message nor control (protocol_error)
};

/// The category of errc. Thread-safe.
const std::error_category& category() noexcept;
std::error_code make_error_code(errc value) noexcept;

// ---------------------------------------------------------------------------------- >> endpoint

class endpoint;
namespace detail {
errc scan_endpoint(const char*& p, const char* end, endpoint& result) noexcept;
}

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
    /// Equal but for port and scope.
    bool same_address(const endpoint& other) const noexcept {
        return std::memcmp(bytes_, other.bytes_, sizeof bytes_) == 0;
    }

    friend bool operator==(const endpoint& a, const endpoint& b) noexcept {
        return a.port_ == b.port_ && a.scope_ == b.scope_ && a.same_address(b);
    }
    friend bool operator!=(const endpoint& a, const endpoint& b) noexcept { return !(a == b); }
    friend bool operator<(const endpoint& a, const endpoint& b) noexcept;

private:
    friend errc detail::scan_endpoint(const char*& p, const char* end, endpoint& result) noexcept;
    unsigned char bytes_[16] = {};
    std::uint32_t scope_ = 0;
    std::uint16_t port_ = 0;
};

/// Reads "10.18.1.7:5000" or "[fe80::1]:5000" (a scope as in "[fe80::1%2]:5000" by its number).
/// bad_address or bad_port says what is wrong; `result` is then left as it was.
std::error_code parse(std::string_view text, endpoint& result) noexcept;

/// The same text back; IPv6 in the shortest form, lower case (RFC 5952).
std::string to_string(const endpoint& value);
/// A template so that <ostream> is needed where it is used only: it makes the implementation 4 %
/// dearer to include.
template <typename Traits>
std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out,
                                             const endpoint& value) {
    return out << to_string(value);
}

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

    /// The next connection made to a listening socket and, if asked, where it comes from.
    std::error_code accept(tcp_socket& peer, milliseconds timeout,
                           endpoint* from = nullptr) noexcept;

    /// Connects. With a time-out of zero it starts to and returns std::errc::operation_in_progress;
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

    std::size_t max_message_bytes = 64 * 1024;  ///< of one message, sender and team included
    std::size_t max_connections = 1024;         ///< open at once, links not counted
    std::size_t max_links = 1024;               ///< open at once; over it peers get one-shots
    std::size_t max_peers = 4096;               ///< remembered
    std::size_t max_queued_bytes = 256 * 1024;  ///< to one peer, not yet confirmed; 256 KiB at most
    std::size_t max_received_bytes = 1024 * 1024;  ///< received, waiting for the handlers

    std::chrono::milliseconds connect_timeout{5000};
    std::chrono::milliseconds handshake_timeout{5000};  ///< CONNECT until its answer
    std::chrono::milliseconds delivery_timeout{5000};   ///< connected, until confirmed
    std::chrono::milliseconds first_message_timeout{
        10000};                                     ///< accepted, until the message is whole
    std::chrono::milliseconds quiet_period{2000};   ///< nothing more came: the message is whole
    std::chrono::milliseconds drain_timeout{1000};  ///< stop() hands over what it has confirmed
    std::chrono::seconds keep_alive{15};  ///< a link silent for this long is probed by the system

    bool leave_on_stop =
        false;  ///< stop() first says `exit` to all peers, for drain_timeout at most
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
    std::uint64_t rejected = 0;   ///< connections, messages and claims: each a call of on_rejected
    std::uint64_t delivered = 0;  ///< messages
    std::uint64_t undelivered = 0;  ///< messages
    std::uint64_t dropped = 0;      ///< taken, but stop() did not wait for their handler
};

/// What post() does when max_queued_bytes wait for the peer already.
enum class when_full {
    refuse,  ///< return errc::queue_full at once
    wait,    ///< wait for room, for delivery_timeout at most
};

/// A chat peer. Every member but the constructor, the destructor and the on_... may be called from
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
    /// both ends of the text does not travel. Two texts are commands: `exit`, in any case, says
    /// that we leave, and ends a link; `CONNECT` is what connect() says, without making a link. A
    /// text of any more than that word is none: whoever passes on what a person says puts the name
    /// before it, "Ann: exit".
    /// Errors: bad_address, bad_text, message_too_long, queue_full, stopped at once; later
    /// not_taken, link_lost, std::errc::timed_out, connection_refused or what else the system says.
    std::error_code send(const endpoint& to, std::string_view text);

    /// The same without waiting, the texts `exit` and `CONNECT` included: an error is a refusal at
    /// once, no error means that `done` (if any) will be called exactly once, like a handler. What
    /// is posted to one peer arrives in the order posted.
    std::error_code post(const endpoint& to, std::string_view text, completion done = {},
                         when_full mode = when_full::refuse);

    /// Sends to all peers side by side, as send() does, and waits for the last outcome.
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

#if !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#error "p2pchat.hpp needs exceptions in this one file: no -fno-exceptions here (MSVC: /EHsc)."
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>

// ---------------------------------------------------------------------------------- >> platform
//
// The one place that knows Windows from POSIX. Each function stands here once for each system,
// side by side; sockets are non-blocking and not inherited from the moment they are made, where
// the system can do that in one step. Errors leave in the generic category.

#if defined(_WIN32)

#if defined(SOMAXCONN) && !defined(_WINSOCK2API_) && defined(_MSC_VER)  // <winsock.h> came first
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

inline native raw(handle socket) noexcept { return static_cast<native>(socket); }

inline std::error_code generic(std::errc value) noexcept { return std::make_error_code(value); }

/// Winsock's codes, which <system_error> does not map everywhere, as those of <cerrno>.
inline std::error_code error_of(int code) noexcept {
    switch (code) {
        case 0:
            return {};
        case WSAEWOULDBLOCK:
            return generic(std::errc::operation_would_block);
        case WSAEINPROGRESS:
            return generic(std::errc::operation_in_progress);
        case WSAEINTR:
            return generic(std::errc::interrupted);
        case WSAEACCES:
            return generic(std::errc::permission_denied);
        case WSAEINVAL:
            return generic(std::errc::invalid_argument);
        case WSAEMFILE:
            return generic(std::errc::too_many_files_open);
        case WSAENOTSOCK:
            return generic(std::errc::not_a_socket);
        case WSAEADDRINUSE:
            return generic(std::errc::address_in_use);
        case WSAEADDRNOTAVAIL:
            return generic(std::errc::address_not_available);
        case WSAEAFNOSUPPORT:
            return generic(std::errc::address_family_not_supported);
        case WSAENETDOWN:
            return generic(std::errc::network_down);
        case WSAENETUNREACH:
            return generic(std::errc::network_unreachable);
        case WSAENETRESET:
            return generic(std::errc::network_reset);
        case WSAECONNABORTED:
            return generic(std::errc::connection_aborted);
        case WSAECONNRESET:
            return generic(std::errc::connection_reset);
        case WSAENOBUFS:
            return generic(std::errc::no_buffer_space);
        case WSAEISCONN:
            return generic(std::errc::already_connected);
        case WSAENOTCONN:
            return generic(std::errc::not_connected);
        case WSAESHUTDOWN:
            return generic(std::errc::broken_pipe);
        case WSAETIMEDOUT:
            return generic(std::errc::timed_out);
        case WSAECONNREFUSED:
            return generic(std::errc::connection_refused);
        case WSAEHOSTUNREACH:
            return generic(std::errc::host_unreachable);
        default:
            return {code, std::system_category()};
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
    ::ioctlsocket(socket, static_cast<long>(FIONBIO), &on);
    ::SetHandleInformation(reinterpret_cast<HANDLE>(socket), HANDLE_FLAG_INHERIT, 0);
    return static_cast<handle>(socket);
}

inline handle open(int family, int type) noexcept {
    return prepared(::WSASocketW(family, type, 0, nullptr, 0,
                                 WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT));
}

inline handle accept(handle listener, sockaddr* from, length* from_size) noexcept {
    return prepared(::accept(raw(listener), from, from_size));
}

inline int send(handle socket, const char* data, std::size_t size) noexcept {
    return ::send(raw(socket), data, static_cast<int>(size), 0);
}

/// A reset may look like the end of the stream (under Wine), but to WSAPoll.
inline int receive(handle socket, char* buffer, std::size_t size) noexcept {
    const int count = ::recv(raw(socket), buffer, static_cast<int>(size), 0);
    if (count != 0) return count;
    WSAPOLLFD end{raw(socket), POLLIN, 0};
    if (::WSAPoll(&end, 1, 0) != 1 || (end.revents & POLLERR) == 0) return 0;
    WSASetLastError(WSAECONNRESET);
    return -1;
}

/// Why bind() or listen() failed: a port that another has for itself is in use.
inline std::error_code listen_error() noexcept {
    const int code = WSAGetLastError();
    return error_of(code == WSAEACCES ? WSAEADDRINUSE : code);
}

/// SO_REUSEADDR would let two programs share a port here; this forbids it, to others too.
inline void own_port(handle socket) noexcept {
    const int on = 1;
    ::setsockopt(raw(socket), SOL_SOCKET, SO_EXCLUSIVEADDRUSE, reinterpret_cast<const char*>(&on),
                 sizeof on);
}

/// Windows sends ten probes, whatever it is asked.
inline void keep_alive(handle socket, int seconds) noexcept {
    tcp_keepalive values{1, static_cast<ULONG>(seconds) * 1000, static_cast<ULONG>(seconds) * 100};
    DWORD returned = 0;
    ::WSAIoctl(raw(socket), SIO_KEEPALIVE_VALS, &values, sizeof values, nullptr, 0, &returned,
               nullptr, nullptr);
}

/// Bytes sent that the other side's system has not acknowledged; not to be had here.
inline int unacknowledged(handle) noexcept { return 0; }

/// Whether a connection did not come about, which leaves the error where it is.
inline bool has_failed(native socket) noexcept {
    sockaddr_storage peer;
    length size = sizeof peer;
    if (::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &size) == 0) return false;
    fd_set failed;
    failed.fd_count = 1;
    failed.fd_array[0] = socket;
    timeval at_once{};
    return ::select(0, nullptr, nullptr, &failed, &at_once) == 1;
}

/// Before Windows 10 2004, WSAPoll does not tell that a connection failed: then we look, ten times
/// a second while one is under way.
inline int poll(poll_entry* entries, std::size_t count, int timeout) noexcept {
    constexpr int slice = 100;
    bool connecting = false;
    for (std::size_t i = 0; i < count && !connecting; ++i)
        connecting = (entries[i].events & POLLOUT) != 0;
    for (;;) {
        const bool whole = !connecting || (timeout >= 0 && timeout <= slice);
        int ready = ::WSAPoll(entries, static_cast<ULONG>(count), whole ? timeout : slice);
        for (std::size_t i = 0; i < count && connecting && ready >= 0; ++i) {
            poll_entry& entry = entries[i];
            if (entry.revents != 0 || (entry.events & POLLOUT) == 0 || !has_failed(entry.fd))
                continue;
            entry.revents = POLLERR;
            ++ready;
        }
        if (ready != 0 || whole) return ready;
        if (timeout > 0) timeout -= slice;
    }
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
    int length_of_self = sizeof self;
    auto* const address = reinterpret_cast<sockaddr*>(&self);
    if (::bind(raw(in), address, length_of_self) == 0 &&
        ::getsockname(raw(in), address, &length_of_self) == 0 &&
        ::connect(raw(in), address, length_of_self) == 0)
        return {};
    const auto error = last_error();
    close(in);
    in = out = tcp_socket::invalid;
    return error;
}

inline void close_channel(handle in, handle) noexcept { close(in); }

inline void signal_channel(handle out) noexcept { ::send(raw(out), "", 1, 0); }

inline void drain_channel(handle in) noexcept {
    char bytes[64];
    while (::recv(raw(in), bytes, sizeof bytes, 0) > 0) {
    }
}

/// Calls `visit` with the addresses of this machine's interfaces until it returns true.
template <typename Visitor>
void visit_interfaces(const Visitor& visit) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (::getaddrinfo("", "0", &hints, &list) != 0) return;
    for (auto* entry = list; entry && !visit(entry->ai_addr); entry = entry->ai_next) {
    }
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
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace p2pchat::detail::os {

using handle = tcp_socket::native_handle_type;
using native = int;
using poll_entry = pollfd;
using length = socklen_t;
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

inline handle accept(handle listener, sockaddr* from, length* from_size) noexcept {
    return ::accept4(raw(listener), from, from_size, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

inline int open_pipe(int (&ends)[2]) noexcept { return ::pipe2(ends, O_CLOEXEC | O_NONBLOCK); }

#else  // macOS: two steps, between which a fork() in another thread may inherit

inline handle prepared(int socket) noexcept {
    const int on = 1;
    if (socket >= 0) ::setsockopt(socket, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
    return set_flags(socket);
}

inline handle open(int family, int type) noexcept { return prepared(::socket(family, type, 0)); }

inline handle accept(handle listener, sockaddr* from, length* from_size) noexcept {
    return prepared(::accept(raw(listener), from, from_size));
}

inline int open_pipe(int (&ends)[2]) noexcept {
    const int result = ::pipe(ends);
    if (result == 0) set_flags(ends[0]), set_flags(ends[1]);
    return result;
}

#endif

inline ssize_t send(handle socket, const char* data, std::size_t size) noexcept {
    return ::send(raw(socket), data, size, send_flags);
}

inline ssize_t receive(handle socket, char* buffer, std::size_t size) noexcept {
    return ::recv(raw(socket), buffer, size, 0);
}

inline std::error_code listen_error() noexcept { return last_error(); }

/// Lets a port be taken again at once after its last user ended.
inline void own_port(handle socket) noexcept {
    const int on = 1;
    ::setsockopt(raw(socket), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
}

/// The other half of keep_alive(): no probe is sent while bytes wait to be acknowledged.
#if defined(TCP_USER_TIMEOUT)
inline void give_up(handle socket, int seconds) noexcept {
    const unsigned milliseconds = static_cast<unsigned>(seconds) * 1000;
    ::setsockopt(raw(socket), IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
}
#elif defined(TCP_RXT_CONNDROPTIME)
inline void give_up(handle socket, int seconds) noexcept {  // macOS
    ::setsockopt(raw(socket), IPPROTO_TCP, TCP_RXT_CONNDROPTIME, &seconds, sizeof seconds);
}
#else
inline void give_up(handle, int) noexcept {}  // the system's own limit on retransmission stays
#endif

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
    give_up(socket, seconds + interval * probes);
}

/// Bytes sent that the other side's system has not acknowledged, our end of stream included.
#if defined(SO_NWRITE)
inline int unacknowledged(handle socket) noexcept {
    int count = 0;
    socklen_t size = sizeof count;
    ::getsockopt(raw(socket), SOL_SOCKET, SO_NWRITE, &count, &size);
    return count;
}
#else
#if defined(FIONWRITE)
inline constexpr auto pending_output = FIONWRITE;
#else
inline constexpr auto pending_output = TIOCOUTQ;
#endif
inline int unacknowledged(handle socket) noexcept {
    int count = 0;
    ::ioctl(raw(socket), pending_output, &count);
    return count;
}
#endif

inline int poll(poll_entry* entries, std::size_t count, int timeout) noexcept {
    return ::poll(entries, static_cast<nfds_t>(count), timeout);
}

/// A channel to wake a poller by: a pipe.
inline std::error_code open_channel(handle& in, handle& out) noexcept {
    int ends[2];
    if (open_pipe(ends) != 0) return last_error();
    in = ends[0];
    out = ends[1];
    return {};
}

inline void close_channel(handle in, handle out) noexcept {
    close(in);
    close(out);
}

inline void signal_channel(handle out) noexcept {
    // A full pipe is as good as one byte more: the poller wakes.
    while (::write(raw(out), "", 1) < 0 && errno == EINTR) {
    }
}

inline void drain_channel(handle in) noexcept {
    char bytes[64];
    while (::read(raw(in), bytes, sizeof bytes) > 0) {
    }
}

/// Calls `visit` with the addresses of this machine's interfaces until it returns true. Not with
/// loopback's, whose link-local one (macOS) tells nobody where we are.
template <typename Visitor>
void visit_interfaces(const Visitor& visit) {
    ifaddrs* list = nullptr;
    if (::getifaddrs(&list) != 0) return;
    for (auto* entry = list; entry; entry = entry->ifa_next) {
        const bool usable = (entry->ifa_flags & (IFF_UP | IFF_LOOPBACK)) == IFF_UP;
        if (usable && entry->ifa_addr && visit(entry->ifa_addr)) break;
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
        case errc::bad_address:
            return {"not an IP address", std::errc::invalid_argument};
        case errc::bad_port:
            return {"not a port (1 to 65535)", std::errc::invalid_argument};
        case errc::bad_team:
            return {"not a team name (1 to 64 bytes, no white space)", std::errc::invalid_argument};
        case errc::bad_text:
            return {"not a text (empty, or with a line break or NUL)", std::errc::invalid_argument};
        case errc::too_few_words:
            return {"not a message (sender, team, text)", std::errc::invalid_argument};
        case errc::no_message:
            return {"closed without a message", std::errc::no_message};
        case errc::message_too_long:
            return {"message too long", std::errc::message_size};
        case errc::not_taken:
            return {"the peer closed without taking the message", std::errc::connection_reset};
        case errc::link_lost:
            return {"the link broke before the message was confirmed",
                    std::errc::connection_aborted};
        case errc::queue_full:
            return {"too much is waiting for this peer already", std::errc::no_buffer_space};
        case errc::stopped:
            return {"the node does not run", std::errc::operation_canceled};
        case errc::already_running:
            return {"the node runs already", std::errc::already_connected};
        case errc::connection_limit:
            return {"gave way to a newer connection", std::errc::connection_aborted};
        case errc::sender_not_verified:
            return {"the sender is not where it says it is", std::errc::permission_denied};
        case errc::own_address:
            return {"that is our own address", std::errc::invalid_argument};
        case errc::protocol_error:
            return {"neither a message nor a control line", std::errc::protocol_error};
    }
    return {"unknown error", std::errc::invalid_argument};
}

class errc_category final : public std::error_category {
public:
    const char* name() const noexcept override { return "p2pchat"; }
    std::string message(int value) const override {
        return describe(static_cast<errc>(value)).text;
    }
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

inline bool is_space(char c) noexcept {
    return static_cast<unsigned char>(c) <= ' ' && (c == ' ' || (c >= '\t' && c <= '\r'));
}

inline int hex_digit(char c) noexcept {
    if (is_digit(c)) return c - '0';
    const char lower = static_cast<char>(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/// Reads a decimal number of at most `max`, without superfluous zeros, and moves `p` behind it.
inline bool scan_number(const char*& p, const char* end, unsigned max, unsigned& value) noexcept {
    const char* const start = p;
    const char* at = p;  // stays in a register; `p` would go to memory for each digit
    std::uint64_t all = 0;
    while (at != end && is_digit(*at)) {
        all = all * 10 + static_cast<unsigned>(*at++ - '0');
        if (all > max) return false;
    }
    p = at;
    value = static_cast<unsigned>(all);
    return at != start && (*start != '0' || at - start == 1);
}

inline bool scan_octet(const char*& p, const char* end, unsigned& value) noexcept {
    if (p == end || !is_digit(*p)) return false;
    value = static_cast<unsigned>(*p++ - '0');
    for (int more = 0; more < 2 && value != 0 && p != end && is_digit(*p); ++more)
        value = value * 10 + static_cast<unsigned>(*p++ - '0');
    return value <= 255;
}

inline bool scan_v4(const char*& p, const char* end, unsigned char* out) noexcept {
    const char* at = p;     // stays in a register, as in scan_number()
    std::uint32_t all = 0;  // stored at once: four bytes that are then read as a word cost 2 ns
    for (int i = 0; i < 4; ++i) {
        unsigned octet = 0;
        if (i != 0 && (at == end || *at++ != '.')) return false;
        if (!scan_octet(at, end, octet)) return false;
        all = all << 8 | octet;
    }
    p = at;
    for (int i = 0; i < 4; ++i) out[i] = static_cast<unsigned char>(all >> (24 - 8 * i));
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
/// Written piece by piece into `result`, for to copy what was just written in pieces stalls.
errc scan_endpoint(const char*& p, const char* end, endpoint& result) noexcept {
    unsigned port = 0;
    if (p != end && *p == '[') {
        const auto size = static_cast<std::size_t>(end - p);
        const auto* const close = static_cast<const char*>(std::memchr(p, ']', size));
        if (!close) return errc::bad_address;
        const std::string_view inside(p + 1, static_cast<std::size_t>(close - p - 1));
        if (inside.find(':') == std::string_view::npos) return errc::bad_address;
        if (!parse_address(inside, result.bytes_, result.scope_)) return errc::bad_address;
        if (result.is_v4()) result.scope_ = 0;
        p = close + 1;
    } else {
        std::memcpy(result.bytes_, v4_prefix, sizeof v4_prefix);
        result.scope_ = 0;
        if (!scan_v4(p, end, result.bytes_ + 12)) return errc::bad_address;
    }
    if (p != end && *p != ':' && !is_space(*p)) return errc::bad_address;
    if (p == end || *p++ != ':' || !scan_number(p, end, 65535, port) || port == 0)
        return errc::bad_port;
    result.port_ = static_cast<std::uint16_t>(port);
    return no_error;
}

inline void append_number(std::string& out, std::uint64_t value) {
    char digits[20];
    char* first = digits + sizeof digits;
    do *--first = static_cast<char>('0' + value % 10);
    while ((value /= 10) != 0);
    out.append(first, static_cast<std::size_t>(digits + sizeof digits - first));
}

inline void append_v4(std::string& out, const unsigned char* bytes) {
    for (int i = 0; i < 4; ++i) {
        if (i != 0) out += '.';
        append_number(out, bytes[i]);
    }
}

inline void append_scope(std::string& out, std::uint32_t scope) {
    if (scope == 0) return;
    out += '%';
    append_number(out, scope);
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
        if (with_scope) append_scope(out, value.scope());
        out += ']';
    }
    out += ':';
    append_number(out, value.port());
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
            size = sizeof v4;
            std::memcpy(&storage, &v4, sizeof v4);
        } else {
            sockaddr_in6 v6{};
            v6.sin6_family = AF_INET6;
            v6.sin6_port = htons(value.port());
            v6.sin6_scope_id = value.scope();
            std::memcpy(&v6.sin6_addr, value.bytes(), 16);
            size = sizeof v6;
            std::memcpy(&storage, &v6, sizeof v6);
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
    unsigned char bytes[16];
    std::uint32_t scope = 0;
    if (detail::parse_address(address, bytes, scope)) *this = endpoint(bytes, port, scope);
}

endpoint::endpoint(const unsigned char (&address)[16], std::uint16_t port,
                   std::uint32_t scope) noexcept
    : port_(port) {
    std::memcpy(bytes_, address, sizeof bytes_);
    if (!is_v4()) scope_ = scope;  // else one address would have many names
}

endpoint::operator bool() const noexcept {
    static constexpr unsigned char none[16] = {};
    const bool unspecified =
        std::memcmp(bytes_ + 12, none, 4) == 0 && (is_v4() || std::memcmp(bytes_, none, 12) == 0);
    return port_ != 0 && !unspecified;
}

std::string endpoint::address() const {
    std::string out;
    if (is_v4())
        detail::append_v4(out, bytes_ + 12);
    else
        detail::append_v6(out, bytes_);
    detail::append_scope(out, scope_);
    return out;
}

bool endpoint::is_v4() const noexcept {
    return std::memcmp(bytes_, detail::v4_prefix, sizeof detail::v4_prefix) == 0;
}

bool endpoint::is_loopback() const noexcept {
    static constexpr unsigned char v6_loopback[16] = {0, 0, 0, 0, 0, 0, 0, 0,
                                                      0, 0, 0, 0, 0, 0, 0, 1};
    return is_v4() ? bytes_[12] == 127 : std::memcmp(bytes_, v6_loopback, sizeof bytes_) == 0;
}

bool operator<(const endpoint& a, const endpoint& b) noexcept {
    if (const int order = std::memcmp(a.bytes_, b.bytes_, sizeof a.bytes_)) return order < 0;
    return a.scope_ != b.scope_ ? a.scope_ < b.scope_ : a.port_ < b.port_;
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

std::error_code resolve(std::string_view host, std::uint16_t port, endpoint& result) {
    if (port == 0) return make_error_code(errc::bad_port);
    if (const endpoint numeric(host, port); numeric) {
        result = numeric;
        return {};
    }
    // "10.18.1" is no host name, though the system would read it as 10.18.0.1.
    const auto last_label = host.substr(host.rfind('.') + 1);
    const bool number = !last_label.empty() && detail::is_digit(last_label.front());
    if (host.empty() || number || host.find('\0') != std::string_view::npos)
        return make_error_code(errc::bad_address);
    if (auto error = detail::os::start_sockets()) return error;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (::getaddrinfo(std::string(host).c_str(), nullptr, &hints, &list) != 0)
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
        if (const auto found = detail::route_source({target, 9}); detail::is_named(found))
            return found;
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
    const auto low_in = [](const char* p) {
        std::uint64_t word;
        std::memcpy(&word, p, 8);
        return (word - each * 14) & ~word & each * 0x80;
    };
    if (text.size() < 8) {
        for (const char c : text)
            if (static_cast<unsigned char>(c) < 14) return true;
        return false;
    }
    const char* const end = text.data() + text.size();
    std::uint64_t found = low_in(end - 8);  // overlaps the last whole word, so that none is left
    for (const char* p = text.data(); end - p > 8; p += 8) found |= low_in(p);
    return found != 0;
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
    for (const char c : team)
        if (is_space(c) || c == '\0') return false;
    return true;
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
    if (!result.sender) return errc::bad_address;  // 0.0.0.0 and :: are nobody
    if (result.sender.scope() != 0)                // means something on the sender's machine only
        result.sender = endpoint(result.sender.bytes(), result.sender.port(), 0);
    if (bracket && (p == end || *p++ != '>')) return errc::bad_port;
    if (p == end) return errc::too_few_words;
    if (!is_space(*p)) return errc::bad_port;
    skip_space(p, end);

    const char* const team = p;
    while (p != end && !is_space(*p) && *p != '\0') ++p;
    if (p == end) return errc::too_few_words;
    if (*p == '\0') return errc::bad_team;
    result.team = {team, static_cast<std::size_t>(p - team)};
    if (in_brackets(result.team)) result.team = result.team.substr(1, result.team.size() - 2);
    if (result.team.empty() || result.team.size() > max_team_bytes) return errc::bad_team;
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

/// For ever, where somebody says milliseconds::max(): what can be added to a time_point.
inline constexpr std::chrono::milliseconds longest_timeout = std::chrono::hours(24 * 365);

inline clock::time_point after(std::chrono::milliseconds timeout) noexcept {
    return clock::now() + (std::min)(timeout, longest_timeout);
}

/// Milliseconds until `end`, rounded up, as poll() takes them.
inline int remaining(clock::time_point end, clock::time_point now) noexcept {
    if (end <= now) return 0;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now).count();
    return static_cast<int>((std::min<long long>)(left, 1000 * 60 * 60));
}

/// Waits until a socket can be read from or written to. Its errors are found by the next call.
/// Once `interrupt` (if any) can be read from, the error is `stopped`.
inline std::error_code wait_ready(os::handle socket, bool to_write, clock::time_point end,
                                  os::handle interrupt = tcp_socket::invalid) noexcept {
    for (;;) {
        os::poll_entry entries[2]{};
        entries[0].fd = os::raw(socket);
        entries[0].events = to_write ? POLLOUT : POLLIN;
        entries[1].fd = os::raw(interrupt);
        entries[1].events = POLLIN;
        const int left = remaining(end, clock::now());
        const int count = os::poll(entries, interrupt == tcp_socket::invalid ? 1 : 2, left);
        if (count > 0 && entries[1].revents != 0) return make_error_code(errc::stopped);
        if (count > 0) return {};
        if (count == 0 && left == 0) return std::make_error_code(std::errc::timed_out);
        if (count < 0 && os::last_error() != std::errc::interrupted) return os::last_error();
    }
}

/// A call that does not block is repeated until it succeeds, fails or its time is over. A time-out
/// of zero is one try.
class attempts {
public:
    attempts(os::handle socket, bool to_write, std::chrono::milliseconds timeout) noexcept
        : socket_(socket), to_write_(to_write), waits_(timeout.count() > 0) {
        if (waits_) end_ = after(timeout);
    }

    /// What came of the last call, and whether it is to be made again.
    bool again(std::error_code& error) noexcept {
        if (error == std::errc::interrupted) return true;
        if (!waits_ || error != std::errc::operation_would_block) return false;
        if (auto failed = wait_ready(socket_, to_write_, end_)) error = failed;
        return error == std::errc::operation_would_block;
    }

private:
    os::handle socket_;
    bool to_write_;
    bool waits_;
    clock::time_point end_{};
};

/// What the system has found out about a socket since it was last asked.
inline std::error_code pending_error(os::handle socket) noexcept {
    int code = 0;
    os::length size = sizeof code;
    auto* const value = reinterpret_cast<char*>(&code);
    const bool known = ::getsockopt(os::raw(socket), SOL_SOCKET, SO_ERROR, value, &size) == 0;
    return known ? os::error_of(code) : os::last_error();
}

/// Whether the other side has reset a connection, found without reading from it. Winsock tells
/// WSAPoll only.
inline bool is_reset(os::handle socket) noexcept {
    if (pending_error(socket)) return true;
    os::poll_entry entry{};
    entry.fd = os::raw(socket);
    entry.events = POLLIN;
    return os::poll(&entry, 1, 0) > 0 && (entry.revents & POLLERR) != 0;
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
    const auto error = os::listen_error();
    close();
    return error;
}

std::error_code tcp_socket::accept(tcp_socket& peer, milliseconds timeout,
                                   endpoint* from) noexcept {
    using namespace detail;
    native_address address;
    auto handle = invalid;
    attempts tries(handle_, false, timeout);
    std::error_code error;
    do {
        address.size = sizeof address.storage;
        handle = os::accept(handle_, address.get(), &address.size);
        error = handle == invalid ? os::last_error() : std::error_code();
    } while (tries.again(error));
    if (error) return error;
    peer.close();
    peer.handle_ = handle;
    if (from) *from = to_endpoint(address.get());
    return {};
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
        if (under_way) error = wait_ready(handle_, true, after(timeout));
    }
    if (!error) error = finish_connect();
    if (error) close();
    return error;
}

std::error_code tcp_socket::finish_connect() noexcept {
    if (const auto error = detail::pending_error(handle_)) return error;
    // A port of this machine on which nobody listens can be connected to itself, where it happens
    // to be the port that the system chose for us.
    return local() == remote() ? std::make_error_code(std::errc::connection_refused)
                               : std::error_code();
}

std::error_code tcp_socket::send(std::string_view data, std::size_t& sent,
                                 milliseconds timeout) noexcept {
    using namespace detail;
    attempts tries(handle_, true, timeout);
    sent = 0;
    while (sent < data.size()) {
        const auto left = (std::min<std::size_t>)(data.size() - sent, 1u << 30);
        const auto count = os::send(handle_, data.data() + sent, left);
        if (count >= 0) {
            sent += static_cast<std::size_t>(count);
        } else {
            auto error = os::last_error();
            if (tries.again(error)) continue;
            // Where a connection did not come about, the BSDs may say EPIPE here, Wine reset.
            if (error == std::errc::broken_pipe || error == std::errc::connection_reset)
                if (const auto why = pending_error(handle_)) error = why;
            return error;
        }
    }
    return {};
}

std::error_code tcp_socket::receive(char* buffer, std::size_t size, std::size_t& received,
                                    milliseconds timeout) noexcept {
    using namespace detail;
    attempts tries(handle_, false, timeout);
    std::error_code error;
    do {
        const auto count = os::receive(handle_, buffer, size);
        received = count < 0 ? 0 : static_cast<std::size_t>(count);
        error = count < 0 ? os::last_error() : std::error_code();
    } while (tries.again(error));
    return error;
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

// ------------------------------------------------------------------------------- >> collections
//
// Collections whose items carry the links: to add and to remove takes no memory and cannot fail.
// None is thread-safe. (Beside std::list, set and unordered_map they save a quarter of the memory
// of an idle link, and a third of the time that this header takes to compile.)

namespace detail {

/// A place in a ring, which is a list with one place that is no item's; alone: in no list.
struct ring {
    ring() = default;
    ring(const ring&) = delete;
    ring& operator=(const ring&) = delete;
    ~ring() { leave(); }

    bool alone() const noexcept { return next == this; }
    void leave() noexcept {
        before->next = next;
        next->before = before;
        next = before = this;
    }
    /// Leaves where it is, to come before `place`.
    void join(ring& place) noexcept {
        leave();
        next = &place;
        before = place.before;
        before->next = place.before = this;
    }

    ring* next = this;
    ring* before = this;
};

/// `Place` is that base of T, a ring or derived from it, by which its items stand in this list.
template <typename T, typename Place = ring>
class list {
public:
    bool empty() const noexcept { return ends_.alone(); }
    T& front() noexcept { return item(ends_.next); }
    T& back() noexcept { return item(ends_.before); }
    T* begin() noexcept { return after(ends_); }
    T* next(Place& of) noexcept { return after(of); }

    /// Takes the item out of where it is, if anywhere.
    void push_back(Place& what) noexcept { what.join(ends_); }
    void push_front(Place& what) noexcept { what.join(*ends_.next); }
    /// Takes over all of another's items; it has none itself.
    void take(list& other) noexcept {
        ends_.join(other.ends_);
        other.ends_.leave();
    }
    void destroy() noexcept {
        while (!empty()) delete &front();
    }

private:
    static T& item(ring* place) noexcept { return static_cast<T&>(static_cast<Place&>(*place)); }
    T* after(ring& place) noexcept { return place.next == &ends_ ? nullptr : &item(place.next); }

    ring ends_;
};

/// What makes an item fit for an index: its key.
struct indexed {
    explicit indexed(const endpoint& its_key) noexcept : key(its_key) {}

    const endpoint key;
    indexed* collides = nullptr;  // the next item with the same hash
};

/// Items by their endpoint, in a hash table with a place for every two. Where the memory for more
/// places is lacking, it goes on with fewer and is slower.
class index_base {
public:
    index_base() = default;
    index_base(const index_base&) = delete;
    index_base& operator=(const index_base&) = delete;

    std::size_t size() const noexcept { return size_; }

protected:
    ~index_base() {
        if (places_ != 1) delete[] table_;
    }

    indexed* look_up(const endpoint& key) const noexcept;
    void insert(indexed& item) noexcept;
    void remove(indexed& item) noexcept;
    indexed* first(std::size_t place = 0) const noexcept;
    indexed* following(const indexed& item) const noexcept;

private:
    std::size_t place_of(const endpoint& key) const noexcept {
        return std::hash<endpoint>()(key) & (places_ - 1);
    }
    void grow() noexcept;

    std::size_t size_ = 0;
    std::size_t places_ = 1;   // a power of two
    indexed* only_ = nullptr;  // the one place with which it begins
    indexed** table_ = &only_;
};

inline indexed* index_base::look_up(const endpoint& key) const noexcept {
    indexed* item = table_[place_of(key)];
    while (item && item->key != key) item = item->collides;
    return item;
}

inline void index_base::insert(indexed& item) noexcept {
    if (size_ >= 2 * places_) grow();
    indexed*& place = table_[place_of(item.key)];
    item.collides = place;
    place = &item;
    ++size_;
}

inline void index_base::remove(indexed& item) noexcept {
    indexed** place = &table_[place_of(item.key)];
    while (*place != &item) place = &(*place)->collides;
    *place = item.collides;
    --size_;
}

inline indexed* index_base::first(std::size_t place) const noexcept {
    while (place != places_ && !table_[place]) ++place;
    return place == places_ ? nullptr : table_[place];
}

inline indexed* index_base::following(const indexed& item) const noexcept {
    return item.collides ? item.collides : first(place_of(item.key) + 1);
}

inline void index_base::grow() noexcept {
    indexed** const wider = new (std::nothrow) indexed*[places_ * 2]();
    if (!wider) return;
    indexed** const old = table_;
    const std::size_t old_places = places_;
    table_ = wider;
    places_ *= 2;
    for (std::size_t i = 0; i < old_places; ++i) {
        for (indexed* item = old[i]; item;) {
            indexed* const next = item->collides;
            indexed*& place = table_[place_of(item->key)];
            item->collides = place;
            place = item;
            item = next;
        }
    }
    if (old_places != 1) delete[] old;
}

/// An index that owns its items.
template <typename T>
class index : public index_base {
public:
    ~index() { clear(); }

    T* find(const endpoint& key) const noexcept { return static_cast<T*>(look_up(key)); }
    T& add(const endpoint& key) {  ///< one that is not there
        T* const item = new T(key);
        insert(*item);
        return *item;
    }
    void erase(T& item) noexcept {
        remove(item);
        delete &item;
    }
    void clear() noexcept {
        for (T* item = begin(); item;) {
            T& gone = *item;
            item = next(gone);
            erase(gone);
        }
    }
    T* begin() const noexcept { return static_cast<T*>(first()); }
    T* next(const T& item) const noexcept { return static_cast<T*>(following(item)); }
};

}  // namespace detail

// ------------------------------------------------------------------------------------- >> peers

namespace detail {

struct known_peer : indexed, ring {
    using indexed::indexed;

    std::string team;
    std::chrono::system_clock::time_point last_heard = std::chrono::system_clock::now();
};

/// A heap sort: std::sort would be a tenth of what this header takes to compile.
inline void sort_by_address(std::vector<peer>& peers) {
    std::size_t count = peers.size();
    for (std::size_t start = count / 2; count > 1;) {
        if (start != 0)
            --start;
        else
            std::swap(peers[0], peers[--count]);
        for (std::size_t place = start, child; (child = place * 2 + 1) < count; place = child) {
            if (child + 1 < count && peers[child].address < peers[child + 1].address) ++child;
            if (!(peers[place].address < peers[child].address)) break;
            std::swap(peers[place], peers[child]);
        }
    }
}

}  // namespace detail

struct peer_set::state {
    mutable std::mutex mutex;  // guards the two below
    detail::index<detail::known_peer> known;
    detail::list<detail::known_peer> by_age;  // heard from most recently first
    std::size_t max = 0;
};

peer_set::peer_set(std::size_t max_peers) : state_(new state) { state_->max = max_peers; }

peer_set::~peer_set() = default;

bool peer_set::heard(const endpoint& address, std::string_view team) {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    auto& by_age = state_->by_age;
    if (by_age.empty() || by_age.front().key != address) {  // else: it goes on talking
        auto* found = state_->known.find(address);
        if (!found) {
            if (state_->max == 0) return false;
            std::string copy(team);
            found = &state_->known.add(address);
            found->team.swap(copy);
            by_age.push_front(*found);
            if (state_->known.size() > state_->max) state_->known.erase(by_age.back());
            return true;
        }
        by_age.push_front(*found);
    }
    auto& known = by_age.front();
    if (known.team != team) known.team = team;
    known.last_heard = std::chrono::system_clock::now();
    return false;
}

bool peer_set::remove(const endpoint& address, peer& removed) {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    auto* const found = state_->known.find(address);
    if (!found) return false;
    removed = {address, std::move(found->team), found->last_heard, false};
    state_->known.erase(*found);
    return true;
}

void peer_set::clear() noexcept {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->known.clear();
}

bool peer_set::contains(const endpoint& address) const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->known.find(address) != nullptr;
}

std::size_t peer_set::size() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->known.size();
}

std::vector<peer> peer_set::snapshot() const {
    std::vector<peer> result;
    {
        const std::lock_guard<std::mutex> lock(state_->mutex);
        const auto& known = state_->known;
        result.reserve(known.size());
        for (const auto* one = known.begin(); one; one = known.next(*one))
            result.push_back({one->key, one->team, one->last_heard, false});
    }
    detail::sort_by_address(result);
    return result;
}

// ------------------------------------------------------------------------------------ >> poller
//
// A channel to wake a thread by that waits for sockets, and the readiness of many sockets: epoll
// on Linux, kqueue on macOS and the BSDs, poll and WSAPoll elsewhere (and wherever P2PCHAT_USE_POLL
// asks for it). One interface, level-triggered.

#if defined(P2PCHAT_USE_POLL)
#elif defined(__linux__)
#define P2PCHAT_USE_EPOLL
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__)
#define P2PCHAT_USE_KQUEUE
#endif

}  // namespace p2pchat

#if defined(P2PCHAT_USE_EPOLL)
#include <sys/epoll.h>
#elif defined(P2PCHAT_USE_KQUEUE)
#include <sys/event.h>
#include <sys/time.h>
#endif

namespace p2pchat {

namespace detail {

/// Makes room for `extra` more, growing by doubling: what is added then cannot fail half-way.
template <typename Container>
void make_room(Container& container, std::size_t extra) {
    const std::size_t needed = container.size() + extra;
    if (needed > container.capacity())
        container.reserve((std::max)(needed, 2 * container.capacity()));
}

/// Does what must not be left undone; where the memory for it is lacking, again until it is there.
template <typename Work>
void insist(const Work& work) noexcept {
    for (;;) {
        try {
            return work();
        } catch (const std::bad_alloc&) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }
}

/// signal() is thread-safe once open() has returned.
class channel {
public:
    channel() = default;
    channel(const channel&) = delete;
    channel& operator=(const channel&) = delete;
    ~channel() {
        if (is_open()) os::close_channel(in_, out_);
    }

    std::error_code open() { return is_open() ? std::error_code() : os::open_channel(in_, out_); }
    bool is_open() const noexcept { return in_ != tcp_socket::invalid; }
    void signal() noexcept {
        if (is_open()) os::signal_channel(out_);
    }
    void drain() noexcept { os::drain_channel(in_); }
    os::handle in() const noexcept { return in_; }  ///< can be read from while signalled

private:
    os::handle in_ = tcp_socket::invalid;
    os::handle out_ = tcp_socket::invalid;
};

/// What the poller knows of a socket. Belongs to whoever owns the socket and stays where it is.
struct watched {
    bool read = false;
    bool write = false;
#if !defined(P2PCHAT_USE_EPOLL) && !defined(P2PCHAT_USE_KQUEUE)
    std::uint32_t slot = 0;  // of poll's table
#endif
};

struct readiness {
    watched* what = nullptr;
    bool read = false;
    bool write = false;
};

/// wake() is thread-safe, the rest is for one thread.
class poller {
public:
    poller() = default;
    poller(const poller&) = delete;
    poller& operator=(const poller&) = delete;
    ~poller() { close_system(); }

    /// Opens it, or makes it forget everything; wake() goes on working meanwhile.
    std::error_code open();

    /// Watches for what is asked from now on; for neither is to forget the socket, which must
    /// come before it is closed.
    std::error_code watch(const tcp_socket& socket, watched& what, bool read, bool write);

    static constexpr int batch = 256;

    /// Waits for `timeout` milliseconds at most, -1: for ever, and says how many are ready; what
    /// found no place is ready the next time too. An error or an end counts as ready.
    int wait(int timeout, readiness (&ready)[batch]) noexcept;

    void wake() noexcept { channel_.signal(); }

private:
    std::error_code open_system();
    void close_system() noexcept;

    channel channel_;
#if defined(P2PCHAT_USE_EPOLL)
    int epoll_ = -1;
    epoll_event events_[batch];
#elif defined(P2PCHAT_USE_KQUEUE)
    std::error_code change(const tcp_socket& socket, watched& what, short filter, bool on) noexcept;
    int queue_ = -1;
    struct kevent events_[batch];
#else
    std::vector<os::poll_entry> entries_;  // the channel first
    std::vector<watched*> owners_;         // of each entry
    std::size_t last_ = 0;                 // where the last look ended, so that none starves
#endif
};

inline std::error_code poller::open() {
    if (auto error = channel_.open()) return error;
    close_system();
    return open_system();
}

#if defined(P2PCHAT_USE_EPOLL)

inline std::error_code poller::open_system() {
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) return os::last_error();
    epoll_event event{};
    event.events = EPOLLIN;
    return ::epoll_ctl(epoll_, EPOLL_CTL_ADD, os::raw(channel_.in()), &event) == 0
               ? std::error_code()
               : os::last_error();
}

inline void poller::close_system() noexcept {
    if (epoll_ >= 0) os::close(std::exchange(epoll_, -1));
}

inline std::error_code poller::watch(const tcp_socket& socket, watched& what, bool read,
                                     bool write) {
    if (read == what.read && write == what.write) return {};
    const bool known = what.read || what.write;
    const int operation = !read && !write ? EPOLL_CTL_DEL : known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    epoll_event event{};
    event.events = (read ? EPOLLIN : 0u) | (write ? EPOLLOUT : 0u);
    event.data.ptr = &what;
    if (::epoll_ctl(epoll_, operation, os::raw(socket.native_handle()), &event) != 0)
        return os::last_error();
    what.read = read;
    what.write = write;
    return {};
}

inline int poller::wait(int timeout, readiness (&ready)[batch]) noexcept {
    const int count = ::epoll_wait(epoll_, events_, batch, timeout);
    int found = 0;
    for (int i = 0; i < count; ++i) {
        const auto events = events_[i].events;
        const bool over = (events & (EPOLLERR | EPOLLHUP)) != 0;
        if (auto* const what = static_cast<watched*>(events_[i].data.ptr))
            ready[found++] = {what, over || (events & EPOLLIN) != 0,
                              over || (events & EPOLLOUT) != 0};
        else
            channel_.drain();
    }
    return found;
}

#elif defined(P2PCHAT_USE_KQUEUE)

inline std::error_code poller::open_system() {
    queue_ = ::kqueue();
    if (queue_ < 0) return os::last_error();
    os::set_flags(queue_);
    struct kevent event;
    EV_SET(&event, static_cast<uintptr_t>(channel_.in()), EVFILT_READ, EV_ADD, 0, 0, nullptr);
    return ::kevent(queue_, &event, 1, nullptr, 0, nullptr) == 0 ? std::error_code()
                                                                 : os::last_error();
}

inline void poller::close_system() noexcept {
    if (queue_ >= 0) os::close(std::exchange(queue_, -1));
}

inline std::error_code poller::change(const tcp_socket& socket, watched& what, short filter,
                                      bool on) noexcept {
    struct kevent event;
    EV_SET(&event, static_cast<uintptr_t>(socket.native_handle()), filter,
           static_cast<unsigned short>(on ? EV_ADD : EV_DELETE), 0, 0, &what);
    return ::kevent(queue_, &event, 1, nullptr, 0, nullptr) == 0 ? std::error_code()
                                                                 : os::last_error();
}

inline std::error_code poller::watch(const tcp_socket& socket, watched& what, bool read,
                                     bool write) {
    if (read != what.read) {
        if (auto error = change(socket, what, EVFILT_READ, read)) return error;
        what.read = read;
    }
    if (write != what.write) {
        if (auto error = change(socket, what, EVFILT_WRITE, write)) return error;
        what.write = write;
    }
    return {};
}

inline int poller::wait(int timeout, readiness (&ready)[batch]) noexcept {
    timespec limit{timeout / 1000, timeout % 1000 * 1000000L};
    const int count = ::kevent(queue_, nullptr, 0, events_, batch, timeout < 0 ? nullptr : &limit);
    int found = 0;
    for (int i = 0; i < count; ++i) {
        const bool read = events_[i].filter == EVFILT_READ;
        if (auto* const what = static_cast<watched*>(events_[i].udata))
            ready[found++] = {what, read, !read};
        else
            channel_.drain();
    }
    return found;
}

#else  // poll

inline std::error_code poller::open_system() {
    os::poll_entry entry{};
    entry.fd = os::raw(channel_.in());
    entry.events = POLLIN;
    entries_.assign(1, entry);
    owners_.assign(1, nullptr);
    return {};
}

inline void poller::close_system() noexcept {
    entries_.clear();
    owners_.clear();
}

inline std::error_code poller::watch(const tcp_socket& socket, watched& what, bool read,
                                     bool write) {
    const bool known = what.read || what.write;
    if (!known && (read || write)) {
        make_room(entries_, 1);
        make_room(owners_, 1);
        owners_.push_back(&what);
        what.slot = static_cast<std::uint32_t>(entries_.size());
        entries_.push_back({});
        entries_.back().fd = os::raw(socket.native_handle());
    } else if (known && !read && !write) {
        entries_[what.slot] = entries_.back();
        owners_[what.slot] = owners_.back();
        owners_[what.slot]->slot = what.slot;
        entries_.pop_back();
        owners_.pop_back();
    }
    what.read = read;
    what.write = write;
    if (read || write)
        entries_[what.slot].events =
            static_cast<short>((read ? POLLIN : 0) | (write ? POLLOUT : 0));
    return {};
}

inline int poller::wait(int timeout, readiness (&ready)[batch]) noexcept {
    int count = os::poll(entries_.data(), entries_.size(), timeout);
    if (count > 0 && entries_[0].revents != 0) {
        channel_.drain();
        --count;
    }
    int found = 0;
    for (auto left = entries_.size() - 1; left > 0 && count > 0 && found < batch; --left) {
        last_ = last_ + 1 < entries_.size() ? last_ + 1 : 1;
        const int events = entries_[last_].revents;
        if (events == 0) continue;
        --count;
        const bool over = (events & (POLLERR | POLLHUP | POLLNVAL)) != 0;
        ready[found++] = {owners_[last_], over || (events & POLLIN) != 0,
                          over || (events & POLLOUT) != 0};
    }
    return found;
}

#endif

// ----------------------------------------------------------------------------------- >> outcomes

/// How long a thread goes on looking, giving way to others, before it sleeps. To wake one that
/// sleeps on another processor takes longer than that: a round trip over a link between two
/// processors takes 14 us so, and 80 without. One for all threads of a node; thread-safe.
class patience {
public:
    static constexpr std::chrono::microseconds span{50};

    /// Until when to go on looking; `now` for not at all.
    clock::time_point until(clock::time_point now) const noexcept {
        return now < lost_until_.load(std::memory_order_relaxed) ? now : now + span;
    }

    /// A thread has given way. Where another program computes on the same processor, that is for
    /// its whole time slice, some milliseconds, while a thread that sleeps is let in at once when
    /// it is woken. So patience is lost for a while: one slice in 20 ms is waited for, not each.
    void gave_way(clock::time_point before, clock::time_point after) noexcept {
        if (after - before > std::chrono::milliseconds(1))
            lost_until_.store(after + std::chrono::milliseconds(20), std::memory_order_relaxed);
    }

private:
    std::atomic<clock::time_point> lost_until_{};
};

/// A thread that waits for outcomes, told by another. Lives on the waiting thread's stack: who
/// tells must be done with it when the waiting one goes on, hence under the mutex.
class waiter {
public:
    explicit waiter(patience& how_long, std::size_t count = 1)
        : patience_(how_long), left_(count) {}

    void tell() noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (--left_ == 0) told_.notify_all();
    }
    void wait() {
        while (!wait_for(std::chrono::hours(1))) {
        }
    }

    /// False when the time is over.
    bool wait_for(std::chrono::milliseconds timeout) {
        const auto began = clock::now();
        const auto patient_until = patience_.until(began);
        for (auto now = began; left_.load(std::memory_order_acquire) != 0 && now < patient_until;) {
            const auto before = now;
            std::this_thread::yield();
            now = clock::now();
            patience_.gave_way(before, now);
            // Others ran, and brought no answer. To sleep breaks the order in which that is so
            // each time (25 us for a round trip on one processor, else 20).
            if (now - before > std::chrono::microseconds(5)) break;
        }
        std::unique_lock<std::mutex> lock(mutex_);
        while (left_ != 0)
            if (told_.wait_until(lock, began + timeout) == std::cv_status::timeout) break;
        return left_ == 0;
    }

private:
    patience& patience_;
    std::mutex mutex_;
    std::condition_variable told_;
    std::atomic<std::size_t> left_;  // changed under the mutex
};

/// A message of which an outcome is owed.
struct pending {
    node::completion done;              // called by the handlers' thread;
    waiter* waiting = nullptr;          // or told at once by whoever knows,
    std::error_code* answer = nullptr;  // when this is filled
    bool at_once = false;               // then: try to write it without io
    bool reported = false;              // as timed out; its confirmation may still come
    std::uint32_t size = 0;
    clock::time_point deadline{};
};

/// First in, first out, in a circular buffer; keeps its memory until it is told to shrink.
class fifo {
public:
    fifo() = default;
    fifo(const fifo&) = delete;
    fifo& operator=(const fifo&) = delete;
    ~fifo() { delete[] items_; }

    bool empty() const noexcept { return size_ == 0; }
    std::size_t size() const noexcept { return size_; }
    std::size_t bytes() const noexcept { return bytes_; }  ///< of the messages
    pending& front() noexcept { return items_[first_]; }
    pending& operator[](std::size_t i) noexcept { return items_[(first_ + i) & (capacity_ - 1)]; }

    /// Out of memory, both fail without consequence.
    void make_room(std::size_t extra);
    void push(pending& item);
    void pop() noexcept;
    void shrink() noexcept;  ///< an empty one
    void swap(fifo& other) noexcept;

private:
    pending* items_ = nullptr;
    std::uint32_t capacity_ = 0;  // a power of two
    std::uint32_t first_ = 0;
    std::uint32_t size_ = 0;
    std::uint32_t bytes_ = 0;
};

inline void fifo::make_room(std::size_t extra) {
    std::uint32_t wanted = capacity_ == 0 ? 2 : capacity_;
    while (wanted < size_ + extra) wanted *= 2;
    if (wanted == capacity_) return;
    auto* const wider = new pending[wanted];
    for (std::uint32_t i = 0; i < size_; ++i) wider[i] = std::move((*this)[i]);
    delete[] items_;
    items_ = wider;
    capacity_ = wanted;
    first_ = 0;
}

inline void fifo::push(pending& item) {
    if (size_ == capacity_) make_room(1);
    bytes_ += item.size;
    (*this)[size_++] = std::move(item);
}

inline void fifo::pop() noexcept {
    bytes_ -= front().size;
    front().done = nullptr;
    first_ = (first_ + 1) & (capacity_ - 1);
    --size_;
}

inline void fifo::shrink() noexcept {
    delete[] items_;
    items_ = nullptr;
    capacity_ = first_ = 0;
}

inline void fifo::swap(fifo& other) noexcept {
    std::swap(items_, other.items_);
    std::swap(capacity_, other.capacity_);
    std::swap(first_, other.first_);
    std::swap(size_, other.size_);
    std::swap(bytes_, other.bytes_);
}

// ------------------------------------------------------------------------------------- >> inbox
//
// What the input-and-output thread has for the handlers, in order.

enum class event_kind : unsigned char { message, joined, left, rejected, outcome };

struct event {
    std::uint32_t outcomes = 0;   // completions in batch::completions, all with one error
    std::uint32_t bytes = 0;      // that follow: the team, and what `kind` asks for
    std::uint32_t team_size = 0;  // the first of them
    std::uint32_t text_at = 0;    // message: there the text begins, to the end
    event_kind kind = event_kind::message;
    bool verified = false;            // message
    departure how = departure::left;  // left
    endpoint sender;                  // message; else whom it is about
    endpoint origin;                  // message

    std::size_t size() const noexcept { return sizeof(event) + bytes; }
};

/// Events, each followed by its bytes: in a string, for that is what the library has compiled
/// already.
struct batch {
    std::string events;
    fifo completions;

    bool empty() const noexcept { return events.empty(); }
    std::size_t cost() const noexcept {
        return events.size() + completions.size() * sizeof(pending);
    }
    void append(batch& other);
    void swap(batch& other) noexcept;
};

/// Out of memory, nothing has happened.
inline void batch::append(batch& other) {
    completions.make_room(other.completions.size());
    events.append(other.events);
    other.events.clear();
    for (; !other.completions.empty(); other.completions.pop())
        completions.push(other.completions.front());
}

inline void batch::swap(batch& other) noexcept {
    events.swap(other.events);
    completions.swap(other.completions);
}

/// One thread fills, one empties. Its size is bounded by whoever fills it, who asks full() before.
/// Two batches change hands, so that in the steady state nothing is allocated.
class inbox {
public:
    inbox(std::size_t max_bytes, poller& filler) : max_(max_bytes), filler_(filler) {}

    // For the filling thread. Events are staged, and all handed over at once.
    void add(event& what, std::string_view bytes) noexcept;
    void add_error(event& what, std::error_code error) noexcept;
    void add_outcome(pending& outcome, std::error_code error) noexcept;
    void hand_over() noexcept;
    bool full() const noexcept { return waiting() + staged_.cost() >= max_; }
    /// Asks to be woken when there is room; false if there is room already.
    bool ask_for_room() noexcept;
    void close() noexcept;

    // For the emptying thread.
    bool take(batch& work);                    ///< waits; false once closed and empty
    bool release(std::size_t bytes) noexcept;  ///< whether it was crowded

    // For any thread.
    bool crowded() const noexcept { return bytes_ >= max_; }

    void reopen() noexcept;

private:
    void end_run() noexcept;
    std::size_t waiting() const noexcept { return bytes_.load(std::memory_order_relaxed); }

    const std::size_t max_;
    poller& filler_;
    std::atomic<std::size_t> bytes_{0};  // handed over and not released
    std::atomic<bool> wanted_{false};    // the filling thread waits for room
    batch staged_;                       // the filling thread's

    std::uint32_t run_ = 0;  // likewise: outcomes staged last, all the same, which take one event
    std::size_t run_at_ = 0;
    std::error_code run_error_;

    std::mutex mutex_;  // guards the three below
    std::condition_variable filled_;
    batch ready_;
    bool closed_ = false;
};

inline void inbox::add(event& what, std::string_view bytes) noexcept {
    static_assert(
        std::is_trivially_copyable_v<event> && std::is_trivially_copyable_v<std::error_code>,
        "they travel as bytes");
    end_run();
    what.bytes = static_cast<std::uint32_t>(bytes.size());
    insist([&] { make_room(staged_.events, what.size()); });
    staged_.events.append(reinterpret_cast<const char*>(&what), sizeof what).append(bytes);
}

inline void inbox::add_error(event& what, std::error_code error) noexcept {
    add(what, {reinterpret_cast<const char*>(&error), sizeof error});
}

inline void inbox::add_outcome(pending& outcome, std::error_code error) noexcept {
    insist([&] { staged_.completions.push(outcome); });
    if (run_ == 0 || run_error_ != error) {
        event what;
        what.kind = event_kind::outcome;
        add_error(what, error);
        run_at_ = staged_.events.size() - what.size();
        run_error_ = error;
    }
    ++run_;
}

inline void inbox::end_run() noexcept {
    if (run_ == 0) return;
    event what;
    std::memcpy(&what, &staged_.events[run_at_], sizeof what);
    what.outcomes = std::exchange(run_, 0u);
    std::memcpy(&staged_.events[run_at_], static_cast<const void*>(&what), sizeof what);
}

inline void inbox::hand_over() noexcept {
    if (staged_.empty()) return;
    end_run();
    bytes_ += staged_.cost();
    insist([this] {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (ready_.empty())
            ready_.swap(staged_);
        else
            ready_.append(staged_);
    });
    filled_.notify_one();
}

inline bool inbox::ask_for_room() noexcept {
    wanted_ = true;
    return bytes_ + staged_.cost() >= max_;
}

inline void inbox::close() noexcept {
    hand_over();
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    filled_.notify_one();
}

inline bool inbox::take(batch& work) {
    work.events.clear();
    std::unique_lock<std::mutex> lock(mutex_);
    while (!closed_ && ready_.empty()) filled_.wait(lock);
    work.swap(ready_);
    return !work.empty();
}

inline bool inbox::release(std::size_t bytes) noexcept {
    const std::size_t before = bytes_.fetch_sub(bytes);
    if (before - bytes < max_ && wanted_.exchange(false)) filler_.wake();
    return before >= max_;
}

inline void inbox::reopen() noexcept {
    closed_ = false;
    wanted_ = false;
    bytes_ = 0;
}

// -------------------------------------------------------------------------------- >> connection

/// The most that may be under way on a link, posted and not yet confirmed. A receiver whose
/// handlers lag can hold that much and still read the confirmations that come behind it: so two
/// nodes with full buffers cannot wait for each other.
inline constexpr std::size_t link_window = 256 * 1024;

/// Our own message comes back: nobody listens there, and the system has connected the port to
/// itself, as it may where it happens to choose that port for us (see finish_connect()).
inline bool is_echo(std::string_view answer, std::string_view sent) noexcept {
    return sent.substr(0, answer.size()) == answer;
}

/// The reset, or what else a close without reading comes to, by the name that callers know.
inline std::error_code not_taken_if_closed(std::error_code error) noexcept {
    const bool closed = error == std::errc::connection_reset || error == std::errc::broken_pipe ||
                        error == std::errc::connection_aborted || error == std::errc::not_connected;
    return closed ? make_error_code(errc::not_taken) : error;
}

/// What goes in one segment whatever the path (RFC 879), so that the other side has all or none.
inline constexpr std::size_t one_segment = 536;

inline bool out_of_descriptors(std::error_code error) noexcept {
    return error == std::errc::too_many_files_open ||
           error == std::errc::too_many_files_open_in_system;
}

inline bool out_of_resources(std::error_code error) noexcept {
    return out_of_descriptors(error) || error == std::errc::no_buffer_space ||
           error == std::errc::not_enough_memory;
}

inline constexpr std::string_view connect_word = "CONNECT";

inline bool is_exit(std::string_view text) noexcept {
    constexpr std::string_view word = "exit";
    if (text.size() != word.size()) return false;
    for (std::size_t i = 0; i < word.size(); ++i)
        if ((text[i] | 0x20) != word[i]) return false;
    return true;
}

/// A message that waits for its turn to go one-shot.
struct outgoing {
    std::string bytes;
    pending outcome;
    bool opens_link = false;
    outgoing* next = nullptr;
};

/// A queue of them, which it owns: the last one points to the first.
class queue {
public:
    queue() = default;
    queue(const queue&) = delete;
    queue& operator=(const queue&) = delete;
    ~queue() {
        while (!empty()) pop_front();
    }

    bool empty() const noexcept { return !last_; }
    outgoing& front() noexcept { return *last_->next; }

    void push_front(outgoing& item) noexcept {
        if (!last_) last_ = &item;
        item.next = last_->next ? last_->next : &item;
        last_->next = &item;
    }
    void push_back(outgoing& item) noexcept {
        push_front(item);
        last_ = &item;
    }
    void pop_front() noexcept {
        outgoing* const first = last_->next;
        last_->next = first->next;
        if (first == last_) last_ = nullptr;
        delete first;
    }

private:
    outgoing* last_ = nullptr;
};

enum class stage : unsigned char {
    receiving,   // accepted: a one-shot, or a link about to open
    held,        // its message is whole, the inbox has no room
    connecting,  // ours: a one-shot, or a link about to open
    delivering,  // ours: being written, or awaiting the close that confirms it
    greeting,    // ours: CONNECT is sent, awaiting the answer
    linked,
};

/// Of a link that is closing, how we have said exit.
enum class farewell : unsigned char {
    none,     // not at all, or it is confirmed
    said,     // over it: the lane waits until that is confirmed
    by_twin,  // over another link to the same peer, which may still write here: it is to end this
};

struct home_place : ring {};     // in one of node's lists of connections
struct dirty_place : ring {};    // (m) in the list of those with something to write
struct starved_place : ring {};  // in the list of those that wait for room in the inbox

/// A connection of any kind. The input-and-output thread's alone, but for what is marked (m): that
/// is guarded by the node's mutex.
struct connection : home_place, dirty_place, starved_place, watched {
    stage at = stage::receiving;
    bool opens_link = false;           // ours: its message is CONNECT
    bool line_seen = false;            // receiving: its first line was no CONNECT
    bool by_claim = false;             // linked: known by `claim`, else by `remote`
    bool claim_holds = false;          // linked
    bool in_lane = false;              // linked (m)
    std::atomic<bool> closing{false};  // linked: one side said exit, what is under way is finished
    farewell exit = farewell::none;    // linked (m)
    bool half_closed = false;          // linked: or would be, were it ours to end
    bool cut = false;                  // linked (m): what is written next is the rest of a line
    bool heard_exit = false;           // linked
    bool io_writes = false;            // linked (m): there is something in `writing`
    bool ended = false;                // delivering: the other side has closed
    bool retired = false;              // among the dead
    tcp_socket socket;
    endpoint remote;  // the other end; ours: as we called it
    endpoint claim;   // linked: who it says it is
    clock::time_point deadline{};
    clock::time_point limit{};  // receiving, delivering: the latest that `deadline` may become;
                                // linked: when the other side last confirmed something
    std::string in;             // receiving, greeting: what came; linked: lines to take later
                                // (`parked` bytes), then the beginning of a line
    std::string writing;
    std::string queued;           // linked (m): goes into `writing` when that is written
    fifo in_flight;               // (m) in the order sent
    std::uint32_t timer = 0;      // its place among the timers, counted from 1; 0: none
    std::uint32_t parked = 0;     // linked
    std::uint32_t written = 0;    // of `writing`
    std::uint32_t untold = 0;     // linked: messages of theirs not confirmed yet
    std::uint64_t taken = 0;      // linked: messages of theirs
    std::uint64_t confirmed = 0;  // linked (m): messages of ours
    connection* twin = nullptr;   // linked (m): another link to the same peer

    const endpoint& key() const noexcept { return by_claim ? claim : remote; }

    /// Whether more is to be read: not of a link that overfills its window while it has to wait.
    bool reads() const noexcept { return at != stage::held && parked <= link_window; }
};

using connections = list<connection, home_place>;

/// How messages to one peer go: over a link, or one-shot, one after another. As a ring: in the
/// list of those with something to begin.
struct lane : indexed, ring {
    using indexed::indexed;

    bool idle() const noexcept { return !link && !busy && waiting.empty(); }

    connection* link = nullptr;  // the one in use; others to the same peer behind it
    queue waiting;
    std::uint32_t waiting_bytes = 0;  // and of what is under way one-shot
    bool busy = false;                // a one-shot is under way, or a link being opened
};

/// Connections by the time when something is due: a binary heap, and each knows its place in it.
class timer_heap {
public:
    bool empty() const noexcept { return heap_.empty(); }
    clock::time_point next() const noexcept { return heap_.front().when; }
    clock::time_point of(const connection& c) const noexcept { return heap_[c.timer - 1].when; }

    void arm(connection& c, clock::time_point when) {
        disarm(c);
        heap_.push_back({when, &c});
        rise(heap_.size() - 1, {when, &c});
    }
    void disarm(connection& c) noexcept {
        if (c.timer == 0) return;
        const std::size_t place = std::exchange(c.timer, 0u) - 1;
        const entry last = heap_.back();
        heap_.pop_back();
        if (last.what == &c) return;
        rise(place, last);
        sink(last.what->timer - 1, last);
    }
    connection& disarm_next() noexcept {
        connection& c = *heap_.front().what;
        disarm(c);
        return c;
    }
    void clear() noexcept { heap_.clear(); }

private:
    struct entry {
        clock::time_point when;
        connection* what;
    };

    void put(std::size_t place, const entry& item) noexcept {
        heap_[place] = item;
        item.what->timer = static_cast<std::uint32_t>(place + 1);
    }
    void rise(std::size_t place, const entry& item) noexcept {
        for (; place != 0 && item.when < heap_[(place - 1) / 2].when; place = (place - 1) / 2)
            put(place, heap_[(place - 1) / 2]);
        put(place, item);
    }
    void sink(std::size_t place, const entry& item) noexcept {
        for (std::size_t child; (child = place * 2 + 1) < heap_.size(); place = child) {
            if (child + 1 < heap_.size() && heap_[child + 1].when < heap_[child].when) ++child;
            if (item.when <= heap_[child].when) break;
            put(place, heap_[child]);
        }
        put(place, item);
    }

    std::vector<entry> heap_;
};

}  // namespace detail

// -------------------------------------------------------------------------------------- >> node

/// Everything here runs in the input-and-output thread (io), but for what is marked otherwise.
/// The handlers' thread and the callers' meet it in two places: under `mutex_` (what is posted)
/// and in the inbox (what is handed to the handlers). `mutex_` is never held while anything of
/// the user's runs.
class node::impl {
public:
    explicit impl(config settings);
    ~impl() { stop(); }

    // From any thread.
    std::error_code start();
    void stop() noexcept;
    std::error_code post(const endpoint& to, std::string_view text, detail::pending& outcome,
                         when_full mode, bool opens_link);
    std::error_code send(const endpoint& to, std::string_view text, bool opens_link);
    std::vector<delivery> broadcast(std::string_view text, bool then_stop);
    connect_result connect(const endpoint& to);
    std::vector<peer> peers() const;
    counters statistics() const noexcept;
    endpoint address() const;
    const std::string& team() const noexcept { return settings_.team; }

    message_handler on_message;
    joined_handler on_joined;
    left_handler on_left;
    rejected_handler on_rejected;

private:
    using clock = detail::clock;
    using connection = detail::connection;
    using lane = detail::lane;
    using pending = detail::pending;
    using stage = detail::stage;
    using farewell = detail::farewell;
    using connections = detail::connections;

    // Starting and stopping (any thread).
    std::error_code check_settings();
    std::error_code set_up();
    std::error_code open_listener();
    std::error_code start_threads();
    std::thread thread_for(void (impl::*work)());
    void request_stop() noexcept;
    bool in_handler() const noexcept { return handlers_id_.load() == std::this_thread::get_id(); }
    void join_threads() noexcept;  // ours, and waits for those that are in send_one_shot()

    // Posting (any thread).
    bool reserve_lane(const endpoint& to, std::string_view text, std::string& bytes);
    void leave_lane(const endpoint& to) noexcept;
    std::error_code send_one_shot(const endpoint& to, const std::string& bytes) noexcept;
    void look_after(const endpoint& to);
    lane* roomy_lane(const endpoint& to, const pending& outcome);
    lane* wait_for_room(std::unique_lock<std::mutex>& lock, const endpoint& to,
                        const pending& outcome);
    void queue_in_lane(lane& way, std::string_view text, pending& outcome, bool opens_link);
    bool write_at_once(connection& link) noexcept;
    void say_goodbye(lane& way, connection* over) noexcept;
    void end_farewell(connection& c) noexcept;
    void queue_on_link(connection& link, std::string_view text, pending& outcome);
    void wake_io(std::unique_lock<std::mutex>& lock) noexcept;

    // The loop.
    void run_io() noexcept;
    bool collect_work(int& timeout);
    void do_work();
    int time_left() const noexcept;
    void on_ready(const detail::readiness& event);
    void guarded(connection& c, void (impl::*work)(connection&)) noexcept;
    void on_timers();
    void on_timer(connection& c);
    void on_room();
    void shut_down() noexcept;
    void confirm_only(connection& c);

    // Connections, whatever their stage.
    void arm(connection& c, clock::time_point deadline);
    void watch(connection& c, bool read, bool write);
    void on_readable(connection& c);
    void on_writable(connection& c);
    void on_bytes(connection& c, std::string_view bytes);
    void on_end(connection& c);
    void on_broken(connection& c, std::error_code error);
    void on_deadline(connection& c);
    void retire(connection& c, bool in_order, bool lets_in = true) noexcept;
    void let_crowded_in() noexcept;

    // Accepted ones.
    void accept_some();
    void pause_accepting();
    void admit(tcp_socket socket, const endpoint& from);
    void read_first(connection& c);
    bool evict_oldest();
    void on_first_bytes(connection& c, std::string_view bytes);
    void greet(connection& c);
    void complete(connection& c);
    void hold(connection& c);
    void resume(connection& c);
    void reject(connection& c, std::error_code why);

    // Our own: one-shots, and links on their way.
    struct beginning {
        bool any = false;  // there was a lane
        bool crowded = false;
        connection* c = nullptr;
    };
    bool start_lane();
    beginning next_of_lane();
    void queue_waiting(lane& way);
    void begin(connection& c);
    bool at_limit() const noexcept;
    bool links_at_limit() const noexcept;
    void advance(connection& c);
    void after_sent(connection& c);
    void on_greeting(connection& c, std::string_view bytes);
    void on_confirming_end(connection& c);
    void postpone(connection& c);
    void fail_waiting(lane& way, std::error_code error) noexcept;
    void finish(connection& c, std::error_code error);
    void end_turn(const endpoint& to) noexcept;
    lane& lane_to(const endpoint& to);

    // Links.
    void become_link(connection& c, const message_view& greeting, bool ours);
    void detach(connection& c) noexcept;
    connection* next_dirty() noexcept;
    void flush(connection& c);
    void refill(connection& c);
    void on_link_bytes(connection& c, std::string_view bytes);
    void on_long_line(connection& c);
    void on_line(connection& c, std::string_view line, bool from_tail);
    void park(connection& c, std::string_view line, bool from_tail);
    void unpark(connection& c);
    void take_line(connection& c, std::string_view line);
    bool repeats_head(std::string_view line) noexcept;
    void on_control(connection& c, std::string_view line);
    void on_ack(connection& c, std::uint64_t count);
    void on_exit(connection& c, std::string_view team);
    void settle(connection& c);
    void expire(connection& c);
    void lose(connection& c, std::error_code error, departure how);

    // Who is who, and what the handlers are told.
    static errc scan(std::string_view bytes, const connection& c, message_view& result) noexcept;
    bool is_own(const endpoint& claim, const connection& c) const noexcept;
    bool holds(const endpoint& claim, const connection& c) const noexcept;
    bool from_here(const connection& c) const noexcept;
    void take(const message_view& what, const connection& c);
    void tell_message(const message_view& what, const endpoint& origin, bool verified);
    void tell_heard(const endpoint& address, std::string_view team);
    void tell_left(const endpoint& address, std::string_view team, departure how);
    void tell_rejected(const endpoint& from, std::error_code why);
    void report(pending& outcome, std::error_code error);
    void tell_outcome(pending& outcome, std::error_code error);

    // The handlers' thread.
    void run_handlers();
    void give_back(std::size_t bytes) noexcept;
    void dispatch(const detail::event& what, const char* bytes, detail::fifo& completions,
                  message& incoming);

    config settings_;
    std::string prefix_;  // "sender team ", before each of our messages
    peer_set peers_;
    detail::poller poller_;
    detail::inbox inbox_;
    detail::patience patience_;
    detail::channel stopping_;  // signalled by stop(), for those in send_one_shot()

    std::mutex lifecycle_;  // one start() or stop() at a time; guards the two threads
    std::thread io_;
    std::thread handlers_;
    std::atomic<std::thread::id> handlers_id_{};
    std::atomic<clock::rep> drain_end_{0};

    mutable std::mutex mutex_;  // guards what follows, to the blank line, and what says (m) above
    bool running_ = false;
    bool sleeping_ = false;  // io waits, or is about to: wake it
    endpoint address_;
    clock::time_point now_{};  // of io's turn
    detail::index<lane> lanes_;
    detail::list<lane> ready_lanes_;    // with something to begin
    detail::list<lane> lanes_now_;      // those of this turn of io
    detail::list<lane> crowded_lanes_;  // those that wait for a connection to end
    detail::list<connection, detail::dirty_place> dirty_;      // links with something to write
    detail::list<connection, detail::dirty_place> dirty_now_;  // those of this turn of io
    std::atomic<std::size_t> room_waiters_{0};                 // read without it
    std::size_t callers_ = 0;       // threads that are in send_one_shot()
    std::condition_variable room_;  // there is some, or a caller is gone

    // io's own.
    clock::time_point time_{};           // of this turn
    clock::time_point patient_until_{};  // goes on looking before it sleeps
    bool looking_ = false;               // does so in this turn
    message_view last_;                  // on the link whose bytes are looked at, and how that
    std::string_view head_;              // line begins, up to the text, while it still stands
    tcp_socket listener_;
    detail::watched listening_;
    clock::time_point accept_again_{};  // paused until then, if set
    connections incoming_;              // oldest first
    connections outgoing_;
    connections links_;
    connections dead_;           // until the end of the turn: events may still point to them
    std::size_t one_shots_ = 0;  // of the first two lists
    std::size_t link_count_ = 0;
    std::size_t opening_ = 0;  // of the second list: links on their way
    detail::timer_heap timers_;
    detail::list<connection, detail::starved_place> starved_;
    char buffer_[64 * 1024];

    std::atomic<std::uint64_t> connections_{0};
    std::atomic<std::uint64_t> received_{0};
    std::atomic<std::uint64_t> rejected_{0};
    std::atomic<std::uint64_t> delivered_{0};
    std::atomic<std::uint64_t> undelivered_{0};
    std::atomic<std::uint64_t> dropped_{0};
};

// Starting and stopping.

node::impl::impl(config settings)
    : settings_(std::move(settings)),
      peers_(settings_.max_peers),
      inbox_(settings_.max_received_bytes, poller_) {
    settings_.max_queued_bytes = (std::min)(settings_.max_queued_bytes, detail::link_window);
    for (auto* const timeout :
         {&settings_.connect_timeout, &settings_.handshake_timeout, &settings_.delivery_timeout,
          &settings_.first_message_timeout, &settings_.quiet_period, &settings_.drain_timeout})
        *timeout = (std::min)(*timeout, detail::longest_timeout);
}

std::error_code node::impl::check_settings() {
    if (!detail::is_team(settings_.team) || detail::in_brackets(settings_.team))
        return make_error_code(errc::bad_team);
    const endpoint address =
        settings_.address.empty() ? detect_address() : endpoint(settings_.address, 0);
    if (!detail::is_named(address)) return make_error_code(errc::bad_address);
    const std::lock_guard<std::mutex> lock(mutex_);
    address_ = address;
    return {};
}

std::error_code node::impl::open_listener() {
    auto error = listener_.listen({"::", settings_.port});
    if (error && error != std::errc::address_in_use && error != std::errc::permission_denied)
        error = listener_.listen({"0.0.0.0", settings_.port});  // a machine without IPv6
    if (error) return error;
    const std::uint16_t port = listener_.local().port();
    if (port == 0) return std::make_error_code(std::errc::no_buffer_space);  // it does not say
    const std::lock_guard<std::mutex> lock(mutex_);
    address_ = endpoint(address_.bytes(), port, address_.scope());
    prefix_.clear();
    detail::append_endpoint(prefix_, address_, false);
    prefix_.append(1, ' ').append(settings_.team).append(1, ' ');
    return {};
}

std::error_code node::impl::start() {
    if (in_handler()) return make_error_code(errc::already_running);
    const std::lock_guard<std::mutex> life(lifecycle_);
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (running_) return make_error_code(errc::already_running);
    }
    join_threads();  // of a node that was stopped by one of its handlers
    std::error_code error;
    try {
        error = set_up();
    } catch (const std::bad_alloc&) {
        error = std::make_error_code(std::errc::not_enough_memory);
    }
    if (error) {
        listening_ = {};
        listener_.close();
    }
    return error;
}

std::error_code node::impl::set_up() {
    auto error = check_settings();
    if (!error) error = open_listener();
    if (!error) error = poller_.open();
    if (!error) error = stopping_.open();
    if (!error) error = poller_.watch(listener_, listening_, true, false);
    if (!error) error = start_threads();
    return error;
}

std::error_code node::impl::start_threads() {
    peers_.clear();
    inbox_.reopen();
    drain_end_ = 0;
    stopping_.drain();
    std::error_code error;
    try {
        handlers_ = thread_for(&impl::run_handlers);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            running_ = true;
            now_ = time_ = clock::now();
        }
        io_ = thread_for(&impl::run_io);
        return {};
    } catch (const std::system_error& failure) {
        error = failure.code();
    } catch (const std::bad_alloc&) {
        error = std::make_error_code(std::errc::not_enough_memory);
    }
    request_stop();
    shut_down();  // what was posted meanwhile is reported
    join_threads();
    return error;
}

std::thread node::impl::thread_for(void (impl::*work)()) {
    return std::thread([this, work] { (this->*work)(); });
}

void node::impl::request_stop() noexcept {
    const auto end = clock::now() + settings_.drain_timeout;
    clock::rep none = 0;
    drain_end_.compare_exchange_strong(none, end.time_since_epoch().count());
    std::unique_lock<std::mutex> lock(mutex_);
    running_ = false;
    room_.notify_all();
    stopping_.signal();
    wake_io(lock);
}

void node::impl::join_threads() noexcept {
    if (io_.joinable()) io_.join();
    if (handlers_.joinable()) handlers_.join();
    handlers_id_ = std::thread::id();
    std::unique_lock<std::mutex> lock(mutex_);
    while (callers_ != 0) room_.wait(lock);
}

void node::impl::stop() noexcept {
    const bool waits = !in_handler();
    std::unique_lock<std::mutex> life(lifecycle_, std::defer_lock);
    if (waits) life.lock();  // first: a start() under way would forget that we asked
    try {
        if (settings_.leave_on_stop) broadcast("exit", true);
    } catch (const std::bad_alloc&) {
        // Then we go without a word, as on a power failure.
    }
    request_stop();
    if (waits) join_threads();
}

/// Gives `mutex_` back and has io look, if there is something to see.
void node::impl::wake_io(std::unique_lock<std::mutex>& lock) noexcept {
    const bool work = !running_ || !dirty_.empty() || !ready_lanes_.empty();
    const bool asleep = work && std::exchange(sleeping_, false);
    if (asleep) now_ = clock::now();  // io's own is from before it slept
    lock.unlock();
    if (asleep) poller_.wake();
}

// Posting.

/// The lane by which to post, nullptr if there is no room.
node::impl::lane* node::impl::roomy_lane(const endpoint& to, const pending& outcome) {
    // Outcomes that no handler fetches are bounded as messages are.
    if (outcome.done && inbox_.crowded()) return nullptr;
    lane* const way = lanes_.find(to);
    if (!way) {
        const bool room = lanes_.size() < settings_.max_peers + settings_.max_links;
        return room ? &lanes_.add(to) : nullptr;
    }
    const std::size_t bytes = way->waiting_bytes + (way->link ? way->link->in_flight.bytes() : 0);
    const bool room = bytes == 0 || bytes + outcome.size <= settings_.max_queued_bytes;
    return room ? way : nullptr;
}

node::impl::lane* node::impl::wait_for_room(std::unique_lock<std::mutex>& lock, const endpoint& to,
                                            const pending& outcome) {
    // In a handler there is nobody else to make room in the inbox.
    if (in_handler() && outcome.done && inbox_.crowded()) return nullptr;
    const auto end = clock::now() + settings_.delivery_timeout;
    lane* way = nullptr;
    auto status = std::cv_status::no_timeout;
    ++room_waiters_;
    while (running_ && !(way = roomy_lane(to, outcome)) && status != std::cv_status::timeout)
        status = room_.wait_until(lock, end);
    --room_waiters_;
    return way;
}

std::error_code node::impl::post(const endpoint& to, std::string_view text, pending& outcome,
                                 when_full mode, bool opens_link) {
    text = detail::trimmed(text);
    if (!to) return make_error_code(to.port() == 0 ? errc::bad_port : errc::bad_address);
    if (!detail::is_sendable(text)) return make_error_code(errc::bad_text);

    std::unique_lock<std::mutex> lock(mutex_);
    if (!running_) return make_error_code(errc::stopped);
    const std::size_t size = prefix_.size() + text.size() + 1;
    if (size - 1 > settings_.max_message_bytes) return make_error_code(errc::message_too_long);
    outcome.size = static_cast<std::uint32_t>(size);
    lane* way = roomy_lane(to, outcome);
    if (!way && mode == when_full::wait) way = wait_for_room(lock, to, outcome);
    if (!way) return make_error_code(running_ ? errc::queue_full : errc::stopped);
    if (way->link && !way->busy && way->waiting.empty() && !opens_link)
        queue_on_link(*way->link, text, outcome);
    else
        queue_in_lane(*way, text, outcome, opens_link);
    wake_io(lock);
    return {};
}

// Both queue all of it or, out of memory, nothing: an outcome that is thrown away is never called.

void node::impl::queue_in_lane(lane& way, std::string_view text, pending& outcome,
                               bool opens_link) {
    std::string bytes;
    bytes.reserve(outcome.size);
    bytes.append(prefix_).append(text).append(opens_link ? "\n" : "");
    auto* const item = new detail::outgoing;
    item->bytes.swap(bytes);
    item->opens_link = opens_link;
    way.waiting_bytes += outcome.size;
    item->outcome = std::move(outcome);
    way.waiting.push_back(*item);
    if (!way.busy && way.alone()) ready_lanes_.push_back(way);
}

void node::impl::queue_on_link(connection& link, std::string_view text, pending& outcome) {
    const std::uint32_t size = outcome.size;
    const bool at_once = outcome.at_once && link.in_flight.empty();
    detail::make_room(link.queued, size);
    outcome.deadline = (sleeping_ ? clock::now() : now_) + settings_.delivery_timeout;
    link.in_flight.push(outcome);
    link.queued.append(prefix_).append(text).push_back('\n');
    if (detail::is_exit(text)) say_goodbye(*lanes_.find(link.key()), &link);
    if ((!at_once || !write_at_once(link)) && link.dirty_place::alone()) dirty_.push_back(link);
}

/// `mutex_` is held. Somebody says exit: no link to this peer is used any more (there are two
/// where both sides connected at once), each is closed when nothing is under way on it. `over`: we
/// say it, over this link. Then what is posted next waits until it is confirmed, and the other
/// side, which may still write on a twin, is the one to end that.
void node::impl::say_goodbye(lane& way, connection* over) noexcept {
    if (over) way.busy = true;
    for (auto* next = way.link; next;) {
        connection& link = *next;
        next = link.twin;
        link.closing = true;
        if (over) link.exit = &link == over ? farewell::said : farewell::by_twin;
        if (link.dirty_place::alone()) dirty_.push_back(link);
        detach(link);
    }
    if (room_waiters_ != 0) room_.notify_all();
}

/// `mutex_` is held. Our exit has been confirmed, or was lost: what waited behind it may go.
void node::impl::end_farewell(connection& c) noexcept {
    if (c.exit != farewell::said) return;
    c.exit = farewell::none;
    end_turn(c.key());
}

/// Writes what is queued from the calling thread, for somebody who waits for it: to wake io first
/// would take longer than the message. False if io is to do it, or the rest of it.
bool node::impl::write_at_once(connection& link) noexcept {
    if (link.io_writes) return false;
    std::size_t sent = 0;
    const auto error = link.socket.send(link.queued, sent, {});
    link.queued.erase(0, sent);
    link.cut = sent != 0 && !link.queued.empty();
    return !error;
}

std::error_code node::impl::send(const endpoint& to, std::string_view text, bool opens_link) {
    std::string bytes;
    if (!opens_link && reserve_lane(to, text, bytes)) {
        const auto error = detail::not_taken_if_closed(send_one_shot(to, bytes));
        leave_lane(to);
        if (!detail::out_of_descriptors(error)) {
            ++(error ? undelivered_ : delivered_);
            return error;
        }  // else io can make room
    }
    detail::waiter done(patience_);
    std::error_code answer;
    pending outcome;
    outcome.waiting = &done;
    outcome.answer = &answer;
    outcome.at_once = true;
    if (auto error = post(to, text, outcome, when_full::refuse, opens_link)) return error;
    if (!done.wait_for(settings_.delivery_timeout)) {
        look_after(to);
        done.wait();
    }
    return answer;
}

/// Whether a message may go one-shot from the calling thread, without troubling io: a short one to
/// a peer to which nothing else is under way. It is then the caller's turn, until leave_lane();
/// `bytes` is what to send.
bool node::impl::reserve_lane(const endpoint& to, std::string_view text, std::string& bytes) {
    text = detail::trimmed(text);
    if (!to || !detail::is_sendable(text)) return false;
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::size_t size = prefix_.size() + text.size();
    if (!running_ || size > detail::one_segment || size > settings_.max_message_bytes) return false;
    if (lanes_.find(to)) return false;
    bytes.reserve(size);
    bytes.append(prefix_).append(text);
    lanes_.add(to).busy = true;
    ++callers_;
    return true;
}

void node::impl::leave_lane(const endpoint& to) noexcept {
    std::unique_lock<std::mutex> lock(mutex_);
    end_turn(to);
    if (--callers_ == 0) room_.notify_all();
    wake_io(lock);
}

/// All of a one-shot in the calling thread: no other has to wake for it, which makes it twice as
/// fast (no more than one thread switch to the receiver and back).
std::error_code node::impl::send_one_shot(const endpoint& to, const std::string& bytes) noexcept {
    const auto stopping = stopping_.in();
    tcp_socket socket;
    auto error = socket.connect(to, {});
    if (error && error != std::errc::operation_in_progress) return error;
    const auto handle = socket.native_handle();
    std::size_t sent = 0;
    error = socket.send(bytes, sent, {});  // connected already where that is this machine
    if (error == std::errc::operation_would_block || error == std::errc::not_connected) {
        const auto end = clock::now() + settings_.connect_timeout;
        do {
            if ((error = detail::wait_ready(handle, true, end, stopping))) break;
            if (sent == 0 && (error = socket.finish_connect())) return error;
            std::size_t more = 0;
            error = socket.send(std::string_view(bytes).substr(sent), more, {});
            sent += more;
        } while (error == std::errc::operation_would_block);
    }
    if (sent == 0) return error;
    if (!error) error = socket.shutdown_send();
    const auto end = clock::now() + settings_.delivery_timeout;
    char answer[detail::one_segment];
    for (std::size_t size = 1; !error && size != 0;) {
        error = socket.receive(answer, sizeof answer, size, {});
        const bool answers = !error && size != 0;  // which nobody should, maybe without an end
        if (answers && detail::is_echo({answer, size}, bytes)) {
            error = std::make_error_code(std::errc::connection_refused);
        } else if (answers && clock::now() >= end) {
            error = std::make_error_code(std::errc::timed_out);
        } else if (answers || error == std::errc::operation_would_block) {
            error = detail::wait_ready(handle, false, end, stopping);
            size = 1;
        }
    }
    if (error) socket.reset();
    return error;
}

/// A message went over a link without io's knowledge, and its time is over: have io look.
void node::impl::look_after(const endpoint& to) {
    std::unique_lock<std::mutex> lock(mutex_);
    lane* const way = lanes_.find(to);
    if (!way || !way->link) return;
    if (way->link->dirty_place::alone()) dirty_.push_back(*way->link);
    wake_io(lock);
}

std::vector<delivery> node::impl::broadcast(std::string_view text, bool then_stop) {
    std::vector<delivery> results;
    for (auto& known : peers()) results.push_back({known.address, {}});
    detail::waiter all(patience_, results.size() + 1);
    for (auto& result : results) {
        pending outcome;
        outcome.waiting = &all;
        outcome.answer = &result.error;
        std::error_code refused;
        try {
            refused = post(result.to, text, outcome, when_full::refuse, false);
        } catch (const std::bad_alloc&) {  // what was posted before points to this stack
            refused = std::make_error_code(std::errc::not_enough_memory);
        }
        if (!refused) continue;
        result.error = refused;
        all.tell();
    }
    all.tell();
    if (then_stop) {
        all.wait_for(settings_.drain_timeout);
        request_stop();  // has the rest reported at once
    }
    all.wait();
    return results;
}

connect_result node::impl::connect(const endpoint& to) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        const bool to_here = to.is_loopback() && to.port() == address_.port();
        if (running_ && (to_here || to == address_))
            return {make_error_code(errc::own_address), false};
        const lane* const way = lanes_.find(to);
        if (way && way->link) return {{}, true};
    }
    if (auto error = send(to, detail::connect_word, true)) return {error, false};
    const std::lock_guard<std::mutex> lock(mutex_);
    const lane* const way = lanes_.find(to);
    return {{}, way && way->link};
}

std::vector<peer> node::impl::peers() const {
    auto result = peers_.snapshot();
    const auto known = result.size();
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (const lane* way = lanes_.begin(); way; way = lanes_.next(*way)) {
            if (!way->link) continue;
            std::size_t first = 0, last = known;
            while (first < last) {
                const std::size_t middle = (first + last) / 2;
                if (result[middle].address < way->key)
                    first = middle + 1;
                else
                    last = middle;
            }
            if (first != known && result[first].address == way->key)
                result[first].linked = true;
            else  // linked, but so many others talked since that they pushed it out of the set
                result.push_back({way->key, {}, {}, true});
        }
    }
    detail::sort_by_address(result);
    return result;
}

endpoint node::impl::address() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return address_;
}

counters node::impl::statistics() const noexcept {
    counters result;
    result.connections = connections_;
    result.received = received_;
    result.rejected = rejected_;
    result.delivered = delivered_;
    result.undelivered = undelivered_;
    result.dropped = dropped_;
    return result;
}

// The loop.

void node::impl::run_io() noexcept {
    detail::readiness ready[detail::poller::batch];
    int timeout = 0;
    bool gave_way = false;
    while (collect_work(timeout)) {
        do_work();
        inbox_.hand_over();
        dead_.destroy();
        const int count = poller_.wait(timeout, ready);
        const auto before = std::exchange(time_, clock::now());
        if (looking_ && gave_way) patience_.gave_way(before, time_);
        gave_way = count == 0 && timeout == 0;
        if (gave_way)
            std::this_thread::yield();
        else if (count > 0)
            patient_until_ = patience_.until(time_);
        for (int i = 0; i < count; ++i) on_ready(ready[i]);
        on_timers();
        on_room();
    }
    shut_down();
}

/// False: to stop. Else `timeout` is how long to wait for events once the work found is done.
bool node::impl::collect_work(int& timeout) {
    const bool crowded = !starved_.empty() && inbox_.ask_for_room();
    const std::lock_guard<std::mutex> lock(mutex_);
    now_ = time_;
    lanes_now_.take(ready_lanes_);
    dirty_now_.take(dirty_);
    const bool idle = lanes_now_.empty() && dirty_now_.empty() && (starved_.empty() || crowded);
    if (!idle) patient_until_ = patience_.until(time_);
    sleeping_ = idle && time_ >= patient_until_;
    looking_ = idle && !sleeping_;
    timeout = sleeping_ ? time_left() : 0;
    return running_;
}

int node::impl::time_left() const noexcept {
    auto next = clock::time_point::max();
    if (!timers_.empty()) next = timers_.next();
    if (accept_again_ != clock::time_point()) next = (std::min)(next, accept_again_);
    return next == clock::time_point::max() ? -1 : detail::remaining(next, time_);
}

void node::impl::do_work() {
    while (start_lane()) {
    }
    while (connection* const link = next_dirty()) guarded(*link, &impl::flush);
}

/// Out of memory, a connection ends; the others go on.
void node::impl::guarded(connection& c, void (impl::*work)(connection&)) noexcept {
    try {
        (this->*work)(c);
    } catch (const std::bad_alloc&) {
        const auto error = std::make_error_code(std::errc::not_enough_memory);
        detail::insist([&] { c.retired ? void() : on_broken(c, error); });
    }
}

void node::impl::on_ready(const detail::readiness& event) {
    if (event.what == &listening_) return accept_some();
    auto& c = static_cast<connection&>(*event.what);
    // It may have been retired meanwhile, and is then watched no more.
    if (event.write && c.write) guarded(c, &impl::on_writable);
    if (event.read && c.read) guarded(c, &impl::on_readable);
}

void node::impl::on_timers() {
    if (accept_again_ != clock::time_point() && accept_again_ <= time_) {
        accept_again_ = {};
        std::error_code error;
        detail::insist([&] { error = poller_.watch(listener_, listening_, true, false); });
        if (error) pause_accepting();
    }
    while (!timers_.empty() && timers_.next() <= time_)
        guarded(timers_.disarm_next(), &impl::on_timer);
}

void node::impl::on_timer(connection& c) {
    if (c.deadline <= time_)
        on_deadline(c);
    else if (c.deadline != clock::time_point::max())
        arm(c, c.deadline);
}

/// The handlers have made room: take what waited for it.
void node::impl::on_room() {
    while (!starved_.empty() && !inbox_.full()) {
        connection& c = starved_.front();
        c.starved_place::leave();
        guarded(c, c.at == stage::held ? &impl::resume : &impl::unpark);
    }
}

void node::impl::shut_down() noexcept {
    const auto why = make_error_code(errc::stopped);
    static_cast<void>(poller_.watch(listener_, listening_, false, false));
    listening_ = {};
    listener_.close();
    for (connection* next = links_.begin(); next;) {
        connection& c = *next;
        next = links_.next(c);
        guarded(c, &impl::confirm_only);
    }
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (auto* group : {&outgoing_, &links_})
            for (auto* c = group->begin(); c; c = group->next(*c))
                for (std::size_t i = 0; i < c->in_flight.size(); ++i) report(c->in_flight[i], why);
        for (lane* way = lanes_.begin(); way; way = lanes_.next(*way)) fail_waiting(*way, why);
        lanes_.clear();
        sleeping_ = false;
        for (auto* group : {&incoming_, &outgoing_})
            for (auto* c = group->begin(); c; c = group->next(*c)) c->socket.reset();
        for (auto* group : {&incoming_, &outgoing_, &links_, &dead_}) group->destroy();
    }
    one_shots_ = link_count_ = opening_ = 0;
    timers_.clear();
    accept_again_ = {};
    inbox_.close();
}

/// Before the end: what is not begun to be written is not sent any more, for it is about to be
/// reported so.
void node::impl::confirm_only(connection& c) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!c.cut || !c.writing.empty()) c.queued.clear();
        if (!c.cut && c.written == 0) c.writing.clear();
    }
    flush(c);
}

// Connections, whatever their stage.

/// Has on_deadline() called then. Timers are lazy: one that stands for an earlier time stays, and
/// is set anew when it fires, so that moving a deadline on costs nothing.
void node::impl::arm(connection& c, clock::time_point deadline) {
    c.deadline = deadline;
    if (c.timer == 0 || timers_.of(c) > deadline) timers_.arm(c, deadline);
}

void node::impl::watch(connection& c, bool read, bool write) {
    if (auto error = poller_.watch(c.socket, c, read, write)) on_broken(c, error);
}

void node::impl::retire(connection& c, bool in_order, bool lets_in) noexcept {
    const bool linked = c.at == stage::linked;
    timers_.disarm(c);
    c.starved_place::leave();
    static_cast<void>(poller_.watch(c.socket, c, false, false));
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        c.dirty_place::leave();
        if (!linked && lets_in) let_crowded_in();
    }
    if (in_order)
        c.socket.close();
    else
        c.socket.reset();
    --(linked ? link_count_ : one_shots_);
    if (!linked && c.opens_link) --opening_;
    c.retired = true;
    dead_.push_back(c);
}

/// `mutex_` is held. A connection ends or becomes a link: one more may begin.
void node::impl::let_crowded_in() noexcept {
    if (!crowded_lanes_.empty()) ready_lanes_.push_back(crowded_lanes_.front());
}

void node::impl::on_readable(connection& c) {
    // A bound, so that one busy connection does not keep others waiting.
    for (int rounds = 0; rounds < 16; ++rounds) {
        std::size_t size = 0;
        const auto error = c.socket.receive(buffer_, sizeof buffer_, size, {});
        if (error == std::errc::operation_would_block) return;
        if (error) return on_broken(c, error);
        if (size == 0) return on_end(c);
        on_bytes(c, {buffer_, size});
        if (!c.socket.is_open() || !c.reads()) return;
        if (c.at == stage::linked && size < sizeof buffer_) return;  // that was all
    }
}

void node::impl::on_writable(connection& c) {
    if (c.at == stage::linked) return flush(c);
    if (c.at == stage::connecting) {
        if (auto error = c.socket.finish_connect()) return finish(c, error);
        c.at = stage::delivering;
        arm(c, time_ + settings_.delivery_timeout);
    }
    advance(c);
}

void node::impl::on_bytes(connection& c, std::string_view bytes) {
    switch (c.at) {
        case stage::receiving:
            return on_first_bytes(c, bytes);
        case stage::greeting:
            return on_greeting(c, bytes);
        case stage::linked:
            return on_link_bytes(c, bytes);
        default:
            break;  // an answer to a one-shot, which has none
    }
    if (detail::is_echo(bytes, c.writing))
        finish(c, std::make_error_code(std::errc::connection_refused));
}

void node::impl::on_end(connection& c) {
    switch (c.at) {
        case stage::receiving:
            return complete(c);
        case stage::delivering:
            return on_confirming_end(c);
        case stage::greeting:
            return finish(c, {});  // it knows one-shots only
        case stage::linked:
            break;
        default:
            return;
    }
    if (c.closing) return lose(c, make_error_code(errc::link_lost), departure::left);
    flush(c);  // the last confirmations, should the other side still read
    if (c.socket.is_open()) lose(c, make_error_code(errc::link_lost), departure::stopped);
}

void node::impl::on_broken(connection& c, std::error_code error) {
    switch (c.at) {
        case stage::receiving:
        case stage::held:
            return reject(c, error);
        case stage::linked:
            return lose(c, make_error_code(errc::link_lost), departure::lost);
        default:
            return finish(c, error);
    }
}

void node::impl::on_deadline(connection& c) {
    const auto late = std::make_error_code(std::errc::timed_out);
    switch (c.at) {
        case stage::receiving:
            if (c.in.empty() || time_ >= c.limit) return reject(c, late);
            return complete(c);  // quiet for long enough
        case stage::held:
            return;
        case stage::delivering:
            if (c.ended && time_ < c.limit) return on_readable(c);
            return finish(c, late);
        case stage::linked:
            if (c.half_closed) return lose(c, late, departure::left);
            return expire(c);
        default:
            return finish(c, late);
    }
}

// Accepted ones.

void node::impl::pause_accepting() {
    // With no descriptor left the listener stays ready: to ask it on and on would be a busy loop.
    accept_again_ = time_ + std::chrono::milliseconds(100);
    static_cast<void>(poller_.watch(listener_, listening_, false, false));
}

void node::impl::accept_some() {
    for (int i = 0; i < 64; ++i) {
        tcp_socket socket;
        endpoint from;
        const auto error = listener_.accept(socket, {}, &from);
        if (!error)
            admit(std::move(socket), from);
        else if (error == std::errc::operation_would_block)
            return;
        else if (error == std::errc::connection_aborted || error == std::errc::connection_reset)
            continue;  // it ended before; the second is Winsock's name for it
        else if (!detail::out_of_resources(error) || !evict_oldest())
            return pause_accepting();
    }
}

bool node::impl::at_limit() const noexcept { return one_shots_ >= settings_.max_connections; }

bool node::impl::links_at_limit() const noexcept {
    return link_count_ + opening_ >= settings_.max_links;
}

bool node::impl::evict_oldest() {
    if (incoming_.empty()) return false;
    reject(incoming_.front(), make_error_code(errc::connection_limit));
    return true;
}

void node::impl::admit(tcp_socket socket, const endpoint& from) {
    ++connections_;
    if (at_limit() && !evict_oldest()) {
        tell_rejected(from, make_error_code(errc::connection_limit));
        return socket.reset();
    }
    auto* const c = new (std::nothrow) connection;
    if (!c) {
        tell_rejected(from, std::make_error_code(std::errc::not_enough_memory));
        return socket.reset();
    }
    incoming_.push_back(*c);
    ++one_shots_;
    c->remote = from;
    c->socket = std::move(socket);
    c->limit = c->deadline = time_ + settings_.first_message_timeout;
    guarded(*c, &impl::read_first);
}

/// Most messages are there when the connection is: reading at once saves the poller's work.
void node::impl::read_first(connection& c) {
    on_readable(c);
    if (c.retired || c.at != stage::receiving) return;
    arm(c, c.deadline);
    watch(c, true, false);
}

void node::impl::on_first_bytes(connection& c, std::string_view bytes) {
    if (c.in.size() + bytes.size() > settings_.max_message_bytes + 2)  // a line's end may follow
        return reject(c, make_error_code(errc::message_too_long));
    const std::size_t before = c.in.size();
    c.in.append(bytes);
    c.deadline = (std::min)(c.limit, time_ + settings_.quiet_period);
    if (c.timer != 0) arm(c, c.deadline);
    if (c.line_seen) return;
    const std::size_t end = c.in.find('\n', before);
    if (end == std::string::npos) return;
    c.line_seen = true;
    greet(c);
}

/// Where the first line is CONNECT, it becomes a link.
void node::impl::greet(connection& c) {
    const std::size_t end = c.in.find('\n');
    const std::string first = c.in.substr(0, end);
    message_view greeting;
    if (scan(first, c, greeting) != detail::no_error) return;
    if (greeting.text != detail::connect_word) return;
    const bool to_itself = is_own(greeting.sender, c) && from_here(c);
    if (to_itself || links_at_limit()) return complete(c);
    if (inbox_.full()) return hold(c);
    const std::string rest = c.in.substr(end + 1);
    std::string().swap(c.in);
    become_link(c, greeting, false);
    if (c.socket.is_open() && !rest.empty()) on_link_bytes(c, rest);
}

/// A one-shot is whole.
void node::impl::complete(connection& c) {
    message_view what;
    const std::string_view bytes = detail::trimmed(c.in);
    if (bytes.empty()) return reject(c, make_error_code(errc::no_message));
    if (bytes.size() > settings_.max_message_bytes)
        return reject(c, make_error_code(errc::message_too_long));
    if (const errc error = scan(bytes, c, what); error != detail::no_error)
        return reject(c, make_error_code(error));
    if (inbox_.full()) return hold(c);
    take(what, c);
    retire(c, true);
}

/// What it brings has no room in the inbox.
void node::impl::hold(connection& c) {
    c.at = stage::held;
    c.deadline = clock::time_point::max();
    static_cast<void>(poller_.watch(c.socket, c, false, false));
    starved_.push_back(c);
}

/// There is room; but whoever has given up meanwhile was told that it was not taken.
void node::impl::resume(connection& c) {
    if (detail::is_reset(c.socket.native_handle()))
        return reject(c, std::make_error_code(std::errc::connection_reset));
    c.at = stage::receiving;
    if (c.line_seen) greet(c);
    if (c.at == stage::receiving && !c.retired) complete(c);
}

void node::impl::reject(connection& c, std::error_code why) {
    tell_rejected(c.remote, why);
    retire(c, false);
}

// Our own: one-shots, and links on their way.

/// Begins with what waits in the next lane, or ends one in which nothing does; false when there is
/// none.
bool node::impl::start_lane() {
    beginning next;
    detail::insist([&] { next = next_of_lane(); });
    if (next.c) guarded(*next.c, &impl::begin);
    if (next.crowded) evict_oldest();
    return next.any;
}

node::impl::beginning node::impl::next_of_lane() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (lanes_now_.empty()) return {};
    lane& way = lanes_now_.front();
    if (way.link) queue_waiting(way);
    if (way.busy || way.waiting.empty()) {
        way.leave();
        if (way.idle()) lanes_.erase(way);
        return {true, false, nullptr};
    }
    if (at_limit()) {
        crowded_lanes_.push_back(way);
        return {true, true, nullptr};
    }
    auto& next = way.waiting.front();
    auto& c = *new connection;
    dead_.push_back(c);  // unless all of it succeeds
    c.in_flight.push(next.outcome);
    c.at = stage::connecting;
    c.remote = way.key;
    c.writing.swap(next.bytes);
    c.opens_link = next.opens_link;
    if (c.opens_link && links_at_limit()) {
        c.opens_link = false;
        c.writing.pop_back();  // the LF: a one-shot, then
    }
    if (c.opens_link) ++opening_;
    way.waiting.pop_front();
    way.leave();
    way.busy = true;
    outgoing_.push_back(c);
    ++one_shots_;
    return {true, false, &c};
}

/// What waited for its turn goes over the link that has come meanwhile.
void node::impl::queue_waiting(lane& way) {
    while (way.link && !way.busy && !way.waiting.empty()) {
        auto& next = way.waiting.front();
        const std::uint32_t size = next.outcome.size;
        if (next.opens_link)
            report(next.outcome, {});
        else
            queue_on_link(*way.link, std::string_view(next.bytes).substr(prefix_.size()),
                          next.outcome);
        way.waiting_bytes -= size;  // now that nothing fails any more
        way.waiting.pop_front();
    }
}

void node::impl::begin(connection& c) {
    auto error = c.socket.connect(c.remote, {});
    while (detail::out_of_descriptors(error) && evict_oldest())
        error = c.socket.connect(c.remote, {});
    const bool others = outgoing_.begin() != &c || outgoing_.next(c);
    if (detail::out_of_descriptors(error) && others) return postpone(c);
    if (error && error != std::errc::operation_in_progress) return finish(c, error);
    arm(c, time_ + settings_.connect_timeout);
    advance(c);
}

/// Writes what is left of the message. That works at once on a connection just begun where the
/// other end is this machine; elsewhere the system says that it is not connected yet.
void node::impl::advance(connection& c) {
    std::size_t sent = 0;
    auto error = c.socket.send(std::string_view(c.writing).substr(c.written), sent, {});
    c.written += static_cast<std::uint32_t>(sent);
    if (c.at == stage::connecting) {
        if (sent == 0 && error == std::errc::not_connected)
            error = std::make_error_code(std::errc::operation_would_block);
        if (sent != 0) {
            c.at = stage::delivering;
            arm(c, time_ + settings_.delivery_timeout);
        }
    }
    if (!error) return after_sent(c);
    if (error != std::errc::operation_would_block) return on_broken(c, error);
    watch(c, c.at == stage::delivering, true);
}

void node::impl::after_sent(connection& c) {
    if (c.opens_link) {
        c.at = stage::greeting;
        arm(c, time_ + settings_.handshake_timeout);
    } else if (auto error = c.socket.shutdown_send()) {
        return on_broken(c, error);
    }
    c.limit = c.deadline;
    watch(c, true, false);
}

/// The other side has closed. That confirms the message if it had all of it: with some still on
/// the way (the original reads 1024 bytes and closes) a reset may follow.
void node::impl::on_confirming_end(connection& c) {
    if (c.written < c.writing.size()) return finish(c, make_error_code(errc::not_taken));
    constexpr int our_end = 1;  // the half-close counts as a byte
    if (c.writing.size() <= detail::one_segment) return finish(c, {});
    if (detail::os::unacknowledged(c.socket.native_handle()) <= our_end)
        return c.socket.finish_connect() ? finish(c, make_error_code(errc::not_taken))
                                         : finish(c, {});
    c.ended = true;
    static_cast<void>(poller_.watch(c.socket, c, false, false));
    arm(c, (std::min)(c.limit, time_ + std::chrono::milliseconds(5)));
}

void node::impl::on_greeting(connection& c, std::string_view bytes) {
    const std::size_t before = c.in.size();
    c.in.append(bytes);
    const std::size_t end = c.in.find('\n', before);
    if (end == std::string::npos) {
        if (c.in.size() > settings_.max_message_bytes)
            finish(c, make_error_code(errc::message_too_long));
        return;
    }
    const std::string all = std::exchange(c.in, std::string());
    if (detail::is_echo(all, c.writing))
        return finish(c, std::make_error_code(std::errc::connection_refused));
    message_view greeting;
    if (scan({all.data(), end}, c, greeting) != detail::no_error ||
        greeting.text != detail::connect_word)
        return finish(c, make_error_code(errc::protocol_error));
    become_link(c, greeting, true);
    if (c.socket.is_open() && end + 1 < all.size())
        on_link_bytes(c, std::string_view(all).substr(end + 1));
}

/// No descriptor is left: another connection's end gives one back.
void node::impl::postpone(connection& c) {
    auto* const item = new detail::outgoing;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        lane& way = *lanes_.find(c.remote);
        item->bytes.swap(c.writing);
        item->outcome = std::move(c.in_flight.front());
        item->opens_link = c.opens_link;
        way.waiting.push_front(*item);
        way.busy = false;
        crowded_lanes_.push_back(way);
    }
    retire(c, true, false);
}

void node::impl::fail_waiting(lane& way, std::error_code error) noexcept {
    for (; !way.waiting.empty(); way.waiting.pop_front())
        report(way.waiting.front().outcome, error);
    way.waiting_bytes = 0;
}

void node::impl::finish(connection& c, std::error_code error) {
    error = detail::not_taken_if_closed(error);
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        lane& way = *lanes_.find(c.remote);
        way.waiting_bytes -= c.in_flight.front().size;
        report(c.in_flight.front(), error);
        // A peer that cannot be reached is not tried again for each message that waits.
        if (error && error != errc::not_taken) fail_waiting(way, error);
        end_turn(c.remote);
    }
    retire(c, !error);
}

/// `mutex_` is held. What was under way to this peer is over: what waits behind it comes next.
void node::impl::end_turn(const endpoint& to) noexcept {
    lane* const way = lanes_.find(to);
    if (!way) return;  // shut down meanwhile
    way->busy = false;
    if (!way->waiting.empty())
        ready_lanes_.push_back(*way);
    else if (!way->link)
        lanes_.erase(*way);
    if (room_waiters_ != 0) room_.notify_all();
}

node::impl::lane& node::impl::lane_to(const endpoint& to) {
    lane* const way = lanes_.find(to);
    return way ? *way : lanes_.add(to);
}

// Links.

void node::impl::become_link(connection& c, const message_view& greeting, bool ours) {
    c.claim = greeting.sender;
    c.claim_holds = !is_own(greeting.sender, c) && holds(greeting.sender, c);
    c.by_claim = !ours && c.claim_holds;
    tell_heard(c.key(), greeting.team);  // first: whoever waits for the link then finds it listed
    c.deadline = clock::time_point::max();
    c.limit = {};
    std::string().swap(c.writing);
    c.written = 0;
    c.socket.no_delay();
    c.socket.keep_alive(settings_.keep_alive);
    links_.push_back(c);
    ++link_count_;
    --one_shots_;
    if (ours) --opening_;
    c.at = stage::linked;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        let_crowded_in();
        lane& way = lane_to(c.key());
        connection** last = &way.link;
        while (*last) last = &(*last)->twin;
        *last = &c;
        c.in_lane = true;
        c.io_writes = !ours;  // our answer comes before what others write at once
        if (ours) {
            way.busy = false;
            way.waiting_bytes -= c.in_flight.front().size;
            report(c.in_flight.front(), {});
            c.in_flight.pop();
            if (room_waiters_ != 0) room_.notify_all();
        }
        if (!way.busy && !way.waiting.empty()) ready_lanes_.push_back(way);
    }
    if (!ours) {
        ++received_;
        if (!c.claim_holds)
            tell_rejected(c.remote,
                          make_error_code(is_own(c.claim, c) ? errc::own_address
                                                             : errc::sender_not_verified));
        tell_message(greeting, c.remote, c.claim_holds);
        c.writing.append(prefix_).append(detail::connect_word).append(1, '\n');
    }
    flush(c);
    if (c.written == c.writing.size()) std::string().swap(c.writing), c.written = 0;
}

/// `mutex_` is held. From now on what is posted to this peer goes another way.
void node::impl::detach(connection& c) noexcept {
    if (!std::exchange(c.in_lane, false)) return;
    lane& way = *lanes_.find(c.key());
    connection** place = &way.link;
    while (*place != &c) place = &(*place)->twin;
    *place = std::exchange(c.twin, nullptr);
    if (way.idle()) lanes_.erase(way);
}

node::impl::connection* node::impl::next_dirty() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (dirty_now_.empty()) return nullptr;
    connection& link = dirty_now_.front();
    link.dirty_place::leave();
    return &link;
}

/// Moves into `writing` what is to be written next, confirmations behind it.
void node::impl::refill(connection& c) {
    if (c.written < c.writing.size()) return;
    const bool wrote = !c.writing.empty();
    c.writing.clear();
    c.written = 0;
    clock::time_point first{};
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (wrote) c.cut = false;
        if (!c.queued.empty()) c.writing.swap(c.queued);
        c.io_writes = !c.writing.empty() || c.untold != 0;
        if (!c.in_flight.empty()) first = c.in_flight.front().deadline;
    }
    if (first != clock::time_point() && c.deadline == clock::time_point::max()) arm(c, first);
    if (c.untold != 0) {
        c.writing.append("ACK ");
        detail::append_number(c.writing, c.taken);
        c.writing += '\n';
        c.untold = 0;
    }
}

void node::impl::flush(connection& c) {
    for (;;) {
        refill(c);
        if (c.writing.empty()) break;
        std::size_t sent = 0;
        const auto error = c.socket.send(std::string_view(c.writing).substr(c.written), sent, {});
        c.written += static_cast<std::uint32_t>(sent);
        if (error == std::errc::operation_would_block) return watch(c, c.reads(), true);
        if (error) return on_broken(c, error);
    }
    watch(c, c.reads(), false);
    if (c.socket.is_open() && c.closing) settle(c);
}

/// A link that is about to close does so when nothing is under way any more.
void node::impl::settle(connection& c) {
    bool ours_to_end = false;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!c.in_flight.empty() || !c.queued.empty()) return;
        end_farewell(c);
        if (c.half_closed || c.parked != 0) return;
        c.half_closed = true;
        ours_to_end = c.exit != farewell::by_twin;
    }
    if (ours_to_end) static_cast<void>(c.socket.shutdown_send());
    arm(c, time_ + settings_.delivery_timeout);
}

void node::impl::on_link_bytes(connection& c, std::string_view bytes) {
    head_ = {};
    while (!bytes.empty() && c.socket.is_open()) {
        const std::size_t end = bytes.find('\n');
        const bool whole = end != std::string_view::npos;
        const std::string_view piece = bytes.substr(0, end);
        const std::size_t tail = c.in.size() - c.parked;
        if (tail + piece.size() > settings_.max_message_bytes + 1) return on_long_line(c);
        bytes.remove_prefix(whole ? end + 1 : bytes.size());
        if (tail != 0 || !whole) c.in.append(piece);
        if (whole && tail != 0)
            on_line(c, std::string_view(c.in).substr(c.parked), true);
        else if (whole)
            on_line(c, piece, false);
    }
    if (c.socket.is_open() && (c.untold != 0 || c.closing)) flush(c);
}

void node::impl::on_long_line(connection& c) {
    tell_rejected(c.remote, make_error_code(errc::message_too_long));
    lose(c, make_error_code(errc::link_lost), departure::lost);
}

/// `from_tail`: the line stands at the end of `in`, which is to be rid of it.
void node::impl::on_line(connection& c, std::string_view line, bool from_tail) {
    const std::string_view words = detail::trimmed(line);
    if (words.size() > settings_.max_message_bytes) return on_long_line(c);
    const char first = words.empty() ? '\0' : words.front();
    const bool is_message = detail::is_digit(first) || first == '[' || first == '<';
    if (is_message && (c.parked != 0 || inbox_.full())) return park(c, line, from_tail);
    if (is_message)
        take_line(c, words);
    else if (!words.empty())
        on_control(c, words);
    if (!from_tail) return;
    c.in.resize(c.parked);
    head_ = {};
}

/// The inbox has no room: the line waits here, unconfirmed, while control lines behind it are
/// read. A peer that sends more than the window lets its own confirmations wait.
void node::impl::park(connection& c, std::string_view line, bool from_tail) {
    if (!from_tail) c.in.append(line);
    c.in.append(1, '\n');
    c.parked = static_cast<std::uint32_t>(c.in.size());
    starved_.push_back(c);
    watch(c, c.reads(), c.write);
}

void node::impl::unpark(connection& c) {
    head_ = {};
    std::size_t start = 0;
    while (start < c.parked && !inbox_.full()) {
        const std::size_t end = c.in.find('\n', start);
        take_line(c, detail::trimmed(std::string_view(c.in).substr(start, end - start)));
        start = end + 1;
    }
    c.in.erase(0, start);
    c.parked -= static_cast<std::uint32_t>(start);
    if (c.parked != 0) starved_.push_back(c);
    flush(c);
}

void node::impl::take_line(connection& c, std::string_view line) {
    const bool same = repeats_head(line);
    if (!same) {
        head_ = {};
        if (const errc error = scan(line, c, last_); error != detail::no_error)
            return tell_rejected(c.remote, make_error_code(error));
    }
    ++c.taken;
    ++c.untold;
    if (last_.sender != c.claim) return take(last_, c);
    ++received_;
    if (detail::is_exit(last_.text)) return on_exit(c, last_.team);
    if (!same) {
        tell_heard(c.key(), last_.team);
        head_ = line.substr(0, static_cast<std::size_t>(last_.text.data() - line.data()));
    }
    tell_message(last_, c.remote, c.claim_holds);
}

/// Lines that come together mostly begin alike: then only the text is new. Saves a fifth of the
/// time of a message in a stream.
bool node::impl::repeats_head(std::string_view line) noexcept {
    const std::size_t size = head_.size();
    if (size == 0 || line.size() <= size || detail::is_space(line[size])) return false;
    if (line.compare(0, size, head_) != 0 || !detail::is_text(line.substr(size))) return false;
    last_.team =
        line.substr(static_cast<std::size_t>(last_.team.data() - head_.data()), last_.team.size());
    last_.text = line.substr(size);
    head_ = line.substr(0, size);
    return true;
}

void node::impl::on_control(connection& c, std::string_view line) {
    constexpr std::string_view word = "ACK ";
    std::uint64_t count = 0;
    bool number = line.size() > word.size() && line.substr(0, word.size()) == word;
    for (std::size_t i = word.size(); number && i < line.size(); ++i) {
        number = detail::is_digit(line[i]) && count < UINT64_MAX / 10 - 1;
        count = count * 10 + static_cast<std::uint64_t>(line[i] - '0');
    }
    if (number) return on_ack(c, count);
    tell_rejected(c.remote, make_error_code(errc::protocol_error));
}

void node::impl::on_ack(connection& c, std::uint64_t count) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto fresh = (std::min<std::uint64_t>)(count > c.confirmed ? count - c.confirmed : 0,
                                                     c.in_flight.size());
        std::uint64_t untold = 0;
        for (std::uint64_t i = 0; i < fresh; ++i) untold += c.in_flight[i].reported ? 0u : 1u;
        delivered_ += untold;  // once: an atomic costs as much as the rest
        c.confirmed += fresh;
        for (std::uint64_t i = 0; i < fresh; ++i, c.in_flight.pop())
            tell_outcome(c.in_flight.front(), {});
        if (fresh != 0) c.limit = time_;
        if (room_waiters_ != 0) {
            // While there is little, one at a time: with 64 that wait for room a message takes a
            // fifth less time than if all were woken, most of them in vain.
            const bool much = c.in_flight.bytes() <= settings_.max_queued_bytes / 2;
            much ? room_.notify_all() : room_.notify_one();
        }
    }
    if (c.confirmed < count) {  // it confirms what we never sent
        tell_rejected(c.remote, make_error_code(errc::protocol_error));
        lose(c, make_error_code(errc::link_lost), departure::lost);
    }
}

void node::impl::on_exit(connection& c, std::string_view team) {
    if (std::exchange(c.heard_exit, true)) return;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (c.in_lane) say_goodbye(*lanes_.find(c.key()), nullptr);
    }
    tell_left(c.key(), team, departure::left);
}

/// What was posted too long ago is reported so. The link itself is given up only when the other
/// side has confirmed nothing at all for that long.
void node::impl::expire(connection& c) {
    const auto late = std::make_error_code(std::errc::timed_out);
    auto next = clock::time_point::max();
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (std::size_t i = 0; i < c.in_flight.size(); ++i) {
            pending& outcome = c.in_flight[i];
            if (!outcome.reported && outcome.deadline > time_) {
                next = outcome.deadline;
                break;
            }
            report(outcome, late);
        }
        if (c.in_flight.empty()) {
            c.in_flight.shrink();
            for (auto* buffer : {&c.queued, &c.in})
                if (buffer->empty()) std::string().swap(*buffer);
        } else if (c.in_flight.front().reported) {
            const auto posted = c.in_flight.front().deadline - settings_.delivery_timeout;
            const auto quiet = (std::max)(posted, c.limit) + settings_.delivery_timeout;
            next = (std::min)(next, quiet);
        }
    }
    if (next <= time_) return lose(c, late, departure::lost);
    c.deadline = next;
    if (next != clock::time_point::max()) arm(c, next);
}

void node::impl::lose(connection& c, std::error_code error, departure how) {
    bool last = false;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        detach(c);
        const lane* const way = lanes_.find(c.key());
        last = !way || !way->link;
        for (; !c.in_flight.empty(); c.in_flight.pop()) report(c.in_flight.front(), error);
        end_farewell(c);
        if (room_waiters_ != 0) room_.notify_all();
    }
    retire(c, how != departure::lost);
    // Having said goodbye, we go on knowing it; but not by an address that only the link had.
    const bool unknown_now = !c.closing || (!c.by_claim && !c.opens_link);
    if (last && unknown_now && !c.heard_exit) tell_left(c.key(), {}, how);
}

// Who is who, and what the handlers are told.

/// What came over this connection. A link-local address means nothing without the device that leads
/// to it, which is here another than there.
errc node::impl::scan(std::string_view bytes, const connection& c, message_view& result) noexcept {
    const errc error = detail::scan_message(bytes, result);
    endpoint& sender = result.sender;
    if (error == detail::no_error && c.remote.scope() != 0 && sender.same_address(c.remote))
        sender = endpoint(sender.bytes(), sender.port(), c.remote.scope());
    return error;
}

bool node::impl::from_here(const connection& c) const noexcept {
    return c.remote.is_loopback() || c.remote.same_address(c.socket.local());
}

bool node::impl::holds(const endpoint& claim, const connection& c) const noexcept {
    return claim.same_address(c.remote) || from_here(c);
}

bool node::impl::is_own(const endpoint& claim, const connection& c) const noexcept {
    if (claim.port() != address_.port()) return false;
    return claim.same_address(address_) || claim.is_loopback() ||
           claim.same_address(c.socket.local());
}

void node::impl::take(const message_view& what, const connection& c) {
    ++received_;
    const bool own = is_own(what.sender, c);
    const bool verified = holds(what.sender, c);
    if (own || !verified) {
        const errc why = own ? errc::own_address : errc::sender_not_verified;
        tell_rejected(c.remote, make_error_code(why));
        return tell_message(what, c.remote, verified);
    }
    if (!detail::is_exit(what.text)) {
        tell_heard(what.sender, what.team);
        return tell_message(what, c.remote, true);
    }
    bool linked = false;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        const lane* const way = lanes_.find(what.sender);
        linked = way && way->link;
    }
    // Whoever has a link says exit over it: this is somebody else on the same machine.
    if (linked) return tell_rejected(c.remote, make_error_code(errc::sender_not_verified));
    tell_left(what.sender, what.team, departure::left);
}

void node::impl::tell_message(const message_view& what, const endpoint& origin, bool verified) {
    detail::event event;
    event.kind = detail::event_kind::message;
    event.sender = what.sender;
    event.origin = origin;
    event.verified = verified;
    // The team, what stands between (a space), and the text are copied as one.
    const char* const first = what.team.data();
    event.team_size = static_cast<std::uint32_t>(what.team.size());
    event.text_at = static_cast<std::uint32_t>(what.text.data() - first);
    inbox_.add(event, {first, event.text_at + what.text.size()});
}

void node::impl::tell_heard(const endpoint& address, std::string_view team) {
    if (!peers_.heard(address, team)) return;
    detail::event event;
    event.kind = detail::event_kind::joined;
    event.sender = address;
    event.team_size = static_cast<std::uint32_t>(team.size());
    inbox_.add(event, team);
}

void node::impl::tell_left(const endpoint& address, std::string_view team, departure how) {
    peer known;
    peers_.remove(address, known);
    detail::event event;
    event.kind = detail::event_kind::left;
    event.sender = address;
    event.how = how;
    if (!known.team.empty()) team = known.team;
    event.team_size = static_cast<std::uint32_t>(team.size());
    inbox_.add(event, team);
}

void node::impl::tell_rejected(const endpoint& from, std::error_code why) {
    ++rejected_;
    if (inbox_.full()) return;  // counted: a flood must not fill the memory
    detail::event event;
    event.kind = detail::event_kind::rejected;
    event.sender = from;
    inbox_.add_error(event, why);
}

/// Counted first: whoever hears of it finds it in statistics().
void node::impl::report(pending& outcome, std::error_code error) {
    if (!outcome.reported) ++(error ? undelivered_ : delivered_);
    tell_outcome(outcome, error);
}

void node::impl::tell_outcome(pending& outcome, std::error_code error) {
    if (std::exchange(outcome.reported, true)) return;
    if (outcome.waiting) {
        *outcome.answer = error;
        outcome.waiting->tell();
    } else if (outcome.done) {
        inbox_.add_outcome(outcome, error);
    }
}

// The handlers' thread.

void node::impl::run_handlers() {
    handlers_id_ = std::this_thread::get_id();
    detail::batch work;
    message incoming;  // reused, so that a message costs no allocation
    while (inbox_.take(work)) {
        const char* at = work.events.data();
        const char* const end = at + work.events.size();
        std::size_t owed = 0;
        for (detail::event what; at != end; at += what.size()) {
            std::memcpy(&what, at, sizeof what);
            dispatch(what, at + sizeof what, work.completions, incoming);
            owed += what.size() + what.outcomes * sizeof(pending);
            if (inbox_.crowded()) give_back(std::exchange(owed, 0));
        }
        give_back(owed);
    }
}

void node::impl::give_back(std::size_t bytes) noexcept {
    if (!inbox_.release(bytes) || room_waiters_ == 0) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    room_.notify_all();
}

void node::impl::dispatch(const detail::event& what, const char* bytes, detail::fifo& completions,
                          message& incoming) {
    const std::string_view team(bytes, what.team_size);
    const std::string_view text(bytes + what.text_at, what.bytes - what.text_at);
    const clock::rep drain_end = drain_end_.load(std::memory_order_relaxed);
    const bool drop = drain_end != 0 && clock::now().time_since_epoch().count() >= drain_end;
    switch (what.kind) {
        case detail::event_kind::message:
            if (drop) {
                ++dropped_;
            } else if (on_message) {
                incoming.sender = what.sender;
                incoming.origin = what.origin;
                incoming.verified = what.verified;
                detail::insist([&] { incoming.team.assign(team), incoming.text.assign(text); });
                on_message(incoming);
            }
            return;
        case detail::event_kind::joined:
        case detail::event_kind::left: {
            peer who{what.sender, {}, std::chrono::system_clock::now(), false};
            detail::insist([&] { who.team.assign(team); });
            if (what.kind == detail::event_kind::left) {
                if (on_left && !drop) on_left(who, what.how);
            } else if (on_joined && !drop) {
                on_joined(who);
            }
            return;
        }
        case detail::event_kind::rejected:
        case detail::event_kind::outcome: {
            std::error_code error;
            std::memcpy(static_cast<void*>(&error), text.data(), sizeof error);
            for (std::uint32_t i = 0; i < what.outcomes; ++i, completions.pop())
                completions.front().done(error);
            const bool rejected = what.kind == detail::event_kind::rejected;
            if (rejected && on_rejected && !drop) on_rejected(what.sender, error);
            return;
        }
    }
}

// What users see of it.

node::node(config settings) : impl_(new impl(std::move(settings))) {}
node::~node() = default;

void node::on_message(message_handler handler) { impl_->on_message.swap(handler); }
void node::on_peer_joined(joined_handler handler) { impl_->on_joined.swap(handler); }
void node::on_peer_left(left_handler handler) { impl_->on_left.swap(handler); }
void node::on_rejected(rejected_handler handler) { impl_->on_rejected.swap(handler); }

std::error_code node::start() { return impl_->start(); }
void node::stop() noexcept { impl_->stop(); }
endpoint node::address() const { return impl_->address(); }
const std::string& node::team() const noexcept { return impl_->team(); }

std::error_code node::send(const endpoint& to, std::string_view text) {
    return impl_->send(to, text, false);
}

std::error_code node::post(const endpoint& to, std::string_view text, completion done,
                           when_full mode) {
    detail::pending outcome;
    outcome.done = std::move(done);
    return impl_->post(to, text, outcome, mode, false);
}

std::vector<delivery> node::broadcast(std::string_view text) {
    return impl_->broadcast(text, false);
}
connect_result node::connect(const endpoint& to) { return impl_->connect(to); }
std::vector<peer> node::peers() const { return impl_->peers(); }
counters node::statistics() const noexcept { return impl_->statistics(); }

}  // namespace p2pchat

std::size_t std::hash<p2pchat::endpoint>::operator()(
    const p2pchat::endpoint& value) const noexcept {
    std::uint64_t half[2];
    std::memcpy(half, value.bytes(), sizeof half);
    std::uint64_t mixed = half[0] ^ (std::uint64_t{value.port()} << 32 | value.scope());
    mixed = (mixed ^ mixed >> 29) * 0xbf58476d1ce4e5b9u + half[1];
    mixed = (mixed ^ mixed >> 32) * 0x94d049bb133111ebu;
    return static_cast<std::size_t>(mixed ^ mixed >> 31);
}

#endif  // P2PCHAT_IMPLEMENTATION
