// options.hpp - the flags of the menu program, which answer its prompts in advance.
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
    std::string folder;      ///< of the files that outlive the program; empty: the default
    bool use_folder = true;  ///< if not, only files that another flag names are used
    bool quiet = false;      ///< no bell, no window title
    std::string log;         ///< a file; empty: none
    std::string outbox;      ///< a file; empty: the default
    bool discovery = true;   ///< find others on the LAN, and be found
    p2pchat::encryption encryption = p2pchat::encryption::off;
    std::string identity;  ///< a file; empty: the default
    std::string pins;      ///< a file; empty: the default
};

/// In the order of p2pchat::encryption.
inline constexpr std::string_view encryption_words[] = {"off", "preferred", "required"};

inline constexpr std::string_view usage =
    R"(Usage: p2pchat [flags]
Chats with the peers of the local network. Asks for what the flags leave open.

  --team NAME             your team's name: up to 64 bytes, no white space
  --port NUMBER           listen on this port, 1 to 65535
  --address IP            be reached at this address, not at the detected one
  --default-peer IP:PORT  a recipient of mandatory messages; may be repeated
  --no-discovery          do not find peers on the network, nor be found
  --config DIR            the folder of settings, names, keys and kept messages
  --no-config             read and write nothing there; the default for piped input
  --log FILE              append messages to this file; a chat shows its last lines
  --outbox FILE           keep messages for absent peers in this file
  --quiet                 no bell, no window title
  --encryption off        no encryption: the default
  --encryption preferred  encrypt to peers that announce it or whose key is known
  --encryption required   encrypt to all peers; send and accept nothing unencrypted
  --identity FILE         your private key, made at the first start; with --encryption
  --pins FILE             the known keys of peers; with --encryption
  -h, --help              show this help and exit
  --version               show the version and exit
)";

/// `name` with `_` in place of white space, to suggest as a team name.
inline std::string with_underscores(std::string_view name) {
    std::string result(trimmed(name));
    for (char& c : result)
        if (white_space.find(c) != white_space.npos) c = '_';
    return result;
}

/// The error in a team name; empty: none.
inline std::string team_error(std::string_view name) {
    if (name.empty()) return "A team name cannot be empty.";
    if (name.size() > p2pchat::max_team_bytes) return "A team name has at most 64 bytes.";
    if (name.find_first_of(white_space) != name.npos)
        return "A team name cannot contain white space.";
    std::string ignored;
    if (auto error = p2pchat::format({"127.0.0.1", 1}, name, "x", ignored)) return error.message();
    return {};
}

/// Sets the option of the flag `name`. Returns the error in its value; empty: none.
inline std::string set_option(std::string_view name, const std::string& value, options& result) {
    if (name == "--team") {
        result.team = value;
        const auto problem = team_error(value), suggestion = with_underscores(value);
        return problem.empty() || value == suggestion ? problem : problem + " Try " + suggestion;
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
        return value.empty() ? "needs a file name" : "";
    }
    p2pchat::endpoint peer;  // --default-peer
    if (auto error = p2pchat::parse(value, peer)) return error.message() + ": IP:PORT is needed";
    result.default_peers.push_back(peer);
    return {};
}

/// Sets a flag that takes no value; false if `name` is none.
inline bool set_switch(std::string_view name, options& result) {
    if (name == "--no-discovery") return result.discovery = false, true;
    if (name == "--no-config") return result.use_folder = false, true;
    if (name == "--quiet") return result.quiet = true;
    return false;
}

/// Prints the error in a flag; returns the program's exit status.
inline int reject_flag(std::string_view flag, const std::string& reason) {
    std::cerr << "p2pchat: " << visible(flag) << ": " << reason << "\nSee p2pchat --help.\n";
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
            return reject_flag(*argument, "no such flag");
        if (equals == argument->npos && argument + 1 == arguments.end())
            return reject_flag(name, "needs a value");
        const auto value = equals == argument->npos ? *++argument : argument->substr(equals + 1);
        const auto problem = set_option(name, value, result);
        if (!problem.empty()) return reject_flag(name + ' ' + value, problem);
    }
    // A file of keys that is not used would be a misunderstanding.
    if (result.encryption == p2pchat::encryption::off)
        for (const auto& [flag, file] :
             {std::pair("--identity ", result.identity), std::pair("--pins ", result.pins)})
            if (!file.empty())
                return reject_flag(flag + file, "needs --encryption preferred or required");
    if (result.default_peers.empty()) result.default_peers.push_back({"10.206.5.228", 6555});
    return std::nullopt;
}

}  // namespace menu

#endif  // MENU_OPTIONS_HPP
