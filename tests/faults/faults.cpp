// The wrappers between the library and the system, and the plan by which they fail.
//
// SPDX-License-Identifier: MIT

#include "faults.hpp"

#include <malloc.h>
#include <netdb.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

namespace faults {

namespace {

// Written by arm() while no library thread runs, or while it runs undisturbed: hence atomic.
std::atomic<bool> on{false};
std::atomic<call> which{call::socket};
std::atomic<int> error_now{0};
std::atomic<int> from{0}, until{0};
std::atomic<int> seen{0}, hits{0};
std::atomic<long> live_blocks{0};
thread_local int truces = 0;

/// How this call should fail; 0: not at all.
int strike(call what) noexcept {
    if (!on || truces != 0 || which != what) return 0;
    const int number = ++seen;
    if (number < from || number >= until) return 0;
    ++hits;
    return error_now;
}

/// -1 with errno set, as the system's calls fail.
int fail(int error) noexcept {
    errno = error;
    return -1;
}

}  // namespace

void arm(const way& how, int first, int count) noexcept {
    which = how.which;
    error_now = how.error;
    from = first;
    until = first + count;
    seen = hits = 0;
    on = true;
}

void disarm() noexcept { on = false; }
void resume() noexcept { on = true; }
bool armed() noexcept { return on; }
int struck() noexcept { return hits; }
long blocks() noexcept { return live_blocks; }

truce::truce() noexcept { ++truces; }
truce::~truce() { --truces; }

#define WAY(function, code) \
    { call::function, code, #function " " #code }

const std::vector<way>& all_ways() {
    static const std::vector<way> ways = {
        WAY(socket, EACCES),
        WAY(socket, EAFNOSUPPORT),
        WAY(socket, EINVAL),
        WAY(socket, EMFILE),
        WAY(socket, ENFILE),
        WAY(socket, ENOBUFS),
        WAY(socket, ENOMEM),
        WAY(socket, EPROTONOSUPPORT),
        WAY(bind, EACCES),
        WAY(bind, EADDRINUSE),
        WAY(bind, EINVAL),
        WAY(bind, EADDRNOTAVAIL),
        WAY(bind, ENOMEM),
        WAY(listen, EADDRINUSE),
        WAY(listen, EOPNOTSUPP),
        WAY(accept, EAGAIN),
        WAY(accept, ECONNABORTED),
        WAY(accept, EINTR),
        WAY(accept, EINVAL),
        WAY(accept, EMFILE),
        WAY(accept, ENFILE),
        WAY(accept, ENOBUFS),
        WAY(accept, ENOMEM),
        WAY(accept, EPERM),
        WAY(accept, EPROTO),
        WAY(accept, ENETDOWN),
        WAY(accept, EHOSTUNREACH),
        WAY(connect, EACCES),
        WAY(connect, EPERM),
        WAY(connect, EADDRINUSE),
        WAY(connect, EADDRNOTAVAIL),
        WAY(connect, EAGAIN),
        WAY(connect, ECONNREFUSED),
        WAY(connect, EINPROGRESS),
        WAY(connect, EINTR),
        WAY(connect, ENETUNREACH),
        WAY(connect, ETIMEDOUT),
        WAY(send, EAGAIN),
        WAY(send, ECONNRESET),
        WAY(send, EINTR),
        WAY(send, EMSGSIZE),
        WAY(send, ENOBUFS),
        WAY(send, ENOMEM),
        WAY(send, ENOTCONN),
        WAY(send, EPIPE),
        WAY(send, short_count),
        WAY(send, short_stop),
        WAY(recv, EAGAIN),
        WAY(recv, ECONNREFUSED),
        WAY(recv, ECONNRESET),
        WAY(recv, EINTR),
        WAY(recv, ENOMEM),
        WAY(recv, ENOTCONN),
        WAY(recv, ETIMEDOUT),
        WAY(recv, short_count),
        WAY(shutdown, ENOTCONN),
        WAY(shutdown, EINVAL),
        WAY(close, EINTR),
        WAY(close, EIO),
        WAY(getsockopt, EINVAL),
        WAY(getsockopt, ENOPROTOOPT),
        WAY(setsockopt, EINVAL),
        WAY(setsockopt, ENOPROTOOPT),
        WAY(setsockopt, ENOMEM),
        WAY(getsockname, ENOBUFS),
        WAY(getsockname, EINVAL),
        WAY(getpeername, ENOBUFS),
        WAY(getpeername, ENOTCONN),
        WAY(poll, EINTR),
        WAY(poll, ENOMEM),
        WAY(poll, EINVAL),
        WAY(epoll_create, EMFILE),
        WAY(epoll_create, ENFILE),
        WAY(epoll_create, ENOMEM),
        WAY(epoll_ctl, ENOMEM),
        WAY(epoll_ctl, ENOSPC),
        WAY(epoll_ctl, EPERM),
        WAY(epoll_wait, EINTR),
        WAY(epoll_wait, EINVAL),
        WAY(pipe, EMFILE),
        WAY(pipe, ENFILE),
        WAY(read, EAGAIN),
        WAY(read, EINTR),
        WAY(read, EIO),
        WAY(write, EINTR),  // not EAGAIN: it would mean that the pipe is full
        WAY(ioctl, EINVAL),
        WAY(getaddrinfo, EAI_AGAIN),
        WAY(getaddrinfo, EAI_FAIL),
        WAY(getaddrinfo, EAI_MEMORY),
        WAY(getaddrinfo, EAI_NONAME),
        WAY(getaddrinfo, EAI_SYSTEM),
        WAY(memory, ENOMEM),
        WAY(thread, EAGAIN),
    };
    return ways;
}

}  // namespace faults

// The wrappers. The linker sends f() to __wrap_f(), and __real_f() to the system's own.

using faults::call;
using faults::fail;
using faults::strike;

/// A call that fails without any effect.
#define WRAP(kind, name, parameters, arguments)                       \
    extern "C" int __real_##name parameters;                          \
    extern "C" int __wrap_##name parameters;                          \
    int __wrap_##name parameters {                                    \
        if (const int error = strike(call::kind)) return fail(error); \
        return __real_##name arguments;                               \
    }

WRAP(socket, socket, (int family, int type, int protocol), (family, type, protocol))
WRAP(bind, bind, (int fd, const sockaddr* to, socklen_t size), (fd, to, size))
WRAP(listen, listen, (int fd, int backlog), (fd, backlog))
WRAP(accept, accept4, (int fd, sockaddr* from, socklen_t* size, int flags), (fd, from, size, flags))
WRAP(shutdown, shutdown, (int fd, int how), (fd, how))
WRAP(getsockopt, getsockopt, (int fd, int level, int name, void* value, socklen_t* size),
     (fd, level, name, value, size))
WRAP(setsockopt, setsockopt, (int fd, int level, int name, const void* value, socklen_t size),
     (fd, level, name, value, size))
WRAP(getsockname, getsockname, (int fd, sockaddr* to, socklen_t* size), (fd, to, size))
WRAP(getpeername, getpeername, (int fd, sockaddr* to, socklen_t* size), (fd, to, size))
WRAP(poll, poll, (pollfd * entries, nfds_t count, int timeout), (entries, count, timeout))
WRAP(epoll_create, epoll_create1, (int flags), (flags))
WRAP(epoll_ctl, epoll_ctl, (int fd, int operation, int other, epoll_event* event),
     (fd, operation, other, event))
WRAP(epoll_wait, epoll_wait, (int fd, epoll_event* events, int size, int timeout),
     (fd, events, size, timeout))
WRAP(pipe, pipe2, (int* ends, int flags), (ends, flags))

extern "C" {

int __real_connect(int fd, const sockaddr* to, socklen_t size);
int __wrap_connect(int fd, const sockaddr* to, socklen_t size);
int __real_close(int fd);
int __wrap_close(int fd);
int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
ssize_t __real_send(int fd, const void* data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void* data, size_t size, int flags);
ssize_t __real_recv(int fd, void* buffer, size_t size, int flags);
ssize_t __wrap_recv(int fd, void* buffer, size_t size, int flags);
ssize_t __real_read(int fd, void* buffer, size_t size);
ssize_t __wrap_read(int fd, void* buffer, size_t size);
ssize_t __real_write(int fd, const void* data, size_t size);
ssize_t __wrap_write(int fd, const void* data, size_t size);
int __real_getaddrinfo(const char* host, const char* service, const addrinfo* hints,
                       addrinfo** list);
int __wrap_getaddrinfo(const char* host, const char* service, const addrinfo* hints,
                       addrinfo** list);

/// If interrupted or in progress, it goes on connecting.
int __wrap_connect(int fd, const sockaddr* to, socklen_t size) {
    const int error = strike(call::connect);
    if (error == 0) return __real_connect(fd, to, size);
    if (error == EINTR || error == EINPROGRESS) static_cast<void>(__real_connect(fd, to, size));
    return fail(error);
}

/// Linux closes the descriptor even if it reports an error.
int __wrap_close(int fd) {
    const int error = strike(call::close);
    const int result = __real_close(fd);
    return error == 0 ? result : fail(error);
}

int __wrap_ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void* const value = va_arg(rest, void*);
    va_end(rest);
    if (const int error = strike(call::ioctl)) return fail(error);
    return __real_ioctl(fd, request, value);
}

ssize_t __wrap_send(int fd, const void* data, size_t size, int flags) {
    static thread_local int stopped = -1;  // this descriptor's next call returns EAGAIN
    if (std::exchange(stopped, -1) == fd && faults::armed()) return fail(EAGAIN);
    const int error = strike(call::send);
    if (error > 0) return fail(error);
    if (error == faults::short_stop) stopped = fd;
    return __real_send(fd, data, error == 0 ? size : std::min<size_t>(size, 1), flags);
}

ssize_t __wrap_recv(int fd, void* buffer, size_t size, int flags) {
    const int error = strike(call::recv);
    if (error > 0) return fail(error);
    return __real_recv(fd, buffer, error == 0 ? size : std::min<size_t>(size, 1), flags);
}

ssize_t __wrap_read(int fd, void* buffer, size_t size) {
    if (const int error = strike(call::read)) return fail(error);
    return __real_read(fd, buffer, size);
}

ssize_t __wrap_write(int fd, const void* data, size_t size) {
    if (const int error = strike(call::write)) return fail(error);
    return __real_write(fd, data, size);
}

int __wrap_getaddrinfo(const char* host, const char* service, const addrinfo* hints,
                       addrinfo** list) {
    if (const int error = strike(call::getaddrinfo)) return error;
    return __real_getaddrinfo(host, service, hints, list);
}

}  // extern "C"

// How std::thread calls the system, by its name in libstdc++.

#define START_THREAD(name) \
    name##_ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE

using state = std::unique_ptr<std::thread::_State>;
extern "C" void START_THREAD(__real_)(std::thread* self, state* what, void (*depend)());
extern "C" void START_THREAD(__wrap_)(std::thread* self, state* what, void (*depend)());

void START_THREAD(__wrap_)(std::thread* self, state* what, void (*depend)()) {
    if (const int error = strike(call::thread))
        throw std::system_error(error, std::generic_category());
    const faults::truce ours;
    START_THREAD(__real_)(self, what, depend);
}

// Memory. The test's own allocations are counted too, but do not fail.

void* operator new(std::size_t size) {
    void* const result = strike(call::memory) ? nullptr : std::malloc(size);
    if (!result) throw std::bad_alloc();
    ++faults::live_blocks;
    return result;
}

void operator delete(void* memory) noexcept {
    if (!memory) return;
    --faults::live_blocks;
    std::memset(memory, 0xdd, malloc_usable_size(memory));  // so that a later use crashes
    std::free(memory);
}

void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
