// people.hpp - the known peers, and their names.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_PEOPLE_HPP
#define MENU_PEOPLE_HPP

#include "outbox.hpp"
#include "p2pchat.hpp"
#include "settings/remembered.hpp"
#include "terminal/text.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace menu {

class people {
public:
    people(const p2pchat::node& node, outbox& outbox, given_names& names)
        : node_(node), outbox_(outbox), names_(names) {}

    /// The peers, then those found by discovery, then the addresses we have only written to.
    std::vector<p2pchat::peer> known() const {
        auto all = node_.peers();
        add_found(all);
        for (const auto& address : outbox_.silent_recipients())
            add_new(all, {address, {}, {}, false, {}});
        return all;
    }

    /// Those found by discovery that have not been heard from.
    std::vector<p2pchat::peer> found() const {
        auto all = node_.peers();
        const auto peer_count = static_cast<std::ptrdiff_t>(all.size());
        add_found(all);
        all.erase(all.begin(), all.begin() + peer_count);
        return all;
    }

    /// The name of a peer: the one that the user gave it, or else its team, followed by its address
    /// where another peer has the same team. Thread-safe.
    std::string name_of(const p2pchat::endpoint& peer, const std::string& team) const {
        return name_of(peer, team, known());
    }
    std::string name_of(const p2pchat::endpoint& peer) const {
        const auto all = known();
        const auto found = std::find_if(all.begin(), all.end(),
                                        [&](const auto& known) { return known.address == peer; });
        return name_of(peer, found == all.end() ? "" : found->team, all);
    }

    /// All known peers with their names.
    std::vector<outbox::recipient> recipients() const {
        std::vector<outbox::recipient> result;
        const auto all = known();
        for (const auto& peer : all)
            result.push_back({peer.address, name_of(peer.address, peer.team, all)});
        return result;
    }

    /// The peers of this name: one, or several of the same team.
    std::vector<p2pchat::peer> named(const std::string& name) const {
        std::vector<p2pchat::peer> by_name, by_team;
        const auto all = known();
        for (const auto& peer : all) {
            if (name_of(peer.address, peer.team, all) == name) by_name.push_back(peer);
            if (visible(peer.team) == name) by_team.push_back(peer);
        }
        return by_name.empty() ? by_team : by_name;
    }

    /// Names a peer, permanently if that can be stored. Returns the error; empty: none.
    std::string give_name(const p2pchat::endpoint& peer, const std::string& name) {
        auto problem = name_error(name);
        if (!problem.empty()) return problem;
        const auto error = names_.give(peer, name);
        return error ? "The name cannot be stored: " + error.message() : "";
    }

private:
    std::string name_of(const p2pchat::endpoint& peer, const std::string& team,
                        const std::vector<p2pchat::peer>& all) const {
        auto name = names_.of(peer);
        if (!name.empty()) return name;
        if (team.empty()) return to_string(peer);
        const bool is_shared = std::any_of(all.begin(), all.end(), [&](const auto& other) {
            return other.team == team && other.address != peer;
        });
        return visible(team) + (is_shared ? '@' + to_string(peer) : "");
    }

    static std::string name_error(const std::string& name) {
        const bool is_word = name.find_first_of(white_space) == name.npos && visible(name) == name;
        if (name.empty() || name.size() > p2pchat::max_team_bytes || !is_word)
            return "A name is one word of at most 64 bytes, without invisible characters.";
        p2pchat::endpoint address;
        if (name.front() == '/' || number(name, 0, SIZE_MAX) || !parse(name, address))
            return "A name cannot be a number, an address or a command.";
        return {};
    }

    void add_found(std::vector<p2pchat::peer>& peers) const {
        for (auto& found : node_.candidates())
            add_new(peers, {found.address, std::move(found.team), found.last_heard, false, {}});
    }

    static void add_new(std::vector<p2pchat::peer>& peers, p2pchat::peer peer) {
        const bool is_known = std::any_of(peers.begin(), peers.end(), [&](const auto& known) {
            return known.address == peer.address;
        });
        if (!is_known) peers.push_back(std::move(peer));
    }

    const p2pchat::node& node_;
    outbox& outbox_;
    given_names& names_;
};

}  // namespace menu

#endif  // MENU_PEOPLE_HPP
