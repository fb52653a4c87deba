// batches.hpp - the messages of a LAN, which a bridge publishes in batches, one at a time.
//
// SPDX-License-Identifier: MIT

#ifndef BRIDGE_BATCHES_HPP
#define BRIDGE_BATCHES_HPP

#include "../menu/to_all.hpp"
#include "p2pchat.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace menu {

/// A text in the form of a link, where a line break is a VT. (One-shots may contain others.)
inline std::string on_one_line(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool is_break = text[i] == '\r' || text[i] == '\n';
        if (i == 0 || text.substr(i - 1, 2) != "\r\n") result += is_break ? '\v' : text[i];
    }
    return result;
}

/// A message as it is shown on the other LANs.
inline std::string with_origin(const p2pchat::message_view& message, const std::string& site) {
    std::string result(is_to_all(message.text) ? to_all_mark : "");
    return result.append(message.team)
        .append(1, '@')
        .append(site)
        .append(": ")
        .append(without_mark(message.text));
}

/// The line "sender team text" with a remark before the text, as a notice for its sender. A long
/// one is no longer than the line, whose size the broker has accepted.
inline std::string notice(const std::string& line, const std::string& remark) {
    constexpr std::size_t long_line = 500;
    p2pchat::message_view message;
    std::string result;
    if (parse(line, message)) return result;
    static_cast<void>(
        format(message.sender, message.team, remark + ": " + std::string(message.text), result));
    result.resize(std::min(result.size(), std::max(line.size(), long_line)));
    return result;
}

struct outgoing {
    std::string line;          // "sender team text", as on the wire; empty: cannot be published
    std::uint64_t receipt;     // for p2pchat::node::confirm(); 0: confirmed
    p2pchat::endpoint origin;  // of its connection, which a refusal breaks if it is a link
    std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
    bool is_refused = false;  // after it was published
};

/// The next batch is published once the broker has acknowledged this one and all sites that were
/// present have shown it. Until then it can be published again if the broker loses it, and no site
/// gets more than it can show. Not thread-safe.
class batches {
public:
    struct callbacks {
        std::function<int(const std::string& payload)> publish;  // returns its id; 0: an error
        std::function<void(std::uint64_t receipt, bool taken)> confirm;
        std::function<std::uint64_t()> latest_receipt;  // of the messages so far
        std::function<void(const std::string& line, const std::string& remark)> tell;  // its sender
    };
    using sites = std::map<std::string, std::string>;
    using clock = std::chrono::steady_clock;
    static constexpr std::size_t max_bytes = 64 * 1024;          // or one message
    static constexpr std::size_t max_refused = 1000;             // beyond those still needed
    static constexpr std::size_t max_name = 42;                  // bytes, with its line end
    static constexpr std::size_t max_waiting = 4 * 1024 * 1024;  // bytes; the node limits its own
                                                                 // links, but not broken ones
    static constexpr std::chrono::milliseconds max_age{3500};    // without an acknowledgement; the
                                                                 // node refuses after 4 s
    static constexpr std::chrono::seconds show_timeout{3};       // for all sites to show a batch
    static constexpr std::chrono::seconds ack_timeout{10};  // for the broker to acknowledge it: its
                                                            // keep-alive interval

    batches(callbacks on, const sites& others) : on_(std::move(on)), others_(others) {}

    /// Drawn at random at each start, as the clock may have been set back since the last one. With
    /// a count it is the name of a batch.
    const std::string& epoch() const { return epoch_; }
    void add(outgoing message) {
        const auto refused = refused_.find(message.origin);
        if (refused != refused_.end() && message.receipt <= refused->second)
            return on_.confirm(message.receipt, false);
        if (max_payload_ == 0 || is_late() || waiting_bytes_ + bytes(message) > max_waiting)
            return refuse(std::move(message));
        waiting_bytes_ += bytes(message);
        waiting_.push_back(std::move(message));
        next();
    }

    /// For a new connection to a broker, which may have lost what it acknowledged. (The client
    /// sends the rest again.)
    void connected(std::size_t max_payload) {
        max_payload_ = max_payload;
        max_batch_ = std::min(max_bytes, max_payload);
        repeats_ = 0;
        if (batch_.empty() || !is_acknowledged_) return;
        since_ = clock::now();
        publish();
    }
    void disconnected() {
        max_payload_ = 0;
        while (!waiting_.empty()) refuse(waiting_.front());
    }
    /// For a site that has appeared, perhaps without its session. Bounded, as any client can claim
    /// that repeatedly.
    void site_appeared(const std::string& site) {
        if (missing_.count(site) != 0 && ++repeats_ < 10) publish();
    }
    /// For a site that is gone, or has shown the batch.
    void site_done(const std::string& site) {
        missing_.erase(site);
        finish();
    }
    void shown(const std::string& site, const std::string& name) {
        if (name == name_) site_done(site);
    }
    /// For a publication that the broker has acknowledged.
    void acknowledged(int id) {
        if (id != id_) return;
        refuse_overdue();
        for (auto& message : batch_) {
            const auto receipt = std::exchange(message.receipt, 0);
            if (std::exchange(message.is_refused, false))
                on_.tell(message.line, "published after all");
            else if (receipt != 0)
                on_.confirm(receipt, true);
        }
        is_acknowledged_ = true;
        finish();
    }
    /// For a batch that the broker refused. If it was too large, its messages go into smaller ones,
    /// in the end each into one of its own.
    void refused(int id, bool too_large) {
        if (id != id_ || is_acknowledged_) return;
        if (too_large && batch_.size() > 1) {
            max_batch_ = payload_.size() / 2;
            for (; !batch_.empty(); batch_.pop_back()) {
                if (batch_.back().is_refused) continue;
                waiting_bytes_ += bytes(batch_.back());
                waiting_.push_front(std::move(batch_.back()));
            }
        }
        drop();
        next();
    }
    /// Refuses a batch that the broker has not acknowledged in time, and the messages behind it:
    /// until it is acknowledged, no others are accepted. A publication cannot be revoked; if it is
    /// acknowledged later, the senders are told.
    void refuse_overdue() {
        for (std::size_t i = 0; is_late() && i < batch_.size(); ++i)
            if (!batch_[i].is_refused) refuse(batch_[i]);
        while (!waiting_.empty() && (is_late() || is_overdue(waiting_.front())))
            refuse(waiting_.front());
    }
    /// Drops a batch that the broker has not acknowledged by the timeout; true if there was one.
    bool drop_timed_out() {
        if (batch_.empty() || is_acknowledged_ || clock::now() < since_ + ack_timeout) return false;
        drop();
        return true;
    }
    /// Extends the timeouts by a time in which nothing was read from the broker.
    void extend(clock::duration time) { since_ = std::min(clock::now(), since_ + time); }
    /// Stops waiting for sites that have not shown the batch in time; returns them, and the batch.
    std::pair<std::set<std::string>, std::vector<outgoing>> give_up_sites() {
        if (!is_acknowledged_ || missing_.empty() || clock::now() < since_ + show_timeout)
            return {};
        std::pair result(std::exchange(missing_, {}), batch_);
        finish();
        return result;
    }

private:
    /// Refuses a message. As that breaks a link, nothing else from that link is published: neither
    /// the messages waiting here, nor those that the node has received from it so far.
    void refuse(outgoing message) {
        on_.confirm(message.receipt, false);
        const auto is_past = [&](const auto& entry) { return entry.second < message.receipt; };
        if (refused_.size() >= max_refused)
            for (auto entry = refused_.begin(); entry != refused_.end();)
                entry = is_past(*entry) ? refused_.erase(entry) : std::next(entry);
        refused_[message.origin] = on_.latest_receipt();
        const auto has_same_origin = [&](const outgoing& other) {
            return other.origin == message.origin;
        };
        for (auto& other : batch_) other.is_refused |= other.receipt != 0 && has_same_origin(other);
        for (const auto& other : waiting_)
            if (has_same_origin(other)) waiting_bytes_ -= bytes(other);
        waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), has_same_origin),
                       waiting_.end());
    }
    void finish() {
        if (!is_acknowledged_ || !missing_.empty()) return;
        batch_.clear();
        next();
    }
    void drop() {
        id_ = 0;
        missing_.clear();
        for (const auto& message : std::exchange(batch_, {})) refuse(message);
    }
    static std::size_t bytes(const outgoing& message) {
        return sizeof message + message.line.size();
    }
    static bool is_overdue(const outgoing& message) {
        return clock::now() >= message.since + max_age;
    }
    bool is_late() const {
        return !batch_.empty() && !is_acknowledged_ && is_overdue(batch_.front());
    }
    bool fits(const outgoing& message) const {
        return !message.line.empty() && max_name + message.line.size() < max_payload_;
    }
    /// Publishes the next batch. A message that cannot be published, or not in time, is refused
    /// once all before it are confirmed.
    void next() {
        while (batch_.empty() && !waiting_.empty()) {
            if (!fits(waiting_.front()) || is_overdue(waiting_.front())) {
                refuse(waiting_.front());
                continue;
            }
            compose();
            for (const auto& other : others_) missing_.insert(other.first);
            is_acknowledged_ = false;
            repeats_ = 0;
            since_ = clock::now();
            id_ = 0;
            publish();
            if (id_ == 0) drop();
        }
    }
    void compose() {
        name_ = epoch_ + ' ' + std::to_string(++count_);
        payload_ = name_ + '\n';
        do {
            payload_ += waiting_.front().line + '\n';
            waiting_bytes_ -= bytes(waiting_.front());
            batch_.push_back(std::move(waiting_.front()));
            waiting_.pop_front();
        } while (!waiting_.empty() && fits(waiting_.front()) &&
                 payload_.size() + waiting_.front().line.size() < max_batch_);
    }
    void publish() {
        if (const int id = on_.publish(payload_)) id_ = id;
    }

    static std::string draw_epoch() {
        std::random_device device;
        return std::to_string(std::uint64_t{device()} << 32 | device());
    }

    const std::string epoch_ = draw_epoch();
    const callbacks on_;
    const sites& others_;
    std::deque<outgoing> waiting_;
    std::size_t waiting_bytes_ = 0;
    std::map<p2pchat::endpoint, std::uint64_t> refused_;  // by origin, up to this receipt
    std::vector<outgoing> batch_;                         // published, and not done
    std::uint64_t count_ = 0;                             // of batches
    std::string name_, payload_;                          // of the latest
    std::size_t max_payload_ = 0;                         // of the broker; 0: not connected
    std::size_t max_batch_ = 0;                           // bytes
    int id_ = 0;                                          // of its latest publication
    int repeats_ = 0;                                     // of that publication
    clock::time_point since_;
    bool is_acknowledged_ = false;   // by the broker
    std::set<std::string> missing_;  // the sites that have not shown it
};

}  // namespace menu

#endif  // BRIDGE_BATCHES_HPP
