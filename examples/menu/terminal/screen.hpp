// screen.hpp - one screen for many threads: a prompt at the bottom, and other output above it.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_SCREEN_HPP
#define MENU_SCREEN_HPP

#ifdef _WIN32
#include "windows.hpp"
#else
#include "posix.hpp"
#endif

#include <algorithm>
#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace menu {

/// Asks one question at a time, in one thread, and meanwhile shows lines from any thread. Access to
/// the screen is guarded by its lock, which ask() releases only while it waits for a key.
class screen {
public:
    /// The candidates for the last word of `typed`, each of them a whole word.
    using completer = std::function<std::vector<std::string>(const std::string& typed)>;

    screen()
        : terminal_([this](const auto& typed) { return complete(typed); }, [this] { on_key(); }) {}
    screen(const screen&) = delete;
    screen& operator=(const screen&) = delete;
    ~screen() {
        if (!title_.empty()) terminal_.write("\x1b[23;2t");
    }

    /// Whether lines can be shown above the prompt and removed again: on a terminal that is not
    /// dumb. Elsewhere output is only appended.
    bool live() const { return terminal_.live(); }

    /// Whether the terminal supports colours.
    bool colours() const { return terminal_.colours(); }

    /// Whether the user wants to leave: Ctrl-C, Ctrl-D, the end of the input or of the terminal.
    bool leaving() const { return terminal_.leaving(); }

    /// Shows `prompt` and returns the line typed; nothing if the user leaves, or goes back by Esc.
    /// Where lines can be edited, one for which `erase_if` is true is erased from the screen.
    std::optional<std::string> ask(const std::string& prompt, const line_predicate& erase_if = {}) {
        std::unique_lock<std::mutex> lock(mutex_);
        asking_ = dangling_ = true;
        auto answer = terminal_.read_line(prompt, erase_if, lock);
        asking_ = false;
        // Without an editor Esc is a character, and Enter follows.
        if (terminal_.echoes() && answer && !answer->empty() && answer->back() == '\x1b')
            answer.reset();
        if (!answer) end_line();
        if (terminal_.echoes()) dangling_ = false;
        if (answer && terminal_.drop_pending())
            terminal_.write("Ignored: the input that arrived together with that line.\n");
        return answer;
    }

    /// Shows a line in reply to what was typed; without a terminal it directly follows the prompt,
    /// on the same line.
    void print(const std::string& line) { show(line, false); }

    /// Shows a line about an event, on a line of its own.
    void notify(const std::string& line) { show(line, true); }

    /// Sets what Tab completes. For the asking thread only, as is set_title().
    void complete_with(completer candidates) { completer_ = std::move(candidates); }

    /// Sets the window's title until the program ends; without a title ring() does nothing.
    void set_title(const std::string& title) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!terminal_.has_title()) return;
        if (title_.empty()) terminal_.write("\x1b[22;2t");
        title_ = title;
        show_title();
    }

    /// Calls for the user's attention, unless the window has it: rings the bell, at most once a
    /// second, and counts the calls in the title.
    void ring() {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto now = std::chrono::steady_clock::now();
        const bool is_idle = now - last_key_ > std::chrono::seconds(30);
        if (title_.empty() || terminal_.focused().value_or(!is_idle)) return;
        ++unread_;
        show_title();
        if (now - last_bell_ < std::chrono::seconds(1)) return;
        last_bell_ = now;
        terminal_.write("\a");
    }

private:
    void on_key() {
        last_key_ = std::chrono::steady_clock::now();
        if (std::exchange(unread_, 0) != 0) show_title();
    }

    void show_title() {
        const auto count = unread_ == 0 ? "" : '(' + std::to_string(unread_) + ") ";
        terminal_.write("\x1b]2;" + count + title_ + '\a');
    }

    /// Inserts what all candidates have in common or, if that is nothing, lists them. Without a
    /// candidate Tab is a character, but not in a command, which begins with a slash.
    completion complete(const std::string& typed) const {
        const auto word = typed.substr(typed.find_last_of(' ') + 1);
        auto words = completer_ ? completer_(typed) : std::vector<std::string>();
        words.erase(std::remove_if(
                        words.begin(), words.end(),
                        [&](const auto& each) { return each.compare(0, word.size(), word) != 0; }),
                    words.end());
        if (words.empty()) return {typed.empty() || typed.front() != '/' ? "\t" : "", {}};
        std::string common = words.front();
        for (const auto& other : words)
            common.erase(
                std::mismatch(common.begin(), common.end(), other.begin(), other.end()).first,
                common.end());
        const auto& first = words.front();  // do not end within a character
        while (common.size() < first.size() && (first[common.size()] & 0xc0) == 0x80)
            common.pop_back();
        if (words.size() == 1) return {common.substr(word.size()) + ' ', {}};
        if (common.size() > word.size()) return {common.substr(word.size()), {}};
        return {{}, std::move(words)};
    }

    void show(const std::string& line, bool on_own_line) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const bool redraw = asking_ && live();
        if (redraw) terminal_.hide();
        if (!redraw && on_own_line) end_line();
        terminal_.write(line + '\n');
        if (redraw) terminal_.show();
        dangling_ = redraw;
    }

    /// Ends the prompt's line where no Enter did: the next line would follow it directly.
    void end_line() {
        if (dangling_) terminal_.write("\n");
        dangling_ = false;
    }

    std::mutex mutex_;  // guards all below
    terminal terminal_;
    bool asking_ = false;    // ask() is waiting for an answer
    bool dangling_ = false;  // the last line of the output is a prompt
    completer completer_;    // for the asking thread
    std::string title_;      // of the window; empty: none
    int unread_ = 0;         // calls of ring() since the last key
    std::chrono::steady_clock::time_point last_key_ = std::chrono::steady_clock::now();
    std::chrono::steady_clock::time_point last_bell_{};
};

}  // namespace menu

#endif  // MENU_SCREEN_HPP
