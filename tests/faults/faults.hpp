// Injected faults: every system call of the library can be made to fail. The linker redirects those
// calls to the wrappers in faults.cpp (--wrap); there one plan at a time says which of them fails,
// how, and when. Linux.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_FAULTS_HPP
#define P2PCHAT_TESTS_FAULTS_HPP

#include <cstddef>
#include <vector>

namespace faults {

/// The system calls, and those for memory and threads.
enum class call {
    socket,
    bind,
    listen,
    accept,
    connect,
    send,
    recv,
    shutdown,
    close,
    getsockopt,
    setsockopt,
    getsockname,
    getpeername,
    poll,
    epoll_create,
    epoll_ctl,
    epoll_wait,
    pipe,
    read,
    write,
    ioctl,
    getaddrinfo,
    memory,
    thread,
};

/// One way in which a call fails: an errno, or `short_count`.
struct way {
    call which;
    int error;
    const char* name;
};

inline constexpr int short_count = -1;  // only one byte is sent or received
inline constexpr int short_stop = -2;   // the same, and the next call returns EAGAIN

/// Each call with each error that its manual page lists and that is possible here.
const std::vector<way>& all_ways();

/// From now on the calls number `first` to `first + count - 1` of this kind fail in this way.
void arm(const way& how, int first, int count) noexcept;
void disarm() noexcept;
void resume() noexcept;  ///< goes on where disarm() stopped
bool armed() noexcept;
int struck() noexcept;  ///< how many calls have failed since arm()

/// While one lives, calls by its thread are the test's own and do not fail.
class truce {
public:
    truce() noexcept;
    truce(const truce&) = delete;
    truce& operator=(const truce&) = delete;
    ~truce();
};

/// Memory that is allocated and not freed, in blocks.
long blocks() noexcept;

}  // namespace faults

#endif  // P2PCHAT_TESTS_FAULTS_HPP
