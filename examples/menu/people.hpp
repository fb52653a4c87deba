// people.hpp - who is there, and what each is called.
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

    /// Whom we have heard from, behind them who was found, and then whom we have only written to.
    std::vector<p2pchat::peer> known() const {
        auto all = node_.peers();
        add_found(all);
        for (const auto& address : outbox_.only_written_to())
            add(all, {address, {}, {}, false, {}});
        return all;
    }

    /// Who is on the network and has not been heard from.
    std::vector<p2pchat::peer> found() const {
        auto all = node_.peers();
        const auto peers = static_cast<std::ptrdiff_t>(all.size());
        add_found(all);
        all.erase(all.begin(), all.begin() + peers);
        return all;
    }

    /// What a peer is called: as the person says, else its team, and its address behind that where
    /// another peer has the same. Thread-safe.
    std::string name_of(const p2pchat::endpoint& peer, const std::string& team) const {
        return name_of(peer, team, known());
    }
    std::string name_of(const p2pchat::endpoint& peer) const {
        const auto all = known();
        const auto found = std::find_if(all.begin(), all.end(),
                                        [&](const auto& one) { return one.address == peer; });
        return name_of(peer, found == all.end() ? "" : found->team, all);
    }

    /// All who are known, with what they are called.
    std::vector<outbox::recipient> names() const {
        std::vector<outbox::recipient> result;
        const auto all = known();
        for (const auto& peer : all)
            result.push_back({peer.address, name_of(peer.address, peer.team, all)});
        return result;
    }

    /// Who goes by this name: one, or several of the same team.
    std::vector<p2pchat::peer> called(const std::string& name) const {
        std::vector<p2pchat::peer> by_name, by_team;
        const auto all = known();
        for (const auto& peer : all) {
            if (name_of(peer.address, peer.team, all) == name) by_name.push_back(peer);
            if (visible(peer.team) == name) by_team.push_back(peer);
        }
        return by_name.empty() ? by_team : by_name;
    }

    /// Says what is wrong with a name; empty: it is given, for good if it can be stored.
    std::string give_name(const p2pchat::endpoint& peer, const std::string& name) {
        const auto wrong = wrong_name(name);
        if (!wrong.empty()) return wrong;
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

    static std::string wrong_name(const std::string& name) {
        const bool is_word = name.find_first_of(white_space) == name.npos && visible(name) == name;
        if (name.empty() || name.size() > p2pchat::max_team_bytes || !is_word)
            return "A name is one word of at most 64 bytes that can be seen.";
        p2pchat::endpoint address;
        if (name.front() == '/' || number(name, 0, SIZE_MAX) || !parse(name, address))
            return "A name is no number, no address and no command.";
        return {};
    }

    void add_found(std::vector<p2pchat::peer>& to) const {
        for (auto& who : node_.candidates())
            add(to, {who.address, std::move(who.team), who.last_heard, false, {}});
    }

    static void add(std::vector<p2pchat::peer>& to, p2pchat::peer one) {
        const bool known = std::any_of(to.begin(), to.end(),
                                       [&](const auto& p) { return p.address == one.address; });
        if (!known) to.push_back(std::move(one));
    }

    const p2pchat::node& node_;
    outbox& outbox_;
    given_names& names_;
};

}  // namespace menu

#endif  // MENU_PEOPLE_HPP
