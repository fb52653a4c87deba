// The built menu program, or another, as a child process, over pipes or in a pseudo-terminal. POSIX
// only.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_MENU_PROGRAM_HPP
#define P2PCHAT_TESTS_MENU_PROGRAM_HPP

#include "emulated_screen.hpp"
#include "files.hpp"
#include "support.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

extern "C" char** environ;  // which not every system's <unistd.h> declares

namespace support {

/// The path of the program under test, from the environment.
inline std::string program_path() {
    const char* const path = std::getenv("P2PCHAT_PROGRAM");
    return path ? path : "";
}

/// A port that is free now, on every address, as the program listens on all. Another program may take
/// it meanwhile, which the menu program reports.
inline std::string free_port() {
    p2pchat::tcp_socket socket;
    REQUIRE_FALSE(socket.listen({"0.0.0.0", 0}));
    return std::to_string(socket.local().port());
}

/// A folder for files of this test, removed when it ends.
inline const std::string& state_folder() {
    static const folder files;
    static const std::string path = files.path();
    return path;
}

/// How often `part` is in `text`.
inline std::size_t count(std::string_view text, std::string_view part) {
    std::size_t result = 0;
    for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++result;
    return result;
}

/// Without spaces and line ends, so that line breaks do not count.
inline std::string squeezed(std::string text) {
    const auto is_space = [](char c) { return c == ' ' || c == '\n'; };
    text.erase(std::remove_if(text.begin(), text.end(), is_space), text.end());
    return text;
}

/// The kind of a pseudo-terminal.
struct terminal_kind {
    std::string type = "xterm";
    unsigned short columns = 80;
    unsigned short rows = 24;
};

/// False, and says so, where the system provides no pseudo-terminals, as in a minimal container.
inline bool has_terminals() {
    static const bool has = [] {
        const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
        const bool usable = terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0;
        const int side = usable ? open(ptsname(terminal), O_RDWR | O_NOCTTY) : -1;
        for (const int end : {terminal, side})
            if (end >= 0) close(end);
        return side >= 0;
    }();
    if (!has) MESSAGE("skipped: this needs pseudo-terminals (/dev/ptmx, /dev/pts)");
    return has;
}

/// A running menu program. Its output is read only while a test waits for something in it.
class menu_program {
public:
    using words = std::vector<std::string>;

    /// Over pipes; `first` is a command that the shell runs before, if any.
    explicit menu_program(const words& arguments, const std::string& first = {}) : first_(first) {
        int in[2], out[2];
        REQUIRE(pipe(in) == 0);
        REQUIRE(pipe(out) == 0);
        input_ = in[1];
        output_ = out[0];
        keep_private();
        start(arguments, "dumb", [&] {
            dup2(in[0], 0);
            dup2(out[1], 1);
            dup2(out[1], 2);
            for (const int end : {in[0], out[1]}) close(end);
        });
        for (const int end : {in[0], out[1]}) close(end);
    }

    /// In a pseudo-terminal.
    menu_program(const words& arguments, const terminal_kind& kind, const words& environment = {}) {
        input_ = output_ = posix_openpt(O_RDWR | O_NOCTTY);
        REQUIRE(input_ >= 0);
        keep_private();
        REQUIRE(grantpt(input_) == 0);
        REQUIRE(unlockpt(input_) == 0);
        const int side = open(ptsname(input_), O_RDWR | O_NOCTTY);
        REQUIRE(side >= 0);
        resize(kind.columns, kind.rows);
        start(
            arguments, kind.type,
            [&] {
                setsid();
                ioctl(side, TIOCSCTTY, 0);
                for (const int stream : {0, 1, 2}) dup2(side, stream);
                if (side > 2) close(side);
            },
            environment);
        close(side);
    }

    menu_program(const menu_program&) = delete;
    menu_program& operator=(const menu_program&) = delete;
    ~menu_program() {
        if (process_ > 0) kill(process_, SIGKILL);
        static_cast<void>(finish());
        end_input();
        if (output_ >= 0) close(output_);
    }

    /// As if typed at the keyboard. At a terminal a line is begun only when a question is open:
    /// earlier input is dropped with the line before or, without an editor, echoed before the
    /// question.
    void type(std::string_view keys) {
        if (is_terminal()) wait_for_question();
        is_line_begun_ = keys.back() != '\n';
        if (!is_line_begun_) entered_at_ = text_.size();
        write_all(keys);
    }
    void enter(std::string_view line) { type(std::string(line) + '\n'); }

    /// Sends a key that the terminal itself handles, such as Ctrl-C, even while no question is
    /// open.
    void press(char key) { write_all({&key, 1}); }

    /// As a terminal pastes: Enter for each line end, bracketed if the program asked for that.
    void paste(std::string text) {
        wait_for_question();
        std::replace(text.begin(), text.end(), '\n', '\r');
        type(screen_.brackets_pastes() ? "\x1b[200~" + text + "\x1b[201~" : text);
    }

    /// Closes the input (of a pseudo-terminal: the whole of it).
    void end_input() {
        if (input_ >= 0) close(input_);
        if (input_ == output_) output_ = -1;
        input_ = -1;
    }
    void end_output() {
        close(output_);
        output_ = -1;
    }

    /// Waits until `text` has come, behind the text that an earlier call waited for.
    bool expect(std::string_view text) {
        const bool came = wait_until_output([&] {
            const auto found = text_.find(text, seen_);
            if (found != text_.npos) seen_ = found + text.size();
            return found != text_.npos;
        });
        if (!came) MESSAGE("waited for: ", text, "\nand there was: ", text_.substr(seen_));
        return came;
    }

    /// Waits until `line` has come, from the beginning of a line to its end.
    bool expect_line(const std::string& line) {
        return wait_until_output([&] { return text_.find('\n' + line + '\n') != text_.npos; });
    }

    /// Waits for a question and answers it.
    bool answer(std::string_view question, std::string_view line) {
        if (!expect(question)) return false;
        enter(line);
        return true;
    }
    bool choose(std::string_view entry) { return answer("Enter choice: ", entry); }

    /// Reads until `predicate()` holds, false when it does not within the patience of a test.
    template <class Predicate>
    bool wait_until_output(Predicate predicate) {
        const auto end = std::chrono::steady_clock::now() + patience;
        while (!predicate()) {
            if (std::chrono::steady_clock::now() > end || !read_more(100)) return predicate();
        }
        return true;
    }

    /// All of its output so far.
    const std::string& text() const { return text_; }

    void interrupt(int signal = SIGINT) { kill(process_, signal); }
    void resize(unsigned short columns, unsigned short rows) {
        struct winsize size = {};
        size.ws_col = columns;
        size.ws_row = rows;
        screen_.resize(columns, rows);
        REQUIRE(ioctl(input_, TIOCSWINSZ, &size) == 0);
    }

    /// In a pseudo-terminal: the screen.
    const emulated_screen& screen() const { return screen_; }

    /// Waits until the screen, or what scrolled off it, has `text` somewhere.
    bool shows(std::string_view text) {
        const bool came =
            wait_until_output([&] { return screen_.text().find(text) != std::string::npos; });
        if (!came) MESSAGE("waited for: ", text, "\nand there was: ", screen_.text());
        return came;
    }

    /// Waits until `line` is the last on the screen, with the cursor in it, below the last line
    /// that was entered. Where it breaks into rows does not count, nor do spaces: at the window's
    /// edge there may be one more.
    bool shows_line(const std::string& line) {
        const auto sought = squeezed(line);
        const bool came = wait_until_output([&] {
            if (!has_ended_line()) return false;
            const auto shown = squeezed(screen_.text_to_cursor());
            return shown.size() >= sought.size() &&
                   shown.compare(shown.size() - sought.size(), sought.size(), sought) == 0;
        });
        if (!came) MESSAGE("waited for: ", line, "\nand there was: ", screen_.text());
        return came;
    }

    /// Reads on until it has ended; its exit status, or minus the signal that ended it.
    int finish() {
        if (process_ > 0 && output_ >= 0) wait_until_output([] { return false; });
        return wait_until([this] { return has_ended(); }) ? status_ : -1000;
    }

    /// The same without a wait, and without reading its output.
    bool has_ended() {
        int status = 0;
        if (process_ <= 0) return true;
        if (waitpid(process_, &status, WNOHANG) == 0) return false;
        process_ = 0;
        status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        return true;
    }

    /// How many bytes of its output have not been read.
    int unread() const {
        int size = 0;
        return ioctl(output_, FIONREAD, &size) == 0 ? size : -1;
    }

private:
    void keep_private() const {
        for (const int end : {input_, output_}) fcntl(end, F_SETFD, FD_CLOEXEC);
    }

    template <class Streams>
    void start(const words& arguments, const std::string& type, Streams streams,
               const words& more = {}) {
        REQUIRE_MESSAGE(!program_path().empty(), "P2PCHAT_PROGRAM must be the path of the program");
        words line, environment = {"TERM=" + type, "LC_ALL=C.UTF-8", "TZ=UTC",
                                   "XDG_CONFIG_HOME=" + home_.path()};
        if (!first_.empty()) line = {"/bin/sh", "-c", first_ + "; exec \"$0\" \"$@\""};
        line.push_back(program_path());
        line.insert(line.end(), arguments.begin(), arguments.end());
        environment.insert(environment.end(), more.begin(), more.end());
        for (char** inherited = environ; *inherited != nullptr; ++inherited)
            if (!is_ours(*inherited)) environment.emplace_back(*inherited);
        const auto argv = pointers(line), envp = pointers(environment);
        signal(SIGPIPE, SIG_IGN);  // what is typed to a program that has left is lost, no more
        process_ = fork();
        REQUIRE(process_ >= 0);
        if (process_ > 0) return;
        for (const int number : {SIGPIPE, SIGINT, SIGHUP}) signal(number, SIG_DFL);
        streams();
        execve(argv[0], argv.data(), envp.data());
        _exit(127);
    }

    static bool is_ours(std::string_view variable) {
        for (const std::string_view ours :
             {"TERM=", "LC_ALL=", "TZ=", "NO_COLOR=", "XDG_CONFIG_HOME="})
            if (variable.substr(0, ours.size()) == ours) return true;
        return false;
    }

    static std::vector<char*> pointers(words& strings) {
        std::vector<char*> result;
        for (auto& string : strings) result.push_back(string.data());
        result.push_back(nullptr);
        return result;
    }

    bool is_terminal() const { return input_ == output_; }

    void write_all(std::string_view keys) {
        while (!keys.empty()) {
            const auto sent = write(input_, keys.data(), keys.size());
            if (sent < 0 && errno != EINTR) return;  // it has left; the test will see
            if (sent > 0) keys.remove_prefix(static_cast<std::size_t>(sent));
        }
    }

    /// Whether the end of the last line entered has been read; until then its question may still be
    /// on the screen.
    bool has_ended_line() const {
        return entered_at_ == 0 || text_.find('\n', entered_at_) != text_.npos;
    }

    /// Whether the cursor is behind a question that has no answer yet.
    bool is_asked() const {
        const auto row = screen_.row_to_cursor();
        const auto end = row.substr(row.size() - std::min<std::size_t>(row.size(), 2));
        return has_ended_line() && (end == ": " || end == "> ");
    }

    /// To be called before a line is begun. Reads all pending output: none of it is about that
    /// line.
    void wait_for_question() {
        const bool asked = is_line_begun_ || wait_until_output([this] { return is_asked(); });
        REQUIRE_MESSAGE(asked, "no question is open: ", screen_.text());
        while (unread() > 0 && read_more(0)) {
        }
    }

    /// Waits for more output; false at its end.
    bool read_more(int bound) {
        struct pollfd waits = {output_, POLLIN, 0};
        if (poll(&waits, 1, bound) == 0) return true;
        char buffer[4096];
        const auto size = read(output_, buffer, sizeof buffer);
        if (size < 0) return errno == EINTR;
        text_.append(buffer, static_cast<std::size_t>(size));
        screen_.feed({buffer, static_cast<std::size_t>(size)});
        return size > 0;
    }

    const folder home_;  // for files that outlive the program, but not the test
    std::string first_;
    pid_t process_ = 0;
    int status_ = -1;
    int input_ = -1;
    int output_ = -1;
    std::string text_;
    std::size_t seen_ = 0;
    std::size_t entered_at_ = 0;  // its size when the last line was entered
    bool is_line_begun_ = false;  // something is typed and not yet entered
    emulated_screen screen_{80, 24};
};

/// Flags for a program that uses the loopback address and writes to no real machine.
inline menu_program::words flags(const menu_program::words& more = {}) {
    menu_program::words result = {"--address", "127.0.0.1", "--default-peer", "127.0.0.1:1",
                                  "--no-discovery"};
    result.insert(result.end(), more.begin(), more.end());
    return result;
}

/// Answers the port prompt with a free port, and again if it was taken meanwhile; the port.
inline std::string give_port(menu_program& program) {
    REQUIRE(program.expect("Enter your port number: "));
    for (;;) {
        const auto port = free_port();
        const auto listening = "Server listening on all interfaces (port " + port + ")";
        program.enter(port);
        REQUIRE(program.wait_until_output([&] {
            return program.text().find(listening) != std::string::npos ||
                   program.text().find("Port " + port) != std::string::npos;
        }));
        if (program.text().find(listening) == std::string::npos) continue;
        REQUIRE(program.expect(listening));
        return port;
    }
}

/// A program past its first questions.
struct party {
    explicit party(const std::string& team, const menu_program::words& more = {},
                   const std::string& first = {})
        : program(flags(more), first), port(begin(team)) {}
    party(const std::string& team, const terminal_kind& kind, const menu_program::words& more = {},
          const menu_program::words& environment = {"NO_COLOR=1"})
        : program(flags(more), kind, environment), port(begin(team)) {}

    std::string begin(const std::string& team) {
        REQUIRE(program.answer("Enter your team name: ", team));
        return give_port(program);
    }

    void send(const std::string& to, const std::string& text) {
        REQUIRE(program.choose("1"));
        REQUIRE(program.answer("Enter recipient's IP address: ", "127.0.0.1"));
        REQUIRE(program.answer("Enter recipient's port number: ", to));
        REQUIRE(program.answer("Enter your message (type 'exit' to disconnect): ", text));
    }

    std::string name() const { return "127.0.0.1:" + port; }
    p2pchat::endpoint address() const {
        return {"127.0.0.1", static_cast<std::uint16_t>(std::stoi(port))};
    }

    menu_program program;
    std::string port;
};

/// Whether lines can be edited: only then is a half-typed line drawn again.
inline bool has_editor() {
    if (!has_terminals()) return false;
    static const bool has = [] {
        menu_program program(flags(), terminal_kind{});
        REQUIRE(program.expect("Enter your team name: "));
        program.type("x\x01y");  // Ctrl-A goes to the beginning of the line
        REQUIRE(program.wait_until_output([&] {
            const auto& text = program.screen().text();
            return text.find("name: yx") != text.npos || text.find("^Ay") != text.npos;
        }));
        return program.screen().text().find("name: yx") != std::string::npos;
    }();
    if (!has) MESSAGE("skipped: the program was built without libedit");
    return has;
}

/// Goes to the question for a message to `to`.
inline void begin_message(party& from, const party& to) {
    REQUIRE(from.program.shows_line("Enter choice:"));
    from.program.enter("1");
    REQUIRE(from.program.shows_line("Enter recipient's IP address:"));
    from.program.enter(to.name());
    REQUIRE(from.program.shows_line("Enter your message (type 'exit' to disconnect):"));
}

inline std::string port_of(const p2pchat::endpoint& peer) { return std::to_string(peer.port()); }

}  // namespace support

#endif  // P2PCHAT_TESTS_MENU_PROGRAM_HPP
