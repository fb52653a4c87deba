// kept_file.hpp - a file of the messages kept for absent peers, so that they outlive the program.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_KEPT_FILE_HPP
#define MENU_KEPT_FILE_HPP

#include "folder.hpp"
#include "p2pchat.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace menu {

/// One message: a line "SINCE ADDRESS/TEAM TEXT", or "SINCE ADDRESS TEXT" if no team was known
/// there. SINCE in seconds, as from std::time().
struct kept_entry {
    std::int64_t since = 0;
    p2pchat::endpoint to;
    std::string text, team;
};

class kept_file {
public:
    explicit kept_file(std::string name) : name_(std::move(name)) {}

    const std::string& name() const { return name_; }

    /// The messages in the file; malformed lines are skipped.
    std::vector<kept_entry> read() const {
        std::vector<kept_entry> result;
        std::ifstream file(native_path(name_), std::ios::binary);
        for (std::string line; std::getline(file, line);) {
            kept_entry entry;
            const auto to = line.find(' ') + 1, text = line.find(' ', to) + 1;
            if (to == 0 || text == 0) continue;
            std::from_chars(line.data(), line.data() + to - 1, entry.since);
            const auto peer = std::string_view(line).substr(to, text - 1 - to);
            const auto address = peer.substr(0, peer.find('/'));
            if (parse(address, entry.to)) continue;
            entry.team = peer.substr(std::min(peer.size(), address.size() + 1));
            entry.text = line.substr(text);
            result.push_back(std::move(entry));
        }
        return result;
    }

    std::error_code write(const std::vector<kept_entry>& entries) const {
        std::error_code error;
        if (entries.empty()) return std::filesystem::remove(native_path(name_), error), error;
        std::string content;
        for (const auto& entry : entries)
            content += std::to_string(entry.since) + ' ' + to_string(entry.to) +
                       (entry.team.empty() ? "" : '/' + entry.team) + ' ' + entry.text + '\n';
        return replace_file(name_, content);
    }

private:
    std::string name_;
};

}  // namespace menu

#endif  // MENU_KEPT_FILE_HPP
