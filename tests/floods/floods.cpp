// Floods a node, in a process of its own, and measures the latency of an honest sender meanwhile
// and how much memory and how many threads and descriptors the node uses; and the same for a node
// without a flood. Linux; loopback only; bounded in count and time.
//
//     floods            thirty seconds of each flood
//     floods SECONDS    so many seconds of each
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using p2pchat::endpoint;
using p2pchat::message;
using p2pchat::tcp_socket;
using std::chrono::milliseconds;
using clock_type = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr int connections_a_second = 10000, handshakes_a_second = 1000;
constexpr std::size_t silent_ones = 3000, slow_ones = 1000, posting_ones = 1000, valid_ones = 3000,
                      encrypted_ones = 2000;
constexpr int datagrams_a_second = 100000;
constexpr std::size_t datagram_senders = 2000;
constexpr std::chrono::seconds longest_datagram_flood{10};
// From a newcomer's third announcement to its fourth are 33 s at most.
constexpr std::chrono::seconds found_within{3 + 33 + 1};
// Against a few flooders one of the first three has to suffice.
constexpr std::chrono::seconds found_soon{5};
constexpr milliseconds slow_handler = 1ms;

[[noreturn]] void fail(const std::string& why) {
    std::cerr << "floods: " << why << '\n';
    std::exit(1);
}

p2pchat::config settings(const char* team, bool encrypted = false) {
    p2pchat::config result;
    result.team = team;
    result.address = "127.0.0.1";
    if (encrypted) result.encryption = p2pchat::encryption::required;
    return result;
}

/// On loopback, as the address is; there is no discovery port 0.
p2pchat::config settings(const char* team, std::uint16_t discovery_port, bool encrypted = false) {
    auto result = settings(team, encrypted);
    result.discovery = discovery_port != 0;
    if (result.discovery) result.discovery_port = discovery_port;
    return result;
}

/// Allows as many descriptors as the system does.
void allow_descriptors() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

// ------------------------------------------------------------------------------- the flooded node

constexpr const char* newcomer = "Newcomer";

/// The child process: a node that serves until its standard input ends; then it prints how many
/// candidates there were at most, and how many datagrams it ignored.
int be_the_node(milliseconds handler_time, std::uint16_t discovery_port, bool encrypted) {
    p2pchat::node node(settings("Flooded", discovery_port, encrypted));
    node.on_message([=](const message&) {
        if (handler_time != 0ms) std::this_thread::sleep_for(handler_time);
    });
    node.on_rejected([](const endpoint&, std::error_code) {});
    node.on_peer_found([](const p2pchat::candidate& who) {
        if (who.team == newcomer) std::cout << "found\n" << std::flush;
    });
    if (auto error = node.start()) fail("the node: " + error.message());
    std::cout << node.address() << '\n' << std::flush;
    std::size_t most = 0;
    pollfd input{0, POLLIN, 0};
    while (::poll(&input, 1, discovery_port != 0 ? 20 : -1) == 0)
        most = (std::max)(most, node.candidates().size());
    std::cout << most << " candidates at most, " << node.statistics().ignored
              << " datagrams ignored\n";
    return 0;
}

/// A node in a process of its own, so that its memory can be measured.
class node_process {
public:
    node_process(const char* program, milliseconds handler_time, std::uint16_t discovery_port,
                 bool encrypted = false) {
        int in[2], out[2];
        if (::pipe(in) != 0 || ::pipe(out) != 0) fail("no pipe");
        child_ = ::fork();
        if (child_ < 0) fail("no process");
        if (child_ == 0) {
            ::dup2(in[0], 0);
            ::dup2(out[1], 1);
            for (int end : {in[0], in[1], out[0], out[1]}) ::close(end);
            const auto time = std::to_string(handler_time.count());
            const auto port = std::to_string(discovery_port);
            ::execl(program, program, "--node", time.c_str(), port.c_str(), encrypted ? "1" : "0",
                    nullptr);
            ::_exit(127);
        }
        ::close(in[0]);
        ::close(out[1]);
        input_ = in[1];
        output_ = out[0];
        if (parse(line(), address_)) fail("the node does not start");
        watcher_ = std::thread([this] { watch(); });
    }
    node_process(const node_process&) = delete;
    node_process& operator=(const node_process&) = delete;

    /// Ends it in order; false if that failed.
    bool end() {
        ending_ = true;
        watcher_.join();
        ::close(input_);
        for (std::string each; !(each = line()).empty();) last_words_ = each;
        ::close(output_);
        int status = 0;
        return ::waitpid(child_, &status, 0) == child_ && status == 0;
    }

    const endpoint& address() const noexcept { return address_; }
    /// Waits until it says that it has found the newcomer.
    bool has_found_it(clock_type::time_point end) {
        const auto left = end - clock_type::now();
        pollfd wanted{output_, POLLIN, 0};
        const auto bound = std::chrono::ceil<milliseconds>(left).count();
        return ::poll(&wanted, 1, (std::max)(0, static_cast<int>(bound))) == 1 && line() == "found";
    }
    const std::string& last_words() const noexcept { return last_words_; }
    double peak_mebibytes() const { return static_cast<double>(status("VmHWM:")) / 1024; }
    double mebibytes() const { return static_cast<double>(status("VmRSS:")) / 1024; }
    long threads() const noexcept { return threads_; }
    long descriptors() const noexcept { return descriptors_; }

private:
    std::string line() const {
        std::string result;
        for (char c = 0; ::read(output_, &c, 1) == 1 && c != '\n';) result.push_back(c);
        return result;
    }

    void watch() {
        while (!ending_) {
            threads_ = (std::max)(threads_.load(), status("Threads:"));
            descriptors_ = (std::max)(descriptors_.load(), count_descriptors());
            std::this_thread::sleep_for(100ms);
        }
    }

    long status(const std::string& wanted) const {
        std::ifstream file("/proc/" + std::to_string(child_) + "/status");
        for (std::string word; file >> word;)
            if (long value = 0; word == wanted && file >> value) return value;
        return 0;
    }

    /// FDSize only ever grows, in powers of two; the directory's entries are exact.
    long count_descriptors() const {
        const auto command = "ls /proc/" + std::to_string(child_) + "/fd | wc -l";
        long count = 0;
        if (std::FILE* const pipe = ::popen(command.c_str(), "r")) {
            if (std::fscanf(pipe, "%ld", &count) != 1) count = 0;
            ::pclose(pipe);
        }
        return count;
    }

    endpoint address_;
    pid_t child_ = 0;
    int input_ = -1, output_ = -1;
    std::string last_words_;
    std::atomic<bool> ending_{false};
    std::atomic<long> threads_{0}, descriptors_{0};
    std::thread watcher_;
};

// ------------------------------------------------------------------------------------- the floods

/// Floods a node until the end; returns how much it has sent.
using flood = std::function<std::string(const endpoint& to, clock_type::time_point end)>;

std::string leave_in_quiet(const endpoint&, clock_type::time_point end) {
    std::this_thread::sleep_until(end);
    return "nothing";
}

/// Opens some connections every millisecond; each is left to `use` once established.
template <typename Use>
std::string connect(int a_second, const endpoint& to, clock_type::time_point end, const Use& use) {
    const auto start = clock_type::now();
    long made = 0;
    while (clock_type::now() < end) {
        const std::chrono::duration<double> time = clock_type::now() - start;
        const auto due = static_cast<long>(time.count() * a_second);
        for (; made < due && clock_type::now() < end; ++made) {
            tcp_socket socket;
            if (socket.connect(to, 1000ms)) break;
            use(std::move(socket));
        }
        std::this_thread::sleep_for(1ms);
    }
    const std::chrono::duration<double> time = clock_type::now() - start;
    return std::to_string(std::lround(static_cast<double>(made) / time.count())) +
           " connections a second";
}

std::string connect_and_go(const endpoint& to, clock_type::time_point end) {
    return connect(connections_a_second, to, end, [](tcp_socket socket) { socket.reset(); });
}

#if defined(P2PCHAT_OPENSSL)
/// Connections that stay open, of which one half sends a part of a TLS handshake's first message,
/// the other half all of it; or, to `finish`, all complete the handshake. None sends more.
std::string shake_hands(bool finish, const endpoint& to, clock_type::time_point end) {
    p2pchat::detail::tls maker;
    if (maker.open({})) fail("no TLS");
    std::deque<p2pchat::detail::stream> all;
    std::size_t made = 0, finished = 0;
    const auto use = [&](tcp_socket socket) {
        auto with = maker.new_session(false);
        std::string text;
        std::size_t size = 0;
        bool ended = false;
        if (with->decrypt({}, text)) fail("no handshake");
        if (!finish && ++made % 2 != 0) with->ciphertext.resize(100);
        all.emplace_back(std::move(socket));
        auto& one = all.back();
        static_cast<void>(one.begin(std::move(with)));
        static_cast<void>(one.flush());
        char bytes[4096];
        while (finish && !one.is_ready())
            if (one.socket().receive(bytes, sizeof bytes, size, 1000ms) ||
                one.decrypt({bytes, size}, {}, text, ended))
                break;
        finished += one.is_ready();
        if (all.size() > encrypted_ones) all.pop_front();
    };
    const auto managed = connect(handshakes_a_second, to, end, use);
    return managed + ", " + std::to_string(finished) + " handshakes finished";
}
#endif

/// Whether the node, which writes nothing to it, has ended this connection.
bool has_ended(tcp_socket& socket) {
    char byte = 0;
    std::size_t size = 0;
    const auto error = socket.receive(&byte, 1, size, {});
    return error != std::errc::operation_would_block;
}

/// Keeps `count` connections open, silent or with a byte a second on each; those that the node ends
/// are opened again, every second.
std::string hold_open(std::size_t count, bool dripping, const endpoint& to,
                      clock_type::time_point end) {
    std::vector<tcp_socket> sockets(count);
    std::size_t opened = 0;
    for (auto next = clock_type::now(); next < end; next += 1s) {
        for (auto& socket : sockets) {
            std::size_t sent = 0;
            if (!socket.is_open() || has_ended(socket)) {
                socket = tcp_socket();
                if (!socket.connect(to, 1000ms)) ++opened;
            }
            if (dripping) static_cast<void>(socket.send("1", sent, {}));
        }
        std::this_thread::sleep_until((std::min)(next + 1s, end));
    }
    return std::to_string(count) + " at once, opened " + std::to_string(opened) + " times";
}

/// A peer with a link of its own, which posts as fast as the connection takes it.
class poster {
public:
    poster(const endpoint& to, std::size_t index) {
        const auto name = "127.0.0.1:" + std::to_string(index + 1) + " Flood ";
        while (lines_.size() < 4096) lines_ += name + "a message as people write them\n";
        messages_in_lines_ = lines_.size() / (name.size() + 31);
        std::size_t sent = 0;
        if (socket_.connect(to, 1000ms) || socket_.send(name + "CONNECT\n", sent, 1000ms))
            socket_.close();
        // Its posts wait in the node and in the system's receive buffers, not here.
        const int size = 16 * 1024;
        ::setsockopt(static_cast<int>(socket_.native_handle()), SOL_SOCKET, SO_SNDBUF, &size,
                     sizeof size);
    }

    bool works() const noexcept { return socket_.is_open(); }
    pollfd entry() const noexcept {
        return {static_cast<int>(socket_.native_handle()), POLLIN | POLLOUT, 0};
    }

    /// Writes what can be written, and reads and discards confirmations.
    void go_on() {
        char answers[4096];
        std::size_t size = 0;
        auto error = socket_.receive(answers, sizeof answers, size, {});
        if (error ? error != std::errc::operation_would_block : size == 0) return socket_.close();
        for (;;) {
            error = socket_.send(std::string_view(lines_).substr(written_), size, {});
            written_ += size;
            if (error) break;
            written_ = 0;
            posted_ += messages_in_lines_;
        }
        if (error != std::errc::operation_would_block) socket_.close();
    }

    std::size_t posted() const noexcept { return posted_; }

private:
    tcp_socket socket_;
    std::string lines_;
    std::size_t messages_in_lines_ = 0, written_ = 0, posted_ = 0;
};

std::string post_at_full_speed(const endpoint& to, clock_type::time_point end) {
    std::vector<poster> peers;
    for (std::size_t i = 0; i < posting_ones; ++i) peers.emplace_back(to, i);
    std::vector<pollfd> entries;
    while (clock_type::now() < end) {
        entries.clear();
        for (auto& each : peers) entries.push_back(each.entry());
        ::poll(entries.data(), entries.size(), 50);
        for (std::size_t i = 0; i < peers.size(); ++i)
            if (entries[i].revents != 0 && peers[i].works()) peers[i].go_on();
    }
    std::size_t posted = 0, left = 0;
    for (auto& each : peers) posted += each.posted(), left += each.works();
    return std::to_string(left) + " links at the end, " + std::to_string(posted) + " posted";
}

/// Keeps `valid_ones` messages under way, each on a connection of its own; one that was taken or
/// evicted is sent again at once.
std::string send_one_shots(const endpoint& to, clock_type::time_point end) {
    std::vector<tcp_socket> sockets(valid_ones);
    std::size_t sent = 0, bytes = 0;
    while (clock_type::now() < end) {
        for (auto& socket : sockets) {
            if (socket.is_open() && !has_ended(socket)) continue;
            socket = tcp_socket();
            if (socket.connect(to, 1000ms)) break;
            static_cast<void>(socket.send("127.0.0.1:9 Flood me first", bytes, {}));
            static_cast<void>(socket.shutdown_send());
            ++sent;
        }
        std::this_thread::sleep_for(1ms);
    }
    return std::to_string(valid_ones) + " at once, sent " + std::to_string(sent);
}

sockaddr_in native(const std::string& address, std::uint16_t port) {
    sockaddr_in result{};
    result.sin_family = AF_INET;
    result.sin_port = htons(port);
    ::inet_pton(AF_INET, address.c_str(), &result.sin_addr);
    return result;
}

/// A port of a loopback host, from which a node that does not exist sends to the discovery group.
class announcer {
public:
    announcer(const std::string& name, std::uint16_t discovery_port) {
        auto local = native(name, 0);
        socklen_t size = sizeof local;
        if (::bind(socket_, reinterpret_cast<const sockaddr*>(&local), size) != 0 ||
            ::setsockopt(socket_, IPPROTO_IP, IP_MULTICAST_IF, &local.sin_addr,
                         sizeof local.sin_addr) != 0 ||
            ::getsockname(socket_, reinterpret_cast<sockaddr*>(&local), &size) != 0)
            fail("no sender of datagrams");
        group_ = native("239.255.112.50", discovery_port);
        head_ = name + ':' + std::to_string(ntohs(local.sin_port)) + " Flood ";
    }
    announcer(const announcer&) = delete;
    announcer& operator=(const announcer&) = delete;
    ~announcer() { ::close(socket_); }

    const std::string& head() const noexcept { return head_; }
    void say(const std::string& word) {
        const auto text = head_ + word;
        static_cast<void>(::sendto(socket_, text.data(), text.size(), 0,
                                   reinterpret_cast<const sockaddr*>(&group_), sizeof group_));
    }

protected:
    int socket_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in group_{};

private:
    std::string head_;
};

/// Sends malformed datagrams, those that claim another sender, and valid ones.
class datagram_sender : announcer {
public:
    datagram_sender(std::size_t index, std::uint16_t discovery_port)
        : announcer(
              "127.77." + std::to_string(1 + index / 250) + '.' + std::to_string(1 + index % 250),
              discovery_port),
          texts_{std::string(128, '\x7f'), "127.78.1.1:5000 Flood HELLO", head() + "HELLO"} {
        for (auto& text : texts_) text.resize(128, ' ');
    }

    /// How many it has sent. Many in one call, or the flooder could not keep up.
    int send_some() {
        constexpr std::size_t count = 30;
        std::array<iovec, count> parts{};
        std::array<mmsghdr, count> all{};
        for (std::size_t i = 0; i < count; ++i) {
            parts[i] = {texts_[i % texts_.size()].data(), texts_[i % texts_.size()].size()};
            all[i].msg_hdr.msg_name = &group_;
            all[i].msg_hdr.msg_namelen = sizeof group_;
            all[i].msg_hdr.msg_iov = &parts[i];
            all[i].msg_hdr.msg_iovlen = 1;
        }
        return (std::max)(0, ::sendmmsg(socket_, all.data(), count, 0));
    }

private:
    std::array<std::string, 3> texts_;
};

std::string send_datagrams(const endpoint&, std::uint16_t discovery_port,
                           clock_type::time_point end) {
    std::vector<std::unique_ptr<datagram_sender>> senders;
    for (std::size_t i = 0; i < datagram_senders; ++i)
        senders.push_back(std::make_unique<datagram_sender>(i, discovery_port));
    const auto start = clock_type::now();
    long sent = 0;
    const auto seconds = [&] {
        return std::chrono::duration<double>(clock_type::now() - start).count();
    };
    for (std::size_t turn = 0; clock_type::now() < end; std::this_thread::sleep_for(1ms))
        while (static_cast<double>(sent) < seconds() * datagrams_a_second &&
               clock_type::now() < end)
            sent += senders[turn++ % senders.size()]->send_some();
    return std::to_string(std::lround(static_cast<double>(sent) / seconds())) +
           " datagrams a second";
}

/// One host that comes and goes at eight ports, with two datagrams every 10 ms.
std::string come_and_go(const endpoint&, std::uint16_t discovery_port, clock_type::time_point end) {
    std::vector<std::unique_ptr<announcer>> ports;
    while (ports.size() < 8)
        ports.push_back(std::make_unique<announcer>("127.79.0.1", discovery_port));
    std::size_t sent = 0;
    for (; clock_type::now() < end; std::this_thread::sleep_for(10ms))
        for (const char* const word : {"HELLO", "exit"})
            ports[sent++ / 2 % ports.size()]->say(word);
    return std::to_string(sent) + " datagrams";
}

/// A linked peer at a host of its own, which names peers that do not exist.
class liar {
public:
    liar(std::size_t index, std::size_t count, const endpoint& node) {
        const auto number = std::to_string(index);
        const auto name = "127.77.0." + number;
        sockaddr_in local = native(name, 0), to = native(node.address(), node.port());
        const timeval patience{1, 0};
        ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (::bind(socket_, reinterpret_cast<const sockaddr*>(&local), sizeof local) != 0 ||
            ::connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
            fail("no liar");
        say(name + ":5000 Flood CONNECT\nKNOWS 1\n");
        std::string heard;
        char bytes[256];
        while (heard.find("PEERS\n") == std::string::npos) {
            const auto size = ::recv(socket_, bytes, sizeof bytes, 0);
            if (size <= 0) fail("nobody asks a liar");
            heard.append(bytes, static_cast<std::size_t>(size));
        }
        for (std::size_t i = 1; i <= count; ++i)
            say("PEER 127.78." + number + '.' + std::to_string(i) + ":5000/Flood\n");
    }
    liar(const liar&) = delete;
    liar& operator=(const liar&) = delete;
    ~liar() { ::close(socket_); }

private:
    void say(const std::string& line) {
        static_cast<void>(::send(socket_, line.data(), line.size(), MSG_NOSIGNAL));
    }

    int socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
};

/// Six of them name as many as there may be. Each is asked once, so they link again every 7 s.
std::string tell_lies(const endpoint& to, std::uint16_t, clock_type::time_point end) {
    std::vector<std::unique_ptr<liar>> liars;
    for (; clock_type::now() < end; liars.clear()) {
        for (const std::size_t count : {50u, 50u, 50u, 50u, 50u, 6u})
            liars.push_back(std::make_unique<liar>(liars.size() + 1, count, to));
        std::this_thread::sleep_until((std::min)(clock_type::now() + 7s, end));
    }
    return "256 told of, again and again";
}

// ------------------------------------------------------------------------------- the honest sender

/// The outcomes of an honest sender's messages, one every 20 ms.
struct experience {
    std::vector<double> milliseconds;  // of the delivered ones
    std::size_t undelivered = 0;

    double share(double part) const {
        if (milliseconds.empty()) return 0;
        auto sorted = milliseconds;
        std::sort(sorted.begin(), sorted.end());
        return sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1))];
    }
};

experience be_honest(const endpoint& to, bool by_link, clock_type::time_point end,
                     bool encrypted = false) {
    auto honest = settings("Honest", encrypted);
    honest.address = to.address();
    p2pchat::node us(honest);
    if (auto error = us.start()) fail("the honest sender: " + error.message());
    experience result;
    while (clock_type::now() < end) {
        if (by_link) static_cast<void>(us.connect(to));
        const auto start = clock_type::now();
        const auto error = us.send(to, "are you there");
        const std::chrono::duration<double, std::milli> time = clock_type::now() - start;
        if (error)
            ++result.undelivered;
        else
            result.milliseconds.push_back(time.count());
        std::this_thread::sleep_for(20ms);
    }
    return result;
}

// --------------------------------------------------------------------------------------- the table

struct scene {
    const char* name;
    milliseconds handler_time;
    flood work;
    const char* honest_to = "127.0.0.1";  // the flood goes to this one
    bool encrypted = false;
};

const scene scenes[] = {
    {"quiet", 0ms, leave_in_quiet},
    {"connections", 0ms, connect_and_go},
    {"silent", 0ms, [](auto& to, auto end) { return hold_open(silent_ones, false, to, end); }},
    {"slow", 0ms, [](auto& to, auto end) { return hold_open(slow_ones, true, to, end); }},
    {"quiet, slow handler", slow_handler, leave_in_quiet},
    {"posting, slow handler", slow_handler, post_at_full_speed},
    {"one-shots, slow handler", slow_handler, send_one_shots, "::1"},
#if defined(P2PCHAT_OPENSSL)
    {"quiet, encrypted", 0ms, leave_in_quiet, "127.0.0.1", true},
    {"handshakes begun", 0ms, [](auto& to, auto end) { return shake_hands(false, to, end); },
     "127.0.0.1", true},
    {"handshakes finished, silent", 0ms,
     [](auto& to, auto end) { return shake_hands(true, to, end); }, "127.0.0.1", true},
#endif
};

void print(const char* how, const experience& e) {
    std::printf("  %-9s %6zu delivered  p50 %8.2f  p99 %8.2f  max %8.2f ms  %zu not delivered\n",
                how, e.milliseconds.size(), e.share(0.5), e.share(0.99), e.share(1), e.undelivered);
}

/// Ends the node and prints the results. False if the honest sender was not served.
bool conclude(node_process& node, const char* name, const std::string& managed,
              const experience& by_one_shots, const experience& by_link, bool all_wanted) {
    const double memory = node.peak_mebibytes();
    const bool ended = node.end();
    std::printf("%s: %s\n", name, managed.c_str());
    print("one-shots", by_one_shots);
    print("link", by_link);
    std::printf("  the node's process: peak %.1f MiB, %ld threads, %ld descriptors\n", memory,
                node.threads(), node.descriptors());
    std::fflush(stdout);
    const bool served = !by_one_shots.milliseconds.empty() && !by_link.milliseconds.empty();
    const bool always = by_one_shots.undelivered + by_link.undelivered == 0;
    return ended && served && node.threads() == 3 && (always || !all_wanted);
}

/// Plays a scene and prints the results. False if the honest sender was not served.
bool play(const char* program, const scene& what, std::chrono::seconds time) {
    node_process node(program, what.handler_time, 0, what.encrypted);
    const endpoint honest_to(what.honest_to, node.address().port());
    const auto end = clock_type::now() + time;
    experience by_one_shots, by_link;
    std::string managed;
    std::thread flooding([&] { managed = what.work(node.address(), end); });
    std::thread linked([&] { by_link = be_honest(honest_to, true, end, what.encrypted); });
    by_one_shots = be_honest(honest_to, false, end, what.encrypted);
    linked.join();
    flooding.join();
    return conclude(node, what.name, managed, by_one_shots, by_link, what.handler_time == 0ms);
}

/// A flood of discovery, in which a newcomer starts and is found.
struct finding {
    const char* name;
    std::function<std::string(const endpoint&, std::uint16_t port, clock_type::time_point)> work;
    std::chrono::milliseconds time, before;  // in all, and until the newcomer starts
    std::chrono::seconds found_within;
};

bool play(const char* program, const finding& what) {
    tcp_socket held;  // reserves the number, so that no other node has it
    if (held.listen({"127.0.0.1", 0})) fail("no port");
    const auto port = held.local().port();
    node_process node(program, 0ms, port);
    const auto begin = clock_type::now();
    const auto end = begin + what.time;
    experience by_one_shots, by_link;
    std::string managed;
    std::thread flooding([&] { managed = what.work(node.address(), port, end); });
    std::thread linked([&] { by_link = be_honest(node.address(), true, end); });
    std::thread by_itself([&] { by_one_shots = be_honest(node.address(), false, end); });

    std::this_thread::sleep_until(begin + what.before);
    const double before = node.mebibytes();
    p2pchat::node arriving(settings(newcomer, port));
    const auto start = clock_type::now();
    if (auto error = arriving.start()) fail("the newcomer: " + error.message());
    const bool found = node.has_found_it(start + what.found_within);
    const std::chrono::duration<double> took = clock_type::now() - start;
    by_itself.join();
    linked.join();
    flooding.join();
    const double after = node.mebibytes();

    const bool well = conclude(node, what.name, managed, by_one_shots, by_link, true);
    std::printf("  %s, newcomer %s after %.1f s, from %.1f to %.1f MiB since it started\n",
                node.last_words().c_str(), found ? "found" : "NOT FOUND", took.count(), before,
                after);
    std::fflush(stdout);
    return well && found && std::atoi(node.last_words().c_str()) <= 256 && after - before < 1;
}

}  // namespace

int main(int argc, char** argv) {
    allow_descriptors();
    if (argc == 5)
        return be_the_node(milliseconds(std::atoi(argv[2])),
                           static_cast<std::uint16_t>(std::atoi(argv[3])), *argv[4] == '1');
    if (::access("/proc/self/status", R_OK) != 0) {
        std::puts("skipped: this needs /proc");
        return 77;
    }
    const std::chrono::seconds time(argc == 2 ? std::atoi(argv[1]) : 30);
    bool well = true;
    for (const auto& each : scenes) well = play(argv[0], each, time) && well;
    const milliseconds datagrams = (std::min)(time, longest_datagram_flood);
    const finding findings[] = {
        {"datagrams", send_datagrams, datagrams, datagrams / 3, found_within},
        // Four seconds of it use up the burst of candidates that may come in all.
        {"one host comes and goes", come_and_go, 6s + found_soon, 6s, found_soon},
        // Candidates that have been there for 20 s are not evicted for others that peers name.
        {"six liars", tell_lies, 22s + found_soon, 22s, found_soon},
    };
    for (const auto& each : findings) well = play(argv[0], each) && well;
    return well ? 0 : 1;
}
