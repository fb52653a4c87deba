// conversation.hpp - a conversation with one peer, or with all, and how its lines are shown.
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

/// For the asking thread, except is_open() and formatted().
class conversation {
public:
    conversation(screen& screen, const style& style, people& people, outbox& outbox,
                 const chat_log& log)
        : screen_(screen), style_(style), people_(people), outbox_(outbox), log_(log) {}

    bool is_open() const { return is_open_; }
    std::string prompt() const { return partner() + "> "; }

    /// Opens a conversation with a peer or, without one, with all. Shows its last lines.
    void open(std::optional<p2pchat::endpoint> peer) {
        peer_ = std::move(peer);
        is_open_ = true;
        const auto address = peer_ ? to_string(*peer_) : "";
        const auto name = partner();
        const auto is_wanted = [&](const std::string& line) {
            return is_in_conversation(parsed(line), address);
        };
        for (const auto& line : log_.last(max_history, is_wanted)) {
            const auto entry = parsed(line);
            const auto label = entry.is_sent ? "to " + name
                               : peer_       ? name
                                             : std::string(entry.team);
            screen_.print(
                style_.dim(std::string(entry.time) + ' ' + label + ": " + std::string(entry.text)));
        }
        screen_.print(
            style_.dim("Each line goes to " + name + ". /menu goes back, /help lists commands."));
    }
    void close() { is_open_ = false; }

    void say(const std::string& text) {
        peer_ ? outbox_.say({{*peer_, partner()}}, partner(), "", text) : say_to_all(text);
    }
    void say_to_all(const std::string& text) {
        const auto recipients = people_.recipients();
        if (recipients.empty())
            return screen_.print(style_.warning("No peers are known yet. Not sent: ") +
                                 visible(text));
        outbox_.say(recipients, "all", std::string(to_all_mark), text);
    }

    /// A message, with its sender, and whether it went to all.
    std::string formatted(const p2pchat::message& m) const {
        const auto sender = people_.name_of(m.reply_to(), m.team);
        return style_.by_name(to_string(m.reply_to()), sender) +
               style_.dim(is_to_all(m.text) ? " to all" : "") + ": " +
               visible(without_mark(m.text));
    }

private:
    static constexpr std::size_t max_history = 20;  // lines

    std::string partner() const { return peer_ ? people_.name_of(*peer_) : "all"; }

    /// A parsed line of the log; views into it.
    struct log_entry {
        std::string_view time, address, team;
        bool is_sent = false, is_to_all = false;
        std::string_view text;
    };

    static std::string_view take_word(std::string_view& rest) {
        const auto end = rest.find(' ');
        const auto word = rest.substr(0, end);
        rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
        return word;
    }

    static log_entry parsed(std::string_view line) {
        constexpr std::string_view encrypted = "[encrypted] ", origin = "[not verified, came from ";
        log_entry result;
        result.time = line.substr(0, std::string_view("2000-01-01 00:00:00").size());
        line.remove_prefix(std::min(line.size(), result.time.size() + 1));
        result.is_sent = take_word(line) == "->";
        if (line.substr(0, encrypted.size()) == encrypted) line.remove_prefix(encrypted.size());
        if (line.substr(0, origin.size()) == origin) {
            line.remove_prefix(origin.size());
            result.address = line.substr(0, line.find("] "));
            line.remove_prefix(std::min(line.size(), result.address.size() + 2));
            take_word(line);
        } else {
            result.address = take_word(line);
        }
        if (!result.is_sent) result.team = take_word(line);
        result.is_to_all = result.is_sent ? result.address == "all" : is_to_all(line);
        result.text = result.is_sent ? line : without_mark(line);
        return result;
    }

    /// Whether it belongs to the conversation with this address; empty: with all.
    static bool is_in_conversation(const log_entry& entry, const std::string& address) {
        if (address.empty()) return entry.is_to_all;
        return !entry.is_to_all && entry.address == address;
    }

    screen& screen_;
    const style& style_;
    people& people_;
    outbox& outbox_;
    const chat_log& log_;
    std::atomic<bool> is_open_{false};
    std::optional<p2pchat::endpoint> peer_;  // none: all
};

}  // namespace menu

#endif  // MENU_CONVERSATION_HPP
