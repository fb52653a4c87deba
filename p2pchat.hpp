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
