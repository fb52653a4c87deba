// Two hosts on a network of their own, for what loopback cannot show: a sender that is not where it
// claims to be, a peer that vanishes without notice. Linux, as root, with iproute2; else a test
// says that it is skipped.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_LAN_HPP
#define P2PCHAT_TESTS_LAN_HPP

#include "support.hpp"

#if defined(__linux__)

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <memory>

namespace support {

/// A thread in a network namespace of its own. What it starts (sockets, nodes) is on that host; the
/// kernel ends the namespace with the thread.
class host {
public:
    host() {
        worker_ = std::thread([this] { work(); });
        run([this] {
            usable_ = ::unshare(CLONE_NEWNET) == 0;
            thread_ = static_cast<long>(::syscall(SYS_gettid));
        });
    }
    host(const host&) = delete;
    host& operator=(const host&) = delete;
    ~host() {
        give({});
        worker_.join();
    }

    bool usable() const noexcept { return usable_; }
    long thread() const noexcept { return thread_; }

    /// Runs `task` on this host, and rethrows what it throws.
    void run(std::function<void()> task) {
        std::exception_ptr thrown;
        gate done;
        give([&] {
            try {
                task();
            } catch (...) {
                thrown = std::current_exception();
            }
            done.open();
        });
        while (!done.wait()) {
        }
        if (thrown) std::rethrow_exception(thrown);
    }

    bool command(const std::string& line) {
        bool done = false;
        run([&] { done = std::system((line + " >/dev/null 2>&1").c_str()) == 0; });
        return done;
    }

private:
    void give(std::function<void()> task) {
        const std::lock_guard<std::mutex> lock(mutex_);
        tasks_.push_back(std::move(task));
        changed_.notify_all();
    }

    void work() {
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex_);
            changed_.wait(lock, [this] { return !tasks_.empty(); });
            const auto task = std::move(tasks_.front());
            tasks_.erase(tasks_.begin());
            lock.unlock();
            if (!task) return;
            task();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::function<void()>> tasks_;
    bool usable_ = false;
    long thread_ = 0;
    std::thread worker_;
};

/// Two hosts and a cable.
class lan {
public:
    lan() {
        if (!here.usable() || !there.usable()) return;
        const std::string other = std::to_string(there.thread());
        usable_ = here.command("ip link add lan type veth peer name lan netns " + other) &&
                  set_up(here, "10.99.0.1/24") && set_up(there, "10.99.0.2/24");
        if (!usable_) return;
        // The first packet needs no ARP, and with the cable unplugged nothing is answered.
        usable_ =
            fix_neighbour(here, there, "10.99.0.2") && fix_neighbour(there, here, "10.99.0.1");
    }

    /// False, with a message, where this system does not allow it.
    bool usable() const {
        if (!usable_) MESSAGE("skipped: this needs Linux network namespaces (root, iproute2)");
        return usable_;
    }

    /// Pulls the cable; no system notices.
    void unplug() { REQUIRE(there.command("ip link set lan down")); }

    p2pchat::endpoint here_address() const { return {"10.99.0.1", 0}; }
    p2pchat::endpoint there_address() const { return {"10.99.0.2", 0}; }

    host here, there;

private:
    static bool set_up(host& at, const std::string& address) {
        return at.command("ip addr add " + address +
                          " dev lan && ip link set lan up && ip link set lo up");
    }

    static bool fix_neighbour(host& at, host& of, const std::string& address) {
        std::string mac;
        of.run([&] { mac = hardware_address(); });
        return at.command("ip neigh replace " + address + " lladdr " + mac +
                          " dev lan nud permanent");
    }

    static std::string hardware_address() {
        std::string result;
        if (std::FILE* const pipe = ::popen("ip -o link show lan", "r")) {
            char line[512] = {};
            if (std::fgets(line, sizeof line, pipe)) {
                const std::string text(line);
                const auto at = text.find("link/ether ");
                if (at != std::string::npos) result = text.substr(at + 11, 17);
            }
            ::pclose(pipe);
        }
        return result;
    }

    bool usable_ = false;
};

/// A node on this end of a LAN; the code that opens its sockets runs there.
struct lan_node {
    lan& cable;
    std::unique_ptr<recording_node> node;

    explicit lan_node(lan& at, p2pchat::config settings = local()) : cable(at) {
        settings.address = cable.here_address().address();
        cable.here.run([&] { node = std::make_unique<recording_node>(settings); });
    }
    lan_node(const lan_node&) = delete;
    lan_node& operator=(const lan_node&) = delete;
    ~lan_node() {
        cable.here.run([this] { node.reset(); });
    }

    recording_node& operator*() { return *node; }
    recording_node* operator->() { return node.get(); }

    /// Links from the other end, claiming `sender`.
    std::unique_ptr<raw_peer> link_from_there(const p2pchat::endpoint& sender) {
        std::unique_ptr<raw_peer> peer;
        cable.there.run([&] {
            peer = std::make_unique<raw_peer>(node->address());
            peer->send(wire(sender, "CONNECT\n"));
            CHECK(peer->line() == wire(node->address(), "CONNECT", "BTC"));
        });
        return peer;
    }
};

/// Hosts on one Ethernet: a bridge, and a cable to each.
class segment {
public:
    segment() {
        usable_ =
            hub_.usable() && hub_.command("ip link add hub type bridge && ip link set hub up");
    }

    bool usable() const {
        if (!usable_) MESSAGE("skipped: this needs Linux network namespaces (root, iproute2)");
        return usable_;
    }

    /// Gives the host a device on this segment, up, and with the address unless that is empty.
    void plug(host& at, const std::string& device, const std::string& address) {
        const std::string port = "port" + std::to_string(++ports_);
        REQUIRE(hub_.command("ip link add " + port + " type veth peer name " + device + " netns " +
                             std::to_string(at.thread()) + " && ip link set " + port +
                             " master hub up"));
        if (!address.empty()) REQUIRE(at.command("ip addr add " + address + " dev " + device));
        REQUIRE(at.command("ip link set lo up && ip link set " + device + " up"));
    }

private:
    host hub_;
    int ports_ = 0;
    bool usable_ = false;
};

/// Runs `task` on a host of its own; false where that is not possible.
inline bool run_on_own_host(const std::function<void()>& task) {
    host own;
    if (!own.usable() || !own.command("ip link set lo up")) return false;
    own.run(task);
    return true;
}

}  // namespace support

#endif

namespace support {

/// Runs `task` on a host of its own where possible: for tests that go on sending to ports whose
/// nodes are gone, and which another test's node may have by then.
inline void alone(const std::function<void()>& task) {
#if defined(__linux__)
    if (run_on_own_host(task)) return;
#endif
    task();
}

}  // namespace support

#endif  // P2PCHAT_TESTS_LAN_HPP
