// main.cpp - the numbered menu program: chats with the peers of the local network.
//
// SPDX-License-Identifier: MIT
//
// Its prompts and lines are those of the Python original, to the letter, so that people,
// transcripts and scripts carry over; it adds to them only where that leaves a person in the dark.

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"

#include "options.hpp"
#include "screen.hpp"
#include "text.hpp"

#include <chrono>
#include <functional>
#include <future>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

using p2pchat::endpoint;
using p2pchat::to_string;

class chat {
public:
    explicit chat(menu::options settings) : settings_(std::move(settings)) {}

    /// From the first question to the last line; returns the program's exit status.
    int run() {
        if (auto failed = begin()) return *failed;
        while (!screen_.leaving()) {
            for (const char* line : {"**** Menu ****", "1. Send message", "2. Query active peers",
                                     "3. Connect to active peers",
                                     "4. Send mandatory message to default peers", "0. Quit"})
                screen_.print(line);
            const auto choice = screen_.ask("Enter choice: ");
            if (!choice || menu::trimmed(*choice) == "0") break;
            choose(menu::trimmed(*choice));
        }
        return end();
    }

private:
    void choose(std::string_view choice) {
        if (choice == "1") return send_message();
        if (choice == "2") return show_peers();
        if (choice == "3") return connect_to_peer();
        if (choice == "4") return send_mandatory();
        screen_.print("Invalid choice. Try again.");
    }

    // ---- questions

    /// Finds out what is wrong with an answer; empty: nothing.
    using check = std::function<std::string(const std::string& answer)>;

    /// Asks until nothing is wrong with the answer; false if the person leaves.
    bool ask(const std::string& prompt, const check& wrong) {
        while (const auto answer = screen_.ask(prompt)) {
            const auto reason = wrong(std::string(menu::trimmed(*answer)));
            if (reason.empty()) return true;
            screen_.print(reason);
        }
        return false;
    }

    bool ask_team() {
        std::string offer;
        return ask("Enter your team name: ", [&](const std::string& answer) {
            settings_.team = answer.empty() ? offer : answer;
            offer = menu::joined(answer);
            const auto wrong = menu::wrong_team(settings_.team);
            const bool cured = !wrong.empty() && menu::wrong_team(offer).empty();
            return cured ? wrong + " Press Enter for " + offer + ", or type another." : wrong;
        });
    }

    bool ask_port(const std::string& prompt, std::uint16_t& port) {
        return ask(prompt, [&](const std::string& answer) -> std::string {
            const auto value = menu::number(answer, 1, 65535);
            if (!value) return "A port is a number from 1 to 65535.";
            port = static_cast<std::uint16_t>(*value);
            return {};
        });
    }

    bool ask_recipient(endpoint& to) {
        const bool named = ask("Enter recipient's IP address: ", [&](const std::string& answer) {
            const auto error = resolve(answer, 1, to);
            if (!error && to) return std::string();
            return menu::visible(answer) + ": " + (error ? error.message() : "nobody's address");
        });
        std::uint16_t port = 0;
        if (!named || !ask_port("Enter recipient's port number: ", port)) return false;
        to = endpoint(to.bytes(), port, to.scope());
        return true;
    }

    bool ask_text(const std::string& prompt, std::string& text) {
        return ask(prompt, [&](const std::string& answer) {
            text = answer;
            return answer.empty() ? "A message cannot be empty." : "";
        });
    }

    // ---- beginning and end

    /// Asks for what the flags left open and starts the node; an exit status if that fails.
    std::optional<int> begin() {
        if (settings_.team.empty() && !ask_team()) return end();
        const bool port_given = settings_.port != 0;
        for (;;) {
            if (!port_given && !ask_port("Enter your port number: ", settings_.port)) return end();
            const auto error = start();
            if (!error) break;
            const auto reason = "Port " + std::to_string(settings_.port) +
                                (error == std::errc::address_in_use ? " is taken: " : ": ") +
                                error.message();
            if (port_given) return std::cerr << "p2pchat: " << reason << '\n', 1;
            screen_.print(reason);
        }
        screen_.print("Your detected IP address: " + node_->address().address());
        screen_.print("Server listening on all interfaces (port " +
                      std::to_string(node_->address().port()) + ")");
        return std::nullopt;
    }

    std::error_code start() {
        p2pchat::config config;
        config.team = settings_.team;
        config.port = settings_.port;
        config.address = settings_.address;
        node_ = std::make_unique<p2pchat::node>(std::move(config));
        node_->on_message([this](const p2pchat::message& m) { show_message(m); });
        node_->on_peer_left(
            [this](const p2pchat::peer& p, p2pchat::departure how) { show_departure(p, how); });
        return node_->start();
    }

    int end() {
        if (node_) node_->stop();
        screen_.print("Exiting");
        return 0;
    }

    // ---- what comes from others; called by the node's thread

    void show_message(const p2pchat::message& m) {
        std::string line = to_string(m.sender) + ' ' + m.team + ' ' + m.text;
        line = menu::visible(line);
        if (!m.verified) line = "[not verified, came from " + to_string(m.origin) + "] " + line;
        screen_.notify(line);
    }

    void show_departure(const p2pchat::peer& peer, p2pchat::departure how) {
        const auto who = to_string(peer.address) + " (" + menu::visible(peer.team) + ") ";
        if (how == p2pchat::departure::left) return screen_.notify(who + "disconnected.");
        screen_.notify(who + (how == p2pchat::departure::lost ? "was lost: its link broke."
                                                              : "has ended its program."));
    }

    // ---- the menu's entries

    void send_message() {
        endpoint to;
        std::string text;
        if (ask_recipient(to) &&
            ask_text("Enter your message (type 'exit' to disconnect): ", text))
            deliver({to}, text, "");
    }

    void show_peers() {
        const auto peers = node_->peers();
        screen_.print(peers.empty() ? "No connected peers." : "Connected Peers:");
        for (const auto& peer : peers) screen_.print(described(peer));
    }

    void connect_to_peer() {
        const auto peers = node_->peers();
        if (peers.empty()) return screen_.print("No active peers to connect to.");
        screen_.print("Active Peers:");
        for (std::size_t i = 0; i < peers.size(); ++i)
            screen_.print(std::to_string(i + 1) + ". " + described(peers[i]));
        endpoint to;
        const bool chosen = ask("Select peer number: ", [&](const std::string& answer) {
            const auto value = menu::number(answer, 1, peers.size());
            if (value) to = peers[*value - 1].address;
            return value ? "" : "Enter a number from 1 to " + std::to_string(peers.size()) + ".";
        });
        if (chosen) connect(to);
    }

    void send_mandatory() {
        std::string text;
        if (ask_text("Enter mandatory message: ", text))
            deliver(settings_.default_peers, text, "Sent mandatory message to ");
    }

    static std::string described(const p2pchat::peer& peer) {
        return to_string(peer.address) + " - " + menu::visible(peer.team) +
               (peer.linked ? " (linked)" : "");
    }

    // ---- what goes to others

    /// Sends `text` to each of `peers`, side by side, and tells what became of it. `sent` is how
    /// the line about a delivered one begins; empty: there is none.
    void deliver(const std::vector<endpoint>& peers, const std::string& text,
                 const std::string& sent) {
        std::vector<std::future<std::error_code>> outcomes;
        for (const auto& to : peers) outcomes.push_back(post(to, text));
        for (std::size_t i = 0; i < peers.size(); ++i) {
            if (const auto error = wait(outcomes[i])) {
                screen_.print("Error sending to " + to_string(peers[i]) + ": " + error.message());
                screen_.print("Not sent: " + menu::visible(text));
            } else if (!sent.empty()) {
                screen_.print(sent + to_string(peers[i]));
            }
        }
    }

    std::future<std::error_code> post(const endpoint& to, const std::string& text) {
        auto outcome = std::make_shared<std::promise<std::error_code>>();
        auto future = outcome->get_future();
        const auto refused =
            node_->post(to, text, [outcome](std::error_code error) { outcome->set_value(error); });
        if (refused) outcome->set_value(refused);
        return future;
    }

    /// Waits for an outcome; a person who leaves meanwhile has it come at once.
    template <class Outcome>
    Outcome wait(std::future<Outcome>& outcome) {
        while (outcome.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready)
            if (screen_.leaving()) node_->stop();
        return outcome.get();
    }

    void connect(const endpoint& to) {
        auto outcome = std::async(std::launch::async, [this, to] { return node_->connect(to); });
        const auto [error, linked] = wait(outcome);
        screen_.print(error ? "Could not connect to " + to_string(to) + ": " + error.message()
                            : "Connected to " + to_string(to));
    }

    menu::options settings_;
    menu::screen screen_;
    std::unique_ptr<p2pchat::node> node_;
};

}  // namespace

int main(int argc, char** argv) {
    menu::options settings;
    const auto arguments = menu::utf8_arguments(argc, argv);
    if (const auto status = menu::read_options(arguments, settings)) return *status;
    return chat(std::move(settings)).run();
}
