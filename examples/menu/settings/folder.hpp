// folder.hpp - the folder of the files that outlive the program, and how they are written.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_FOLDER_HPP
#define MENU_FOLDER_HPP

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#ifdef _WIN32
#include "../terminal/windows_text.hpp"
#endif

namespace menu {

/// The system's folder for the user's settings. Empty if there is none.
inline std::string default_folder() {
#ifdef _WIN32
    const wchar_t* const value = _wgetenv(L"APPDATA");
    const std::string folder = value ? to_utf8(value) : "";
#else
    const auto environment = [](const char* variable) {
        const char* const value = std::getenv(variable);
        return std::string(value ? value : "");
    };
    std::string folder = environment("XDG_CONFIG_HOME");
    const auto home = environment("HOME");
    if (folder.empty() && !home.empty()) folder = home + "/.config";
#endif
    return folder.empty() ? folder : folder + "/p2pchat";
}

inline std::filesystem::path native_path(const std::string& name) {
#ifdef _WIN32
    return to_wide(name);
#else
    return name;
#endif
}

/// Creates the folder that a file is to be in, if there is none.
inline std::error_code create_folder_of(const std::filesystem::path& file) {
    std::error_code error;
    if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path(), error);
    return error;
}

/// Replaces a file or, if that fails, leaves it as it was. Only its owner can read it.
inline std::error_code replace_file(const std::string& name, const std::string& content) {
    const auto path = native_path(name);
    auto error = create_folder_of(path);
    if (error) return error;
    auto temporary = path;
    temporary += ".new";
    errno = 0;
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    using std::filesystem::perms;
    if (file) permissions(temporary, perms::owner_read | perms::owner_write, error);
    file << content;
    file.close();
    if (!file && !error) error = {errno != 0 ? errno : EIO, std::generic_category()};
    if (!error) rename(temporary, path, error);
    return error;
}

}  // namespace menu

#endif  // MENU_FOLDER_HPP
