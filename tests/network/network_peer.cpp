// Some nodes on one host of a test's network. run.py sends commands on standard input, a line each,
// and the nodes report events on standard output, a line each:
//
//     connect TO                         connected TO linked | one-shots | REASON
//     post TO FIRST COUNT SIZE PAUSE     outcome NUMBER delivered | REASON       (for each)
//     send TO FIRST COUNT SIZE PAUSE     the same, by send()
//     peers                              peer ADDRESS TEAM linked | heard, then: peers COUNT
//     (end of input)                     stopped
//
// and unasked: node ADDRESS, shown NUMBER whole|cut verified|unverified ORIGIN, said TEXT,
// left ADDRESS lost|stopped|left, rejected FROM REASON, found ADDRESS, gone ADDRESS. SIZE is in
// bytes, PAUSE in milliseconds.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"
#include "say.hpp"

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using p2pchat::endpoint;
using p2pchat::message;
using p2pchat::node;

std::string words_of(std::error_code error) { return error ? error.message() : "delivered"; }

/// "17 xxxxx.": a number to identify it, and an end mark that shows that it is whole.
std::string text_of(std::size_t number, std::size_t size) {
    std::string text = std::to_string(number) + ' ';
    if (text.size() + 1 < size) text.resize(size - 1, 'x');
    return text + '.';
}

void show(const message& m) {
    if (m.text.find_first_of("0123456789") != 0) return say("said ", m.text);
    const auto number = std::stoul(m.text);
    const bool whole = m.text == text_of(number, m.text.size());
    say("shown ", number, whole ? " whole " : " cut ", m.verified ? "verified " : "unverified ",
        m.origin);
}

void show_departure(const p2pchat::peer& peer, p2pchat::departure how) {
    const char* const ways[] = {" left", " by us", " lost", " stopped", " replaced", " forgotten"};
    say("left ", peer.address, ways[static_cast<int>(how)]);
}

std::unique_ptr<node> make_node(const std::string& address, bool discovery) {
    p2pchat::config settings;
    settings.team = "Net";
    if (address != "-") settings.address = address;
    settings.discovery = discovery;
    settings.keep_alive = std::chrono::seconds(3);  // the tests wait for it
    if (std::getenv("P2PCHAT_TEST_ENCRYPTED")) settings.encryption = p2pchat::encryption::required;
    auto result = std::make_unique<node>(settings);
    result->on_message(show);
    result->on_peer_left(show_departure);
    result->on_rejected([](const endpoint& from, std::error_code why) {
        say("rejected ", from, ' ', why.message());
    });
    result->on_peer_found([](const p2pchat::candidate& who) { say("found ", who.address); });
    result->on_peer_gone([](const p2pchat::candidate& who) { say("gone ", who.address); });
    if (auto error = result->start()) say("failed ", error.message());
    say("node ", result->address());
    return result;
}

/// A run of messages, by post() or by send().
struct series {
    endpoint to;
    std::size_t first = 0, count = 0, size = 0;
    int pause = 0;
};

void post(node& from, const series& what) {
    for (std::size_t i = what.first; i < what.first + what.count; ++i) {
        const auto refused = from.post(
            what.to, text_of(i, what.size),
            [i](std::error_code error) { say("outcome ", i, ' ', words_of(error)); },
            p2pchat::when_full::wait);
        if (refused) say("outcome ", i, ' ', words_of(refused));
        std::this_thread::sleep_for(std::chrono::milliseconds(what.pause));
    }
}

void send(node& from, const series& what) {
    for (std::size_t i = what.first; i < what.first + what.count; ++i) {
        say("outcome ", i, ' ', words_of(from.send(what.to, text_of(i, what.size))));
        std::this_thread::sleep_for(std::chrono::milliseconds(what.pause));
    }
}

void connect(node& from, const endpoint& to) {
    const auto result = from.connect(to);
    const std::string how = result.linked ? "linked" : "one-shots";
    say("connected ", to, ' ', result.error ? result.error.message() : how);
}

void list(const node& of) {
    const auto peers = of.peers();
    for (const auto& p : peers)
        say("peer ", p.address, ' ', p.team, p.linked ? " linked" : " heard");
    say("peers ", peers.size());
}

/// Each command runs in a thread of its own, so that several run side by side.
void obey(node& us, const std::string& line) {
    std::istringstream words(line);
    std::string verb, to;
    series what;
    words >> verb >> to >> what.first >> what.count >> what.size >> what.pause;
    if (!to.empty() && parse(to, what.to)) return say("failed ", line);
    if (verb == "connect") return connect(us, what.to);
    if (verb == "post") return post(us, what);
    if (verb == "send") return send(us, what);
    if (verb == "peers") return list(us);
    say("failed ", line);
}

}  // namespace

int main(int argc, char** argv) {
    const bool discovery = argc == 4 && argv[3] == std::string("discovery");
    if (argc != 3 && !discovery)
        return std::cerr << "network_peer ADDRESS|- NODES [discovery]\n", 2;
    std::vector<std::unique_ptr<node>> nodes;
    for (int i = 0; i < std::atoi(argv[2]); ++i) nodes.push_back(make_node(argv[1], discovery));
    std::vector<std::thread> commands;
    for (std::string line; std::getline(std::cin, line);)
        commands.emplace_back([&nodes, line] { obey(*nodes.front(), line); });
    for (auto& command : commands) command.join();
    for (auto& each : nodes) each->stop();
    say("stopped");
}
