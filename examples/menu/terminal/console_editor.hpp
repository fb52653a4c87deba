// console_editor.hpp - edits a line on a Windows console, and hides it while other output is shown.
//
// SPDX-License-Identifier: MIT
//
// The console's own editing cannot: it loses its place when something else is written. This has the
// minimum that people expect: typing, Backspace, Esc, Tab, and the arrow keys for the history.

#ifndef MENU_CONSOLE_EDITOR_HPP
#define MENU_CONSOLE_EDITOR_HPP

#include "line_editor.hpp"
#include "text.hpp"
#include "windows_text.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace menu {

class console_editor : public line_editor {
public:
    console_editor(HANDLE in, HANDLE out, editor_callbacks callbacks)
        : in_(in), out_(out), callbacks_(std::move(callbacks)) {}

    std::optional<std::string> read_line(const std::string& prompt,
                                         const line_predicate& erase_if) override {
        prompt_ = to_wide(prompt);
        line_.clear();
        history_ = &histories_[prompt];
        recalled_ = history_->size();
        show();
        for (KEY_EVENT_RECORD key; next_key(key);) {
            const wchar_t c = key.uChar.UnicodeChar;
            if (c == L'\x1a' && line_.empty()) break;  // Ctrl-Z
            if (c == L'\x1b') return "\x1b";
            if (c == L'\r') return finish(erase_if);
            obey(key);
        }
        return std::nullopt;
    }

    void hide() override {
        CONSOLE_SCREEN_BUFFER_INFO info = {};
        GetConsoleScreenBufferInfo(out_, &info);
        const int columns = std::max<int>(info.dwSize.X, 1);
        const int cells = cells_of(to_utf8(prompt_ + line_), columns);
        // After a row that is full the cursor is at its end or in the next row: consoles differ.
        const bool just_full = cells > 0 && cells % columns == 0 && info.dwCursorPosition.X != 0;
        const int row = info.dwCursorPosition.Y - cells / columns + (just_full ? 1 : 0);
        const COORD start = {0, static_cast<SHORT>(std::max(row, 0))};
        const auto size = static_cast<DWORD>((info.dwCursorPosition.Y - start.Y + 1) * columns);
        DWORD done = 0;
        FillConsoleOutputCharacterW(out_, L' ', size, start, &done);
        FillConsoleOutputAttribute(out_, info.wAttributes, size, start, &done);
        SetConsoleCursorPosition(out_, start);
    }

    void show() override { put(prompt_ + line_); }
    void pause() override {}
    void resume() override {}

private:
    bool next_key(KEY_EVENT_RECORD& key) {
        INPUT_RECORD record = {};
        DWORD count = 0;
        while (callbacks_.wait_for_key() && ReadConsoleInputW(in_, &record, 1, &count) != 0) {
            if (record.EventType == FOCUS_EVENT)
                callbacks_.on_focus(record.Event.FocusEvent.bSetFocus != 0);
            key = record.Event.KeyEvent;
            // A character typed by its number comes when Alt is released.
            if (record.EventType == KEY_EVENT &&
                (key.bKeyDown != 0 || key.wVirtualKeyCode == VK_MENU))
                return true;
        }
        return false;
    }

    void obey(const KEY_EVENT_RECORD& key) {
        const wchar_t c = key.uChar.UnicodeChar;
        if (c >= L' ') {
            line_.append(1, c);
            put(std::wstring(1, c));
        } else if (c == L'\b') {
            change_to(without_last(line_));
        } else if (c == L'\t') {
            complete();
        } else if (key.wVirtualKeyCode == VK_UP && recalled_ > 0) {
            change_to((*history_)[--recalled_]);
        } else if (key.wVirtualKeyCode == VK_DOWN && recalled_ < history_->size()) {
            ++recalled_;
            change_to(recalled_ < history_->size() ? (*history_)[recalled_] : L"");
        }
    }

    void complete() {
        const auto result = callbacks_.complete(to_utf8(line_));
        if (!result.choices.empty()) hide();
        for (const auto& choice : result.choices) put(to_wide(choice + "  "));
        if (!result.choices.empty()) put(L"\r\n"), show();
        line_ += to_wide(result.insert);
        put(to_wide(result.insert));
    }

    std::optional<std::string> finish(const line_predicate& erase_if) {
        const auto line = to_utf8(line_);
        if (erase_if && erase_if(line))
            hide();
        else
            put(L"\r\n");
        if (!line_.empty() && (history_->empty() || history_->back() != line_))
            history_->push_back(line_);
        return line;
    }

    void change_to(const std::wstring& line) {
        hide();
        line_ = line;
        show();
    }

    void put(const std::wstring& text) {
        DWORD done = 0;
        WriteConsoleW(out_, text.data(), static_cast<DWORD>(text.size()), &done, nullptr);
    }

    /// Without the last character, which may be two surrogates.
    static std::wstring without_last(std::wstring line) {
        const auto is_surrogate = [](wchar_t c) { return (c & 0xf800) == 0xd800; };
        if (line.size() > 1 && is_surrogate(line.back())) line.pop_back();
        if (!line.empty()) line.pop_back();
        return line;
    }

    /// How many cells `text` takes in rows of `columns`: a wide character is not split.
    static int cells_of(std::string_view text, int columns) {
        int cells = 0;
        while (!text.empty()) {
            char32_t c = 0;
            text.remove_prefix(std::max<std::size_t>(decode(text, c), 1));
            if (is_wide(c) && cells % columns == columns - 1) ++cells;
            cells += is_wide(c) ? 2 : 1;
        }
        return cells;
    }

    static bool is_wide(char32_t c) {
        static constexpr std::pair<char32_t, char32_t> ranges[] = {
            {0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3},   {0xf900, 0xfaff},
            {0xfe30, 0xfe6f}, {0xff01, 0xff60}, {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};
        return std::any_of(std::begin(ranges), std::end(ranges), [c](const auto& range) {
            return c >= range.first && c <= range.second;
        });
    }

    const HANDLE in_, out_;
    const editor_callbacks callbacks_;
    std::wstring prompt_, line_;
    std::map<std::string, std::vector<std::wstring>> histories_;  // one for each prompt
    std::vector<std::wstring>* history_ = nullptr;
    std::size_t recalled_ = 0;  // index in the history; its size: none
};

}  // namespace menu

#endif  // MENU_CONSOLE_EDITOR_HPP
