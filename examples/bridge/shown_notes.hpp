// shown_notes.hpp - notes which batches of other sites a bridge has shown, in case it is killed.
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

/// A site draws an epoch at each start of its bridge, and its batches differ at least in their
/// count. Whether one was there is known by all of it: what somebody else says in that site's name
/// keeps nothing from being shown. The file names a batch before it is shown. If it comes again
/// after we were killed, nobody knows how much of it was shown. Not thread-safe.
class shown_notes {
public:
    enum verdict { fresh, unsure, known };
    static constexpr std::size_t max_epochs = 128;  // beyond, the one heard least lately gives way
    static constexpr std::size_t max_batches = 4;   // of an epoch: two may come again, in order

    explicit shown_notes(std::string file) : file_(std::move(file)) {
        std::ifstream in(native_path(file_));
        for (std::string line; std::getline(in, line);) {
            std::istringstream words(line);
            note one;
            words >> one.site >> one.epoch;
            for (std::uint64_t batch = 0; words >> batch;) one.batches.push_back(batch);
            one.unsure = true;
            if (!one.batches.empty()) notes_.push_back(std::move(one));
            if (notes_.size() > max_epochs) notes_.pop_front();
        }
    }

    /// A batch has come: whether to show it.
    verdict begin(const std::string& site, const std::string& epoch, std::string_view payload) {
        auto& one = last_heard(site, epoch);
        const auto batch = digest(payload);
        const auto found = std::find(one.batches.begin(), one.batches.end(), batch);
        const bool is_last = found != one.batches.end() && *found == one.batches.back();
        if (is_last && std::exchange(one.unsure, false)) return unsure;
        if (found != one.batches.end()) return known;
        one.unsure = false;
        one.batches.push_back(batch);
        if (one.batches.size() > max_batches) one.batches.pop_front();
        write();
        return fresh;
    }

private:
    struct note {
        std::string site, epoch;
        std::deque<std::uint64_t> batches;  // their digests, the latest at the end
        bool unsure = false;                // about the latest: we may have been killed over it
    };

    /// FNV-1a: who would have a batch taken for another one must know what will be said.
    static std::uint64_t digest(std::string_view bytes) {
        std::uint64_t result = 0xcbf29ce484222325u;
        for (const char byte : bytes)
            result = (result ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
        return result;
    }
    /// The note of an epoch, which is now the one heard last.
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
        for (const auto& one : notes_) {
            all << one.site << ' ' << one.epoch;
            for (const auto batch : one.batches) all << ' ' << batch;
            all << '\n';
        }
        if (const auto error = replace_file(file_, all.str()))
            std::cerr << file_ << ": " << error.message() << '\n' << std::flush;
    }

    const std::string file_;
    std::deque<note> notes_;  // heard last: at the end
};

}  // namespace menu

#endif  // BRIDGE_SHOWN_NOTES_HPP
