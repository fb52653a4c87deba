// text.hpp - untrusted bytes made safe to show on a terminal, and small helpers for text.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_TEXT_HPP
#define MENU_TEXT_HPP

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <iterator>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace menu {

inline constexpr std::string_view white_space = " \t\n\v\f\r";

inline std::string_view trimmed(std::string_view text) {
    const auto first = text.find_first_not_of(white_space);
    if (first == text.npos) return {};
    return text.substr(first, text.find_last_not_of(white_space) - first + 1);
}

/// A decimal number in low..high, with nothing around it.
inline std::optional<std::size_t> number(std::string_view text, std::size_t low, std::size_t high) {
    std::size_t value = 0;
    const auto end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end || value < low || value > high) return std::nullopt;
    return value;
}

/// Decodes the UTF-8 character at the start of `bytes`; returns its length, or 0 if it is invalid
/// (truncated, overlong, a surrogate, beyond Unicode).
inline std::size_t decode(std::string_view bytes, char32_t& character) {
    static constexpr struct {
        unsigned char mask, lead;
        char32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    if (bytes.empty()) return 0;
    const auto lead = static_cast<unsigned char>(bytes[0]);
    const auto form = std::find_if(std::begin(forms), std::end(forms), [&](const auto& each) {
        return (lead & each.mask) == each.lead;
    });
    const auto length = static_cast<std::size_t>(form - std::begin(forms)) + 1;
    if (form == std::end(forms) || bytes.size() < length) return 0;
    character = lead & static_cast<unsigned char>(~form->mask);
    for (const char byte : bytes.substr(1, length - 1)) {
        if ((byte & 0xc0) != 0x80) return 0;
        character = character << 6 | static_cast<char32_t>(byte & 0x3f);
    }
    const bool surrogate = character >= 0xd800 && character <= 0xdfff;
    return character < form->least || character > 0x10ffff || surrogate ? 0 : length;
}

/// Whether a terminal would interpret this character, reorder the text around it, or show nothing
/// in its place: control characters, line separators, directional marks, and everything that
/// Unicode calls default-ignorable. The joiners and selectors within emoji are among these: they
/// can make two names look alike just as well as the others.
inline bool is_invisible(char32_t c) {
    static constexpr struct {
        char32_t first, last;
    } ranges[] = {{0x0000, 0x001f},   {0x007f, 0x009f},   {0x00ad, 0x00ad},  {0x034f, 0x034f},
                  {0x061c, 0x061c},   {0x115f, 0x1160},   {0x17b4, 0x17b5},  {0x180b, 0x180f},
                  {0x200b, 0x200f},   {0x2028, 0x202e},   {0x2060, 0x206f},  {0x3164, 0x3164},
                  {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0},  {0xfff0, 0xfffb},
                  {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff}};
    return std::any_of(std::begin(ranges), std::end(ranges),
                       [c](const auto& range) { return c >= range.first && c <= range.last; });
}

/// `bytes` as they may be shown: invisible characters and invalid UTF-8 are escaped, as \x1b.
inline std::string visible(std::string_view bytes) {
    constexpr char digits[] = "0123456789abcdef";
    std::string result;
    while (!bytes.empty()) {
        char32_t character = 0;
        const auto length = decode(bytes, character);
        const auto size = std::max<std::size_t>(length, 1);
        if (length != 0 && !is_invisible(character)) {
            result += bytes.substr(0, size);
        } else {
            for (const char byte : bytes.substr(0, size))
                result += {'\\', 'x', digits[byte >> 4 & 15], digits[byte & 15]};
        }
        bytes.remove_prefix(size);
    }
    return result;
}

/// The local time, as std::strftime() writes it. Thread-safe, which std::localtime() alone is not.
inline std::string now(const char* format) {
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    const std::time_t time = std::time(nullptr);
    char buffer[64];
    return {buffer, std::strftime(buffer, sizeof buffer, format, std::localtime(&time))};
}

}  // namespace menu

#endif  // MENU_TEXT_HPP
