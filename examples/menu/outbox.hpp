// outbox.hpp - what goes to others: told when it has arrived; kept, in a file too, while they are not
// there.
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

/// Sends messages and tells their outcomes: on a live screen when they come, elsewhere at once and
/// in order, as the original does. For the thread that asks; outcomes come by the node's.
class outbox {
public:
    outbox(p2pchat::node& node, screen& screen, const style& style, chat_log& log,
           const std::string& kept)
        : node_(node), screen_(screen), style_(style), log_(log), file_(kept) {
        node_.on_kept([this](const p2pchat::kept_message& what) { note_kept(what); });
    }

    /// Posts again what the program of before kept. A person reads it on a live screen only, and
    /// only there anything is kept.
    void resume() {
        if (!screen_.live()) return;
        std::vector<letter> letters;
        const auto oldest = std::time(nullptr) - 24 * 60 * 60;  // as config::keep_for has it
        for (const auto& one : file_.read())
            if (one.since > oldest)
                letters.push_back({one.to, one.text, "", false, one.since, true});
            else
                screen_.print(style_.bad("✗ Not sent, " + to_string(one.to) + " did not come: ") +
                              visible(one.text));
        if (!letters.empty())
            screen_.print(style_.dim("Kept from before: " + std::to_string(letters.size()) +
                                     ", to be sent as soon as who they are for is there."));
        send(letters);
    }

    /// Sends `text` to each of `peers`, side by side. `sent` is how the line about a delivered one
    /// begins; empty: the original has none.
    void send(const std::vector<p2pchat::endpoint>& peers, const std::string& text,
              const std::string& sent) {
        std::vector<letter> letters;
        for (const auto& to : peers)
            letters.push_back({to, text, sent, false, std::time(nullptr), false});
        send(letters);
    }

    struct recipient {
        p2pchat::endpoint address;
        std::string name;
    };

    /// Sends a line of a conversation to one, or to all of many: `to` is what they are called
    /// together. It is shown with what became of it, in one line; and, if that takes long, before.
    void say(const std::vector<recipient>& recipients, const std::string& to,
             const std::string& prefix, const std::string& text) {
        const auto line = std::make_shared<said>();
        line->to = to;
        line->text = text;
        line->recipients = line->open = recipients.size();
        line->is_to_all = !prefix.empty();
        std::vector<letter> letters;
        for (const auto& [address, name] : recipients)
            letters.push_back(
                {address, prefix + text, "", false, std::time(nullptr), false, line, name});
        send(letters);
        std::unique_lock<std::mutex> lock(mutex_);
        if (!settled_.wait_for(lock, std::chrono::milliseconds(300),
                               [&] { return line->open == 0; }))
            screen_.print(shown(*line) + style_.dim(" …"));
    }

    /// Sends the last of those that failed once more. Should it fail again, the others come first.
    void send_again() {
        auto last = take_unsent();
        if (!last) return screen_.print("Nothing has failed to be sent.");
        screen_.print(style_.dim("To " + to_string(last->to) + ": " + visible(last->text)));
        last->again = true;
        send({*last});
    }

    /// Connects, and says whether by a link where that helps.
    void connect(const p2pchat::endpoint& to) {
        one_more();
        const auto outcome = std::make_shared<std::promise<void>>();
        auto told = outcome->get_future();
        const auto done = [this, to, outcome](p2pchat::connect_result result) {
            report_connection(to_string(to), result);
            outcome->set_value();
            one_less();
        };
        if (const auto refused = node_.connect(to, done)) done({refused, false});
        if (!screen_.live()) wait(told);
    }

    /// Whom a message has reached, but who has not written: they are no peers of the node.
    std::vector<p2pchat::endpoint> only_written_to() {
        std::set<p2pchat::endpoint> result;
        {
            const std::lock_guard<std::mutex> lock(reached_mutex_);
            result = reached_;
        }
        for (const auto& peer : node_.peers()) result.erase(peer.address);
        return {result.begin(), result.end()};
    }

    /// Somebody has left.
    void forget(const p2pchat::endpoint& peer) { note(peer, false); }

    /// Waits until every outcome is known that does not wait for an absent peer, and takes leave of
    /// those of whom the node does not. A person who leaves meanwhile has the outcomes come at once.
    void finish() {
        if (!wait_for_all() && !screen_.leaving())
            screen_.print(style_.dim("Waiting for what is under way; Ctrl-C leaves now."));
        while (!wait_for_all())
            if (screen_.leaving()) node_.stop();
        for (const auto& to : only_written_to()) {
            one_more();
            if (node_.post(to, "exit", [this](std::error_code) { one_less(); })) one_less();
        }
        wait_for_all(std::chrono::seconds(1));
        node_.stop();
        const std::lock_guard<std::mutex> lock(mutex_);
        if (kept_ != 0)
            screen_.print(style_.dim("Kept for the next time: " + std::to_string(kept_) + ", in " +
                                     visible(file_.name())));
    }

private:
    /// What one line of a conversation has come to.
    struct said {
        std::string to, text, time = now("%H:%M:%S ");
        std::size_t recipients = 0, open = 0, delivered = 0;  // open: without an outcome
        bool is_to_all = false;
        std::string rest;  // what became of it where it was not delivered
    };
    struct letter {
        p2pchat::endpoint to;
        std::string text;
        std::string sent;
        bool again;  // not for the first time
        std::int64_t since;
        bool kept;  // its peer is not there
        std::shared_ptr<said> line = {};
        std::string name = {};  // of its peer, in that line
    };
    using letter_list = std::list<letter>;

    static constexpr std::chrono::milliseconds patience{50};
    static constexpr std::size_t max_unsent = 100;

    void send(const std::vector<letter>& letters) {
        std::vector<std::future<std::error_code>> outcomes;
        for (const auto& what : letters) outcomes.push_back(post(what));
        if (screen_.live()) return;
        for (std::size_t i = 0; i < letters.size(); ++i) report(letters[i], wait(outcomes[i]));
    }

    std::future<std::error_code> post(const letter& what) {
        one_more();
        const auto place = add(what);
        auto outcome = std::make_shared<std::promise<std::error_code>>();
        auto future = outcome->get_future();
        const auto done = [this, place, outcome](std::error_code error) {
            const bool waits = error == p2pchat::errc::not_sent && place->kept;
            if (!waits) {
                const letter was = remove(place);
                if (screen_.live()) report(was, error);
            }
            outcome->set_value(error);
            one_less();
        };
        const bool keeps = screen_.live() && !says_exit(what.text);
        const auto absent = keeps ? p2pchat::when_absent::keep : p2pchat::when_absent::fail;
        const auto refused =
            node_.post(what.to, what.text, done, p2pchat::when_full::refuse, absent);
        if (refused) done(refused);
        return future;
    }

    /// Which is about now, or about nothing.
    static bool says_exit(std::string text) {
        for (char& c : text) c = static_cast<char>(c | 0x20);
        return text == "exit";
    }

    letter_list::iterator add(const letter& what) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (what.kept) ++kept_;
        return letters_.insert(letters_.end(), what);
    }

    letter remove(letter_list::iterator place) {
        const std::lock_guard<std::mutex> lock(mutex_);
        letter was = std::move(*place);
        letters_.erase(place);
        if (!was.kept) return was;
        --kept_;
        store();
        return was;
    }

    /// Its peer is not there.
    void note_kept(const p2pchat::kept_message& what) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            const auto place =
                std::find_if(letters_.begin(), letters_.end(), [&](const letter& one) {
                    return !one.kept && one.to == what.to && one.text == what.text;
                });
            if (place == letters_.end()) return;  // it is from before, or went by another name
            place->kept = true;
            ++kept_;
            store();
            none_left_.notify_all();
            // From now on it has a line of its own.
            if (const auto line = std::exchange(place->line, nullptr))
                return settle(*line, "kept until " + place->name + " is there");
        }
        screen_.print(style_.warning("Kept until " + to_string(what.to) + " is there: ") +
                      visible(what.text));
    }

    /// Whatever ends the program, what is kept is in the file.
    void store() {
        std::vector<kept_entry> all;
        for (const auto& one : letters_)
            if (one.kept) all.push_back({one.since, one.to, one.text});
        const auto error = file_.name().empty() ? std::error_code() : file_.write(all);
        if (error && !std::exchange(store_failed_, true))
            screen_.notify(style_.warning("What is kept cannot be stored: " + error.message()));
    }

    template <class Outcome>
    Outcome wait(std::future<Outcome>& outcome) {
        while (outcome.wait_for(patience) != std::future_status::ready)
            if (screen_.leaving()) node_.stop();
        return outcome.get();
    }

    /// Waits, for a moment if not told otherwise; whether nothing is under way any more.
    bool wait_for_all(std::chrono::milliseconds bound = patience) {
        std::unique_lock<std::mutex> lock(mutex_);
        return none_left_.wait_for(lock, bound, [this] { return under_way_ <= kept_; });
    }

    void one_more() {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++under_way_;
    }

    void one_less() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (--under_way_ <= kept_) none_left_.notify_all();
    }

    void note(const p2pchat::endpoint& peer, bool reached) {
        const std::lock_guard<std::mutex> lock(reached_mutex_);
        reached ? void(reached_.insert(peer)) : void(reached_.erase(peer));
    }

    void report(const letter& what, std::error_code error) {
        note(what.to, !error);
        const auto to = to_string(what.to), text = visible(what.text);
        if (!what.line || !what.line->is_to_all)
            log(to + ' ' + what.text, error ? "not sent: " + error.message() : "");
        if (!what.line)
            return error ? report_failure(what, to, text, error) : report_success(what, to, text);
        if (error) keep(what);
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!error) ++what.line->delivered;
        const auto whose = what.line->recipients > 1 ? what.name + ": " : "";
        settle(*what.line, error ? "✗ " + whose + error.message() : "");
    }

    void log(const std::string& line, const std::string& remark) {
        const auto failed = log_.add("-> " + line + (remark.empty() ? "" : " [" + remark + ']'));
        if (failed)
            screen_.notify(style_.warning("The log cannot be written: " + failed.message()));
    }

    /// One of its recipients has it, or will not have it now. With the mutex held.
    void settle(said& line, const std::string& remark) {
        if (!remark.empty()) line.rest += (line.rest.empty() ? "" : ", ") + remark;
        if (--line.open != 0) return;
        const auto count =
            std::to_string(line.delivered) + " of " + std::to_string(line.recipients);
        const auto mark = line.delivered == 0 ? "" : line.recipients == 1 ? " ✓" : " ✓ " + count;
        screen_.notify(shown(line) + style_.good(mark) +
                       (line.rest.empty() ? "" : style_.bad(' ' + line.rest)));
        if (line.is_to_all) log("all " + line.text, line.rest);
        settled_.notify_all();
    }

    std::string shown(const said& line) const {
        return style_.dim(screen_.live() ? line.time : "") + style_.dim("to ") + line.to + ": " +
               visible(line.text);
    }

    void report_success(const letter& what, const std::string& to, const std::string& text) {
        if (screen_.live())
            screen_.print(style_.good("✓ ") + style_.dim(what.sent.empty()
                                                             ? "Delivered to " + to + ": " + text
                                                             : what.sent + to));
        else if (!what.sent.empty())
            screen_.print(what.sent + to);
    }

    void report_failure(const letter& what, const std::string& to, const std::string& text,
                        std::error_code error) {
        const std::string others = keep(what) ? "" : ", after the others";
        screen_.print(style_.bad(failure("Error sending to " + to + ": " + error.message())) +
                      style_.dim("\nNot sent: " + text + " (s sends it again" + others + ')'));
    }

    void report_connection(const std::string& to, const p2pchat::connect_result& result) {
        if (result.error)
            return screen_.print(
                style_.bad(failure("Could not connect to " + to + ": " + result.error.message())));
        const char* means = result.linked ? " by a link: you are told when it ends"
                                          : " without a link: the program there knows none";
        screen_.print(screen_.live() ? style_.good("✓ ") + "Connected to " + to + style_.dim(means)
                                     : "Connected to " + to);
    }

    std::string failure(const std::string& line) const {
        return (screen_.live() ? "✗ " : "") + line;
    }

    /// Keeps it for `s`; whether it is the one that `s` sends next.
    bool keep(const letter& what) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (unsent_.size() == max_unsent) unsent_.erase(unsent_.begin());
        unsent_.insert(what.again ? unsent_.begin() : unsent_.end(), what);
        return !what.again || unsent_.size() == 1;
    }

    std::optional<letter> take_unsent() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (unsent_.empty()) return std::nullopt;
        letter last = std::move(unsent_.back());
        unsent_.pop_back();
        return last;
    }

    p2pchat::node& node_;
    screen& screen_;
    const style& style_;
    chat_log& log_;

    std::mutex mutex_;  // guards all below
    const kept_file file_;
    std::condition_variable none_left_;
    std::condition_variable settled_;  // a line
    letter_list letters_;              // without an outcome, in the order posted
    std::size_t under_way_ = 0;
    std::size_t kept_ = 0;       // of the letters
    bool store_failed_ = false;  // and the person knows
    std::vector<letter> unsent_;

    // Of its own: it is asked for with the screen locked, which is taken with the other one held.
    std::mutex reached_mutex_;             // guards the next
    std::set<p2pchat::endpoint> reached_;  // by the last message to them
};

}  // namespace menu

#endif  // MENU_OUTBOX_HPP
