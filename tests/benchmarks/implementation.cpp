// The one file of each benchmark that holds the library's implementation.
//
// SPDX-License-Identifier: MIT
#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
