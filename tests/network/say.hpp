// The output of a program that a script reads line by line.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_SAY_HPP
#define P2PCHAT_TESTS_SAY_HPP

#include <iostream>
#include <mutex>
#include <sstream>

/// Writes one whole line at once, from any thread.
template <class... Parts>
void say(const Parts&... parts) {
    static std::mutex mutex;
    std::ostringstream line;
    (line << ... << parts) << '\n';
    const std::lock_guard<std::mutex> lock(mutex);
    std::cout << line.str() << std::flush;
}

#endif  // P2PCHAT_TESTS_SAY_HPP
