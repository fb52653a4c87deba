// The load that bridge.py measures: messages from a sender to a receiver, both in this process,
//
//     bridge_load lan FROM TO COUNT ROUNDS    over two bridges, the nodes at FROM and TO
//     bridge_load mqtt PORT COUNT ROUNDS      over the broker alone, by libmosquitto, QoS 1
//
// COUNT at full speed (0: none; lan only), then ROUNDS one after the other. Prints messages a
// second, and the median of the latency in microseconds.
//
// SPDX-License-Identifier: MIT

#include "../../examples/bridge/mqtt.hpp"
#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using clock_type = std::chrono::steady_clock;
const std::string text = "a message of forty bytes, as most are...";
std::atomic<int> received{0};

void wait_for(int count) {
    while (received < count) std::this_thread::yield();
}

double seconds_since(clock_type::time_point begin) {
    return std::chrono::duration<double>(clock_type::now() - begin).count();
}

template <class Send>
double latency(int rounds, const Send& send) {
    std::vector<double> all;
    for (int i = 0; i < rounds; ++i) {
        const int before = received;
        const auto begin = clock_type::now();
        send();
        wait_for(before + 1);
        all.push_back(seconds_since(begin) * 1e6);
    }
    std::sort(all.begin(), all.end());
    return all.empty() ? 0 : all[all.size() / 2];
}

int over_bridges(char** argv) {
    p2pchat::endpoint from, to;
    if (parse(argv[2], from) || parse(argv[3], to)) return 2;
    const int count = std::atoi(argv[4]), rounds = std::atoi(argv[5]);
    p2pchat::config settings;
    settings.team = "BTC";
    settings.address = "127.0.0.1";
    p2pchat::node sender(settings), receiver(settings);
    receiver.on_message([](const p2pchat::message&) { ++received; });
    if (sender.start() || receiver.start()) return 1;
    if (!sender.connect(from).linked || !receiver.connect(to).linked) return 1;
    // The other side has to learn of the receiver's bridge, and of the receiver.
    while (received == 0) static_cast<void>(sender.send(from, text));
    std::this_thread::sleep_for(std::chrono::seconds(1));
    received = 0;
    const auto begin = clock_type::now();
    std::atomic<int> failed{0};
    for (int i = 0; i < count; ++i) {
        const auto done = [&](std::error_code error) { failed += error ? 1 : 0; };
        failed += sender.post(from, text, done, p2pchat::when_full::wait) ? 1 : 0;
    }
    wait_for(count - failed);
    std::cout << count / seconds_since(begin) << ' ';
    if (failed != 0) return std::cout << failed << " failed\n", 1;
    std::cout << latency(rounds, [&] { static_cast<void>(sender.post(from, text)); }) << '\n'
              << std::flush;
    sender.stop();
    receiver.stop();
    return 0;
}

int over_the_broker(char** argv) {
    mqtt::settings to;
    to.host = "127.0.0.1";
    to.port = std::atoi(argv[2]);
    to.will = "bench/will";
    std::atomic<int> connected{0};
    std::atomic<bool> ended{false};
    std::vector<std::thread> threads;
    std::vector<std::unique_ptr<mqtt::client>> clients;
    for (const auto* id : {"sender", "receiver"}) {
        to.id = id;
        clients.push_back(std::make_unique<mqtt::client>(to));
        auto& one = *clients.back();
        one.on_connected = [&](bool) {
            if (&one == clients.back().get()) one.subscribe("bench/latency");
            ++connected;
        };
        one.on_lost = [] {};
        one.on_acknowledged = [](int) {};
        one.on_refused = [](int, bool) {};
        one.on_message = [](auto, const auto&, bool) { ++received; };
    }
    for (auto& one : clients) {
        if (!one->open().empty()) return 1;
        threads.emplace_back([&] {
            while (!ended) one->turn();
        });
    }
    while (connected < 2) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // time to subscribe
    std::cout << "0 " << latency(std::atoi(argv[4]), [&] {
        clients.front()->publish("bench/latency", text);
    }) << '\n' << std::flush;
    ended = true;
    for (auto& each : threads) each.join();
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string how = argc > 1 ? argv[1] : "";
    if (how == "lan" && argc == 6) return over_bridges(argv);
    return how == "mqtt" && argc == 5 ? over_the_broker(argv) : 2;
}
