// changed_keys.hpp - keys that peers presented in place of known ones, for the user to decide on.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_CHANGED_KEYS_HPP
#define MENU_CHANGED_KEYS_HPP

#include "p2pchat.hpp"

#include <algorithm>
#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

namespace menu {

/// Each pair of an address and a key once. Bounded, as a host can make any number of keys; one host
/// has at most max_per_host, so that it cannot keep those of others from being reported.
/// Thread-safe.
class changed_keys {
public:
    static constexpr std::size_t max = 64, max_per_host = 8;

    /// False if it is listed already or has been accepted meanwhile, or if there is no room.
    bool add(const p2pchat::peer& offered) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const bool is_listed = std::any_of(all_.begin(), all_.end(), [&](const auto& listed) {
            return listed.address == offered.address && listed.key == offered.key;
        });
        const auto accepted = accepted_.find(offered.address);
        const bool is_accepted = accepted != accepted_.end() && accepted->second == offered.key;
        if (is_listed || is_accepted || !room_for(offered.address)) return false;
        all_.push_back(offered);
        return true;
    }
    bool has_room(const p2pchat::endpoint& host) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return room_for(host);
    }

    std::vector<p2pchat::peer> all() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return all_;
    }

    void remove(const p2pchat::peer& offered) {
        remove_if([&](const p2pchat::peer& listed) {
            return listed.address == offered.address && listed.key == offered.key;
        });
    }
    /// Removes all keys of that address: none of them is in question any more.
    void accept(const p2pchat::peer& offered) {
        remove_if([&](const p2pchat::peer& listed) { return listed.address == offered.address; });
        const std::lock_guard<std::mutex> lock(mutex_);
        accepted_[offered.address] = offered.key;
    }

private:
    bool room_for(const p2pchat::endpoint& host) const {
        const auto of_host = std::count_if(all_.begin(), all_.end(), [&](const auto& listed) {
            return listed.address.same_address(host);
        });
        return all_.size() < max && static_cast<std::size_t>(of_host) < max_per_host;
    }
    template <class Predicate>
    void remove_if(Predicate predicate) {
        const std::lock_guard<std::mutex> lock(mutex_);
        all_.erase(std::remove_if(all_.begin(), all_.end(), predicate), all_.end());
    }

    mutable std::mutex mutex_;  // guards the next
    std::vector<p2pchat::peer> all_;
    std::map<p2pchat::endpoint, p2pchat::public_key> accepted_;  // by the user
};

}  // namespace menu

#endif  // MENU_CHANGED_KEYS_HPP
