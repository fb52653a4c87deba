// The implementation for a fuzzer: compiled with its instrumentation, without a main function.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
