// Somebody on a LAN of bridge.py's. Told on standard input, a line each:
//
//     say FIRST COUNT PAUSE      numbers to all who are known, PAUSE milliseconds apart
//     who                        to the bridges
//     peers                      peers COUNT bridges COUNT     (those linked)
//
// and says: I am ADDRESS; shown TEXT; outcome NUMBER delivered | REASON, of the bridges alone, or
// outcome NUMBER nobody, if there is none.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
#include "../network/say.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

bool is_bridge(const p2pchat::peer& who) { return who.team.find('@') != std::string::npos; }

void tell_all(p2pchat::node& node, std::size_t number) {
    bool bridged = false;
    for (const auto& to : node.peers()) {
        bridged = bridged || is_bridge(to);
        const auto told = [number, counts = is_bridge(to)](std::error_code error) {
            if (counts) say("outcome ", number, ' ', error ? error.message() : "delivered");
        };
        const auto text = std::to_string(number);
        const auto refused = node.post(to.address, text, told, p2pchat::when_full::wait);
        if (refused) told(refused);
    }
    if (!bridged) say("outcome ", number, " nobody");
}

void obey(p2pchat::node& node, const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    std::size_t first = 0, count = 0;
    int pause = 0;
    words >> verb >> first >> count >> pause;
    const auto all = node.peers();
    if (verb == "who") {
        for (const auto& to : all)
            if (is_bridge(to)) static_cast<void>(node.post(to.address, "who"));
    } else if (verb == "peers") {
        const auto linked = [](const auto& p) { return p.linked; };
        const auto bridge = [](const auto& p) { return p.linked && is_bridge(p); };
        say("peers ", std::count_if(all.begin(), all.end(), linked), " bridges ",
            std::count_if(all.begin(), all.end(), bridge));
    } else {
        for (std::size_t i = first; i < first + count; ++i) {
            tell_all(node, i);
            std::this_thread::sleep_for(std::chrono::milliseconds(pause));
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return std::cerr << "bridge_peer TEAM\n", 2;
    p2pchat::config settings;
    settings.team = argv[1];
    settings.port = 5000;
    settings.discovery = true;
    p2pchat::node node(settings);
    node.on_message([](const p2pchat::message& m) { say("shown ", m.text); });
    node.on_peer_found(
        [&](const p2pchat::candidate& c) { static_cast<void>(node.connect(c.address, {})); });
    if (const auto error = node.start()) return std::cerr << error.message() << '\n', 1;
    say("I am ", node.address());
    std::vector<std::thread> commands;
    for (std::string line; std::getline(std::cin, line);)
        commands.emplace_back([&node, line] { obey(node, line); });
    for (auto& command : commands) command.join();
    node.stop();
}
