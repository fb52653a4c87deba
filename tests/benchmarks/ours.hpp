// p2pchat nodes, set up for the benchmarks.
//
// SPDX-License-Identifier: MIT
#ifndef P2PCHAT_BENCHMARKS_OURS_HPP
#define P2PCHAT_BENCHMARKS_OURS_HPP

#include <memory>
#include <string>
#include <utility>

#include "measure.hpp"
#include "p2pchat.hpp"
#include "raw.hpp"

namespace bench {

inline p2pchat::config settings() {
    p2pchat::config result;
    result.team = "Team_BTC";
    result.address = "127.0.0.1";
    if (encrypted) result.encryption = p2pchat::encryption::required;
    return result;
}

/// A node that runs, and hands the texts it gets to `take`.
template <typename F>
std::unique_ptr<p2pchat::node> start_node(F take, p2pchat::config how = settings()) {
    auto result = std::make_unique<p2pchat::node>(std::move(how));
    result->on_message(std::move(take));
    if (const auto error = result->start()) fail("cannot start a node: " + error.message());
    return result;
}

inline std::unique_ptr<p2pchat::node> start_node() {
    return start_node([](const p2pchat::message&) { fail("a message that nobody sent"); });
}

inline void require_ok(std::error_code error, const char* what) {
    if (error) fail(std::string(what) + ": " + error.message());
}

inline void make_link(p2pchat::node& from, const p2pchat::endpoint& to) {
    const auto result = from.connect(to);
    require_ok(result.error, "connect");
    require(result.linked, "connected, but not by a link");
}

}  // namespace bench

#endif
