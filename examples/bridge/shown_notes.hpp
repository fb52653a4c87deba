// shown_notes.hpp - notes which batches of other sites a bridge has shown, in case it is killed.
//
// SPDX-License-Identifier: MIT

#ifndef BRIDGE_SHOWN_NOTES_HPP
#define BRIDGE_SHOWN_NOTES_HPP

#include "../settings/folder.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <fstream>
#include <iostream>
#include <string>
#include <utility>

namespace menu {

/// A site draws an epoch at each start of its bridge, and counts its batches from there. The file
/// names the last batch of each epoch before it is shown. If that batch comes again after we were
/// killed, nobody knows how much of it was shown. Not thread-safe.
class shown_notes {
public:
    enum verdict { fresh, unsure, known };
    static constexpr std::size_t max_epochs =
        128;  // beyond, the one heard least lately is forgotten

    explicit shown_notes(std::string file) : file_(std::move(file)) {
        std::ifstream in(native(file_));
        for (note one; in >> one.site >> one.epoch >> one.count; notes_.push_back(one))
            one.unsure = true;
    }

    /// A batch has come: whether to show it.
    verdict begin(const std::string& site, const std::string& epoch, std::uint64_t count) {
        note now{site, epoch, 0, false};
        const auto found = std::find_if(notes_.begin(), notes_.end(), [&](const note& other) {
            return other.site == site && other.epoch == epoch;
        });
        if (found != notes_.end()) {
            now = *found;
            notes_.erase(found);
        }
        const bool was_unsure = std::exchange(now.unsure, false), is_known = count <= now.count;
        const bool is_last = count == now.count;
        now.count = std::max(count, now.count);
        notes_.push_back(std::move(now));
        if (is_known) return was_unsure && is_last ? unsure : known;
        if (notes_.size() > max_epochs) notes_.pop_front();
        write();
        return fresh;
    }

private:
    struct note {
        std::string site, epoch;
        std::uint64_t count = 0;  // of the last batch
        bool unsure = false;      // nothing of this epoch has come since our start
    };

    void write() const {
        std::string all;
        for (const auto& one : notes_)
            all += one.site + ' ' + one.epoch + ' ' + std::to_string(one.count) + '\n';
        if (const auto error = replace_file(file_, all))
            std::cerr << file_ << ": " << error.message() << '\n' << std::flush;
    }

    const std::string file_;
    std::deque<note> notes_;  // heard last: at the end
};

}  // namespace menu

#endif  // BRIDGE_SHOWN_NOTES_HPP
