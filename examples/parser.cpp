// parser.cpp - the parser alone, without a network: reads messages, one per line, and writes
// address, port, team and text in columns separated by tabs.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
#include <iostream>

int main() {  // parser < MESSAGES; exit status 1: a line is malformed
    int status = 0;
    std::string line;
    for (int number = 1; std::getline(std::cin, line); ++number) {
        p2pchat::message_view m;  // views into the line: nothing is copied
        if (auto error = parse(line, m)) {
            std::cerr << "line " << number << ": " << error.message() << '\n';
            status = 1;
            continue;
        }
        std::cout << m.sender.address() << '\t' << m.sender.port() << '\t' << m.team << '\t'
                  << m.text << '\n';
    }
    return status;
}
