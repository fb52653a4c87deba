// accept_loop.cpp - receives messages without a node: a thread accepts one connection at a time.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <thread>

void receive(p2pchat::tcp_socket client) {  // a close confirms to the sender, a reset refuses
    char buffer[4096];
    std::string bytes;
    for (std::size_t size = 1, pieces = 0; size > 0; bytes.append(buffer, size))  // 0: half-close
        if (++pieces > 16 || client.receive(buffer, sizeof buffer, size, std::chrono::seconds(1)))
            return client.reset();
    p2pchat::message_view m;
    if (parse(bytes, m)) return client.reset();
    std::cout << m.sender << ' ' << m.team << ": " << m.text << '\n' << std::flush;
}

int main(int argc, char** argv) {  // accept_loop [PORT], until its input ends (Ctrl-D)
    const auto port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 5000);
    p2pchat::tcp_socket listener;
    if (auto error = listener.listen({"::", port})) return std::cerr << error.message() << '\n', 1;
    std::cout << "I am on port " << listener.local().port() << '\n' << std::flush;
    std::atomic<bool> ending{false};
    std::thread acceptor([&] {
        while (!ending) {
            p2pchat::tcp_socket client;
            const auto error = listener.accept(client, std::chrono::milliseconds(100));
            if (!error) receive(std::move(client));
            if (error) std::this_thread::sleep_for(std::chrono::milliseconds(10));  // no busy loop
        }
    });
    for (std::string line; std::getline(std::cin, line);) continue;
    ending = true;
    acceptor.join();
}
