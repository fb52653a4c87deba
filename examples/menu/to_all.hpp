// to_all.hpp - how a message to all begins. The wire has no word for that; people read this one, in
// the original too.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_TO_ALL_HPP
#define MENU_TO_ALL_HPP

#include <string_view>

namespace menu {

inline constexpr std::string_view to_all = "@all ";

inline bool is_to_all(std::string_view text) { return text.substr(0, to_all.size()) == to_all; }

inline std::string_view without_mark(std::string_view text) {
    return text.substr(is_to_all(text) ? to_all.size() : 0);
}

}  // namespace menu

#endif  // MENU_TO_ALL_HPP
