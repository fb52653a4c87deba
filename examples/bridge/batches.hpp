// batches.hpp - what a bridge publishes: batches of lines, one batch at a time.
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

/// A text as it goes over a link, where a line break is a VT. (A one-shot has others.)
inline std::string on_one_line(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool ends = text[i] == '\r' || text[i] == '\n';
        if (i == 0 || text.substr(i - 1, 2) != "\r\n") result += ends ? '\v' : text[i];
    }
    return result;
}

/// A message as it is shown on the other LANs.
inline std::string with_origin(const p2pchat::message_view& what, const std::string& site) {
    std::string result(is_to_all(what.text) ? to_all_mark : "");
    return result.append(what.team).append(1, '@').append(site).append(": ").append(
        without_mark(what.text));
}

/// The line "sender team text" with a remark before the text, for its sender. If it is long, it is no
/// longer than the line, which the broker took.
inline std::string told(const std::string& line, const std::string& why) {
    constexpr std::size_t long_line = 500;
    p2pchat::message_view what;
    std::string result;
    if (parse(line, what)) return result;
    static_cast<void>(format(what.sender, what.team, why + ": " + std::string(what.text), result));
    result.resize(std::min(result.size(), std::max(line.size(), long_line)));
    return result;
}

struct said {
    std::string line;          // "sender team text", as on the wire; empty: nothing to be published
    std::uint64_t receipt;     // for p2pchat::node::confirm(); 0: confirmed
    p2pchat::endpoint origin;  // of its connection: if one message is refused, a link breaks
    std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
    bool refused = false;  // when it was under way already
};

/// The next batch is published once the broker has this one and all sites that were there have
/// shown it. So it can be published again if the broker has lost it, and no site gets more than it
/// can show. Not thread-safe.
class batches {
public:
    struct ways {
        std::function<int(const std::string& payload)> publish;  // returns its id; 0: it failed
        std::function<void(std::uint64_t receipt, bool taken)> confirm;
        std::function<std::uint64_t()> latest_receipt;  // that a message can have by now
        std::function<void(const std::string& line, const std::string& why)> tell;  // its sender
    };
    using sites = std::map<std::string, std::string>;
    using clock = std::chrono::steady_clock;
    static constexpr std::size_t max_bytes = 64 * 1024;  // or one message
    static constexpr std::size_t max_refused = 1000;     // and what the node has taken meanwhile
    static constexpr std::size_t max_name = 42;          // bytes, with its line end
    static constexpr std::size_t max_waiting = 4 * 1024 * 1024;  // bytes; the node holds less, but
                                                                 // not for links that have broken
    static constexpr std::chrono::milliseconds max_age{3500};    // of what is not acknowledged: the
                                                                 // node refuses it after 4 s
    static constexpr std::chrono::seconds patience{3};           // for all to show it
    static constexpr std::chrono::seconds timeout{10};  // for the broker to acknowledge it: as long
                                                        // as its keep-alive

    batches(ways with, const sites& others) : with_(std::move(with)), others_(others) {}

    /// Drawn at each start, as the clock may have been put back since the last one. With a count it
    /// names a batch.
    const std::string& epoch() const { return epoch_; }
    void add(said one) {
        const auto refused = refused_.find(one.origin);
        if (refused != refused_.end() && one.receipt <= refused->second)
            return with_.confirm(one.receipt, false);
        if (largest_ == 0 || is_late() || waiting_bytes_ + bytes(one) > max_waiting)
            return refuse(std::move(one));
        waiting_bytes_ += bytes(one);
        waiting_.push_back(std::move(one));
        next();
    }

    /// There is a connection, to a broker that takes so many bytes, and that has perhaps lost what it
    /// had acknowledged. (What it had not, the client sends again.)
    void connected(std::size_t max_payload) {
        largest_ = max_payload;
        size_ = std::min(max_bytes, max_payload);
        tries_ = 0;
        if (batch_.empty() || !acknowledged_) return;
        since_ = clock::now();
        publish();
    }
    void lost() {
        largest_ = 0;
        while (!waiting_.empty()) refuse(waiting_.front());
    }
    /// A site has come, perhaps without its session. Bounded, as anybody may claim that repeatedly.
    void came(const std::string& site) {
        if (missing_.count(site) != 0 && ++tries_ < 10) publish();
    }
    /// A site is gone, or has shown the batch.
    void settled(const std::string& site) {
        missing_.erase(site);
        finish();
    }
    void shown(const std::string& site, const std::string& name) {
        if (name == name_) settled(site);
    }
    /// The broker has the batch.
    void acknowledged(int id) {
        if (id != id_) return;
        refuse_overdue();
        for (auto& one : batch_) {
            const auto receipt = std::exchange(one.receipt, 0);
            if (std::exchange(one.refused, false))
                with_.tell(one.line, "published all the same");
            else if (receipt != 0)
                with_.confirm(receipt, true);
        }
        acknowledged_ = true;
        finish();
    }
    /// The broker does not take the batch. If that is for its size, its messages may go in smaller
    /// ones, and at last each alone.
    void refused(int id, bool too_large) {
        if (id != id_ || acknowledged_) return;
        if (too_large && batch_.size() > 1) {
            size_ = payload_.size() / 2;
            for (; !batch_.empty(); batch_.pop_back()) {
                if (batch_.back().refused) continue;
                waiting_bytes_ += bytes(batch_.back());
                waiting_.push_front(std::move(batch_.back()));
            }
        }
        drop();
        next();
    }
    /// Refuses what the broker has not acknowledged by now, and what waits behind it: until it is
    /// acknowledged, nothing else is taken. What has been published cannot be called back, but if it
    /// is acknowledged later, its sender is told.
    void refuse_overdue() {
        for (std::size_t i = 0; is_late() && i < batch_.size(); ++i)
            if (!batch_[i].refused) refuse(batch_[i]);
        while (!waiting_.empty() && (is_late() || is_overdue(waiting_.front())))
            refuse(waiting_.front());
    }
    /// Gives up a batch that the broker has not acknowledged in time; true if there was one.
    bool timed_out() {
        if (batch_.empty() || acknowledged_ || clock::now() < since_ + timeout) return false;
        drop();
        return true;
    }
    /// For so long nothing was read of what the broker said.
    void extend(clock::duration time) { since_ = std::min(clock::now(), since_ + time); }
    /// Gives up sites that have not shown the batch in time; returns them, and the batch.
    std::pair<std::set<std::string>, std::vector<said>> give_up() {
        if (!acknowledged_ || missing_.empty() || clock::now() < since_ + patience) return {};
        std::pair result(std::exchange(missing_, {}), batch_);
        finish();
        return result;
    }

private:
    /// Its sender is told so, and as that breaks a link, nothing else of that link is published: not
    /// what waits here, and not what the node has taken of it so far.
    void refuse(said one) {
        with_.confirm(one.receipt, false);
        const auto is_past = [&](const auto& other) { return other.second < one.receipt; };
        if (refused_.size() >= max_refused)
            for (auto at = refused_.begin(); at != refused_.end();)
                at = is_past(*at) ? refused_.erase(at) : std::next(at);
        refused_[one.origin] = with_.latest_receipt();
        const auto goes = [&](const said& other) { return other.origin == one.origin; };
        for (auto& other : batch_) other.refused |= other.receipt != 0 && goes(other);
        for (const auto& other : waiting_)
            if (goes(other)) waiting_bytes_ -= bytes(other);
        waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), goes), waiting_.end());
    }
    void finish() {
        if (!acknowledged_ || !missing_.empty()) return;
        batch_.clear();
        next();
    }
    void drop() {
        id_ = 0;
        missing_.clear();
        for (const auto& one : std::exchange(batch_, {})) refuse(one);
    }
    static std::size_t bytes(const said& one) { return sizeof one + one.line.size(); }
    static bool is_overdue(const said& one) { return clock::now() >= one.since + max_age; }
    bool is_late() const { return !batch_.empty() && !acknowledged_ && is_overdue(batch_.front()); }
    bool fits(const said& one) const {
        return !one.line.empty() && max_name + one.line.size() < largest_;
    }
    /// What cannot be published, or not in time, is refused once all that came before it is confirmed.
    void next() {
        while (batch_.empty() && !waiting_.empty()) {
            if (!fits(waiting_.front()) || is_overdue(waiting_.front())) {
                refuse(waiting_.front());
                continue;
            }
            compose();
            for (const auto& other : others_) missing_.insert(other.first);
            acknowledged_ = false;
            tries_ = 0;
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
                 payload_.size() + waiting_.front().line.size() < size_);
    }
    void publish() {
        if (const int id = with_.publish(payload_)) id_ = id;
    }

    static std::string draw() {
        std::random_device device;
        return std::to_string(std::uint64_t{device()} << 32 | device());
    }

    const std::string epoch_ = draw();
    const ways with_;
    const sites& others_;
    std::deque<said> waiting_;
    std::size_t waiting_bytes_ = 0;
    std::map<p2pchat::endpoint, std::uint64_t> refused_;  // up to this receipt
    std::vector<said> batch_;                             // under way
    std::uint64_t count_ = 0;                             // of batches
    std::string name_, payload_;                          // of the latest
    std::size_t largest_ = 0;                             // that the broker takes; 0: there is none
    std::size_t size_ = 0;                                // of a batch
    int id_ = 0;                                          // of its latest publication
    int tries_ = 0;                                       // since the first one
    clock::time_point since_;
    bool acknowledged_ = false;      // by the broker
    std::set<std::string> missing_;  // the sites that have not shown it
};

}  // namespace menu

#endif  // BRIDGE_BATCHES_HPP
