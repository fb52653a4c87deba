// lan_peers.hpp - the peers on a bridge's LAN, without other bridges.
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

/// Thread-safe. A peer whose link broke stays listed until an attempt to connect to it fails.
class lan_peers {
public:
    using teams = std::map<p2pchat::endpoint, std::string>;  // by address
    static constexpr std::size_t max_list = 1000;            // bytes

    /// To be constructed before the node starts.
    explicit lan_peers(p2pchat::node& node) : node_(node) {
        node.on_peer_joined([this](const p2pchat::peer& peer) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!is_bridge(peer.team)) peers_[peer.address] = peer.team;
            changed_ = true;
        });
        node.on_peer_left([this](const p2pchat::peer& peer, p2pchat::departure departure) {
            const auto address = peer.address;
            const auto reconnected = [this, address](p2pchat::connect_result result) {
                if (result.error) forget(address);
            };
            if (departure != p2pchat::departure::lost || node_.connect(address, reconnected))
                forget(address);
        });
    }
    bool changed() { return changed_.exchange(false); }
    void set_changed() { changed_ = true; }
    teams snapshot() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return peers_;
    }
    bool contains(const p2pchat::endpoint& address) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return peers_.count(address) != 0;
    }
    /// Connects to all that discovery has found.
    void link_all() {
        const auto known = snapshot();
        for (const auto& found : node_.candidates())
            if (known.count(found.address) == 0 && !is_bridge(found.team))
                static_cast<void>(node_.connect(found.address, {}));  // or the next time
    }
    std::string list() const {
        std::string result;
        for (const auto& [address, team] : snapshot())
            if (result.size() < max_list) result += visible(team) + ' ' + to_string(address) + "  ";
        return result.empty() ? "nobody" : result;
    }

private:
    void forget(const p2pchat::endpoint& address) {
        const std::lock_guard<std::mutex> lock(mutex_);
        peers_.erase(address);
        changed_ = true;
    }

    p2pchat::node& node_;
    mutable std::mutex mutex_;  // guards the next
    teams peers_;
    std::atomic<bool> changed_{true};
};

}  // namespace menu

#endif  // BRIDGE_LAN_PEERS_HPP
