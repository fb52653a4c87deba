// options.hpp - the flags of the menu program, for those who do not want prompts.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_OPTIONS_HPP
#define MENU_OPTIONS_HPP

#include "../terminal/text.hpp"
#include "p2pchat.hpp"

#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace menu {

struct options {
    std::string team;        ///< empty: ask
    std::uint16_t port = 0;  ///< 0: ask
    std::string address;     ///< empty: detect
    std::vector<p2pchat::endpoint> default_peers;
    std::string folder;     ///< where files are that outlive the program; empty: the default
    bool keeps = true;      ///< write such files, where no other flag says so
    bool quiet = false;     ///< no bell, no title
    std::string log;        ///< a file; empty: none
    std::string outbox;     ///< a file; empty: the default
    bool discovery = true;  ///< find others on the LAN, and be found
    p2pchat::encryption encryption = p2pchat::encryption::off;
    std::string identity;  ///< a file; empty: the default
    std::string pins;      ///< a file; empty: the default
};

/// In the order of p2pchat::encryption.
inline constexpr std::string_view encryption_words[] = {"off", "preferred", "required"};

inline constexpr std::string_view usage =
    R"(Usage: p2pchat [flags]
Chats with the peers of the local network. Asks for whatever no flag says.

  --team NAME             your team's name: up to 64 bytes, no white space
  --port NUMBER           listen on this port, 1 to 65535
  --address IP            be known by this address, not by the detected one
  --default-peer IP:PORT  who gets mandatory messages; may be given several times
  --no-discovery          do not look for others on the network, nor be found by them
  --config DIR            where settings, names and keys are, and what is kept
  --no-config             read and write nothing there; so it is with piped input
  --log FILE              append what is said to this file, and show its end in a chat
  --outbox FILE           where messages wait for who is not there
  --quiet                 no bell, and nothing in the window's title
  --encryption off        nothing is encrypted: the default
  --encryption preferred  encrypted with those who announce it or whose key is known
  --encryption required   encrypted with all; nothing else is sent or taken
  --identity FILE         where your key is, made at the first start; with --encryption
  --pins FILE             where the keys of others are remembered; with --encryption
  -h, --help              show this and leave
  --version               show the version and leave
)";

/// `name` with `_` for its white space: a team name that nobody can object to.
inline std::string joined(std::string_view name) {
    std::string result(trimmed(name));
    for (char& c : result)
        if (white_space.find(c) != white_space.npos) c = '_';
    return result;
}

/// What is wrong with a team name; empty: nothing.
inline std::string wrong_team(std::string_view name) {
    if (name.empty()) return "A team needs a name.";
    if (name.size() > p2pchat::max_team_bytes) return "A team name has at most 64 bytes.";
    if (name.find_first_of(white_space) != name.npos) return "A team name has no white space.";
    std::string ignored;
    if (auto error = p2pchat::format({"127.0.0.1", 1}, name, "x", ignored)) return error.message();
    return {};
}

/// Sets what the flag `name` says. Returns what is wrong with its value; empty: nothing.
inline std::string set_option(std::string_view name, const std::string& value, options& result) {
    if (name == "--team") {
        result.team = value;
        const auto wrong = wrong_team(value);
        return value == joined(value) || wrong.empty() ? wrong : wrong + " Try " + joined(value);
    }
    if (name == "--port") {
        const auto port = number(value, 1, 65535);
        if (!port) return "a port is a number from 1 to 65535";
        result.port = static_cast<std::uint16_t>(*port);
        return {};
    }
    if (name == "--address") {
        result.address = value;
        return p2pchat::endpoint(value, 1) ? "" : "not an IP address";
    }
    if (name == "--encryption") {
        const auto word =
            std::find(std::begin(encryption_words), std::end(encryption_words), value);
        if (word == std::end(encryption_words)) return "off, preferred or required";
        result.encryption = static_cast<p2pchat::encryption>(word - std::begin(encryption_words));
        return {};
    }
    static constexpr struct {
        std::string_view flag;
        std::string options::*file;
    } files[] = {{"--config", &options::folder},
                 {"--log", &options::log},
                 {"--outbox", &options::outbox},
                 {"--identity", &options::identity},
                 {"--pins", &options::pins}};
    for (const auto& [flag, file] : files) {
        if (name != flag) continue;
        result.*file = value;
        return value.empty() ? "needs a file's name" : "";
    }
    p2pchat::endpoint peer;  // --default-peer
    if (auto error = p2pchat::parse(value, peer)) return error.message() + ": IP:PORT is needed";
    result.default_peers.push_back(peer);
    return {};
}

/// Whether there is a flag `name` without a value; then it is set.
inline bool set_switch(std::string_view name, options& result) {
    if (name == "--no-discovery") return result.discovery = false, true;
    if (name == "--no-config") return result.keeps = false, true;
    if (name == "--quiet") return result.quiet = true;
    return false;
}

inline int wrong_flag(std::string_view flag, const std::string& why) {
    std::cerr << "p2pchat: " << visible(flag) << ": " << why << "\nSee p2pchat --help.\n";
    return 2;
}

/// Reads the command line into `result`; returns an exit status if the program is to end here.
inline std::optional<int> read_options(const std::vector<std::string>& arguments, options& result) {
    static constexpr std::string_view with_value[] = {
        "--team",   "--port",   "--address",    "--default-peer", "--log",
        "--outbox", "--config", "--encryption", "--identity",     "--pins"};
    for (auto argument = arguments.begin(); argument != arguments.end(); ++argument) {
        const auto equals = argument->find('=');
        const std::string name = argument->substr(0, equals);
        if (*argument == "-h" || *argument == "--help") return std::cout << usage, 0;
        if (*argument == "--version") return std::cout << "p2pchat " << p2pchat::version << '\n', 0;
        if (set_switch(*argument, result)) continue;
        if (std::find(std::begin(with_value), std::end(with_value), name) == std::end(with_value))
            return wrong_flag(*argument, "no such flag");
        if (equals == argument->npos && argument + 1 == arguments.end())
            return wrong_flag(name, "needs a value");
        const auto value = equals == argument->npos ? *++argument : argument->substr(equals + 1);
        const auto wrong = set_option(name, value, result);
        if (!wrong.empty()) return wrong_flag(name + ' ' + value, wrong);
    }
    // Whoever names a file of keys takes it that they are used.
    if (result.encryption == p2pchat::encryption::off)
        for (const auto& [flag, file] :
             {std::pair("--identity ", result.identity), std::pair("--pins ", result.pins)})
            if (!file.empty())
                return wrong_flag(flag + file, "needs --encryption preferred or required");
    if (result.default_peers.empty()) result.default_peers.push_back({"10.206.5.228", 6555});
    return std::nullopt;
}

}  // namespace menu

#endif  // MENU_OPTIONS_HPP
