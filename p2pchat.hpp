// p2pchat.hpp - a chat peer for the local network, in one header. C++17, no dependencies.
//
// SPDX-License-Identifier: MIT
// Copyright (c) 2026 The p2pchat authors
//
// What it is
//   A node listens on a TCP port, receives short text messages, sends them to other nodes and knows
//   which peers it has heard from. It talks to a peer by one-shots (a connection for each message)
//   or, where both sides can, over a link (a connection that stays open, on which every message is
//   confirmed).
//
// How to include it
//   Include this file wherever its declarations are needed. In exactly one source file, define
//   P2PCHAT_IMPLEMENTATION first; where the linker says "undefined reference to p2pchat::...", no
//   file does. That file, and no other, sees the operating system's headers. The others see none of
//   them, and no macros but P2PCHAT_... The one file needs exceptions. With MSVC it must include
//   this header before <windows.h>, or define WIN32_LEAN_AND_MEAN; elsewhere any order will do.
//   Link with the system's threads (-pthread) and, on Windows, with ws2_32. For config::encryption,
//   define P2PCHAT_OPENSSL there too and link with OpenSSL 3.0 or later (-lssl -lcrypto). What this
//   file declares is the same with or without it.
//
//       #define P2PCHAT_IMPLEMENTATION            // in one source file
//       #include "p2pchat.hpp"
//       #include <cstdlib>
//       #include <iostream>
//
//       void show(const std::string& s) { std::cout << s + '\n' << std::flush; }  // by any thread
//
//       int main(int argc, char** argv) {         // talk NAME [PORT]
//           p2pchat::config config;
//           config.team = argc > 1 ? argv[1] : "";  // start() refuses an empty one
//           config.port = static_cast<std::uint16_t>(argc > 2 ? std::atoi(argv[2]) : 5000);
//           config.discovery = true;              // find others on the LAN, and be found
//
//           p2pchat::node node(config);
//           node.on_message([](const p2pchat::message& m) {
//               show(to_string(m.reply_to()) + ' ' + m.team + ": " + m.text);
//           });
//           node.on_peer_found([&](const p2pchat::candidate& c) {
//               if (auto error = node.connect(c.address, {})) show(error.message());
//           });
//           if (auto error = node.start()) { std::cerr << error.message() << '\n'; return 1; }
//           show("I am " + to_string(node.address()));
//
//           for (std::string line; std::getline(std::cin, line);) {
//               const auto outcomes = node.broadcast(line);  // to all we know; waits for the last
//               if (outcomes.empty()) show("nobody is known yet");
//               for (const auto& [to, error] : outcomes)
//                   show(to_string(to) + ": " + (error ? error.message() : "delivered"));
//           }
//       }
//
// In short
//   What a program can do with a node. Handlers are set before start(); the details of each call
//   are at its declaration.
//
//       p2pchat::endpoint to("10.18.1.2", 6000);  // or parse(), or resolve() for a host name
//
//       node.on_message([&](const p2pchat::message& m) {  // m.sender is what it claims
//           if (m.text != "time?") return;
//           std::error_code refused = node.post(m.reply_to(), "tea time");  // does not wait
//       });
//       node.on_peer_joined([](const p2pchat::peer& p) { });
//       node.on_peer_left([](const p2pchat::peer& p, p2pchat::departure how) { });
//       node.on_connected([](const p2pchat::peer& p) { });  // it said CONNECT
//       node.on_rejected([](const p2pchat::endpoint& from, std::error_code why) { });
//       node.on_peer_found([](const p2pchat::candidate& who) { });  // and on_peer_gone
//       node.on_kept([](const p2pchat::kept_message& m) { });       // waits until m.to is back
//       node.on_key_changed([](const p2pchat::peer& other) { });    // refused until node.trust()
//
//       std::error_code error = node.send(to, "text");  // waits; no error means delivered
//       error = node.post(to, "text", [](std::error_code outcome) { });  // does not wait
//       using p2pchat::when_absent;
//       using p2pchat::when_full;
//       error = node.post(to, "text", {}, when_full::wait);  // waits for room, if there is none
//       error = node.post(to, "text", {}, when_full::refuse, when_absent::keep);  // or keeps it
//       for (auto& [peer, outcome] : node.broadcast("text")) { }  // to all peers, side by side
//       error = node.broadcast("text", [](const std::vector<p2pchat::delivery>& all) { });
//       for (auto& who : node.candidates()) { }  // found, perhaps not yet talked to
//       auto [failed, linked] = node.connect(to);  // a link, if the other side knows links
//       error = node.connect(to, [](p2pchat::connect_result result) { });  // does not wait
//       error = node.leave(to);  // says `exit`; or leave(to, done), which does not wait
//       node.stop();             // prompt, from any state; the destructor does it too
//
//       // with config.handlers_in_run, in the program's own main loop:
//       while (node.run_for(std::chrono::milliseconds(16))) { }  // calls the handlers
//
// Delivery
//   A message is delivered when the other side has taken it: a one-shot when the receiver has
//   closed the connection in order, a message on a link when its ACK has come. Each message sent is
//   reported delivered or not, exactly once. A confirmed message may still be lost if the receiver
//   is killed before its handler has run, unless it has set confirm_later; a message reported
//   undelivered may have arrived, if only the confirmation was lost. On a bad network the bytes of
//   a one-shot may pause for longer than the receiver's quiet_period (2 s): the receiver may then
//   show the beginning of it, and the sender is told that it was not taken. Links never guess.
//
//   Where it is not delivered, the outcome is:
//
//   - nothing listens there, or there is no route: connection_refused, or the system's error, at
//     once
//   - the connection is not answered: timed_out after connect_timeout (5 s)
//   - the peer resets the connection, or closes it before it has read everything (as the Python
//     original does beyond 1024 bytes): not_taken for a one-shot, link_lost for everything
//     unconfirmed on a link
//   - the peer accepts and stays silent: timed_out after delivery_timeout (5 s), or unconfirmed, if
//     its system has acknowledged every byte, so that its program may have read them (not known on
//     Windows); the next messages to it are waited for a fifth as long, until it confirms one; a
//     link is dropped when nothing at all has been confirmed for that long
//   - the wire is cut, or the peer's machine fails without a word: the same; on a link without
//     traffic the system's keep-alive notices (after keep_alive, 15 s, and as long again)
//   - the peer leaves, stops or is killed: link_lost for what it has not confirmed; later messages
//     are one-shots
//   - max_queued_bytes wait for this peer already: queue_full at once, or post() waits if asked to
//   - our node stops: stopped; on a link, a message not yet being written is not sent
//
//   With when_absent::keep, post() keeps a message that certainly did not reach the peer (nothing
//   listens, no route, no connection in time, or a link that ended in order before it confirmed)
//   for keep_for (a day), within 256 KiB for each peer and max_kept_bytes (4 MiB) in all. It is
//   sent, in order, when the peer is found, sends anything, links or confirms something. It is for
//   the team that was heard of at that address last: another one that starts there gets nothing of
//   it (where none was, the first one does; one that only receives cannot be told apart). Otherwise
//   it is reported `expired`, or `not_sent` when the node stops, and may be posted again. A message
//   for which there is no room is reported with the reason why it was not sent, or queue_full. A
//   message in flight when a connection broke is not kept: it may have been taken.
//
//   Messages to one peer arrive in the order in which they were posted. Without a link they go one
//   after another; when a peer cannot be reached, all that wait for it are reported with that error
//   rather than tried one by one. The system keeps the port of each one-shot for a minute, so about
//   14,000 a minute can go to one peer at another address (Linux: ip_local_port_range); after that
//   the system says address_not_available. A link has no such limit. To a peer that had a link
//   before, and did not say `exit`, the second message within a second opens another one; to others
//   connect() opens one, because the Python original shows CONNECT as a message.
//
// The wire
//   message = sender SP team SP text
//   sender  = IPv4 ":" port | "[" IPv6 "]" ":" port         port 1..65535
//   team    = 1..64 bytes, no white space
//   text    = 1.. bytes, no CR, LF or NUL; UTF-8 by convention, kept byte for byte
//
//   Writing is strict, reading is liberal: white space at both ends is dropped, sender and team may
//   be in angle brackets, several spaces separate as well as one, and the text of a one-shot may
//   span several lines. Other programs of the original's course are understood: "@ <team>" and
//   "[time] @ <team>" for the team, with "<end>" as the last line; DISCONNECT, [PEER_QUIT] and
//   "sender DISCONNECTED" for `exit`, in one-shots of verified senders.
//
//   CONNECT and `exit` (in any case) are commands when they are all of a text: the node reports
//   them by on_connected and on_peer_left, never as messages, and does not send them as texts.
//
//   One-shot: one connection with one message, ended by the sender's half-close. The receiver
//   closes in order if it took the message, and resets the connection if it did not. A sender that
//   resets it has given up: the bytes that arrived may be half a message, and are not taken. A
//   connection left open is understood too: after two quiet seconds (quiet_period) the bytes that
//   have arrived are the message. So netcat (Debian: netcat-openbsd) is a peer, here of the menu
//   program on the same machine:
//
//       $ build/examples/p2pchat --team ann --port 6000 --address 127.0.0.1
//       $ printf '127.0.0.1:5000 bob Hi' | nc -N 127.0.0.1 6000
//
//   Link: the opener's first line is CONNECT. A peer that knows links answers in kind; one that
//   does not just closes, or waits for our end: without an answer we half-close after a second. A
//   CONNECT that was closed without an answer is ended by a reset, which leaves the peer's port
//   free. From then on both sides send one message per line and confirm with "ACK n": n of your
//   messages after CONNECT have been taken. `exit` ends a link. By hand, where you type what
//   follows > and < marks the answers, with `got it` sent by the menu's entry 1:
//
//       $ nc 127.0.0.1 6000
//       > 127.0.0.1:5000 bob CONNECT
//       < 127.0.0.1:6000 ann CONNECT
//       > 127.0.0.1:5000 bob Hi
//       < ACK 1
//       < 127.0.0.1:6000 ann got it
//       > ACK 1
//       > 127.0.0.1:5000 bob exit
//       < ACK 2
//
//   At most 256 KiB may be unconfirmed in each direction: a receiver whose handlers lag behind can
//   hold that much and still read the confirmations that follow, so two peers with full buffers
//   never wait for each other.
//
//   Discovery: a datagram of at most 512 bytes with a message whose text is HELLO (I am here,
//   answer me), HERE (I am here) or exit. It goes to UDP port 21975 (discovery_port) on each
//   network: to the broadcast address and to the group 239.255.112.50, or, where there is no IPv4,
//   to ff12::7032 from a link-local address. It comes from the UDP port with the number of the
//   sender's TCP port, and the answer, which is never longer than the question, goes there. HELLO
//   is sent at 0, 1 and 3 s and when the networks change; HERE every 30 s, and once to a newcomer.
//   A word app=NAME behind it keeps programs apart: only nodes with an equal config::application
//   find each other, those without one among themselves. A sender that names the address its
//   datagram came from, on a network of ours, is a candidate for 90 s (at most 256 of them, eight
//   from one address). It is not a peer, and nobody connects because of a datagram. A node known by
//   a loopback address announces itself on loopback only. By hand, to the menu program above, whose
//   entry 2 then lists you (to a whole network, from your address there:
//   `nc -u -b -p 5000 10.18.1.255 21975`):
//
//       $ printf '127.0.0.1:5000 bob HELLO' | nc -u -s 127.0.0.1 -p 5000 -w 1 127.0.0.1 21975
//
//   Where no datagram gets through, one typed address is enough: two linked peers that have
//   discovery on say "KNOWS 1", ask with "PEERS" at most once a minute, and answer with up to 50
//   lines such as "PEER 10.18.1.9:5000/cat". These make candidates, too.
//
//   Encryption: a connection that begins with the byte 0x16 is TLS 1.3, on the same port, and
//   carries what is described above. Both sides present a self-signed certificate for a P-256 key
//   of their own; of the certificate, only the key and the expiry date are checked. close_notify
//   takes the place of the half-close: without it no one-shot is complete, no message is confirmed
//   and no link has ended in order, and a quiet period ends nothing. A node that can do this adds
//   "tls" to HELLO and HERE. `openssl s_client` is a peer just as netcat is:
//
//       $ openssl ecparam -name prime256v1 -genkey -noout -out bob.key
//       $ openssl req -x509 -new -key bob.key -subj /CN=bob -out bob.crt
//       $ build/examples/p2pchat --team ann --port 6001 --address 127.0.0.1 --encryption preferred
//       $ openssl s_client -quiet -connect 127.0.0.1:6001 -cert bob.crt -key bob.key
//       > 127.0.0.1:5001 bob CONNECT
//       < 127.0.0.1:6001 ann CONNECT
//       > 127.0.0.1:5001 bob Hi, encrypted
//       < ACK 1
//       < 127.0.0.1:6001 ann got that
//       > ACK 1
//       > 127.0.0.1:5001 bob exit
//       < ACK 2
//
//   .ci/readme types all of this.
//
// Who is who
//   Without a key, a peer is an address and a team together: when another team is heard at the
//   address of a peer, that one is gone (departure::replaced), and a new one has joined. With a
//   key, it is the same peer under another name.
//
//   What a message says about its sender is a claim. It is verified when its IP address is where
//   the connection comes from, or when the connection comes from this machine. From another machine
//   a claim of a loopback address, or of ours, means that machine: the IP address it comes from,
//   with the claimed port. An unverified message is delivered and marked so, but makes nobody a
//   peer, removes nobody and redirects nothing. A link whose claim does not hold (a peer behind
//   NAT) is known by the address that it really comes from. An answer to a message goes where
//   message::reply_to() says: over its link, or to the port that its sender claims, at the IP
//   address that it came from. A linked peer is known by the address it claims, where that holds,
//   even if it was reached by another of its addresses. Without config::encryption nothing is
//   encrypted and nobody authenticated.
//
// Security
//   Threat model: an open LAN. Unencrypted, whoever can see the traffic can read it, and whoever
//   has an IP address can speak for every port of it. With config::encryption (the menu program's
//   --encryption) connections are TLS 1.3, and a peer is its key: `preferred` encrypts to every
//   peer whose key is known or that announces TLS, and talks unencrypted to the others; `required`
//   neither sends nor takes anything unencrypted (the Python original is refused). A key is pinned
//   to an address when it is first shown, in config::pins; any other key is refused there, and
//   on_key_changed reports it, until node::trust() accepts it. Nothing is ever again sent
//   unencrypted to a peer whose key is known.
//
//   What an attacker may try:
//
//   - To read the traffic. Unencrypted: can read it. Encrypted: sees addresses, sizes and times
//     and, from discovery, teams.
//   - To change, cut or repeat it. Unencrypted: nobody notices. Encrypted: the connection ends,
//     what was changed is not taken, and the sender is told.
//   - To claim to be somebody else. Unencrypted: the message is marked unverified, makes and
//     removes nobody and redirects nothing; but whoever is at the same IP address, or can forge a
//     TCP connection from it, is believed. Encrypted: a key other than the pinned one is refused.
//     A man in the middle of the very first contact may be the one who is pinned: compare
//     fingerprints, aloud.
//   - To have you speak unencrypted (a downgrade). Not with peers whose key you know; at the first
//     contact, with `preferred`, by hiding that the peer knows TLS, or answering in its place.
//   - To steal your key. Whoever can read the file config::identity is you; it is refused if others
//     may read it (not checked on Windows).
//   - To send `exit` for others. Unencrypted: ignored, unless verified and there is no link.
//     Encrypted: takes their key.
//   - To send control or invisible characters, or broken UTF-8. They are passed on byte for byte;
//     the menu program shows them and does not obey them.
//   - To open thousands of connections, or send byte by byte. Connections, links, bytes, peers and
//     time are bounded; of the connections that have not delivered, the oldest of the host that has
//     most is evicted. Encrypted, the handshake counts as part of the first message.
//   - To send faster than you handle. Back-pressure makes the senders wait.
//   - To make many false peers at one address known to you. At max_peers the one not heard from for
//     longest is forgotten; true and false ports of an address cannot be told apart. Of one
//     address, 64 keys are pinned at most, and none is forgotten for another.
//
// Errors
//   Calls return std::error_code: one of p2pchat::errc, or the system's in the generic category
//   (with MinGW in one like it that has texts). Comparing with std::errc works the same on every
//   system. Nothing but std::bad_alloc is thrown, nothing is printed, no signal is raised.
//
// Threads
//   A node has two of its own. The driver does all input and output, and calls the handlers, one at
//   a time and in order. The standby sleeps, and takes over input and output while handlers take
//   long: within 20 ms, or at once if one of them waits for an outcome or for room. Handlers may
//   call any member of the node, send() and stop() included. While one runs, further messages wait
//   in bounded memory; once that is full, their senders wait: slow handlers apply back-pressure.
//   Handlers must not throw and must not destroy the node. Two nodes that answer everything never
//   stop (see examples/bot.cpp). Other classes: see their comments.
//
//   A program with a main loop, as a GUI or a game has, may lend a thread instead: with
//   config::handlers_in_run, handlers are called only in node::run_for(), by its caller, so that
//   what they share with the rest of that thread needs no lock (see examples/main_loop.cpp).
//
// Words
//   one-shot       a connection that carries one message
//   link           a connection that stays open, with one message per line in both directions
//   outcome        delivered, or an error; exactly one for each message
//   verified       the sender that a message claims agrees with where the message came from
//   candidate      a peer that has been found, but not heard from over TCP
//   driver         the thread that runs the event loop and calls the handlers
//   standby        the thread that runs the event loop while handlers take long
//   back-pressure  a receiver that can take no more stops reading, so that senders have to wait
//   backlog        the messages waiting to be sent to one peer
//   pinned         of a peer's key: remembered since it was first shown; no other is accepted
//
// The map
//   The interface: >> errors, >> endpoint, >> key, >> message, >> socket, >> peers, >> config,
//   >> node.
//   The implementation, ground floor first; each part uses only parts above it:
//
//   >> platform   every call to the operating system; Windows and POSIX side by side
//   >> text       errors; endpoints and messages from and to text
//   >> socket     tcp_socket
//   >> peers      the table of peers, and peer_set around it; peers' capabilities
//   >> mailbox    the queue of events for the handlers; outcomes, callers that wait
//   >> loop       readiness, timers, wake-up; knows nothing of chat
//   >> encryption TLS
//   >> keys       our key and those of others
//   >> stream     a connection, encrypted or not
//   >> identity   the address we claim, and whether a peer's claim holds
//   >> incoming   accepts; first bytes become a message, a link or a refusal
//   >> outgoing   one-shots of ours, run by the loop or by a caller's thread
//   >> link       lines in both directions, confirmations, exit
//   >> routes     for each peer: by link or one-shot, in which order, how much may wait
//   >> candidates peers found by discovery, or named by linked peers
//   >> discovery  announces us, and listens for others
//   >> outbox     messages kept for absent peers
//   >> node       the engine; the lock, the threads, lifecycle
//
//   Locks, in the order in which they are taken: the node's `lifecycle_` (start, stop, threads) and
//   the node's `mutex_` (the engine, which is the whole protocol and single-threaded). No code of
//   the user's runs under either: no handler, no completion, no destructor of what that has
//   captured.

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

/// The version of this header: major.minor.patch, as in semantic versioning.
inline constexpr std::string_view version = "1.0.0";

// ------------------------------------------------------------------------------------ >> errors

/// Errors of the library itself. Each compares equal to the std::errc in parentheses.
enum class errc {
    bad_address = 1,      ///< not a numeric IPv4 or IPv6 address (invalid_argument)
    bad_port,             ///< not a port from 1 to 65535 (invalid_argument)
    bad_team,             ///< not 1..64 bytes without white space (invalid_argument)
    bad_text,             ///< empty, or contains CR, LF or NUL (invalid_argument)
    too_few_words,        ///< not "sender team text" (invalid_argument)
    no_message,           ///< the connection ended before its first byte (no_message)
    message_too_long,     ///< over config::max_message_bytes (message_size)
    not_taken,            ///< the peer closed without taking the message (connection_reset)
    link_lost,            ///< the link broke before the confirmation (connection_aborted)
    queue_full,           ///< over config::max_queued_bytes (no_buffer_space)
    stopped,              ///< the node is not running, or stopped meanwhile (operation_canceled)
    already_running,      ///< start() of a running node (already_connected)
    connection_limit,     ///< evicted by a newer connection, at config::max_connections
                          ///< (connection_aborted)
    sender_not_verified,  ///< the sender is not at the address it claims
    own_address,          ///< our own address is never a peer (invalid_argument)
    protocol_error,       ///< a line on a link, neither message nor control (protocol_error)
    bad_setting,          ///< a size or discovery_port of 0 in config, a negative timeout, or a bad
                          ///< config::application (invalid_argument)
    expired,              ///< after config::keep_for, before the peer came back (timed_out)
    not_sent,             ///< kept, and the node stopped before the peer came back; certainly not
                          ///< taken (operation_canceled)
    not_supported,        ///< config::encryption, compiled without P2PCHAT_OPENSSL (not_supported)
    bad_identity,   ///< config::identity is no P-256 key, or others may read it (invalid_argument)
    bad_pins,       ///< a line of config::pins is malformed (invalid_argument)
    not_encrypted,  ///< unencrypted, where config::encryption forbids it (permission_denied)
    encryption_failed,  ///< no TLS 1.3 handshake, or bytes were changed (connection_aborted)
    bad_certificate,    ///< missing, expired, or not for a P-256 key (permission_denied)
    key_changed,        ///< not the pinned key, see node::trust (permission_denied)
    unconfirmed,        ///< the peer's system has it all, its program says nothing (timed_out)
    is_command,         ///< CONNECT and `exit` alone are no texts: see node::connect, node::leave
                        ///< (invalid_argument)
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
    /// The null endpoint: no address, port 0.
    endpoint() noexcept = default;

    /// From a numeric address ("10.18.1.7", "fe80::1", "fe80::1%2") and a port. Null if the address
    /// is not numeric; parse() and resolve() say why.
    endpoint(std::string_view address, std::uint16_t port) noexcept;

    /// From sixteen bytes in network order, IPv4 as ::ffff:a.b.c.d, and the scope of a link-local
    /// address (0: none).
    endpoint(const unsigned char (&address)[16], std::uint16_t port, std::uint32_t scope) noexcept;

    /// Whether it has a port and an address other than 0.0.0.0 or ::, that is, can be connected to.
    explicit operator bool() const noexcept;

    std::uint16_t port() const noexcept { return port_; }
    std::string address() const;  ///< numeric, without port and brackets
    std::uint32_t scope() const noexcept { return scope_; }
    const unsigned char (&bytes() const noexcept)[16] { return bytes_; }

    bool is_v4() const noexcept;
    bool is_loopback() const noexcept;
    /// Equal, apart from port and scope.
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

/// Reads "10.18.1.7:5000" or "[fe80::1]:5000" (a scope is a number, as in "[fe80::1%2]:5000").
/// Errors: bad_address, bad_port; `result` is then unchanged.
[[nodiscard]] std::error_code parse(std::string_view text, endpoint& result) noexcept;

/// The same text again; IPv6 in its shortest form, in lower case (RFC 5952).
std::string to_string(const endpoint& value);
/// A template, so that <ostream> is needed only where this is used: including it would make the
/// implementation 4 % slower to compile.
template <typename Traits>
std::basic_ostream<char, Traits>& operator<<(std::basic_ostream<char, Traits>& out,
                                             const endpoint& value) {
    return out << to_string(value);
}

/// Looks up a host name (or numeric address), preferring IPv4. Blocks for as long as the system's
/// resolver does. Errors: bad_address for a name that cannot be resolved, bad_port for port 0.
[[nodiscard]] std::error_code resolve(std::string_view host, std::uint16_t port, endpoint& result);

/// The address that this machine would use to reach the LAN, with port 0; found without sending a
/// packet. Loopback where there is no network.
endpoint detect_address();

// --------------------------------------------------------------------------------------- >> key

/// The key behind an encrypted message: the SHA-256 of the public key (SubjectPublicKeyInfo, RFC
/// 5280). All zero: no key.
struct public_key {
    unsigned char bytes[32] = {};

    explicit operator bool() const noexcept { return *this != public_key(); }
    friend bool operator==(const public_key& a, const public_key& b) noexcept {
        return std::memcmp(a.bytes, b.bytes, sizeof a.bytes) == 0;
    }
    friend bool operator!=(const public_key& a, const public_key& b) noexcept { return !(a == b); }
};

/// 128 bits of a key, for two people to compare aloud: eight groups of five digits.
std::string fingerprint(const public_key& key);

// ----------------------------------------------------------------------------------- >> message

inline constexpr std::size_t max_team_bytes = 64;

/// A message as parse() finds it: views of the bytes that were parsed.
struct message_view {
    endpoint sender;
    std::string_view team;
    std::string_view text;
};

/// A received message, as handlers get it.
struct message {
    endpoint sender;            ///< who it claims to be from
    std::string team;           ///< of the sender
    std::string text;           ///< no white space at its ends; any other byte but NUL as it came
    bool verified = false;      ///< the sender's IP is where it came from, or it came from here
    endpoint origin;            ///< where it really came from: the other end of the connection
    bool by_link = false;       ///< it came over a link, not as a one-shot
    public_key key;             ///< of the sender; none: it came unencrypted
    std::uint64_t receipt = 0;  ///< for node::confirm(), with config::confirm_later; 0: confirmed

    /// Where to send an answer: over the link that it came by, or to the sender. If the sender is
    /// not verified, to the port that it claims at the IP address where the message came from.
    endpoint reply_to() const noexcept {
        if (verified) return sender;
        return by_link ? origin : endpoint(origin.bytes(), sender.port(), origin.scope());
    }
};

/// Reads one message. Liberal: white space at both ends is dropped, sender and team may be in angle
/// brackets, several white spaces separate as well as one, the text may span several lines.
/// Allocates nothing. Errors say which part is wrong: too_few_words, bad_address, bad_port,
/// bad_team, bad_text; `result` is then unspecified.
[[nodiscard]] std::error_code parse(std::string_view bytes, message_view& result) noexcept;

/// Writes one message into `result`. Strict: refuses whatever parse() would not return unchanged,
/// white space at the ends of the text included. Errors: as parse().
[[nodiscard]] std::error_code format(const endpoint& sender, std::string_view team,
                                     std::string_view text, std::string& result);

// ------------------------------------------------------------------------------------ >> socket

/// A TCP socket: owning, movable, closed when destroyed. It is not inherited by child processes and
/// raises no SIGPIPE. Each call waits for as long as its timeout says and then returns
/// std::errc::timed_out; with a timeout of zero it never waits, and returns
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

    /// Listens on a local address and port; {"::", port} means every address, IPv4 included where
    /// the system allows it. Port 0 asks for a free port: see local(). A port in use is
    /// std::errc::address_in_use.
    [[nodiscard]] std::error_code listen(const endpoint& local);

    /// The next connection made to a listening socket and, if asked, where it comes from.
    [[nodiscard]] std::error_code accept(tcp_socket& peer, milliseconds timeout,
                                         endpoint* from = nullptr) noexcept;

    /// Connects. A timeout of zero only starts to, and returns std::errc::operation_in_progress;
    /// once the socket can be written to, finish_connect() tells how that ended.
    [[nodiscard]] std::error_code connect(const endpoint& to, milliseconds timeout) noexcept;
    [[nodiscard]] std::error_code finish_connect() noexcept;

    /// Sends all of `data`, or with a timeout of zero what the system takes at once; `sent` says
    /// how much that was, even after an error.
    [[nodiscard]] std::error_code send(std::string_view data, std::size_t& sent,
                                       milliseconds timeout) noexcept;

    /// Receives up to `size` bytes; no error and 0 bytes received is the other side's half-close.
    [[nodiscard]] std::error_code receive(char* buffer, std::size_t size, std::size_t& received,
                                          milliseconds timeout) noexcept;

    /// Half-close: ends what we send; receiving goes on.
    [[nodiscard]] std::error_code shutdown_send() noexcept;

    /// Sends at once rather than waiting for more; for links, whose messages are small.
    void no_delay() noexcept;

    /// Has the system probe a connection that has been silent for `idle`, and end it when nothing
    /// answers for about as long again.
    void keep_alive(std::chrono::seconds idle) noexcept;

    endpoint local() const noexcept;
    endpoint remote() const noexcept;

    bool is_open() const noexcept { return handle_ != invalid; }
    native_handle_type native_handle() const noexcept { return handle_; }
    void close() noexcept;
    void reset() noexcept;  ///< closes, so that the other side sees a reset

private:
    native_handle_type handle_ = invalid;
};

// ------------------------------------------------------------------------------------- >> peers

/// A peer that we have heard from.
struct peer {
    endpoint address;
    std::string team;
    std::chrono::system_clock::time_point last_heard;
    bool linked = false;  ///< in node::peers(): there is a link to it
    public_key key;       ///< the pinned one, if any
};

/// Peers by address, up to a maximum: when it is full, the one not heard from for longest is
/// evicted. Thread-safe. Each call takes constant time, except for snapshot().
class peer_set {
public:
    explicit peer_set(std::size_t max_peers);
    ~peer_set();

    /// Notes that `address` has just been heard from; true if it is new. The latest team counts.
    bool heard(const endpoint& address, std::string_view team);

    /// Removes a peer, and moves it to `removed`; false if it is not known.
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

/// What is encrypted, by TLS 1.3 with the keys of both sides.
enum class encryption {
    off,        ///< nothing
    preferred,  ///< to every peer whose key is known or that announces TLS; to one whose key is
                ///< known nothing is ever sent unencrypted again
    required,   ///< everything: nothing else is sent or taken
};

/// The settings of a node. Times are bounds on waiting, sizes are bounds on memory: none may be
/// negative or, except for max_links, 0; sizes over 1 GiB count as 1 GiB.
struct config {
    std::string team;        ///< 1..64 bytes, no white space
    std::uint16_t port = 0;  ///< to listen on, at every address; 0: a free one, see node::address()
    std::string address;     ///< numeric IP to be known by; empty: each connection's local one

    std::size_t max_message_bytes = 64 * 1024;     ///< of one message, sender and team included
    std::size_t max_connections = 1024;            ///< open at once, accepted and our own counted
                                                   ///< apart; links do not count
    std::size_t max_links = 1024;                  ///< open at once; beyond it the host with most
                                                   ///< gives one up, or peers get one-shots
    std::size_t max_peers = 4096;                  ///< remembered, in addition to those linked
    std::size_t max_queued_bytes = 256 * 1024;     ///< to one peer, unconfirmed; 256 KiB at most
    std::size_t max_received_bytes = 1024 * 1024;  ///< received, waiting for the handlers
    std::size_t max_kept_bytes = 4 * 1024 * 1024;  ///< kept for absent peers; for each of them
                                                   ///< at most max_queued_bytes

    std::chrono::milliseconds connect_timeout{5000};
    std::chrono::milliseconds handshake_timeout{5000};       ///< from CONNECT to its answer; after
                                                             ///< a fifth of it we half-close
    std::chrono::milliseconds delivery_timeout{5000};        ///< from connected to confirmed
    std::chrono::milliseconds first_message_timeout{10000};  ///< from accepted to a whole message
    std::chrono::milliseconds quiet_period{2000};   ///< without a byte: the message is whole
    std::chrono::milliseconds drain_timeout{1000};  ///< for stop(), to handle confirmed messages
    std::chrono::seconds keep_for{24 * 60 * 60};    ///< see when_absent::keep
    std::chrono::seconds keep_alive{15};  ///< the system probes a link that is silent so long

    bool leave_on_stop =
        false;  ///< stop() first says `exit` to all peers, for drain_timeout at most
    bool confirm_later = false;    ///< a message is confirmed when node::confirm() says so
    bool handlers_in_run = false;  ///< handlers are called in node::run_for(), by its caller

    bool discovery = false;   ///< find others on the LAN and be found by them: see node::candidates
    std::string application;  ///< only nodes with the same one find each other, so that programs of
                              ///< different kinds do not; at most 32 bytes, no white space
    std::uint16_t discovery_port = 21975;  ///< UDP; the same for all that are to find each other

    p2pchat::encryption encryption = p2pchat::encryption::off;  ///< needs P2PCHAT_OPENSSL
    std::string identity;  ///< a file with our private key, made at the first start; readable by
                           ///< its owner only (not checked on Windows). Empty: a new key each start
    std::string pins;      ///< a file with the keys of others, one per line; several programs may
                           ///< share it. Empty: they are known until stop(). On Windows both
                           ///< names are UTF-8
};

// -------------------------------------------------------------------------------------- >> node

/// Why a peer is gone.
enum class departure {
    left,       ///< it said `exit`
    by_us,      ///< we have left it: node::leave
    lost,       ///< its link broke, or its program was killed
    stopped,    ///< its link ended in order, without `exit`: its node stopped
    replaced,   ///< another team is at its address now; not with an equal key
    forgotten,  ///< evicted by a newer peer, at config::max_peers
};

/// A peer found by discovery, or named by a linked peer. This is a claim and no more: it makes no
/// peer, and no connection.
struct candidate {
    endpoint address;
    std::string team;
    std::string knows;  ///< further words of its announcement: "tls" if it knows TLS, "app=" and
                        ///< its config::application
    std::chrono::system_clock::time_point last_heard;
};

/// The outcome of a broadcast for one peer.
struct delivery {
    endpoint to;
    std::error_code error;  ///< none: delivered
};

/// Result of node::connect().
struct connect_result {
    std::error_code error;  ///< none: connected
    bool linked = false;    ///< by a link; if not, the peer knows only one-shots
};

/// Statistics since construction.
struct counters {
    std::uint64_t connections = 0;  ///< accepted
    std::uint64_t received = 0;     ///< messages taken, CONNECT and `exit` included
    std::uint64_t rejected = 0;     ///< connections, messages and claims; while handlers lag, more
                                    ///< than the calls of on_rejected
    std::uint64_t delivered = 0;    ///< messages
    std::uint64_t undelivered = 0;  ///< messages
    std::uint64_t dropped = 0;      ///< messages taken, whose handler stop() did not wait for
    std::uint64_t announced = 0;    ///< datagrams sent to a whole network
    std::uint64_t unannounced = 0;  ///< failed ones; and ports or networks not used, over 16
    std::uint64_t ignored = 0;      ///< datagrams and named peers that made no candidate
};

/// What post() does when max_queued_bytes are waiting for the peer already.
enum class when_full {
    refuse,  ///< return errc::queue_full at once
    wait,    ///< wait for room, for delivery_timeout at most
};

/// What post() does with a message that certainly did not reach its peer, which is absent.
enum class when_absent {
    fail,  ///< report the error
    keep,  ///< send it, in order, when the peer is found, heard or linked; otherwise `expired`
};

/// A message waiting for an absent peer: for that team at that address, and no other.
struct kept_message {
    endpoint to;
    std::string text;
    std::string team;  ///< empty: none was known there, and the first to be heard of gets it
};

/// A chat peer. Every member may be called from any thread, handlers included, except for the
/// constructor, the destructor and the on_... functions.
class node {
public:
    using message_handler = std::function<void(const message&)>;
    using joined_handler = std::function<void(const peer&)>;
    using left_handler = std::function<void(const peer&, departure)>;
    using rejected_handler = std::function<void(const endpoint& from, std::error_code why)>;
    using completion = std::function<void(std::error_code)>;
    using connect_handler = std::function<void(connect_result)>;
    using broadcast_handler = std::function<void(const std::vector<delivery>&)>;
    using candidate_handler = std::function<void(const candidate&)>;
    using kept_handler = std::function<void(const kept_message&)>;
    using key_handler = std::function<void(const peer& offered)>;

    explicit node(config settings);
    ~node();  ///< stop()

    /// The handlers; set them before start().
    void on_message(message_handler handler);
    void on_peer_joined(joined_handler handler);  ///< a verified peer, heard for the first time
    void on_peer_left(left_handler handler);      ///< a joined peer is no longer in peers()
    /// A peer has said CONNECT: by a link, if peer::linked, or, verified, only to be known. Unlike
    /// joining, this may happen more than once.
    void on_connected(joined_handler handler);
    /// A connection, a message or a claim was refused. A message whose claim about its sender is
    /// refused (sender_not_verified, own_address) still goes to on_message, unless it is a command.
    void on_rejected(rejected_handler handler);
    void on_peer_found(candidate_handler handler);  ///< added to candidates()
    void on_peer_gone(candidate_handler handler);   ///< removed from candidates()
    void on_kept(kept_handler handler);  ///< a message is kept from now on: when_absent::keep
    /// At the address of a peer another key was shown than the pinned one. It is refused until
    /// trust() is called with it. The team is empty if it was we who connected.
    void on_key_changed(key_handler handler);

    /// Listens and starts serving. Errors: bad_setting, bad_team, bad_address, already_running,
    /// not_supported, bad_identity, bad_pins, std::errc::address_in_use, or what the system says.
    [[nodiscard]] std::error_code start();

    /// Ends everything: each pending send is reported `stopped`, confirmed messages still go to
    /// the handlers (for drain_timeout at most), the threads are joined. Idempotent. Called from a
    /// handler it returns at once, and the thread that calls the handlers ends with that handler.
    /// With config::handlers_in_run it calls them itself for the remaining events.
    void stop() noexcept;

    /// With config::handlers_in_run: runs the node's loop and calls the handlers, for that time,
    /// but once at least. Returns whether the node is still running; in a handler, or without that
    /// setting, false at once. Between calls messages come in, and wait.
    bool run_for(std::chrono::milliseconds time) noexcept;

    /// Where others on the LAN reach us: as configured, or detected anew. Null before start().
    endpoint address() const;
    const std::string& team() const noexcept;
    /// Our key, which others pin. None before start() or without encryption.
    public_key key() const;

    /// Pins this key for the peer at an address, in place of any other; with no key, removes the
    /// pin. A link to that peer under another key ends at once, as lost. Keys pinned automatically,
    /// when first shown, are bounded: max_peers in all, 64 for one IP. Errors: stopped, or the
    /// system's for config::pins.
    [[nodiscard]] std::error_code trust(const endpoint& peer, const public_key& key);

    /// Sends and waits. No error means delivered: the other side has taken it. White space at both
    /// ends of the text is not sent. Two texts are commands of the wire, and refused: `exit`, in
    /// any case, is what leave() sends, and `CONNECT` what connect() does. With any other word
    /// beside it, neither is a command.
    /// Errors: bad_address, bad_port, bad_text, is_command, message_too_long, queue_full, stopped
    /// at once; later not_taken, unconfirmed, link_lost, not_encrypted, encryption_failed,
    /// bad_certificate, key_changed, std::errc::timed_out, connection_refused or another error of
    /// the system.
    [[nodiscard]] std::error_code send(const endpoint& to, std::string_view text);

    /// The same without waiting: an error is an immediate refusal; no error means that `done` (if
    /// any) will be called exactly once, like a handler.
    /// Messages posted to one peer arrive in the order posted, except for kept ones. A message in
    /// flight when its connection breaks may or may not have been taken: it is not kept, as it
    /// might arrive twice. Nor is one for which there is no room: `done` gets the error, or
    /// `queue_full`.
    [[nodiscard]] std::error_code post(const endpoint& to, std::string_view text,
                                       completion done = {}, when_full mode = when_full::refuse,
                                       when_absent absent = when_absent::fail);

    /// With config::confirm_later: says whether the program has taken a message that on_message was
    /// called with. Taken: its sender gets `delivered`. Not taken: `not_taken`, or on a link
    /// `link_lost`, as does all that is unconfirmed on it. In any order; on a link a confirmation
    /// waits for the messages before. Until then the message counts in max_received_bytes, and
    /// after delivery_timeout or stop() it is not taken: then, or a second time, this does nothing.
    void confirm(std::uint64_t receipt, bool taken = true) noexcept;

    /// The kept messages, for each peer in the order in which they will be sent. stop() reports
    /// them `not_sent`: to store them then, and to keep() them after a restart, loses nothing and
    /// sends nothing twice.
    std::vector<kept_message> kept() const;

    /// Keeps a message for the team that it was for, as post() does with when_absent::keep. It is
    /// sent when that team is heard or found at its address, or at once if it is known to be there.
    /// Without a team it is for whichever is there, and tried at once.
    [[nodiscard]] std::error_code keep(const kept_message& message, completion done = {});

    /// Sends to all peers side by side, as send() does, and waits for the last outcome.
    std::vector<delivery> broadcast(std::string_view text);

    /// The same without waiting: an error is an immediate refusal (bad_text, is_command, stopped);
    /// no error means that `done` will be called exactly once, like a handler, after the last
    /// outcome.
    [[nodiscard]] std::error_code broadcast(std::string_view text, broadcast_handler done);

    /// Sends CONNECT: makes a link, if the other side knows links, which is used from then on.
    [[nodiscard]] connect_result connect(const endpoint& to);

    /// The same without waiting: an error is an immediate refusal (own_address, or as for post());
    /// no error means that `done` (if any) will be called exactly once, like a handler.
    [[nodiscard]] std::error_code connect(const endpoint& to, connect_handler done);

    /// Sends `exit`, which ends a link. Whatever the outcome, the peer is no longer in peers()
    /// until it is heard from again.
    [[nodiscard]] std::error_code leave(const endpoint& to);

    /// The same without waiting, as for post().
    [[nodiscard]] std::error_code leave(const endpoint& to, completion done);

    /// The known peers: heard from and verified, or linked. Ordered by address.
    std::vector<peer> peers() const;

    /// With config::discovery: peers found on the LAN, at most 256, by address, known ones
    /// included. One that is silent for 90 s, leaves, loses a link or cannot be reached is removed,
    /// and new when heard again.
    std::vector<candidate> candidates() const;

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
#include <charconv>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>

// ---------------------------------------------------------------------------------- >> platform
//
// Does:        every call to the operating system, its clocks included; Windows and POSIX side by
//              side. Sockets never block and are not inherited by child processes, where possible
//              from the moment they are made. Errors are made by error_of().
// May use:     the interface
// Guarded by:  nothing, except that a poller is guarded by its owner's lock
// Never:       blocks outside wait_ready(), poller::wait() and look_up()

#if defined(P2PCHAT_PLATFORM)  // another one, for tests: see tests/simulation
#include P2PCHAT_PLATFORM
#else

namespace p2pchat::detail::os {

enum class file_use { read, append, create };  // create: if there is none, for its owner alone

}  // namespace p2pchat::detail::os

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
using io_size = int;
inline constexpr int send_flags = 0;
inline constexpr int own_port = SO_EXCLUSIVEADDRUSE;  // SO_REUSEADDR would let two share it
inline constexpr int shared_port = SO_REUSEADDR;
inline constexpr bool end_may_be_reset = true;  // under Wine; is_reset() can tell

inline native raw(handle socket) noexcept { return static_cast<native>(socket); }

/// Winsock's codes as those of <cerrno>, which not every <system_error> maps, with their texts.
inline constexpr struct socket_error {
    int winsock, generic;
    const char* text;
} socket_errors[] = {
    {WSAEWOULDBLOCK, EWOULDBLOCK, "Operation would block"},
    {WSAEINPROGRESS, EINPROGRESS, "Operation in progress"},
    {WSAEINTR, EINTR, "Interrupted"},
    {WSAEACCES, EACCES, "Permission denied"},
    {WSAEINVAL, EINVAL, "Invalid argument"},
    {WSAEMFILE, EMFILE, "Too many open sockets"},
    {WSAENOTSOCK, ENOTSOCK, "Not a socket"},
    {WSAEOPNOTSUPP, ENOTSUP, "Operation not supported"},
    {WSAEADDRINUSE, EADDRINUSE, "Address already in use"},
    {WSAEADDRNOTAVAIL, EADDRNOTAVAIL, "Address not available"},
    {WSAEAFNOSUPPORT, EAFNOSUPPORT, "Address family not supported"},
    {WSAENETDOWN, ENETDOWN, "Network is down"},
    {WSAENETUNREACH, ENETUNREACH, "Network is unreachable"},
    {WSAENETRESET, ENETRESET, "Connection reset by network"},
    {WSAECONNABORTED, ECONNABORTED, "Connection aborted"},
    {WSAECONNRESET, ECONNRESET, "Connection reset by peer"},
    {WSAENOBUFS, ENOBUFS, "No buffer space available"},
    {WSAEISCONN, EISCONN, "Socket is connected"},
    {WSAENOTCONN, ENOTCONN, "Socket is not connected"},
    {WSAETIMEDOUT, ETIMEDOUT, "Connection timed out"},
    {WSAECONNREFUSED, ECONNREFUSED, "Connection refused"},
    {WSAEHOSTUNREACH, EHOSTUNREACH, "No route to host"},
    {WSAESHUTDOWN, EPIPE, "Broken pipe"},
};

#if defined(__MINGW32__)

/// Like the standard one, whose texts are those of strerror(): here it has none above 42.
class socket_category final : public std::error_category {
public:
    const char* name() const noexcept override { return "generic"; }
    std::string message(int value) const override {
        for (const auto& known : socket_errors)
            if (known.generic == value) return known.text;
        return std::generic_category().message(value);
    }
    std::error_condition default_error_condition(int value) const noexcept override {
        return {value, std::generic_category()};
    }
};

inline const std::error_category& generic_category() noexcept {
    static const socket_category instance;
    return instance;
}

#else
using std::generic_category;  // MSVC has texts
#endif

inline std::error_code error_of(std::errc value) noexcept {
    return {static_cast<int>(value), generic_category()};
}

inline std::error_code error_of(int code) noexcept {
    for (const auto& known : socket_errors)
        if (known.winsock == code) return {known.generic, generic_category()};
    return {code, std::system_category()};
}

inline std::error_code last_error() noexcept { return error_of(WSAGetLastError()); }

/// Why bind() or listen() failed: a port that another has for itself is in use.
inline std::error_code listen_error() noexcept {
    const int code = WSAGetLastError();
    return error_of(code == WSAEACCES ? WSAEADDRINUSE : code);
}

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

inline handle accept(handle listener, sockaddr* from, length* size) noexcept {
    return prepared(::accept(raw(listener), from, size));
}

template <typename Value>
bool set_option(handle socket, int level, int name, const Value& value) noexcept {
    const auto* const bytes = reinterpret_cast<const char*>(&value);
    return ::setsockopt(raw(socket), level, name, bytes, sizeof value) == 0;
}

/// Windows sends ten probes, whatever it is asked.
inline void keep_alive(handle socket, int seconds) noexcept {
    tcp_keepalive values{1, static_cast<ULONG>(seconds) * 1000, static_cast<ULONG>(seconds) * 100};
    DWORD returned = 0;
    ::WSAIoctl(raw(socket), SIO_KEEPALIVE_VALS, &values, sizeof values, nullptr, 0, &returned,
               nullptr, nullptr);
}

inline constexpr bool counts_unacknowledged = false;
inline int unacknowledged(handle) noexcept { return 0; }

/// Whether a connection attempt has failed; leaves the error for pending_error().
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

/// Before Windows 10 2004, WSAPoll does not report a failed connection attempt: look for one ten
/// times a second while one is under way.
inline int poll(poll_entry* entries, std::size_t count, int timeout_ms) noexcept {
    constexpr int slice = 100;
    const auto writes = [](const poll_entry& entry) { return (entry.events & POLLOUT) != 0; };
    const bool connecting = std::any_of(entries, entries + count, writes);
    for (;; timeout_ms -= timeout_ms > 0 ? slice : 0) {
        const bool whole = !connecting || (timeout_ms >= 0 && timeout_ms <= slice);
        int ready = ::WSAPoll(entries, static_cast<ULONG>(count), whole ? timeout_ms : slice);
        for (auto* entry = entries; connecting && ready >= 0 && entry != entries + count; ++entry) {
            if (entry->revents != 0 || !writes(*entry) || !has_failed(entry->fd)) continue;
            entry->revents = POLLERR;
            ++ready;
        }
        if (ready != 0 || whole) return ready;
    }
}

inline std::error_code file_error() noexcept {
    const DWORD code = ::GetLastError();
    if (code == ERROR_FILE_NOT_FOUND) return error_of(std::errc::no_such_file_or_directory);
    if (code == ERROR_FILE_EXISTS || code == ERROR_ALREADY_EXISTS)
        return error_of(std::errc::file_exists);
    return {static_cast<int>(code), std::system_category()};
}

inline HANDLE file_of(handle file) noexcept { return reinterpret_cast<HANDLE>(file); }

/// From UTF-8, as which the name of a file is given.
inline std::wstring wide(const std::string& path) {
    const int size = ::MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, nullptr, 0);
    std::wstring result(static_cast<std::size_t>(size), L'\0');
    ::MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, result.data(), size);
    return result;
}

inline handle open_file(const std::string& path, file_use use) {
    constexpr DWORD access[] = {GENERIC_READ, FILE_APPEND_DATA, GENERIC_WRITE};
    constexpr DWORD creation[] = {OPEN_EXISTING, OPEN_ALWAYS, CREATE_NEW};
    return reinterpret_cast<handle>(::CreateFileW(
        wide(path).c_str(), access[static_cast<int>(use)], FILE_SHARE_READ | FILE_SHARE_WRITE,
        nullptr, creation[static_cast<int>(use)], FILE_ATTRIBUTE_NORMAL, nullptr));
}

inline void close_file(handle file) noexcept { ::CloseHandle(file_of(file)); }

/// Does not check who may read it: Windows inherits that from the folder.
inline bool is_private(handle) noexcept { return true; }

inline std::ptrdiff_t read_file(handle file, char* to, std::size_t size) noexcept {
    DWORD count = 0;
    const BOOL done = ::ReadFile(file_of(file), to, static_cast<DWORD>(size), &count, nullptr);
    return done ? static_cast<std::ptrdiff_t>(count) : -1;
}

inline std::ptrdiff_t write_file(handle file, const char* from, std::size_t size) noexcept {
    DWORD count = 0;
    const BOOL done = ::WriteFile(file_of(file), from, static_cast<DWORD>(size), &count, nullptr);
    return done ? static_cast<std::ptrdiff_t>(count) : -1;
}

/// Gives a file its name, unless another file has that name.
inline bool name_file(const std::string& draft, const std::string& path) {
    return ::MoveFileW(wide(draft).c_str(), wide(path).c_str()) != 0;
}

inline void remove_file(const std::string& path) { ::DeleteFileW(wide(path).c_str()); }

}  // namespace p2pchat::detail::os

#else  // POSIX

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#if defined(__linux__)
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/epoll.h>
#else
#include <net/route.h>
#endif
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace p2pchat::detail::os {

using handle = tcp_socket::native_handle_type;
using native = int;
using poll_entry = pollfd;
using length = socklen_t;
using io_size = std::size_t;
#if defined(MSG_NOSIGNAL)
inline constexpr int send_flags = MSG_NOSIGNAL;
#else
inline constexpr int send_flags = 0;              // SO_NOSIGPIPE instead, see prepared()
#endif
inline constexpr int own_port = SO_REUSEADDR;  // right after its last user has ended
#if defined(__linux__)
inline constexpr int shared_port = SO_REUSEADDR;
#else
inline constexpr int shared_port = SO_REUSEPORT;  // SO_REUSEADDR shares less on the BSDs
#endif
inline constexpr bool end_may_be_reset = false;
#if defined(FIONWRITE)
inline constexpr auto unsent_bytes = FIONWRITE;
#else
inline constexpr auto unsent_bytes = TIOCOUTQ;
#endif
#if defined(TCP_KEEPIDLE)
inline constexpr int keep_idle = TCP_KEEPIDLE;
#else
inline constexpr int keep_idle = TCP_KEEPALIVE;  // macOS's name for it
#endif
#if defined(TCP_USER_TIMEOUT)
inline constexpr int retry_limit = TCP_USER_TIMEOUT, retry_limit_unit = 1000;  // milliseconds
#elif defined(TCP_RXT_CONNDROPTIME)
inline constexpr int retry_limit = TCP_RXT_CONNDROPTIME, retry_limit_unit = 1;  // macOS: seconds
#else
inline constexpr int retry_limit = 0, retry_limit_unit = 0;  // the system's own limit stays
#endif

inline native raw(handle socket) noexcept { return static_cast<native>(socket); }

inline std::error_code error_of(std::errc value) noexcept { return std::make_error_code(value); }

inline std::error_code error_of(int code) noexcept {
    // EAGAIN and EWOULDBLOCK may differ: map both to one.
    return {code == EAGAIN ? EWOULDBLOCK : code, std::generic_category()};
}

inline std::error_code last_error() noexcept { return error_of(errno); }
inline std::error_code listen_error() noexcept { return last_error(); }
inline std::error_code start_sockets() noexcept { return {}; }
inline void close(handle socket) noexcept { ::close(raw(socket)); }

template <typename Value>
bool set_option(handle socket, int level, int name, const Value& value) noexcept {
    return ::setsockopt(raw(socket), level, name, &value, sizeof value) == 0;
}

#if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)

inline handle open(int family, int type) noexcept {
    return ::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

inline handle accept(handle listener, sockaddr* from, length* size) noexcept {
    return ::accept4(raw(listener), from, size, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

inline int open_pipe(int (&ends)[2]) noexcept { return ::pipe2(ends, O_CLOEXEC | O_NONBLOCK); }

#else  // macOS: two steps, between which a fork() in another thread may inherit

inline handle prepared(int descriptor) noexcept {
    if (descriptor < 0) return tcp_socket::invalid;
    ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    ::fcntl(descriptor, F_SETFL, O_NONBLOCK);
    set_option(descriptor, SOL_SOCKET, SO_NOSIGPIPE, 1);  // a pipe has no such option
    return descriptor;
}

inline handle open(int family, int type) noexcept { return prepared(::socket(family, type, 0)); }

inline handle accept(handle listener, sockaddr* from, length* size) noexcept {
    return prepared(::accept(raw(listener), from, size));
}

inline int open_pipe(int (&ends)[2]) noexcept {
    const int result = ::pipe(ends);
    if (result == 0) prepared(ends[0]), prepared(ends[1]);
    return result;
}

#endif

inline void keep_alive(handle socket, int seconds) noexcept {
    const int interval = (std::max)(1, seconds / 3), probes = 3;
    set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(socket, IPPROTO_TCP, keep_idle, seconds);
    set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, interval);
    set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, probes);
    // No probe is sent while bytes wait to be acknowledged, so these get the same limit.
    const int limit = (seconds + interval * probes) * retry_limit_unit;
    if (retry_limit != 0) set_option(socket, IPPROTO_TCP, retry_limit, limit);
}

inline constexpr bool counts_unacknowledged = true;

/// Bytes sent that the other side's system has not acknowledged, our end of stream included.
#if defined(SO_NWRITE)  // macOS
inline int unacknowledged(handle socket) noexcept {
    int count = 0;
    length size = sizeof count;
    ::getsockopt(raw(socket), SOL_SOCKET, SO_NWRITE, &count, &size);
    return count;
}
#else
inline int unacknowledged(handle socket) noexcept {
    int count = 0;
    ::ioctl(raw(socket), unsent_bytes, &count);
    return count;
}
#endif

inline int poll(poll_entry* entries, std::size_t count, int timeout_ms) noexcept {
    return ::poll(entries, static_cast<nfds_t>(count), timeout_ms);
}

inline std::error_code file_error() noexcept { return last_error(); }

/// Does not wait for the other end of a pipe.
inline handle open_file(const std::string& path, file_use use) noexcept {
    constexpr int flags[] = {O_RDONLY, O_WRONLY | O_APPEND | O_CREAT, O_WRONLY | O_CREAT | O_EXCL};
    return ::open(path.c_str(), flags[static_cast<int>(use)] | O_CLOEXEC | O_NONBLOCK, 0600);
}

inline bool is_private(handle file) noexcept {
    struct stat status {};
    return ::fstat(raw(file), &status) == 0 && (status.st_mode & 077) == 0;
}

inline std::ptrdiff_t read_file(handle file, char* to, std::size_t size) noexcept {
    return ::read(raw(file), to, size);
}

inline std::ptrdiff_t write_file(handle file, const char* from, std::size_t size) noexcept {
    return ::write(raw(file), from, size);
}

inline void close_file(handle file) noexcept { ::close(raw(file)); }

/// Gives a file its name, unless another file has that name. Without hard links, the last one wins.
inline bool name_file(const std::string& draft, const std::string& path) noexcept {
    if (::link(draft.c_str(), path.c_str()) == 0) return true;
    return errno != EEXIST && ::rename(draft.c_str(), path.c_str()) == 0;
}

inline void remove_file(const std::string& path) noexcept { ::unlink(path.c_str()); }

}  // namespace p2pchat::detail::os

#endif

namespace p2pchat::detail::os {

/// How IPv6 writes an IPv4 address (RFC 4291, section 2.5.5.2).
inline constexpr unsigned char v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

inline auto now() noexcept { return std::chrono::steady_clock::now(); }
inline auto wall_time() noexcept { return std::chrono::system_clock::now(); }

inline std::error_code error_unless(bool success) noexcept {
    return success ? std::error_code() : last_error();
}

/// Reads a whole file; `ours_alone` says whether only its owner may read it.
inline std::error_code read_file(const std::string& path, std::string& bytes, bool& ours_alone) {
    constexpr std::size_t most = 16 * 1024 * 1024;
    bytes.clear();
    const handle file = open_file(path, file_use::read);
    if (file == tcp_socket::invalid) return file_error();
    ours_alone = is_private(file);
    char piece[4096];
    std::ptrdiff_t count = 0;
    while (bytes.size() < most && (count = read_file(file, piece, sizeof piece)) > 0)
        bytes.append(piece, static_cast<std::size_t>(count));
    const auto error = count < 0 ? file_error() : std::error_code();
    close_file(file);
    return count > 0 ? error_of(std::errc::file_too_large) : error;
}

/// Appends in one call, so that lines of several programs do not mix.
inline std::error_code write_file(const std::string& path, file_use use, std::string_view bytes) {
    const handle file = open_file(path, use);
    if (file == tcp_socket::invalid) return file_error();
    const auto count = write_file(file, bytes.data(), bytes.size());
    const auto error = count < 0 ? file_error() : std::error_code();
    close_file(file);
    const bool whole = static_cast<std::size_t>(count) == bytes.size();
    return error || whole ? error : error_of(std::errc::no_space_on_device);
}

/// Creates a file that only its owner may read: all of it or nothing, and never over another file.
inline std::error_code create_private(const std::string& path, std::string_view bytes) {
    const auto unique = reinterpret_cast<std::uintptr_t>(&path) ^
                        static_cast<std::uintptr_t>(now().time_since_epoch().count());
    const std::string draft = path + '.' + std::to_string(unique);
    auto error = write_file(draft, file_use::create, bytes);
    if (!error && !name_file(draft, path)) error = file_error();
    remove_file(draft);
    return error;
}

/// An endpoint as the system's calls take it.
struct native_address {
    union {
        sockaddr any;
        sockaddr_in v4;
        sockaddr_in6 v6{};
    };
    length size = sizeof(sockaddr_in6);

    native_address() noexcept = default;  // no family: no address
    explicit native_address(const endpoint& value) noexcept {
        if (value.is_v4()) {
            v4 = {};
            v4.sin_family = AF_INET;
            v4.sin_port = htons(value.port());
            std::memcpy(&v4.sin_addr, value.bytes() + 12, 4);
            size = sizeof v4;
        } else {
            v6.sin6_family = AF_INET6;
            v6.sin6_port = htons(value.port());
            v6.sin6_scope_id = value.scope();
            std::memcpy(&v6.sin6_addr, value.bytes(), 16);
        }
    }
};

/// The null endpoint for anything but IP.
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

inline bool parse_v6(const char* text, unsigned char (&bytes)[16]) noexcept {
    return !start_sockets() && ::inet_pton(AF_INET6, text, bytes) == 1;
}

inline std::string format_v6(const unsigned char (&bytes)[16]) {
    char text[INET6_ADDRSTRLEN] = "";
    if (!start_sockets()) static_cast<void>(::inet_ntop(AF_INET6, bytes, text, sizeof text));
    return text;
}

/// Creates a socket of the same family as `like`.
inline std::error_code open(const endpoint& like, int type, handle& socket) noexcept {
    if (auto error = start_sockets()) return error;
    socket = open(like.is_v4() ? AF_INET : AF_INET6, type);
    return error_unless(socket != tcp_socket::invalid);
}

inline std::error_code open_stream(const endpoint& like, handle& socket) noexcept {
    return open(like, SOCK_STREAM, socket);
}

inline std::error_code open_datagram(const endpoint& like, handle& socket) noexcept {
    return open(like, SOCK_DGRAM, socket);
}

/// A port in use is reported as address_in_use on every system.
inline std::error_code bind(handle socket, const endpoint& local) noexcept {
    const native_address address(local);
    const bool bound = ::bind(raw(socket), &address.any, address.size) == 0;
    return bound ? std::error_code() : listen_error();
}

inline std::error_code listen(handle socket, const endpoint& local, bool only_v6) noexcept {
    set_option(socket, SOL_SOCKET, own_port, 1);
    if (!local.is_v4()) set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY, only_v6 ? 1 : 0);
    if (auto error = bind(socket, local)) return error;
    return ::listen(raw(socket), SOMAXCONN) == 0 ? std::error_code() : listen_error();
}

inline std::error_code accept(handle listener, handle& socket, endpoint& from) noexcept {
    native_address address;
    socket = os::accept(listener, &address.any, &address.size);
    if (socket == tcp_socket::invalid) return last_error();
    from = to_endpoint(&address.any);
    return {};
}

/// On operation_in_progress, the socket becomes writable when done; pending_error() has the result.
inline std::error_code connect(handle socket, const endpoint& to) noexcept {
    const native_address address(to);
    if (::connect(raw(socket), &address.any, address.size) == 0) return {};
    const auto error = last_error();
    const bool goes_on =
        error == std::errc::operation_would_block || error == std::errc::interrupted;
    return goes_on ? error_of(std::errc::operation_in_progress) : error;
}

/// The error that the system has recorded for a socket since the last call.
inline std::error_code pending_error(handle socket) noexcept {
    int code = 0;
    length size = sizeof code;
    auto* const value = reinterpret_cast<char*>(&code);
    const bool known = ::getsockopt(raw(socket), SOL_SOCKET, SO_ERROR, value, &size) == 0;
    return known ? error_of(code) : last_error();
}

/// Whether the other side has reset a connection, without reading from it. On Windows only WSAPoll
/// knows.
inline bool is_reset(handle socket) noexcept {
    if (pending_error(socket)) return true;
    poll_entry entry{};
    entry.fd = raw(socket);
    entry.events = POLLIN;
    return os::poll(&entry, 1, 0) > 0 && (entry.revents & POLLERR) != 0;
}

/// As much as one call takes: Winsock's sizes are ints.
inline io_size at_once(std::size_t size) noexcept {
    return static_cast<io_size>((std::min)(size, std::size_t{1} << 30));
}

inline std::error_code send(handle socket, const char* data, std::size_t size,
                            std::size_t& sent) noexcept {
    const auto count = ::send(raw(socket), data, at_once(size), send_flags);
    sent = count < 0 ? 0 : static_cast<std::size_t>(count);
    if (count >= 0) return {};
    const auto error = last_error();
    // After a failed connection attempt the BSDs may say EPIPE here, and Wine reset.
    const bool vague = error == std::errc::broken_pipe || error == std::errc::connection_reset;
    const auto why = vague ? pending_error(socket) : error;
    return why ? why : error;
}

/// No error and no bytes: the other side has half-closed.
inline std::error_code receive(handle socket, char* buffer, std::size_t size,
                               std::size_t& received) noexcept {
    const auto count = ::recv(raw(socket), buffer, at_once(size), 0);
    received = count < 0 ? 0 : static_cast<std::size_t>(count);
    if (count == 0 && end_may_be_reset && is_reset(socket))
        return error_of(std::errc::connection_reset);
    return error_unless(count >= 0);
}

inline std::error_code shutdown_send(handle socket) noexcept {
    constexpr int our_side = 1;  // SHUT_WR, SD_SEND
    return error_unless(::shutdown(raw(socket), our_side) == 0);
}

/// Frees the port even if a child process holds the socket, too.
inline void stop_listening(handle socket) noexcept {
    constexpr int their_side = 0;  // SHUT_RD, SD_RECEIVE
    ::shutdown(raw(socket), their_side);
}

inline endpoint local(handle socket) noexcept {
    native_address address;
    ::getsockname(raw(socket), &address.any, &address.size);
    return to_endpoint(&address.any);
}

inline endpoint remote(handle socket) noexcept {
    native_address address;
    ::getpeername(raw(socket), &address.any, &address.size);
    return to_endpoint(&address.any);
}

inline void no_delay(handle socket) noexcept { set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1); }

/// Whether close() resets the connection.
inline void reset_on_close(handle socket, bool on) noexcept {
    linger how{};
    how.l_onoff = on ? 1 : 0;
    set_option(socket, SOL_SOCKET, SO_LINGER, how);
}

/// Waits once, until a socket is readable or writable (the next call on it finds any error), or
/// until `interrupt`, if any, is readable: operation_canceled.
inline std::error_code wait_ready(handle socket, bool to_write, int timeout_ms,
                                  handle interrupt) noexcept {
    poll_entry entries[2]{};
    entries[0].fd = raw(socket);
    entries[0].events = to_write ? POLLOUT : POLLIN;
    entries[1].fd = raw(interrupt);
    entries[1].events = POLLIN;
    const int count = os::poll(entries, interrupt == tcp_socket::invalid ? 1 : 2, timeout_ms);
    if (count < 0) return last_error();
    if (count == 0) return error_of(std::errc::timed_out);
    if (entries[1].revents != 0) return error_of(std::errc::operation_canceled);
    return {};
}

/// The local address of the route to `target`, with port 0; null if there is no route. Connecting
/// a datagram socket sends nothing.
inline endpoint route_source(const endpoint& target) noexcept {
    handle socket = tcp_socket::invalid;
    if (open_datagram(target, socket)) return {};
    const endpoint found = connect(socket, target) ? endpoint() : local(socket);
    close(socket);
    return {found.bytes(), 0, found.scope()};
}

/// The addresses of a host, by name, with port 0; blocks for as long as the system's resolver.
inline std::error_code look_up(const char* host, std::vector<endpoint>& found) {
    if (auto error = start_sockets()) return error;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (::getaddrinfo(host, nullptr, &hints, &list) != 0) return make_error_code(errc::bad_address);
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(
        list, [](addrinfo* all) { ::freeaddrinfo(all); });
    for (auto* entry = list; entry; entry = entry->ai_next)
        found.push_back(to_endpoint(entry->ai_addr));
    return {};
}

/// One address of an interface that is up.
struct interface_address {
    endpoint local;           // with port 0
    std::uint32_t index = 0;  // of the interface; on Windows known for IPv6 only
    unsigned prefix = 0;      // length of the network's prefix, of 128 bits
    bool loopback = false, broadcast = false;
};

inline bool operator==(const interface_address& a, const interface_address& b) noexcept {
    return a.local == b.local && a.index == b.index && a.prefix == b.prefix;
}

inline bool in_network(const endpoint& address, const interface_address& of) noexcept {
    const auto &a = address.bytes(), &b = of.local.bytes();
    const unsigned whole = of.prefix / 8, rest = of.prefix % 8;
    const bool ends_alike = rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
    return std::memcmp(a, b, whole) == 0 && ends_alike && address.scope() == of.local.scope();
}

/// The broadcast address of an IPv4 network.
inline endpoint broadcast_of(const interface_address& network) noexcept {
    unsigned char bytes[16];
    std::memcpy(bytes, network.local.bytes(), sizeof bytes);
    for (unsigned bit = network.prefix; bit < 128; ++bit)
        bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] | 0x80u >> bit % 8);
    return {bytes, 0, 0};
}

/// Joins the group on one more interface.
inline std::error_code join(handle socket, const endpoint& group,
                            const interface_address& on) noexcept {
    const native_address to(group), from(on.local);
    ip_mreq v4{};
    v4.imr_multiaddr = to.v4.sin_addr;
    v4.imr_interface = from.v4.sin_addr;
    ipv6_mreq v6{};
    v6.ipv6mr_multiaddr = to.v6.sin6_addr;
    v6.ipv6mr_interface = on.index;
    return error_unless(group.is_v4() ? set_option(socket, IPPROTO_IP, IP_ADD_MEMBERSHIP, v4)
                                      : set_option(socket, IPPROTO_IPV6, IPV6_JOIN_GROUP, v6));
}

/// A datagram socket on a port of one address, which may send to groups and broadcast; or on a
/// port that other programs may share.
inline std::error_code open_datagram_port(const interface_address& on, std::uint16_t port,
                                          bool shared, handle& socket) noexcept {
    if (auto error = open_datagram(on.local, socket)) return error;
    const native_address address(on.local);
    if (shared) set_option(socket, SOL_SOCKET, shared_port, 1);
    if (on.local.is_v4()) {
        set_option(socket, SOL_SOCKET, SO_BROADCAST, 1);
        set_option(socket, IPPROTO_IP, IP_MULTICAST_IF, address.v4.sin_addr);
        set_option(socket, IPPROTO_IP, IP_MULTICAST_TTL, 1);
    } else {
        set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY, 1);
        set_option(socket, IPPROTO_IPV6, IPV6_MULTICAST_IF, static_cast<int>(on.index));
        set_option(socket, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 1);
    }
    return bind(socket, {on.local.bytes(), port, on.local.scope()});
}

inline std::error_code send_to(handle socket, std::string_view data, const endpoint& to) noexcept {
    const native_address address(to);
    const auto size = at_once(data.size());
    return error_unless(
        ::sendto(raw(socket), data.data(), size, send_flags, &address.any, address.size) >= 0);
}

/// Receives one datagram; what does not fit is cut off.
inline std::error_code receive_from(handle socket, char* buffer, std::size_t size,
                                    std::size_t& received, endpoint& from) noexcept {
    native_address address;
    const auto count =
        ::recvfrom(raw(socket), buffer, at_once(size), 0, &address.any, &address.size);
    received = count < 0 ? 0 : static_cast<std::size_t>(count);
    from = to_endpoint(&address.any);
    return error_unless(count >= 0);
}

#if defined(_WIN32)

/// The length of an IPv4 mask, counted as for IPv6.
inline unsigned prefix_of(const sockaddr_in& mask) noexcept {
    unsigned bits = 96;
    for (auto rest = ntohl(mask.sin_addr.s_addr); rest != 0; rest <<= 1) ++bits;
    return bits;
}

/// Calls visitor(const interface_address&) with each address of this machine until it returns
/// true. For IPv6 only link-local ones, whose prefix is always 64 bits.
template <typename Visitor>
void visit_interfaces(const Visitor& visitor) {
    handle socket = tcp_socket::invalid;
    alignas(SOCKET_ADDRESS_LIST) char buffer[16 * 1024];
    const auto ask = [&](const endpoint& family, DWORD request) {
        DWORD size = 0;
        if (open_datagram(family, socket)) return size;
        if (::WSAIoctl(raw(socket), request, nullptr, 0, buffer, sizeof buffer, &size, nullptr,
                       nullptr) != 0)
            size = 0;
        close(socket);
        return size;
    };
    const std::size_t count =
        ask({"127.0.0.1", 0}, SIO_GET_INTERFACE_LIST) / sizeof(INTERFACE_INFO);
    for (std::size_t i = 0; i < count; ++i) {
        INTERFACE_INFO found;
        std::memcpy(&found, buffer + i * sizeof found, sizeof found);
        if ((found.iiFlags & IFF_UP) == 0) continue;
        interface_address result;
        result.local = to_endpoint(&found.iiAddress.Address);
        result.prefix = prefix_of(found.iiNetmask.AddressIn);
        result.loopback = (found.iiFlags & IFF_LOOPBACK) != 0;
        result.broadcast = (found.iiFlags & IFF_BROADCAST) != 0;
        if (visitor(result)) return;
    }
    if (ask({"::1", 0}, SIO_ADDRESS_LIST_QUERY) == 0) return;
    const auto& list = *reinterpret_cast<const SOCKET_ADDRESS_LIST*>(buffer);
    for (int i = 0; i < list.iAddressCount; ++i) {
        interface_address result;
        const endpoint address = to_endpoint(list.Address[i].lpSockaddr);
        result.local = endpoint(address.bytes(), 0, address.scope());
        result.index = address.scope();
        result.prefix = 64;
        if (result.index != 0 && visitor(result)) return;
    }
}

/// A datagram socket connected to itself, as WSAPoll takes no pipes.
inline std::error_code open_channel(handle& in, handle& out) noexcept {
    const endpoint loopback("127.0.0.1", 0);
    auto error = open_datagram(loopback, in);
    if (!error) error = bind(in, loopback);
    if (!error) error = connect(in, local(in));
    if (error && in != tcp_socket::invalid) close(std::exchange(in, tcp_socket::invalid));
    out = in;
    return error;
}

inline void signal_channel(handle out) noexcept { ::send(raw(out), "", 1, 0); }

inline void drain_channel(handle in) noexcept {
    char bytes[64];
    while (::recv(raw(in), bytes, sizeof bytes, 0) > 0) {
    }
}

/// Readable when IPv4 addresses of this machine have changed. The system sets an event, for which
/// WSAPoll cannot wait: a thread of its pool waits, and signals a channel.
class address_watch {
public:
    address_watch() = default;
    address_watch(address_watch&&) = delete;
    ~address_watch() { close(); }

    std::error_code open() noexcept {
        auto error = open_datagram({"127.0.0.1", 0}, socket_);
        if (!error) error = open_channel(in_, out_);
        if (!error) event_ = ::CreateEventW(nullptr, FALSE, FALSE, nullptr);
        if (!error && event_) error = ask();
        if (!error && !::RegisterWaitForSingleObject(&wait_, event_, tell, this, INFINITE, 0))
            error = file_error();
        if (error) close();
        return error;
    }
    void close() noexcept {
        if (wait_) ::UnregisterWaitEx(std::exchange(wait_, nullptr), INVALID_HANDLE_VALUE);
        if (std::exchange(asked_, false)) {
            DWORD size = 0, flags = 0;
            ::CancelIoEx(file_of(socket_), &overlapped_);  // the system's until this is done
            ::WSAGetOverlappedResult(raw(socket_), &overlapped_, &size, TRUE, &flags);
        }
        if (event_) ::CloseHandle(std::exchange(event_, nullptr));
        for (handle* const socket : {&in_, &socket_})
            if (*socket != tcp_socket::invalid)
                os::close(std::exchange(*socket, tcp_socket::invalid));
    }
    handle native_handle() const noexcept { return in_; }

    /// Reads all notices; whether any of them is about addresses.
    bool drain() noexcept {
        drain_channel(in_);
        static_cast<void>(ask());
        return true;
    }

private:
    static void CALLBACK tell(void* self, BOOLEAN) noexcept {
        signal_channel(static_cast<address_watch*>(self)->out_);
    }
    std::error_code ask() noexcept {
        DWORD size = 0;
        overlapped_ = {};
        overlapped_.hEvent = event_;
        const bool done = ::WSAIoctl(raw(socket_), SIO_ADDRESS_LIST_CHANGE, nullptr, 0, nullptr, 0,
                                     &size, &overlapped_, nullptr) == 0;
        asked_ = done || WSAGetLastError() == WSA_IO_PENDING;
        return error_unless(asked_);
    }

    handle socket_ = tcp_socket::invalid;
    handle in_ = tcp_socket::invalid, out_ = tcp_socket::invalid;  // the same: see open_channel()
    HANDLE event_ = nullptr, wait_ = nullptr;
    WSAOVERLAPPED overlapped_{};
    bool asked_ = false;
};

#else

/// The prefix length of an address's mask, counted as for IPv6.
inline unsigned prefix_of(const ifaddrs& of) noexcept {
    unsigned char mask[16] = {};
    const bool v4 = of.ifa_addr->sa_family == AF_INET;
    if (of.ifa_netmask && v4) {  // some systems do not fill in the mask's family
        sockaddr_in from;
        std::memcpy(&from, of.ifa_netmask, sizeof from);
        std::memcpy(mask, &from.sin_addr, 4);
    } else if (of.ifa_netmask) {
        sockaddr_in6 from;
        std::memcpy(&from, of.ifa_netmask, sizeof from);
        std::memcpy(mask, &from.sin6_addr, 16);
    }
    unsigned bits = v4 ? 96 : 0;
    for (int part : mask)
        for (; (part & 0x80) != 0; part <<= 1) ++bits;
    return bits;
}

/// Calls visitor(const interface_address&) with each address of each interface that is up until it
/// returns true.
template <typename Visitor>
void visit_interfaces(const Visitor& visitor) {
    ifaddrs* list = nullptr;
    if (::getifaddrs(&list) != 0) return;
    for (auto* entry = list; entry; entry = entry->ifa_next) {
        const int family = entry->ifa_addr ? entry->ifa_addr->sa_family : AF_UNSPEC;
        if ((entry->ifa_flags & IFF_UP) == 0 || (family != AF_INET && family != AF_INET6)) continue;
        interface_address result;
        result.local = to_endpoint(entry->ifa_addr);
        result.index = ::if_nametoindex(entry->ifa_name);
        result.prefix = prefix_of(*entry);
        result.loopback = (entry->ifa_flags & IFF_LOOPBACK) != 0;
        result.broadcast = (entry->ifa_flags & IFF_BROADCAST) != 0;
        if (visitor(result)) break;
    }
    ::freeifaddrs(list);
}

inline std::error_code open_channel(handle& in, handle& out) noexcept {
    int ends[2];
    if (open_pipe(ends) != 0) return last_error();
    in = ends[0];
    out = ends[1];
    return {};
}

inline void signal_channel(handle out) noexcept {
    // A full pipe is as good as one more byte: the waiting thread wakes up.
    while (::write(raw(out), "", 1) < 0 && errno == EINTR) {
    }
}

inline void drain_channel(handle in) noexcept {
    char bytes[64];
    while (::read(raw(in), bytes, sizeof bytes) > 0) {
    }
}

#if defined(__linux__)

/// A socket that reports changes of addresses, and interfaces that go up or down.
inline std::error_code open_notices(handle& socket) noexcept {
    socket = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (socket == tcp_socket::invalid) return last_error();
    sockaddr_nl groups{};
    groups.nl_family = AF_NETLINK;
    groups.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
    const auto* const address = reinterpret_cast<const sockaddr*>(&groups);
    return error_unless(::bind(raw(socket), address, sizeof groups) == 0);
}
inline bool is_of_addresses(const char*, std::size_t) noexcept { return true; }

#else

/// A routing socket, which reports changes of routes, too.
inline std::error_code open_notices(handle& socket) noexcept {
    socket = open(PF_ROUTE, SOCK_RAW);
    return error_unless(socket != tcp_socket::invalid);
}
inline bool is_of_addresses(const char* notice, std::size_t size) noexcept {
    if (size <= offsetof(rt_msghdr, rtm_type)) return false;
    const int type = static_cast<unsigned char>(notice[offsetof(rt_msghdr, rtm_type)]);
    return type == RTM_NEWADDR || type == RTM_DELADDR || type == RTM_IFINFO;
}

#endif

/// Readable when addresses of this machine have changed.
class address_watch {
public:
    address_watch() = default;
    address_watch(address_watch&&) = delete;
    ~address_watch() { close(); }

    std::error_code open() noexcept {
        const auto error = open_notices(socket_);
        if (error) close();
        return error;
    }
    void close() noexcept {
        if (socket_ != tcp_socket::invalid) os::close(std::exchange(socket_, tcp_socket::invalid));
    }
    handle native_handle() const noexcept { return socket_; }

    /// Reads all notices; whether any of them is about addresses.
    bool drain() noexcept {
        char notice[4096];  // what does not fit is not needed
        std::size_t size = 0;
        bool any = false;
        for (int i = 0; i < 64; ++i) {  // so that others get their turn
            const auto error = receive(socket_, notice, sizeof notice, size);
            if (error) return any || error != std::errc::operation_would_block;  // some were lost
            any = any || is_of_addresses(notice, size);
        }
        return any;
    }

private:
    handle socket_ = tcp_socket::invalid;
};

#endif

/// Wakes a thread that waits for sockets. signal() is thread-safe once open() has returned.
class channel {
public:
    channel() = default;
    channel(channel&&) = delete;
    ~channel() {
        if (is_open()) close(in_);
        if (out_ != in_) close(out_);
    }

    std::error_code open() noexcept {
        return is_open() ? std::error_code() : open_channel(in_, out_);
    }
    bool is_open() const noexcept { return in_ != tcp_socket::invalid; }
    void signal() noexcept {
        if (is_open()) signal_channel(out_);
    }
    void drain() noexcept { drain_channel(in_); }
    handle in() const noexcept { return in_; }  ///< readable while signalled

private:
    handle in_ = tcp_socket::invalid;
    handle out_ = tcp_socket::invalid;
};

/// A socket's entry in the poller. Part of the socket's owner; never moves.
struct watched {
    bool read = false, write = false;
    std::uint64_t name = 0;  // never used again, so that a late event is recognised as late
};

struct readiness {
    watched* source = nullptr;
    bool read = false, write = false;
};

using watched_sockets = std::unordered_map<std::uint64_t, std::pair<handle, watched*>>;  // by name

/// A socket that the system reports ready; an error or the end counts as both.
struct event {
    std::uint64_t name;
    bool read, write;
};

inline constexpr int event_batch = 256;

#if defined(__linux__) && !defined(P2PCHAT_USE_POLL)

/// The system's part of a poller: epoll.
class poller_backend {
public:
    static constexpr bool waits_with_copy = false;

    poller_backend() = default;
    poller_backend(poller_backend&&) = delete;
    ~poller_backend() {
        if (epoll_ >= 0) close(epoll_);
    }

    std::error_code open() noexcept {
        if (epoll_ >= 0) close(epoll_);
        epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
        return error_unless(epoll_ >= 0);
    }

    std::error_code change(handle socket, const watched& state, bool read, bool write) noexcept {
        const bool known = state.read || state.write;
        const int how = !read && !write ? EPOLL_CTL_DEL : known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
        epoll_event wanted{};
        wanted.events = (read ? EPOLLIN : 0u) | (write ? EPOLLOUT : 0u);
        wanted.data.u64 = state.name;
        return error_unless(::epoll_ctl(epoll_, how, raw(socket), &wanted) == 0);
    }

    void copy(const watched_sockets&) noexcept {}

    int wait(int timeout_ms, event (&events)[event_batch]) noexcept {
        constexpr unsigned ended = EPOLLERR | EPOLLHUP;
        epoll_event found[event_batch];
        const int count = ::epoll_wait(epoll_, found, event_batch, timeout_ms);
        for (int i = 0; i < count; ++i)
            events[i] = {found[i].data.u64, (found[i].events & (ended | EPOLLIN)) != 0,
                         (found[i].events & (ended | EPOLLOUT)) != 0};
        return count;
    }

private:
    int epoll_ = -1;
};

#else

/// The system's part of a poller: poll or WSAPoll, which wait with a copy of what is watched.
class poller_backend {
public:
    static constexpr bool waits_with_copy = true;

    std::error_code open() noexcept { return {}; }
    std::error_code change(handle, const watched&, bool, bool) noexcept { return {}; }

    void copy(const watched_sockets& all) noexcept {
        polled_.clear();
        names_.clear();
        try {
            for (const auto& [name, socket] : all) {
                poll_entry entry{};
                entry.fd = raw(socket.first);
                const watched& state = *socket.second;
                entry.events =
                    static_cast<short>((state.read ? POLLIN : 0) | (state.write ? POLLOUT : 0));
                polled_.push_back(entry);
                names_.push_back(name);
            }
        } catch (const std::bad_alloc&) {
            // wait() makes do with the old copy, and does not wait for long.
        }
        whole_ = names_.size() == all.size();
    }

    int wait(int timeout_ms, event (&events)[event_batch]) noexcept {
        constexpr int ended = POLLERR | POLLHUP | POLLNVAL;
        const auto size = names_.size();
        if (!whole_ && (timeout_ms < 0 || timeout_ms > 10)) timeout_ms = 10;
        int left = os::poll(polled_.data(), size, timeout_ms);
        if (left < 0) return -1;
        int count = 0;
        for (std::size_t seen = 0; seen < size && left > 0 && count < event_batch; ++seen) {
            last_ = last_ + 1 < size ? last_ + 1 : 0;
            const int found = polled_[last_].revents;
            if (found == 0) continue;
            events[count++] = {names_[last_], (found & (ended | POLLIN)) != 0,
                               (found & (ended | POLLOUT)) != 0};
            --left;
        }
        return count;
    }

private:
    std::vector<poll_entry> polled_;
    std::vector<std::uint64_t> names_;  // of each
    std::size_t last_ = 0;              // where the last scan ended, so that no socket starves
    bool whole_ = true;
};

#endif

/// Waits for many sockets, level-triggered.
///
/// Guarded by its owner's lock, except wake(), which is thread-safe, and wait(), which one thread
/// calls without the lock between prepare() and collect(). Meanwhile others may call watch(): it
/// takes effect at once, and collect() reports nothing that has been forgotten.
class poller {
public:
    static constexpr int batch = event_batch;

    /// Opens it, or opens it anew without any socket; wake() may be called meanwhile.
    std::error_code open() {
        if (auto error = channel_.open()) return error;
        if (auto error = backend_.open()) return error;
        sockets_.clear();
        wake_up_ = {};
        return watch(channel_.in(), wake_up_, true, false);
    }

    /// Watches for the given events from now on. With neither, removes the socket: required before
    /// it is closed, and done even if an error is returned.
    std::error_code watch(handle socket, watched& state, bool read, bool write) {
        if (read == state.read && write == state.write) return {};
        [[maybe_unused]] const bool more = (read && !state.read) || (write && !state.write);
        const bool forget = !read && !write;
        if (!state.read && !state.write) {
            state.name = ++last_name_;
            sockets_.emplace(state.name, std::make_pair(socket, &state));
        }
        const auto error = backend_.change(socket, state, read, write);
        if (!error || forget) {
            state.read = read;
            state.write = write;
        }
        if (!state.read && !state.write) sockets_.erase(state.name);
        // The copy in use by wait() lacks new sockets, and still has those about to be closed.
        if (poller_backend::waits_with_copy && (more || forget) && std::exchange(waiting_, false))
            wake();
        return error;
    }

    void prepare() noexcept {
        backend_.copy(sockets_);
        waiting_ = true;
    }

    /// Waits for `timeout_ms` at most (-1: no limit) and returns the number of ready sockets, a
    /// wake-up included; -1 if that is unknown (if interrupted, say).
    int wait(int timeout_ms) noexcept { return count_ = backend_.wait(timeout_ms, events_); }

    /// Fills in the ready sockets, and returns their number. The rest is reported next time.
    int collect(readiness (&ready)[batch]) noexcept {
        waiting_ = false;
        int found = 0;
        for (int i = 0; i < count_; ++i) {
            const auto place = sockets_.find(events_[i].name);
            if (place == sockets_.end()) continue;
            watched* const state = place->second.second;
            const bool read = events_[i].read && state->read;
            const bool write = events_[i].write && state->write;
            if (state == &wake_up_)
                channel_.drain();
            else if (read || write)
                ready[found++] = {state, read, write};
        }
        return found;
    }

    void wake() noexcept { channel_.signal(); }

private:
    channel channel_;
    watched wake_up_;  // for the channel
    poller_backend backend_;
    watched_sockets sockets_;
    std::uint64_t last_name_ = 0;
    event events_[batch];
    int count_ = 0;         // of events
    bool waiting_ = false;  // and not woken yet
};

}  // namespace p2pchat::detail::os

#endif  // P2PCHAT_PLATFORM

// -------------------------------------------------------------------------------------- >> text
//
// Does:        errors; endpoints and messages from and to text; host names. Allocates nothing to
//              parse.
// May use:     the interface, platform
// Guarded by:  nothing: functions without state
// Never:       blocks, except in resolve(), for the system's resolver

namespace p2pchat {

namespace detail {

/// In the order of errc.
inline constexpr struct errc_text {
    const char* text;
    std::errc like;
} errc_texts[] = {
    {"unknown error", std::errc::invalid_argument},
    {"not an IP address", std::errc::invalid_argument},
    {"not a port (1 to 65535)", std::errc::invalid_argument},
    {"not a team name (1 to 64 bytes, no white space)", std::errc::invalid_argument},
    {"not a text (empty, or with a line break or NUL)", std::errc::invalid_argument},
    {"not a message (sender, team, text)", std::errc::invalid_argument},
    {"closed without a message", std::errc::no_message},
    {"message too long", std::errc::message_size},
    {"the peer closed without taking the message", std::errc::connection_reset},
    {"the link broke before the message was confirmed", std::errc::connection_aborted},
    {"send queue full for this peer", std::errc::no_buffer_space},
    {"the node is not running", std::errc::operation_canceled},
    {"the node is already running", std::errc::already_connected},
    {"evicted by a newer connection", std::errc::connection_aborted},
    {"the sender is not at the address it claims", std::errc::permission_denied},
    {"our own address", std::errc::invalid_argument},
    {"neither a message nor a control line", std::errc::protocol_error},
    {"a size or port in config is 0, a timeout is negative, or the application is no word",
     std::errc::invalid_argument},
    {"expired before the peer came back", std::errc::timed_out},
    {"the node stopped before the peer came back", std::errc::operation_canceled},
    {"compiled without P2PCHAT_OPENSSL", std::errc::not_supported},
    {"the identity is not a P-256 key, or others may read its file", std::errc::invalid_argument},
    {"a line of the pins is not \"address team key\"", std::errc::invalid_argument},
    {"not encrypted", std::errc::permission_denied},
    {"the TLS handshake failed, or bytes were changed", std::errc::connection_aborted},
    {"no certificate, an expired one, or not for a P-256 key", std::errc::permission_denied},
    {"the key is not the pinned one", std::errc::permission_denied},
    {"sent, but not confirmed", std::errc::timed_out},
    {"a command, not a text: use connect() or leave()", std::errc::invalid_argument},
};

class errc_category final : public std::error_category {
public:
    const char* name() const noexcept override { return "p2pchat"; }
    std::string message(int value) const override { return describe(value).text; }
    std::error_condition default_error_condition(int value) const noexcept override {
        return std::make_error_condition(describe(value).like);
    }

private:
    static const errc_text& describe(int value) noexcept {
        constexpr int count = sizeof errc_texts / sizeof errc_texts[0];
        return errc_texts[value > 0 && value < count ? value : 0];
    }
};

inline constexpr errc no_error = errc{};

inline std::error_code to_error(errc value) noexcept {
    return value == no_error ? std::error_code() : make_error_code(value);
}

inline bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

inline bool is_space(char c) noexcept {
    return static_cast<unsigned char>(c) <= ' ' && (c == ' ' || (c >= '\t' && c <= '\r'));
}

inline bool has(std::string_view text, char c) noexcept {
    return text.find(c) != std::string_view::npos;
}

/// Reads a decimal number up to `max`, without leading zeros, and moves `p` past it.
inline bool scan_number(const char*& p, const char* end, std::uint32_t max,
                        std::uint32_t& value) noexcept {
    if (p == end || !is_digit(*p)) return false;
    value = static_cast<std::uint32_t>(*p++ - '0');
    while (p != end && is_digit(*p)) {
        if (value == 0 || value > max / 10) return false;
        value = value * 10 + static_cast<std::uint32_t>(*p++ - '0');
    }
    return value <= max;
}

/// Four numbers, as inet_pton() takes them, but many times faster.
inline bool scan_v4(const char*& p, const char* end, unsigned char (&out)[16]) noexcept {
    std::uint32_t all = 0;  // stored at once: reading four single bytes back as a word costs 2 ns
    const char* at = p;
    for (int i = 0; i < 4; ++i) {
        std::uint32_t octet = 0;
        if (i != 0 && (at == end || *at++ != '.')) return false;
        if (!scan_number(at, end, 255, octet)) return false;
        all = all << 8 | octet;
    }
    p = at;
    std::memcpy(out, os::v4_prefix, sizeof os::v4_prefix);
    for (int i = 0; i < 4; ++i) out[12 + i] = static_cast<unsigned char>(all >> (24 - 8 * i));
    return true;
}

/// An IPv6 address, with its scope after a '%' or without.
inline bool scan_v6(std::string_view text, unsigned char (&out)[16],
                    std::uint32_t& scope) noexcept {
    const auto size = (std::min)(text.find('%'), text.size());
    const char* p = text.data() + size;
    const char* const end = text.data() + text.size();
    scope = 0;
    if (p != end && (!scan_number(++p, end, 0x7fffffff, scope) || p != end)) return false;
    char copy[64] = {};  // NUL-terminated for inet_pton(), which stops at the first NUL
    if (size >= sizeof copy) return false;
    text.copy(copy, size);
    return std::strlen(copy) == size && os::parse_v6(copy, out);
}

/// Reads an endpoint at the beginning of [p, end) and moves `p` past it. What follows is up to the
/// caller. Without a port, the error says whether the address at least was valid.
errc scan_endpoint(const char*& p, const char* end, endpoint& result) noexcept {
    // Written straight into `result`: copying bytes that were just written singly stalls the CPU.
    std::uint32_t port = 0;
    result.scope_ = 0;
    if (p != end && *p == '[') {
        const std::string_view rest(p + 1, static_cast<std::size_t>(end - p - 1));
        const auto inside = rest.substr(0, rest.find(']'));
        const bool is_v6 = inside.size() != rest.size() && has(inside, ':');
        if (!is_v6 || !scan_v6(inside, result.bytes_, result.scope_)) return errc::bad_address;
        if (result.is_v4()) result.scope_ = 0;
        p += inside.size() + 2;
    } else if (!scan_v4(p, end, result.bytes_)) {
        return errc::bad_address;
    }
    if (p != end && *p != ':' && !is_space(*p)) return errc::bad_address;
    if (p == end || *p++ != ':' || !scan_number(p, end, 65535, port) || port == 0)
        return errc::bad_port;
    result.port_ = static_cast<std::uint16_t>(port);
    return no_error;
}

inline void append_number(std::string& out, std::uint64_t value) {
    char digits[20];
    out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

/// Without the scope, which means nothing on other machines.
inline void append_address(std::string& out, const endpoint& value, bool with_scope) {
    if (!value.is_v4()) out += os::format_v6(value.bytes());
    for (int i = 12; i < 16 && value.is_v4(); ++i) {
        if (i != 12) out += '.';
        append_number(out, value.bytes()[i]);
    }
    if (!with_scope || value.scope() == 0) return;
    out += '%';
    append_number(out, value.scope());
}

inline void append_endpoint(std::string& out, const endpoint& value, bool with_scope) {
    if (!value.is_v4()) out += '[';
    append_address(out, value, with_scope);
    out += value.is_v4() ? ":" : "]:";
    append_number(out, value.port());
}

/// Whether it has an address, whatever its port.
inline bool is_named(const endpoint& address) noexcept {
    return static_cast<bool>(endpoint(address.bytes(), 1, 0));
}

inline constexpr std::string_view connect_word = "CONNECT", exit_word = "exit";

inline bool has_word(std::string_view text, std::string_view word) noexcept {
    while (!text.empty() && text.substr(0, text.find(' ')) != word)
        text.remove_prefix((std::min)(text.find(' '), text.size() - 1) + 1);
    return !text.empty();
}

/// What follows a prefix in the first word that begins with it; empty if there is none.
inline std::string_view value_of(std::string_view text, std::string_view prefix) noexcept {
    while (!text.empty()) {
        const auto word = text.substr(0, text.find(' '));
        if (word.substr(0, prefix.size()) == prefix) return word.substr(prefix.size());
        text.remove_prefix((std::min)(word.size() + 1, text.size()));
    }
    return {};
}

inline bool is_exit(std::string_view text) noexcept {
    return text.size() == exit_word.size() &&
           std::equal(text.begin(), text.end(), exit_word.begin(),
                      [](char a, char b) { return (a | 0x20) == b; });
}

/// In a one-shot also the words for it of other programs of the course.
inline bool is_departure(std::string_view text) noexcept {
    return is_exit(text) || text == "DISCONNECT" || text == "[PEER_QUIT]";
}

inline void skip_space(const char*& p, const char* end) noexcept {
    while (p != end && is_space(*p)) ++p;
}

inline std::string_view trimmed(std::string_view text) noexcept {
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    return text;
}

inline void append_key(std::string& out, const public_key& key) {
    constexpr char digits[] = "0123456789abcdef";
    for (const unsigned char byte : key.bytes)
        out.append(1, digits[byte >> 4]).append(1, digits[byte & 15]);
}

/// False unless it is 64 hexadecimal digits.
inline bool scan_key(std::string_view text, public_key& key) noexcept {
    if (text.size() != 2 * sizeof key.bytes) return false;
    for (std::size_t i = 0; i < sizeof key.bytes; ++i) {
        const char* const end = text.data() + 2 * i + 2;
        if (std::from_chars(end - 2, end, key.bytes[i], 16).ptr != end) return false;
    }
    return true;
}

/// A one-shot may have several lines, ended by LF or CR LF.
inline bool is_text(std::string_view text) noexcept {
    if (text.empty() || has(text, '\0')) return false;
    auto at = text.find('\r');
    while (at < text.size() && text.substr(at, 2) == "\r\n") at = text.find('\r', at + 1);
    return at >= text.size();
}

/// Checks what we send: one line, which parse() must return unchanged.
inline bool is_sendable(std::string_view text) noexcept {
    return !text.empty() && !is_space(text.front()) && !is_space(text.back()) && !has(text, '\0') &&
           !has(text, '\r') && !has(text, '\n');
}

inline bool is_team(std::string_view team) noexcept {
    return !team.empty() && team.size() <= max_team_bytes &&
           std::none_of(team.begin(), team.end(), [](char c) { return is_space(c) || c == '\0'; });
}

inline bool in_brackets(std::string_view word) noexcept {
    return word.size() >= 2 && word.front() == '<' && word.back() == '>';
}

/// Checks a team that we send: scan_message() must return it unchanged.
inline bool is_sendable_team(std::string_view team) noexcept {
    return is_team(team) && !in_brackets(team) && team != "@" &&
           (team.front() != '[' || team.back() != ']');
}

/// Other programs of the course write the team as "@ <team>" or "[time] @ <team>". Moves `p` to the
/// bracket, or returns false.
inline bool skip_at(const char*& p, const char* end) noexcept {
    const char* at = p;
    if (*at == '[') {
        while (at != end && !is_space(*at)) ++at;
        if (at[-1] != ']') return false;
        skip_space(at, end);
    }
    if (at == end || *at++ != '@') return false;
    const char* const space = at;
    skip_space(at, end);
    if (at == space || at == end || *at != '<') return false;
    p = at;
    return true;
}

/// And they end the text by a line "<end>".
inline std::string_view without_end_line(std::string_view text) noexcept {
    constexpr std::string_view last = "\n<end>";
    if (text == last.substr(1)) return {};
    const auto size = text.size() - (std::min)(text.size(), last.size());
    return text.substr(size) == last ? trimmed(text.substr(0, size)) : text;
}

/// parse(), but with an errc, for callers that read many messages.
inline errc scan_message(std::string_view bytes, message_view& result) noexcept {
    bytes = trimmed(bytes);
    const char* p = bytes.data();
    const char* const end = p + bytes.size();
    if (p == end) return errc::too_few_words;

    const bool bracket = *p == '<';
    if (bracket) ++p;
    if (const errc error = scan_endpoint(p, end, result.sender); error != no_error) return error;
    if (!result.sender) return errc::bad_address;  // 0.0.0.0 and :: are no sender
    if (result.sender.scope() != 0)                // means nothing here
        result.sender = endpoint(result.sender.bytes(), result.sender.port(), 0);
    if (bracket && (p == end || *p++ != '>')) return errc::bad_port;
    if (p == end) return errc::too_few_words;
    if (!is_space(*p)) return errc::bad_port;
    skip_space(p, end);

    const bool is_at_form = p != end && (*p == '@' || *p == '[') && skip_at(p, end);
    const char* const team = p;
    while (p != end && !is_space(*p) && *p != '\0') ++p;
    if (p == end) return errc::too_few_words;
    if (*p == '\0') return errc::bad_team;
    result.team = {team, static_cast<std::size_t>(p - team)};
    if (in_brackets(result.team)) result.team = result.team.substr(1, result.team.size() - 2);
    if (result.team.empty() || result.team.size() > max_team_bytes) return errc::bad_team;
    skip_space(p, end);

    result.text = {p, static_cast<std::size_t>(end - p)};
    if (is_at_form) result.text = without_end_line(result.text);
    return is_text(result.text) ? no_error : errc::bad_text;
}

}  // namespace detail

const std::error_category& category() noexcept {
    static const detail::errc_category instance;
    return instance;
}

std::error_code make_error_code(errc value) noexcept {
    return {static_cast<int>(value), category()};
}

endpoint::endpoint(std::string_view address, std::uint16_t port) noexcept {
    const char* p = address.data();
    const char* const end = p + address.size();
    unsigned char bytes[16];
    std::uint32_t scope = 0;
    const bool is_v6 = detail::has(address, ':');
    if (is_v6 ? detail::scan_v6(address, bytes, scope) : detail::scan_v4(p, end, bytes) && p == end)
        *this = endpoint(bytes, port, scope);
}

endpoint::endpoint(const unsigned char (&address)[16], std::uint16_t port,
                   std::uint32_t scope) noexcept
    : port_(port) {
    std::memcpy(bytes_, address, sizeof bytes_);
    if (!is_v4()) scope_ = scope;  // or one address could be written in many ways
}

endpoint::operator bool() const noexcept {
    const bool ends_in_zeros = std::memcmp(bytes_ + 12, "\0\0\0", 4) == 0;
    return port_ != 0 && !(ends_in_zeros && (is_v4() || same_address(endpoint())));
}

std::string endpoint::address() const {
    std::string out;
    detail::append_address(out, *this, true);
    return out;
}

bool endpoint::is_v4() const noexcept {
    return std::memcmp(bytes_, detail::os::v4_prefix, sizeof detail::os::v4_prefix) == 0;
}

bool endpoint::is_loopback() const noexcept {
    return is_v4() ? bytes_[12] == 127 : same_address(endpoint("::1", 0));
}

bool operator<(const endpoint& a, const endpoint& b) noexcept {
    if (const int order = std::memcmp(a.bytes_, b.bytes_, sizeof a.bytes_)) return order < 0;
    return a.scope_ != b.scope_ ? a.scope_ < b.scope_ : a.port_ < b.port_;
}

std::error_code parse(std::string_view text, endpoint& result) noexcept {
    const char* p = text.data();
    const char* const end = p + text.size();
    endpoint found;
    auto error = detail::scan_endpoint(p, end, found);
    if (error == detail::no_error && p != end) error = errc::bad_port;
    if (error == detail::no_error) result = found;
    return detail::to_error(error);
}

std::string to_string(const endpoint& value) {
    std::string out;
    detail::append_endpoint(out, value, true);
    return out;
}

std::string fingerprint(const public_key& key) {
    std::string out;
    for (int i = 0; i < 16; i += 2) {
        const std::string digits = std::to_string(key.bytes[i] * 256 + key.bytes[i + 1]);
        out.append(i != 0, ' ').append(5 - digits.size(), '0').append(digits);
    }
    return out;
}

std::error_code resolve(std::string_view host, std::uint16_t port, endpoint& result) {
    if (port == 0) return make_error_code(errc::bad_port);
    endpoint found(host, port);
    // "10.18.1" is no host name, though the system would read it as 10.18.0.1.
    const auto last_label = host.substr(host.rfind('.') + 1);
    const bool number = !last_label.empty() && detail::is_digit(last_label.front());
    std::vector<endpoint> addresses;
    if (!found && !host.empty() && !number && !detail::has(host, '\0'))
        if (auto error = detail::os::look_up(std::string(host).c_str(), addresses)) return error;
    for (const auto& address : addresses)
        if (const endpoint choice(address.bytes(), port, address.scope());
            choice && (!found || (choice.is_v4() && !found.is_v4())))
            found = choice;
    if (!found) return make_error_code(errc::bad_address);
    result = found;
    return {};
}

endpoint detect_address() {
    // Documentation addresses (RFC 5737, RFC 3849), which only a default route leads to.
    for (const char* target : {"192.0.2.1", "2001:db8::1"})
        if (const auto found = detail::os::route_source({target, 9}); detail::is_named(found))
            return found;
    // A LAN without a default route: the first interface but loopback, IPv4 preferred.
    endpoint best("127.0.0.1", 0);
    detail::os::visit_interfaces([&](const detail::os::interface_address& found) {
        const endpoint& address = found.local;  // loopback's may be link-local (macOS)
        if (!detail::is_named(address) || address.is_loopback() || found.loopback) return false;
        if (best.is_loopback() || address.is_v4()) best = address;
        return best.is_v4();
    });
    return best;
}

std::error_code parse(std::string_view bytes, message_view& result) noexcept {
    return detail::to_error(detail::scan_message(bytes, result));
}

std::error_code format(const endpoint& sender, std::string_view team, std::string_view text,
                       std::string& result) {
    if (sender.port() == 0) return make_error_code(errc::bad_port);
    if (!sender) return make_error_code(errc::bad_address);
    if (!detail::is_sendable_team(team)) return make_error_code(errc::bad_team);
    if (!detail::is_sendable(text)) return make_error_code(errc::bad_text);
    result.clear();
    detail::append_endpoint(result, sender, false);
    result.append(1, ' ').append(team).append(1, ' ').append(text);
    return {};
}

}  // namespace p2pchat

// Mixed as by splitmix64, since the addresses of a LAN differ in few bits.
std::size_t std::hash<p2pchat::endpoint>::operator()(
    const p2pchat::endpoint& value) const noexcept {
    std::uint64_t half[2];
    std::memcpy(half, value.bytes(), sizeof half);
    std::uint64_t mixed = half[0] ^ (std::uint64_t{value.port()} << 32 | value.scope());
    mixed = (mixed ^ mixed >> 29) * 0xbf58476d1ce4e5b9u + half[1];
    mixed = (mixed ^ mixed >> 32) * 0x94d049bb133111ebu;
    return static_cast<std::size_t>(mixed ^ mixed >> 31);
}

// ------------------------------------------------------------------------------------ >> socket
//
// Does:        tcp_socket: an owned handle, and the platform's calls repeated until a timeout
// May use:     the interface, platform, text
// Guarded by:  nothing: a socket belongs to its owner
// Never:       waits longer than its timeout

namespace p2pchat {

namespace detail {

using clock = std::chrono::steady_clock;

/// Clamps milliseconds::max(), for "for ever", to what can be added to a time_point.
inline constexpr std::chrono::milliseconds longest_timeout = std::chrono::hours(24 * 365);

/// Milliseconds until `end`, rounded up, as the platform's waits take them.
inline int remaining(clock::time_point end, clock::time_point now) noexcept {
    if (end <= now) return 0;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now).count();
    return static_cast<int>((std::min<long long>)(left, 1000 * 60 * 60));
}

/// Repeats a non-blocking call until it succeeds, fails or times out. A timeout of zero means a
/// single try.
class attempts {
public:
    attempts(os::handle socket, bool to_write, std::chrono::milliseconds timeout) noexcept
        : socket_(socket), to_write_(to_write), waits_(timeout.count() > 0) {
        if (waits_) end_ = os::now() + (std::min)(timeout, longest_timeout);
    }

    /// The result of the last call, and whether to make it again.
    bool again(std::error_code& error) const noexcept {
        if (error == std::errc::interrupted) return true;
        if (!waits_ || error != std::errc::operation_would_block) return false;
        if (auto failed = wait()) error = failed;
        return error == std::errc::operation_would_block;
    }

    /// Until the socket is readable or writable. Errors are found by the next call.
    std::error_code wait() const noexcept {
        for (;;) {
            const int left = remaining(end_, os::now());
            const auto error = os::wait_ready(socket_, to_write_, left, tcp_socket::invalid);
            const bool early = error == std::errc::timed_out && left > 0;
            if (error != std::errc::interrupted && !early) return error;
        }
    }

private:
    os::handle socket_;
    bool to_write_, waits_;
    clock::time_point end_{};
};

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
    close();
    auto error = detail::os::open_stream(local, handle_);
    if (!error) error = detail::os::listen(handle_, local, detail::is_named(local));
    if (error) close();
    return error;
}

std::error_code tcp_socket::accept(tcp_socket& peer, milliseconds timeout,
                                   endpoint* from) noexcept {
    detail::attempts tries(handle_, false, timeout);
    auto handle = invalid;
    endpoint origin;
    std::error_code error;
    do error = detail::os::accept(handle_, handle, origin);
    while (tries.again(error));
    if (error) return error;
    peer.close();
    peer.handle_ = handle;
    if (from) *from = origin;
    return {};
}

std::error_code tcp_socket::connect(const endpoint& to, milliseconds timeout) noexcept {
    close();
    if (!to) return make_error_code(to.port() == 0 ? errc::bad_port : errc::bad_address);
    auto error = detail::os::open_stream(to, handle_);
    if (!error) error = detail::os::connect(handle_, to);
    if (error == std::errc::operation_in_progress) {
        if (timeout.count() <= 0) return error;
        error = detail::attempts(handle_, true, timeout).wait();
    }
    if (!error) error = finish_connect();
    if (error) close();
    return error;
}

std::error_code tcp_socket::finish_connect() noexcept {
    if (const auto error = detail::os::pending_error(handle_)) return error;
    // Connecting to a port of this machine on which nobody listens connects the socket to itself
    // if the system happens to choose that port for us.
    return local() == remote() ? detail::os::error_of(std::errc::connection_refused)
                               : std::error_code();
}

std::error_code tcp_socket::send(std::string_view data, std::size_t& sent,
                                 milliseconds timeout) noexcept {
    detail::attempts tries(handle_, true, timeout);
    sent = 0;
    while (sent < data.size()) {
        std::size_t count = 0;
        auto error = detail::os::send(handle_, data.data() + sent, data.size() - sent, count);
        sent += count;
        if (error && !tries.again(error)) return error;
    }
    return {};
}

std::error_code tcp_socket::receive(char* buffer, std::size_t size, std::size_t& received,
                                    milliseconds timeout) noexcept {
    detail::attempts tries(handle_, false, timeout);
    std::error_code error;
    do error = detail::os::receive(handle_, buffer, size, received);
    while (tries.again(error));
    return error;
}

std::error_code tcp_socket::shutdown_send() noexcept { return detail::os::shutdown_send(handle_); }

void tcp_socket::no_delay() noexcept { detail::os::no_delay(handle_); }

void tcp_socket::keep_alive(std::chrono::seconds idle) noexcept {
    const auto seconds = (std::min<long long>)(idle.count(), 32767);  // the most that Linux takes
    if (seconds > 0) detail::os::keep_alive(handle_, static_cast<int>(seconds));
}

endpoint tcp_socket::local() const noexcept { return detail::os::local(handle_); }
endpoint tcp_socket::remote() const noexcept { return detail::os::remote(handle_); }

void tcp_socket::close() noexcept {
    if (is_open()) detail::os::close(std::exchange(handle_, invalid));
}

void tcp_socket::reset() noexcept {
    if (!is_open()) return;
    detail::os::reset_on_close(handle_, true);
    close();
}

namespace detail {

/// Passes what has arrived to `take`, piece by piece, as long as that returns true. An empty piece
/// is the end: an error, or the other side's half-close. Bounded, so that one busy connection does
/// not keep others waiting: false if the bound was reached and more may have arrived.
template <std::size_t size, typename Take>
bool read_available(tcp_socket& socket, char (&buffer)[size], const Take& take) {
    for (int rounds = 0; rounds < 16; ++rounds) {
        std::size_t received = 0;
        const auto error = socket.receive(buffer, size, received, {});
        if (error == std::errc::operation_would_block) return true;
        if (!take(std::string_view(buffer, received), error)) return true;
    }
    return false;
}

}  // namespace detail

}  // namespace p2pchat

// ------------------------------------------------------------------------------------- >> peers
//
// Does:        the peers that we have heard from: a table by address and by age, and peer_set
//              around it; peers' capabilities
// May use:     the interface, platform, socket (its clock)
// Guarded by:  peer_table, abilities: their owner; peer_set: a mutex of its own, under which
//              nothing is called
// Never:       remembers more than its maximum

namespace p2pchat {
namespace detail {

/// A peer without its key, which the keyring adds; without encryption there is none.
struct known_peer {
    endpoint address;
    std::string team;
    std::chrono::system_clock::time_point last_heard;
    bool linked = false;
};

class peer_table {
public:
    explicit peer_table(std::size_t max) : max_(max) {}

    /// True if it is new; the latest team counts, and `before` gets another one that was there. No
    /// effect if it throws. Afterwards there may be a surplus().
    bool heard(const endpoint& address, std::string_view team,
               std::chrono::system_clock::time_point now, std::string& before) {
        auto place = linked_.begin();
        if (linked_.empty() || place->address != address) {  // otherwise it goes on talking
            const auto found = places_.find(address);
            if (found == places_.end()) return add({address, std::string(team), now, false});
            place = found->second;
        }
        if (place->team != team) {
            std::string fresh(team);
            place->team.swap(fresh);
            before.swap(fresh);
        }
        place->last_heard = now;
        auto& siblings = group_of(*place);
        siblings.splice(siblings.begin(), siblings, place);
        return false;
    }

    /// Linked peers are not evicted.
    void set_linked(const endpoint& address, bool linked) noexcept {
        const auto found = places_.find(address);
        if (found == places_.end() || found->second->linked == linked) return;
        auto& from = group_of(*found->second);
        found->second->linked = linked;
        auto& to = group_of(*found->second);
        to.splice(to.begin(), from, found->second);
    }

    /// The peer to remove if there are more than the maximum; otherwise null.
    const known_peer* surplus() const noexcept {
        return by_age_.size() > max_ ? &by_age_.back() : nullptr;
    }

    /// False if it is not known. Fills in `removed`.
    bool remove(const endpoint& address, peer& removed) noexcept {
        const auto found = places_.find(address);
        if (found == places_.end()) return false;
        known_peer& known = *found->second;
        removed = {known.address, std::move(known.team), known.last_heard, known.linked, {}};
        group_of(known).erase(found->second);
        places_.erase(found);
        return true;
    }

    void clear() noexcept {
        places_.clear();
        by_age_.clear();
        linked_.clear();
    }

    bool contains(const endpoint& address) const { return places_.count(address) != 0; }
    std::size_t size() const noexcept { return places_.size(); }

    /// Ordered by address.
    std::vector<peer> snapshot() const {
        std::vector<peer> all;
        all.reserve(size());
        for (const group* some : {&by_age_, &linked_})
            for (const known_peer& known : *some)
                all.push_back({known.address, known.team, known.last_heard, known.linked, {}});
        std::sort(all.begin(), all.end(),
                  [](const peer& a, const peer& b) { return a.address < b.address; });
        return all;
    }

private:
    using group = std::list<known_peer>;

    bool add(const known_peer& fresh) {
        group entry(1, fresh);
        places_.emplace(fresh.address, entry.begin());
        by_age_.splice(by_age_.begin(), entry);
        return true;
    }
    group& group_of(const known_peer& known) noexcept { return known.linked ? linked_ : by_age_; }

    std::size_t max_;
    group by_age_;  // heard from most recently first
    group linked_;  // likewise
    std::unordered_map<endpoint, group::iterator> places_;
};

/// What peers can do, as they have shown or announced. It only decides what to try first: when
/// there are too many, all is forgotten.
class abilities {
public:
    explicit abilities(std::size_t max) : max_(max) {}

    void has_linked(const endpoint& who) {
        ability& its = of(who);
        its.links = true;
        its.written = {};
    }
    /// It has left, or no longer supports links.
    void forget_link(const endpoint& who) noexcept { forget(who, &ability::links); }
    /// Whether to open a link before the next message: a peer that had one before gets another with
    /// the second message in a second. One-shots would run out of ports at 14,000 a minute.
    bool wants_link(const endpoint& to, clock::time_point now) noexcept {
        const auto found = all_.find(to);
        if (found == all_.end() || !found->second.links) return false;
        const auto last = std::exchange(found->second.written, now);
        return last != clock::time_point() && now - last < std::chrono::seconds(1);
    }

    bool has_links(const endpoint& who) const { return has(who, &ability::links); }

    void announced_tls(const endpoint& who, bool can) {
        can ? void(of(who).tls = true) : forget(who, &ability::tls);
    }
    bool has_tls(const endpoint& who) const { return has(who, &ability::tls); }

    /// The outcome of a one-shot: a silent peer takes it without closing the connection.
    void has_ended(const endpoint& who, std::error_code outcome) noexcept {
        try {
            if (!outcome) forget(who, &ability::silent);
            if (outcome == errc::unconfirmed) of(who).silent = true;
        } catch (const std::bad_alloc&) {
            // Then it is waited for as before.
        }
    }
    bool is_silent(const endpoint& who) const { return has(who, &ability::silent); }

private:
    struct ability {
        bool links = false, tls = false, silent = false;
        clock::time_point written{};  // when it was last written to without a link
    };

    bool has(const endpoint& who, bool ability::*field) const {
        const auto found = all_.find(who);
        return found != all_.end() && found->second.*field;
    }
    ability& of(const endpoint& who) {
        if (all_.size() >= max_ && all_.count(who) == 0) all_.clear();
        return all_[who];
    }
    void forget(const endpoint& who, bool ability::*field) noexcept {
        const auto found = all_.find(who);
        if (found == all_.end()) return;
        found->second.*field = false;
        const ability& left = found->second;
        if (!left.links && !left.tls && !left.silent) all_.erase(found);
    }

    const std::size_t max_;
    std::unordered_map<endpoint, ability> all_;
};

}  // namespace detail

struct peer_set::state : detail::peer_table {
    using peer_table::peer_table;
    std::mutex mutex;  // guards the table
};

peer_set::peer_set(std::size_t max_peers) : state_(std::make_unique<state>(max_peers)) {}
peer_set::~peer_set() = default;

bool peer_set::heard(const endpoint& address, std::string_view team) {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    std::string before;
    const bool fresh = state_->heard(address, team, detail::os::wall_time(), before);
    peer removed;
    if (const auto* const oldest = state_->surplus()) state_->remove(oldest->address, removed);
    return fresh && state_->contains(address);
}

bool peer_set::remove(const endpoint& address, peer& removed) {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->remove(address, removed);
}

void peer_set::clear() noexcept {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->clear();
}

bool peer_set::contains(const endpoint& address) const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->contains(address);
}

std::size_t peer_set::size() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->size();
}

std::vector<peer> peer_set::snapshot() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->snapshot();
}

}  // namespace p2pchat

// ---------------------------------------------------------------------------------- >> mailbox
//
// Does:        queues events for the handlers, in order and within a bound; wakes callers that wait
//              for an outcome; reports messages, peers and refusals.
// May use:     platform, text, socket (its clock), peers.
// Guarded by:  the node's mutex; events taken out belong to the thread that took them.
// Never:       calls a user's function, or destroys its captures.

namespace p2pchat {
namespace detail {

/// How long a thread spins, yielding to others, before it sleeps: to wake a sleeping thread on
/// another processor takes longer. One for all threads of a node; thread-safe.
class spin_policy {
public:
    static constexpr std::chrono::microseconds span{50};  // 14 us for a round trip; 80 without

    /// When to stop spinning; `now` for not at all.
    clock::time_point until(clock::time_point now) const noexcept {
        return now < suspended_until_.load(std::memory_order_relaxed) ? now : now + span;
    }

    /// A thread has yielded. If another program keeps the same processor busy, that takes its whole
    /// time slice, whereas a sleeping thread runs as soon as it is woken. So no thread spins for a
    /// while: that costs one time slice in 20 ms, not every one.
    void yielded(clock::time_point before, clock::time_point after) noexcept {
        if (after - before > std::chrono::milliseconds(1))
            suspended_until_.store(after + std::chrono::milliseconds(20),
                                   std::memory_order_relaxed);
    }

private:
    std::atomic<clock::time_point> suspended_until_{};
};

/// A thread that waits for `count` outcomes. Lives on that thread's stack.
class waiter {
public:
    waiter(std::mutex& nodes, spin_policy& spin, std::size_t count = 1)
        : mutex_(nodes), spin_(spin), left_(count) {}

    /// Under the node's mutex. A thread that spins goes on without it, and this object is gone once
    /// it does; one that sleeps needs the mutex first.
    void tell() noexcept {
        const bool sleeps = sleeps_;
        if (--left_ == 0 && sleeps) told_.notify_all();
    }
    /// Without the mutex. False if not all outcomes came in time.
    bool wait(std::chrono::milliseconds timeout) {
        const auto began = os::now();
        const auto spin_until = spin_.until(began);
        for (auto now = began; left_.load(std::memory_order_acquire) != 0 && now < spin_until;) {
            const auto before = now;
            std::this_thread::yield();
            now = os::now();
            spin_.yielded(before, now);
            // Others ran, and no outcome came. Sleeping breaks the pattern in which that happens
            // every time (a round trip on one processor: 20 us, else 25).
            if (now - before > std::chrono::microseconds(5)) break;
        }
        if (left_.load(std::memory_order_acquire) == 0) return true;
        std::unique_lock<std::mutex> held(mutex_);
        sleeps_ = true;
        const bool all = told_.wait_until(held, began + timeout, [this] { return left_ == 0; });
        sleeps_ = false;
        return all;
    }
    void wait() {
        while (!wait(longest_timeout)) {
        }
    }

private:
    std::mutex& mutex_;
    spin_policy& spin_;
    std::condition_variable told_;
    bool sleeps_ = false;            // guarded by the mutex
    std::atomic<std::size_t> left_;  // changed under the mutex
};

/// An outcome that a caller waits for.
struct awaited {
    waiter& caller;
    std::error_code& outcome;

    void tell(std::error_code error) noexcept { outcome = error, caller.tell(); }
};

/// A message of ours, from post() to its outcome. It is spliced from list to list, so that running
/// out of memory cannot lose an outcome.
struct posting {
    std::string text;           // until it is written
    node::completion done;      // called like a handler
    awaited* caller = nullptr;  // or this thread is woken
    std::error_code outcome;
    clock::time_point deadline{};    // for its outcome
    clock::time_point keep_until{};  // for an absent peer; set from the start if it may be kept
    std::uint32_t size = 0;          // in bytes, as it is sent
    bool opens_link = false;         // it is our CONNECT
    bool reported = false;           // as timed out; it may still be confirmed
    bool kept = false;               // and reported so

    bool is_kept() const noexcept { return keep_until != clock::time_point(); }
};

using postings = std::list<posting>;

enum class event_kind : unsigned char {
    message,
    joined,
    left,
    connected,
    rejected,
    found,
    gone,
    kept,
    key_changed
};

/// An event for a handler. It is reused, so that its strings seldom allocate.
struct event {
    event_kind kind{};
    departure how{};
    std::error_code why;
    message content;    // the sender is the peer concerned; the text of `found` is `knows`
    postings outcomes;  // that come next

    std::size_t cost() const noexcept {
        return sizeof(event) + content.team.size() + content.text.size();
    }
    /// Frees a large string: thousands of events are kept for reuse.
    void trim() noexcept {
        if (content.text.capacity() > 256) std::string().swap(content.text);
    }
};

/// Events and outcomes, in order.
struct bunch {
    postings outcomes;  // that come first
    std::list<event> events;

    bool empty() const noexcept { return outcomes.empty() && events.empty(); }
    void add(postings& from, postings::iterator item) noexcept {
        auto& last = events.empty() ? outcomes : events.back().outcomes;
        last.splice(last.end(), from, item);
    }
    /// Calls one of the two for the first item, and moves that to `used`. Returns its cost.
    template <typename Call, typename Tell>
    std::size_t pass_on(const Call& call, const Tell& tell, bunch& used) {
        if (!outcomes.empty()) {
            posting& first = outcomes.front();
            tell(first);
            first = posting();
            used.outcomes.splice(used.outcomes.end(), outcomes, outcomes.begin());
            return sizeof(posting);
        }
        event& first = events.front();
        const std::size_t cost = first.cost();
        call(first);
        first.trim();
        outcomes.swap(first.outcomes);
        used.events.splice(used.events.end(), events, events.begin());
        return cost;
    }
};

/// The queue of events for the handlers.
class mailbox {
public:
    explicit mailbox(std::size_t max_bytes) : max_(max_bytes) {}

    /// Adds an event; the caller fills in the other fields of its kind. Strong exception guarantee.
    event& add(event_kind kind, const endpoint& about, std::string_view team = {},
               std::string_view text = {}) {
        auto& spare = spare_.events;
        if (spare.empty()) spare.emplace_back();
        event& fresh = spare.back();  // the last one used is in the cache
        fresh.content.team.assign(team);
        fresh.content.text.assign(text);
        fresh.kind = kind;
        fresh.content.sender = about;
        queue_.events.splice(queue_.events.end(), spare, std::prev(spare.end()));
        waiting_ += fresh.cost();
        return fresh;
    }
    void add_outcome(postings& from, postings::iterator item) noexcept {
        queue_.add(from, item);
        waiting_ += sizeof(posting);
    }
    bool empty() const noexcept { return queue_.empty(); }
    /// Takes all events. They count as waiting until they are given back.
    void take(bunch& work) noexcept { std::swap(work, queue_); }
    void give_back(bunch& used, std::size_t bytes) noexcept {
        waiting_ -= bytes;
        reuse(spare_.events, used.events);
        reuse(spare_.outcomes, used.outcomes);
    }

    /// For messages that have been handled, and take up room until they are confirmed.
    void hold(std::size_t bytes) noexcept { held_ += bytes; }
    void release(std::size_t bytes) noexcept { held_ -= bytes; }
    bool full() const noexcept { return waiting_ + held_ >= max_; }
    bool is_backlogged() const noexcept { return waiting_ >= max_; }

    /// Reuses a posting whose outcome has been reported.
    void recycle(postings& from, postings::iterator item) noexcept {
        postings single;
        single.splice(single.end(), from, item);
        single.front() = posting();
        reuse(spare_.outcomes, single);
    }
    /// Puts a new posting into an empty list.
    void new_posting(postings& to) {
        auto& spare = spare_.outcomes;
        if (spare.empty()) return to.emplace_back(), void();
        to.splice(to.end(), spare, std::prev(spare.end()));
    }

private:
    template <typename Item>
    static void reuse(std::list<Item>& to, std::list<Item>& from) noexcept {
        if (to.size() + from.size() <= max_spare) to.splice(to.end(), from);
    }

    static constexpr std::size_t max_spare = 8192;  // of each kind: 4 MB at most

    const std::size_t max_;
    bunch queue_;
    bunch spare_;
    std::size_t waiting_ = 0;  // bytes added and not given back
    std::size_t held_ = 0;     // bytes of messages that are not confirmed yet
};

/// A message that the program has been given, and has not confirmed yet.
struct held_message {
    std::uint64_t receipt;
    class holder* by;
    std::size_t bytes;
    std::uint64_t number = 0;      // on a link: among those taken
    clock::time_point deadline{};  // on a link
};

/// A connection with messages that wait until the mailbox has room, or that the program has yet to
/// confirm.
class holder {
public:
    virtual void on_room() = 0;
    virtual void on_held(held_message&) {}
    /// A message that was taken is no longer held; for one that was not, the connection ends.
    virtual void on_confirmed(bool taken) noexcept = 0;

protected:
    ~holder() = default;
    const std::list<held_message>& held() const noexcept { return held_; }  ///< oldest first

private:
    friend class held_messages;
    friend class room_queue;
    std::list<held_message> held_;
    bool waits_ = false;
};

/// The messages held by connections, by their receipts.
class held_messages {
public:
    explicit held_messages(mailbox& room) : room_(room) {}

    /// Returns the receipt. If this runs out of memory, the holder must end.
    std::uint64_t hold(holder& by, std::size_t bytes) {
        const auto entry =
            by.held_.insert(by.held_.end(), held_message{++last_receipt, &by, bytes});
        room_.hold(bytes);
        index_.emplace(entry->receipt, entry);
        by.on_held(*entry);
        return entry->receipt;
    }
    /// If it is still held.
    void confirm(std::uint64_t receipt, bool taken) noexcept {
        const auto found = index_.find(receipt);
        if (found == index_.end()) return;
        const auto entry = found->second;
        holder& by = *entry->by;
        if (taken) {
            index_.erase(found);
            room_.release(entry->bytes);
            by.held_.erase(entry);
        }
        by.on_confirmed(taken);
    }
    void forget(holder& by) noexcept {
        for (const held_message& entry : by.held_) {
            index_.erase(entry.receipt);
            room_.release(entry.bytes);
        }
        by.held_.clear();
    }

private:
    // None is given twice in a process: after a stop the program may still confirm what it had.
    static inline std::atomic<std::uint64_t> last_receipt{0};

    mailbox& room_;
    std::unordered_map<std::uint64_t, std::list<held_message>::iterator> index_;
};

/// Keeps messages for absent peers: without a key, a team at an address.
class keeper {
public:
    /// Another team is at an address than before; if the same peer, it was called `formerly`.
    virtual void on_arrival(const endpoint& peer, std::string_view team,
                            std::string_view formerly) = 0;
    virtual void on_present(const endpoint& peer, std::string_view team) noexcept = 0;
    virtual bool has(const endpoint& peer) const noexcept = 0;
    /// Takes messages to be kept out of the list.
    virtual void keep(const endpoint& peer, postings& messages) noexcept = 0;

protected:
    ~keeper() = default;
};

/// Reports events: each function counts one, and puts it into the mailbox.
class reporter {
public:
    reporter(mailbox& to, peer_table& peers, counters& counts, keeper& absent, bool confirm_later)
        : mailbox_(to),
          peers_(peers),
          counts_(counts),
          keeper_(absent),
          held_(to),
          confirm_later_(confirm_later) {}

    bool full() const noexcept { return mailbox_.full(); }
    void set_time(std::chrono::system_clock::time_point now) noexcept { now_ = now; }

    /// A message was taken, and is no command. Once this returns it will reach the handlers, and
    /// may be confirmed unless `by` was told to hold it.
    void message(const message_view& view, const endpoint& origin, bool verified,
                 const public_key& key, bool by_link, holder& by) {
        const std::size_t bytes = sizeof(event) + view.team.size() + view.text.size();
        const auto receipt = confirm_later_ ? held_.hold(by, bytes) : 0;
        auto& news = mailbox_.add(event_kind::message, view.sender, view.team, view.text).content;
        news.receipt = receipt;
        news.origin = origin;
        news.verified = verified;
        news.by_link = by_link;
        news.key = key;
        ++counts_.received;
    }
    /// A peer has said CONNECT.
    void connected(const endpoint& peer, std::string_view team, const public_key& key,
                   bool by_link) {
        auto& news = mailbox_.add(event_kind::connected, peer, team).content;
        news.by_link = by_link;
        news.key = key;
        ++counts_.received;
    }
    /// The program confirms a message, or does not take it, if it is still held.
    void confirm(std::uint64_t receipt, bool taken) noexcept { held_.confirm(receipt, taken); }
    /// The connection ends: messages that it holds can no longer be confirmed.
    void forget(holder& by) noexcept { held_.forget(by); }
    /// A verified peer was heard from. Without a key, another team there is another peer.
    void heard(const endpoint& address, std::string_view team, const public_key& key) {
        std::string before;
        const bool fresh = peers_.heard(address, team, now_, before);
        if (fresh || !before.empty()) {
            try {
                keeper_.on_arrival(address, team, key ? before : std::string());
                if (!fresh && !key)
                    mailbox_.add(event_kind::left, address, before).how = departure::replaced;
                if (fresh || !key) mailbox_.add(event_kind::joined, address, team);
            } catch (const std::bad_alloc&) {
                peer unheard;
                peers_.remove(address, unheard);
                throw;
            }
            forget_surplus();
        }
        present(address, team);
    }
    /// A team has announced itself at an address, as anybody can in a datagram: a peer that was
    /// heard from is known better.
    void arrived(const endpoint& address, std::string_view team) {
        if (!peers_.contains(address)) keeper_.on_arrival(address, team, {});
    }
    void set_linked(const endpoint& address, bool linked) noexcept {
        peers_.set_linked(address, linked);
        forget_surplus();
    }
    /// If the peer was known. It is removed even if there is no memory for the event.
    void left(const endpoint& address, departure how) noexcept {
        peer known;
        if (!peers_.remove(address, known)) return;
        try {
            mailbox_.add(event_kind::left, known.address, known.team).how = how;
        } catch (const std::bad_alloc&) {
        }
    }
    /// The peer has given a sign of life; without a team, whoever is there as far as is known.
    void present(const endpoint& address, std::string_view team = {}) noexcept {
        keeper_.on_present(address, team);
    }
    bool keeps(const endpoint& peer) const noexcept { return keeper_.has(peer); }
    /// None of these was taken, for certain. Messages left in the list are not kept.
    void keep(const endpoint& peer, postings& messages) noexcept { keeper_.keep(peer, messages); }
    /// A candidate has appeared, or is gone.
    void changed(const candidate& who, bool gone) {
        const auto kind = gone ? event_kind::gone : event_kind::found;
        mailbox_.add(kind, who.address, who.team, who.knows);
    }
    /// Another key was shown there. In a flood, while the mailbox is full, this is not reported.
    void key_changed(const endpoint& there, std::string_view team, const public_key& key) noexcept {
        try {
            if (!full()) mailbox_.add(event_kind::key_changed, there, team).content.key = key;
        } catch (const std::bad_alloc&) {
        }
    }
    /// A message waits for its peer.
    void kept(const endpoint& peer, std::string_view team, std::string_view text) {
        mailbox_.add(event_kind::kept, peer, team, text);
    }
    /// While the mailbox is full they are only counted, so that a flood cannot fill the memory.
    void rejected(const endpoint& from, std::error_code why) noexcept {
        ++counts_.rejected;
        try {
            if (!full()) mailbox_.add(event_kind::rejected, from).why = why;
        } catch (const std::bad_alloc&) {
        }
    }
    /// The outcome of a posting, which is taken out of its list. Counted first, so that a caller
    /// finds it in statistics().
    void outcome(postings& from, postings::iterator item, std::error_code error) noexcept {
        if (!item->reported) ++(error ? counts_.undelivered : counts_.delivered);
        item->outcome = error;
        if (item->done) return mailbox_.add_outcome(from, item);
        if (item->caller) item->caller->tell(error);
        mailbox_.recycle(from, item);
    }
    void outcomes(postings& all, std::error_code error) noexcept {
        while (!all.empty()) outcome(all, all.begin(), error);
    }
    /// Reports a posting that stays in its list, as it may still be confirmed. Strong exception
    /// guarantee.
    void timed_out(posting& late) {
        if (late.reported) return;
        postings told;
        mailbox_.new_posting(told);
        told.front().done.swap(late.done);
        told.front().caller = std::exchange(late.caller, nullptr);
        late.reported = true;
        outcome(told, told.begin(), os::error_of(std::errc::timed_out));
    }

    /// A CONNECT that the caller did not post.
    void new_connect(postings& to) {
        mailbox_.new_posting(to);
        posting& connect = to.front();
        connect.text.assign(connect_word);
        connect.opens_link = connect.reported = true;
    }
    counters& counts() noexcept { return counts_; }
    std::chrono::system_clock::time_point wall_time() const noexcept { return now_; }

private:
    void forget_surplus() noexcept {
        if (const auto* const oldest = peers_.surplus())
            left(oldest->address, departure::forgotten);
    }

    mailbox& mailbox_;
    peer_table& peers_;
    counters& counts_;
    keeper& keeper_;
    held_messages held_;
    const bool confirm_later_;
    std::chrono::system_clock::time_point now_;  // of this turn
};

/// The connections that wait for room in the mailbox, first come, first served.
class room_queue {
public:
    bool empty() const noexcept { return waiting_.empty(); }
    void join(holder& who) {
        if (!who.waits_) waiting_.push_back(&who);
        who.waits_ = true;
    }
    void leave(holder& who) noexcept {
        if (std::exchange(who.waits_, false)) waiting_.remove(&who);
    }
    holder& next() noexcept {
        holder& first = *waiting_.front();
        waiting_.pop_front();
        first.waits_ = false;
        return first;
    }

private:
    std::list<holder*> waiting_;
};

}  // namespace detail
}  // namespace p2pchat

// ------------------------------------------------------------------------------------- >> loop
//
// Does:        owns the objects that have a socket; calls each when its socket is ready, when its
//              deadline has passed and when it is to write; destroys it once nothing can refer to
//              it.
// May use:     platform, socket.
// Guarded by:  the node's mutex; only wait() runs without it, and wake() may.
// Never:       knows what a message is, or reads the clock.

namespace p2pchat {
namespace detail {

inline constexpr clock::time_point never = clock::time_point::max();

inline clock::time_point after(clock::time_point now, std::chrono::milliseconds timeout) noexcept {
    return now + std::clamp(timeout, std::chrono::milliseconds(), longest_timeout);
}

/// The owner of a socket, which the loop calls. Each call may end in end().
class io_object : public os::watched {
public:
    io_object() = default;
    io_object(const io_object&) = delete;
    io_object& operator=(const io_object&) = delete;
    virtual ~io_object() = default;

    virtual void on_readable() {}
    /// There is room to write, or write_later() has asked for this.
    virtual void on_writable() {}
    /// The deadline has passed, and all that had arrived by `now` has been read.
    virtual void on_deadline(clock::time_point) {}
    /// It cannot be watched, or it ran out of memory.
    virtual void on_failure(std::error_code) noexcept {}

private:
    friend class loop;
    using objects = std::list<std::unique_ptr<io_object>>;
    using timers = std::set<std::pair<clock::time_point, io_object*>>;

    clock::time_point deadline_ = never;
    clock::time_point timer_ = never;  // its place among the timers
    timers::node_type spare_timer_;    // while it has none there: only the first needs memory
    objects::iterator place_{};
    bool ended_ = false;
    bool writes_later_ = false;
};

class loop {
public:
    std::error_code open() { return poller_.open(); }
    void wake() noexcept { poller_.wake(); }

    /// The time of this turn, or of the caller's post.
    clock::time_point now() const noexcept { return now_; }
    void set_time(clock::time_point now) noexcept { now_ = now; }

    /// Takes ownership.
    template <typename Object>
    Object& add(std::unique_ptr<Object> object) {
        Object& result = *object;
        objects_.push_back(std::move(object));
        result.place_ = std::prev(objects_.end());
        return result;
    }

    /// It is not called again, and destroyed after this turn. The socket is closed now, or reset.
    template <typename Socket>
    void end(io_object& object, Socket& socket, bool in_order) noexcept {
        if (std::exchange(object.ended_, true)) return;
        if (socket.is_open()) ignore(object, socket);
        // A child process may hold the socket, too, so that closing alone would end nothing. And
        // there may be no room for TLS to mark the end as orderly.
        if (in_order && socket.is_open())
            in_order = socket.shutdown_send() != std::errc::operation_would_block;
        in_order ? socket.close() : socket.reset();
        timers_.erase({object.timer_, &object});
        if (object.writes_later_)
            writers_.erase(std::find(writers_.begin(), writers_.end(), &object));
        ended_.splice(ended_.end(), objects_, object.place_);
    }

    /// Watches for the given events from now on. On an error, on_failure() has been called.
    template <typename Socket>
    std::error_code watch(io_object& object, const Socket& socket, bool read, bool write) {
        const auto error = poller_.watch(socket.native_handle(), object, read, write);
        if (error) object.on_failure(error);
        return error;
    }
    template <typename Socket>
    void ignore(io_object& object, const Socket& socket) noexcept {
        static_cast<void>(poller_.watch(socket.native_handle(), object, false, false));
    }

    /// Calls on_deadline() then; `never`: not at all. Timers are lazy: one for an earlier time
    /// stays, so that postponing a deadline costs nothing. Strong exception guarantee.
    void arm(io_object& object, clock::time_point deadline) {
        if (object.timer_ > deadline) move_timer(object, deadline);
        object.deadline_ = deadline;
    }
    clock::time_point deadline_of(const io_object& object) const noexcept {
        return object.deadline_;
    }
    clock::time_point next_timer() const noexcept {
        return timers_.empty() ? never : timers_.begin()->first;
    }

    /// Runs `work` for an object, which fails alone if that runs out of memory.
    template <typename Work>
    void guard(io_object& object, const Work& work) noexcept {
        if (object.ended_) return;
        try {
            work();
        } catch (const std::bad_alloc&) {
            if (!object.ended_) object.on_failure(os::error_of(std::errc::not_enough_memory));
        }
    }

    /// Calls on_writable() before the next wait, so that lines queued until then are written
    /// together. Strong exception guarantee.
    void write_later(io_object& object) {
        if (object.writes_later_ || object.ended_) return;
        writers_.push_back(&object);
        object.writes_later_ = true;
    }
    bool has_writers() const noexcept { return !writers_.empty(); }
    void run_writers() noexcept {
        while (!writers_.empty()) {
            io_object& object = *writers_.back();
            writers_.pop_back();
            object.writes_later_ = false;
            guard(object, [&] { object.on_writable(); });
        }
    }

    // A turn is run_writers(), prepare(), wait() without the lock, collect(), each event,
    // run_timers().

    /// Destroys objects that have ended, and notes what to wait for.
    void prepare() {
        ended_.clear();
        poller_.prepare();
    }
    int wait(int timeout) { return poller_.wait(timeout); }
    /// `began` is when the wait began. If more than one batch was ready, or it was interrupted, not
    /// all that had arrived by then is known yet. It is known after as many batches as that may
    /// fill, since each socket gets its turn, or once a batch is not full: no more may come.
    int collect(int count, clock::time_point began) {
        const int ready = poller_.collect(ready_);
        if (count < 0) return ready;
        if (batches_left_ == 0) {
            batches_began_ = began;
            batches_left_ = 1 + objects_.size() / os::poller::batch;
        }
        const bool all = count < os::poller::batch;
        batches_left_ = all ? 0 : batches_left_ - 1;
        if (batches_left_ == 0) read_until_ = all ? began : batches_began_;
        return ready;
    }
    void run_event(int number) noexcept {
        const auto [source, read, write] = ready_[number];
        auto& object = static_cast<io_object&>(*source);
        // It may have ended meanwhile, and is then no longer watched.
        if (write && object.write) guard(object, [&] { object.on_writable(); });
        if (read && object.read) guard(object, [&] { object.on_readable(); });
    }
    void run_timers() noexcept {
        while (next_timer() <= read_until_) {
            io_object& object = *timers_.begin()->second;
            object.spare_timer_ = timers_.extract(timers_.begin());
            object.timer_ = never;
            guard(object, [&] {
                if (object.deadline_ <= read_until_)
                    object.on_deadline(read_until_);
                else if (object.deadline_ != never)
                    arm(object, object.deadline_);
            });
        }
    }

    /// A buffer for all reads, of which there is one at a time.
    char (&buffer() noexcept)[64 * 1024] { return buffer_; }

private:
    void move_timer(io_object& object, clock::time_point to) {
        auto timer = object.timer_ == never ? std::move(object.spare_timer_)
                                            : timers_.extract({object.timer_, &object});
        if (timer) {
            timer.value() = {to, &object};
            timers_.insert(std::move(timer));
        } else {
            timers_.insert({to, &object});
        }
        object.timer_ = to;
    }

    os::poller poller_;
    clock::time_point now_{};
    clock::time_point read_until_{};  // all that had arrived by then has been read
    clock::time_point batches_began_{};
    std::size_t batches_left_ = 0;  // until all that had arrived before them has been read
    io_object::objects objects_;
    io_object::objects ended_;  // until the turn ends, as events may still point to them
    io_object::timers timers_;
    std::vector<io_object*> writers_;
    os::readiness ready_[os::poller::batch];
    char buffer_[64 * 1024];
};

}  // namespace detail
}  // namespace p2pchat

// -------------------------------------------------------------------------------- >> encryption
//
// Does:        encrypts and decrypts by TLS 1.3; no other part knows which library does.
// May use:     platform.
// Guarded by:  the node's mutex.
// Never:       sends or receives, passes on a byte that TLS has not authenticated, or judges whose
//              key it is.

#if defined(P2PCHAT_OPENSSL)
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error "p2pchat.hpp needs OpenSSL 3.0 or later."
#endif
#endif

namespace p2pchat {
namespace detail {

/// One side of an encrypted connection: turns bytes into text, and text into bytes.
class session {
public:
    virtual ~session() = default;
    /// Decrypts bytes and appends the result to `text`; an answer to them may be left in
    /// `ciphertext`.
    virtual std::error_code decrypt(std::string_view bytes, std::string& text) = 0;
    /// Only once it is `ready`.
    virtual std::error_code encrypt(std::string_view text) = 0;
    virtual void end() noexcept = 0;  ///< no more text follows

    std::string ciphertext;  ///< to be sent
    public_key key;          ///< the other side's
    bool ready = false;      ///< the other side has proved its key
    bool ended = false;      ///< the other side has said that no more follows
};

#if defined(P2PCHAT_OPENSSL)

struct openssl_free {
    void operator()(BIO* object) const noexcept { BIO_free(object); }
    void operator()(BIO_METHOD* object) const noexcept { BIO_meth_free(object); }
    void operator()(EVP_PKEY* object) const noexcept { EVP_PKEY_free(object); }
    void operator()(SSL* object) const noexcept { SSL_free(object); }
    void operator()(SSL_CTX* object) const noexcept { SSL_CTX_free(object); }
    void operator()(X509* object) const noexcept { X509_free(object); }
};
template <typename What>
using openssl_ptr = std::unique_ptr<What, openssl_free>;

/// Taken from the certificate, as encoding it anew takes as long as a signature.
inline public_key key_of(const X509* shown) {
    public_key result;
    unsigned char* der = nullptr;
    const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(shown), &der);
    if (size <= 0) throw std::bad_alloc();
    EVP_Digest(der, static_cast<std::size_t>(size), result.bytes, nullptr, EVP_sha256(), nullptr);
    OPENSSL_free(der);
    return result;
}

inline bool is_p256(const EVP_PKEY* pair) noexcept {
    char group[32];
    return pair && EVP_PKEY_get_group_name(pair, group, sizeof group, nullptr) == 1 &&
           std::string_view(group) == SN_X9_62_prime256v1;
}

class tls_session final : public session {
public:
    tls_session(SSL_CTX* context, const BIO_METHOD* method, bool accepts) : ssl_(SSL_new(context)) {
        BIO* const bytes = ssl_ ? BIO_new(method) : nullptr;
        if (!bytes) throw std::bad_alloc();
        BIO_set_data(bytes, this);
        BIO_set_init(bytes, 1);
        SSL_set_bio(ssl_.get(), bytes, bytes);  // takes ownership
        accepts ? SSL_set_accept_state(ssl_.get()) : SSL_set_connect_state(ssl_.get());
    }

    std::error_code decrypt(std::string_view bytes, std::string& text) override {
        char piece[16 * 1024];  // the most that a record has
        received_ = bytes;
        ERR_clear_error();
        int size = 0;
        while ((size = SSL_read(ssl_.get(), piece, sizeof piece)) > 0)
            text.append(piece, static_cast<std::size_t>(size));
        const int why = SSL_get_error(ssl_.get(), size);
        if (!ready && SSL_is_init_finished(ssl_.get())) {
            const openssl_ptr<X509> shown(SSL_get1_peer_certificate(ssl_.get()));
            key = key_of(shown.get());
            ready = true;
        }
        ended = why == SSL_ERROR_ZERO_RETURN;
        // The other side wants many answers, and does not read them.
        if (ciphertext.size() > max_ciphertext) return os::error_of(std::errc::no_buffer_space);
        return ended || why == SSL_ERROR_WANT_READ ? std::error_code() : failure();
    }
    std::error_code encrypt(std::string_view text) override {
        ERR_clear_error();
        const int size = static_cast<int>(text.size());
        return SSL_write(ssl_.get(), text.data(), size) == size ? std::error_code() : failure();
    }
    void end() noexcept override {
        if (ready && !std::exchange(end_sent_, true)) SSL_shutdown(ssl_.get());
    }

    /// The way OpenSSL gets its bytes.
    static BIO_METHOD* new_method() {
        BIO_METHOD* const method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "p2pchat");
        if (!method) throw std::bad_alloc();
        BIO_meth_set_write(method, [](BIO* bio, const char* bytes, int size) {
            try {
                self(bio).ciphertext.append(bytes, static_cast<std::size_t>(size));
                return size;
            } catch (const std::bad_alloc&) {
                return -1;
            }
        });
        BIO_meth_set_read(method, [](BIO* bio, char* bytes, int size) {
            auto& received = self(bio).received_;
            BIO_clear_retry_flags(bio);
            const auto count = received.copy(bytes, static_cast<std::size_t>(size));
            received.remove_prefix(count);
            if (count == 0) BIO_set_retry_read(bio);
            return count == 0 ? -1 : static_cast<int>(count);
        });
        BIO_meth_set_ctrl(method, [](BIO*, int command, long, void*) {
            return command == BIO_CTRL_FLUSH ? 1L : 0L;
        });
        return method;
    }

private:
    static constexpr std::size_t max_ciphertext = 64 * 1024;

    static tls_session& self(BIO* bio) noexcept {
        return *static_cast<tls_session*>(BIO_get_data(bio));
    }
    std::error_code failure() const noexcept {
        const int why = ERR_GET_REASON(ERR_peek_error());
        const bool unfit = SSL_get_verify_result(ssl_.get()) != X509_V_OK ||
                           why == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE ||
                           why == SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM;
        return make_error_code(unfit ? errc::bad_certificate : errc::encryption_failed);
    }

    openssl_ptr<SSL> ssl_;
    std::string_view received_;  // what is left to read, while decrypt() runs
    bool end_sent_ = false;
};

/// Our key, and the settings of TLS.
class tls {
public:
    /// `file` is config::identity.
    std::error_code open(const std::string& file) {
        if (const auto error = load(file)) return error;
        method_.reset(tls_session::new_method());
        context_.reset(SSL_CTX_new(TLS_method()));
        const auto shown = certificate();
        auto* const context = context_.get();
        if (!context || !shown || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
            SSL_CTX_set1_sigalgs_list(context, "ECDSA+SHA256") != 1 ||
            SSL_CTX_use_certificate(context, shown.get()) != 1 ||
            SSL_CTX_use_PrivateKey(context, pair_.get()) != 1)
            return os::error_of(std::errc::not_supported);
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(context, 0);  // no resumption: each session proves its key
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
        SSL_CTX_set_cert_verify_callback(context, is_fit, nullptr);
        return {};
    }
    std::unique_ptr<session> new_session(bool accepts) {
        return std::make_unique<tls_session>(context_.get(), method_.get(), accepts);
    }
    public_key own() const { return key_of(SSL_CTX_get0_certificate(context_.get())); }

private:
    std::error_code load(const std::string& file) {
        bool ours_alone = true;
        std::string pem;
        auto error = file.empty() ? std::error_code() : os::read_file(file, pem, ours_alone);
        if (file.empty() || error == std::errc::no_such_file_or_directory) {
            pair_.reset(EVP_EC_gen(SN_X9_62_prime256v1));
            if (!pair_) return os::error_of(std::errc::not_enough_memory);
            if (file.empty()) return {};
            pem = to_pem();
            error = os::create_private(file, pem);
            OPENSSL_cleanse(pem.data(), pem.size());
            if (error != std::errc::file_exists) return error;
            error = os::read_file(file, pem, ours_alone);  // another program has just made it
        }
        if (error) return error;
        const openssl_ptr<BIO> bytes(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
        const auto no_password = [](char*, int, int, void*) { return 0; };
        pair_.reset(PEM_read_bio_PrivateKey(bytes.get(), nullptr, no_password, nullptr));
        OPENSSL_cleanse(pem.data(), pem.size());
        return ours_alone && is_p256(pair_.get()) ? error : make_error_code(errc::bad_identity);
    }
    std::string to_pem() const {
        const openssl_ptr<BIO> bytes(BIO_new(BIO_s_mem()));
        char* text = nullptr;
        if (PEM_write_bio_PKCS8PrivateKey(bytes.get(), pair_.get(), nullptr, nullptr, 0, nullptr,
                                          nullptr) != 1)
            throw std::bad_alloc();
        const long size = BIO_get_mem_data(bytes.get(), &text);
        return {text, static_cast<std::size_t>(size)};
    }
    /// It states nothing but the key, and does not expire: trust is up to the pins.
    openssl_ptr<X509> certificate() const {
        openssl_ptr<X509> made(X509_new());
        if (!made) return made;
        auto* const name = X509_get_subject_name(made.get());
        const auto* const text = reinterpret_cast<const unsigned char*>("p2pchat");
        const bool good =
            X509_set_version(made.get(), X509_VERSION_3) == 1 &&
            ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 1) == 1 &&
            ASN1_TIME_set_string(X509_getm_notBefore(made.get()), "700101000000Z") == 1 &&
            ASN1_TIME_set_string(X509_getm_notAfter(made.get()), "99991231235959Z") == 1 &&
            X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, text, -1, -1, 0) == 1 &&
            X509_set_issuer_name(made.get(), name) == 1 &&
            X509_set_pubkey(made.get(), pair_.get()) == 1 &&
            X509_sign(made.get(), pair_.get(), EVP_sha256()) > 0;
        if (!good) made.reset();
        return made;
    }
    static int is_fit(X509_STORE_CTX* check, void*) noexcept {
        const X509* const shown = X509_STORE_CTX_get0_cert(check);
        const bool ours = is_p256(X509_get0_pubkey(shown));
        const bool valid = X509_cmp_current_time(X509_get0_notAfter(shown)) > 0;
        if (!ours) X509_STORE_CTX_set_error(check, X509_V_ERR_CERT_UNTRUSTED);
        if (!valid) X509_STORE_CTX_set_error(check, X509_V_ERR_CERT_HAS_EXPIRED);
        return ours && valid ? 1 : 0;
    }

    openssl_ptr<EVP_PKEY> pair_;
    openssl_ptr<BIO_METHOD> method_;  // outlives all sessions, as the context does
    openssl_ptr<SSL_CTX> context_;
};

#elif !defined(P2PCHAT_PLATFORM)  // which brings its own, too

class no_tls {
public:
    std::error_code open(const std::string&) { return make_error_code(errc::not_supported); }
    std::unique_ptr<session> new_session(bool) { return nullptr; }
    public_key own() const { return {}; }
};
using tls = no_tls;  // named, so that tests and benchmarks can tell them apart

#endif

}  // namespace detail
}  // namespace p2pchat

// ------------------------------------------------------------------------------------- >> keys
//
// Does:        keeps our key and those of others, and knows what must be encrypted.
// May use:     platform, text, peers, encryption.
// Guarded by:  the node's mutex.
// Never:       forgets a key to make room for another.

namespace p2pchat {
namespace detail {

/// Our key, those of others, and what must be encrypted.
class keyring {
public:
    explicit keyring(abilities& others) : others_(others) {}

    std::error_code open(const config& settings) {
        mode_ = settings.encryption;
        file_ = settings.pins;
        max_ = settings.max_peers;
        if (mode_ == encryption::off) return {};
        if (const auto error = tls_.open(settings.identity)) return error;
        own_ = tls_.own();
        if (!file_.empty())  // it exists from now on
            if (const auto error = os::write_file(file_, os::file_use::append, {})) return error;
        return load();
    }
    const public_key& own() const noexcept { return own_; }
    /// Null without encryption.
    tls* maker() noexcept { return mode_ == encryption::off ? nullptr : &tls_; }
    bool requires_all() const noexcept { return mode_ == encryption::required; }
    /// Whether nothing may be sent there unencrypted.
    bool wants(const endpoint& to) const {
        return requires_all() || knows(to) || (mode_ != encryption::off && others_.has_tls(to));
    }
    /// False without encryption: a key that trust() was given is for later.
    bool knows(const endpoint& who) const {
        return mode_ != encryption::off && pins_.count(who) != 0;
    }
    /// None if it is not known.
    public_key of(const endpoint& who) const {
        const auto found = pins_.find(who);
        return found == pins_.end() ? public_key() : found->second;
    }

    /// The peer says whether it knows TLS.
    void announced(const endpoint& who, bool can) {
        if (mode_ != encryption::off) others_.announced_tls(who, can);
    }
    /// What is wrong with the key that a peer has shown, or with none: not_encrypted, key_changed.
    /// With `may_pin`, the first key of a peer is remembered.
    errc check(const endpoint& who, std::string_view team, const public_key& shown, bool may_pin) {
        if (mode_ == encryption::off) return no_error;
        if (shown && may_pin && !knows(who) && has_room(who)) {
            static_cast<void>(load());  // another program may have pinned it
            // If it cannot be written, it holds until stop().
            if (pins_.emplace(who, shown).second) static_cast<void>(store(who, team, shown));
        }
        if (!shown) return of(who) || requires_all() ? errc::not_encrypted : no_error;
        return accepts(who, shown) ? no_error : errc::key_changed;
    }
    /// Whether no other key is pinned than the one shown, if any is.
    bool accepts(const endpoint& who, const public_key& shown) const {
        const public_key pinned = of(who);
        return mode_ == encryption::off || !shown || !pinned || pinned == shown;
    }
    std::error_code trust(const endpoint& who, const public_key& key) {
        pin(who, key);
        return store(who, {}, key);
    }

private:
    static constexpr int share_of_host = 64;

    /// No key forgets the pinned one.
    void pin(const endpoint& who, const public_key& key) {
        key ? void(pins_[who] = key) : void(pins_.erase(who));
    }
    bool has_room(const endpoint& who) const {
        auto entry = pins_.lower_bound({who.bytes(), 0, 0});
        int of_host = 0;
        while (entry != pins_.end() && entry->first.same_address(who)) ++entry, ++of_host;
        return of_host < share_of_host && pins_.size() < max_;
    }
    /// Lines of "address team key"; the last one of a peer counts, and no key forgets it.
    std::error_code store(const endpoint& who, std::string_view team, const public_key& key) const {
        if (file_.empty()) return {};
        std::string line;
        const auto failed = read(line);
        if (failed && failed != std::errc::no_such_file_or_directory) return failed;
        line.clear();
        append_endpoint(line, who, true);
        line.append(1, ' ').append(team.empty() ? "-" : team).append(1, ' ');
        append_key(line, key);
        return os::write_file(file_, os::file_use::append, line.append(1, '\n'));
    }
    /// All of the file. If a program died while writing the last line, or the disk was full, that
    /// line is ended first, and ignored.
    std::error_code read(std::string& all) const {
        bool ours_alone = false;
        const auto error = os::read_file(file_, all, ours_alone);
        if (error || all.empty() || all.back() == '\n') return error;
        all.append("#\n");
        return os::write_file(file_, os::file_use::append, "#\n");
    }
    std::error_code load() {
        if (file_.empty()) return {};
        std::string all;
        auto error = read(all);
        for (std::size_t at = 0; !error && at < all.size();) {
            const std::size_t end = all.find('\n', at);
            error = read_line(trimmed(std::string_view(all).substr(at, end - at)));
            at = end + 1;
        }
        return error;
    }
    std::error_code read_line(std::string_view line) {
        if (line.empty() || line.back() == '#') return {};
        const auto first = line.find(' '), last = line.rfind(' ');
        endpoint who;
        public_key key;
        const bool good = line.find(' ', first + 1) == last && !parse(line.substr(0, first), who) &&
                          who && scan_key(line.substr(last + 1), key);
        if (!good) return make_error_code(errc::bad_pins);
        pin(who, key);
        return {};
    }

    encryption mode_ = encryption::off;
    tls tls_;
    public_key own_;
    std::string file_;
    std::size_t max_ = 0;
    std::map<endpoint, public_key> pins_;
    abilities& others_;
};

}  // namespace detail
}  // namespace p2pchat

// ----------------------------------------------------------------------------------- >> stream
//
// Does:        a connection, encrypted or not, for those that send and read over it.
// May use:     platform, socket, encryption.
// Guarded by:  whatever guards its owner.
// Never:       sends a byte of an encrypted connection as plain text, or mistakes a connection that
//              a third party has cut for one that has ended.

namespace p2pchat {
namespace detail {

/// The first byte of a TLS record: of an alert, or of the handshake with which an encrypted
/// connection begins (RFC 8446, section 5.1). No message begins with either.
inline constexpr char tls_alert = 0x15, tls_handshake = 0x16;

/// A connection, encrypted or not. Sending and receiving never block.
class stream {
public:
    stream() noexcept = default;
    explicit stream(tcp_socket socket) noexcept : socket_(std::move(socket)) {}

    tcp_socket& socket() noexcept { return socket_; }
    const tcp_socket& socket() const noexcept { return socket_; }
    tcp_socket::native_handle_type native_handle() const noexcept {
        return socket_.native_handle();
    }
    bool is_open() const noexcept { return socket_.is_open(); }

    /// Encrypts it from now on; the side that connects then has something to send.
    std::error_code begin(std::unique_ptr<session> with) {
        session_ = std::move(with);
        socket_.no_delay();  // or the second piece waits for the acknowledgement of the first
        std::string none;
        return session_->decrypt({}, none);
    }
    bool is_encrypted() const noexcept { return session_ != nullptr; }
    /// Whether the other side, asked for TLS, has answered something else or closed.
    bool met_plain_text() const noexcept { return met_plain_text_; }
    bool is_ready() const noexcept { return !session_ || session_->ready; }
    /// The other side's key; none if it is not encrypted.
    const public_key& key() const noexcept {
        static constexpr public_key none;
        return session_ ? session_->key : none;
    }
    /// Whether something is encrypted and there was no room to send it.
    bool has_pending() const noexcept { return session_ && !session_->ciphertext.empty(); }

    /// On an encrypted connection, `sent` counts bytes encrypted, which go out before any others.
    std::error_code send(std::string_view data, std::size_t& sent) {
        if (!session_) return socket_.send(data, sent, {});
        sent = 0;
        auto error = flush();
        while (!error && sent < data.size()) {
            const auto record = data.substr(sent, 16 * 1024);
            error = session_->encrypt(record);
            if (!error) sent += record.size();
            if (!error) error = flush();
        }
        return error;
    }
    std::error_code flush() noexcept {
        if (!has_pending()) return {};
        std::size_t sent = 0;
        const auto error = socket_.send(session_->ciphertext, sent, {});
        session_->ciphertext.erase(0, sent);
        return error;
    }
    /// would_block: there was no room for the end; our side has not ended.
    std::error_code shutdown_send() noexcept {
        if (session_) session_->end();
        const auto error = flush();
        return error ? error : socket_.shutdown_send();
    }
    void close() noexcept { socket_.close(); }
    void reset() noexcept { socket_.reset(); }

    /// Appends the text that has arrived, or says why there is none. A connection cut by a third
    /// party is an error, not an end.
    std::error_code decrypt(std::string_view bytes, std::error_code error, std::string& text,
                            bool& ended) {
        const char first = bytes.empty() ? '\0' : bytes.front();
        met_tls_ |= first == tls_handshake || first == tls_alert;
        met_plain_text_ = !met_tls_;
        if (!error && !bytes.empty()) error = session_->decrypt(bytes, text);
        ended = session_->ended;
        if (ended) return {};
        static_cast<void>(flush());  // so that the other side learns why
        if (error || !bytes.empty()) return error;
        return os::error_of(std::errc::connection_reset);
    }
    void release_idle_memory() noexcept {
        if (session_ && session_->ciphertext.empty()) std::string().swap(session_->ciphertext);
    }

private:
    tcp_socket socket_;
    std::unique_ptr<session> session_;
    bool met_tls_ = false, met_plain_text_ = false;
};

/// Like read_available() of a socket, but passes on all that has arrived as one piece. `may_begin`
/// makes the session if the connection turns out to be encrypted.
template <std::size_t size, typename Take>
bool read_available(stream& from, char (&buffer)[size], const Take& take, tls* may_begin) {
    const auto open = [&](std::string_view bytes, std::error_code error) {
        if (may_begin && !from.is_encrypted() && !bytes.empty() && bytes.front() == tls_handshake)
            static_cast<void>(from.begin(may_begin->new_session(true)));
        may_begin = nullptr;
        if (!from.is_encrypted()) return take(bytes, error);
        std::string text;
        bool ended = false;
        error = from.decrypt(bytes, error, text, ended);
        const bool more = text.empty() || take(std::string_view(text), std::error_code());
        // Then the end, unless the reader is done, or has passed the connection on.
        if ((ended || error) && from.is_encrypted() && from.is_open())
            return take(std::string_view(), error);
        return more;
    };
    return read_available(from.socket(), buffer, open);
}

}  // namespace detail
}  // namespace p2pchat

// --------------------------------------------------------------------------------- >> identity
//
// Does:        the address that we claim, and whether the address that a peer claims holds.
// May use:     platform, text, mailbox, loop, keys, stream.
// Guarded by:  nothing: functions without state, and references that all connections share.
// Never:       changes anything.

namespace p2pchat {
namespace detail {

/// The address and team that we claim.
struct own_name {
    endpoint address;  // on the LAN's interface, or as configured
    bool configured = false;
    std::string team;
};

/// What all connections share.
struct context {
    const config& settings;
    const own_name& us;
    const std::string& head;  // of our messages, until a connection shows a better address
    loop& events;
    reporter& report;
    room_queue& rooms;
    keyring& keys;
};

/// The address that we claim over this connection: unless one is configured, that of our end, so
/// that the claim holds on each of our networks.
inline endpoint claim_over(const own_name& us, const tcp_socket& socket) noexcept {
    if (us.configured) return us.address;
    const endpoint local = socket.local();
    const endpoint claim(local.bytes(), us.address.port(), local.scope());
    return claim ? claim : us.address;
}

/// "sender team ", with which each of our messages begins.
inline std::string head_of(const endpoint& claim, std::string_view team) {
    std::string head;
    append_endpoint(head, claim, false);
    head.append(1, ' ').append(team).append(1, ' ');
    return head;
}

/// Parses a message from `remote`. A link-local address means nothing without its interface, which
/// has another number here than there.
inline errc scan_from(std::string_view bytes, const endpoint& remote, message_view& view) noexcept {
    const errc error = scan_message(bytes, view);
    endpoint& sender = view.sender;
    if (error == no_error && remote.scope() != 0 && sender.same_address(remote))
        sender = endpoint(sender.bytes(), sender.port(), remote.scope());
    return error;
}

/// A host, for its share of what all compete for.
inline endpoint host_of(const endpoint& of) noexcept { return {of.bytes(), 0, of.scope()}; }

/// Whether a connection comes from this machine.
inline bool is_from_here(const endpoint& remote, const tcp_socket& socket) noexcept {
    return remote.is_loopback() || remote.same_address(socket.local());
}

/// Parses a message that came over a connection. From another machine, a claim of a loopback
/// address or of our own can only mean that machine (on Debian gethostbyname(gethostname()) is
/// 127.0.1.1).
inline errc scan_over(const tcp_socket& socket, const endpoint& remote, const own_name& us,
                      std::string_view bytes, message_view& view) noexcept {
    const errc error = scan_from(bytes, remote, view);
    endpoint& sender = view.sender;
    if (error != no_error || sender.same_address(remote)) return error;
    const bool means_itself = sender.is_loopback() || sender.same_address(us.address) ||
                              sender.same_address(socket.local());
    if (means_itself && !is_from_here(remote, socket))
        sender = endpoint(remote.bytes(), sender.port(), remote.scope());
    return error;
}

/// Whether a claim is verified: the connection comes from its IP, or from this machine.
inline bool holds(const endpoint& claim, const endpoint& remote,
                  const tcp_socket& socket) noexcept {
    return claim.same_address(remote) || is_from_here(remote, socket);
}

/// Whether an address is this machine's.
inline bool is_here(const endpoint& address) noexcept {
    return address.is_loopback() || os::route_source(address).same_address(address);
}

/// Whether a peer with that address would be ourselves.
inline bool is_own(const own_name& us, const endpoint& peer) noexcept {
    return peer.port() == us.address.port() && (peer.same_address(us.address) || is_here(peer));
}

/// What is wrong with the sender that a message claims. own_address, sender_not_verified: the claim
/// does not hold. Otherwise an error is_refusal(): the key is missing or wrong.
inline errc check_claim(const context& shared, const message_view& view, const endpoint& remote,
                        const stream& connection) {
    const endpoint &claim = view.sender, &us = shared.us.address;
    const tcp_socket& socket = connection.socket();
    if (claim.port() == us.port() &&
        (claim.same_address(us) || claim.is_loopback() || claim.same_address(socket.local()) ||
         (is_from_here(remote, socket) && is_here(claim))))
        return errc::own_address;
    if (!holds(claim, remote, socket)) return errc::sender_not_verified;
    const public_key& key = connection.key();
    const errc wrong = shared.keys.check(claim, view.team, key, claim.same_address(remote));
    if (wrong == errc::key_changed) shared.report.key_changed(claim, view.team, key);
    return wrong;
}

inline bool is_refusal(errc wrong) noexcept {
    return wrong == errc::not_encrypted || wrong == errc::key_changed;
}

}  // namespace detail
}  // namespace p2pchat

// --------------------------------------------------------------------------------- >> incoming
//
// Does:        accepts connections, bounds how many are open, and turns the first bytes of each
//              into a message, a link or a refusal.
// May use:     platform, text, socket, mailbox, loop, keys, stream, identity.
// Guarded by:  the node's mutex.
// Never:       takes a message for which the mailbox has no room, or closes in order before it has
//              taken the message.

namespace p2pchat {
namespace detail {

inline bool out_of_descriptors(std::error_code error) noexcept {
    return error == std::errc::too_many_files_open ||
           error == std::errc::too_many_files_open_in_system;
}

inline bool out_of_resources(std::error_code error) noexcept {
    return out_of_descriptors(error) || error == std::errc::no_buffer_space ||
           error == std::errc::not_enough_memory;
}

class incoming;

/// What becomes of a CONNECT.
enum class admission {
    link,      // it is answered: there is a link
    one_shot,  // it is taken as a message, as there may be no more links
    wait,      // until we know whether the link that we are opening to the same peer comes about
    redundant  // there is a link to that peer
};

/// What accepted connections ask about links.
class link_openers {
public:
    virtual admission admit(incoming& opener, const endpoint& claim) = 0;
    virtual void forget(incoming& opener) noexcept = 0;  ///< it waits no longer
    virtual void open_link(incoming& opener, const message_view& greeting, errc wrong_claim,
                           std::string_view rest) = 0;
    virtual bool has_link(const endpoint& peer) const noexcept = 0;

protected:
    ~link_openers() = default;
};

/// Takes a message from the sender that it claims, over any kind of connection; or says why not.
inline errc take_claimed(const context& shared, const link_openers& links, const message_view& view,
                         const endpoint& remote, const stream& connection, bool by_link,
                         holder& by) {
    auto& report = shared.report;
    const public_key& key = connection.key();
    const errc wrong = check_claim(shared, view, remote, connection);
    if (is_refusal(wrong)) return wrong;
    const bool is_connect = view.text == connect_word, is_leave = is_departure(view.text);
    if (wrong != no_error) report.rejected(remote, make_error_code(wrong));
    if (!is_connect && !is_leave) {
        if (wrong == no_error) report.heard(view.sender, view.team, key);
        report.message(view, remote, holds(view.sender, remote, connection.socket()), key, by_link,
                       by);
        return no_error;
    }
    if (wrong == no_error && is_connect) {
        report.heard(view.sender, view.team, key);
        report.connected(view.sender, view.team, key, false);
        return no_error;
    }
    ++report.counts().received;
    if (wrong != no_error) return no_error;
    // A linked peer says exit over its link: this is another program on the same machine.
    if (links.has_link(view.sender))
        report.rejected(remote, make_error_code(errc::sender_not_verified));
    else
        report.left(view.sender, departure::left);
    return no_error;
}

/// Accepted connections that have not delivered a message yet.
class accepted_list {
public:
    struct entry {
        incoming* connection;
        std::uint64_t number;  // less than those of later ones
    };
    using entries = std::list<entry>;
    using place = entries::iterator;

    /// Strong exception guarantee.
    place add(incoming& connection, const endpoint& remote) {
        entries fresh(1, entry{&connection, accepted_ + 1});
        auto& siblings = hosts_[host_of(remote)];
        siblings.splice(siblings.end(), fresh);
        ++accepted_;
        ++size_;
        return std::prev(siblings.end());
    }
    void remove(place position, const endpoint& remote) noexcept {
        const auto host = hosts_.find(host_of(remote));
        host->second.erase(position);
        --size_;
        if (host->second.empty()) hosts_.erase(host);
    }
    std::size_t size() const noexcept { return size_; }
    /// The oldest of the host that has most, so that no host shuts out the others. Null if empty.
    incoming* surplus() const noexcept {
        entry oldest{};
        std::size_t most = 0;
        for (const auto& [host, siblings] : hosts_) {
            const entry& first = siblings.front();
            const bool older = siblings.size() == most && first.number < oldest.number;
            if (siblings.size() <= most && !older) continue;
            most = siblings.size();
            oldest = first;
        }
        return oldest.connection;
    }

private:
    std::unordered_map<endpoint, entries> hosts_;  // oldest first
    std::size_t size_ = 0;
    std::uint64_t accepted_ = 0;
};

/// An accepted connection, until it is known what it brings.
///
///     reading --whole--> taken (closed in order) --no room to say so--> closing --> closed
///      |  |  |  \--to be confirmed later--> held --confirmed--> taken, or refused
///      |  |  \--bad, too long, too late, broken, evicted--> refused (reset)
///      |  \--whole, but no room in the mailbox--> no_room --room--> as if just whole
///      \--CONNECT--> a link, which takes the socket
///          \--while we open one to the same peer--> contending --ours failed--> a link
///                                                              \--ours is there--> closed
class incoming final : public io_object, public holder {
public:
    incoming(const context& shared, accepted_list& siblings, link_openers& links, tcp_socket socket,
             const endpoint& from)
        : shared_(shared),
          siblings_(siblings),
          links_(links),
          connection_(std::move(socket)),
          remote_(from) {}

    /// Most messages arrive together with the connection.
    void begin() {
        auto& events = shared_.events;
        limit_ = after(events.now(), shared_.settings.first_message_timeout);
        on_readable();
        if (state_ != state::reading) return;
        if (events.deadline_of(*this) == never) events.arm(*this, limit_);
        events.watch(*this, connection_, true, connection_.has_pending());
    }
    void refuse(std::error_code why) noexcept {
        shared_.report.rejected(remote_, why);
        reset();
    }
    void reset() noexcept { end(false); }
    accepted_list::place place;  ///< among its siblings

    /// The link that we were opening has come about, or has not.
    void contend(bool ours_stands) noexcept {
        state_ = state::reading;
        if (ours_stands) return end(true);
        shared_.events.guard(*this, [&] { greet(); });
    }
    /// Whether the other side has closed already; what else arrived is kept.
    bool has_ended() {
        char more[4096];
        bool ended = false;
        const auto put_by = [&](std::string_view bytes, std::error_code) {
            ended = bytes.empty();
            in_.append(bytes);
            return false;
        };
        read_available(connection_, more, put_by, nullptr);
        return ended;
    }

    const endpoint& remote() const noexcept { return remote_; }
    stream& connection() noexcept { return connection_; }  ///< for a link to take over

    void on_readable() override {
        read();
        if (state_ == state::reading && connection_.has_pending())
            shared_.events.watch(*this, connection_, true, true);
    }
    void on_writable() override {
        if (state_ == state::closing) return end(true);
        const auto error = connection_.flush();
        if (error && error != std::errc::operation_would_block) return refuse(error);
        shared_.events.watch(*this, connection_, true, connection_.has_pending());
    }
    void on_deadline(clock::time_point now) override {
        if (state_ == state::closing) return end(false);
        if (state_ == state::held) return refuse(os::error_of(std::errc::timed_out));
        while (state_ == state::reading && !read()) {  // a long message may have arrived in time
        }
        if (state_ != state::reading || shared_.events.deadline_of(*this) > now) return;
        if (in_.empty() || now >= limit_) return refuse(os::error_of(std::errc::timed_out));
        complete();  // quiet for long enough
    }
    void on_failure(std::error_code why) noexcept override { refuse(why); }
    /// There is room; but a sender that gave up meanwhile was told that it was not taken.
    void on_room() override {
        shared_.events.guard(*this, [&] {
            if (os::is_reset(connection_.native_handle()))
                return refuse(os::error_of(std::errc::connection_reset));
            state_ = state::reading;
            if (line_seen_) greet();
            if (state_ == state::reading) complete();
        });
    }
    void on_confirmed(bool taken) noexcept override {
        taken ? end(true) : refuse(make_error_code(errc::not_taken));
    }

private:
    enum class state : unsigned char { reading, no_room, contending, held, closing, ended };

    /// False if more may have arrived.
    bool read() {
        const auto take = [this](std::string_view bytes, std::error_code error) {
            if (bytes.empty()) return on_end(error), false;
            on_bytes(bytes);
            return state_ == state::reading || state_ == state::contending;
        };
        return read_available(connection_, shared_.events.buffer(), take,
                              in_.empty() ? shared_.keys.maker() : nullptr);
    }
    void on_end(std::error_code error) {
        if (state_ == state::contending) return end(true);
        if (state_ != state::reading) return;
        error ? refuse(error) : complete();
    }
    void on_bytes(std::string_view bytes) {
        if (!connection_.is_encrypted() && in_.empty()) {
            if (bytes.front() == tls_handshake)
                return refuse(make_error_code(errc::encryption_failed));
            if (shared_.keys.requires_all()) return refuse(make_error_code(errc::not_encrypted));
        }
        // The message may be followed by a line end.
        if (in_.size() + bytes.size() > shared_.settings.max_message_bytes + 2)
            return refuse(make_error_code(errc::message_too_long));
        const std::size_t before = in_.size();
        in_.append(bytes);
        if (state_ == state::contending) return;
        auto& events = shared_.events;
        // An encrypted connection marks its end; without the mark it was cut.
        if (!connection_.is_encrypted())
            events.arm(*this,
                       (std::min)(limit_, after(events.now(), shared_.settings.quiet_period)));
        if (line_seen_ || in_.find('\n', before) == std::string::npos) return;
        line_seen_ = true;
        greet();
    }
    errc scan(std::string_view bytes, message_view& view) const noexcept {
        return scan_over(connection_.socket(), remote_, shared_.us, bytes, view);
    }
    /// Another program of the course leaves by two words, "10.18.1.66:5000 DISCONNECTED". Makes
    /// `text` a message of it, to which the view refers.
    errc scan_departure(std::string_view bytes, std::string& text, message_view& view) const {
        constexpr std::string_view word = " DISCONNECTED";
        const auto size = bytes.size() - (std::min)(bytes.size(), word.size());
        if (bytes.substr(size) != word) return errc::too_few_words;
        text.assign(bytes.substr(0, size)).append(" - DISCONNECT");
        const bool is_claim = scan(text, view) == no_error && view.team == "-";
        const bool verified = is_claim && holds(view.sender, remote_, connection_.socket());
        return verified ? no_error : errc::too_few_words;
    }
    /// If the first line is CONNECT, it becomes a link.
    void greet() {
        const std::size_t end_of_line = in_.find('\n');
        message_view greeting;
        if (scan(std::string_view(in_).substr(0, end_of_line), greeting) != no_error) return;
        if (greeting.text != connect_word) return;
        const errc wrong = check_claim(shared_, greeting, remote_, connection_);
        if (is_refusal(wrong)) return refuse(make_error_code(wrong));
        if (wrong == errc::own_address && is_from_here(remote_, connection_.socket()))
            return complete();
        switch (links_.admit(*this, wrong == no_error ? greeting.sender : remote_)) {
            case admission::one_shot:
                return complete();
            case admission::redundant:
                return end(true);
            case admission::wait:
                state_ = state::contending;
                return shared_.events.arm(*this, never);
            case admission::link:
                break;
        }
        // Not before: evicting a link has queued an event.
        if (shared_.report.full()) return wait_for_room();
        shared_.events.ignore(*this, connection_);
        // Parsed again, as has_ended() may have moved the bytes that the greeting refers to.
        static_cast<void>(scan(std::string_view(in_).substr(0, end_of_line), greeting));
        links_.open_link(*this, greeting, wrong, std::string_view(in_).substr(end_of_line + 1));
        end(true);  // the link has taken the connection
    }
    /// A one-shot is complete.
    void complete() {
        message_view view;
        const std::string_view bytes = trimmed(in_);
        if (bytes.empty()) return refuse(make_error_code(errc::no_message));
        if (bytes.size() > shared_.settings.max_message_bytes)
            return refuse(make_error_code(errc::message_too_long));
        std::string departure;
        errc error = scan(bytes, view);
        if (error == errc::too_few_words) error = scan_departure(bytes, departure, view);
        if (error != no_error) return refuse(make_error_code(error));
        if (shared_.report.full()) return wait_for_room();
        const errc refused =
            take_claimed(shared_, links_, view, remote_, connection_, false, *this);
        if (refused != no_error) return refuse(make_error_code(refused));
        held().empty() ? end(true) : wait_for_confirmation();
    }
    void wait_for_confirmation() {
        state_ = state::held;
        auto& events = shared_.events;
        events.ignore(*this, connection_);
        events.arm(*this, after(events.now(), shared_.settings.delivery_timeout));
    }
    void wait_for_room() {
        shared_.rooms.join(*this);
        state_ = state::no_room;
        shared_.events.arm(*this, never);
        shared_.events.ignore(*this, connection_);
    }
    /// The message was taken, but there is no room yet to mark the end.
    void wait_to_end() noexcept {
        state_ = state::closing;
        auto& events = shared_.events;
        events.guard(*this, [&] {
            events.arm(*this, after(events.now(), shared_.settings.delivery_timeout));
            events.watch(*this, connection_, false, true);
        });
    }
    void end(bool in_order) noexcept {
        shared_.rooms.leave(*this);
        if (state_ == state::contending) links_.forget(*this);
        shared_.report.forget(*this);
        if (in_order && connection_.is_open())
            os::reset_on_close(connection_.native_handle(), false);
        if (in_order && connection_.is_encrypted() &&
            connection_.shutdown_send() == std::errc::operation_would_block)
            return wait_to_end();
        state_ = state::ended;
        siblings_.remove(place, remote_);
        shared_.events.end(*this, connection_, in_order);
    }

    const context& shared_;
    accepted_list& siblings_;
    link_openers& links_;
    stream connection_;
    const endpoint remote_;
    std::string in_;
    clock::time_point limit_{};  // the latest its deadline may become
    state state_ = state::reading;
    bool line_seen_ = false;  // the first line is complete
};

/// The listening socket, and the connections accepted from it.
class acceptor final : public io_object {
public:
    acceptor(const context& shared, link_openers& links) : shared_(shared), links_(links) {}

    std::error_code open(std::uint16_t port) {
        auto error = listener_.listen({"::", port});
        if (error && error != std::errc::address_in_use && error != std::errc::permission_denied)
            error = listener_.listen({"0.0.0.0", port});  // a machine without IPv6
        if (error) return error;
        // However this process ends, the sender of a message not taken yet must see a reset.
        // Accepted sockets inherit that from the listener.
        os::reset_on_close(listener_.native_handle(), true);
        port_ = listener_.local().port();
        const bool known = port_ != 0;  // 0: the system does not say
        return known ? error : os::error_of(std::errc::no_buffer_space);
    }
    std::error_code start() {
        shared_.events.arm(*this, shared_.events.now());  // so that pause() needs no memory
        return shared_.events.watch(*this, listener_, true, false);
    }
    std::uint16_t port() const noexcept { return port_; }
    /// And resets all accepted connections.
    void close() noexcept {
        shared_.events.ignore(*this, listener_);
        if (listener_.is_open()) os::stop_listening(listener_.native_handle());
        listener_.close();
        while (incoming* const surplus_connection = connections_.surplus())
            surplus_connection->reset();
    }

    /// Refuses one of them; false if there is none.
    bool evict() noexcept {
        incoming* const surplus_connection = connections_.surplus();
        if (surplus_connection) surplus_connection->refuse(make_error_code(errc::connection_limit));
        return surplus_connection != nullptr;
    }

    void on_readable() override {
        for (int i = 0; i < 64; ++i) {
            tcp_socket socket;
            endpoint from;
            const auto error = listener_.accept(socket, {}, &from);
            if (!error)
                admit(std::move(socket), from);
            else if (error == std::errc::operation_would_block)
                return;
            else if (error == std::errc::connection_aborted || error == std::errc::connection_reset)
                continue;  // it has ended already; the second is Winsock's name for that
            else if (!out_of_resources(error) || !evict())
                return pause();
        }
    }
    void on_deadline(clock::time_point) override {
        static_cast<void>(shared_.events.watch(*this, listener_, true, false));
    }
    void on_failure(std::error_code) noexcept override { pause(); }

private:
    void admit(tcp_socket socket, const endpoint& from) {
        ++shared_.report.counts().connections;
        if (connections_.size() >= shared_.settings.max_connections && !evict()) {
            shared_.report.rejected(from, make_error_code(errc::connection_limit));
            return socket.reset();
        }
        incoming* accepted = nullptr;
        try {
            auto made =
                std::make_unique<incoming>(shared_, connections_, links_, std::move(socket), from);
            accepted = &shared_.events.add(std::move(made));
            accepted->place = connections_.add(*accepted, from);
        } catch (const std::bad_alloc&) {
            if (accepted) shared_.events.end(*accepted, accepted->connection(), false);
            return shared_.report.rejected(from, os::error_of(std::errc::not_enough_memory));
        }
        shared_.events.guard(*accepted, [&] { accepted->begin(); });
    }
    /// Without a free descriptor the listener stays ready: accepting again at once would spin.
    void pause() noexcept {
        shared_.events.ignore(*this, listener_);
        shared_.events.arm(*this, shared_.events.now() + std::chrono::milliseconds(100));
    }

    const context& shared_;
    link_openers& links_;
    tcp_socket listener_;
    std::uint16_t port_ = 0;
    accepted_list connections_;
};

}  // namespace detail
}  // namespace p2pchat

// --------------------------------------------------------------------------------- >> outgoing
//
// Does:        sends a message over its own connection, and finds out what became of it.
// May use:     platform, text, socket, mailbox, loop, encryption, keys, stream, identity.
// Guarded by:  one_shot: used by the thread that runs it only; outgoing, and encrypted one_shots:
//              the node's mutex.
// Never:       knows what else waits for the same peer.

namespace p2pchat {
namespace detail {

/// Maps a reset, or another error that comes of a close without reading, to the callers' name.
inline std::error_code not_taken_if_closed(std::error_code error) noexcept {
    const bool closed = error == std::errc::connection_reset || error == std::errc::broken_pipe ||
                        error == std::errc::connection_aborted || error == std::errc::not_connected;
    return closed ? make_error_code(errc::not_taken) : error;
}

/// What is known of the peer of a one-shot. A fifth of a timeout is a second by default.
struct peer_habits {
    bool knows_links = false;  // so that it answers CONNECT
    bool is_silent = false;    // it takes one-shots without closing the connection

    std::chrono::milliseconds answer_timeout(const config& settings) const noexcept {
        return settings.handshake_timeout / (knows_links ? 1 : 5);
    }
    std::chrono::milliseconds delivery_timeout(const config& settings) const noexcept {
        return settings.delivery_timeout / (is_silent ? 5 : 1);
    }
};

/// One message on its way, run by an event loop, or by a thread that waits for it.
///
///     connecting --> sending --> confirming --the other side closes--> done: delivered
///          \         / |            \--before it had acknowledged all--> acknowledging --> done
///           securing   |
///                      \--CONNECT--> greeting --answered in kind--> done: linked
///                                      \--no answer for a second--> half_closed
///     greeting --the other side closes--> done: connected, no link
///     half_closed --the other side closes, or answers late--> done: connected, no link
///     any --closed too early, reset, too late--> done: an error
class one_shot {
public:
    /// Encrypted, if there are keys.
    explicit one_shot(const endpoint& to, peer_habits habits = {}, keyring* keys = nullptr)
        : to_(to), habits_(habits), keys_(keys) {}

    /// Begins to connect, and sends at once if it can, as it can to this machine. Times out at
    /// `end` at the latest.
    void start(std::string_view text, bool opens_link, const config& settings, const own_name& us,
               clock::time_point now, clock::time_point end) {
        opens_link_ = opens_link;
        limit_ = end;
        deadline_ = (std::min)(limit_, after(now, settings.connect_timeout));
        const auto error = connection_.socket().connect(to_, {});
        if (error && error != std::errc::operation_in_progress) return fail(error);
        // Nothing listens there: this machine's port has been connected to itself.
        if (connection_.socket().local() == to_)
            return fail(os::error_of(std::errc::connection_refused));
        bytes_ = head_of(claim_over(us, connection_.socket()), us.team);
        bytes_.append(text);
        if (bytes_.size() > settings.max_message_bytes)
            return fail(make_error_code(errc::message_too_long));
        if (opens_link_) bytes_.append(1, '\n');
        if (keys_)
            if (const auto failed = connection_.begin(keys_->maker()->new_session(false)))
                return fail(failed);
        send(settings, now);
    }

    /// Goes on until it would have to wait.
    void advance(const config& settings, clock::time_point now) {
        // Meanwhile trust() may have named another.
        if (keys_ && !keys_->accepts(to_, connection_.key()))
            return fail(make_error_code(errc::key_changed));
        if (wants_read()) receive(settings, now);
        if (!wants_write()) return;
        if (state_ == state::connecting)
            if (const auto error = connection_.socket().finish_connect()) return fail(error);
        send(settings, now);
    }

    /// The deadline has passed, and all that had arrived by then has been read.
    void expire(const config& settings, clock::time_point now) {
        if (state_ == state::acknowledging && now < limit_) return on_end(now);
        if (state_ == state::greeting && !habits_.knows_links) {
            // It may be one that reads until our end, and answers nothing.
            const auto failed = connection_.shutdown_send();
            const bool blocked = failed == std::errc::operation_would_block;
            if (failed) return fail(blocked ? os::error_of(std::errc::timed_out) : failed);
            state_ = state::half_closed;
            deadline_ = (std::min)(limit_, after(now, settings.handshake_timeout));
            return;
        }
        const bool sent = state_ == state::confirming || state_ == state::half_closed;
        if (sent && os::counts_unacknowledged &&
            os::unacknowledged(connection_.native_handle()) == 0)
            return fail(make_error_code(errc::unconfirmed));
        fail(os::error_of(std::errc::timed_out));
    }
    void fail(std::error_code error) noexcept {
        error_ = not_taken_if_closed(error);
        if (state_ == state::securing && error_ == errc::not_taken)
            error_ = make_error_code(errc::encryption_failed);
        state_ = state::done;
    }

    bool done() const noexcept { return state_ == state::done; }
    std::error_code error() const noexcept { return error_; }
    bool linked() const noexcept { return !error_ && end_of_greeting_ != 0; }
    /// Whether to close in order rather than by a reset. Unconfirmed, the message may still be
    /// read. A peer that closed on our CONNECT would be left with its port in TIME_WAIT.
    bool ends_in_order() const noexcept {
        return error_ ? error_ == errc::unconfirmed : !opens_link_ || linked();
    }
    bool opens_link() const noexcept { return opens_link_; }
    /// Whether the peer could not be reached, so that certainly nothing was taken.
    bool is_absent() const noexcept {
        const bool by_system = error_ && error_.category() != category();
        return by_system && (sent_ == 0 || error_ == std::errc::connection_refused);
    }
    /// Whether the message, or a part of it, has been sent.
    bool has_greeted() const noexcept { return sent_ != 0; }

    // What it is waiting for.
    bool wants_write() const noexcept {
        return state_ <= state::sending || (state_ == state::securing && connection_.has_pending());
    }
    bool wants_read() const noexcept {
        return state_ != state::connecting && state_ != state::acknowledging && !done();
    }
    clock::time_point deadline() const noexcept { return deadline_; }

    const endpoint& to() const noexcept { return to_; }
    stream& connection() noexcept { return connection_; }
    /// For a link: the other side's CONNECT, and what followed it.
    std::string_view greeting() const noexcept {
        return std::string_view(in_).substr(0, end_of_greeting_);
    }
    std::string_view rest() const noexcept {
        return std::string_view(in_).substr(end_of_greeting_ + 1);
    }

private:
    enum class state {
        connecting,
        sending,
        securing,
        confirming,
        acknowledging,
        greeting,
        half_closed,
        done
    };

    void send(const config& settings, clock::time_point now) {
        if (!connection_.is_ready()) return send_handshake(settings, now);
        std::size_t sent = 0;
        const auto error = connection_.send(std::string_view(bytes_).substr(sent_), sent);
        sent_ += sent;
        if (state_ == state::connecting && sent_ != 0) {
            state_ = state::sending;
            deadline_ = (std::min)(limit_, after(now, habits_.delivery_timeout(settings)));
        }
        const bool connecting = state_ == state::connecting && error == std::errc::not_connected;
        if (connecting) return;
        // Should this process end now, the bytes sent must not look like the whole message.
        const bool blocked = error == std::errc::operation_would_block;
        if (blocked ? sent_ != 0 : sent_ != sent)
            os::reset_on_close(connection_.native_handle(), blocked);
        if (blocked) return;
        if (error) return fail(error);
        if (opens_link_) {
            state_ = state::greeting;
            deadline_ = (std::min)(limit_, after(now, habits_.answer_timeout(settings)));
        } else {
            const auto failed = connection_.shutdown_send();
            if (failed == std::errc::operation_would_block) return;  // still to be said
            if (failed) return fail(failed);
            state_ = state::confirming;
        }
    }
    void send_handshake(const config& settings, clock::time_point now) {
        const auto error = connection_.flush();
        const bool waits =
            error == std::errc::operation_would_block || error == std::errc::not_connected;
        if (waits && state_ == state::connecting) return;
        if (error && !waits) return fail(error);
        if (state_ != state::connecting) return;
        state_ = state::securing;
        deadline_ = (std::min)(limit_, after(now, settings.handshake_timeout));
    }
    /// The other side has proved its key.
    void on_key(const config& settings, clock::time_point now) {
        const errc wrong = keys_->check(to_, {}, connection_.key(), true);
        if (wrong != no_error) return fail(make_error_code(wrong));
        state_ = state::sending;
        deadline_ = (std::min)(limit_, after(now, habits_.delivery_timeout(settings)));
    }
    void receive(const config& settings, clock::time_point now) {
        char buffer[4096];
        const auto take = [&](std::string_view bytes, std::error_code error) {
            if (done()) return false;
            if (error) return fail(error), false;
            if (bytes.empty()) return on_end(now), false;
            on_answer(bytes, settings.max_message_bytes);
            return !done();
        };
        read_available(connection_, buffer, take, nullptr);
        if (state_ == state::securing && connection_.is_ready()) on_key(settings, now);
    }
    /// A one-shot gets no answer: whatever arrives is ignored.
    void on_answer(std::string_view bytes, std::size_t max_bytes) {
        if (state_ != state::greeting && state_ != state::half_closed) return;
        const std::size_t before = in_.size();
        in_.append(bytes);
        const std::size_t end = in_.find('\n', before);
        if (end == std::string::npos) {
            if (in_.size() > max_bytes) fail(make_error_code(errc::message_too_long));
            return;
        }
        message_view answer;
        if (scan_message(std::string_view(in_).substr(0, end), answer) != no_error ||
            answer.text != connect_word)
            return fail(make_error_code(errc::protocol_error));
        if (state_ == state::greeting) end_of_greeting_ = end;
        state_ = state::done;
    }
    /// The other side has closed, which confirms the message if it had received all of it. If some
    /// is still on the way (the original reads 1024 bytes and closes) a reset may follow.
    void on_end(clock::time_point now) {
        if (wants_write() || state_ == state::securing)
            return fail(make_error_code(errc::not_taken));
        // The peer knows only one-shots; or TLS vouches for the end.
        if (opens_link_ || keys_) return state_ = state::done, void();
        constexpr int our_end = 1;  // the half-close counts as a byte
        const int unacknowledged = os::unacknowledged(connection_.native_handle());
        // In this order: after a reset, Linux still counts what will never be acknowledged.
        if (os::pending_error(connection_.native_handle()))
            return fail(make_error_code(errc::not_taken));
        if (unacknowledged <= our_end) return state_ = state::done, void();
        if (state_ != state::acknowledging) limit_ = deadline_;
        state_ = state::acknowledging;
        deadline_ = (std::min)(limit_, now + std::chrono::milliseconds(5));
    }

    const endpoint to_;
    const peer_habits habits_;
    keyring* const keys_;
    std::string bytes_;  // to be sent
    std::string in_;     // greeting: received
    stream connection_;
    std::size_t sent_ = 0;
    std::size_t end_of_greeting_ = 0;  // for a link: where the other side's CONNECT ends
    std::error_code error_;
    clock::time_point deadline_{};
    clock::time_point limit_{};  // the latest `deadline_` may become
    bool opens_link_ = false;
    state state_ = state::connecting;
};

class outgoing;

class outgoing_owner {
public:
    /// The message has its outcome, or there is a link; the object is not used after this.
    virtual void on_finished(outgoing& done) noexcept = 0;

protected:
    ~outgoing_owner() = default;
};

/// A one-shot that the loop runs.
class outgoing final : public io_object {
public:
    outgoing(const context& shared, outgoing_owner& owner, const endpoint& to, peer_habits habits)
        : shared_(shared),
          owner_(owner),
          habits_(habits),
          shot_(std::in_place, to, habits, shared.keys.wants(to) ? &shared.keys : nullptr) {}

    /// Once `item` is set.
    void begin() {
        const posting& message = item.front();
        shot_->start(message.text, message.opens_link, shared_.settings, shared_.us,
                     shared_.events.now(), message.caller ? message.deadline : never);
        settle();
    }
    /// It is not used any longer.
    void end() noexcept { shared_.events.end(*this, shot_->connection(), shot_->ends_in_order()); }

    one_shot& shot() noexcept { return *shot_; }
    postings item;  ///< the message that it carries

    void on_readable() override {
        // The peer's key may have become known while it was being connected to.
        const bool began = shot_->connection().is_encrypted() || shot_->has_greeted();
        if (!began && shared_.keys.knows(shot_->to())) return restart();
        shot_->advance(shared_.settings, shared_.events.now());
        settle();
    }
    void on_writable() override { on_readable(); }
    void on_deadline(clock::time_point now) override {
        shot_->expire(shared_.settings, now);
        settle();
    }
    void on_failure(std::error_code why) noexcept override {
        shot_->fail(why);
        owner_.on_finished(*this);
    }

private:
    void settle() {
        auto& events = shared_.events;
        if (shot_->error() == errc::key_changed)
            shared_.report.key_changed(shot_->to(), {}, shot_->connection().key());
        if (shot_->done()) return may_go_unencrypted() ? restart() : owner_.on_finished(*this);
        events.arm(*this, shot_->deadline());
        events.watch(*this, shot_->connection(), shot_->wants_read(), shot_->wants_write());
    }
    /// Whether the peer does not know TLS, though that was announced of it. Where its key is known,
    /// or encryption is required, that changes nothing.
    bool may_go_unencrypted() {
        if (shot_->error() != errc::encryption_failed || !shot_->connection().met_plain_text())
            return false;
        shared_.keys.announced(shot_->to(), false);
        return !shared_.keys.wants(shot_->to());
    }
    void restart() {
        shared_.events.ignore(*this, shot_->connection());
        const endpoint to = shot_->to();
        shot_.emplace(to, habits_, shared_.keys.wants(to) ? &shared_.keys : nullptr);
        begin();
    }

    const context& shared_;
    outgoing_owner& owner_;
    const peer_habits habits_;
    std::optional<one_shot> shot_;
};

}  // namespace detail
}  // namespace p2pchat

// ------------------------------------------------------------------------------------- >> link
//
// Does:        messages and control lines in both directions of one connection, their
//              confirmation, and the end of the link.
// May use:     platform, text, socket, mailbox, loop, keys, stream, identity, incoming.
// Guarded by:  the node's mutex.
// Never:       confirms what is not in the mailbox, or knows of other links.

namespace p2pchat {
namespace detail {

/// The most that may be under way on a link, posted and not yet confirmed. A receiver with slow
/// handlers can hold that much, and still read the confirmations behind it. So two nodes with full
/// buffers cannot wait for each other.
inline constexpr std::size_t link_window = 256 * 1024;

class link;
using link_list = std::list<link*>;  // all that there are

/// Finds the number in "ACK n".
inline bool scan_ack(std::string_view line, std::uint64_t& count) noexcept {
    constexpr std::string_view word = "ACK ";
    if (line.substr(0, word.size()) != word) return false;
    const char* const end = line.data() + line.size();
    const auto [stop, error] = std::from_chars(line.data() + word.size(), end, count);
    return error == std::errc() && stop == end;
}

/// What arrives on a link: lines that wait for room in the mailbox, then a part of a line.
class line_reader {
public:
    std::size_t backlog() const noexcept { return backlog_; }  ///< bytes of what waits
    /// If not, nothing more is read.
    bool has_room() const noexcept { return backlog_ <= link_window; }
    bool in_line() const noexcept { return !passed_on_ && text_.size() != backlog_; }

    /// The next line of `bytes`, together with what came before them; if it is not whole, returns
    /// false and keeps it. The view is valid until the next call.
    bool next(std::string_view& bytes, std::string_view& line) {
        if (std::exchange(passed_on_, false)) text_.resize(backlog_);
        const std::size_t end = bytes.find('\n');
        const bool whole = end != std::string_view::npos;
        line = bytes.substr(0, end);
        bytes.remove_prefix(whole ? end + 1 : bytes.size());
        if (whole && text_.size() == backlog_) return true;
        text_.append(line);
        line = std::string_view(text_).substr(backlog_);
        passed_on_ = whole;
        return whole;
    }
    /// The line that was passed on last waits.
    void delay(std::string_view line) {
        if (!std::exchange(passed_on_, false)) text_.append(line);
        text_.append(1, '\n');
        backlog_ = text_.size();
    }
    /// Passes on what waits, as long as it may be taken.
    template <typename MayTake, typename Take>
    void retry(const MayTake& may_take, const Take& take) {
        std::size_t start = 0;
        while (start < backlog_ && may_take()) {
            const std::size_t end = text_.find('\n', start);
            take(std::string_view(text_).substr(start, end - start));
            start = end + 1;
        }
        text_.erase(0, start);
        backlog_ -= start;
    }
    void release_idle_memory() noexcept {
        if (backlog_ != 0 || in_line()) return;
        std::string().swap(text_);
        passed_on_ = false;
    }

private:
    std::string text_;
    std::size_t backlog_ = 0;
    bool passed_on_ = false;  // the line at the end of `text_`
};

/// Lines to be sent over a link.
class line_writer {
public:
    bool empty() const noexcept { return text_.empty(); }

    /// Strong exception guarantee.
    void add(std::string_view begin, std::string_view end = {}) {
        const std::size_t needed = text_.size() + begin.size() + end.size() + 1;
        if (needed > text_.capacity()) text_.reserve((std::max)(needed, 2 * text_.capacity()));
        text_.append(begin).append(end).append(1, '\n');
        ack_size_ = 0;
    }
    /// In place of an ACK before it, if that waits and nothing behind it does: a peer that says
    /// much and reads little must not fill the memory.
    void add_ack(std::uint64_t count) {
        std::string line("ACK ");
        append_number(line, count);
        if (written_ + ack_size_ <= text_.size()) text_.resize(text_.size() - ack_size_);
        add(line);
        ack_size_ = line.size() + 1;
    }
    std::error_code send(stream& connection) {
        std::size_t sent = 0;
        const auto error = connection.send(std::string_view(text_).substr(written_), sent);
        written_ += sent;
        if (sent != 0) cut_ = text_[written_ - 1] != '\n';
        if (!error || written_ > text_.size() / 2) {
            text_.erase(0, written_);
            written_ = 0;
        }
        return error;
    }
    /// Drops all but the rest of a line that is sent in part.
    void drop() noexcept {
        text_.resize(cut_ ? text_.find('\n', written_) + 1 : written_);
        ack_size_ = 0;
    }
    void release_idle_memory() noexcept {
        if (text_.empty()) std::string().swap(text_);
    }

private:
    std::string text_;
    std::size_t written_ = 0;   // bytes of it that are sent
    std::size_t ack_size_ = 0;  // of the line at the end, if it is an ACK
    bool cut_ = false;          // in the middle of a line
};

/// Messages of ours on a link, in the order sent, until the other side confirms them.
class sent_messages {
public:
    bool empty() const noexcept { return all_.empty(); }
    std::size_t bytes() const noexcept { return bytes_; }
    void add(postings& item) noexcept {
        bytes_ += item.front().size;
        all_.splice(all_.end(), item);
    }
    /// The other side has taken the first `count` of the link; false if so many were not sent.
    bool confirm(std::uint64_t count, clock::time_point now, reporter& report) noexcept {
        if (count > confirmed_) progress_ = now;
        for (; confirmed_ < count && !all_.empty(); ++confirmed_) {
            bytes_ -= all_.front().size;
            report.outcome(all_, all_.begin(), {});
        }
        return confirmed_ >= count;
    }
    /// Reports messages that have timed out, and returns when to look again. If that is not in the
    /// future, the other side has confirmed nothing at all for `timeout`.
    clock::time_point expire(clock::time_point now, std::chrono::milliseconds timeout,
                             reporter& report) {
        auto next = never;
        for (posting& message : all_)  // a caller may have spent time waiting elsewhere
            if (message.reported || message.deadline <= now)
                report.timed_out(message);
            else
                next = (std::min)(next, message.deadline);
        if (all_.empty() || !all_.front().reported) return next;
        const auto given_up = (std::max)(all_.front().deadline, after(progress_, timeout));
        return (std::min)(next, given_up);
    }
    void keep(const endpoint& peer, reporter& report) noexcept { report.keep(peer, all_); }
    void fail(std::error_code why, reporter& report) noexcept {
        report.outcomes(all_, why);
        bytes_ = 0;
    }

private:
    postings all_;
    std::size_t bytes_ = 0;
    std::uint64_t confirmed_ = 0;
    clock::time_point progress_{};  // when the other side last confirmed anything
};

/// Messages of the other side that were taken, and how many of them have been confirmed: neither
/// one that is held, nor any that came behind it.
class taken_messages {
public:
    explicit taken_messages(const std::list<held_message>& held) : held_(held) {}

    /// When the program is to have confirmed one at the latest.
    clock::time_point deadline() const noexcept {
        return held_.empty() ? never : held_.front().deadline;
    }
    std::uint64_t next() const noexcept { return taken_ + 1; }
    void add() noexcept { ++taken_; }

    /// Whether there are more to confirm than have been.
    bool is_due() const noexcept { return confirmed_ != confirmable(); }
    /// How many to confirm.
    std::uint64_t confirm() noexcept { return confirmed_ = confirmable(); }
    /// The last one is to be confirmed again, as that may not have been sent.
    void repeat() noexcept {
        if (confirmable() != 0) confirmed_ = confirmable() - 1;
    }

private:
    std::uint64_t confirmable() const noexcept {
        return held_.empty() ? taken_ : held_.front().number - 1;
    }

    const std::list<held_message>& held_;
    std::uint64_t taken_ = 0;
    std::uint64_t confirmed_ = 0;
};

/// A link's events, for the part that sends over it.
class link_owner {
public:
    virtual void on_exit_heard(link& via) = 0;
    virtual void on_confirmed(link& via) noexcept = 0;  ///< there is more room on it
    /// What was under way when it was closed is confirmed, or lost.
    virtual void on_settled(link& via, std::size_t bytes) noexcept = 0;
    /// `gone`: with it the peer has gone, which has not been reported yet.
    virtual void on_ended(link& ended, departure how, bool gone) noexcept = 0;

protected:
    ~link_owner() = default;
};

/// How far two linked peers have got in exchanging peers.
struct peer_exchange_state {
    bool known = false;  // the other side does that
    int expected = 0;    // how many it may still tell of
    clock::time_point ask_from{}, tell_from{};
};

/// Handles control lines about third peers, and hears of lost ones.
class control_handler {
public:
    /// Its link has ended without `exit`, or it could not be reached.
    virtual void on_lost(const endpoint& peer) noexcept = 0;
    virtual void on_opened(link& via) = 0;
    virtual bool on_control(link& via, std::string_view line) = 0;  ///< false if it is unknown

protected:
    ~control_handler() = default;
};

/// The peer at the other end of a link.
struct link_peer {
    endpoint remote;           // the other end of the connection
    endpoint claim;            // who it says it is
    bool claim_holds = false;  // verified
    bool reachable = false;    // by the address it is known as, even without the link

    const endpoint& known_as() const noexcept { return claim_holds ? claim : remote; }
    /// Known by that address, or reached by it.
    bool is_at(const endpoint& address) const noexcept {
        return address == known_as() || address == remote;
    }
};

/// A link.
///
///     open --exit is said or heard, or a newer link stands--> closing
///      |      closing --nothing is under way--> half_closed --the other side closes--> ended
///      \--reset, given up, closed by the other side--> ended
class link final : public io_object, public holder {
public:
    /// Takes a connection on which CONNECT has been said. Out of memory, it is left alone.
    link(const context& shared, link_owner& owner, const link_openers& links,
         control_handler& control, const link_peer& who, stream& connection)
        : head(head_of(claim_over(shared.us, connection.socket()), shared.us.team)),
          shared_(shared),
          owner_(owner),
          links_(links),
          control_(control),
          who_(who),
          connection_(std::move(connection)) {
        connection_.release_idle_memory();  // of the handshake
        // However this process ends, the other side must not take that for an end in order: what
        // was not confirmed may have been taken all the same.
        os::reset_on_close(connection_.native_handle(), true);
        connection_.socket().no_delay();
        connection_.socket().keep_alive(shared_.settings.keep_alive);
    }

    const link_peer& peer() const noexcept { return who_; }
    const public_key& key() const noexcept { return connection_.key(); }
    std::size_t unconfirmed() const noexcept { return sent_.bytes(); }  ///< bytes posted
    const std::string head;                                             ///< of our messages
    peer_exchange_state exchange_state;  ///< for the part that exchanges peers
    link_list::iterator place;           ///< in the list of all
    bool has_spoken = false;             ///< said or confirmed anything since CONNECT

    /// Queues a control line.
    void say(std::string_view line) {
        shared_.events.write_later(*this);
        out_.add(line);
    }
    /// Queues a message and, with `at_once`, writes it if nothing else is under way. Takes the
    /// posting out of `item` or, out of memory, does nothing.
    void post(std::string_view text, postings& item, bool at_once) {
        auto& events = shared_.events;
        const bool now = at_once && sent_.empty();
        events.write_later(*this);  // if only to have the loop spin for the confirmation
        posting& message = item.front();
        message.size = static_cast<std::uint32_t>(head.size() + text.size() + 1);
        const auto deadline = after(events.now(), shared_.settings.delivery_timeout);
        message.deadline = message.caller ? (std::min)(message.deadline, deadline) : deadline;
        if (message.deadline < events.deadline_of(*this)) events.arm(*this, message.deadline);
        out_.add(head, text);
        said_exit_ |= is_exit(text);
        sent_.add(item);
        if (now) events.guard(*this, [this] { flush(); });
    }
    void on_bytes(std::string_view bytes) {
        // A message that can no longer be confirmed is not taken, and its sender is told so.
        if (state_ == state::half_closed) return;
        while (!bytes.empty() && state_ != state::ended) {
            std::string_view line;
            const bool whole = in_.next(bytes, line);
            if (line.size() > shared_.settings.max_message_bytes + 1)
                return refuse(errc::message_too_long);
            if (whole) on_line(line);
        }
        if (state_ == state::ended) return;
        if (taken_.is_due() || state_ == state::closing) flush();
    }

    /// Nothing more is posted, and it ends once nothing is under way. Until then the
    /// route waits for so many bytes, which whatever is posted next must not overtake.
    void close(std::size_t bytes) {
        closing_bytes_ = bytes;
        if (state_ == state::open) state_ = state::closing;
        shared_.events.guard(*this, [this] { flush(); });
    }
    /// The node stops: confirms messages taken, and reports all that are under way. Lines that it
    /// has not begun to write are no longer sent, as they are reported as not sent.
    void stop(std::error_code why) noexcept {
        if (state_ == state::ended) return;
        sent_.fail(why, shared_.report);
        confirm_last();
        state_ = state::ended;
        // Ending in order means that all that was taken is confirmed.
        const bool in_order = out_.empty() && held().empty() && !connection_.shutdown_send();
        if (!in_order) return connection_.reset();
        os::reset_on_close(connection_.native_handle(), false);
        connection_.close();
    }

    void on_readable() override {
        auto& buffer = shared_.events.buffer();
        const auto take = [&](std::string_view bytes, std::error_code error) {
            if (bytes.empty()) return on_end(error), false;
            on_bytes(bytes);
            return state_ != state::ended && in_.has_room() && bytes.size() == sizeof buffer;
        };
        read_available(connection_, buffer, take, nullptr);
    }
    void on_writable() override { flush(); }
    /// Messages posted too long ago are reported as timed out. The link is dropped only if the
    /// other side has confirmed nothing at all for that long.
    void on_deadline(clock::time_point now) override {
        if (state_ == state::half_closed)
            return lose(departure::left, os::error_of(std::errc::timed_out));
        if (taken_.deadline() <= now) return refuse(os::error_of(std::errc::timed_out));
        const auto timeout = shared_.settings.delivery_timeout;
        const auto next = (std::min)(taken_.deadline(), sent_.expire(now, timeout, shared_.report));
        if (next <= now) return lose(departure::lost, os::error_of(std::errc::timed_out));
        shared_.events.arm(*this, next);
        if (next != never) return;
        in_.release_idle_memory();
        out_.release_idle_memory();
        connection_.release_idle_memory();
    }
    void on_failure(std::error_code) noexcept override { lose(departure::lost); }
    void on_room() override {
        shared_.events.guard(*this, [this] {
            in_.retry([this] { return state_ != state::ended && !shared_.report.full(); },
                      [this](std::string_view line) { take(trimmed(line)); });
            if (state_ == state::ended) return;
            if (in_.backlog() != 0) shared_.rooms.join(*this);
            flush();
        });
    }
    void on_held(held_message& fresh) override {
        auto& events = shared_.events;
        fresh.number = taken_.next();
        fresh.deadline = after(events.now(), shared_.settings.delivery_timeout);
        if (fresh.deadline < events.deadline_of(*this)) events.arm(*this, fresh.deadline);
    }
    void on_confirmed(bool taken) noexcept override {
        if (!taken) return refuse(errc::not_taken);
        shared_.events.guard(*this, [this] { shared_.events.write_later(*this); });
    }

private:
    enum class state : unsigned char { open, closing, half_closed, ended };

    /// Confirmations are written before the link ends; lines not begun yet are not.
    void confirm_last() noexcept {
        out_.drop();
        taken_.repeat();
        shared_.events.guard(*this, [this] { flush(); });
    }
    /// Writes what it can, confirmations included.
    void flush() {
        if (state_ == state::half_closed) return;
        if (taken_.is_due()) out_.add_ack(taken_.confirm());
        const auto error = out_.send(connection_);
        const bool blocked = error == std::errc::operation_would_block;
        if (error && !blocked) return lose(departure::lost);
        if (shared_.events.watch(*this, connection_, in_.has_room(), blocked)) return;
        if (!blocked && state_ == state::closing) settle();
    }
    /// A closing link half-closes once nothing is under way.
    void settle() {
        if (!sent_.empty() || !out_.empty()) return;
        if (closing_bytes_ != 0) owner_.on_settled(*this, std::exchange(closing_bytes_, 0));
        if (in_.backlog() != 0 || !held().empty()) return;
        state_ = state::half_closed;
        os::reset_on_close(connection_.native_handle(), false);
        if (connection_.shutdown_send() == std::errc::operation_would_block)
            return lose(departure::lost);
        shared_.events.arm(*this, after(shared_.events.now(), shared_.settings.delivery_timeout));
    }

    /// While the mailbox has no room, messages wait, unconfirmed, and the control lines behind them
    /// are read. A peer that sends more than the window delays its own confirmations.
    void on_line(std::string_view line) {
        const std::string_view words = trimmed(line);
        if (words.size() > shared_.settings.max_message_bytes)
            return refuse(errc::message_too_long);
        if (words.empty()) return;
        const char first = words.front();
        if (!is_digit(first) && first != '[' && first != '<') return on_control(words);
        if (in_.backlog() == 0 && !shared_.report.full()) return take(words);
        in_.delay(line);
        shared_.rooms.join(*this);
        shared_.events.watch(*this, connection_, in_.has_room(), write);
    }
    void take(std::string_view line) {
        message_view view;
        if (!connection_.is_encrypted() && shared_.keys.knows(who_.known_as()))
            return refuse(errc::not_encrypted);
        const tcp_socket& socket = connection_.socket();
        if (const errc error = scan_over(socket, who_.remote, shared_.us, line, view);
            error != no_error)
            return shared_.report.rejected(who_.remote, make_error_code(error));
        if (view.sender != who_.claim) {
            const errc refused =
                take_claimed(shared_, links_, view, who_.remote, connection_, true, *this);
            if (refused != no_error) return refuse(refused);
        } else if (is_exit(view.text)) {
            ++shared_.report.counts().received;
            if (!std::exchange(heard_exit_, true)) {
                if (state_ == state::open) state_ = state::closing;
                owner_.on_exit_heard(*this);
                shared_.report.left(who_.known_as(), departure::left);
            }
        } else {
            if (!said_exit_) shared_.report.heard(who_.known_as(), view.team, key());
            if (view.text == connect_word)
                shared_.report.connected(who_.known_as(), view.team, key(), true);
            else
                shared_.report.message(view, who_.remote, who_.claim_holds, key(), true, *this);
        }
        taken_.add();
        has_spoken = true;
    }
    void on_control(std::string_view line) {
        std::uint64_t count = 0;
        if (!scan_ack(line, count)) {
            if (!control_.on_control(*this, line))
                shared_.report.rejected(who_.remote, make_error_code(errc::protocol_error));
            return;
        }
        const std::size_t before = sent_.bytes();
        if (!sent_.confirm(count, shared_.events.now(), shared_.report))
            return refuse(errc::protocol_error);
        if (sent_.bytes() == before) return;
        has_spoken = true;
        owner_.on_confirmed(*this);
    }

    void on_end(std::error_code error) {
        if (error) return lose(departure::lost);
        if (state_ != state::open) return lose(departure::left);
        flush();  // the last confirmations, if the other side still reads
        if (state_ != state::ended) lose(departure::stopped);
    }
    void refuse(std::error_code why) noexcept {
        shared_.report.rejected(who_.remote, why);
        confirm_last();
        lose(departure::lost);
    }
    void lose(departure how, std::error_code why = make_error_code(errc::link_lost)) noexcept {
        const auto before = std::exchange(state_, state::ended);
        if (before == state::ended) return;
        const bool in_order = how != departure::lost;
        // A peer that ends a link in order has confirmed all that it took.
        if (in_order && !in_.in_line()) sent_.keep(who_.known_as(), shared_.report);
        sent_.fail(why, shared_.report);
        shared_.rooms.leave(*this);
        const bool all_confirmed = in_order && held().empty();
        if (all_confirmed) os::reset_on_close(connection_.native_handle(), false);
        shared_.events.end(*this, connection_, all_confirmed);
        shared_.report.forget(*this);
        if (closing_bytes_ != 0) owner_.on_settled(*this, std::exchange(closing_bytes_, 0));
        const bool gone = before == state::open || !who_.reachable;
        owner_.on_ended(*this, how, gone && !heard_exit_);
    }

    const context& shared_;
    link_owner& owner_;
    const link_openers& links_;
    control_handler& control_;
    const link_peer who_;
    stream connection_;
    line_reader in_;
    line_writer out_;
    sent_messages sent_;
    taken_messages taken_{held()};
    std::size_t closing_bytes_ = 0;  // under way when it was closed
    state state_ = state::open;
    bool heard_exit_ = false, said_exit_ = false;
};

}  // namespace detail
}  // namespace p2pchat

// ----------------------------------------------------------------------------------- >> routes
//
// Does:        knows for each peer by which way messages go, in which order, and how much may wait;
//              which links there are, and which one survives if both sides open one.
// May use:     all above.
// Guarded by:  the node's mutex.
// Never:       touches a socket or a byte of a message.

namespace p2pchat {
namespace detail {

struct host_routes;

/// How messages go to one peer: over a link, or as one-shots, one after another.
///
///     unused --is to carry something--> resting --something waits, nothing is under way--> ready
///     ready --begins, or all goes over a link--> resting
///      |\--its host has its share of our connections--> no_share --one to that host ends--> ready
///      \--we have no connection left--> no_connection --one ends--> as from ready
///     any --nothing goes by it any more--> unused --and still not when the call is over--> gone
struct peer_route {
    enum class queue : unsigned char { unused, resting, ready, no_share, no_connection };

    peer_route(const endpoint& to, host_routes& of) : peer(to), host(of) {}

    bool busy() const noexcept { return users != 0 || under_way; }
    bool idle() const noexcept { return !busy() && !current && !contender && waiting.empty(); }
    bool is_opening() const noexcept { return under_way && under_way->shot().opens_link(); }

    /// Times out callers that have waited too long. Returns when to call this again.
    clock::time_point expire(reporter& report, clock::time_point now) noexcept {
        auto next = never;
        for (auto place = waiting.begin(); place != waiting.end();) {
            const auto late = place++;
            if (!late->caller) continue;
            if (late->deadline > now) {
                next = (std::min)(next, late->deadline);
                continue;
            }
            waiting_bytes -= late->size;
            report.outcome(waiting, late, os::error_of(std::errc::timed_out));
        }
        return next;
    }
    /// Puts a CONNECT before the messages that wait.
    void prepend(postings& opening, std::size_t head_size) noexcept {
        posting& connect = opening.front();
        connect.size = static_cast<std::uint32_t>(head_size + connect.text.size() + 1);
        waiting_bytes += connect.size;
        waiting.splice(waiting.begin(), opening);
    }
    /// The link is no longer used. The next messages wait until all that are under way on it, an
    /// exit included, are confirmed or lost: over another connection they might arrive first.
    void close_link(link& older) {
        const std::size_t bytes = older.unconfirmed();
        closing_bytes += bytes;
        if (bytes != 0) ++users;
        older.close(bytes);
    }
    /// Ends an unencrypted link to a peer to which all must be encrypted by now.
    void close_unencrypted(const keyring& keys) {
        if (!current || !keys.wants(peer) || current->key()) return;
        close_link(*std::exchange(current, nullptr));
    }
    void take_waiting(peer_route& from) noexcept {
        waiting.splice(waiting.end(), from.waiting);
        waiting_bytes += std::exchange(from.waiting_bytes, 0);
    }

    /// Messages to be kept must not overtake kept ones. One for which there is no room is refused:
    /// if it stayed here it would go first.
    void move_to_outbox(reporter& report) noexcept {
        if (!report.keeps(peer)) return;
        for (const posting& message : waiting) waiting_bytes -= message.size;
        report.keep(peer, waiting);
        for (auto next = waiting.begin(); next != waiting.end();) {
            const auto message = next++;
            if (message->is_kept())
                report.outcome(waiting, message, make_error_code(errc::queue_full));
            else
                waiting_bytes += message->size;
        }
    }

    const endpoint peer;
    host_routes& host;
    queue at = queue::unused;
    link* current = nullptr;        // for the messages posted
    outgoing* under_way = nullptr;  // a one-shot, or a link that we are opening
    incoming* contender = nullptr;  // a link that the peer is opening meanwhile
    unsigned users = 0;             // by callers' one-shots, and by closing links
    postings waiting;
    std::size_t waiting_bytes = 0;  // of messages that wait or are under way
    std::size_t closing_bytes = 0;  // under way on closing links
    peer_route* same = nullptr;     // where the peer is known, if this is another name of it
    bool has_names = false;         // it is that for another
};

/// All routes to one machine, which gets a share of our connections, however many of its ports are
/// known.
struct host_routes {
    std::size_t routes = 0;
    std::size_t under_way = 0;
    std::list<peer_route> no_share;  // something to begin, once less is under way
};

/// All routes, and which of them have something to begin. A call into a link or another connection
/// may leave any route with nothing to do, but none ends before sweep(), which is called where
/// no function holds one.
class route_table {
public:
    explicit route_table(std::size_t max_under_way)
        : max_(max_under_way), share_((std::max)(max_under_way / 4, std::size_t{1})) {}

    std::size_t size() const noexcept { return all_.size() - names_; }  ///< of peers
    peer_route* find(const endpoint& peer) const noexcept {
        const auto found = all_.find(peer);
        return found == all_.end() ? nullptr : &*found->second;
    }
    peer_route& find_or_add(const endpoint& peer) {
        if (peer_route* const known = find(peer)) return *known;
        std::list<peer_route> fresh;
        peer_route& route = fresh.emplace_back(peer, hosts_[host_of(peer)]);
        all_.emplace(peer, fresh.begin());
        ++route.host.routes;
        unused_.splice(unused_.end(), fresh);
        return route;
    }
    /// By any name of the peer, including those that only a link has told us.
    peer_route* find_known(const endpoint& name) const noexcept {
        peer_route* const route = find(name);
        return route && route->same && !route->same->idle() ? route->same : route;
    }
    /// The peer of a route was reached by another name. That stands as long as anything is to go by
    /// the route, even once its link has ended: the next message must not overtake it.
    void add_name(peer_route& reached, peer_route& known) noexcept {
        if (&reached == &known) return;
        if (!reached.same) ++names_;
        reached.same = &known;
        known.has_names = true;
    }
    template <typename Work>
    void for_each(const Work& work) const {
        for (const auto& entry : all_) work(*entry.second);
    }
    void clear() noexcept {
        all_.clear();
        names_ = 0;
        for (auto* some : {&unused_, &resting_, &ready_, &no_connection_}) some->clear();
        hosts_.clear();
    }

    /// Begins the next message that waits, if none is under way.
    void schedule(peer_route& route) noexcept {
        room_made_ = true;
        retry(route.host);
        if (route.idle()) return move(route, queue::unused);
        move(route, route.busy() || route.waiting.empty() ? queue::resting : queue::ready);
    }
    /// Forgets the routes by which nothing goes.
    void sweep() noexcept {
        while (!unused_.empty()) {
            peer_route& route = unused_.front();
            // Two may be names of each other: one that leads nowhere is of no use.
            if (route.idle() && (!route.same || route.same->idle()))
                forget(route);
            else
                move(route, queue::resting);
        }
    }
    /// Something waits. A route that waits for a connection goes on waiting.
    void make_ready(peer_route& route) noexcept {
        if (!route.busy() && route.at <= queue::resting) move(route, queue::ready);
    }
    /// There is no free descriptor until something under way has ended.
    void defer(peer_route& route) noexcept {
        exhausted_ = true;
        move(route, queue::no_connection);
    }
    /// Whether one more connection may be opened; if not, the route waits for another to end.
    bool may_begin(peer_route& route) noexcept {
        if (route.host.under_way < share_ && one_shots_ < max_) return true;
        move(route, one_shots_ < max_ ? queue::no_share : queue::no_connection);
        return false;
    }
    bool any_ready() const noexcept {
        return !ready_.empty() || (!no_connection_.empty() && one_shots_ < max_ && !exhausted_);
    }
    peer_route& next_ready() noexcept {
        peer_route& route = (ready_.empty() ? no_connection_ : ready_).front();
        move(route, queue::resting);
        return route;
    }

    std::size_t one_shots() const noexcept { return one_shots_; }  ///< under way
    std::size_t openings() const noexcept { return openings_; }    ///< those that open a link
    void put_under_way(peer_route& route, outgoing& begun, bool opens_link) noexcept {
        route.under_way = &begun;
        ++route.host.under_way;
        ++one_shots_;
        openings_ += opens_link ? 1u : 0u;
    }
    outgoing& take_under_way(peer_route& route) noexcept {
        outgoing& begun = *std::exchange(route.under_way, nullptr);
        --route.host.under_way;
        --one_shots_;
        exhausted_ = false;
        openings_ -= begun.shot().opens_link() ? 1u : 0u;
        return begun;
    }

    /// Whether there may be more room for posts than at the last call.
    bool room_made() noexcept { return std::exchange(room_made_, false); }
    void make_room() noexcept { room_made_ = true; }

private:
    using queue = peer_route::queue;

    std::list<peer_route>& queue_of(peer_route& route) noexcept {
        switch (route.at) {
            case queue::unused:
                return unused_;
            case queue::resting:
                return resting_;
            case queue::ready:
                return ready_;
            case queue::no_share:
                return route.host.no_share;
            case queue::no_connection:
                break;
        }
        return no_connection_;
    }
    void move(peer_route& route, queue to) noexcept {
        auto& from = queue_of(route);
        route.at = to;
        auto& into = queue_of(route);
        into.splice(into.end(), from, all_.find(route.peer)->second);
    }
    void forget(peer_route& known) noexcept {
        if (known.has_names)
            for_each([&](peer_route& route) {
                if (route.same == &known) route.same = nullptr, --names_, schedule(route);
            });
        if (known.same) --names_;
        if (--known.host.routes == 0) hosts_.erase(host_of(known.peer));
        const auto found = all_.find(known.peer);
        unused_.erase(found->second);
        all_.erase(found);
    }
    /// Called whenever something has ended or come to nothing. The next route may begin nothing
    /// either, if it has a link by now, and must not leave the others waiting.
    void retry(host_routes& of) noexcept {
        if (of.under_way < share_ && !of.no_share.empty()) move(of.no_share.front(), queue::ready);
    }

    const std::size_t max_, share_;  // connections: in all, and to one host
    std::unordered_map<endpoint, std::list<peer_route>::iterator> all_;
    std::size_t names_ = 0;  // of them are other names of peers
    std::list<peer_route> unused_, resting_, ready_, no_connection_;
    std::unordered_map<endpoint, host_routes> hosts_;
    std::size_t one_shots_ = 0;
    std::size_t openings_ = 0;
    bool room_made_ = false;
    bool exhausted_ = false;
};

/// At max_links, a newcomer evicts a link of the host that has most, if it will still have fewer:
/// the oldest that never said anything, or the oldest. False if no host has so many.
inline bool evict_link(const link_list& all, const endpoint& newcomer) {
    std::map<endpoint, std::size_t> hosts;
    for (const link* candidate : all) ++hosts[host_of(candidate->peer().remote)];
    const std::size_t own = hosts[host_of(newcomer)];
    const auto fewer = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto most = std::max_element(hosts.begin(), hosts.end(), fewer);
    if (most->second <= own + 1) return false;
    link* surplus = nullptr;
    for (link* candidate : all) {
        if (host_of(candidate->peer().remote) != most->first) continue;
        if (!surplus || (surplus->has_spoken && !candidate->has_spoken)) surplus = candidate;
    }
    surplus->on_failure(make_error_code(errc::connection_limit));
    return true;
}

class routes final : public link_openers, public outgoing_owner, public link_owner, io_object {
public:
    routes(const context& shared, acceptor& accepted, control_handler& control, link_list& links,
           abilities& others)
        : shared_(shared), accepted_(accepted), control_(control), links_(links), others_(others) {}

    /// Takes the posting out of `item`, or returns why not.
    std::error_code post(const endpoint& to, std::string_view text, postings& item) {
        const auto& settings = shared_.settings;
        peer_route* route = table_.find_known(to);
        if (route) route->close_unencrypted(shared_.keys);
        const link* const current = route ? route->current : nullptr;
        const std::size_t size = (current ? current->head : shared_.head).size() + text.size() + 1;
        if (size - 1 > settings.max_message_bytes) return make_error_code(errc::message_too_long);
        if (!route && table_.size() >= settings.max_peers + settings.max_links)
            return make_error_code(errc::queue_full);
        const std::size_t bytes = (route ? route->waiting_bytes + route->closing_bytes : 0) +
                                  (current ? current->unconfirmed() : 0);
        if (bytes != 0 && bytes + size > settings.max_queued_bytes)
            return make_error_code(errc::queue_full);
        posting& message = item.front();
        message.size = static_cast<std::uint32_t>(size);
        const bool at_once = current && !route->busy() && route->waiting.empty();
        if (!at_once || message.is_kept()) message.text.assign(text);
        if (at_once) return queue_on_link(*route, text, item), std::error_code();
        if (message.caller && message.deadline < shared_.events.deadline_of(*this))
            shared_.events.arm(*this, message.deadline);
        if (!route) route = &table_.find_or_add(to);
        route->waiting_bytes += size;
        route->waiting.splice(route->waiting.end(), item);
        table_.make_ready(*route);
        return {};
    }

    /// Lets a caller send a one-shot itself, unless anything else is under way to that peer.
    bool reserve(const endpoint& to, std::string_view text) {
        if (shared_.head.size() + text.size() > shared_.settings.max_message_bytes) return false;
        const peer_route* const known = table_.find_known(to);
        if (known && !known->idle()) return false;
        if (others_.is_silent(to)) return false;  // which is waited for differently
        if (others_.wants_link(to, shared_.events.now())) return false;
        ++table_.find_or_add(to).users;
        return true;
    }
    void release(const endpoint& to, std::error_code outcome) noexcept {
        others_.has_ended(to, outcome);
        peer_route* const route = table_.find(to);
        if (!route) return;  // the node was stopped meanwhile
        --route->users;
        table_.schedule(*route);
        table_.sweep();
    }

    bool has_link(const endpoint& peer) const noexcept override { return link_to(peer) != nullptr; }
    link* link_to(const endpoint& peer) const noexcept {
        const peer_route* const route = table_.find_known(peer);
        return route ? route->current : nullptr;
    }
    bool room_made() noexcept { return table_.room_made(); }
    bool has_work() const noexcept { return table_.any_ready(); }
    void do_work() noexcept {
        while (table_.any_ready()) {
            peer_route& route = table_.next_ready();
            try {
                begin_next(route);
            } catch (const std::bad_alloc&) {
                route.waiting_bytes -= route.waiting.front().size;
                shared_.report.outcome(route.waiting, route.waiting.begin(),
                                       os::error_of(std::errc::not_enough_memory));
                table_.schedule(route);
            }
        }
        table_.sweep();
    }

    /// Reports all outcomes that are still due.
    void stop(std::error_code why) noexcept {
        while (!links_.empty()) {
            link* const first = links_.front();
            first->stop(why);
            if (!links_.empty() && links_.front() == first) links_.pop_front();
        }
        table_.for_each([&](peer_route& route) {
            shared_.report.keep(route.peer, route.waiting);
            shared_.report.outcomes(route.waiting, why);
            if (!route.under_way) return;
            shared_.report.outcomes(route.under_way->item, why);
            route.under_way->shot().fail(why);
            route.under_way->end();
        });
        table_.clear();
    }

    // For accepted connections.

    /// If both sides open a link at once, the one opened by the side with the higher address
    /// survives, as with BGP (RFC 4271, section 6.8), so that both sides decide alike.
    admission admit(incoming& opener, const endpoint& claim) override {
        peer_route* const route = table_.find(claim);
        const bool opening = route && route->is_opening();
        if (opening && route->under_way->shot().has_greeted() &&
            claim < claim_over(shared_.us, opener.connection().socket())) {
            if (route->contender) route->contender->contend(true);
            route->contender = &opener;
            return admission::wait;
        }
        if (route && route->current && opener.has_ended()) return admission::redundant;
        const std::size_t others = links_.size() + table_.openings() - (opening ? 1u : 0u);
        const bool room =
            others < shared_.settings.max_links || evict_link(links_, opener.remote());
        return room ? admission::link : admission::one_shot;
    }

    void forget(incoming& opener) noexcept override {
        table_.for_each([&](peer_route& route) {
            if (route.contender == &opener) route.contender = nullptr;
        });
    }

    void open_link(incoming& opener, const message_view& greeting, errc wrong_claim,
                   std::string_view rest) override {
        const endpoint from = opener.remote();
        const bool claim_holds = wrong_claim == no_error;
        const link_peer who{from, greeting.sender, claim_holds, claim_holds};
        auto& report = shared_.report;
        if (!claim_holds) report.rejected(from, make_error_code(wrong_claim));
        const public_key& key = opener.connection().key();
        report.heard(who.known_as(), greeting.team, key);
        report.connected(who.known_as(), greeting.team, key, true);
        peer_route& route = table_.find_or_add(who.known_as());
        link& fresh = add_link(route, opener.connection(), who);
        postings ours;
        if (route.is_opening()) {
            outgoing& yields = table_.take_under_way(route);
            ours.splice(ours.end(), yields.item);
            route.waiting_bytes -= ours.front().size;
            yields.end();
        }
        shared_.events.guard(fresh, [&] {
            fresh.say(fresh.head + std::string(connect_word));
            control_.on_opened(fresh);
            fresh.on_bytes(rest);
        });
        report.outcomes(ours, {});
        table_.schedule(route);
    }

    // For connections of ours.

    void on_finished(outgoing& done) noexcept override {
        one_shot& shot = done.shot();
        peer_route& route = *table_.find(shot.to());
        if (shot.linked()) {
            try {
                become_link(route, done);
            } catch (const std::bad_alloc&) {
                shot.fail(os::error_of(std::errc::not_enough_memory));
            }
        } else if (shot.opens_link()) {
            others_.forget_link(route.peer);
        }
        table_.take_under_way(route);
        if (postpone(route, done)) return;
        const auto error = shot.error();
        others_.has_ended(route.peer, error);
        route.waiting_bytes -= done.item.front().size;
        if (shot.is_absent()) shared_.report.keep(route.peer, done.item);
        shared_.report.outcomes(done.item, error);
        if (!error) shared_.report.present(route.peer);
        const bool unreachable = error && error != errc::not_taken && error != errc::unconfirmed;
        if (unreachable || (error && shot.opens_link())) control_.on_lost(route.peer);
        // An unreachable peer is not tried again for every message that waits.
        if (unreachable) {
            shared_.report.keep(route.peer, route.waiting);
            shared_.report.outcomes(route.waiting, error);
            route.waiting_bytes = 0;
        }
        done.end();
        incoming* const contender = std::exchange(route.contender, nullptr);
        if (contender) contender->contend(has_link(route.peer));
        peer_route& known = *table_.find_known(route.peer);
        if (&known != &route) {
            known.take_waiting(route);
            table_.make_ready(known);
        }
        table_.schedule(route);
    }

    void on_exit_heard(link& via) override {
        others_.forget_link(via.peer().known_as());
        peer_route* const route = table_.find(via.peer().known_as());
        if (!route || !route->current) return;
        link& current = *std::exchange(route->current, nullptr);
        if (&current != &via || via.unconfirmed() != 0) route->close_link(current);
        table_.schedule(*route);
    }

    void on_settled(link& via, std::size_t bytes) noexcept override {
        peer_route* const route = table_.find(via.peer().known_as());
        if (!route) return;
        route->closing_bytes -= bytes;
        --route->users;
        table_.schedule(*route);
    }
    void on_confirmed(link& via) noexcept override {
        table_.make_room();
        shared_.report.present(via.peer().known_as());
    }

    /// The peer stays known if there is a newer link, or if we closed this one and can reach it.
    void on_ended(link& ended, departure how, bool gone) noexcept override {
        links_.erase(ended.place);
        const endpoint& peer = ended.peer().known_as();
        peer_route* const route = table_.find(peer);
        if (route && route->current == &ended) route->current = nullptr;
        if (!has_link(peer)) {
            if (gone) shared_.report.left(peer, how), control_.on_lost(peer);
            shared_.report.set_linked(peer, false);
        }
        if (route && how != departure::lost) route->move_to_outbox(shared_.report);
        if (route) table_.schedule(*route);
    }

    /// Callers that have waited for their turn for too long; few enough to search all routes.
    void on_deadline(clock::time_point now) override {
        auto next = never;
        table_.for_each(
            [&](peer_route& route) { next = (std::min)(next, route.expire(shared_.report, now)); });
        shared_.events.arm(*this, next);
    }

private:
    void begin_next(peer_route& route) {
        route.close_unencrypted(shared_.keys);
        move_to_link(route);
        if (route.busy() || route.waiting.empty()) return table_.schedule(route);
        if (!table_.may_begin(route)) return;
        const bool may_link = links_.size() + table_.openings() < shared_.settings.max_links ||
                              (route.waiting.front().opens_link && evict_link(links_, route.peer));
        postings opening;
        if (may_link && !route.waiting.front().opens_link &&
            others_.wants_link(route.peer, shared_.events.now()))
            shared_.report.new_connect(opening);
        const peer_habits habits{others_.has_links(route.peer), others_.is_silent(route.peer)};
        auto& begun =
            shared_.events.add(std::make_unique<outgoing>(shared_, *this, route.peer, habits));
        // Not before: if there is no memory for a connection, the message is given up, not this.
        if (!opening.empty()) route.prepend(opening, shared_.head.size());
        posting& message = route.waiting.front();
        if (!may_link) message.opens_link = false;
        begun.item.splice(begun.item.end(), route.waiting, route.waiting.begin());
        table_.put_under_way(route, begun, message.opens_link);
        shared_.events.guard(begun, [&] { begun.begin(); });
    }

    /// Sends messages that waited for their turn over the link that there is by now.
    void move_to_link(peer_route& route) {
        while (route.current && !route.busy() && !route.waiting.empty()) {
            postings item;
            item.splice(item.end(), route.waiting, route.waiting.begin());
            route.waiting_bytes -= item.front().size;
            try {
                const std::string text = item.front().text;
                if (!item.front().is_kept()) item.front().text.clear();
                queue_on_link(route, text, item);
            } catch (const std::bad_alloc&) {
                shared_.report.outcomes(item, os::error_of(std::errc::not_enough_memory));
            }
        }
    }

    /// Strong exception guarantee. The link may break here.
    void queue_on_link(peer_route& route, std::string_view text, postings& item) {
        link& current = *route.current;
        if (item.front().opens_link) return shared_.report.outcomes(item, {});
        current.post(text, item, item.front().caller != nullptr);
        if (!route.current || !is_exit(text)) return;
        others_.forget_link(route.peer);
        route.current = nullptr;
        route.close_link(current);
    }

    /// No free descriptor: evicts an accepted connection, or waits for another message to end.
    bool postpone(peer_route& route, outgoing& failed) noexcept {
        if (!out_of_descriptors(failed.shot().error())) return false;
        const bool evicted = accepted_.evict();
        if (!evicted && table_.one_shots() == 0) return false;
        route.waiting.splice(route.waiting.begin(), failed.item);
        failed.end();
        if (evicted)
            table_.make_ready(route);
        else
            table_.defer(route);
        return true;
    }

    /// We have opened a link. The peer is known by its claim, as if it had opened the link.
    void become_link(peer_route& route, outgoing& opened) {
        one_shot& shot = opened.shot();
        message_view greeting;
        static_cast<void>(scan_over(shot.connection().socket(), route.peer, shared_.us,
                                    shot.greeting(), greeting));
        const bool holds =
            check_claim(shared_, greeting, route.peer, shot.connection()) == no_error;
        const link_peer who{route.peer, greeting.sender, holds, true};
        peer_route& known = table_.find_or_add(who.known_as());
        shared_.events.ignore(opened, shot.connection());
        // So that a caller that waits for the link then finds the peer listed.
        shared_.report.heard(who.known_as(), greeting.team, shot.connection().key());
        link& fresh = add_link(known, shot.connection(), who);
        table_.add_name(route, known);
        shared_.events.guard(fresh, [&] {
            shared_.events.write_later(fresh);  // from which on it is watched, too
            control_.on_opened(fresh);
            fresh.on_bytes(shot.rest());
        });
    }

    /// The link is used from now on; an older one ends once nothing is under way on it.
    link& add_link(peer_route& route, stream& connection, const link_peer& who) {
        others_.has_linked(who.known_as());
        link_list entry(1);  // before there is a link that might not get one
        link& fresh = shared_.events.add(
            std::make_unique<link>(shared_, *this, *this, control_, who, connection));
        entry.front() = &fresh;
        fresh.place = entry.begin();
        links_.splice(links_.end(), entry);
        shared_.report.set_linked(who.known_as(), true);
        link* const older = std::exchange(route.current, &fresh);
        if (older) route.close_link(*older);
        return fresh;
    }

    const context& shared_;
    acceptor& accepted_;
    control_handler& control_;
    link_list& links_;
    abilities& others_;
    route_table table_{shared_.settings.max_connections};
};

}  // namespace detail
}  // namespace p2pchat

// ------------------------------------------------------------------------------- >> candidates
//
// Does:        remembers peers that discovery has found or linked peers have named; exchanges known
//              peers with linked ones.
// May use:     text, socket, peers, mailbox, loop, identity, link, routes.
// Guarded by:  the node's mutex.
// Never:       connects to a candidate, or makes it a peer.

namespace p2pchat {
namespace detail {

/// A candidate, and which host told of it: its own, or a linked peer's.
struct found_peer {
    candidate who;
    endpoint source;
    bool told;                            // of, by a linked peer
    clock::time_point first, last;        // heard from that source
    clock::time_point answer_at = never;  // by discovery
    std::size_t asked_with = 0;           // bytes
};

/// The candidates, by address.
class candidate_table {
public:
    candidate_table(reporter& report, abilities& others) : report_(report), others_(others) {}

    template <typename Test>
    bool any_of(const Test& test) const {
        const auto of_address = [&](const auto& entry) { return test(entry.first); };
        return std::any_of(all_.begin(), all_.end(), of_address);
    }
    std::vector<candidate> snapshot() const {
        std::vector<candidate> result;
        result.reserve(all_.size());
        for (const auto& entry : all_) result.push_back(entry.second.who);
        return result;
    }
    /// From the host `source`: of itself, or `told` of another. Null if there is no room for one
    /// more, or this source has used up its share.
    found_peer* heard(const message_view& view, const endpoint& source, bool told,
                      clock::time_point now) {
        auto place = all_.find(view.sender);
        const bool fresh = place == all_.end();
        const bool renamed = !fresh && place->second.who.team != view.team;
        // What a candidate says of itself outweighs what others say.
        if (!fresh && told && !(place->second.told && place->second.source == source))
            return nullptr;
        const bool changes = fresh || renamed || place->second.told != told;
        if (changes && !make_room(fresh, source, told, now)) return nullptr;
        if (changes && !told) report_.arrived(view.sender, view.team);
        if (renamed) report_.changed(place->second.who, true);
        if (fresh)
            place = all_.insert({view.sender, {{view.sender, {}, {}, {}}, source, told, now, now}})
                        .first;
        found_peer& entry = place->second;
        if (entry.told != told) entry.first = now;
        entry.source = source;
        entry.told = told;
        entry.last = now;
        entry.who.last_heard = report_.wall_time();
        report_.present(view.sender, view.team);
        try {
            entry.who.team.assign(view.team);
            entry.who.knows.assign(view.text);
            if (fresh || renamed) report_.changed(entry.who, false);
        } catch (const std::bad_alloc&) {
            if (fresh) all_.erase(place);
            throw;
        }
        return &entry;
    }
    /// It is removed even if there is no memory for the event.
    void forget(const endpoint& address) noexcept {
        const auto found = all_.find(address);
        if (found == all_.end()) return;
        try {
            report_.changed(found->second.who, true);
        } catch (const std::bad_alloc&) {
        }
        others_.announced_tls(address, false);  // what it has announced lasts no longer
        all_.erase(found);
    }
    /// Forgets candidates not heard of for too long, and calls `answer` for those to be answered.
    /// Returns when to call this again.
    template <typename Answer>
    clock::time_point advance(clock::time_point now, const Answer& answer) {
        auto next = never;
        for (auto place = all_.begin(); place != all_.end();) {
            found_peer& entry = (place++)->second;
            if (entry.last + lifetime <= now) {
                forget(entry.who.address);
                continue;
            }
            if (entry.answer_at <= now) answer(entry);
            next = (std::min)({next, entry.last + lifetime, entry.answer_at});
        }
        for (auto host = spent_by_.begin(); host != spent_by_.end();)
            host = host->second <= now - lifetime ? spent_by_.erase(host) : std::next(host);
        return next;
    }

private:
    static constexpr std::size_t max = 256;
    static constexpr std::ptrdiff_t share_of_host = 8, share_of_teller = 64;
    static constexpr std::chrono::seconds lifetime{90}, settled{20};
    // When a network starts, `max` new ones may come at once; in a flood of false ones, only one
    // per interval, as each is an event.
    static constexpr std::chrono::milliseconds interval{31}, burst{8000};

    /// The time up to which a budget is spent after one more; if that is in the future, it was
    /// spent before.
    static clock::time_point spent_after(clock::time_point spent, clock::time_point now,
                                         clock::duration full, clock::duration each) {
        return (std::max)(spent, now - full) + each;
    }

    /// A newcomer evicts none firmer than itself: those only named by others go first, and those
    /// that have been there for a while stay.
    static int firmness(bool told, clock::duration age) {
        return (told ? 0 : 2) + (age >= settled ? 1 : 0);
    }

    /// Each source may add its share within a lifetime, even if those leave sooner: to spend what
    /// all have in common takes 360 hosts.
    bool make_room(bool fresh, const endpoint& source, bool told, clock::time_point now) {
        const std::ptrdiff_t share = told ? share_of_teller : share_of_host;
        const auto by_all = spent_after(spent_[told], now, burst, interval);
        const auto found = spent_by_.find({source, told});
        const auto before = found == spent_by_.end() ? clock::time_point() : found->second;
        const auto by_it = spent_after(before, now, lifetime, clock::duration(lifetime) / share);
        const auto same = [&](const auto& entry) {
            return entry.second.source == source && entry.second.told == told;
        };
        if ((std::max)(by_all, by_it) > now || report_.full() ||
            std::count_if(all_.begin(), all_.end(), same) >= share)
            return false;
        auto least = all_.end();
        if (fresh && all_.size() >= max) {
            const auto rank = [](const auto& entry) {
                const found_peer& peer = entry.second;
                return std::make_pair(firmness(peer.told, peer.last - peer.first), peer.last);
            };
            least = std::min_element(all_.begin(), all_.end(), [&](const auto& a, const auto& b) {
                return rank(a) < rank(b);
            });
            if (rank(*least).first > firmness(told, {})) return false;
        }
        spent_by_[{source, told}] = by_it;
        spent_[told] = by_all;
        if (least != all_.end()) forget(least->second.who.address);
        return true;
    }

    reporter& report_;
    abilities& others_;
    std::map<endpoint, found_peer> all_;
    // The times up to which budgets are spent: common ones, for peers heard themselves and for
    // peers named; and of each source. Bounded, as each source has spent of a common one, too.
    clock::time_point spent_[2] = {};
    std::map<std::pair<endpoint, bool>, clock::time_point> spent_by_;
};

/// Peers tell each other of third ones over a link if both have discovery on.
class peer_exchange final : public control_handler {
public:
    peer_exchange(const context& shared, link_list& links, const routes& ways,
                  const peer_table& peers, candidate_table& found)
        : shared_(shared), links_(links), routes_(ways), peers_(peers), found_(found) {}

    void on_opened(link& via) override {
        if (shared_.settings.discovery) via.say("KNOWS 1");
    }
    /// It is found anew when it is heard again, so that programs connect to it.
    void on_lost(const endpoint& peer) noexcept override { found_.forget(peer); }
    bool on_control(link& via, std::string_view line) override {
        const auto word = line.substr(0, line.find(' '));
        const bool known = word == "KNOWS" || word == "PEERS" || word == "PEER";
        if (!known || !shared_.settings.discovery) return known;
        if (word == "PEERS") tell(via);
        if (word == "PEER" && !take(via, trimmed(line.substr(word.size()))))
            ++shared_.report.counts().ignored;
        if (word == "KNOWS") {
            via.exchange_state.known = true;
            ask(via);
        }
        return true;
    }
    void ask_all() {
        for (link* const via : links_) ask(*via);
    }

private:
    static constexpr int told_at_once = 50;
    static constexpr std::chrono::minutes recently{10};

    void ask(link& via) {
        auto& state = via.exchange_state;
        const auto now = shared_.events.now();
        if (!state.known || now < state.ask_from) return;
        via.say("PEERS");
        state.ask_from = now + std::chrono::seconds(60);
        state.expected = told_at_once;
    }
    void tell(link& via) {
        auto& state = via.exchange_state;
        const auto now = shared_.events.now();
        if (now < state.tell_from) return;
        state.tell_from = now + std::chrono::seconds(50);
        int left = told_at_once;
        for (const peer& known : peers_.snapshot()) {
            const link* const by = routes_.link_to(known.address);
            const bool fresh = shared_.report.wall_time() - known.last_heard < recently;
            if ((by ? by == &via || !by->peer().reachable : !fresh) || known.address.scope() != 0 ||
                known.address.is_loopback() != via.peer().remote.is_loopback())
                continue;
            std::string line("PEER ");
            append_endpoint(line, known.address, false);
            via.say(line.append(1, '/').append(known.team));
            if (--left == 0) return;
        }
    }
    /// Ignores addresses that mean nothing here, and lines that were not asked for.
    bool take(link& via, std::string_view who) {
        if (via.exchange_state.expected == 0) return false;
        --via.exchange_state.expected;
        const auto slash = (std::min)(who.find('/'), who.size());
        message_view view;
        view.team = who.substr((std::min)(slash + 1, who.size()));
        if (parse(who.substr(0, slash), view.sender) || !view.sender || !is_team(view.team))
            return false;
        const endpoint& teller = via.peer().remote;
        if (view.sender.scope() != 0 || view.sender.is_loopback() != teller.is_loopback() ||
            is_own(shared_.us, view.sender))
            return false;
        return found_.heard(view, host_of(teller), true, shared_.events.now());
    }

    const context& shared_;
    link_list& links_;
    const routes& routes_;
    const peer_table& peers_;
    candidate_table& found_;
};

}  // namespace detail
}  // namespace p2pchat

// -------------------------------------------------------------------------------- >> discovery
//
// Does:        announces us on each of our networks, and listens for others.
// May use:     platform, text, socket, peers, mailbox, loop, keys, identity, candidates.
// Guarded by:  the node's mutex.
// Never:       answers a datagram but with a shorter one, to where it came from.

namespace p2pchat {
namespace detail {

/// The multicast group that all nodes join.
inline endpoint group_for(const endpoint& local) noexcept {
    return local.is_v4() ? endpoint("239.255.112.50", 0) : endpoint("ff12::7032", 0);
}

class discovery;

/// A datagram socket, of one network or shared. Destroyed between turns: events may point to it.
class datagram_port final : public io_object {
public:
    datagram_port(loop& events, discovery& owner, const os::interface_address& on)
        : network(on), events_(events), owner_(owner) {}
    ~datagram_port() override {
        if (socket_ == tcp_socket::invalid) return;
        events_.ignore(*this, *this);
        os::close(socket_);
    }
    bool open(std::uint16_t port, bool shared) {
        return !os::open_datagram_port(network, port, shared, socket_) &&
               !events_.watch(*this, *this, true, false);
    }
    os::handle native_handle() const noexcept { return socket_; }
    void on_readable() override;

    const os::interface_address network;

private:
    loop& events_;
    discovery& owner_;
    os::handle socket_ = tcp_socket::invalid;
};

class discovery final : io_object {
public:
    discovery(const context& shared, abilities& others, candidate_table& found,
              peer_exchange& peers)
        : shared_(shared), others_(others), found_(found), exchange_(peers) {}

    void start() {
        random_ = std::hash<endpoint>()(shared_.us.address) ^
                  static_cast<std::size_t>(shared_.report.wall_time().time_since_epoch().count());
        // Where the system tells of no changes, they are found when we announce ourselves next.
        if (!changes_.open()) shared_.events.watch(*this, changes_, true, false);
        refresh();
        announce_at_ = shared_.events.now();
        shared_.events.arm(*this, announce_at_);
    }
    void stop() noexcept {
        // Out of memory, others just learn of it later.
        shared_.events.guard(*this, [this] { announce("exit"); });
        ours_.clear();
        common_.clear();
        shared_.events.ignore(*this, changes_);
        changes_.close();
        shared_.events.arm(*this, never);
    }

    /// Changes come in bunches.
    void on_readable() override {
        if (!changes_.drain() || look_at_ != never) return;
        look_at_ = after(shared_.events.now(), std::chrono::milliseconds(500));
        if (look_at_ < shared_.events.deadline_of(*this)) shared_.events.arm(*this, look_at_);
    }
    void on_deadline(clock::time_point now) override {
        if (look_at_ <= now) look_again(now);
        if (announce_at_ <= now) announce_again(now);
        const auto next = found_.advance(now, [this](found_peer& entry) { answer(entry); });
        shared_.events.arm(*this, (std::min)({next, announce_at_, look_at_}));
    }
    void on_failure(std::error_code) noexcept override {
        shared_.events.arm(*this, after(shared_.events.now(), std::chrono::seconds(1)));
    }

    void on_datagram(const datagram_port& at, std::string_view bytes, const endpoint& from) {
        message_view view;
        const bool valid = bytes.size() <= 512 && scan_from(bytes, from, view) == no_error;
        const auto ours = [&](const datagram_port& port) { return from == claim_on(port); };
        if (std::any_of(ours_.begin(), ours_.end(), ours)) return;
        auto& counts = shared_.report.counts();
        if (!valid || !network_of(from) || view.sender != from) return ++counts.ignored, void();
        const auto word = view.text.substr(0, view.text.find(' '));
        if (is_exit(word)) return found_.forget(from);
        view.text = trimmed(view.text.substr(word.size()));
        const auto now = shared_.events.now();
        const bool known = (word == hello || word == here) &&
                           value_of(view.text, application_word) == shared_.settings.application;
        auto* const entry = known ? found_.heard(view, host_of(from), false, now) : nullptr;
        if (!entry) return ++counts.ignored, void();
        const bool fresh = entry->first == now;
        if (fresh) others_.has_linked(from);
        shared_.keys.announced(from, has_word(entry->who.knows, tls_word));
        // Whatever arrives at a port of our own is an answer.
        const bool asks = !is_named(at.network.local) && (fresh || word == hello);
        if (!asks || entry->answer_at != never) return;
        entry->answer_at = after(now, drawn(0, 500));
        entry->asked_with = bytes.size();
        if (entry->answer_at < shared_.events.deadline_of(*this))
            shared_.events.arm(*this, entry->answer_at);
    }

private:
    using ports = std::list<datagram_port>;
    static constexpr std::string_view hello = "HELLO", here = "HERE", tls_word = "tls",
                                      application_word = "app=";
    static constexpr std::size_t max_networks = 16;
    // Enough for IPv6, the longest team and application.
    static constexpr std::size_t announcement_bytes = 192;

    std::chrono::milliseconds drawn(unsigned least, unsigned most) noexcept {
        random_ = random_ * 6364136223846793005u + 1442695040888963407u;
        return std::chrono::milliseconds(least + (random_ >> 33) % (most - least + 1));
    }
    endpoint claim_on(const datagram_port& on) const noexcept {
        const endpoint& local = on.network.local;
        return {local.bytes(), shared_.us.address.port(), local.scope()};
    }
    const datagram_port* network_of(const endpoint& address) const noexcept {
        for (const datagram_port& port : ours_)
            if (in_network(address, port.network)) return &port;
        return nullptr;
    }

    void look_again(clock::time_point now) {
        const bool fresh = refresh();
        look_at_ = never;
        if (!fresh) return;
        announced_ = 0;
        announce_at_ = now;
    }
    void announce_again(clock::time_point now) {
        if (refresh()) announced_ = 0;
        // If another program holds the shared port, only answers reach us.
        announce(announced_ < 3 || deaf_ ? hello : here);
        const std::chrono::milliseconds at_first(1000 * (announced_ + 1));
        announce_at_ = after(now, announced_ < 2 ? at_first : drawn(27000, 33000));
        announced_ = (std::min)(announced_ + 1, 3);
        exchange_.ask_all();
    }
    void announce(std::string_view word) {
        for (const datagram_port& port : ours_) {
            const auto& on = port.network;
            if (!on.local.is_v4() && !needs_v6(on)) continue;
            const std::string text = datagram(port, word, announcement_bytes);
            const auto send = [&](const endpoint& to) {
                const endpoint all(to.bytes(), shared_.settings.discovery_port, on.local.scope());
                const bool failed = bool(os::send_to(port.native_handle(), text, all));
                auto& counts = shared_.report.counts();
                ++(failed ? counts.unannounced : counts.announced);
            };
            send(group_for(on.local));
            if (on.broadcast) send(broadcast_of(on));
        }
    }
    /// No answer is longer than its question: see datagram().
    void answer(found_peer& entry) {
        entry.answer_at = never;
        const datagram_port* const within = network_of(entry.who.address);
        if (!within) return;
        const std::string text = datagram(*within, here, 0);
        if (text.size() > entry.asked_with) return;
        static_cast<void>(os::send_to(within->native_handle(), text, entry.who.address));
    }
    /// Padded to a size, as announcements are, so that they are longer than any answer.
    std::string datagram(const datagram_port& from, std::string_view word, std::size_t size) const {
        std::string text = head_of(claim_on(from), shared_.us.team).append(word);
        if (shared_.keys.maker()) text.append(1, ' ').append(tls_word);
        const std::string& application = shared_.settings.application;
        if (!application.empty()) text.append(1, ' ').append(application_word).append(application);
        text.resize((std::max)(text.size(), size), ' ');
        return text;
    }
    /// If there is no IPv4, or a candidate without it.
    bool needs_v6(const os::interface_address& on) const noexcept {
        if (found_.any_of([&](const endpoint& who) { return in_network(who, on); })) return true;
        for (const datagram_port& other : ours_) {
            const auto& its = other.network;
            if (its.local.is_v4() && (its.index == on.index || its.index == 0)) return false;
        }
        return true;
    }

    /// Opens a port on each network that we are on now; true if one is new.
    bool refresh() {
        const auto now = networks();
        ours_.remove_if([&](const datagram_port& port) {
            return std::find(now.begin(), now.end(), port.network) == now.end();
        });
        bool fresh = false;
        deaf_ = false;
        for (const auto& on : now) {
            hear_all(on);
            const auto same = [&](const datagram_port& port) { return port.network == on; };
            if (std::any_of(ours_.begin(), ours_.end(), same)) continue;
            fresh |= add_port(ours_, on, false);
        }
        return fresh;
    }
    void hear_all(const os::interface_address& on) {
        const bool v4 = on.local.is_v4();
        const auto same = [&](const datagram_port& port) {
            return port.network.local.is_v4() == v4;
        };
        auto place = std::find_if(common_.begin(), common_.end(), same);
        if (place == common_.end()) {
            os::interface_address any;
            if (v4) any.local = endpoint("0.0.0.0", 0);
            if (!add_port(common_, any, true)) return deaf_ = true, void();
            place = std::prev(common_.end());
        }
        // The socket may have joined the group already.
        static_cast<void>(os::join(place->native_handle(), group_for(on.local), on));
    }
    bool add_port(ports& to, const os::interface_address& on, bool shared) {
        const auto port = shared ? shared_.settings.discovery_port : shared_.us.address.port();
        to.emplace_back(shared_.events, *this, on);
        if (to.back().open(port, shared)) return true;
        to.pop_back();
        ++shared_.report.counts().unannounced;
        return false;
    }
    /// Of too many, as where containers run: those of the interface with the default route, then
    /// those where a broadcast reaches others. The rest are counted, so that it can be seen.
    void keep_best(std::vector<os::interface_address>& all) const {
        const endpoint outward = detect_address();
        std::uint32_t index = 0;  // of its interface
        os::visit_interfaces([&](const os::interface_address& address) {
            if (address.local.same_address(outward)) index = address.index;
            return index != 0;
        });
        const auto rank = [&](const os::interface_address& address) {
            const bool leads_out =
                index != 0 ? address.index == index : address.local.same_address(outward);
            const int others = 1 + (address.broadcast ? 0 : 1) + (address.local.is_v4() ? 0 : 1);
            return std::make_pair(leads_out ? 0 : others, address.index);
        };
        std::sort(all.begin(), all.end(),
                  [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
        for (; all.size() > max_networks; all.pop_back()) ++shared_.report.counts().unannounced;
    }
    /// The networks on which others may know us by the address that we claim. For IPv6, link-local
    /// addresses: one for each interface, reachable only from the same network.
    std::vector<os::interface_address> networks() const {
        const auto& us = shared_.us;
        std::vector<os::interface_address> found, loopback;
        os::visit_interfaces([&](os::interface_address address) {
            const endpoint& local = address.local;
            if (local.is_loopback() && local.is_v4() == us.address.is_v4() && loopback.empty()) {
                if (us.address.is_loopback()) address.local = {us.address.bytes(), 0, 0};
                loopback.push_back(address);
            } else if (us.configured ? local.same_address(us.address) && !address.loopback
                                     : !address.loopback && (local.is_v4() || local.scope() != 0)) {
                found.push_back(address);
            }
            return false;
        });
        if (found.size() > max_networks) keep_best(found);
        const bool nowhere_else = us.configured ? us.address.is_loopback() : found.empty();
        return nowhere_else ? loopback : found;
    }

    const context& shared_;
    abilities& others_;
    candidate_table& found_;
    peer_exchange& exchange_;
    ports ours_;    // one for each of our networks
    ports common_;  // on the shared port; one for each family
    bool deaf_ = false;
    int announced_ = 0;
    os::address_watch changes_;
    clock::time_point look_at_ = never;  // at the interfaces, which have changed
    clock::time_point announce_at_ = never;
    std::uint64_t random_ = 0;
};

inline void datagram_port::on_readable() {
    auto& buffer = events_.buffer();
    for (int i = 0; i < 64; ++i) {  // so that others get their turn
        std::size_t size = 0;
        endpoint from;
        const auto error = os::receive_from(socket_, buffer, sizeof buffer, size, from);
        if (error == std::errc::operation_would_block) return;
        // Otherwise the error is about something that we sent.
        if (!error) owner_.on_datagram(*this, {buffer, size}, from);
    }
}

}  // namespace detail
}  // namespace p2pchat

// ----------------------------------------------------------------------------------- >> outbox
//
// Does:        keeps messages for absent peers, posts them again when the peer gives a sign of
//              life, and reports those that expire before.
// May use:     platform, socket, mailbox, loop, identity, routes.
// Guarded by:  the node's mutex.
// Never:       posts except in do_work(): its callers are in the middle of their own work.

namespace p2pchat {
namespace detail {

class outbox final : public keeper, io_object {
public:
    explicit outbox(const context& shared) : shared_(shared) {}

    /// It may be kept from now on. Its time is its number as well: no two have the same.
    void number(posting& fresh) noexcept {
        const auto until = after(shared_.events.now(), shared_.settings.keep_for);
        last_ = fresh.keep_until = (std::max)(until, last_ + clock::duration(1));
    }
    /// Whether messages are kept for the peer, which the next one must not overtake.
    bool has(const endpoint& peer) const noexcept override {
        return !boxes_.empty() && boxes_.find(peer_at(peer)) != boxes_.end();
    }
    /// Behind those kept for that team already, or for the one that is there. If it is there, as
    /// far as we know, all of them are tried.
    std::error_code add(const endpoint& peer, std::string_view team, std::string_view text,
                        postings& item) {
        if (shared_.head.size() + text.size() > shared_.settings.max_message_bytes)
            return make_error_code(errc::message_too_long);
        item.front().text.assign(text);
        const recipient there = peer_at(peer);
        put({peer, team.empty() ? there.team : team}, item, item.begin());
        if (!item.empty()) return make_error_code(errc::queue_full);
        if (team.empty() || team == there.team) on_present(peer, {});
        return {};
    }
    void keep(const endpoint& peer, postings& messages) noexcept override {
        for (auto next = messages.begin(); next != messages.end();) {
            const auto item = next++;
            if (item->is_kept() && !item->reported) put(peer_at(peer), messages, item);
        }
    }
    void on_arrival(const endpoint& peer, std::string_view team,
                    std::string_view formerly) override {
        if (teams_.size() >= shared_.settings.max_peers && teams_.count(peer) == 0) forget_teams();
        teams_[peer].assign(team);
        for (const auto former : {std::string_view(), formerly}) {
            const auto found = boxes_.find(recipient{peer, former});
            if (found == boxes_.end() || former == team) continue;
            key fresh{peer, std::string(team)};
            auto taken = boxes_.extract(found);
            taken.key() = std::move(fresh);
            put_back(std::move(taken));
        }
    }
    void on_present(const endpoint& peer, std::string_view team) noexcept override {
        if (boxes_.empty()) return;
        for (const auto of : {std::string_view(), team.empty() ? peer_at(peer).team : team}) {
            const auto found = boxes_.find(recipient{peer, of});
            if (found != boxes_.end()) ready_ = found->second.ready = true;
        }
    }

    bool has_work() const noexcept { return ready_; }
    void do_work(routes& ways) noexcept {
        if (!std::exchange(ready_, false)) return;
        for (auto place = boxes_.begin(); place != boxes_.end();) {
            const auto entry = place++;
            if (std::exchange(entry->second.ready, false)) post_all(ways, boxes_.extract(entry));
        }
    }

    std::vector<kept_message> kept() const {
        std::vector<kept_message> result;
        for (const auto& [to, held] : boxes_)
            for (const posting& message : held.waiting)
                result.push_back({to.peer, message.text, to.team});
        return result;
    }
    void stop() noexcept {
        for (auto& [to, held] : boxes_)
            shared_.report.outcomes(held.waiting, make_error_code(errc::not_sent));
        boxes_.clear();
        bytes_ = 0;
        shared_.events.arm(*this, never);
    }

    void on_deadline(clock::time_point now) override {
        auto next = never;
        for (auto place = boxes_.begin(); place != boxes_.end();) {
            auto& held = place->second;
            auto& waiting = held.waiting;
            while (!waiting.empty() && waiting.front().keep_until <= now) {
                release(held, cost_of(waiting.front()));
                shared_.report.outcome(waiting, waiting.begin(), make_error_code(errc::expired));
            }
            if (!waiting.empty()) next = (std::min)(next, waiting.front().keep_until);
            place = waiting.empty() ? boxes_.erase(place) : std::next(place);
        }
        shared_.events.arm(*this, next);
    }

private:
    struct box {
        postings waiting;  // in the order in which they were posted
        std::size_t bytes = 0;
        bool ready = false;  // the peer gave a sign of life
    };
    /// A peer without a key. The team is empty as long as none is known.
    struct recipient {
        endpoint peer;
        std::string_view team;
    };
    struct key {
        endpoint peer;
        std::string team;
    };
    struct by_recipient {
        using is_transparent = void;
        template <typename A, typename B>
        bool operator()(const A& a, const B& b) const noexcept {
            return a.peer != b.peer ? a.peer < b.peer
                                    : std::string_view(a.team) < std::string_view(b.team);
        }
    };
    using boxes = std::map<key, box, by_recipient>;

    recipient peer_at(const endpoint& address) const noexcept {
        const auto found = teams_.find(address);
        return {address, found == teams_.end() ? std::string_view() : found->second};
    }
    /// There are too many: those for which nothing is kept.
    void forget_teams() noexcept {
        for (auto place = teams_.begin(); place != teams_.end();)
            place = has(place->first) ? std::next(place) : teams_.erase(place);
    }
    static std::size_t cost_of(const posting& message) noexcept {
        return sizeof message + message.text.size();
    }
    void release(box& from, std::size_t cost) noexcept {
        from.bytes -= cost;
        bytes_ -= cost;
    }

    /// A message that was sent and comes back is older than one that has never left.
    static void merge(postings& to, postings& from) noexcept {
        if (from.empty()) return;
        const auto older = [](const posting& a, const posting& b) {
            return a.keep_until < b.keep_until;
        };
        const bool newest = to.empty() || older(to.back(), from.front());
        newest ? to.splice(to.end(), from) : to.merge(from, older);
    }

    /// If there is no room, it stays in its list.
    void put(const recipient& to, postings& from, postings::iterator item) noexcept {
        const auto& settings = shared_.settings;
        const std::size_t cost = cost_of(*item);
        if (bytes_ + cost > settings.max_kept_bytes) return;
        try {
            if (item->keep_until < shared_.events.deadline_of(*this))
                shared_.events.arm(*this, item->keep_until);
            box& held = boxes_[{to.peer, std::string(to.team)}];
            if (held.bytes != 0 && held.bytes + cost > settings.max_queued_bytes) return;
            if (!item->kept) shared_.report.kept(to.peer, to.team, item->text);
            item->kept = true;
            held.bytes += cost;
            bytes_ += cost;
            postings single;
            single.splice(single.end(), from, item);
            merge(held.waiting, single);
        } catch (const std::bad_alloc&) {
            // Then it is reported as if it were not to be kept; an empty box does no harm.
        }
    }

    /// Until there is no room.
    void post_all(routes& ways, boxes::node_type taken) noexcept {
        const endpoint& peer = taken.key().peer;
        box& held = taken.mapped();
        while (!held.waiting.empty()) {
            postings item;
            item.splice(item.end(), held.waiting, held.waiting.begin());
            const std::size_t cost = cost_of(item.front());
            std::error_code error;
            try {
                const std::string text = item.front().text;
                error = ways.post(peer, text, item);
            } catch (const std::bad_alloc&) {
                error = os::error_of(std::errc::not_enough_memory);
            }
            const bool later = error == errc::queue_full || error == std::errc::not_enough_memory;
            if (later) {
                held.waiting.splice(held.waiting.begin(), item);
                break;
            }
            release(held, cost);
            shared_.report.outcomes(item, error);
        }
        if (!held.waiting.empty()) put_back(std::move(taken));
    }
    void put_back(boxes::node_type taken) noexcept {
        const auto place = boxes_.insert(std::move(taken));
        if (place.inserted) return;
        box& now = place.position->second;
        now.bytes += place.node.mapped().bytes;
        now.ready |= place.node.mapped().ready;
        merge(now.waiting, place.node.mapped().waiting);
    }

    const context& shared_;
    boxes boxes_;                                      // none empty, except while being filled
    std::unordered_map<endpoint, std::string> teams_;  // the last one heard of at each address
    std::size_t bytes_ = 0;                            // in all of them
    bool ready_ = false;                               // at least one of them is
    clock::time_point last_{};                         // the latest time given
};

}  // namespace detail
}  // namespace p2pchat

// ------------------------------------------------------------------------------------- >> node
//
// Does:        the engine, which is the whole protocol as one plain object; and around it the lock,
//              the two threads, and the callers that wait.
// May use:     all above.
// Guarded by:  locks in this order: `lifecycle_` (one start() or stop() at a time, the threads),
//              `mutex_` (the engine and all that is marked below).
// Never:       runs anything of the user's under a lock; the engine starts no thread, reads no
//              clock and waits for nothing.

namespace p2pchat {
namespace detail {

inline bool is_valid(const config& settings) noexcept {
    const auto& application = settings.application;
    if (!application.empty() && (!is_team(application) || application.size() > 32)) return false;
    for (const auto size :
         {settings.max_message_bytes, settings.max_connections, settings.max_peers,
          settings.max_queued_bytes, settings.max_received_bytes, settings.max_kept_bytes})
        if (size == 0) return false;
    for (const auto time :
         {settings.connect_timeout, settings.handshake_timeout, settings.delivery_timeout,
          settings.first_message_timeout, settings.quiet_period, settings.drain_timeout})
        if (time.count() < 0) return false;
    return settings.keep_alive.count() >= 0 && settings.keep_for.count() >= 0 &&
           settings.discovery_port != 0;
}

/// All of a node except threads and waiting: it is given events and the time, and asks the platform
/// for sockets.
class engine {
public:
    engine(const config& settings, counters& counts)
        : settings_(settings), report_(mailbox_, peers_, counts, outbox_, settings.confirm_later) {}

    std::error_code start(clock::time_point now) {
        if (!is_valid(settings_)) return make_error_code(errc::bad_setting);
        if (!is_sendable_team(settings_.team)) return make_error_code(errc::bad_team);
        us_.team = settings_.team;
        us_.configured = !settings_.address.empty();
        us_.address = us_.configured ? endpoint(settings_.address, 0) : detect_address();
        if (!is_named(us_.address)) return make_error_code(errc::bad_address);
        set_time(now, os::wall_time());
        if (const auto error = keys_.open(settings_)) return error;
        if (const auto error = acceptor_.open(settings_.port)) return error;
        us_.address = endpoint(us_.address.bytes(), acceptor_.port(), us_.address.scope());
        head_ = head_of(us_.address, us_.team);
        if (const auto error = events_.open()) return error;
        if (settings_.discovery) discovery_.start();
        return acceptor_.start();
    }

    void stop(std::error_code why) noexcept {
        discovery_.stop();
        acceptor_.close();
        routes_.stop(why);
        outbox_.stop();
    }

    loop& events() noexcept { return events_; }
    mailbox& mail() noexcept { return mailbox_; }  ///< what the handlers are to be told
    void set_time(clock::time_point now, std::chrono::system_clock::time_point wall) noexcept {
        events_.set_time(now);
        report_.set_time(wall);
    }
    const own_name& us() const noexcept { return us_; }

    void may_keep(posting& fresh) noexcept { outbox_.number(fresh); }
    std::error_code post(const endpoint& to, std::string_view text, postings& item) {
        // Outcomes that wait for the handlers are bounded as messages are.
        if (item.front().done && mailbox_.is_backlogged()) return make_error_code(errc::queue_full);
        if (item.front().is_kept()) {
            const endpoint peer = known_as(to);
            if (outbox_.has(peer)) return outbox_.add(peer, {}, text, item);
        }
        return routes_.post(to, text, item);
    }
    std::error_code keep(const kept_message& message, std::string_view text, postings& item) {
        if (item.front().done && mailbox_.is_backlogged()) return make_error_code(errc::queue_full);
        return outbox_.add(message.to, message.team, text, item);
    }
    /// The address in peers() of a peer that is linked and was reached by another one.
    endpoint known_as(const endpoint& to) const noexcept {
        const link* const current = routes_.link_to(to);
        return current ? current->peer().known_as() : to;
    }
    void forget(const endpoint& known) noexcept { report_.left(known, departure::by_us); }
    bool reserve(const endpoint& to, std::string_view text) {
        return !keys_.wants(to) && routes_.reserve(to, text);
    }
    void release(const endpoint& to, std::error_code outcome) noexcept {
        routes_.release(to, outcome);
    }
    void confirm(std::uint64_t receipt, bool taken) noexcept { report_.confirm(receipt, taken); }
    bool room_made() noexcept { return routes_.room_made(); }

    bool is_own(const endpoint& peer) const noexcept { return detail::is_own(us_, peer); }
    bool has_link(const endpoint& peer) const noexcept { return routes_.has_link(peer); }

    std::vector<peer> peers() const {
        auto result = peers_.snapshot();
        for (peer& known : result) {
            const link* const current = routes_.link_to(known.address);
            known.linked = current != nullptr;
            known.key = current ? current->key() : keys_.of(known.address);
        }
        return result;
    }
    const public_key& key() const noexcept { return keys_.own(); }
    std::error_code trust(const endpoint& peer, const public_key& key) {
        const auto error = keys_.trust(peer, key);
        for (auto next = links_.begin(); next != links_.end();) {
            link& linked = **next++;
            if (linked.peer().is_at(peer) && !keys_.accepts(peer, linked.key()))
                linked.on_failure(make_error_code(errc::key_changed));
        }
        return error;
    }

    std::vector<candidate> candidates() const { return found_.snapshot(); }
    std::vector<kept_message> kept() const { return outbox_.kept(); }

    /// Begins all that can begin.
    void do_work() noexcept {
        while (!rooms_.empty() && !report_.full()) rooms_.next().on_room();
        outbox_.do_work(routes_);
        routes_.do_work();
        events_.run_writers();
    }
    /// Whether there is something to do before an event comes.
    bool has_work() const noexcept {
        return routes_.has_work() || events_.has_writers() || outbox_.has_work() ||
               (!rooms_.empty() && !report_.full());
    }

private:
    const config& settings_;
    mailbox mailbox_{settings_.max_received_bytes};
    own_name us_;
    std::string head_;
    peer_table peers_{settings_.max_peers};
    reporter report_;
    abilities abilities_{settings_.max_peers};
    keyring keys_{abilities_};  // outlives the connections, which the loop owns
    loop events_;
    room_queue rooms_;
    const context shared_{settings_, us_, head_, events_, report_, rooms_, keys_};
    acceptor acceptor_{shared_, routes_};
    link_list links_;
    outbox outbox_{shared_};
    routes routes_{shared_, acceptor_, exchange_, links_, abilities_};
    candidate_table found_{report_, abilities_};
    peer_exchange exchange_{shared_, links_, routes_, peers_, found_};
    discovery discovery_{shared_, abilities_, found_, exchange_};
};

/// The user's handlers, called by one thread only, until they are closed.
class event_handlers {
public:
    node::message_handler on_message;
    node::joined_handler on_joined;
    node::left_handler on_left;
    node::joined_handler on_connected;
    node::rejected_handler on_rejected;
    node::candidate_handler on_found, on_gone;
    node::kept_handler on_kept;
    node::key_handler on_key_changed;

    void resume() noexcept { end_ = never; }
    /// From now on nothing is called, and messages are counted as dropped. The first call counts.
    void stop_at(clock::time_point end) noexcept {
        auto none = never;
        end_.compare_exchange_strong(none, end);
    }
    std::uint64_t dropped() const noexcept { return dropped_; }

    /// The calling thread is the one that calls the handlers.
    void begin_here() noexcept { thread_ = std::this_thread::get_id(); }
    void end() noexcept { thread_ = std::thread::id(); }
    bool called_here() const noexcept { return thread_.load() == std::this_thread::get_id(); }

    /// Its strings are moved from: there may be no memory for copies.
    void call(event& news) {
        const auto end = end_.load(std::memory_order_relaxed);
        if (end == never || os::now() < end)
            call_for(news);
        else if (news.kind == event_kind::message)
            ++dropped_;
    }

private:
    void call_for(event& news) {
        const endpoint& about = news.content.sender;
        switch (news.kind) {
            case event_kind::message:
                return call_if(on_message, news.content);
            case event_kind::joined:
                return call_if(on_joined, peer_of(news, {}));
            case event_kind::left:
                return call_if(on_left, peer_of(news, {}), news.how);
            case event_kind::connected:
                return call_if(on_connected, peer_of(news, news.content.key));
            case event_kind::rejected:
                return call_if(on_rejected, about, news.why);
            case event_kind::found:
                return call_if(on_found, candidate_of(news));
            case event_kind::gone:
                return call_if(on_gone, candidate_of(news));
            case event_kind::kept:
                return call_if(on_kept, kept_message{about, std::move(news.content.text),
                                                     std::move(news.content.team)});
            case event_kind::key_changed:
                return call_if(on_key_changed, peer_of(news, news.content.key));
        }
    }
    template <typename Handler, typename... About>
    static void call_if(const Handler& handler, const About&... about) {
        if (handler) handler(about...);
    }
    static peer peer_of(event& news, const public_key& key) {
        const bool linked = news.kind == event_kind::connected && news.content.by_link;
        return {news.content.sender, std::move(news.content.team), os::wall_time(), linked, key};
    }
    static candidate candidate_of(event& news) {
        message& about = news.content;
        return {about.sender, std::move(about.team), std::move(about.text), os::wall_time()};
    }

    std::atomic<std::thread::id> thread_{};
    std::atomic<clock::time_point> end_{never};
    std::atomic<std::uint64_t> dropped_{0};
};

/// Runs a one-shot in the calling thread: no other has to wake up, which makes it twice as fast.
/// Ends early when `stopping` is signalled.
inline void run_one_shot(one_shot& shot, std::string_view text, const config& settings,
                         const own_name& us, os::channel& stopping) noexcept {
    try {
        shot.start(text, false, settings, us, os::now(), never);
        const auto stopped = stopping.in();
        while (!shot.done()) {
            const auto looked = os::now();  // what had arrived by then is read before it expires
            const bool waits = shot.wants_write() || shot.wants_read();
            const auto error =
                os::wait_ready(waits ? shot.connection().native_handle() : stopped,
                               shot.wants_write(), remaining(shot.deadline(), looked), stopped);
            if (error == std::errc::operation_canceled || (!waits && !error))
                shot.fail(make_error_code(errc::stopped));
            else if (!error)
                shot.advance(settings, os::now());
            if (!shot.done() && looked >= shot.deadline()) shot.expire(settings, looked);
        }
    } catch (const std::bad_alloc&) {
        shot.fail(os::error_of(std::errc::not_enough_memory));
    }
    if (!shot.ends_in_order()) shot.connection().reset();
}

/// Why nothing can be sent there.
inline errc refusal_of(const endpoint& to) noexcept {
    if (to) return no_error;
    return is_named(to) ? errc::bad_port : errc::bad_address;
}

/// Why a text cannot be sent, as far as that is known before anything else.
inline errc refusal_of(std::string_view text) noexcept {
    if (!is_sendable(text)) return errc::bad_text;
    return text == connect_word || is_exit(text) ? errc::is_command : no_error;
}
inline errc refusal_of(const endpoint& to, std::string_view text) noexcept {
    return to ? refusal_of(text) : refusal_of(to);
}

/// The engine, the lock around it, and the callers that wait for outcomes or for room. The
/// protected part is for the node's own threads.
class locked_engine {
protected:
    using lock = std::unique_lock<std::mutex>;

    /// A thread that waits for something: the node does not end before it has returned. Constructed
    /// under the lock, which it holds again when destroyed.
    class caller {
    public:
        caller(locked_engine& of, lock& held) noexcept : of_(of), held_(held) {
            ++of_.callers_;
            if (of_.handlers.called_here()) of_.call_standby();
        }
        caller(const caller&) = delete;
        caller& operator=(const caller&) = delete;
        ~caller() {
            if (!held_.owns_lock()) held_.lock();
            if (--of_.callers_ == 0) of_.changed_.notify_all();
        }

    private:
        locked_engine& of_;
        lock& held_;
    };

public:
    event_handlers handlers;

    explicit locked_engine(config settings) : settings_(std::move(settings)) {
        constexpr std::size_t most = 1 << 30;  // sums of these do not overflow
        for (auto* size :
             {&settings_.max_message_bytes, &settings_.max_connections, &settings_.max_links,
              &settings_.max_peers, &settings_.max_received_bytes, &settings_.max_kept_bytes})
            *size = (std::min)(*size, most);
        settings_.max_queued_bytes = (std::min)(settings_.max_queued_bytes, link_window);
    }

    void confirm(std::uint64_t receipt, bool taken) noexcept {
        const lock held(mutex_);
        if (!running_) return;
        refresh_time();
        engine_->confirm(receipt, taken);
        after_call();
    }

    /// A list from the engine.
    template <typename Item>
    std::vector<Item> list(std::vector<Item> (engine::*all)() const) const {
        const lock held(mutex_);
        return engine_ ? (engine_.get()->*all)() : std::vector<Item>();
    }
    counters statistics() const noexcept {
        const lock held(mutex_);
        counters result = counts_;
        result.dropped = handlers.dropped();
        return result;
    }
    endpoint address() const {
        lock held(mutex_);
        if (!engine_) return {};
        const own_name us = engine_->us();
        held.unlock();  // asks the system
        const endpoint now = us.configured ? us.address : detect_address();
        return {now.bytes(), us.address.port(), now.scope()};
    }
    const std::string& team() const noexcept { return settings_.team; }
    public_key key() const {
        const lock held(mutex_);
        return engine_ ? engine_->key() : public_key();
    }
    std::error_code trust(const endpoint& to, const public_key& key) {
        const lock held(mutex_);
        if (!running_) return make_error_code(errc::stopped);
        refresh_time();
        const auto error = engine_->trust(to, key);
        after_call();
        return error;
    }

protected:
    /// Posts a text, or a command: `CONNECT` opens a link.
    std::error_code post_any(const endpoint& to, std::string_view text, node::completion done,
                             when_full mode, when_absent absent) {
        postings item;  // destroyed without the lock, with what a refused completion has captured
        lock held(mutex_);
        if (!running_) return make_error_code(errc::stopped);
        new_posting(item, text);
        item.front().done = std::move(done);
        if (absent == when_absent::keep) engine_->may_keep(item.front());
        auto error = engine_->post(to, text, item);
        if (error == errc::queue_full && mode == when_full::wait)
            error = wait_for_room(held, to, text, item);
        if (running_) after_call();
        return error;
    }
    /// Sends a text or a command, and waits.
    std::error_code send_any(const endpoint& to, std::string_view text) {
        lock held(mutex_);
        if (!running_) return make_error_code(errc::stopped);
        const caller waiting(*this, held);
        try {
            return send_as_caller(held, to, text);
        } catch (const std::bad_alloc&) {
            return os::error_of(std::errc::not_enough_memory);
        }
    }

    /// Posts for a waiting thread.
    std::error_code post_for(const endpoint& to, std::string_view text, awaited& answer) {
        if (!running_) return make_error_code(errc::stopped);
        postings item;
        new_posting(item, text);
        posting& message = item.front();
        message.caller = &answer;
        const auto last = (std::max)(settings_.delivery_timeout, settings_.handshake_timeout);
        const auto connected = after(engine_->events().now(), settings_.connect_timeout);
        message.deadline = after(connected, message.opens_link ? last : settings_.delivery_timeout);
        const auto error = engine_->post(to, text, item);
        after_call();
        return error;
    }

    /// While the loop does not turn, the engine's time is that of its last turn.
    void refresh_time() noexcept {
        if (sleeping_ || at_loop_ == driven_by::nobody) engine_->events().set_time(os::now());
    }
    void new_posting(postings& item, std::string_view text) {
        refresh_time();
        engine_->mail().new_posting(item);
        item.front().opens_link = text == connect_word;
    }

    void request_stop() noexcept {
        handlers.stop_at(after(os::now(), settings_.drain_timeout));
        const lock held(mutex_);
        running_ = false;
        changed_.notify_all();
        standby_.notify_one();
        stopping_.signal();
        if (engine_) wake_loop();
    }

    /// To be called after each use of the engine by a thread that does not drive the loop.
    void after_call() noexcept {
        tell_room();
        const bool for_handlers = at_loop_ == driven_by::driver && !engine_->mail().empty();
        if (for_handlers || engine_->has_work() || engine_->events().next_timer() < wakes_at_)
            wake_loop();
    }

    /// Has those who wait for room look again.
    void tell_room() noexcept {
        if (engine_->room_made()) changed_.notify_all();
    }

    /// The loop has work. If no thread drives it, the driver will soon, unless the work comes from
    /// another thread: a handler may take long.
    void wake_loop() noexcept {
        posted_ = true;
        if (std::exchange(sleeping_, false)) return engine_->events().wake();
        if (!handlers.called_here()) call_standby();
    }
    void call_standby() noexcept {
        if (at_loop_ != driven_by::nobody || std::exchange(called_, true)) return;
        standby_.notify_one();
    }

private:
    std::error_code wait_for_room(lock& held, const endpoint& to, std::string_view text,
                                  postings& item) {
        // In a handler, no other thread makes room in the mailbox.
        if (handlers.called_here() && item.front().done && engine_->mail().is_backlogged())
            return make_error_code(errc::queue_full);
        const auto end = after(os::now(), settings_.delivery_timeout);
        auto error = make_error_code(errc::queue_full);
        auto status = std::cv_status::no_timeout;
        const caller waiting(*this, held);
        while (error == errc::queue_full && status == std::cv_status::no_timeout) {
            status = changed_.wait_until(held, end);
            if (!running_) return make_error_code(errc::stopped);
            refresh_time();
            error = engine_->post(to, text, item);
        }
        return error;
    }

    /// May return, or throw, without the lock.
    std::error_code send_as_caller(lock& held, const endpoint& to, std::string_view text) {
        if (text != connect_word && engine_->reserve(to, text)) {
            held.unlock();
            one_shot shot(to);
            run_one_shot(shot, text, settings_, engine_->us(), stopping_);
            held.lock();
            engine_->release(to, shot.error());
            after_call();
            if (!out_of_descriptors(shot.error())) {
                ++(shot.error() ? counts_.undelivered : counts_.delivered);
                return shot.error();
            }  // otherwise the engine can make room
        }
        waiter told(mutex_, spin_);
        std::error_code outcome;
        awaited answer{told, outcome};
        if (const auto error = post_for(to, text, answer)) return error;
        held.unlock();
        told.wait();
        return outcome;
    }

protected:
    config settings_;
    os::channel stopping_;  // signalled by stop(), for one-shots that callers run

    /// Who drives the loop: does what the engine has to do, and waits for its sockets.
    enum class driven_by : unsigned char { nobody, driver, standby };

    spin_policy spin_;  // thread-safe

    mutable std::mutex mutex_;  // guards all that follows
    counters counts_;
    std::unique_ptr<engine> engine_;  // none before the first start()
    bool running_ = false;
    bool sleeping_ = false;            // the loop waits in the poller: wake it
    std::atomic<bool> posted_{false};  // work for a loop that spins; read unlocked
    clock::time_point wakes_at_{};     // the loop, by itself
    driven_by at_loop_ = driven_by::nobody;
    bool called_ = false;              // the standby is to drive the loop at once
    std::condition_variable standby_;  // it waits here
    std::size_t callers_ = 0;          // waiting threads
    std::condition_variable changed_;  // there is room, or a caller or the standby has returned
};

/// The calls of a node that send something: each checks what it is given.
class node_calls : public locked_engine {
public:
    using locked_engine::locked_engine;

    std::error_code post(const endpoint& to, std::string_view text, node::completion done,
                         when_full mode, when_absent absent) {
        text = trimmed(text);
        const errc refused = refusal_of(to, text);
        return refused != no_error ? make_error_code(refused)
                                   : post_any(to, text, std::move(done), mode, absent);
    }

    std::error_code send(const endpoint& to, std::string_view text) {
        text = trimmed(text);
        const errc refused = refusal_of(to, text);
        return refused != no_error ? make_error_code(refused) : send_any(to, text);
    }

    std::vector<delivery> broadcast(std::string_view text, bool then_stop) {
        std::vector<delivery> results;
        lock held(mutex_);
        if (!engine_) return results;
        const auto refused = running_ ? std::error_code() : make_error_code(errc::stopped);
        for (const auto& known : engine_->peers()) results.push_back({known.address, refused});
        if (refused) return results;
        const caller waiting(*this, held);
        held.unlock();
        text = trimmed(text);
        waiter all(mutex_, spin_, results.size() + 1);
        std::vector<awaited> answers;
        answers.reserve(results.size());
        for (auto& result : results) {
            const errc refused_text = then_stop ? no_error : refusal_of(result.to, text);
            std::error_code error = to_error(refused_text);
            answers.push_back({all, result.error});
            const lock posting(mutex_);
            try {
                if (!error) error = post_for(result.to, text, answers.back());
            } catch (const std::bad_alloc&) {  // earlier postings point to this stack
                error = os::error_of(std::errc::not_enough_memory);
            }
            if (error) answers.back().tell(error);
        }
        held.lock();
        all.tell();
        held.unlock();
        if (then_stop) {
            all.wait(settings_.drain_timeout);
            request_stop();  // so that the rest is reported at once
        }
        all.wait();
        return results;
    }

    std::error_code broadcast(std::string_view text, node::broadcast_handler done) {
        text = trimmed(text);
        if (const errc refused = refusal_of(text); refused != no_error)
            return make_error_code(refused);
        struct progress {
            node::broadcast_handler done;
            std::vector<delivery> results;
            std::size_t left = 0;
        };
        const auto all = std::make_shared<progress>();
        all->done = std::move(done);
        const auto tell = [all] {
            if (--all->left == 0 && all->done) all->done(all->results);
        };
        postings last;  // destroyed without the lock, as are all copies of `tell`
        std::list<postings> refused;
        const lock held(mutex_);
        if (!running_) return make_error_code(errc::stopped);
        new_posting(last, text);
        last.front().done = [tell](std::error_code) { tell(); };
        for (const auto& known : engine_->peers()) all->results.push_back({known.address, {}});
        all->left = 1;
        for (delivery& result : all->results) {
            postings& item = refused.emplace_back();
            new_posting(item, text);
            item.front().done = [&result, tell](std::error_code error) {
                result.error = error;
                tell();
            };
            result.error = engine_->post(result.to, text, item);
            if (!result.error) ++all->left;
        }
        engine_->mail().add_outcome(last, last.begin());
        after_call();
        return {};
    }

    std::error_code keep(const kept_message& message, node::completion done) {
        const auto text = trimmed(message.text);
        const errc refused = refusal_of(message.to, text);
        if (refused != no_error) return make_error_code(refused);
        postings item;  // destroyed without the lock, with what a refused completion has captured
        const lock held(mutex_);
        if (!running_) return make_error_code(errc::stopped);
        new_posting(item, text);
        item.front().done = std::move(done);
        engine_->may_keep(item.front());
        const auto error = engine_->keep(message, text, item);
        after_call();
        return error;
    }

    connect_result connect(const endpoint& to) {
        if (!to) return {make_error_code(refusal_of(to)), false};
        if (is_own(to)) return {make_error_code(errc::own_address), false};
        if (has_link(to)) return {{}, true};
        const auto error = send_any(to, connect_word);
        return {error, !error && has_link(to)};
    }

    std::error_code connect(const endpoint& to, node::connect_handler done) {
        if (!to) return make_error_code(refusal_of(to));
        if (is_own(to)) return make_error_code(errc::own_address);
        node::completion told;
        if (done)
            told = [this, to, done = std::move(done)](std::error_code error) {
                done({error, !error && has_link(to)});
            };
        return post_any(to, connect_word, std::move(told), when_full::refuse, when_absent::fail);
    }

    std::error_code leave(const endpoint& to) {
        if (!to) return make_error_code(refusal_of(to));
        const endpoint known = known_as(to);
        const auto error = send_any(to, exit_word);
        forget(known);
        return error;
    }

    std::error_code leave(const endpoint& to, node::completion done) {
        if (!to) return make_error_code(refusal_of(to));
        auto told = [this, known = known_as(to), done = std::move(done)](std::error_code error) {
            forget(known);
            if (done) done(error);
        };
        return post_any(to, exit_word, std::move(told), when_full::refuse, when_absent::fail);
    }

private:
    bool is_own(const endpoint& to) const noexcept {
        const lock held(mutex_);
        return running_ && engine_->is_own(to);
    }
    bool has_link(const endpoint& to) const noexcept {
        const lock held(mutex_);
        return engine_ && engine_->has_link(to);
    }

    endpoint known_as(const endpoint& to) const noexcept {
        const lock held(mutex_);
        return running_ ? engine_->known_as(to) : to;
    }
    /// We have left that peer.
    void forget(const endpoint& known) noexcept {
        const lock held(mutex_);
        if (!running_) return;
        engine_->forget(known);
        after_call();
    }
};

}  // namespace detail

/// The two threads, their start and their end.
///
/// The driver drives the loop, and calls the handlers after each turn that brought events.
/// Meanwhile no thread drives. The standby sleeps until that happens, and then looks from time to
/// time whether the loop turns. If it does not, or if a thread cannot wait for that, the standby
/// drives the loop until the driver has returned:
///
///     driver --handlers--> nobody --they return--> driver
///                            \--stands still, or called--> standby --they return--> driver
///
/// With config::handlers_in_run the driver is whichever thread is in run_for(); while none is, the
/// standby drives.
class node::impl final : public detail::node_calls {
public:
    using node_calls::node_calls;
    ~impl() { stop(); }

    std::error_code start() {
        if (handlers.called_here()) return make_error_code(errc::already_running);
        const std::lock_guard<std::mutex> life(lifecycle_);
        lock held(mutex_);
        if (running_) return make_error_code(errc::already_running);
        join_threads(held);  // of a node stopped by its own handler
        std::error_code error;
        try {
            engine_ = std::make_unique<detail::engine>(settings_, counts_);
            error = engine_->start(detail::os::now());
            if (!error) error = stopping_.open();
            if (!error) start_threads();
        } catch (const std::system_error& failure) {
            error = failure.code();
        } catch (const std::bad_alloc&) {
            error = detail::os::error_of(std::errc::not_enough_memory);
        }
        if (!error) return error;
        running_ = false;
        join_threads(held);
        engine_.reset();
        return error;
    }

    void stop() noexcept {
        const bool waits = !handlers.called_here();
        lock life(lifecycle_, std::defer_lock);
        if (waits) life.lock();  // first: a start() under way would lose the request
        try {
            if (settings_.leave_on_stop) broadcast(detail::exit_word, true);
        } catch (const std::bad_alloc&) {
            // Then we leave without a word, as in a power failure.
        }
        request_stop();
        if (!waits) return;
        lock held(mutex_);
        join_threads(held);
        held.unlock();
        life.unlock();
        static_cast<void>(run_for({}));  // for the remaining events, if handlers are called there
    }

    bool run_for(std::chrono::milliseconds time) noexcept {
        if (!settings_.handlers_in_run || handlers.called_here()) return false;
        lock held(mutex_);
        const bool drained = ended_ && !lent_ && !take_work();
        if (!engine_ || drained) return false;
        const caller here(*this, held);
        while (lent_) changed_.wait(held);  // another thread's
        lent_ = true;
        handlers.begin_here();
        drive(held, detail::after(detail::os::now(), time));
        handlers.end();
        lent_ = false;
        at_loop_ = driven_by::nobody;
        call_standby();
        changed_.notify_all();
        return running_;
    }

private:
    static constexpr int max_bunch = 2048;                // 64 would cost a third of a stream
    static constexpr std::chrono::milliseconds look{10};  // of the standby, whether the loop turns

    /// Under the lock, so that nothing is posted before both threads are there.
    void start_threads() {
        handlers.resume();
        stopping_.drain();
        running_ = true;
        ended_ = false;
        called_ = settings_.handlers_in_run;
        at_loop_ = called_ ? driven_by::nobody : driven_by::driver;
        if (!called_) driver_thread_ = std::thread([this] { run_driver(); });
        standby_thread_ = std::thread([this] { run_standby(); });
    }

    /// And waits for the callers that have not returned yet; a stopped node gets no new ones.
    void join_threads(lock& held) noexcept {
        held.unlock();
        if (driver_thread_.joinable()) driver_thread_.join();
        if (standby_thread_.joinable()) standby_thread_.join();
        held.lock();
        while (callers_ != 0) changed_.wait(held);
    }

    // The driver.

    void run_driver() noexcept {
        handlers.begin_here();
        lock held(mutex_);
        drive(held, detail::never);
        handlers.end();
    }

    /// Until then, or until the node has stopped and all events are handled.
    void drive(lock& held, detail::clock::time_point end) noexcept {
        return_to_loop(held);
        while (running_) {
            turn(held, end);
            if (running_) call_handlers(held);
            if (engine_->events().now() >= end) return;
        }
        end_engine();
        while (call_handlers(held)) {
        }
    }

    /// Calls the handlers for the events that wait, without the lock; false if there are none.
    bool call_handlers(lock& held) noexcept {
        if (!take_work()) return false;
        if (running_) do_work();  // or it would wait for the handlers
        at_loop_ = driven_by::nobody;
        was_away_ = true;
        const bool asleep = std::exchange(standby_asleep_, false);
        do {
            held.unlock();
            if (asleep) standby_.notify_one();
            call_bunch(held);
        } while (at_loop_ == driven_by::standby && running_ && take_work());
        return_to_loop(held);
        return true;
    }

    bool take_work() noexcept {
        if (work_.empty() && engine_) engine_->mail().take(work_);
        return !work_.empty();
    }

    /// Is called without the lock, and returns with it.
    void call_bunch(lock& held) noexcept {
        detail::bunch used;
        std::size_t owed = 0;
        for (int left = max_bunch; left != 0 && !work_.empty(); --left) {
            owed += work_.pass_on(
                [this](detail::event& news) { handlers.call(news); },
                [](detail::posting& finished) { finished.done(finished.outcome); }, used);
            if (owed < settings_.max_received_bytes / 8) continue;
            held.lock();
            give_back(used, std::exchange(owed, 0));
            held.unlock();
        }
        held.lock();
        give_back(used, owed);
    }

    void give_back(detail::bunch& used, std::size_t bytes) noexcept {
        auto& mail = engine_->mail();
        const bool was_full = mail.full();
        mail.give_back(used, bytes);
        if (!was_full) return;
        changed_.notify_all();
        if (engine_->has_work()) wake_loop();
    }

    void return_to_loop(lock& held) noexcept {
        wanted_ = true;
        while (at_loop_ == driven_by::standby) {
            wake_loop();
            changed_.wait(held);
        }
        wanted_ = called_ = false;
        at_loop_ = driven_by::driver;
        engine_->set_time(detail::os::now(), detail::os::wall_time());
    }

    // The standby.

    void run_standby() noexcept {
        lock held(mutex_);
        while (running_) {
            const auto seen = turns_;
            standby_asleep_ = !std::exchange(was_away_, false) && at_loop_ == driven_by::driver;
            if (standby_asleep_) {
                standby_.wait(held);
                continue;
            }
            standby_.wait_for(held, look, [this] { return called_ || !running_; });
            const bool stands_still = at_loop_ == driven_by::nobody && turns_ == seen;
            if (running_ && (called_ || stands_still)) drive_meanwhile(held);
        }
        if (at_loop_ == driven_by::nobody) end_engine();
    }

    void drive_meanwhile(lock& held) noexcept {
        called_ = false;
        at_loop_ = driven_by::standby;
        engine_->set_time(detail::os::now(), detail::os::wall_time());
        while (running_ && !wanted_) turn(held, detail::never);
        at_loop_ = driven_by::nobody;
        changed_.notify_all();
    }

    // The loop, driven by either.

    void turn(lock& held, detail::clock::time_point end) noexcept {
        auto& events = engine_->events();
        ++turns_;
        posted_ = false;
        const bool busy = engine_->has_work();
        do_work();
        if (busy) spin_until_ = spin_.until(events.now());
        int ready = 0;
        try {
            ready = wait(held, end);
        } catch (const std::bad_alloc&) {
            // The wait failed: the next turn tries again.
        }
        for (int i = 0; i < ready; ++i) {
            if (i != 0) held.unlock(), held.lock();  // callers get in between events
            events.run_event(i);
        }
        events.run_timers();
        if (ready > 0) spin_until_ = spin_.until(events.now());
    }

    void do_work() noexcept {
        engine_->do_work();
        tell_room();
    }

    /// Spins for a while, without the lock, then sleeps. Returns how many sockets are ready.
    int wait(lock& held, detail::clock::time_point end) {
        auto& events = engine_->events();
        const bool calls = at_loop_ == driven_by::driver;            // the handlers, after this
        const bool told = work_.empty() && engine_->mail().empty();  // all that has come
        const bool idle = !engine_->has_work() && (told || !calls);
        sleeping_ = idle && events.now() >= spin_until_;
        const bool spins = idle && !sleeping_;
        wakes_at_ = events.next_timer();
        end = (std::min)(end, wakes_at_);
        const int limit = end == detail::never ? -1 : detail::remaining(end, events.now());
        const int timeout = sleeping_ ? limit : 0;
        events.prepare();
        held.unlock();
        auto began = detail::os::now();
        auto now = began;
        int count = 0;
        do {
            // First, and at least once: lets a thread run that has work for us, so that one look
            // finds it instead of two.
            if (spins) now = yield(began);
            began = now;
            count = events.wait(timeout);
        } while (spins && count == 0 && !posted_ && now < spin_until_);
        if (timeout != 0) now = detail::os::now();
        held.lock();
        sleeping_ = false;
        engine_->set_time(now, detail::os::wall_time());
        return events.collect(count, began);
    }

    detail::clock::time_point yield(detail::clock::time_point before) noexcept {
        std::this_thread::yield();
        const auto after = detail::os::now();
        spin_.yielded(before, after);
        return after;
    }

    void end_engine() noexcept {
        if (std::exchange(ended_, true)) return;
        engine_->stop(make_error_code(errc::stopped));
        changed_.notify_all();
    }

    std::mutex lifecycle_;  // guards the two threads
    std::thread driver_thread_;
    std::thread standby_thread_;
    detail::bunch work_;  // the driver's: what it has taken out of the mailbox

    // Guarded by the node's mutex.
    std::uint64_t turns_ = 0;               // of the loop
    detail::clock::time_point spin_until_;  // then the loop may sleep
    bool wanted_ = false;                   // the driver wants the loop back
    bool was_away_ = false;                 // the driver, since the standby looked last
    bool standby_asleep_ = false;           // until the driver goes away
    bool lent_ = false;                     // a thread is in run_for()
    bool ended_ = true;                     // the engine
};

node::node(config settings) : impl_(new impl(std::move(settings))) {}
node::~node() = default;

void node::on_message(message_handler handler) { impl_->handlers.on_message.swap(handler); }
void node::on_peer_joined(joined_handler handler) { impl_->handlers.on_joined.swap(handler); }
void node::on_peer_left(left_handler handler) { impl_->handlers.on_left.swap(handler); }
void node::on_connected(joined_handler handler) { impl_->handlers.on_connected.swap(handler); }
void node::on_rejected(rejected_handler handler) { impl_->handlers.on_rejected.swap(handler); }
void node::on_peer_found(candidate_handler handler) { impl_->handlers.on_found.swap(handler); }
void node::on_peer_gone(candidate_handler handler) { impl_->handlers.on_gone.swap(handler); }
void node::on_kept(kept_handler handler) { impl_->handlers.on_kept.swap(handler); }
void node::on_key_changed(key_handler handler) { impl_->handlers.on_key_changed.swap(handler); }

std::error_code node::start() { return impl_->start(); }
void node::stop() noexcept { impl_->stop(); }
bool node::run_for(std::chrono::milliseconds time) noexcept { return impl_->run_for(time); }
endpoint node::address() const { return impl_->address(); }
const std::string& node::team() const noexcept { return impl_->team(); }
public_key node::key() const { return impl_->key(); }
std::error_code node::trust(const endpoint& peer, const public_key& key) {
    return impl_->trust(peer, key);
}

std::error_code node::send(const endpoint& to, std::string_view text) {
    return impl_->send(to, text);
}
std::error_code node::post(const endpoint& to, std::string_view text, completion done,
                           when_full mode, when_absent absent) {
    return impl_->post(to, text, std::move(done), mode, absent);
}
std::vector<delivery> node::broadcast(std::string_view text) {
    return impl_->broadcast(text, false);
}
std::error_code node::broadcast(std::string_view text, broadcast_handler done) {
    return impl_->broadcast(text, std::move(done));
}
connect_result node::connect(const endpoint& to) { return impl_->connect(to); }
std::error_code node::connect(const endpoint& to, connect_handler done) {
    return impl_->connect(to, std::move(done));
}
std::error_code node::keep(const kept_message& message, completion done) {
    return impl_->keep(message, std::move(done));
}
std::error_code node::leave(const endpoint& to) { return impl_->leave(to); }
std::error_code node::leave(const endpoint& to, completion done) {
    return impl_->leave(to, std::move(done));
}
void node::confirm(std::uint64_t receipt, bool taken) noexcept { impl_->confirm(receipt, taken); }
std::vector<peer> node::peers() const { return impl_->list(&detail::engine::peers); }
std::vector<candidate> node::candidates() const { return impl_->list(&detail::engine::candidates); }
std::vector<kept_message> node::kept() const { return impl_->list(&detail::engine::kept); }
counters node::statistics() const noexcept { return impl_->statistics(); }

}  // namespace p2pchat

#endif  // P2PCHAT_IMPLEMENTATION
