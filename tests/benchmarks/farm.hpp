// Idle links by the thousand, their far ends in another process, since one process may have too
// few descriptors for both ends.
//
// SPDX-License-Identifier: MIT
#ifndef P2PCHAT_BENCHMARKS_FARM_HPP
#define P2PCHAT_BENCHMARKS_FARM_HPP

#include <cstdint>

#include <sys/types.h>

#include "raw.hpp"

namespace bench {

/// Make it before any thread: it forks.
class link_farm {
public:
    link_farm();
    ~link_farm();
    link_farm(const link_farm&) = delete;
    link_farm& operator=(const link_farm&) = delete;

    /// Opens links to a port, each from a peer of its own: 127.0.0.2, ports from 10000 on.
    void open(std::uint16_t port, std::uint32_t count);

    /// Sends the next message of numbered_text on each link and awaits its confirmation.
    void send_on_each();

    /// Sends one-shots by as many different peers: 127.0.0.3 and on.
    void introduce_peers(std::uint16_t port, std::uint32_t count);

    void close_all();

private:
    struct order {
        char what;
        std::uint16_t port;
        std::uint32_t count;
    };
    void give(order one);

    descriptor orders_;
    pid_t child_ = -1;
};

}  // namespace bench

#endif
