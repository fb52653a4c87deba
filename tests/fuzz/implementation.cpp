// The implementation as a fuzzer wants it: compiled with its instruments, without a main function.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
