// The first of a program's two source files: it uses the header.
//
// SPDX-License-Identifier: MIT

#include "use.hpp"

int main() { return use(); }
