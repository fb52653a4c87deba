// Shared by the fuzz targets: a check that ends the program in every build if it fails.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_FUZZ_HPP
#define P2PCHAT_TESTS_FUZZ_HPP

#include "p2pchat.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

/// One input, as libFuzzer and replay.cpp pass it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fuzz {

inline void check(bool holds, const char* claim) {
    if (holds) return;
    std::fprintf(stderr, "does not hold: %s\n", claim);
    std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

}  // namespace fuzz

#endif  // P2PCHAT_TESTS_FUZZ_HPP
