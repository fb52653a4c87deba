// What each consumer does with the header: one node sends another a message.
//
// SPDX-License-Identifier: MIT

#pragma once

#include "p2pchat.hpp"

inline int use() {
    p2pchat::config config;
    config.team = "consumer";
    config.address = "127.0.0.1";
    p2pchat::node sender(config);
    p2pchat::node receiver(config);
    if (sender.start() || receiver.start()) return 1;
    if (sender.send(receiver.address(), "hello")) return 2;
    return receiver.statistics().received == 1 ? 0 : 3;
}
