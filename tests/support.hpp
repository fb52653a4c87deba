// What the tests share: bounded waits, a node that records what its handlers are called with, a
// peer typed by hand, and a stand-in for the Python original.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_SUPPORT_HPP
#define P2PCHAT_TESTS_SUPPORT_HPP

#include "p2pchat.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#if !defined(_WIN32)
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

namespace support {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

/// How long a test waits for what has to happen: long enough for a slow machine under valgrind.
inline constexpr milliseconds patience{30000};

/// Waits until `predicate` holds: false when it still does not after `bound`.
template <class Predicate>
bool wait_until(Predicate predicate, milliseconds bound = patience) {
    const auto end = std::chrono::steady_clock::now() + bound;
    while (!predicate()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

/// Tells a short timeout from `patience`, which stands for none.
class stopwatch {
public:
    bool is_short() const { return std::chrono::steady_clock::now() - begin_ < patience / 2; }

private:
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// A figure of this process from Linux: "Threads:", "VmRSS:" (in KiB). Elsewhere 0, and the test
/// says that this part of it is skipped.
inline std::size_t of_process(std::string_view name) {
    std::size_t result = 0;
#if defined(__linux__)  // Wine would open it too, for another process
    std::FILE* const file = std::fopen("/proc/self/status", "r");
#else
    std::FILE* const file = nullptr;
#endif
    if (file) {
        char line[256];
        while (std::fgets(line, sizeof line, file))
            if (std::string_view(line).substr(0, name.size()) == name)
                result = std::stoul(line + name.size());
        std::fclose(file);
    } else {
        MESSAGE("skipped: this needs Linux with /proc (", std::string(name), ")");
    }
    return result;
}

#if defined(__linux__)
inline std::chrono::nanoseconds processor_time() {
    std::timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}
#endif

/// A gate that one thread opens for others, so that a test decides who goes first.
class gate {
public:
    void open() {
        const std::lock_guard<std::mutex> lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }

    bool wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        return changed_.wait_for(lock, patience, [this] { return open_; });
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = false;
};

/// A node's settings for a test: a free port, known by the loopback address, and no timeout that a
/// slow machine could meet. A test of a timeout sets it. Encrypted, where the tests are run so.
inline p2pchat::config local(std::string team = "BTC") {
    p2pchat::config settings;
    settings.team = std::move(team);
    settings.address = "127.0.0.1";
    settings.connect_timeout = settings.handshake_timeout = settings.delivery_timeout = patience;
    settings.first_message_timeout = settings.quiet_period = settings.drain_timeout = patience;
    if (std::getenv("P2PCHAT_TEST_ENCRYPTED")) settings.encryption = p2pchat::encryption::required;
    return settings;
}

/// Whether all of 127.0.0.0/8 is this machine; if not, a test says that it is skipped.
inline bool has_wide_loopback() {
#if defined(__linux__) || defined(_WIN32)
    return true;
#else
    MESSAGE("skipped: loopback is one address here");
    return false;
#endif
}

/// Whether this machine has IPv6; if not, a test says that it is skipped.
inline bool has_ipv6() {
    p2pchat::tcp_socket probe;
    const bool result = !probe.listen({"::1", 0});
    if (!result) MESSAGE("skipped: this system has no IPv6");
    return result;
}

/// A sender of messages typed by hand. Nobody listens there.
inline const p2pchat::endpoint somebody("127.0.0.1", 9);

/// The peers that a node knows.
inline std::vector<p2pchat::endpoint> addresses(const p2pchat::node& of) {
    std::vector<p2pchat::endpoint> result;
    for (const auto& p : of.peers()) result.push_back(p.address);
    return result;
}

/// To how many peers a link stands.
inline std::size_t linked_peers(const p2pchat::node& node) {
    const auto peers = node.peers();
    return static_cast<std::size_t>(
        std::count_if(peers.begin(), peers.end(), [](const p2pchat::peer& p) { return p.linked; }));
}

/// What the handlers of a node were called with.
struct record {
    std::vector<p2pchat::message> messages;
    std::vector<p2pchat::peer> joined, connected;
    std::vector<std::pair<p2pchat::peer, p2pchat::departure>> left;
    std::vector<std::pair<p2pchat::endpoint, std::error_code>> rejected;
    std::vector<p2pchat::candidate> found, gone;
    std::vector<p2pchat::kept_message> kept;

    std::size_t count_text(std::string_view text) const {
        return static_cast<std::size_t>(
            std::count_if(messages.begin(), messages.end(),
                          [&](const p2pchat::message& m) { return m.text == text; }));
    }
    template <class Error>
    std::size_t count_rejected(Error why) const {
        return static_cast<std::size_t>(std::count_if(
            rejected.begin(), rejected.end(), [&](const auto& r) { return r.second == why; }));
    }
};

/// A started node that records what its handlers are called with.
class recording_node {
public:
    using also = std::function<void(recording_node&, const p2pchat::message&)>;

    /// `also` runs in the message handler, after the message was written down.
    explicit recording_node(p2pchat::config settings = local(), also then = {})
        : node_(std::move(settings)), then_(std::move(then)) {
        install_handlers();
        REQUIRE_FALSE(node_.start());
    }
    recording_node(const recording_node&) = delete;
    recording_node& operator=(const recording_node&) = delete;
    ~recording_node() { node_.stop(); }

    p2pchat::node& operator*() noexcept { return node_; }
    p2pchat::node* operator->() noexcept { return &node_; }
    p2pchat::endpoint address() const { return node_.address(); }

    record seen() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return record_;
    }

    /// Waits until `predicate(record)` holds.
    template <class Predicate>
    bool wait(Predicate predicate) {
        std::unique_lock<std::mutex> lock(mutex_);
        return changed_.wait_for(lock, patience, [&] { return predicate(record_); });
    }

    bool wait_text(std::string_view text) {
        return wait([&](const record& r) { return r.count_text(text) > 0; });
    }
    bool wait_messages(std::size_t count) {
        return wait([&](const record& r) { return r.messages.size() >= count; });
    }
    bool wait_joined(std::size_t count) {
        return wait([&](const record& r) { return r.joined.size() >= count; });
    }
    bool wait_connected(std::size_t count) {
        return wait([&](const record& r) { return r.connected.size() >= count; });
    }
    bool wait_left(std::size_t count) {
        return wait([&](const record& r) { return r.left.size() >= count; });
    }
    bool wait_found(std::size_t count) {
        return wait([&](const record& r) { return r.found.size() >= count; });
    }
    bool wait_gone(std::size_t count) {
        return wait([&](const record& r) { return r.gone.size() >= count; });
    }
    template <class Error>  // an error_code, or a std::errc: see "Errors" in p2pchat.hpp
    bool wait_rejected(Error why, std::size_t count = 1) {
        return wait([&](const record& r) { return r.count_rejected(why) >= count; });
    }

private:
    void install_handlers() {
        node_.on_message([this](const p2pchat::message& m) {
            note([&](record& r) { r.messages.push_back(m); });
            if (then_) then_(*this, m);
        });
        node_.on_peer_joined(
            [this](const p2pchat::peer& p) { note([&](record& r) { r.joined.push_back(p); }); });
        node_.on_peer_left([this](const p2pchat::peer& p, p2pchat::departure why) {
            note([&](record& r) { r.left.emplace_back(p, why); });
        });
        node_.on_connected(
            [this](const p2pchat::peer& p) { note([&](record& r) { r.connected.push_back(p); }); });
        node_.on_peer_found([this](const p2pchat::candidate& who) {
            note([&](record& r) { r.found.push_back(who); });
        });
        node_.on_peer_gone([this](const p2pchat::candidate& who) {
            note([&](record& r) { r.gone.push_back(who); });
        });
        node_.on_kept([this](const p2pchat::kept_message& m) {
            note([&](record& r) { r.kept.push_back(m); });
        });
        node_.on_rejected([this](const p2pchat::endpoint& from, std::error_code why) {
            note([&](record& r) { r.rejected.emplace_back(from, why); });
        });
    }

    template <class Change>
    void note(Change change) {
        const std::lock_guard<std::mutex> lock(mutex_);
        change(record_);
        changed_.notify_all();
    }

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    record record_;
    p2pchat::node node_;
    also then_;
};

/// Posts, and what became of each.
class outcomes {
public:
    std::error_code post(p2pchat::node& from, const p2pchat::endpoint& to, std::string_view text,
                         p2pchat::when_full mode = p2pchat::when_full::refuse,
                         p2pchat::when_absent absent = p2pchat::when_absent::fail) {
        const std::size_t index = add();
        const auto error = from.post(
            to, text, [this, index](std::error_code e) { note(index, e); }, mode, absent);
        if (error) refuse(index);
        return error;
    }

    std::error_code leave(p2pchat::node& from, const p2pchat::endpoint& to) {
        const std::size_t index = add();
        const auto error = from.leave(to, [this, index](std::error_code e) { note(index, e); });
        if (error) refuse(index);
        return error;
    }

    /// Waits until every post that was accepted has its outcome.
    bool wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        return changed_.wait_for(lock, patience, [this] { return order_.size() >= accepted_; });
    }

    /// How many were accepted and came to this; no error: were delivered.
    template <class Error = std::error_code>
    std::size_t count(Error error) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return static_cast<std::size_t>(
            std::count_if(entries_.begin(), entries_.end(),
                          [&](const entry& e) { return e.calls > 0 && e.error == error; }));
    }

    std::size_t accepted() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return accepted_;
    }

    /// Whether each post has one outcome: its completion was called once, or it was refused.
    bool each_once() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return std::all_of(entries_.begin(), entries_.end(),
                           [](const entry& e) { return e.calls + e.refused == 1; });
    }

    bool in_order() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return std::is_sorted(order_.begin(), order_.end());
    }

private:
    struct entry {
        int calls = 0;
        int refused = 0;
        std::error_code error;
    };

    std::size_t add() {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++accepted_;
        entries_.emplace_back();
        return entries_.size() - 1;
    }

    void refuse(std::size_t index) {
        const std::lock_guard<std::mutex> lock(mutex_);
        --accepted_;
        entries_[index].refused = 1;
    }

    void note(std::size_t index, std::error_code error) {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++entries_[index].calls;
        entries_[index].error = error;
        order_.push_back(index);
        changed_.notify_all();
    }

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<entry> entries_;
    std::vector<std::size_t> order_;
    std::size_t accepted_ = 0;
};

/// Whether a node has a link to this peer.
inline bool is_linked(recording_node& a, const p2pchat::endpoint& to) {
    for (const auto& p : a->peers())
        if (p.address == to) return p.linked;
    return false;
}

/// Links two nodes, and returns when both know of it.
inline void link(recording_node& a, recording_node& b) {
    const auto result = a->connect(b.address());
    REQUIRE_FALSE(result.error);
    REQUIRE(result.linked);
    REQUIRE(wait_until([&] { return is_linked(a, b.address()) && is_linked(b, a.address()); }));
}

/// How a connection came to its end, as its other side saw it.
enum class ending { closed, reset, open };

inline std::ostream& operator<<(std::ostream& out, ending value) {
    const char* const names[] = {"closed in order", "reset", "still open"};
    return out << names[static_cast<int>(value)];
}

/// One side of a connection, typed by hand.
class raw_peer {
public:
    explicit raw_peer(p2pchat::tcp_socket socket) : socket_(std::move(socket)) {}
    explicit raw_peer(const p2pchat::endpoint& to) {
        REQUIRE_FALSE(socket_.connect(to, patience));
        socket_.no_delay();
    }

    p2pchat::tcp_socket& socket() noexcept { return socket_; }

    /// Sends all of it; false when the other side is gone.
    bool send(std::string_view bytes) {
        std::size_t sent = 0;
        const auto error = socket_.send(bytes, sent, patience);
        broken_ = broken_ || error;
        return !error;
    }

    /// The next line without its LF; empty when none came.
    std::string line() {
        for (;;) {
            const auto end = received_.find('\n');
            if (end != std::string::npos) return take_line(end);
            if (!receive_more(patience)) return {};
        }
    }

    /// Reads what is left of the stream; text() has it.
    ending read_to_end() {
        while (receive_more(patience)) {
        }
        if (!error_ && !broken_) return ending::closed;
        return error_ == std::errc::timed_out ? ending::open : ending::reset;
    }

    /// What was received and not taken by line().
    const std::string& text() const noexcept { return received_; }

    void half_close() { static_cast<void>(socket_.shutdown_send()); }
    void close() { socket_.close(); }
    void reset() { socket_.reset(); }

private:
    std::string take_line(std::size_t end) {
        std::string result = received_.substr(0, end);
        received_.erase(0, end + 1);
        return result;
    }

    bool receive_more(milliseconds timeout) {
        char buffer[16 * 1024];
        std::size_t size = 0;
        error_ = socket_.receive(buffer, sizeof buffer, size, timeout);
        received_.append(buffer, size);
        return !error_ && size > 0;
    }

    p2pchat::tcp_socket socket_;
    std::string received_;
    std::error_code error_;
    bool broken_ = false;  // a send has failed, and with that has used up the reset
};

/// A port that listens, for peers typed by hand.
class raw_listener {
public:
    explicit raw_listener(const p2pchat::endpoint& local = {"127.0.0.1", 0}) {
        REQUIRE_FALSE(socket_.listen(local));
    }

    p2pchat::endpoint address() const { return socket_.local(); }
    p2pchat::tcp_socket& socket() noexcept { return socket_; }

    raw_peer accept() {
        p2pchat::tcp_socket peer;
        REQUIRE_FALSE(socket_.accept(peer, patience));
        peer.no_delay();
        return raw_peer(std::move(peer));
    }

private:
    p2pchat::tcp_socket socket_;
};

/// A discovery port that no other test has, as long as the process runs: a listener reserves the
/// number. Below the ephemeral ports, any of which another test's datagram socket may get.
inline std::uint16_t new_discovery_port() {
    static std::list<p2pchat::tcp_socket> reserved;
    std::random_device random;
    std::uniform_int_distribution<int> below_ephemeral(2000, 32767);
    for (int tries = 0; tries < 100; ++tries) {
        const auto port = static_cast<std::uint16_t>(below_ephemeral(random));
        p2pchat::tcp_socket listener;
        if (listener.listen({"127.0.0.1", port})) continue;
        reserved.push_back(std::move(listener));
        return port;
    }
    FAIL("no port below the ephemeral ones is free");
    return 0;
}

/// Whether nobody connects to this port.
inline bool is_left_alone(raw_listener& listener) {
    p2pchat::tcp_socket peer;
    return static_cast<bool>(listener.socket().accept(peer, 50ms));
}

/// An address on which nobody listens, but a node of this test may. No other process gets its port.
class nobody {
public:
#if defined(_WIN32)  // where a node takes no port that anybody else has, listening or not
    nobody() : address_(raw_listener().address()) {}
#else
    nobody() {
        const int on = 1;
        ::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        sockaddr_in local{};
        local.sin_family = AF_INET;
        local.sin_addr.s_addr = htonl(INADDR_ANY);  // or another test may listen on 127.0.0.2
        socklen_t size = sizeof local;
        auto* const any = reinterpret_cast<sockaddr*>(&local);
        REQUIRE(::bind(socket_, any, size) == 0);
        REQUIRE(::getsockname(socket_, any, &size) == 0);
        address_ = {"127.0.0.1", ntohs(local.sin_port)};
    }
    ~nobody() { ::close(socket_); }
#endif
    nobody(const nobody&) = delete;
    nobody& operator=(const nobody&) = delete;

    const p2pchat::endpoint& address() const noexcept { return address_; }

private:
#if !defined(_WIN32)
    int socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
#endif
    p2pchat::endpoint address_;
};

/// Sends any `bytes` as a one-shot; returns how the receiver ended the connection.
inline ending one_shot(const p2pchat::endpoint& to, std::string_view bytes) {
    raw_peer peer(to);
    peer.send(bytes);
    peer.half_close();
    return peer.read_to_end();
}

/// The bytes of a message, as a careful sender writes them.
inline std::string wire(const p2pchat::endpoint& sender, std::string_view text,
                        std::string_view team = "Raw") {
    std::string result = to_string(sender);
    result.append(" ").append(team).append(" ").append(text);
    return result;
}

/// Makes the node hear from an address, whether somebody listens there or not.
inline void introduce(recording_node& to, const p2pchat::endpoint& sender,
                      std::string_view team = "Raw") {
    const auto before = to.seen().messages.size();
    REQUIRE(one_shot(to.address(), wire(sender, "hello", team)) == ending::closed);
    REQUIRE(to.wait_messages(before + 1));
}

/// The node still takes a message, and knows nobody but its sender.
inline void check_serves(recording_node& a) {
    const auto before = a.seen().count_text("still there?");
    const std::string text = wire({"127.0.0.1", 4999}, "still there?");
    // A machine under load may be slower than an impatient node lets it: then once more.
    CHECK(wait_until([&] { return one_shot(a.address(), text) == ending::closed; }));
    CHECK(a.wait([&](const record& r) { return r.count_text("still there?") > before; }));
    const auto peers = a->peers();
    REQUIRE(peers.size() == 1);
    CHECK(peers[0].address == p2pchat::endpoint("127.0.0.1", 4999));
}

/// Returns when a node has read all that was sent to it before: it refuses at once what is no
/// message, room or not. Several times, because a single one may be read in the same turn as what
/// came before it, and ahead of it.
inline void read_all(const p2pchat::endpoint& node) {
    for (int i = 0; i < 5; ++i) CHECK(one_shot(node, "no message") == ending::reset);
}

/// A link typed by hand: the listener is where its sender can be reached without the link.
struct typed_link {
    raw_listener listener;
    raw_peer peer;

    explicit typed_link(recording_node& to) : peer(to.address()) {
        peer.send(line("CONNECT"));
        CHECK(peer.line() == wire(to.address(), "CONNECT", to->team()));
    }

    p2pchat::endpoint address() const { return listener.address(); }
    std::string line(std::string_view text) const { return wire(address(), text) + '\n'; }
    bool send(std::string_view text) { return peer.send(line(text)); }

    /// Reads until the node has confirmed `count` lines; its other lines are kept for message().
    bool wait_ack(std::size_t count) {
        while (acked < count) {
            const std::string next = peer.line();
            if (next.empty()) return false;
            if (next.rfind("ACK ", 0) == 0)
                acked = std::stoul(next.substr(4));
            else
                lines.push_back(next);
        }
        return acked == count;
    }

    /// The next line that is not an ACK.
    std::string message() {
        for (;;) {
            std::string next = lines.empty() ? peer.line() : lines.front();
            if (!lines.empty()) lines.pop_front();
            if (next.rfind("ACK ", 0) != 0) return next;
        }
    }

    std::size_t acked = 0;
    std::deque<std::string> lines;
};

/// A stand-in for the Python program: it accepts, receives once, 1024 bytes at most, prints what
/// came and closes. Of a longer message the rest is lost, and its close resets the connection.
class original {
public:
    explicit original(const p2pchat::endpoint& local = {"127.0.0.1", 0}) {
        REQUIRE_FALSE(listener_.listen(local));
        address_ = listener_.local();
        server_ = std::thread([this] { serve(); });
    }
    original(const original&) = delete;
    original& operator=(const original&) = delete;
    ~original() {
        ending_ = true;
        server_.join();
    }

    p2pchat::endpoint address() const { return address_; }

    /// The lines that it has printed.
    std::vector<std::string> printed() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return printed_;
    }

    bool wait_printed(std::string_view line) const {
        return wait_until([&] {
            const auto lines = printed();
            return std::find(lines.begin(), lines.end(), line) != lines.end();
        });
    }

    /// Its menu's entry 1: connects, sends, closes, and does not look back.
    std::error_code send(const p2pchat::endpoint& to, std::string_view text) const {
        p2pchat::tcp_socket socket;
        if (auto error = socket.connect(to, patience)) return error;
        std::size_t sent = 0;
        return socket.send(wire(address_, text, "Python"), sent, patience);
    }

private:
    void serve() {
        while (!ending_) {
            p2pchat::tcp_socket peer;
            if (listener_.accept(peer, 20ms)) continue;
            char buffer[1024];
            std::size_t size = 0;
            if (!peer.receive(buffer, sizeof buffer, size, 5000ms)) print({buffer, size});
        }
    }

    void print(std::string_view bytes) {
        p2pchat::message_view m;
        if (parse(bytes, m)) return;
        const std::string sender = to_string(m.sender), team(m.team), text(m.text);
        const std::lock_guard<std::mutex> lock(mutex_);
        if (text == "exit")
            printed_.push_back(sender + " (" + team + ") disconnected.");
        else
            printed_.push_back(sender + " " + team + " " + text);
    }

    p2pchat::tcp_socket listener_;
    p2pchat::endpoint address_;
    mutable std::mutex mutex_;
    std::vector<std::string> printed_;
    std::atomic<bool> ending_{false};
    std::thread server_;
};

}  // namespace support

#endif  // P2PCHAT_TESTS_SUPPORT_HPP
