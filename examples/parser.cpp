// parser.cpp - the parser alone, without a network: reads messages, one a line, and writes their
// address, port, team and text in columns, parted by tabs.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
#include <iostream>

int main() {  // parser < MESSAGES; its status is 1 if one of them is none
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
