// talk.cpp - the first screen of the README as it stands there: waits, shows what comes, and sends
// what is typed to everybody it knows.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION            // in one source file
#include "p2pchat.hpp"
#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {         // talk PORT [ADDRESS:PORT of somebody]...
    p2pchat::config config;
    config.team = "BTC";
    config.port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 5000);

    p2pchat::node node(config);
    node.on_message([](const p2pchat::message& m) {
        std::cout << m.reply_to() << ' ' << m.team << ": " << m.text << '\n' << std::flush;
    });
    if (auto error = node.start()) { std::cerr << error.message() << '\n'; return 1; }
    std::cout << "I am " << node.address() << '\n' << std::flush;

    for (int i = 2; i < argc; ++i) {      // from here on we know each other
        p2pchat::endpoint somebody;
        auto error = parse(argv[i], somebody);
        if (!error) error = node.connect(somebody).error;
        if (error) std::cerr << argv[i] << ": " << error.message() << '\n';
    }
    for (std::string line; std::getline(std::cin, line);) {
        const auto outcomes = node.broadcast(line);  // to all we know; waits for the last
        if (outcomes.empty()) std::cerr << "nobody is known yet\n";
        for (const auto& [to, error] : outcomes)
            std::cerr << to << ": " << (error ? error.message() : "delivered") << '\n';
    }
}
