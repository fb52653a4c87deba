// main_loop.cpp - a node in a main loop, as a GUI or a game has: it calls its handlers there.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <thread>

int main(int argc, char** argv) {  // main_loop [PORT], until its input ends (Ctrl-D)
    p2pchat::config config;
    config.team = "GUI";
    config.port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 5000);
    config.handlers_in_run = true;
    int shown = 0;  // needs no lock, as nothing else of the main loop's does
    p2pchat::node node(config);
    node.on_message([&](const p2pchat::message& m) {
        std::cout << ++shown << ". " << m.team << ": " << m.text << '\n' << std::flush;
    });
    if (auto error = node.start()) return std::cerr << error.message() << '\n', 1;
    std::cout << "I am " << node.address() << '\n' << std::flush;
    std::atomic<bool> open{true};
    std::thread user([&] {
        for (std::string line; open;) open = bool(std::getline(std::cin, line));
    });
    while (open && node.run_for(std::chrono::milliseconds(16))) {
        // A frame is drawn here; what comes meanwhile waits.
    }
    user.join();
}
