// folder.hpp - where files stand that outlive the program, if no flag says where.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_STATE_FOLDER_HPP
#define MENU_STATE_FOLDER_HPP

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#ifdef _WIN32
#include "../terminal/windows_text.hpp"
#endif

namespace menu {

/// A file in the folder that the system gives each user for such. Empty if there is none.
inline std::string state_file(const std::string& name) {
#ifdef _WIN32
    const wchar_t* const value = _wgetenv(L"LOCALAPPDATA");
    const std::string folder = value ? to_utf8(value) : "";
#else
    const auto of_environment = [](const char* variable) {
        const char* const value = std::getenv(variable);
        return std::string(value ? value : "");
    };
    std::string folder = of_environment("XDG_STATE_HOME");
    const auto home = of_environment("HOME");
    if (folder.empty() && !home.empty()) folder = home + "/.local/state";
#endif
    return folder.empty() ? folder : folder + "/p2pchat/" + name;
}

inline std::filesystem::path native(const std::string& name) {
#ifdef _WIN32
    return to_wide(name);
#else
    return name;
#endif
}

/// Makes the folder that a file is to stand in, if there is none.
inline std::error_code make_folder_of(const std::filesystem::path& file) {
    std::error_code error;
    if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path(), error);
    return error;
}

}  // namespace menu

#endif  // MENU_STATE_FOLDER_HPP
