// changed_keys.hpp - keys that were shown in place of those that are known, until somebody decides.
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

/// Each address with each key once. Bounded, as whoever sits at an address can make keys at will;
/// one host has no more than its share, so that it cannot keep others from being told. Thread-safe.
class changed_keys {
public:
    static constexpr std::size_t max = 64, share_of_host = 8;

    /// False if that is there already or, meanwhile, accepted; or there is no room.
    bool add(const p2pchat::peer& offered) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const bool there = std::any_of(all_.begin(), all_.end(), [&](const auto& one) {
            return one.address == offered.address && one.key == offered.key;
        });
        const auto accepted = accepted_.find(offered.address);
        const bool late = accepted != accepted_.end() && accepted->second == offered.key;
        if (there || late || !room_for(offered.address)) return false;
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
        remove_if([&](const p2pchat::peer& one) {
            return one.address == offered.address && one.key == offered.key;
        });
    }
    /// No key of that address is in question any more.
    void accept(const p2pchat::peer& offered) {
        remove_if([&](const p2pchat::peer& one) { return one.address == offered.address; });
        const std::lock_guard<std::mutex> lock(mutex_);
        accepted_[offered.address] = offered.key;
    }

private:
    bool room_for(const p2pchat::endpoint& host) const {
        const auto of_host = std::count_if(all_.begin(), all_.end(), [&](const auto& one) {
            return one.address.same_address(host);
        });
        return all_.size() < max && static_cast<std::size_t>(of_host) < share_of_host;
    }
    template <class Predicate>
    void remove_if(Predicate goes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        all_.erase(std::remove_if(all_.begin(), all_.end(), goes), all_.end());
    }

    mutable std::mutex mutex_;  // guards the next
    std::vector<p2pchat::peer> all_;
    std::map<p2pchat::endpoint, p2pchat::public_key> accepted_;  // by the person, one by one
};

}  // namespace menu

#endif  // MENU_CHANGED_KEYS_HPP
