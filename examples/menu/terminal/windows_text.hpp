// windows_text.hpp - conversion between UTF-8 and the UTF-16 of Windows.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_WINDOWS_TEXT_HPP
#define MENU_WINDOWS_TEXT_HPP

#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>

#include <string>
#include <string_view>

namespace menu {

inline std::string to_utf8(std::wstring_view text) {
    const auto size = static_cast<int>(text.size());
    const int needed =
        WideCharToMultiByte(CP_UTF8, 0, text.data(), size, nullptr, 0, nullptr, nullptr);
    std::string result(static_cast<std::size_t>(needed), '\0');
    WideCharToMultiByte(CP_UTF8, 0, text.data(), size, result.data(), needed, nullptr, nullptr);
    return result;
}

inline std::wstring to_wide(std::string_view text) {
    const auto size = static_cast<int>(text.size());
    const int needed = MultiByteToWideChar(CP_UTF8, 0, text.data(), size, nullptr, 0);
    std::wstring result(static_cast<std::size_t>(needed), L'\0');
    MultiByteToWideChar(CP_UTF8, 0, text.data(), size, result.data(), needed);
    return result;
}

}  // namespace menu

#endif  // MENU_WINDOWS_TEXT_HPP
