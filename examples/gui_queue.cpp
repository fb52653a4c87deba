// gui_queue.cpp - a node beside a main loop, as a GUI or a game has: it polls a queue once a frame.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
#include <atomic>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <mutex>
#include <thread>

int main(int argc, char** argv) {  // gui_queue [PORT], until its input ends (Ctrl-D)
    std::mutex mutex;
    std::deque<p2pchat::message> queue;  // guarded by the mutex
    p2pchat::config config;
    config.team = "GUI";
    config.port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 5000);
    p2pchat::node node(config);
    node.on_message([&](const p2pchat::message& m) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (queue.size() == 1000) queue.pop_front();  // a window keeps no more lines than that
        queue.push_back(m);
    });
    if (auto error = node.start()) return std::cerr << error.message() << '\n', 1;
    std::cout << "I am " << node.address() << '\n' << std::flush;
    std::atomic<bool> open{true};
    std::thread user([&] {
        for (std::string line; open;) open = bool(std::getline(std::cin, line));
    });
    while (open) {
        std::unique_lock<std::mutex> lock(mutex);
        const auto messages = std::exchange(queue, {});  // which waits for nobody
        lock.unlock();
        for (const auto& m : messages) std::cout << m.team << ": " << m.text << '\n' << std::flush;
        std::this_thread::sleep_for(std::chrono::milliseconds(16));  // a frame is drawn here
    }
    user.join();
}
