// style.hpp - colours, where the screen has them and the person does not mind.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_STYLE_HPP
#define MENU_STYLE_HPP

#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>

namespace menu {

class style {
public:
    explicit style(bool possible) : on_(possible && !refused()) {}

    std::string quiet(const std::string& text) const { return in("2", text); }
    std::string good(const std::string& text) const { return in("32", text); }
    std::string bad(const std::string& text) const { return in("31", text); }
    std::string warning(const std::string& text) const { return in("33", text); }

    /// In the colour of the peer `name`, which is the same each time and on every machine.
    std::string peer(std::string_view name, const std::string& text) const {
        static constexpr const char* colours[] = {"32", "33", "35", "36", "92",
                                                  "93", "94", "95", "96"};
        std::uint32_t hash = 2166136261;  // FNV-1a
        for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619;
        return in(colours[hash % std::size(colours)], text);
    }

private:
    static bool refused() {
        const char* no_color = std::getenv("NO_COLOR");
        return no_color != nullptr && *no_color != '\0';
    }

    std::string in(const char* colour, const std::string& text) const {
        if (!on_ || text.empty()) return text;
        return "\x1b[" + std::string(colour) + 'm' + text + "\x1b[0m";
    }

    bool on_;
};

}  // namespace menu

#endif  // MENU_STYLE_HPP
