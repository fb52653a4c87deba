// posix.hpp - the terminal, or the pipes in its place, on POSIX systems.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_TERMINAL_POSIX_HPP
#define MENU_TERMINAL_POSIX_HPP

#include "line_editor.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/select.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace menu {

inline std::vector<std::string> utf8_arguments(int argc, char** argv) {
    return {argv + 1, argv + argc};
}

/// Signals, as something to wait for together with keys: a handler may do little more than write
/// them to a pipe.
class signals {
public:
    /// `reset`: the second signal to leave ends the program at once, whatever it is waiting for.
    /// Not for a live terminal, which would then stay in the editor's mode.
    explicit signals(bool reset) : reset_(reset) {
        // The pipe would get the descriptor of a closed standard stream, and be read and written as
        // that stream. /dev/null, read-only, is at its end at once, and cannot be written.
        for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
            if (fcntl(stream, F_GETFD) < 0) static_cast<void>(open("/dev/null", O_RDONLY));
        if (pipe(ends_) != 0) std::abort();
        for (const int end : ends_) {
            fcntl(end, F_SETFD, FD_CLOEXEC);
            fcntl(end, F_SETFL, O_NONBLOCK);
        }
        for (const int number : {SIGPIPE, SIGXFSZ})
            signal(number, SIG_IGN);  // write() reports them
        for (const int number : {SIGINT, SIGTERM, SIGHUP}) watch(number);
    }

    /// Unless the parent process had it ignored, as nohup does.
    void watch(int number) {
        struct sigaction action = {};
        sigaction(number, nullptr, &action);
        if (action.sa_handler == SIG_IGN) return;
        action = {};
        action.sa_handler = note;
        if (reset_) action.sa_flags = static_cast<int>(SA_RESETHAND);
        sigaction(number, &action, nullptr);
    }

    int readable_end() const { return ends_[0]; }
    bool leaving() const { return leaving_; }

    /// The next signal that has come; 0: none.
    int next() {
        char number = 0;
        return read(ends_[0], &number, 1) == 1 ? number : 0;
    }

    /// The handler; the terminal calls it, too, with SIGTERM, to leave for a reason of its own.
    static void note(int number) {
        const int saved = errno;
        if (number == SIGINT || number == SIGTERM || number == SIGHUP) leaving_ = true;
        const char byte = static_cast<char>(number);
        if (write(ends_[1], &byte, 1) != 1) errno = 0;  // full: it wakes its reader anyway
        errno = saved;
    }

private:
    static inline int ends_[2] = {-1, -1};
    static inline std::atomic<bool> leaving_{false};
    const bool reset_;
};

class terminal {
public:
    /// `complete` tells the effect of Tab; `on_key` is called at any input.
    terminal(std::function<completion(const std::string&)> complete, std::function<void()> on_key)
        : on_key_(std::move(on_key)) {
        if (live_)
            editor_ = make_line_editor({[this] { return wait_for_input(); }, std::move(complete),
                                        [this](bool focused) { focused_ = focused; }});
        if (editor_ == nullptr) return;
        for (const int number : {SIGWINCH, SIGTSTP}) signals_.watch(number);
    }

    /// Whether the user's Enter ends the line on the screen too.
    bool echoes() const { return is_terminal_; }
    bool live() const { return live_; }
    bool colours() const { return live_; }
    bool leaving() const { return signals_.leaving(); }
    /// Whether the window has the focus, where the terminal says so.
    std::optional<bool> focused() const { return focused_; }
    bool has_title() const {
        return live_ && std::string_view(std::getenv("TERM")).substr(0, 5) != "linux";
    }

    void write(std::string_view text) {
        const bool whole = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
        if (std::fflush(stdout) != 0 || !whole) signals::note(SIGTERM);  // nobody reads it any more
    }

    /// The next line of the input without its line end; nothing at the end of the input or when the
    /// user leaves. `lock` is released while it waits. `erase_if`: see line_editor.
    std::optional<std::string> read_line(const std::string& prompt, const line_predicate& erase_if,
                                         std::unique_lock<std::mutex>& lock) {
        prompt_ = prompt;
        lock_ = &lock;
        auto line = editor_ != nullptr ? editor_->read_line(prompt, erase_if) : read_plain_line();
        if (!line) signals::note(SIGTERM);
        return leaving() ? std::nullopt : line;
    }

    /// Drops the input that arrived together with the line just read, such as the rest of a paste:
    /// it answers no later question. Returns whether there was any.
    bool drop_pending() {
        if (!is_terminal_ || leaving()) return false;
        struct termios usual = {};
        tcgetattr(STDIN_FILENO, &usual);
        auto unbuffered = usual;  // so that an incomplete line can be read, too
        unbuffered.c_lflag &= ~static_cast<tcflag_t>(ICANON);
        tcsetattr(STDIN_FILENO, TCSANOW, &unbuffered);
        struct pollfd more = {STDIN_FILENO, POLLIN, 0};
        // The system delivers lines while those behind them are still coming in; only the editor
        // reads all of it at once.
        const int patience = editor_ != nullptr ? 0 : 20;
        bool any = !std::exchange(typed_, {}).empty();
        while (poll(&more, 1, any ? 20 : patience) > 0 && read_more()) any = true;
        typed_.clear();
        tcsetattr(STDIN_FILENO, TCSANOW, &usual);
        return any;
    }

    /// Around output while a question is open. Without an editor a half-typed line is the system's;
    /// it stays visible above.
    void hide() { editor_ != nullptr ? editor_->hide() : write("\n"); }
    void show() {
        editor_ != nullptr ? editor_->show() : write(prompt_);
        std::fflush(stdout);
    }

private:
    std::optional<std::string> read_plain_line() {
        write(prompt_);
        while (typed_.find('\n') == typed_.npos) {
            if (!wait_for_input()) return std::nullopt;
            if (!read_more()) break;
        }
        if (typed_.empty()) return std::nullopt;
        return take_line();
    }

    /// Waits for something to read; false when the user leaves.
    bool wait_for_input() {
        while (!leaving()) {
            fd_set readable;
            FD_ZERO(&readable);
            FD_SET(STDIN_FILENO, &readable);
            FD_SET(signals_.readable_end(), &readable);
            lock_->unlock();
            const int ready =
                select(signals_.readable_end() + 1, &readable, nullptr, nullptr, nullptr);
            lock_->lock();
            while (const int number = signals_.next()) obey(number);
            if (ready > 0 && FD_ISSET(STDIN_FILENO, &readable)) return on_key_(), !leaving();
        }
        return false;
    }

    /// Handles a signal that does not end the program; only with an editor are these watched.
    void obey(int number) {
        if (number == SIGTSTP) {
            editor_->pause();
            signal(SIGTSTP, SIG_DFL);
            raise(SIGTSTP);  // stops here, until the shell continues the program
            signals_.watch(SIGTSTP);
            editor_->resume();
        } else if (number == SIGWINCH) {
            hide();  // the size of the window has changed
            show();
        }
    }

    bool read_more() {
        char buffer[4096];
        const auto size = read(STDIN_FILENO, buffer, sizeof buffer);
        if (size > 0) typed_.append(buffer, static_cast<std::size_t>(size));
        return size > 0 || (size < 0 && (errno == EINTR || errno == EAGAIN));
    }

    std::string take_line() {
        const auto end = typed_.find('\n');
        std::string line = typed_.substr(0, end);
        typed_.erase(0, end == typed_.npos ? end : end + 1);
        return line;
    }

    static bool is_dumb() {
        const char* type = std::getenv("TERM");
        return type == nullptr || std::string_view(type) == "dumb" || *type == '\0';
    }

    const bool is_terminal_ = isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0;
    const bool live_ = is_terminal_ && !is_dumb();
    signals signals_{!live_};
    std::function<void()> on_key_;
    std::optional<bool> focused_;
    std::unique_ptr<line_editor> editor_;           // where lines can be edited
    std::unique_lock<std::mutex>* lock_ = nullptr;  // of the screen, while a line is read
    std::string prompt_;
    std::string typed_;  // read, and not yet asked for
};

}  // namespace menu

#endif  // MENU_TERMINAL_POSIX_HPP
