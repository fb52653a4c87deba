// echo.cpp - the first screen of the README as it stands there: answers whoever writes.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION            // in one source file
#include "p2pchat.hpp"
#include <iostream>

int main() {
    p2pchat::config config;
    config.team = "BTC";
    config.port = 5000;

    p2pchat::node node(config);
    node.on_message([&](const p2pchat::message& m) {
        std::cout << m.sender << ' ' << m.team << ": " << m.text << '\n';
        node.post(m.sender, "got it");                       // returns at once; its outcome can be asked for
    });
    if (auto error = node.start()) { std::cerr << error.message() << '\n'; return 1; }

    if (auto error = node.send({"10.18.1.2", 6000}, "Hi"))   // returns when delivered, or says why not
        std::cerr << error.message() << '\n';
    for (const auto& peer : node.peers()) std::cout << peer.address << " - " << peer.team << '\n';
}
