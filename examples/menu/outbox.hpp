// outbox.hpp - sends messages and reports their outcomes; messages for absent peers are kept, in a
// file, too.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_OUTBOX_HPP
#define MENU_OUTBOX_HPP

#include "p2pchat.hpp"
#include "settings/kept_file.hpp"
#include "settings/log.hpp"
#include "terminal/screen.hpp"
#include "terminal/style.hpp"
#include "terminal/text.hpp"

#include <chrono>
#include <condition_variable>
#include <ctime>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace menu {

/// Sends messages and reports their outcomes: on a live screen as they come, elsewhere at once and
/// in order, as the original does. For the asking thread; outcomes come on the node's thread.
class outbox {
public:
    outbox(p2pchat::node& node, screen& screen, const style& style, chat_log& log,
           const std::string& file_name)
        : node_(node), screen_(screen), style_(style), log_(log), file_(file_name) {
        node_.on_kept([this](const p2pchat::kept_message& kept) { on_kept(kept); });
    }

    /// Posts again the messages that the last run kept. Messages are kept on a live screen only,
    /// where a user sees their outcomes.
    void resume() {
        if (!screen_.live()) return;
        std::vector<outgoing> messages;
        const auto oldest = std::time(nullptr) - 24 * 60 * 60;  // the default of config::keep_for
        for (const auto& entry : file_.read())
            if (entry.since > oldest)
                messages.push_back(
                    {entry.to, entry.text, "", false, entry.since, true, {}, {}, entry.team});
            else
                screen_.print(
                    style_.bad("✗ Expired, " + to_string(entry.to) + " was not reachable: ") +
                    visible(entry.text));
        if (!messages.empty())
            screen_.print(style_.dim("Kept from before: " + std::to_string(messages.size()) +
                                     ", to be sent once their recipients are reachable."));
        send(messages);
    }

    /// Sends `text` to each of `peers`, in parallel. `on_delivery` begins the line about a
    /// delivered message; empty: the original prints no such line.
    void send(const std::vector<p2pchat::endpoint>& peers, const std::string& text,
              const std::string& on_delivery) {
        std::vector<outgoing> messages;
        for (const auto& to : peers)
            messages.push_back({to, text, on_delivery, false, std::time(nullptr), false});
        send(messages);
    }

    struct recipient {
        p2pchat::endpoint address;
        std::string name;
    };

    /// Sends a line of a conversation to one recipient, or to many that are together called `to`.
    /// It is shown with its outcome and, if that takes long, without one before.
    void say(const std::vector<recipient>& recipients, const std::string& to,
             const std::string& prefix, const std::string& text) {
        const auto line = std::make_shared<conversation_line>();
        line->to = to;
        line->text = text;
        line->recipients = line->unsettled = recipients.size();
        line->is_to_all = !prefix.empty();
        std::vector<outgoing> messages;
        for (const auto& [address, name] : recipients)
            messages.push_back(
                {address, prefix + text, "", false, std::time(nullptr), false, line, name});
        send(messages);
        std::unique_lock<std::mutex> lock(mutex_);
        if (!settled_.wait_for(lock, std::chrono::milliseconds(300),
                               [&] { return line->unsettled == 0; }))
            screen_.print(formatted(*line) + style_.dim(" …"));
    }

    /// Sends the last message that failed once more. If it fails again, the others come first.
    void send_again() {
        auto message = take_failed();
        if (!message) return screen_.print("No message has failed.");
        screen_.print(style_.dim("To " + to_string(message->to) + ": " + visible(message->text)));
        message->is_retry = true;
        send({*message});
    }

    /// Connects; on a live screen it also says whether a link was made.
    void connect(const p2pchat::endpoint& to) {
        begin_operation();
        const auto outcome = std::make_shared<std::promise<void>>();
        auto future = outcome->get_future();
        const auto done = [this, to, outcome](p2pchat::connect_result result) {
            report_connection(to_string(to), result);
            outcome->set_value();
            end_operation();
        };
        if (const auto refused = node_.connect(to, done)) done({refused, false});
        if (!screen_.live()) wait(future);
    }

    /// Addresses that a message has reached and that have not written back: they are no peers of
    /// the node.
    std::vector<p2pchat::endpoint> silent_recipients() {
        std::set<p2pchat::endpoint> result;
        {
            const std::lock_guard<std::mutex> lock(reached_mutex_);
            result = reached_;
        }
        for (const auto& peer : node_.peers()) result.erase(peer.address);
        return {result.begin(), result.end()};
    }

    /// For a peer that has left.
    void forget(const p2pchat::endpoint& peer) { set_reached(peer, false); }

    /// Waits for all outcomes but those of kept messages, and says exit to the silent recipients,
    /// which the node does not do. If the user leaves meanwhile, the outcomes come at once.
    void finish() {
        if (!wait_until_idle() && !screen_.leaving())
            screen_.print(style_.dim("Waiting for pending messages; Ctrl-C quits now."));
        while (!wait_until_idle())
            if (screen_.leaving()) node_.stop();
        for (const auto& to : silent_recipients()) {
            begin_operation();
            if (node_.leave(to, [this](std::error_code) { end_operation(); })) end_operation();
        }
        wait_until_idle(std::chrono::seconds(1));
        node_.stop();
        const std::lock_guard<std::mutex> lock(mutex_);
        if (kept_ != 0)
            screen_.print(style_.dim("Kept for the next start: " + std::to_string(kept_) + ", in " +
                                     visible(file_.name())));
    }

private:
    /// A line of a conversation, and the outcomes of its messages so far.
    struct conversation_line {
        std::string to, text, time = now("%H:%M:%S ");
        std::size_t recipients = 0, unsettled = 0, delivered = 0;  // unsettled: without an outcome
        bool is_to_all = false;
        std::string failures;  // the outcomes other than delivery
    };
    struct outgoing {
        p2pchat::endpoint to;
        std::string text;
        std::string on_delivery;  // see send()
        bool is_retry;
        std::int64_t since;
        bool is_kept;  // as its peer is absent
        std::shared_ptr<conversation_line> line = {};
        std::string name = {};  // of its recipient, in that line
        std::string team = {};  // for which it is kept; empty: not known
    };
    using outgoing_list = std::list<outgoing>;

    static constexpr std::chrono::milliseconds poll_interval{50};
    static constexpr std::size_t max_failed = 100;

    void send(const std::vector<outgoing>& messages) {
        std::vector<std::future<std::error_code>> outcomes;
        for (const auto& message : messages) outcomes.push_back(post(message));
        if (screen_.live()) return;
        for (std::size_t i = 0; i < messages.size(); ++i) report(messages[i], wait(outcomes[i]));
    }

    std::future<std::error_code> post(const outgoing& message) {
        begin_operation();
        const auto position = add(message);
        auto outcome = std::make_shared<std::promise<std::error_code>>();
        auto future = outcome->get_future();
        const auto done = [this, position, outcome](std::error_code error) {
            const bool stays_kept = error == p2pchat::errc::not_sent && position->is_kept;
            if (!stays_kept) {
                const outgoing settled = remove(position);
                if (screen_.live()) report(settled, error);
            }
            outcome->set_value(error);
            end_operation();
        };
        const auto absent =
            screen_.live() ? p2pchat::when_absent::keep : p2pchat::when_absent::fail;
        const auto refused =
            message.is_kept ? node_.keep({message.to, message.text, message.team}, done)
            : is_exit(message.text)
                ? node_.leave(message.to, done)
                : node_.post(message.to, message.text, done, p2pchat::when_full::refuse, absent);
        if (refused) done(refused);
        return future;
    }

    /// The text with which one disconnects, as in the original.
    static bool is_exit(std::string text) {
        for (char& c : text) c = static_cast<char>(c | 0x20);
        return text == "exit";
    }

    outgoing_list::iterator add(const outgoing& message) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (message.is_kept) ++kept_;
        return pending_.insert(pending_.end(), message);
    }

    outgoing remove(outgoing_list::iterator position) {
        const std::lock_guard<std::mutex> lock(mutex_);
        outgoing message = std::move(*position);
        pending_.erase(position);
        if (!message.is_kept) return message;
        --kept_;
        store_kept();
        return message;
    }

    /// The node keeps a message, as its peer is absent.
    void on_kept(const p2pchat::kept_message& kept) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            const auto position =
                std::find_if(pending_.begin(), pending_.end(), [&](const outgoing& message) {
                    return !message.is_kept && message.to == kept.to && message.text == kept.text;
                });
            // It is from the last run, or was posted to another address of the peer.
            if (position == pending_.end()) return;
            position->is_kept = true;
            position->team = kept.team;
            ++kept_;
            store_kept();
            idle_.notify_all();
            // From now on its outcome is reported in a line of its own.
            if (const auto line = std::exchange(position->line, nullptr))
                return settle(*line, "kept until " + position->name + " is reachable");
        }
        screen_.print(style_.warning("Kept until " + to_string(kept.to) + " is reachable: ") +
                      visible(kept.text));
    }

    /// At each change, so that the file is up to date even if the program is killed.
    void store_kept() {
        std::vector<kept_entry> entries;
        for (const auto& message : pending_)
            if (message.is_kept)
                entries.push_back({message.since, message.to, message.text, message.team});
        const auto error = file_.name().empty() ? std::error_code() : file_.write(entries);
        if (error && !std::exchange(store_failed_, true))
            screen_.notify(
                style_.warning("The kept messages cannot be stored: " + error.message()));
    }

    template <class Outcome>
    Outcome wait(std::future<Outcome>& outcome) {
        while (outcome.wait_for(poll_interval) != std::future_status::ready)
            if (screen_.leaving()) node_.stop();
        return outcome.get();
    }

    /// Waits until nothing but kept messages is pending; false after `timeout`.
    bool wait_until_idle(std::chrono::milliseconds timeout = poll_interval) {
        std::unique_lock<std::mutex> lock(mutex_);
        return idle_.wait_for(lock, timeout, [this] { return operations_ <= kept_; });
    }

    void begin_operation() {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++operations_;
    }

    void end_operation() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (--operations_ <= kept_) idle_.notify_all();
    }

    void set_reached(const p2pchat::endpoint& peer, bool is_reached) {
        const std::lock_guard<std::mutex> lock(reached_mutex_);
        is_reached ? void(reached_.insert(peer)) : void(reached_.erase(peer));
    }

    void report(const outgoing& message, std::error_code error) {
        const bool is_unconfirmed = error == p2pchat::errc::unconfirmed;
        set_reached(message.to, (!error || is_unconfirmed) && !is_exit(message.text));
        const auto to = to_string(message.to), text = visible(message.text);
        const std::string remark = is_unconfirmed ? "" : "not sent: ";
        if (!message.line || !message.line->is_to_all)
            log(to + ' ' + message.text, error ? remark + error.message() : "");
        if (!message.line && is_unconfirmed)
            return screen_.print(style_.warning((screen_.live() ? "? Sent to " : "Sent to ") + to +
                                                ", but not confirmed: " + text));
        if (!message.line)
            return error ? report_failure(message, to, text, error)
                         : report_success(message, to, text);
        if (error && !is_unconfirmed) keep_failed(message);
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!error) ++message.line->delivered;
        const auto name = message.line->recipients > 1 ? message.name + ": " : "";
        const std::string mark = is_unconfirmed ? "? " : "✗ ";
        settle(*message.line, error ? mark + name + error.message() : "");
    }

    void log(const std::string& line, const std::string& remark) {
        const auto error = log_.add("-> " + line + (remark.empty() ? "" : " [" + remark + ']'));
        if (error) screen_.notify(style_.warning("The log cannot be written: " + error.message()));
    }

    /// Counts one outcome of a line; with the last one the line is shown. With the mutex held.
    void settle(conversation_line& line, const std::string& failure) {
        if (!failure.empty()) line.failures += (line.failures.empty() ? "" : ", ") + failure;
        if (--line.unsettled != 0) return;
        const auto count =
            std::to_string(line.delivered) + " of " + std::to_string(line.recipients);
        const auto mark = line.delivered == 0 ? "" : line.recipients == 1 ? " ✓" : " ✓ " + count;
        screen_.notify(formatted(line) + style_.good(mark) +
                       (line.failures.empty() ? "" : style_.bad(' ' + line.failures)));
        if (line.is_to_all) log("all " + line.text, line.failures);
        settled_.notify_all();
    }

    std::string formatted(const conversation_line& line) const {
        return style_.dim(screen_.live() ? line.time : "") + style_.dim("to ") + line.to + ": " +
               visible(line.text);
    }

    void report_success(const outgoing& message, const std::string& to, const std::string& text) {
        if (screen_.live())
            screen_.print(style_.good("✓ ") + style_.dim(message.on_delivery.empty()
                                                             ? "Delivered to " + to + ": " + text
                                                             : message.on_delivery + to));
        else if (!message.on_delivery.empty())
            screen_.print(message.on_delivery + to);
    }

    void report_failure(const outgoing& message, const std::string& to, const std::string& text,
                        std::error_code error) {
        const std::string others = keep_failed(message) ? "" : ", after the others";
        screen_.print(style_.bad(failed("Error sending to " + to + ": " + error.message())) +
                      style_.dim("\nNot sent: " + text + " (s sends it again" + others + ')'));
    }

    void report_connection(const std::string& to, const p2pchat::connect_result& result) {
        if (result.error)
            return screen_.print(
                style_.bad(failed("Could not connect to " + to + ": " + result.error.message())));
        const char* how = result.linked ? " by a link: you will see when it ends"
                                        : " without a link: the program there supports none";
        screen_.print(screen_.live() ? style_.good("✓ ") + "Connected to " + to + style_.dim(how)
                                     : "Connected to " + to);
    }

    std::string failed(const std::string& line) const {
        return (screen_.live() ? "✗ " : "") + line;
    }

    /// Keeps a message for `s`; whether it is the one that `s` sends next.
    bool keep_failed(const outgoing& message) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (failed_.size() == max_failed) failed_.erase(failed_.begin());
        failed_.insert(message.is_retry ? failed_.begin() : failed_.end(), message);
        return !message.is_retry || failed_.size() == 1;
    }

    std::optional<outgoing> take_failed() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (failed_.empty()) return std::nullopt;
        outgoing message = std::move(failed_.back());
        failed_.pop_back();
        return message;
    }

    p2pchat::node& node_;
    screen& screen_;
    const style& style_;
    chat_log& log_;

    std::mutex mutex_;  // guards all below
    const kept_file file_;
    std::condition_variable idle_;
    std::condition_variable settled_;  // a line
    outgoing_list pending_;            // without an outcome, in the order posted
    std::size_t operations_ = 0;       // posts and connects without an outcome
    std::size_t kept_ = 0;             // of the pending messages
    bool store_failed_ = false;        // and has been reported
    std::vector<outgoing> failed_;     // the last one is sent again first

    // A mutex of its own: reached_ is read with the screen locked, and the screen is locked with
    // mutex_ held.
    std::mutex reached_mutex_;             // guards the next
    std::set<p2pchat::endpoint> reached_;  // by the last message to them
};

}  // namespace menu

#endif  // MENU_OUTBOX_HPP
