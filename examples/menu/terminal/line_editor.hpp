// line_editor.hpp - edits a line on a live terminal, and hides it while other output is shown.
//
// SPDX-License-Identifier: MIT
//
// Editing, history and redrawing are libedit's, where the build found it; without it there is no
// editor, and lines are typed as the system's terminal takes them. (Windows: console_editor.hpp.)

#ifndef MENU_LINE_EDITOR_HPP
#define MENU_LINE_EDITOR_HPP

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace menu {

using line_predicate = std::function<bool(const std::string& line)>;

class line_editor {
public:
    line_editor() = default;
    line_editor(const line_editor&) = delete;
    line_editor& operator=(const line_editor&) = delete;
    virtual ~line_editor() = default;

    /// The line typed; just an Esc if the user goes back, and nothing at the end of the input.
    /// Prompt and line are erased from the screen once it is entered if `erase_if` is true for it.
    virtual std::optional<std::string> read_line(const std::string& prompt,
                                                 const line_predicate& erase_if) = 0;

    virtual void hide() = 0;    ///< clears prompt and line from the screen, for other output
    virtual void show() = 0;    ///< draws both again, where the cursor is now
    virtual void pause() = 0;   ///< hides both, and restores the terminal for the shell
    virtual void resume() = 0;  ///< takes the terminal again, and shows both
};

/// The effect of Tab: text to insert or, where several words are possible, the words to list.
struct completion {
    std::string insert;
    std::vector<std::string> choices;
};

/// What an editor needs from its owner.
struct editor_callbacks {
    std::function<bool()> wait_for_key;  ///< true: a key can be read
    std::function<completion(const std::string& typed)> complete;
    std::function<void(bool)> on_focus;  ///< true: the window has gained it; false: lost it
};

/// Null without libedit.
std::unique_ptr<line_editor> make_line_editor(editor_callbacks callbacks);

}  // namespace menu

#ifndef P2PCHAT_MENU_LIBEDIT

inline std::unique_ptr<menu::line_editor> menu::make_line_editor(editor_callbacks) {
    return nullptr;
}

#else

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <cwctype>
#include <map>
#include <string_view>

namespace menu {

/// Makes multibyte strings UTF-8, even on a system without a configured locale.
inline void use_utf8() {
    for (const char* name : {"", "C.UTF-8", "en_US.UTF-8", "UTF-8"}) {
        std::setlocale(LC_CTYPE, name);
        if (nl_langinfo(CODESET) == std::string_view("UTF-8")) return;
    }
}

class libedit_editor : public line_editor {
public:
    explicit libedit_editor(editor_callbacks callbacks) : callbacks_(std::move(callbacks)) {
        use_utf8();
        editline_ = el_init("p2pchat", stdin, stdout, stderr);
        el_set(editline_, EL_CLIENTDATA, this);
        el_set(editline_, EL_EDITOR, "emacs");
        el_set(editline_, EL_PROMPT, prompt_of);
        bind_keys();
        el_wset(editline_, EL_GETCFN, next_key);
        el_source(editline_, nullptr);  // the user's own .editrc
        const char* mode = nullptr;
        el_get(editline_, EL_EDITOR, &mode);
        own_keys_ = mode != nullptr && mode == std::string_view("emacs");  // vi mode keeps its own
        prepare(true);
    }

    ~libedit_editor() override {
        prepare(false);
        el_end(editline_);
        for (const auto& [prompt, history] : histories_) history_end(history);
    }

    std::optional<std::string> read_line(const std::string& prompt,
                                         const line_predicate& erase_if) override {
        prompt_ = prompt;
        went_back_ = false;
        el_set(editline_, EL_HIST, ::history, history_of(prompt));
        int size = 0;
        const char* typed = el_gets(editline_, &size);
        el_set(editline_, EL_PREP_TERM, 1);  // input between two questions is not echoed
        if (went_back_) return "\x1b";
        if (typed == nullptr || size <= 0) return std::nullopt;
        std::string line(typed, static_cast<std::size_t>(size));
        if (line.back() != '\n') return std::nullopt;  // the input ended in the middle of it
        line.pop_back();
        if (erase_if && erase_if(line)) go_up(rows_of(wide(line)) + 1);
        HistEvent event;
        if (!line.empty()) ::history(history_of(prompt), &event, H_ENTER, line.c_str());
        return line;
    }

    void hide() override {
        el_resize(editline_);
        // libedit knows how many rows the cursor is below the prompt's first, but does not tell.
        const LineInfoW* line = el_wline(editline_);
        go_up(rows_of({line->buffer, static_cast<std::size_t>(line->cursor - line->buffer)}));
    }

    void show() override { el_set(editline_, EL_REFRESH); }

    void pause() override {
        hide();
        prepare(false);
    }

    void resume() override {
        prepare(true);
        show();
    }

private:
    static libedit_editor& self(EditLine* editline) {
        void* data = nullptr;
        el_get(editline, EL_CLIENTDATA, &data);
        return *static_cast<libedit_editor*>(data);
    }
    static char* prompt_of(EditLine* editline) { return self(editline).prompt_.data(); }

    static int next_key(EditLine* editline, wchar_t* key) {
        auto& editor = self(editline);
        const int count = editor.read_key(*key);
        if (count == 0 || *key != L'\x1b' || !editor.own_keys_) return count;
        struct pollfd more = {STDIN_FILENO, POLLIN, 0};
        if (poll(&more, 1, 100) > 0) return count;  // the start of a longer key sequence
        editor.went_back_ = true;
        return editor.leave_line(), 0;
    }

    /// Inserts pasted text without obeying it as keys: its lines become one, which is the user's to
    /// enter.
    static unsigned char paste(EditLine* editline, int) {
        static constexpr std::wstring_view end = L"\x1b[201~";
        std::wstring text;
        for (wchar_t key = 0; text.size() < end.size() ||
                              text.compare(text.size() - end.size(), end.size(), end) != 0;
             text += key)
            if (self(editline).read_key(key) == 0) return CC_EOF;
        text.resize(text.size() - end.size());
        text.erase(text.find_last_not_of(L"\r\n") + 1);
        std::wstring line;
        for (const wchar_t c : text) {
            const bool ends_line = c == L'\r' || c == L'\n';
            if (ends_line && (line.empty() || line.back() == L' ')) continue;
            if (ends_line || c == L'\t' || !std::iswcntrl(static_cast<std::wint_t>(c)))
                line += ends_line ? L' ' : c;
        }
        el_winsertstr(editline, line.c_str());
        return CC_REFRESH;
    }

    /// Completes a word where there are candidates; elsewhere inserts a tab, if the owner says so.
    static unsigned char complete(EditLine* editline, int) {
        auto& editor = self(editline);
        const LineInfo* line = el_line(editline);
        const auto result = editor.callbacks_.complete({line->buffer, line->cursor});
        el_insertstr(editline, result.insert.c_str());
        if (result.choices.empty()) return CC_REFRESH;
        editor.hide();
        for (const auto& choice : result.choices) std::fputs((choice + "  ").c_str(), stdout);
        std::fputs("\n", stdout);
        editor.show();
        return CC_NORM;
    }
    static unsigned char focus_in(EditLine* editline, int) {
        return self(editline).callbacks_.on_focus(true), CC_NORM;
    }
    static unsigned char focus_out(EditLine* editline, int) {
        return self(editline).callbacks_.on_focus(false), CC_NORM;
    }

    /// Takes the terminal, or gives it back. While it is ours, the terminal brackets pasted text
    /// and reports changes of the focus.
    void prepare(bool take) {
        if (own_keys_)
            std::fputs(take ? "\x1b[?2004h\x1b[?1004h" : "\x1b[?1004l\x1b[?2004l", stdout);
        std::fflush(stdout);
        el_set(editline_, EL_PREP_TERM, take ? 1 : 0);
    }

    /// Binds keys that people expect and libedit does not know; the end of an unknown
    /// key's sequence would be taken for text.
    void bind_keys() {
        const auto bind = [this](const std::string& key, const char* function) {
            el_set(editline_, EL_BIND, key.c_str(), function, nullptr);
        };
        const auto bind_arrows = [&](const std::string& prefix) {
            bind(prefix + 'A', "ed-prev-history");
            bind(prefix + 'B', "ed-next-history");
            bind(prefix + 'C', "em-next-word");
            bind(prefix + 'D', "ed-prev-word");
            bind(prefix + 'H', "ed-move-to-beg");
            bind(prefix + 'F', "ed-move-to-end");
        };
        const auto bind_number = [&](int key, const char* function) {
            const auto prefix = "\\e[" + std::to_string(key);
            bind(prefix + '~', function);
            for (int modifiers = 2; modifiers < 17; ++modifiers)
                bind(prefix + ';' + std::to_string(modifiers) + '~', function);
        };
        bind("^R", "em-inc-search-prev");
        const auto bind_own = [&](const wchar_t* name, const char* function, const char* key,
                                  unsigned char (*run)(EditLine*, int)) {
            el_wset(editline_, EL_ADDFN, name, L"of p2pchat", run);
            bind(key, function);
        };
        bind_own(L"p2pchat-complete", "p2pchat-complete", "^I", complete);
        bind_own(L"p2pchat-focus-in", "p2pchat-focus-in", "\\e[I", focus_in);
        bind_own(L"p2pchat-focus-out", "p2pchat-focus-out", "\\e[O", focus_out);
        bind_own(L"p2pchat-paste", "p2pchat-paste", "\\e[200~", paste);
        bind("\\e[201~", "ed-ignore");
        for (int key = 1; key < 35; ++key) bind_number(key, "ed-ignore");
        for (const int home : {1, 7}) bind_number(home, "ed-move-to-beg");
        for (const int end : {4, 8}) bind_number(end, "ed-move-to-end");
        bind_number(3, "ed-delete-next-char");
        // With Shift, Alt, Ctrl, Meta and their combinations; Alt also as ESC before the key.
        for (int modifiers = 2; modifiers < 17; ++modifiers)
            bind_arrows("\\e[1;" + std::to_string(modifiers));
        bind_arrows("\\e\\e[");
        for (const char* key : {"A", "B", "C", "D", "E"})  // F1 to F5 of the Linux console
            bind(std::string("\\e[[") + key, "ed-ignore");
    }

    /// Reads a character, of one or more bytes: 1, or 0 if the user leaves.
    int read_key(wchar_t& key) {
        std::mbstate_t state = {};
        for (;;) {
            char byte = 0;
            if (!callbacks_.wait_for_key() || read(STDIN_FILENO, &byte, 1) != 1)
                return leave_line(), 0;
            auto size = std::mbrtowc(&key, &byte, 1, &state);
            if (size == static_cast<std::size_t>(-1)) {  // the bytes before were not UTF-8
                state = {};
                size = std::mbrtowc(&key, &byte, 1, &state);
            }
            if (size <= 1) return 1;
            if (size == static_cast<std::size_t>(-1)) state = {};
        }
    }

    /// Moves the cursor to the end of the line, so that further output does not overwrite it.
    void leave_line() {
        hide();
        const LineInfoW* line = el_wline(editline_);
        el_cursor(editline_, static_cast<int>(line->lastchar - line->cursor));
        show();
    }

    /// Each question has a history of its own, which offers earlier answers to that question.
    History* history_of(const std::string& prompt) {
        auto& history = histories_[prompt];
        if (history == nullptr) {
            HistEvent event;
            history = history_init();
            ::history(history, &event, H_SETSIZE, 500);
            ::history(history, &event, H_SETUNIQUE, 1);
        }
        return history;
    }

    /// Moves the cursor to the beginning of a row above, and clears the screen from there.
    static void go_up(unsigned rows) {
        if (rows > 0) std::printf("\x1b[%uA", rows);
        std::fputs("\r\x1b[J", stdout);
    }

    static std::wstring wide(const std::string& text) {
        std::wstring result(text.size(), L'\0');
        const auto size = std::mbstowcs(result.data(), text.c_str(), result.size());
        result.resize(size == static_cast<std::size_t>(-1) ? 0 : size);
        return result;
    }

    /// How many row breaks there are in the prompt followed by `line`.
    unsigned rows_of(std::wstring_view line) const {
        unsigned row = 0, column = 0;
        const unsigned columns = width_of_terminal();
        const auto put = [&](wchar_t c) {
            const auto width = width_of(c, column);
            if (wcwidth(c) == 2 && column + 1 == columns) ++column;  // the last cell stays blank
            column += width;
            row += column / columns;
            column %= columns;
        };
        for (const wchar_t c : wide(prompt_)) put(c);
        for (const wchar_t c : line) put(c);
        return row;
    }

    /// As libedit shows them: ^A for a control character, \U+200B for one that cannot be shown.
    static unsigned width_of(wchar_t c, unsigned column) {
        if (c == L'\t') return 8 - column % 8;
        if (c < 0x100 && std::iswcntrl(static_cast<std::wint_t>(c))) return 2;
        if (!std::iswprint(static_cast<std::wint_t>(c))) return c > 0xffff ? 8 : 7;
        return static_cast<unsigned>(std::max(wcwidth(c), 0));
    }

    static unsigned width_of_terminal() {
        struct winsize size = {};
        const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
        return known ? size.ws_col : 80;
    }

    const editor_callbacks callbacks_;
    EditLine* editline_ = nullptr;
    bool own_keys_ = false;   // Esc and pasted text are ours
    bool went_back_ = false;  // by Esc
    std::string prompt_;
    std::map<std::string, History*> histories_;
};

inline std::unique_ptr<line_editor> make_line_editor(editor_callbacks callbacks) {
    return std::make_unique<libedit_editor>(std::move(callbacks));
}

}  // namespace menu

#endif  // P2PCHAT_MENU_LIBEDIT

#endif  // MENU_LINE_EDITOR_HPP
