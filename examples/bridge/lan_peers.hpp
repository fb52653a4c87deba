// lan_peers.hpp - who is on a bridge's LAN, other than bridges.
//
// SPDX-License-Identifier: MIT

#ifndef BRIDGE_LAN_PEERS_HPP
#define BRIDGE_LAN_PEERS_HPP

#include "../menu/terminal/text.hpp"
#include "options.hpp"
#include "p2pchat.hpp"

#include <atomic>
#include <cstddef>
#include <map>
#include <mutex>
#include <string>

namespace menu {

/// Thread-safe. A peer whose link broke still counts as there, until it is known not to answer.
class lan_peers {
public:
    using all = std::map<p2pchat::endpoint, std::string>;  // with their teams
    static constexpr std::size_t max_list = 1000;          // bytes

    /// To be constructed before the node starts.
    explicit lan_peers(p2pchat::node& node) : node_(node) {
        node.on_peer_joined([this](const p2pchat::peer& who) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!is_bridge(who.team)) here_[who.address] = who.team;
            changed_ = true;
        });
        node.on_peer_left([this](const p2pchat::peer& who, p2pchat::departure how) {
            const auto address = who.address;
            const auto again = [this, address](p2pchat::connect_result result) {
                if (result.error) forget(address);
            };
            if (how != p2pchat::departure::lost || node_.connect(address, again)) forget(address);
        });
    }
    bool changed() { return changed_.exchange(false); }
    void set_changed() { changed_ = true; }
    all snapshot() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return here_;
    }
    bool contains(const p2pchat::endpoint& who) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return here_.count(who) != 0;
    }
    /// Links to all that discovery has found.
    void link_all() {
        const auto known = snapshot();
        for (const auto& found : node_.candidates())
            if (known.count(found.address) == 0 && !is_bridge(found.team))
                node_.connect(found.address, {});
    }
    std::string list() const {
        std::string result;
        for (const auto& [address, team] : snapshot())
            if (result.size() < max_list) result += visible(team) + ' ' + to_string(address) + "  ";
        return result.empty() ? "nobody" : result;
    }

private:
    void forget(const p2pchat::endpoint& who) {
        const std::lock_guard<std::mutex> lock(mutex_);
        here_.erase(who);
        changed_ = true;
    }

    p2pchat::node& node_;
    mutable std::mutex mutex_;  // guards:
    all here_;
    std::atomic<bool> changed_{true};
};

}  // namespace menu

#endif  // BRIDGE_LAN_PEERS_HPP
