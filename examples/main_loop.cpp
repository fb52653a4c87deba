// main_loop.cpp - a node in the main loop of a GUI or a game, which runs the handlers there.
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
    int count = 0;  // needs no lock: the handlers run in this thread
    p2pchat::node node(config);
    node.on_message([&](const p2pchat::message& m) {
        std::cout << ++count << ". " << m.team << ": " << m.text << '\n' << std::flush;
    });
    if (auto error = node.start()) return std::cerr << error.message() << '\n', 1;
    std::cout << "I am " << node.address() << '\n' << std::flush;
    std::atomic<bool> is_open{true};
    std::thread input([&] {
        for (std::string line; is_open;) is_open = bool(std::getline(std::cin, line));
    });
    while (is_open && node.run_for(std::chrono::milliseconds(16))) {
        // Draw a frame here: messages that arrive meanwhile wait.
    }
    input.join();
}
