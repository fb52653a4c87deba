// to_all.hpp - the mark at the beginning of a message to all. The wire format has none; this one is
// for people, who see it in the original, too.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_TO_ALL_HPP
#define MENU_TO_ALL_HPP

#include <string_view>

namespace menu {

inline constexpr std::string_view to_all_mark = "@all ";

inline bool is_to_all(std::string_view text) {
    return text.substr(0, to_all_mark.size()) == to_all_mark;
}

inline std::string_view without_mark(std::string_view text) {
    return text.substr(is_to_all(text) ? to_all_mark.size() : 0);
}

}  // namespace menu

#endif  // MENU_TO_ALL_HPP
