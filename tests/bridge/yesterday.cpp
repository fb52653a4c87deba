// A machine without a clock of its own, after a restart: a program that this is loaded into
// (LD_PRELOAD) sees the time of day of yesterday. Linux only.
//
// SPDX-License-Identifier: MIT

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern "C" int clock_gettime(clockid_t which, timespec* result) noexcept {
    const auto status = static_cast<int>(syscall(SYS_clock_gettime, which, result));
    if (status == 0 && which == CLOCK_REALTIME) result->tv_sec -= 24 * 60 * 60;
    return status;
}
