// shown_notes.hpp - notes which batches of other sites a bridge has shown, in case it is killed.
//
// SPDX-License-Identifier: MIT

#ifndef BRIDGE_SHOWN_NOTES_HPP
#define BRIDGE_SHOWN_NOTES_HPP

#include "../settings/folder.hpp"

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace menu {

/// The numbers of a site's batches grow. The file names the last batch before it is shown. If that
/// batch comes again after we were killed, nobody knows how much of it was shown.
class shown_notes {
public:
    enum verdict { fresh, unsure, known };
    static constexpr std::size_t max_sites = 64;

    explicit shown_notes(std::string file) : file_(std::move(file)) {
        std::ifstream in(native(file_));
        std::uint64_t number = 0;
        for (std::string site; in >> site >> number; unsure_.insert(site)) begun_[site] = number;
    }

    /// A batch has come: whether to show it. Batches of more sites than max_sites are ignored.
    verdict begin(const std::string& site, std::uint64_t number) {
        if (begun_.size() >= max_sites && begun_.count(site) == 0) return known;
        auto& last = begun_[site];
        const bool was_unsure = unsure_.erase(site) != 0;
        if (number <= last) return was_unsure && number == last ? unsure : known;
        last = number;
        write();
        return fresh;
    }

private:
    void write() const {
        std::string all;
        for (const auto& [site, number] : begun_) all += site + ' ' + std::to_string(number) + '\n';
        if (const auto error = replace_file(file_, all))
            std::cerr << file_ << ": " << error.message() << '\n' << std::flush;
    }

    const std::string file_;
    std::map<std::string, std::uint64_t> begun_;
    std::set<std::string> unsure_;  // from which nothing has come since the start
};

}  // namespace menu

#endif  // BRIDGE_SHOWN_NOTES_HPP
