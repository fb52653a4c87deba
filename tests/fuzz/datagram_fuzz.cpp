// Any bytes as a datagram to a node with discovery on, over loopback: from one of several sockets,
// to the discovery port or to the node's own, with the socket's own address before them or not.
// Then only sockets that have sent something are candidates, an honest one is heard, and everything
// that came back is an answer. Without any bytes, the honest one asks. Not for Windows.
//
// SPDX-License-Identifier: MIT

#include "fuzz.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <thread>

namespace {

using fuzz::check;
using p2pchat::candidate;
using p2pchat::endpoint;

constexpr std::chrono::seconds long_enough{30};
// Waiting for the node's thread is what takes time: after as many inputs as a corpus may have, it
// is waited for only once for several. What is then found may be due to any of these.
constexpr int one_by_one = 1000, at_once = 32;

sockaddr_in native(std::uint16_t port) {
    sockaddr_in result{};
    result.sin_family = AF_INET;
    result.sin_port = htons(port);
    result.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return result;
}

class sender {
public:
    sender() {
        auto local = native(0);
        socklen_t size = sizeof local;
        auto* const place = reinterpret_cast<sockaddr*>(&local);
        check(::bind(socket_, place, size) == 0 && ::getsockname(socket_, place, &size) == 0,
              "the sender has a port");
        address_ = endpoint("127.0.0.1", ntohs(local.sin_port));
    }
    sender(const sender&) = delete;
    sender& operator=(const sender&) = delete;
    ~sender() { ::close(socket_); }

    const endpoint& address() const noexcept { return address_; }
    std::string name() const { return to_string(address_) + ' '; }

    void send(const std::string& bytes, std::uint16_t port) {
        const auto to = native(port);
        const auto sent = ::sendto(socket_, bytes.data(), bytes.size(), 0,
                                   reinterpret_cast<const sockaddr*>(&to), sizeof to);
        check(sent == static_cast<ssize_t>(bytes.size()), "the system takes the datagram");
    }
    bool wait() const {
        pollfd wanted{socket_, POLLIN, 0};
        const auto bound = std::chrono::milliseconds(long_enough).count();
        return ::poll(&wanted, 1, static_cast<int>(bound)) == 1;
    }
    void check_answers(const std::string& wanted) {
        char bytes[1024];
        for (;;) {
            const auto size = ::recv(socket_, bytes, sizeof bytes, MSG_DONTWAIT);
            if (size < 0) return;
            const std::string answer(bytes, static_cast<std::size_t>(size));
            check(answer == wanted, "what comes back is an answer");
        }
    }

private:
    int socket_ = ::socket(AF_INET, SOCK_DGRAM, 0);
    endpoint address_;
};

/// State that lives longer than one input.
struct world {
    p2pchat::tcp_socket held;  // reserves the discovery port: no other node has it
    std::array<sender, 3> senders;
    sender honest;
    std::unique_ptr<p2pchat::node> node;
    std::uint16_t common = 0;
    std::string answer;
    std::uint64_t turn = 0;

    world() {
        check(!held.listen({"127.0.0.1", 0}), "there is a port");
        common = held.local().port();
        p2pchat::config settings;
        settings.team = "Fuzzed";
        settings.address = "127.0.0.1";
        settings.discovery = true;
        settings.discovery_port = common;
        node = std::make_unique<p2pchat::node>(settings);
        check(!node->start(), "the node starts");
        answer = to_string(node->address()) + " Fuzzed HERE";
    }

    /// Once it is heard, everything sent to the same port before has been read.
    void speak_honestly(std::uint16_t port) {
        const std::string now = std::to_string(++turn);
        const auto end = std::chrono::steady_clock::now() + long_enough;
        const auto heard = [&] {
            const auto all = node->candidates();
            return std::any_of(all.begin(), all.end(), [&](const candidate& one) {
                return one.address == honest.address() && one.knows == now;
            });
        };
        honest.send(honest.name() + "Honest HERE " + now, port);
        while (!heard()) {
            check(std::chrono::steady_clock::now() < end, "an honest one is heard");
            std::this_thread::yield();
        }
    }

    void ask() {
        honest.send(honest.name() + "Honest HELLO " + std::string(100, ' '), common);
        check(honest.wait(), "an honest one is answered");
    }

    void check_all() {
        for (const candidate& one : node->candidates()) {
            const auto is_it = [&](const sender& each) { return each.address() == one.address; };
            check(is_it(honest) || std::any_of(senders.begin(), senders.end(), is_it),
                  "who is a candidate has sent something");
            check(!one.team.empty() && one.team.size() <= 64, "a team has its size");
            check(one.team.find_first_of(" \t\r\n") == std::string::npos, "a team is a word");
            check(one.knows.size() < 512, "a datagram has its size");
        }
        check(node->peers().empty(), "nobody is a peer because of a datagram");
        for (auto& each : senders) each.check_answers(answer);
        honest.check_answers(answer);
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static world all;
    if (size == 0) return all.ask(), all.check_all(), 0;
    const unsigned how = data[0];
    auto& from = all.senders[how % all.senders.size()];
    const auto port = (how & 64) != 0 ? all.node->address().port() : all.common;
    std::string bytes((how & 128) != 0 ? from.name() : "");
    bytes.append(fuzz::text_of(data, size).substr(1));
    from.send(bytes, port);
    static int inputs = 0;
    if (++inputs > one_by_one && inputs % at_once != 0) return 0;
    all.speak_honestly(port);
    all.check_all();
    return 0;
}
