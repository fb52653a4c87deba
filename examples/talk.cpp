// talk.cpp - the README's first program: shows received messages, and sends each typed line to all
// known peers. Layout and words are those of the README.
//
// SPDX-License-Identifier: MIT

// clang-format off
#define P2PCHAT_IMPLEMENTATION            // in one source file
#include "p2pchat.hpp"
#include <cstdlib>
#include <iostream>

void show(const std::string& s) { std::cout << s + '\n' << std::flush; }  // by any thread

int main(int argc, char** argv) {         // talk NAME [PORT]
    p2pchat::config config;
    config.team = argc > 1 ? argv[1] : "";  // start() refuses an empty one
    config.port = static_cast<std::uint16_t>(argc > 2 ? std::atoi(argv[2]) : 5000);
    config.discovery = true;              // find others on the LAN, and be found

    p2pchat::node node(config);
    node.on_message([](const p2pchat::message& m) {
        show(to_string(m.reply_to()) + ' ' + m.team + ": " + m.text);
    });
    node.on_peer_found([&](const p2pchat::candidate& c) {
        if (auto error = node.connect(c.address, {})) show(error.message());
    });
    if (auto error = node.start()) { std::cerr << error.message() << '\n'; return 1; }
    show("I am " + to_string(node.address()));

    for (std::string line; std::getline(std::cin, line);) {
        const auto outcomes = node.broadcast(line);  // to all we know; waits for the last
        if (outcomes.empty()) show("nobody is known yet");
        for (const auto& [to, error] : outcomes)
            show(to_string(to) + ": " + (error ? error.message() : "delivered"));
    }
}
