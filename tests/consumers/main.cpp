// A program that uses the header as its only source file.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"

#include "use.hpp"

int main() { return use(); }
