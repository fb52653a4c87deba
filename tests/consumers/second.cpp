// The second of a program's two source files: it holds the implementation.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
