// Idle links by the thousand; see farm.hpp.
//
// SPDX-License-Identifier: MIT
#include "farm.hpp"

#include <csignal>

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "measure.hpp"

namespace bench {

namespace {

/// The far ends, in the child.
class far_ends {
public:
    void open(std::uint16_t port, std::uint32_t count) {
        for (std::uint32_t i = 0; i < count; ++i) {
            const auto claim = "127.0.0.2:" + std::to_string(10000 + links_.size()) + " Team_FAR ";
            links_.push_back(open_link(loopback(1), port, claim));
            claims_.push_back(claim);
        }
        acks_.resize(links_.size());
    }

    void send_on_each() {
        ++sent_;
        for (std::size_t i = 0; i < links_.size(); ++i) {
            send_all(links_[i].get(), claims_[i] + std::string(text_.get()) + '\n');
            char buffer[64];
            const auto confirmed =
                acks_[i].take(receive_some(links_[i].get(), buffer, sizeof buffer));
            require(confirmed == sent_, "a link that was idle does not confirm");
        }
        text_.next();
    }

    // The connections rotate over the destinations, because each leaves a port in TIME_WAIT. The
    // ports claimed are below the ephemeral ones, of which one might be the receiver's own.
    void introduce_peers(std::uint16_t port, std::uint32_t count) {
        for (std::uint32_t i = 0; i < count; ++i) {
            const auto claim = loopback(3 + introduced_ / 20000) + ':' +
                               std::to_string(10000 + introduced_ % 20000);
            const auto peer = connect_to(loopback(1 + introduced_ / 10000 % 200), port);
            send_all(peer.get(), claim + " Team_FAR hello");
            ++introduced_;
            shutdown(peer.get(), SHUT_WR);
            char c;
            require(recv(peer.get(), &c, 1, 0) == 0, "an introduction was not taken");
        }
    }

    void close_all() { *this = far_ends(); }

private:
    std::vector<descriptor> links_;
    std::vector<std::string> claims_;
    std::vector<ack_reader> acks_;
    numbered_text text_;
    std::uint64_t sent_ = 0;
    int introduced_ = 0;
};

}  // namespace

link_farm::link_farm() {
    int ends[2];
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "cannot make a socket pair");
    child_ = fork();
    require(child_ >= 0, "cannot fork");
    if (child_ > 0) {
        ::close(ends[1]);
        orders_ = descriptor(ends[0]);
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(ends[0]);
    far_ends far;
    order one{};
    while (recv(ends[1], &one, sizeof one, MSG_WAITALL) == sizeof one) {
        if (one.what == 'o') far.open(one.port, one.count);
        if (one.what == 's') far.send_on_each();
        if (one.what == 'i') far.introduce_peers(one.port, one.count);
        if (one.what == 'c') far.close_all();
        send_all(ends[1], "!");
    }
    _exit(0);
}

link_farm::~link_farm() {
    orders_.reset();
    waitpid(child_, nullptr, 0);
}

void link_farm::give(order one) {
    send_all(orders_.get(), {reinterpret_cast<const char*>(&one), sizeof one});
    char done = 0;
    require(recv(orders_.get(), &done, 1, 0) == 1, "the process with the far ends has failed");
}

void link_farm::open(std::uint16_t port, std::uint32_t count) { give({'o', port, count}); }
void link_farm::send_on_each() { give({'s', 0, 0}); }
void link_farm::introduce_peers(std::uint16_t port, std::uint32_t count) {
    give({'i', port, count});
}
void link_farm::close_all() { give({'c', 0, 0}); }

}  // namespace bench
