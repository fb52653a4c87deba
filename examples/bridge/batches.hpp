// batches.hpp - what a bridge publishes: batches of lines, one batch at a time.
//
// SPDX-License-Identifier: MIT

#ifndef BRIDGE_BATCHES_HPP
#define BRIDGE_BATCHES_HPP

#include "../terminal/text.hpp"
#include "../to_all.hpp"
#include "p2pchat.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace menu {

/// A message as it is shown on the other LANs.
inline std::string with_origin(const p2pchat::message_view& what, const std::string& site) {
    return std::string(is_to_all(what.text) ? to_all : "") + visible(what.team) + '@' + site +
           ": " + visible(without_mark(what.text));
}

/// The line "sender team text" with a remark before the text, for its sender.
inline std::string told(const std::string& line, const std::string& why) {
    p2pchat::message_view what;
    std::string result;
    if (parse(line, what)) return result;
    static_cast<void>(format(what.sender, what.team, why + ": " + std::string(what.text), result));
    return result;
}

struct said {
    std::string line;       // "sender team text", as on the wire
    std::uint64_t receipt;  // for p2pchat::node::confirm(); 0: confirmed
};

/// The next batch is published once the broker has this one and all sites that were there have
/// shown it. So it can be published again if the broker has lost it, and no site gets more than it
/// can show. Not thread-safe.
class batches {
public:
    using publisher =
        std::function<int(const std::string& payload)>;  // returns the id of what it published
    using sites = std::map<std::string, std::string>;
    using clock = std::chrono::steady_clock;
    static constexpr std::size_t max_bytes = 64 * 1024;  // or one message
    static constexpr std::chrono::seconds patience{3};   // for all to show it

    batches(publisher publish, const sites& others)
        : publish_(std::move(publish)), others_(others) {}

    /// Drawn at each start, as the clock may have been put back since the last one. With a count it
    /// names a batch.
    const std::string& epoch() const { return epoch_; }
    void add(std::string line, std::uint64_t receipt) {
        waiting_.push_back({std::move(line), receipt});
        next();
    }
    /// What has not been published yet.
    std::deque<said> drop_waiting() { return std::exchange(waiting_, {}); }

    /// There is a connection, perhaps to a broker that has lost everything.
    void publish_again() {
        tries_ = 0;
        since_ = clock::now();
        if (!batch_.empty()) id_ = publish_(payload_);
    }
    /// A site has come, perhaps without its session. Bounded, as anybody may claim that repeatedly.
    void came(const std::string& site) {
        if (missing_.count(site) != 0 && ++tries_ < 10) id_ = publish_(payload_);
    }
    /// A site is gone, or has shown the batch.
    void settled(const std::string& site) {
        missing_.erase(site);
        finish();
    }
    void shown(const std::string& site, const std::string& name) {
        if (name == name_) settled(site);
    }
    /// The broker has the batch; returns what may be confirmed.
    std::vector<std::uint64_t> acknowledged(int id) {
        std::vector<std::uint64_t> result;
        if (id != id_) return result;
        for (auto& one : batch_) result.push_back(std::exchange(one.receipt, 0));
        acknowledged_ = true;
        finish();
        return result;
    }
    /// Gives up sites that have not shown the batch in time; returns them, and the batch.
    std::pair<std::set<std::string>, std::vector<said>> give_up() {
        if (!acknowledged_ || missing_.empty() || clock::now() < since_ + patience) return {};
        std::pair result(std::exchange(missing_, {}), batch_);
        finish();
        return result;
    }

private:
    void finish() {
        if (!acknowledged_ || !missing_.empty()) return;
        batch_.clear();
        next();
    }
    void next() {
        if (!batch_.empty() || waiting_.empty()) return;
        name_ = epoch_ + ' ' + std::to_string(++count_);
        payload_ = name_ + '\n';
        for (; !waiting_.empty() && payload_.size() < max_bytes; waiting_.pop_front()) {
            payload_ += waiting_.front().line + '\n';
            batch_.push_back(std::move(waiting_.front()));
        }
        for (const auto& other : others_) missing_.insert(other.first);
        acknowledged_ = false;
        publish_again();
    }

    static std::string draw() {
        std::random_device device;
        return std::to_string(std::uint64_t{device()} << 32 | device());
    }

    const std::string epoch_ = draw();
    const publisher publish_;
    const sites& others_;
    std::deque<said> waiting_;
    std::vector<said> batch_;     // under way
    std::uint64_t count_ = 0;     // of batches
    std::string name_, payload_;  // of the latest
    int id_ = 0;                  // of its latest publication
    int tries_ = 0;               // since the first one
    clock::time_point since_;
    bool acknowledged_ = false;      // by the broker
    std::set<std::string> missing_;  // the sites that have not shown it
};

}  // namespace menu

#endif  // BRIDGE_BATCHES_HPP
