// bot.cpp - a bot that answers `!time` and `!roll`, and nothing else. Its answers are no questions:
// two bots that answered everything would never stop.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <random>

std::string answer_to(std::string_view question) {
    if (question == "!time") return std::to_string(std::time(nullptr)) + " seconds since 1970";
    if (question == "!roll") return "a " + std::to_string(std::random_device()() % 6 + 1);
    return {};  // no answer
}

int main(int argc, char** argv) {  // bot [PORT], until its input ends (Ctrl-D)
    p2pchat::config config;
    config.team = "bot";
    config.port = static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 5000);
    config.discovery = true;  // so that talk finds it

    p2pchat::node node(config);
    node.on_message([&](const p2pchat::message& m) {
        const auto answer = answer_to(m.text);
        if (answer.empty()) return;
        const auto report = [to = m.reply_to()](std::error_code error) {
            if (error) std::cerr << to << ": " << error.message() << '\n';
        };
        if (auto error = node.post(m.reply_to(), answer, report)) report(error);  // does not wait
    });
    if (auto error = node.start()) {
        std::cerr << error.message() << '\n';
        return 1;
    }
    std::cout << "I am " << node.address() << '\n' << std::flush;
    for (std::string line; std::getline(std::cin, line);) continue;
}
