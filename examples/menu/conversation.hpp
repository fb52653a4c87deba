// conversation.hpp - lines to one peer, or to everybody, and how they are shown.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_CONVERSATION_HPP
#define MENU_CONVERSATION_HPP

#include "outbox.hpp"
#include "p2pchat.hpp"
#include "people.hpp"
#include "settings/log.hpp"
#include "terminal/screen.hpp"
#include "terminal/style.hpp"
#include "terminal/text.hpp"
#include "to_all.hpp"

#include <atomic>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace menu {

/// For the asking thread, but for is_open() and shown().
class conversation {
public:
    conversation(screen& screen, const style& style, people& people, outbox& outbox,
                 const chat_log& log)
        : screen_(screen), style_(style), people_(people), outbox_(outbox), log_(log) {}

    bool is_open() const { return is_open_; }
    std::string prompt() const { return name() + "> "; }

    /// With one or, if that is nobody, with all. Shows what was said last.
    void open(std::optional<p2pchat::endpoint> with) {
        with_ = std::move(with);
        is_open_ = true;
        const auto address = with_ ? to_string(*with_) : "";
        const auto called = name();
        const auto take = [&](const std::string& line) { return is_of(parsed(line), address); };
        for (const auto& line : log_.last(history, take)) {
            const auto one = parsed(line);
            const auto who = one.is_ours ? "to " + called : with_ ? called : std::string(one.team);
            screen_.print(
                style_.dim(std::string(one.time) + ' ' + who + ": " + std::string(one.text)));
        }
        screen_.print(
            style_.dim("Each line goes to " + called + ". /menu goes back, /help lists commands."));
    }
    void close() { is_open_ = false; }

    void say(const std::string& text) {
        with_ ? outbox_.say({{*with_, name()}}, name(), "", text) : say_to_all(text);
    }
    void say_to_all(const std::string& text) {
        const auto all = people_.names();
        if (all.empty())
            return screen_.print(style_.warning("Nobody is known yet. Not sent: ") + visible(text));
        outbox_.say(all, "all", std::string(to_all), text);
    }

    /// A message, with whose it is and to whom.
    std::string shown(const p2pchat::message& m) const {
        const auto sender = people_.name_of(m.reply_to(), m.team);
        if (m.text == "CONNECT") return style_.dim(sender + " connected.");
        return style_.by_name(to_string(m.reply_to()), sender) +
               style_.dim(is_to_all(m.text) ? " to all" : "") + ": " +
               visible(without_mark(m.text));
    }

private:
    static constexpr std::size_t history = 20;

    std::string name() const { return with_ ? people_.name_of(*with_) : "all"; }

    /// A line of the log; views into it.
    struct entry {
        std::string_view time, address, team;
        bool is_ours = false, is_to_all = false;
        std::string_view text;
    };

    static std::string_view take_word(std::string_view& rest) {
        const auto end = rest.find(' ');
        const auto word = rest.substr(0, end);
        rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
        return word;
    }

    static entry parsed(std::string_view line) {
        constexpr std::string_view encrypted = "[encrypted] ", origin = "[not verified, came from ";
        entry result;
        result.time = line.substr(0, std::string_view("2000-01-01 00:00:00").size());
        line.remove_prefix(std::min(line.size(), result.time.size() + 1));
        result.is_ours = take_word(line) == "->";
        if (line.substr(0, encrypted.size()) == encrypted) line.remove_prefix(encrypted.size());
        if (line.substr(0, origin.size()) == origin) {
            line.remove_prefix(origin.size());
            result.address = line.substr(0, line.find("] "));
            line.remove_prefix(std::min(line.size(), result.address.size() + 2));
            take_word(line);
        } else {
            result.address = take_word(line);
        }
        if (!result.is_ours) result.team = take_word(line);
        result.is_to_all = result.is_ours ? result.address == "all" : is_to_all(line);
        result.text = result.is_ours ? line : without_mark(line);
        return result;
    }

    /// Whether it was said in the conversation with this address; empty: with all.
    static bool is_of(const entry& one, const std::string& address) {
        if (address.empty()) return one.is_to_all;
        return !one.is_to_all && one.address == address && one.text != "CONNECT";
    }

    screen& screen_;
    const style& style_;
    people& people_;
    outbox& outbox_;
    const chat_log& log_;
    std::atomic<bool> is_open_{false};
    std::optional<p2pchat::endpoint> with_;  // nobody: all
};

}  // namespace menu

#endif  // MENU_CONVERSATION_HPP
