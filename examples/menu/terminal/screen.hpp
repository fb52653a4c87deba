// screen.hpp - one screen for many threads: a question at the bottom, and above it what happens.
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

/// Asks one question at a time, in one thread, and shows lines that any thread has meanwhile. The
/// screen belongs to whoever holds its lock; ask() lets go of it only while it waits for a key.
class screen {
public:
    /// What may stand for the last word of what was typed, each whole.
    using completer = std::function<std::vector<std::string>(const std::string& typed)>;

    screen()
        : terminal_([this](const auto& typed) { return complete(typed); }, [this] { on_key(); }) {}
    screen(const screen&) = delete;
    screen& operator=(const screen&) = delete;
    ~screen() {
        if (!title_.empty()) terminal_.write("\x1b[23;2t");
    }

    /// Whether lines may come and go as they like: on a terminal that is not dumb. Elsewhere the
    /// output is the original's, in the original's order.
    bool live() const { return terminal_.live(); }

    /// Whether it shows colours.
    bool colours() const { return terminal_.colours(); }

    /// Whether the person wants to leave: Ctrl-C, Ctrl-D, the end of the input or of the terminal.
    bool leaving() const { return terminal_.leaving(); }

    /// Shows `prompt` and returns the line typed; nothing if the person leaves or, by Esc, goes
    /// back. A line of which `goes` is true leaves the screen again, where lines can be edited.
    std::optional<std::string> ask(const std::string& prompt, const line_predicate& goes = {}) {
        std::unique_lock<std::mutex> lock(mutex_);
        asking_ = dangling_ = true;
        auto answer = terminal_.read_line(prompt, goes, lock);
        asking_ = false;
        // Without an editor Esc is a character, and Enter follows.
        if (terminal_.echoes() && answer && !answer->empty() && answer->back() == '\x1b')
            answer.reset();
        if (!answer) end_line();
        if (terminal_.echoes()) dangling_ = false;
        if (answer && terminal_.drop_rest())
            terminal_.write("Not taken: what came in one go behind that line.\n");
        return answer;
    }

    /// Shows a line that answers what was typed; without a terminal it stands right behind the
    /// prompt, as the original's do.
    void print(const std::string& line) { show(line, false); }

    /// Shows a line about what happened meanwhile, on a line of its own.
    void notify(const std::string& line) { show(line, true); }

    /// What Tab may complete, from now on. The asking thread's, as is the next.
    void complete_with(completer words) { completer_ = std::move(words); }

    /// The window's title, until the program ends; without one nothing rings.
    void set_title(const std::string& title) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!terminal_.has_title()) return;
        if (title_.empty()) terminal_.write("\x1b[22;2t");
        title_ = title;
        show_title();
    }

    /// A message has come. While the person is elsewhere the bell rings, at most once a second, and
    /// the title says how many have come.
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

    /// Inserts what all candidates have in common or, where that is nothing, shows them. Where
    /// nothing can be completed Tab is a character.
    completion complete(const std::string& typed) const {
        const auto word = typed.substr(typed.find_last_of(' ') + 1);
        auto words = completer_ ? completer_(typed) : std::vector<std::string>();
        words.erase(
            std::remove_if(words.begin(), words.end(),
                           [&](const auto& one) { return one.compare(0, word.size(), word) != 0; }),
            words.end());
        if (words.empty()) return {typed.empty() || typed.front() != '/' ? "\t" : "", {}};
        std::string common = words.front();
        for (const auto& one : words)
            common.erase(std::mismatch(common.begin(), common.end(), one.begin(), one.end()).first,
                         common.end());
        const auto& first = words.front();  // not to end within a character
        while (common.size() < first.size() && (first[common.size()] & 0xc0) == 0x80)
            common.pop_back();
        if (words.size() == 1) return {common.substr(word.size()) + ' ', {}};
        if (common.size() > word.size()) return {common.substr(word.size()), {}};
        return {{}, std::move(words)};
    }

    void show(const std::string& line, bool on_its_own) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const bool redraw = asking_ && live();
        if (redraw) terminal_.hide();
        if (!redraw && on_its_own) end_line();
        terminal_.write(line + '\n');
        if (redraw) terminal_.show();
        dangling_ = redraw;
    }

    /// A prompt that nobody's Enter ended would have the next line stand behind it.
    void end_line() {
        if (dangling_) terminal_.write("\n");
        dangling_ = false;
    }

    std::mutex mutex_;  // guards all below
    terminal terminal_;
    bool asking_ = false;    // ask() waits for an answer
    bool dangling_ = false;  // the last line of the output is a prompt
    completer completer_;    // the asking thread's
    std::string title_;      // of the window; empty: none
    int unread_ = 0;         // messages that came since the person was elsewhere
    std::chrono::steady_clock::time_point last_key_ = std::chrono::steady_clock::now();
    std::chrono::steady_clock::time_point last_bell_{};
};

}  // namespace menu

#endif  // MENU_SCREEN_HPP
