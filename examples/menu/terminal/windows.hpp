// windows.hpp - the console, or the pipes in its place, on Windows.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_TERMINAL_WINDOWS_HPP
#define MENU_TERMINAL_WINDOWS_HPP

#include "console_editor.hpp"
#include "windows_text.hpp"

#include <shellapi.h>

#ifndef ENABLE_VIRTUAL_TERMINAL_PROCESSING
#define ENABLE_VIRTUAL_TERMINAL_PROCESSING 4
#endif

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace menu {

/// The command line as it was typed; main()'s has lost characters that the code page lacks.
inline std::vector<std::string> utf8_arguments(int, char**) {
    int count = 0;
    wchar_t** const values = CommandLineToArgvW(GetCommandLineW(), &count);
    std::vector<std::string> result;
    for (int i = 1; i < count; ++i) result.push_back(to_utf8(values[i]));
    LocalFree(values);
    return result;
}

class terminal {
public:
    /// `complete` tells the effect of Tab; `on_key` is called at any input.
    terminal(std::function<completion(const std::string&)> complete, std::function<void()> on_key)
        : on_key_(std::move(on_key)) {
        DuplicateHandle(GetCurrentProcess(), GetCurrentThread(), GetCurrentProcess(), &main_, 0,
                        FALSE, DUPLICATE_SAME_ACCESS);
        SetConsoleCtrlHandler(on_control, TRUE);
        if (live())
            editor_.emplace(in_, out_,
                            editor_callbacks{[this] { return wait_for_key(); }, std::move(complete),
                                             [this](bool focused) { focused_ = focused; }});
        colours_ = GetConsoleMode(out_, &mode_) != 0 &&
                   SetConsoleMode(out_, mode_ | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0;
    }
    terminal(const terminal&) = delete;
    terminal& operator=(const terminal&) = delete;
    ~terminal() {
        if (colours_) SetConsoleMode(out_, mode_);
        SetConsoleCtrlHandler(on_control, FALSE);
    }

    /// Whether the user's Enter ends the line on the screen too.
    bool echoes() const { return live(); }
    bool live() const { return console_in_ && console_out_; }
    bool colours() const { return live() && colours_; }
    bool leaving() const { return leaving_; }
    /// Whether the window has the focus, once the console has said so.
    std::optional<bool> focused() const { return focused_; }
    bool has_title() const { return colours(); }

    void write(std::string_view text) {
        const std::wstring wide = console_out_ ? to_wide(text) : std::wstring();
        DWORD done = 0;
        const BOOL fine =
            console_out_
                ? WriteConsoleW(out_, wide.data(), static_cast<DWORD>(wide.size()), &done, nullptr)
                : WriteFile(out_, text.data(), static_cast<DWORD>(text.size()), &done, nullptr);
        if (fine == 0) leaving_ = true;  // nobody reads it any more
    }

    /// The next line of the input without its line end; nothing at the end of the input or when the
    /// user leaves. `lock` is released while it waits. `erase_if`: see line_editor.
    std::optional<std::string> read_line(const std::string& prompt, const line_predicate& erase_if,
                                         std::unique_lock<std::mutex>& lock) {
        lock_ = &lock;
        auto line = editor_ ? editor_->read_line(prompt, erase_if) : read_plain_line(prompt);
        if (!line) leaving_ = true;
        return leaving_ ? std::nullopt : line;
    }

    /// Drops the input that arrived together with the line just read, such as the rest of a paste:
    /// it answers no later question. Returns whether there was any.
    bool drop_pending() {
        if (!live() || leaving_) return false;
        bool any = false;
        INPUT_RECORD record = {};
        DWORD count = 0;
        while (WaitForSingleObject(in_, any ? 20 : 0) == WAIT_OBJECT_0 &&
               ReadConsoleInputW(in_, &record, 1, &count) != 0) {
            const auto& key = record.Event.KeyEvent;
            any = any || (record.EventType == KEY_EVENT && key.bKeyDown != 0 &&
                          key.uChar.UnicodeChar != 0);
        }
        return any;
    }

    /// Around output while a question is open.
    void hide() { editor_->hide(); }
    void show() { editor_->show(); }

private:
    /// Runs in a thread that the system makes. When a window is closed, the process ends as soon as
    /// this returns, so it waits for main() to leave in order.
    static BOOL WINAPI on_control(DWORD event) {
        leaving_ = true;
        SetEvent(left_);
        while (reading_) {  // again, in case the read had not begun
            CancelSynchronousIo(main_);
            Sleep(20);
        }
        if (event != CTRL_C_EVENT && event != CTRL_BREAK_EVENT) WaitForSingleObject(main_, 5000);
        return TRUE;
    }

    /// False when the user leaves.
    bool wait_for_key() {
        const HANDLE ends[] = {left_, in_};
        lock_->unlock();
        WaitForMultipleObjects(2, ends, FALSE, INFINITE);
        lock_->lock();
        on_key_();
        return !leaving_;
    }

    std::optional<std::string> read_plain_line(const std::string& prompt) {
        write(prompt);
        while (typed_.find('\n') == typed_.npos) {
            lock_->unlock();
            reading_ = true;
            const std::string more = leaving_ ? "" : read_pipe();
            reading_ = false;
            lock_->lock();
            if (more.empty()) break;
            typed_ += more;
        }
        if (typed_.empty()) return std::nullopt;
        return take_line();
    }

    std::string read_pipe() {
        char buffer[4096];
        DWORD size = 0;
        if (ReadFile(in_, buffer, sizeof buffer, &size, nullptr) == 0) return {};
        return {buffer, size};
    }

    std::string take_line() {
        const auto end = typed_.find('\n');
        std::string line = typed_.substr(0, end);
        typed_.erase(0, end == typed_.npos ? end : end + 1);
        if (!line.empty() && line.back() == '\r') line.pop_back();
        return line;
    }

    static bool is_console(HANDLE handle) {
        DWORD mode = 0;
        return GetConsoleMode(handle, &mode) != 0;
    }

    static inline HANDLE main_ = nullptr;
    static inline const HANDLE left_ = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    static inline std::atomic<bool> leaving_{false};
    static inline std::atomic<bool> reading_{false};

    const HANDLE in_ = GetStdHandle(STD_INPUT_HANDLE);
    const HANDLE out_ = GetStdHandle(STD_OUTPUT_HANDLE);
    const bool console_in_ = is_console(in_);
    const bool console_out_ = is_console(out_);
    DWORD mode_ = 0;  // of the console, before it was changed
    bool colours_ = false;
    std::function<void()> on_key_;
    std::optional<bool> focused_;
    std::optional<console_editor> editor_;          // on a console
    std::unique_lock<std::mutex>* lock_ = nullptr;  // of the screen, while a line is read
    std::string typed_;                             // read, and not yet asked for
};

}  // namespace menu

#endif  // MENU_TERMINAL_WINDOWS_HPP
