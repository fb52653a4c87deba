// A node among peers that do anything: the input's bytes say what raw sockets do to it over
// loopback, and what the node is told to do. After each input every post has had its one outcome,
// no message came twice, and an honest one-shot gets through.
//
// SPDX-License-Identifier: MIT

#include "fuzz.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

namespace {

using fuzz::check;
using p2pchat::endpoint;
using p2pchat::tcp_socket;
using std::chrono::milliseconds;

constexpr milliseconds long_enough{30000};
constexpr std::size_t max_steps = 64;
constexpr int inputs_per_node = 500;
constexpr int inputs_per_start = 50;

/// Small limits, so that an input reaches each.
p2pchat::config settings() {
    p2pchat::config result;
    result.team = "Fuzzed";
    result.address = "127.0.0.1";
    result.max_message_bytes = 2000;
    result.max_connections = 4;
    result.max_links = 2;
    result.max_peers = 3;
    result.max_queued_bytes = 4000;
    result.max_received_bytes = 3000;
    result.connect_timeout = milliseconds(50);
    result.handshake_timeout = result.delivery_timeout = milliseconds(15);
    result.first_message_timeout = milliseconds(10);
    result.quiet_period = milliseconds(3);
    return result;
}

/// Texts that must not be seen twice: "#" and a number that is used once in all the run. Other
/// texts, which an input may well send twice, begin otherwise.
class once {
public:
    static std::string fresh() {
        static std::atomic<std::uint64_t> next{0};
        return "#" + std::to_string(key) + '.' + std::to_string(++next) + ';';
    }

    void see(std::string_view text) {
        const auto known = "#" + std::to_string(key) + '.';
        for (auto at = text.find(known); at != std::string_view::npos;
             at = text.find(known, at + 1))
            if (const auto end = text.find(';', at); end != std::string_view::npos)
                count(std::string(text.substr(at, end - at + 1)));
    }

    void forget() {
        const std::lock_guard<std::mutex> lock(mutex_);
        seen_.clear();
    }

    bool wait(const std::string& text) {
        std::unique_lock<std::mutex> lock(mutex_);
        return changed_.wait_for(lock, long_enough, [&] { return seen_.count(text) != 0; });
    }

private:
    static constexpr std::uint64_t key = 7153690248813;

    void count(const std::string& text) {
        const std::lock_guard<std::mutex> lock(mutex_);
        check(++seen_[text] == 1, "no message comes twice");
        changed_.notify_all();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::unordered_map<std::string, int> seen_;
};

/// Outcomes that are due, and how often each was reported.
class outcomes {
public:
    void post(p2pchat::node& node, const endpoint& to, std::string_view text) {
        const std::size_t index = begin();
        const bool refused =
            static_cast<bool>(node.post(to, text, [this, index](std::error_code) { told(index); }));
        if (refused) told(index);  // a second call, of a refused post's completion, is then seen
    }
    void leave(p2pchat::node& node, const endpoint& to) {
        const std::size_t index = begin();
        if (node.leave(to, [this, index](std::error_code) { told(index); })) told(index);
    }

    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        const bool all =
            changed_.wait_for(lock, long_enough, [&] { return told_ == calls_.size(); });
        check(all, "each post has an outcome");
        calls_.clear();
        told_ = 0;
    }

private:
    std::size_t begin() {
        const std::lock_guard<std::mutex> lock(mutex_);
        calls_.push_back(0);
        return calls_.size() - 1;
    }

    void told(std::size_t index) {
        const std::lock_guard<std::mutex> lock(mutex_);
        check(index < calls_.size() && ++calls_[index] == 1, "a post has one outcome");
        ++told_;
        changed_.notify_all();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<int> calls_;
    std::size_t told_ = 0;
};

/// State that lives longer than one input: the node, and the raw listener that it sends to.
struct world {
    once seen_by_node, seen_by_us;
    outcomes posts;
    tcp_socket listener;
    endpoint ours;  // where it listens
    p2pchat::node node{settings()};

    world() {
        check(!listener.listen({"127.0.0.1", 0}), "the listener listens");
        ours = listener.local();
        node.on_message([this](const p2pchat::message& m) { on_message(m); });
        node.on_peer_left([](const p2pchat::peer& who, p2pchat::departure) {
            check(static_cast<bool>(who.address), "who leaves is somebody");
        });
        start();
    }
    ~world() { stop(); }

    void start() { check(!node.start(), "the node starts"); }
    void stop() {
        node.stop();
        posts.wait();
    }

    /// Answers go to our listener and nowhere else: a claim may name any machine.
    void on_message(const p2pchat::message& m) {
        seen_by_node.see(m.text);
        check(m.text.size() + m.team.size() < 2000, "a message keeps the bound");
        if (m.text[0] == '?') posts.post(node, ours, "answer " + once::fresh());
    }

    /// On a busy machine an honest peer may be too slow for timeouts as short as these.
    void speak_honestly() {
        int tries = 0;
        while (!get_through()) check(++tries < 100, "an honest peer gets through");
    }

    bool get_through() {
        const std::string text = once::fresh();
        const auto bytes = to_string(endpoint("127.0.0.1", 9)) + " Honest " + text;
        tcp_socket socket;
        const auto failed = socket.connect(node.address(), long_enough);
        if (failed == std::errc::connection_reset) return false;
        check(!failed, "the node goes on accepting");
        std::size_t size = 0;
        if (socket.send(bytes, size, long_enough) || socket.shutdown_send()) return false;
        char buffer[64];
        const auto error = socket.receive(buffer, sizeof buffer, size, long_enough);
        check(error != std::errc::timed_out && size == 0, "the node answers, in order or not");
        check(error || seen_by_node.wait(text), "a message that was taken arrives");
        return !error;
    }
};

/// What one input does.
class script {
public:
    script(world& where, std::string_view bytes) : world_(where), bytes_(bytes) {}
    script(const script&) = delete;
    script& operator=(const script&) = delete;
    ~script() {
        for (auto& socket : sockets_) read_what_is_there(socket), socket.close();
        for (std::size_t i = 0; i < threads_.size(); ++i) {
            while (threads_[i].joinable() && !done_[i]) accept_and_close();
            if (threads_[i].joinable()) threads_[i].join();
        }
    }

    void run() {
        for (std::size_t i = 0; i < max_steps && !bytes_.empty(); ++i) step(next());
        accept_and_close();
    }

private:
    std::uint8_t next() {
        if (bytes_.empty()) return 0;
        const auto result = static_cast<std::uint8_t>(bytes_.front());
        bytes_.remove_prefix(1);
        return result;
    }

    /// The bytes as they are, except that they never look like a text that comes once: a fuzzer
    /// sees what its target compares, and tries that.
    std::string next_bytes() {
        const std::size_t size = next();
        std::string result(bytes_.substr(0, size));
        bytes_.remove_prefix(result.size());
        std::replace(result.begin(), result.end(), '#', '+');
        return result;
    }

    /// The high half selects the action, the low half the socket.
    void step(std::uint8_t code) {
        socket_ = &sockets_[code % sockets_.size()];
        switch (code >> 4) {
            case 0:
                return connect();
            case 1:
                return send(next_bytes());
            case 2:
                return send(from_us("CONNECT\n"));
            case 3:
                return send(from_us(next_bytes() + once::fresh() + '\n'));
            case 4:
                return send("ACK " + std::to_string(next()) + "\n");
            case 5:
                return static_cast<void>(socket_->shutdown_send());
            case 6:
                return socket_->close();
            case 7:
                return socket_->reset();
            case 8:
                return read_what_is_there(*socket_);
            case 9:
                return accept(milliseconds(5));
            case 10:
                return world_.posts.post(world_.node, world_.ours, once::fresh());
            case 11:
                return post_long(next());
            case 12:
                return open_link();
            case 13:
                return world_.posts.leave(world_.node, world_.ours);
            case 14:
                return std::this_thread::sleep_for(std::chrono::microseconds(next() * 50));
            default:
                return send(std::string(next() * std::size_t{16}, 'x'));
        }
    }

    void connect() {
        socket_->close();
        static_cast<void>(socket_->connect(world_.node.address(), long_enough));
    }

    void send(std::string_view bytes) {
        if (!socket_->is_open()) connect();
        std::size_t sent = 0;
        static_cast<void>(socket_->send(bytes, sent, milliseconds(0)));
    }

    std::string from_us(std::string_view text) const {
        return to_string(world_.ours).append(" Raw ").append(text);
    }

    void post_long(std::uint8_t size) {
        std::string text = once::fresh();
        text.append(std::size_t{size} * 10, 'y');
        world_.posts.post(world_.node, world_.ours, text);
    }

    void accept(milliseconds timeout) {
        tcp_socket peer;
        if (world_.listener.accept(peer, timeout)) return;
        socket_->close();
        *socket_ = std::move(peer);
    }

    /// node::connect() waits; the input may do meanwhile what it waits for.
    void open_link() {
        for (std::size_t i = 0; i < threads_.size(); ++i) {
            if (threads_[i].joinable()) continue;
            threads_[i] = std::thread([this, i] {
                static_cast<void>(world_.node.connect(world_.ours));
                done_[i] = true;
            });
            return;
        }
    }

    void read_what_is_there(tcp_socket& socket) {
        std::string text;
        char buffer[4096];
        std::size_t size = 1;
        while (socket.is_open() && size != 0) {
            if (socket.receive(buffer, sizeof buffer, size, milliseconds(1))) break;
            text.append(buffer, size);
        }
        world_.seen_by_us.see(text);
    }

    /// A connection that is not accepted would keep the next input's posts waiting.
    void accept_and_close() {
        tcp_socket peer;
        while (!world_.listener.accept(peer, milliseconds(1))) peer.close();
    }

    world& world_;
    std::string_view bytes_;
    std::array<tcp_socket, 4> sockets_;
    tcp_socket* socket_ = nullptr;
    std::array<std::thread, 2> threads_;
    std::array<std::atomic<bool>, 2> done_{};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static std::unique_ptr<world> all;
    static int inputs = 0;
    if (!all || ++inputs % inputs_per_node == 0)
        all = std::make_unique<world>();
    else if (inputs % inputs_per_start == 0)
        all->stop(), all->start();
    script(*all, fuzz::text_of(data, size)).run();
    all->posts.wait();
    all->speak_honestly();
    all->seen_by_node.forget();
    all->seen_by_us.forget();
    return 0;
}
