// Tests of p2pchat::tcp_socket: listening, connecting, timeouts, and how connections end.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <type_traits>

#if defined(__linux__)
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#endif

using p2pchat::endpoint;
using p2pchat::tcp_socket;
using support::patience;
using namespace std::chrono_literals;

namespace {

static_assert(!std::is_copy_constructible_v<tcp_socket>);
static_assert(std::is_nothrow_move_constructible_v<tcp_socket>);
static_assert(std::is_nothrow_move_assignable_v<tcp_socket>);

const endpoint any_port("127.0.0.1", 0);

/// Both ends of a connection.
struct pair {
    tcp_socket a, b;

    pair() {
        tcp_socket listener;
        REQUIRE_FALSE(listener.listen(any_port));
        REQUIRE_FALSE(a.connect(listener.local(), patience));
        REQUIRE_FALSE(listener.accept(b, patience));
    }
};

std::error_code receive_all(tcp_socket& socket, std::string& into) {
    char buffer[64 * 1024];
    for (std::size_t size = 0;;) {
        if (auto error = socket.receive(buffer, sizeof buffer, size, patience)) return error;
        if (size == 0) return {};
        into.append(buffer, size);
    }
}

/// Sends without waiting until the system takes no more; how much it took.
std::size_t fill(tcp_socket& socket) {
    const std::string chunk(64 * 1024, 'x');
    for (std::size_t total = 0, sent = 0;; total += sent) {
        const auto error = socket.send(chunk, sent, 0ms);
        if (!error) continue;
        CHECK(error == std::errc::operation_would_block);
        return total + sent;
    }
}

}  // namespace

TEST_CASE("a new socket is closed") {
    tcp_socket socket;
    CHECK_FALSE(socket.is_open());
    CHECK(socket.native_handle() == tcp_socket::invalid);
    CHECK(socket.local() == endpoint());
    CHECK(socket.remote() == endpoint());
}

TEST_CASE("calls on a closed socket fail, and do no harm") {
    tcp_socket socket, peer;
    char buffer[8];
    std::size_t size = 0;
    CHECK(socket.send("x", size, 10ms));
    CHECK(size == 0);
    CHECK(socket.receive(buffer, sizeof buffer, size, 10ms));
    CHECK(socket.accept(peer, 10ms));
    CHECK(socket.shutdown_send());
    CHECK(socket.finish_connect());
    socket.no_delay();
    socket.keep_alive(15s);
    socket.close();
    socket.reset();
    CHECK_FALSE(socket.is_open());
}

TEST_CASE("port 0 asks for a free one") {
    tcp_socket first, second;
    CHECK_FALSE(first.listen(any_port));
    CHECK_FALSE(second.listen(any_port));
    CHECK(first.local().port() != 0);
    CHECK(first.local().port() != second.local().port());
    CHECK(first.local().address() == "127.0.0.1");
}

TEST_CASE("a port in use is refused") {
    tcp_socket first, second;
    REQUIRE_FALSE(first.listen(any_port));
    CHECK(second.listen(first.local()) == std::errc::address_in_use);
    CHECK_FALSE(second.is_open());
}

TEST_CASE("a port in use on one address is refused to all") {
    tcp_socket first, second;
    REQUIRE_FALSE(first.listen({"0.0.0.0", 0}));
    CHECK(second.listen({"127.0.0.1", first.local().port()}) == std::errc::address_in_use);
}

TEST_CASE("an address of another machine cannot be listened on") {
    tcp_socket socket;
    CHECK(socket.listen({"192.0.2.200", 0}) == std::errc::address_not_available);
    CHECK_FALSE(socket.is_open());
}

TEST_CASE("a port is free again when its listener is closed, even if it had connections") {
    tcp_socket listener, a, b;
    REQUIRE_FALSE(listener.listen(any_port));
    const endpoint address = listener.local();
    REQUIRE_FALSE(a.connect(address, patience));
    REQUIRE_FALSE(listener.accept(b, patience));
    b.close();  // the listening side closes first: its port stays in TIME_WAIT
    a.close();
    listener.close();
    CHECK_FALSE(listener.listen(address));
}

TEST_CASE("accept waits no longer than its timeout") {
    tcp_socket listener, peer;
    REQUIRE_FALSE(listener.listen(any_port));
    CHECK(listener.accept(peer, 0ms) == std::errc::operation_would_block);
    CHECK(listener.accept(peer, 20ms) == std::errc::timed_out);
    CHECK_FALSE(peer.is_open());
}

TEST_CASE("a waiting accept gets the connection when it comes") {
    tcp_socket listener, peer, other;
    REQUIRE_FALSE(listener.listen(any_port));
    const endpoint address = listener.local();
    std::error_code error;
    std::thread connecting([&] { error = other.connect(address, patience); });
    CHECK_FALSE(listener.accept(peer, patience));
    connecting.join();
    CHECK_FALSE(error);
}

TEST_CASE("accept says where a connection comes from, if asked") {
    tcp_socket listener, a, b;
    REQUIRE_FALSE(listener.listen(any_port));
    REQUIRE_FALSE(a.connect(listener.local(), patience));
    endpoint from;
    REQUIRE_FALSE(listener.accept(b, patience, &from));
    CHECK(from == a.local());
}

TEST_CASE("both ends know each other's address") {
    pair ends;
    CHECK(ends.a.local() == ends.b.remote());
    CHECK(ends.a.remote() == ends.b.local());
    CHECK(ends.a.local().address() == "127.0.0.1");
}

TEST_CASE("a listener on every address accepts IPv4 too, as IPv4") {
    tcp_socket listener, a, b;
    if (listener.listen({"::", 0})) {
        MESSAGE("skipped: this system has no IPv6");
        return;
    }
    REQUIRE_FALSE(a.connect({"127.0.0.1", listener.local().port()}, patience));
    REQUIRE_FALSE(listener.accept(b, patience));
    CHECK(b.remote().is_v4());
    CHECK(b.remote() == a.local());
}

TEST_CASE("IPv6 connects to IPv6") {
    tcp_socket listener, a, b;
    if (listener.listen({"::1", 0})) {
        MESSAGE("skipped: this system has no IPv6");
        return;
    }
    REQUIRE_FALSE(a.connect(listener.local(), patience));
    REQUIRE_FALSE(listener.accept(b, patience));
    CHECK(b.remote() == a.local());
    CHECK(b.remote().address() == "::1");
}

TEST_CASE("connecting to a port without a listener is refused") {
    support::nobody nobody;
    tcp_socket socket;
    CHECK(socket.connect(nobody.address(), patience) == std::errc::connection_refused);
    CHECK_FALSE(socket.is_open());
}

TEST_CASE("system errors have a text on every system") {
    const auto says = [](std::error_code error, std::string_view what) {
        CAPTURE(error.message());
        CHECK(error.message().find(what) != std::string::npos);
    };
    support::nobody nobody;
    tcp_socket listener, socket;
    REQUIRE_FALSE(listener.listen(any_port));
    says(socket.connect(nobody.address(), patience), "refused");
    says(listener.accept(socket, 1ms), "timed out");
    says(tcp_socket().listen(listener.local()), "in use");
}

TEST_CASE("connecting to an invalid address is refused at once") {
    tcp_socket socket;
    CHECK(socket.connect(endpoint(), patience));
    CHECK(socket.connect({"127.0.0.1", 0}, patience));
    CHECK(socket.connect({"0.0.0.0", 5000}, patience));
    CHECK_FALSE(socket.is_open());
}

TEST_CASE("a connect that does not wait is finished later") {
    tcp_socket listener, a, b;
    REQUIRE_FALSE(listener.listen(any_port));
    const auto error = a.connect(listener.local(), 0ms);
    CHECK((!error || error == std::errc::operation_in_progress));
    CHECK_FALSE(listener.accept(b, patience));
    CHECK(support::wait_until([&] { return !a.finish_connect(); }));
    std::size_t sent = 0;
    CHECK_FALSE(a.send("hi", sent, patience));
    CHECK(sent == 2);
}

TEST_CASE("a connect that does not wait can fail later") {
    support::nobody nobody;
    tcp_socket socket;
    auto error = socket.connect(nobody.address(), 0ms);
    if (error == std::errc::operation_in_progress) {
        CHECK(support::wait_until([&] {
            error = socket.finish_connect();
            return error && error != std::errc::not_connected;
        }));
    }
    CHECK(error == std::errc::connection_refused);
}

#if defined(__linux__)

TEST_CASE("connect waits no longer than its timeout") {
    tcp_socket listener;
    REQUIRE_FALSE(listener.listen(any_port));
    // A listener whose queue is full lets further connections wait.
    REQUIRE(::listen(static_cast<int>(listener.native_handle()), 0) == 0);
    std::vector<tcp_socket> sockets(8);
    std::error_code error;
    for (auto& socket : sockets)
        if ((error = socket.connect(listener.local(), 50ms))) break;
    CHECK(error == std::errc::timed_out);
}

TEST_CASE("sockets are not inherited by child processes") {
    const auto closes_on_exec = [](const tcp_socket& socket) {
        return (::fcntl(static_cast<int>(socket.native_handle()), F_GETFD) & FD_CLOEXEC) != 0;
    };
    tcp_socket listener;
    REQUIRE_FALSE(listener.listen(any_port));
    pair ends;
    CHECK(closes_on_exec(listener));
    CHECK(closes_on_exec(ends.a));
    CHECK(closes_on_exec(ends.b));
}

#endif

TEST_CASE("sent data arrives, both ways") {
    pair ends;
    std::size_t sent = 0, received = 0;
    char buffer[16];
    CHECK_FALSE(ends.a.send("ping", sent, patience));
    CHECK(sent == 4);
    CHECK_FALSE(ends.b.receive(buffer, sizeof buffer, received, patience));
    CHECK(std::string_view(buffer, received) == "ping");
    CHECK_FALSE(ends.b.send("pong", sent, patience));
    CHECK_FALSE(ends.a.receive(buffer, sizeof buffer, received, patience));
    CHECK(std::string_view(buffer, received) == "pong");
}

TEST_CASE("sending nothing succeeds") {
    pair ends;
    std::size_t sent = 7;
    CHECK_FALSE(ends.a.send("", sent, patience));
    CHECK(sent == 0);
}

TEST_CASE("receive waits no longer than its timeout") {
    pair ends;
    char buffer[16];
    std::size_t received = 7;
    CHECK(ends.a.receive(buffer, sizeof buffer, received, 0ms) == std::errc::operation_would_block);
    CHECK(received == 0);
    CHECK(ends.a.receive(buffer, sizeof buffer, received, 20ms) == std::errc::timed_out);
    CHECK(received == 0);
}

TEST_CASE("a send that does not wait says how much was taken") {
    pair ends;
    const std::size_t taken = fill(ends.a);
    CHECK(taken > 0);
    ends.a.close();
    std::string received;
    CHECK_FALSE(receive_all(ends.b, received));
    CHECK(received.size() == taken);
}

TEST_CASE("a send with a timeout says how much was taken until then") {
    pair ends;
    const std::string much(64 * 1024 * 1024, 'x');
    std::size_t sent = 0;
    CHECK(ends.a.send(much, sent, 50ms) == std::errc::timed_out);
    CHECK(sent > 0);
    CHECK(sent < much.size());
}

TEST_CASE("much data arrives whole") {
    pair ends;
    std::string much(8 * 1024 * 1024, 'x');
    for (std::size_t i = 0; i < much.size(); ++i) much[i] = static_cast<char>(i * 31 >> 7);
    std::error_code error;
    std::thread sending([&] {
        std::size_t sent = 0;
        error = ends.a.send(much, sent, patience);
        ends.a.close();
    });
    std::string received;
    CHECK_FALSE(receive_all(ends.b, received));
    sending.join();
    CHECK_FALSE(error);
    CHECK((received == much));
}

TEST_CASE("a half-close ends one direction and leaves the other") {
    pair ends;
    std::size_t sent = 0, received = 7;
    char buffer[16];
    CHECK_FALSE(ends.a.shutdown_send());
    CHECK_FALSE(ends.b.receive(buffer, sizeof buffer, received, patience));
    CHECK(received == 0);
    CHECK_FALSE(ends.b.send("still here", sent, patience));
    CHECK_FALSE(ends.a.receive(buffer, sizeof buffer, received, patience));
    CHECK(std::string_view(buffer, received) == "still here");
    CHECK(ends.a.send("x", sent, patience) == std::errc::broken_pipe);
}

TEST_CASE("a reset is seen as one") {
    pair ends;
    ends.a.reset();
    CHECK_FALSE(ends.a.is_open());
    char buffer[16];
    std::size_t received = 0;
    CHECK(ends.b.receive(buffer, sizeof buffer, received, patience) == std::errc::connection_reset);
}

TEST_CASE("closing with bytes unread is a reset too") {
    pair ends;
    std::size_t sent = 0;
    REQUIRE_FALSE(ends.a.send("never read", sent, patience));
    char buffer[4];
    std::size_t received = 0;
    REQUIRE_FALSE(ends.b.receive(buffer, sizeof buffer, received, patience));
    ends.b.close();
    CHECK(ends.a.receive(buffer, sizeof buffer, received, patience) == std::errc::connection_reset);
}

TEST_CASE("sending to a peer that is gone is an error and not a signal") {
    pair ends;
    ends.b.reset();
    std::error_code error;
    CHECK(support::wait_until([&] {
        std::size_t sent = 0;
        error = ends.a.send("x", sent, 0ms);
        return static_cast<bool>(error);
    }));
    std::size_t sent = 0;
    CHECK(ends.a.send("x", sent, 0ms));
}

#if defined(__linux__)
TEST_CASE("keep_alive takes the longest idle time that the system can count") {
    support::raw_listener listener;
    tcp_socket socket;
    CHECK_FALSE(socket.connect(listener.address(), patience));
    for (const auto idle : {32767s, 32768s, std::chrono::seconds::max()}) {
        socket.keep_alive(15s);
        socket.keep_alive(idle);
        int value = 0;
        socklen_t size = sizeof value;
        const int handle = static_cast<int>(socket.native_handle());
        CHECK(::getsockopt(handle, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size) == 0);
        CHECK(value == 32767);
    }
}
#endif

TEST_CASE("moving a socket leaves the old one closed") {
    pair ends;
    const auto handle = ends.a.native_handle();
    tcp_socket moved(std::move(ends.a));
    CHECK(moved.native_handle() == handle);
    CHECK_FALSE(
        ends.a.is_open());  // NOLINT(bugprone-use-after-move): this is the subject of the test

    tcp_socket& same = moved;
    moved = std::move(same);
    CHECK(moved.native_handle() == handle);

    tcp_socket target;
    target = std::move(moved);
    CHECK(target.native_handle() == handle);
}

TEST_CASE("a socket that is assigned to closes its old connection") {
    pair first, second;
    first.a = std::move(second.a);
    std::string received;
    CHECK_FALSE(receive_all(first.b, received));
    std::size_t sent = 0;
    CHECK_FALSE(first.a.send("x", sent, patience));
    CHECK(second.b.receive(received.data(), 0, sent, patience) == std::error_code());
}

TEST_CASE("a destroyed socket is closed") {
    pair ends;
    { const tcp_socket gone(std::move(ends.a)); }
    std::string received;
    CHECK_FALSE(receive_all(ends.b, received));
}

TEST_CASE("a socket that connects or listens again closes its old connection") {
    pair ends;
    tcp_socket listener, b;
    REQUIRE_FALSE(listener.listen(any_port));
    CHECK_FALSE(ends.a.connect(listener.local(), patience));
    std::string received;
    CHECK_FALSE(receive_all(ends.b, received));
    REQUIRE_FALSE(listener.accept(b, patience));
    CHECK_FALSE(ends.a.listen(any_port));
    CHECK_FALSE(receive_all(b, received));
}
