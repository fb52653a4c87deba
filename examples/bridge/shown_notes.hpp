// shown_notes.hpp - records which batches of other sites a bridge has shown, in case it is killed.
//
// SPDX-License-Identifier: MIT

#ifndef BRIDGE_SHOWN_NOTES_HPP
#define BRIDGE_SHOWN_NOTES_HPP

#include "../menu/settings/folder.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace menu {

/// A bridge draws an epoch at each start, and its batches differ at least in their count. A batch
/// is recognized by its whole content, so a forged one does not keep a real one from being shown.
/// The file lists a batch before it is shown: if it comes again after a kill, it is unknown how
/// much of it was shown. Not thread-safe.
class shown_notes {
public:
    enum verdict { fresh, unsure, known };
    static constexpr std::size_t max_epochs = 128;  // beyond, the least recently heard is evicted
    static constexpr std::size_t max_batches = 4;   // per epoch: two may be repeated, in order

    explicit shown_notes(std::string file) : file_(std::move(file)) {
        std::ifstream in(native_path(file_));
        for (std::string line; std::getline(in, line);) {
            std::istringstream words(line);
            note stored;
            words >> stored.site >> stored.epoch;
            for (std::uint64_t batch = 0; words >> batch;) stored.batches.push_back(batch);
            stored.unsure = true;
            if (!stored.batches.empty()) notes_.push_back(std::move(stored));
            if (notes_.size() > max_epochs) notes_.pop_front();
        }
    }

    /// Whether to show a batch that has come; records it.
    verdict begin(const std::string& site, const std::string& epoch, std::string_view payload) {
        auto& current = last_heard(site, epoch);
        const auto batch = digest(payload);
        const auto found = std::find(current.batches.begin(), current.batches.end(), batch);
        const bool is_last = found != current.batches.end() && *found == current.batches.back();
        if (is_last && std::exchange(current.unsure, false)) return unsure;
        if (found != current.batches.end()) return known;
        current.unsure = false;
        current.batches.push_back(batch);
        if (current.batches.size() > max_batches) current.batches.pop_front();
        write();
        return fresh;
    }

private:
    struct note {
        std::string site, epoch;
        std::deque<std::uint64_t> batches;  // their digests, the latest at the end
        bool unsure = false;  // whether the latest was shown: the bridge may have been killed
    };

    /// FNV-1a: to forge a collision, one must know a batch in advance.
    static std::uint64_t digest(std::string_view bytes) {
        std::uint64_t result = 0xcbf29ce484222325u;
        for (const char byte : bytes)
            result = (result ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
        return result;
    }
    /// The note of an epoch, which becomes the most recently heard.
    note& last_heard(const std::string& site, const std::string& epoch) {
        const auto found = std::find_if(notes_.begin(), notes_.end(), [&](const note& other) {
            return other.site == site && other.epoch == epoch;
        });
        if (found != notes_.end()) {
            std::rotate(found, found + 1, notes_.end());
        } else {
            notes_.push_back({site, epoch, {}, false});
            if (notes_.size() > max_epochs) notes_.pop_front();
        }
        return notes_.back();
    }
    void write() const {
        std::ostringstream all;
        for (const auto& each : notes_) {
            all << each.site << ' ' << each.epoch;
            for (const auto batch : each.batches) all << ' ' << batch;
            all << '\n';
        }
        if (const auto error = replace_file(file_, all.str()))
            std::cerr << file_ << ": " << error.message() << '\n' << std::flush;
    }

    const std::string file_;
    std::deque<note> notes_;  // the most recently heard at the end
};

}  // namespace menu

#endif  // BRIDGE_SHOWN_NOTES_HPP
