// The floors' building blocks; see raw.hpp.
//
// SPDX-License-Identifier: MIT
#include "raw.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "measure.hpp"

namespace bench {

namespace {

sockaddr_in socket_address(const std::string& address, std::uint16_t port) {
    sockaddr_in result{};
    result.sin_family = AF_INET;
    result.sin_port = htons(port);
    require(inet_pton(AF_INET, address.c_str(), &result.sin_addr) == 1, "bad address");
    return result;
}

const sockaddr* generic(const sockaddr_in& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

void no_delay(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

bool ends_with(std::string_view text, std::string_view end) {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

}  // namespace

// -------------------------------------------------------------------------------------- sockets

std::string loopback(int k) { return "127.0.0." + std::to_string(k); }

descriptor listen_anywhere() {
    descriptor result(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = socket_address("0.0.0.0", 0);
    require(bind(result.get(), generic(address), sizeof address) == 0, "cannot bind");
    require(listen(result.get(), 4096) == 0, "cannot listen");
    return result;
}

std::uint16_t port_of(int fd) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
}

descriptor connect_to(const std::string& address, std::uint16_t port) {
    descriptor result(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    require(result.get() >= 0, "cannot make a socket");
    const auto to = socket_address(address, port);
    if (connect(result.get(), generic(to), sizeof to) != 0)
        fail("cannot connect to " + address + ": " + std::strerror(errno));
    return result;
}

void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

void send_all(int fd, std::string_view data) {
    while (!data.empty()) {
        const auto sent = send_some(fd, data);
        if (sent < 0 && errno == EINTR) continue;
        require(sent > 0, "cannot send");
        data.remove_prefix(static_cast<std::size_t>(sent));
    }
}

std::string_view receive_some(int fd, char* buffer, std::size_t size) {
    const auto received = receive(fd, buffer, size);
    require(received >= 0, "cannot receive");
    return {buffer, static_cast<std::size_t>(received)};
}

event_waiter::event_waiter(std::chrono::microseconds spin)
    : epoll_(epoll_create1(EPOLL_CLOEXEC)), spin_(spin) {}

void event_waiter::watch(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    require(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0, "cannot watch a socket");
}

int event_waiter::wait(int (&ready)[64]) {
    epoll_event events[64];
    int count = 0;
    if (spin_.count() > 0) {
        const auto until = std::chrono::steady_clock::now() + spin_;
        do {
            count = epoll_wait(epoll_.get(), events, 64, 0);
            if (count == 0) std::this_thread::yield();
        } while (count == 0 && std::chrono::steady_clock::now() < until);
    }
    if (count == 0) count = epoll_wait(epoll_.get(), events, 64, -1);
    for (int i = 0; i < count; ++i) ready[i] = events[i].data.fd;
    return count;
}

// --------------------------------------------------------------------------------------- format

numbered_text::numbered_text(std::size_t whole_message, std::uint64_t first)
    : text_(whole_message - head.size(), '0') {
    for (auto digit = text_.rbegin(); first > 0; first /= 10)
        *digit++ = static_cast<char>('0' + first % 10);
}

void numbered_text::next() {
    auto digit = text_.rbegin();
    while (*digit == '9') *digit++ = '0';
    ++*digit;
}

std::uint64_t number_of(std::string_view text) {
    std::uint64_t result = 0;
    const auto filled = text.size() > 15 ? text.size() - 15 : 0;
    for (const char c : text.substr(filled)) {
        require(c >= '0' && c <= '9', "a text that was not sent");
        result = result * 10 + static_cast<std::uint64_t>(c - '0');
    }
    const bool zeros =
        filled == 0 || (text[0] == '0' && text.substr(0, filled - 1) == text.substr(1, filled - 1));
    require(zeros, "a text that was not sent");
    return result;
}

namespace {

// A number up to its end mark, which is skipped; 65536 or more if it is invalid.
std::uint32_t number_until(const char*& at, const char* end, char mark) {
    std::uint32_t value = 0;
    const char* start = at;
    while (at != end && static_cast<unsigned char>(*at - '0') < 10 && at - start < 5)
        value = value * 10 + static_cast<std::uint32_t>(*at++ - '0');
    if (at == start || at == end || *at != mark) return 1u << 20;
    ++at;
    return value;
}

}  // namespace

bool parse_digits(std::string_view bytes, parsed& result) {
    const char* at = bytes.data();
    const char* const end = at + bytes.size();
    std::uint32_t address = 0;
    for (int i = 0; i < 4; ++i) {
        const auto part = number_until(at, end, i < 3 ? '.' : ':');
        if (part > 255) return false;
        address = address << 8 | part;
    }
    const auto port = number_until(at, end, ' ');
    if (port == 0 || port > 65535) return false;
    const char* const team = at;
    while (at != end && *at != ' ') ++at;
    if (at == team || end - at < 2) return false;
    result.address = address;
    result.port = static_cast<std::uint16_t>(port);
    result.team = {team, static_cast<std::size_t>(at - team)};
    result.text = {at + 1, static_cast<std::size_t>(end - at - 1)};
    return true;
}

// ----------------------------------------------------------------------------------------- link

descriptor open_link(const std::string& address, std::uint16_t port, std::string_view claim) {
    auto result = connect_to(address, port);
    no_delay(result.get());
    begin_encrypted(result.get(), false);
    send_all(result.get(), std::string(claim) + "CONNECT\n");
    std::string answer;
    char c = 0;
    while (c != '\n') {
        require(receive(result.get(), &c, 1) == 1, "CONNECT was not answered");
        answer += c;
    }
    require(ends_with(answer, " CONNECT\n"), "CONNECT was answered by something else");
    return result;
}

link_receiver::link_receiver(handler on_line, std::chrono::microseconds spin)
    : on_line_(std::move(on_line)),
      events_(spin),
      listener_(listen_anywhere()),
      wake_(eventfd(0, EFD_CLOEXEC)),
      port_(port_of(listener_.get())),
      buffer_(256 * 1024) {
    set_nonblocking(listener_.get());
    events_.watch(listener_.get());
    events_.watch(wake_.get());
    thread_ = std::thread([this] { serve(); });
}

link_receiver::~link_receiver() {
    const std::uint64_t one = 1;
    require(write(wake_.get(), &one, sizeof one) == sizeof one, "cannot wake the receiver");
    thread_.join();
    for (std::size_t fd = 0; fd < by_descriptor_.size(); ++fd)
        if (by_descriptor_[fd].open) close_connection(static_cast<int>(fd));
}

void link_receiver::serve() {
    int ready[64];
    for (;;) {
        const int count = events_.wait(ready);
        for (int i = 0; i < count; ++i) {
            if (ready[i] == wake_.get()) return;
            if (ready[i] == listener_.get())
                accept_all();
            else
                read_from(ready[i]);
        }
    }
}

void link_receiver::accept_all() {
    for (;;) {
        const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        no_delay(fd);
        begin_encrypted(fd, true);
        const auto index = static_cast<std::size_t>(fd);
        if (by_descriptor_.size() <= index) by_descriptor_.resize(index + 1);
        by_descriptor_[index] = link{};
        by_descriptor_[index].open = true;
        events_.watch(fd);
    }
}

void link_receiver::read_from(int fd) {
    const auto received = receive(fd, buffer_.data(), buffer_.size());
    if (received < 0 && errno == EAGAIN) return;
    if (received <= 0) return end(fd);
    auto& from = by_descriptor_[static_cast<std::size_t>(fd)];
    const auto before = from.taken;
    const std::string_view bytes(buffer_.data(), static_cast<std::size_t>(received));
    if (from.partial) {
        const auto whole = std::move(from.partial);
        whole->append(bytes);
        take_lines(fd, from, *whole);
    } else {
        take_lines(fd, from, bytes);
    }
    if (from.taken != before) confirm(fd, from);
}

void link_receiver::take_lines(int fd, link& from, std::string_view bytes) {
    std::uint32_t taken = 0;
    while (!bytes.empty()) {
        const auto length = bytes.find('\n');
        if (length == std::string_view::npos) {
            from.partial = std::make_unique<std::string>(bytes);
            break;
        }
        parsed line;
        require(parse_digits(bytes.substr(0, length), line), "a line that is no message");
        bytes.remove_prefix(length + 1);
        if (line.text == "CONNECT") {
            answer_connect(fd, from);
            continue;
        }
        ++taken;
        on_line_(line);
    }
    from.taken += taken;
    taken_ += taken;
}

// Claims the address that the other side connected to, since that is how it knows us.
void link_receiver::answer_connect(int fd, link& from) {
    sockaddr_in own{};
    socklen_t size = sizeof own;
    getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size);
    char address[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &own.sin_addr, address, sizeof address);
    send_all(fd, std::string(address) + ':' + std::to_string(port_) + " Team_RAW CONNECT\n");
    from.taken = 0;
    ++links_;
}

void link_receiver::confirm(int fd, const link& to) {
    char line[32] = "ACK ";
    auto [end, error] = std::to_chars(line + 4, line + sizeof line - 1, to.taken);
    require(error == std::errc{}, "a number that does not fit");
    *end++ = '\n';
    send_all(fd, {line, static_cast<std::size_t>(end - line)});
}

void link_receiver::end(int fd) {
    by_descriptor_[static_cast<std::size_t>(fd)] = link{};
    close_connection(fd);
    --links_;
}

std::uint64_t ack_reader::take(std::string_view bytes) {
    for (const char c : bytes) {
        if (c >= '0' && c <= '9') {
            number_ = number_ * 10 + static_cast<std::uint64_t>(c - '0');
        } else if (c == '\n') {
            require(number_ >= confirmed_, "a confirmation that goes back");
            confirmed_ = std::exchange(number_, 0);
        }
    }
    return confirmed_;
}

}  // namespace bench
