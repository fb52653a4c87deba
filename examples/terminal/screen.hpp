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

#include <mutex>
#include <optional>
#include <string>

namespace menu {

/// Asks one question at a time, in one thread, and shows lines that any thread has meanwhile. The
/// screen belongs to whoever holds its lock; ask() lets go of it only while it waits for a key.
class screen {
public:
    /// Whether lines may come and go as they like: on a terminal that is not dumb. Elsewhere the
    /// output is the original's, in the original's order.
    bool live() const { return terminal_.live(); }

    /// Whether it shows colours.
    bool colours() const { return terminal_.colours(); }

    /// Whether the person wants to leave: Ctrl-C, Ctrl-D, the end of the input or of the terminal.
    bool leaving() const { return terminal_.leaving(); }

    /// Shows `prompt` and returns the line typed; nothing if the person leaves or, by Esc, goes
    /// back.
    std::optional<std::string> ask(const std::string& prompt) {
        std::unique_lock<std::mutex> lock(mutex_);
        asking_ = dangling_ = true;
        auto answer = terminal_.read_line(prompt, lock);
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

private:
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
};

}  // namespace menu

#endif  // MENU_SCREEN_HPP
