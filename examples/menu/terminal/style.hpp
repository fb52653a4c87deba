// style.hpp - colours, where the terminal supports them and NO_COLOR does not turn them off.
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
    explicit style(bool supported) : enabled_(supported && !is_disabled_by_user()) {}

    std::string dim(const std::string& text) const { return coloured("2", text); }
    std::string good(const std::string& text) const { return coloured("32", text); }
    std::string bad(const std::string& text) const { return coloured("31", text); }
    std::string warning(const std::string& text) const { return coloured("33", text); }

    /// In the colour of `name`, which is the same each time and on every machine.
    std::string by_name(std::string_view name, const std::string& text) const {
        static constexpr const char* colours[] = {"32", "33", "35", "36", "92",
                                                  "93", "94", "95", "96"};
        std::uint32_t hash = 2166136261;  // FNV-1a
        for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619;
        return coloured(colours[hash % std::size(colours)], text);
    }

private:
    static bool is_disabled_by_user() {
        const char* no_color = std::getenv("NO_COLOR");
        return no_color != nullptr && *no_color != '\0';
    }

    std::string coloured(const char* colour, const std::string& text) const {
        if (!enabled_ || text.empty()) return text;
        return "\x1b[" + std::string(colour) + 'm' + text + "\x1b[0m";
    }

    bool enabled_;
};

}  // namespace menu

#endif  // MENU_STYLE_HPP
