// remembered.hpp - what was answered once, and what people are called.
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

/// A file of lines "KEY VALUE". Without a name it is nowhere, and forgotten at the end.
class remembered {
public:
    void read(std::string name) {
        name_ = std::move(name);
        std::ifstream file(native(name_), std::ios::binary);
        for (std::string line; !name_.empty() && std::getline(file, line);) {
            const std::string_view words = trimmed(line);
            const auto space = words.find(' ');
            if (space == words.npos) continue;
            values_[std::string(words.substr(0, space))] = trimmed(words.substr(space));
        }
    }
    const std::string& name() const { return name_; }

    /// Empty: not there.
    std::string find(const std::string& key) const {
        const auto found = values_.find(key);
        return found == values_.end() ? "" : found->second;
    }

    /// Nothing to be found under any other key has this value afterwards.
    std::error_code set_unique(const std::string& key, const std::string& value) {
        for (auto one = values_.begin(); one != values_.end();)
            one = one->second == value ? values_.erase(one) : std::next(one);
        return set(key, value);
    }
    std::error_code set(const std::string& key, const std::string& value) {
        values_[key] = value;
        std::string content;
        for (const auto& [other, its_value] : values_) content += other + ' ' + its_value + '\n';
        return name_.empty() ? std::error_code() : replace_file(name_, content);
    }

private:
    std::string name_;
    std::map<std::string, std::string> values_;
};

/// What the person calls whom. Thread-safe.
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
