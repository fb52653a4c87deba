// options.hpp - the flags of the bridge.
//
// SPDX-License-Identifier: MIT

#ifndef BRIDGE_OPTIONS_HPP
#define BRIDGE_OPTIONS_HPP

#include "../menu/settings/folder.hpp"
#include "../menu/settings/options.hpp"
#include "../menu/terminal/text.hpp"
#include "mqtt.hpp"
#include "p2pchat.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace menu {

struct bridge_options {
    p2pchat::config node;
    mqtt::settings broker;
    std::string site, state;
    std::string base;  ///< of the room's topics
};

inline constexpr std::string_view bridge_usage =
    R"(Usage: bridge --team NAME --port NUMBER --broker HOST[:PORT] --room NAME [flags]
Passes messages to all between this LAN and the other LANs in the room.

  --team NAME           the bridge's team on the LAN is NAME@SITE
  --port NUMBER         listen on this port
  --broker HOST[:PORT]  the MQTT 5 broker; default port 1883, with --tls 8883
  --room NAME           the same for all LANs to be joined
  --site NAME           the name of this LAN in the room (default: that of --team)
  --tls CAFILE          encrypt, and trust the certificates in this file
  --user NAME           log in to the broker, with the password in P2PCHAT_BRIDGE_PASSWORD
  --address IP          be reached at this address, not at the detected one
  --no-discovery        do not find peers on the LAN, nor be found
  --state FILE          where to record shown messages, for the next start
  -h, --help            show this help and exit
)";

/// Whether this can be the name of a site or a room, which becomes part of MQTT topics.
inline bool is_site(std::string_view name) {
    const auto is_allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '_';
    };
    return !name.empty() && name.size() <= 32 && std::all_of(name.begin(), name.end(), is_allowed);
}

/// A bridge's team on its LAN is TEAM@SITE; its messages go over no other bridge.
inline bool is_bridge(std::string_view team) { return team.find('@') != team.npos; }

/// "host", "host:1883", "[::1]:1883" or "::1".
inline bool set_broker(const std::string& text, mqtt::settings& broker) {
    const auto colon = text.rfind(':');
    const bool has_port = colon != text.npos && (text.find(':') == colon || text[colon - 1] == ']');
    broker.host = text.substr(0, has_port ? colon : text.npos);
    if (broker.host.size() > 2 && broker.host.front() == '[' && broker.host.back() == ']')
        broker.host = broker.host.substr(1, broker.host.size() - 2);
    if (!has_port) return !broker.host.empty();
    const auto port = number(std::string_view(text).substr(colon + 1), 1, 65535);
    broker.port = static_cast<int>(port.value_or(0));
    return port && !broker.host.empty();
}

/// Reads the command line into `result`; returns an exit status if the program is to end here.
inline std::optional<int> read_bridge_options(int argc, char** argv, bridge_options& result) {
    std::map<std::string, std::string> given = {{"--team", ""}, {"--port", ""},    {"--broker", ""},
                                                {"--room", ""}, {"--site", ""},    {"--tls", ""},
                                                {"--user", ""}, {"--address", ""}, {"--state", ""}};
    const auto reject = [](const std::string& reason) {
        std::cerr << "bridge: " << visible(reason) << "\nSee bridge --help.\n";
        return 2;
    };
    result.node.discovery = true;
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        const auto flag = given.find(name);
        if (name == "-h" || name == "--help") return std::cout << bridge_usage, 0;
        if (name == "--no-discovery") {
            result.node.discovery = false;
            continue;
        }
        if (flag == given.end()) return reject(name + ": no such flag");
        if (++i == argc) return reject(name + ": needs a value");
        flag->second = argv[i];
    }
    const auto room = given["--room"], address = given["--address"];
    result.site = given[given["--site"].empty() ? "--team" : "--site"];
    if (!is_site(room) || !is_site(result.site))
        return reject("--room and --site (or --team) take up to 32 of a-z A-Z 0-9 - _");
    const auto team = given["--team"].empty() ? "" : given["--team"] + '@' + result.site;
    if (const auto problem = team_error(team); !problem.empty())
        return reject("--team: " + problem);
    const auto port = number(given["--port"], 0, 65535);
    if (!port) return reject("--port takes a number up to 65535");
    if (!address.empty() && !p2pchat::endpoint(address, 1)) return reject("--address takes an IP");
    result.broker.tls = given["--tls"];
    result.broker.port = result.broker.tls.empty() ? 1883 : 8883;
    if (!set_broker(given["--broker"], result.broker)) return reject("--broker takes HOST[:PORT]");
    result.broker.user = given["--user"];
    if (const char* const password = std::getenv("P2PCHAT_BRIDGE_PASSWORD"))
        result.broker.password = password;
    result.base = "p2pchat/" + room + '/';
    result.broker.id = result.base + result.site;
    result.broker.will = result.base + "here/" + result.site;
    result.node.team = team;
    result.node.port = static_cast<std::uint16_t>(*port);
    result.node.address = address;
    result.state = given["--state"];
    if (const auto folder = default_folder(); result.state.empty() && !folder.empty())
        result.state = folder + "/bridge-" + room + '-' + result.site;
    if (result.state.empty()) return reject("--state is needed: there is no home folder");
    // libmosquitto waits with select(), which supports descriptors below 1,024 only.
    result.node.max_links = 800;
    result.node.max_connections = 100;
    result.node.confirm_later = result.node.leave_on_stop = true;
    // Less than the default of the senders.
    result.node.delivery_timeout = std::chrono::seconds(4);
    return std::nullopt;
}

}  // namespace menu

#endif  // BRIDGE_OPTIONS_HPP
