// remembered.hpp - earlier answers, and the names that the user gave to peers.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_REMEMBERED_HPP
#define MENU_REMEMBERED_HPP

#include "../terminal/text.hpp"
#include "folder.hpp"
#include "p2pchat.hpp"

#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace menu {

/// A file of lines "KEY VALUE". Without a file name the values are lost at the end.
class remembered {
public:
    void read(std::string name) {
        name_ = std::move(name);
        std::ifstream file(native_path(name_), std::ios::binary);
        for (std::string line; !name_.empty() && std::getline(file, line);) {
            const std::string_view words = trimmed(line);
            const auto space = words.find(' ');
            if (space == words.npos) continue;
            values_[std::string(words.substr(0, space))] = trimmed(words.substr(space));
        }
    }
    const std::string& name() const { return name_; }

    /// The value of `key`; empty: none.
    std::string find(const std::string& key) const {
        const auto found = values_.find(key);
        return found == values_.end() ? "" : found->second;
    }

    /// Sets a value, and removes it from any other key.
    std::error_code set_unique(const std::string& key, const std::string& value) {
        for (auto entry = values_.begin(); entry != values_.end();)
            entry = entry->second == value ? values_.erase(entry) : std::next(entry);
        return set(key, value);
    }
    std::error_code set(const std::string& key, const std::string& value) {
        values_[key] = value;
        std::string content;
        for (const auto& [each, its_value] : values_) content += each + ' ' + its_value + '\n';
        return name_.empty() ? std::error_code() : replace_file(name_, content);
    }

private:
    std::string name_;
    std::map<std::string, std::string> values_;
};

/// The names that the user gave to peers. Thread-safe.
class given_names {
public:
    void read(const std::string& file) {
        const std::lock_guard<std::mutex> lock(mutex_);
        names_.read(file);
    }
    std::string of(const p2pchat::endpoint& peer) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return names_.find(to_string(peer));
    }
    std::error_code give(const p2pchat::endpoint& peer, const std::string& name) {
        const std::lock_guard<std::mutex> lock(mutex_);
        return names_.set_unique(to_string(peer), name);
    }

private:
    mutable std::mutex mutex_;  // guards the next
    remembered names_;
};

}  // namespace menu

#endif  // MENU_REMEMBERED_HPP
