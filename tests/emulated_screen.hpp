// An emulated terminal: enough of an xterm to check what a line editor draws. It wraps long lines,
// again when its width changes, and keeps everything that scrolls away.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_EMULATED_SCREEN_HPP
#define P2PCHAT_TESTS_EMULATED_SCREEN_HPP

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

class emulated_screen {
public:
    emulated_screen(std::size_t columns, std::size_t rows) : columns_(columns), height_(rows) {}

    void feed(std::string_view bytes) {
        pending_ += bytes;
        std::size_t taken = 0;
        while (const auto size = feed_one(std::string_view(pending_).substr(taken))) taken += size;
        pending_.erase(0, taken);
    }

    /// Wraps long lines anew, as some terminals do.
    void resize(std::size_t columns, std::size_t rows) {
        std::vector<row> old = std::exchange(rows_, {});
        const auto old_row = row_, old_column = column_;
        columns_ = columns;
        height_ = rows;
        rows_.emplace_back();
        row_ = column_ = 0;
        std::pair<std::size_t, std::size_t> cursor = {0, 0};
        for (std::size_t i = 0; i < old.size(); ++i) {
            const auto& cells = old[i].cells;
            const auto size = i == old_row ? std::max(cells.size(), old_column) : cells.size();
            for (std::size_t j = 0; j <= size; ++j) {
                if (i == old_row && j == old_column) cursor = {row_, column_};
                if (j < cells.size() && !cells[j].empty()) put(cells[j], is_wide(cells, j));
                if (j >= cells.size() && j < size) put(" ", false);
            }
            if (!old[i].wraps && i + 1 < old.size()) column_ = 0, line_feed();
        }
        row_ = cursor.first;
        column_ = cursor.second;
    }

    /// All rows, also those that scrolled away, without the white space at their ends.
    std::string text() const { return rows_up_to(rows_.size()); }

    /// The same, up to the row with the cursor.
    std::string text_to_cursor() const { return rows_up_to(std::min(row_ + 1, rows_.size())); }

    /// The row with the cursor, up to it, with the white space there.
    std::string row_to_cursor() const {
        std::string result;
        for (std::size_t i = 0; i < column_; ++i) {
            const auto& cells = rows_[row_].cells;
            result += i < cells.size() ? cells[i] : " ";
        }
        return result;
    }

    /// Whether bracketed paste is on.
    bool brackets_pastes() const { return brackets_; }

    /// The window's title as it was set, with the number of the command; how often the bell rang.
    const std::string& title() const { return title_; }
    int bells() const { return bells_; }

private:
    struct row {
        std::vector<std::string> cells;  // a character each; empty: the second half of a wide one
        bool wraps = false;              // its text goes on in the next row
    };

    std::string rows_up_to(std::size_t end) const {
        std::string result;
        for (std::size_t i = 0; i < end; ++i) {
            for (const auto& cell : rows_[i].cells) result += cell;
            result.erase(result.find_last_not_of(' ') + 1);
            result += '\n';
        }
        result.erase(result.find_last_not_of('\n') + 1);
        return result;
    }

    static bool is_wide(const std::vector<std::string>& cells, std::size_t i) {
        return i + 1 < cells.size() && cells[i + 1].empty();
    }

    /// Handles the character or sequence that `bytes` begin with; its size, 0 if it is incomplete.
    std::size_t feed_one(std::string_view bytes) {
        if (bytes.empty()) return 0;
        if (bytes[0] == '\x1b') return escape(bytes);
        const auto lead = static_cast<unsigned char>(bytes[0]);
        if (lead < 0x20 || lead == 0x7f) return control(bytes[0]), 1;
        const std::size_t size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
        if (bytes.size() < size) return 0;
        put(std::string(bytes.substr(0, size)), size == 4 || (size == 3 && lead >= 0xe3));
        return size;
    }

    std::size_t title(std::string_view bytes) {
        const auto end = bytes.find('\a');
        if (end == bytes.npos) return 0;
        title_ = bytes.substr(2, end - 2);
        return end + 1;
    }

    void control(char c) {
        if (c == '\a') ++bells_;
        if (c == '\r') column_ = 0;
        if (c == '\b' && column_ > 0) --column_;
        if (c == '\n') line_feed();
    }

    void line_feed() {
        ++row_;
        if (row_ >= rows_.size()) rows_.resize(row_ + 1);
    }

    /// Wide: those from the CJK blocks on, and beyond the basic plane. Good enough for the tests.
    void put(const std::string& character, bool wide) {
        const std::size_t width = wide ? 2 : 1;
        if (column_ + width > columns_) {
            at_row().wraps = true;
            column_ = 0;
            line_feed();
        }
        auto& cells = at_row().cells;
        if (insert_ && column_ < cells.size()) cells.insert(at(cells, column_), width, " ");
        cells.resize(std::max(cells.size(), column_ + width), " ");
        cells[column_] = character;
        if (wide) cells[column_ + 1].clear();
        column_ += width;
    }

    row& at_row() {
        if (row_ >= rows_.size()) rows_.resize(row_ + 1);
        return rows_[row_];
    }

    static std::vector<std::string>::iterator at(std::vector<std::string>& cells, std::size_t i) {
        return cells.begin() + static_cast<std::ptrdiff_t>(std::min(i, cells.size()));
    }

    std::size_t escape(std::string_view bytes) {
        if (bytes.size() < 2) return 0;
        if (bytes[1] == '(' || bytes[1] == ')') return bytes.size() < 3 ? 0 : 3;
        if (bytes[1] == ']') return title(bytes);
        if (bytes[1] != '[') return 2;
        const auto end = std::find_if(bytes.begin() + 2, bytes.end(),
                                      [](char c) { return c >= '@' && c <= '~'; });
        if (end == bytes.end()) return 0;
        const auto size = static_cast<std::size_t>(end - bytes.begin()) + 1;
        std::size_t count = 0;
        for (const char c : bytes.substr(2, size - 3))
            if (c >= '0' && c <= '9') count = count * 10 + static_cast<std::size_t>(c - '0');
        command(*end, count);
        return size;
    }

    void command(char letter, std::size_t number) {
        const auto count = std::max<std::size_t>(number, 1);
        const auto top = rows_.size() > height_ ? rows_.size() - height_ : 0;
        auto& cells = at_row().cells;
        if (letter == 'A') row_ = row_ > top + count ? row_ - count : top;
        if (letter == 'B') row_ = std::min(row_ + count, rows_.size() - 1);
        if (letter == 'C') column_ = std::min(column_ + count, columns_ - 1);
        if (letter == 'D') column_ -= std::min(column_, count);
        if (letter == 'G') column_ = std::min(count, columns_) - 1;
        if (letter == 'H') row_ = top, column_ = 0;
        if (letter == 'K') erase_line(number);
        if (letter == 'J') erase_line(0), rows_.resize(row_ + 1);
        if (letter == '@') cells.insert(at(cells, column_), count, " ");
        if (letter == 'P') cells.erase(at(cells, column_), at(cells, column_ + count));
        if (number == 4 && (letter == 'h' || letter == 'l')) insert_ = letter == 'h';
        if (number == 2004 && (letter == 'h' || letter == 'l')) brackets_ = letter == 'h';
    }

    void erase_line(std::size_t mode) {
        auto& line = at_row();
        if (mode == 0 && column_ < line.cells.size()) line.cells.resize(column_);
        if (mode == 2) line.cells.clear();
        line.wraps = false;
    }

    std::size_t columns_, height_;
    std::size_t row_ = 0, column_ = 0;
    bool insert_ = false;
    bool brackets_ = false;
    std::string title_;
    int bells_ = 0;
    std::vector<row> rows_ = std::vector<row>(1);  // one at least: that with the cursor
    std::string pending_;  // the beginning of a character or an escape sequence
};

}  // namespace support

#endif  // P2PCHAT_TESTS_EMULATED_SCREEN_HPP
