// kept_file.hpp - what waits for absent peers, in a file: so it outlives the program.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_KEPT_FILE_HPP
#define MENU_KEPT_FILE_HPP

#include "p2pchat.hpp"
#include "folder.hpp"

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace menu {

/// One message: a line "SINCE ADDRESS TEXT", SINCE in seconds as std::time() has them.
struct kept_entry {
    std::int64_t since = 0;
    p2pchat::endpoint to;
    std::string text;
};

/// For the messages of whoever has this port, as no two programs can have.
inline std::string default_kept_file(std::uint16_t port) {
    return state_file("outbox-" + std::to_string(port));
}

class kept_file {
public:
    explicit kept_file(std::string name) : name_(std::move(name)), path_(native(name_)) {}

    const std::string& name() const { return name_; }

    /// What is there; lines that are none are skipped.
    std::vector<kept_entry> read() const {
        std::vector<kept_entry> result;
        std::ifstream file(path_, std::ios::binary);
        for (std::string line; std::getline(file, line);) {
            kept_entry one;
            const auto to = line.find(' ') + 1, text = line.find(' ', to) + 1;
            if (to == 0 || text == 0) continue;
            std::from_chars(line.data(), line.data() + to - 1, one.since);
            if (parse(std::string_view(line).substr(to, text - 1 - to), one.to)) continue;
            one.text = line.substr(text);
            result.push_back(std::move(one));
        }
        return result;
    }

    /// All of it or, if that fails, what was there before; for nobody else's eyes.
    std::error_code write(const std::vector<kept_entry>& all) const {
        std::error_code error;
        if (all.empty()) return std::filesystem::remove(path_, error), error;
        if ((error = make_folder_of(path_))) return error;
        auto fresh = path_;
        fresh += ".new";
        errno = 0;
        std::ofstream file(fresh, std::ios::binary | std::ios::trunc);
        using std::filesystem::perms;
        if (file) permissions(fresh, perms::owner_read | perms::owner_write, error);
        for (const auto& one : all)
            file << one.since << ' ' << to_string(one.to) << ' ' << one.text << '\n';
        file.close();
        if (!file && !error) error = {errno != 0 ? errno : EIO, std::generic_category()};
        if (!error) rename(fresh, path_, error);
        return error;
    }

private:
    std::string name_;
    std::filesystem::path path_;
};

}  // namespace menu

#endif  // MENU_KEPT_FILE_HPP
