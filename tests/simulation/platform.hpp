// The platform of p2pchat.hpp in memory: machines, processes, sockets that behave as those of TCP,
// and time. Single-threaded; all randomness comes from one seed. The header includes it in place of
// its own platform.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_SIMULATION_PLATFORM_HPP
#define P2PCHAT_TESTS_SIMULATION_PLATFORM_HPP

#include <deque>
#include <map>
#include <queue>
#include <random>

namespace simulation {

using p2pchat::endpoint;
using handle = p2pchat::tcp_socket::native_handle_type;
using time_point = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;

/// The ephemeral ports; listeners have lower ones.
constexpr std::uint16_t first_free_port = 20000;

/// The only source of randomness. No std::..._distribution, which differ between libraries.
class dice {
public:
    explicit dice(std::uint64_t seed) : engine_(seed) {}
    std::size_t below(std::size_t end) { return static_cast<std::size_t>(engine_() % end); }
    std::size_t between(std::size_t least, std::size_t most) {
        return least + below(most - least + 1);
    }
    bool chance(std::size_t in_a_thousand) { return below(1000) < in_a_thousand; }
    std::chrono::microseconds time(milliseconds least, milliseconds most) {
        const auto span = static_cast<std::size_t>((most - least).count()) * 1000;
        return least + std::chrono::microseconds(below(span + 1));
    }

private:
    std::mt19937_64 engine_;
};

struct machine {
    endpoint address;                            // without port
    std::chrono::steady_clock::duration leap{};  // how far its clock is ahead
    bool plugged_in = true;
};

/// A process, as the system sees it.
struct process {
    machine* where = nullptr;
    bool stopped = false;      // by SIGSTOP
    bool interrupted = false;  // its next wait fails
    bool woken = false;        // it is due to run
    bool stormy = false;       // its sockets are reported ready to read, whether they are or not
    std::size_t max_open = 1000, open = 0;
    std::size_t no_memory = 0;  // of a thousand allocations, so many fail
    std::uint64_t key = 0;      // of its program, if it encrypts
    std::function<void(const struct socket& by, std::string_view)> on_sent;
    std::function<void()> turn;
};

/// Of a thousand allocations of the code that runs, so many fail.
inline std::size_t failing_allocations = 0;

/// Code that runs with as little memory as a process has; or, without one, as the system has.
class with_memory_of {
public:
    explicit with_memory_of(const process* who)
        : before_(std::exchange(failing_allocations, who ? who->no_memory : 0)) {}
    with_memory_of(const with_memory_of&) = delete;
    ~with_memory_of() { failing_allocations = before_; }

private:
    const std::size_t before_;
};

/// What is said to all of the one network, by one or both of these.
inline const endpoint broadcast_address("10.0.255.255", 0), group_address("239.255.112.50", 0);

struct datagram {
    endpoint from;
    std::string text;
};

struct socket {
    handle id = -1, other = -1;
    process* owner = nullptr;
    endpoint local, remote;
    enum { fresh, listening, connecting, connected, dead, datagrams } state = fresh;
    std::errc error{};         // reported once
    std::string in, out;       // received and not read; sent and not arrived
    std::deque<handle> queue;  // listening: connected, not accepted yet
    std::size_t room = 1;      // of each of the two buffers
    bool end_wanted = false, end_sent = false, end_received = false;
    bool accepted = false, orphan = false, cut = false, is_link = false, resets = false;
    bool sending = false;  // a transmission is scheduled
    /// Of datagrams; the last one: of changes of addresses.
    bool in_group = false, hears_all = false, watches = false;
    std::list<datagram> arrived;
    int keep_alive = 0;
    char first = '\0';  // byte sent
};

/// The systems of all machines, and the network between them.
class network {
public:
    explicit network(std::uint64_t seed) : random(seed) {}

    dice random;
    time_point now{std::chrono::hours(1)};
    process* current = nullptr;  // whose code runs
    std::map<handle, socket> sockets;
    std::set<endpoint>
        disturbed;  // connections by which a message may come in part, by their origin
    std::map<endpoint, bool> evicted;  // closed before its time: whether its host had most
    std::size_t most_accepted = 0;     // by the current process in this turn
    bool out_of_descriptors = false;   // in this turn
    bool sent_in_part = false;         // in this turn
    bool calm = false;                 // no more faults
    std::set<handle> datagram_sockets;
    std::map<std::string, std::string> files;
    /// Whether these reach all.
    bool broadcasts = true, multicasts = true;

    void at(time_point when, std::function<void()> what) {
        events_.push({when, ++count_, std::move(what)});
    }
    void in(std::chrono::microseconds delay, std::function<void()> what) {
        at(now + delay, std::move(what));
    }
    bool step(time_point end) {
        if (events_.empty() || events_.top().when > end) return false;
        now = (std::max)(now, events_.top().when);
        const auto what = std::move(events_.top().what);
        events_.pop();
        what();
        return true;
    }
    void wake(process& who) { wake(who, random.time(milliseconds(0), milliseconds(2))); }
    void wake(process& who, std::chrono::microseconds delay) {
        if (who.stopped || who.woken) return;
        who.woken = true;
        in(delay, [&who] {
            who.woken = false;
            if (!who.stopped && who.turn) who.turn();
        });
    }
    time_point time_of(const process& who) const { return now + who.where->leap; }

    socket* find(handle id) {
        const auto found = sockets.find(id);
        return found == sockets.end() ? nullptr : &found->second;
    }
    socket& make(process& owner) {
        socket& made = sockets[++last_];
        made.id = last_;
        made.owner = &owner;
        made.room = random.chance(500) ? random.between(64, 2000) : 65536;
        return made;
    }

    socket* listener(const endpoint& to) {
        for (auto& [id, one] : sockets)
            if (one.state == socket::listening && one.local.port() == to.port() &&
                one.owner->where->address.same_address(to))
                return &one;
        return nullptr;
    }
    void connect(socket& from, const endpoint& to) {
        from.local = {from.owner->where->address.bytes(), next_port(), 0};
        from.remote = to;
        from.state = socket::connecting;
        const handle id = from.id;
        if (from.owner->where->address.same_address(to)) return arrive(id);
        if (!calm && random.chance(10)) return;  // unanswered
        in(delay(), [this, id] { arrive(id); });
    }

    /// To whom it is addressed; in disorder, twice or not at all.
    void send_datagram(const machine& at, const endpoint& from, std::string_view text,
                       const endpoint& to) {
        const bool to_group = to.same_address(group_address);
        const bool to_all = to_group || to.same_address(broadcast_address);
        if (to_all && !(to_group ? multicasts : broadcasts)) return;
        for (const handle id : datagram_sockets) {
            const socket& one = sockets.at(id);
            const machine& there = *one.owner->where;
            const bool hears = to_all
                                   ? one.hears_all && (!to_group || one.in_group)
                                   : one.local.same_address(to) && there.address.same_address(to);
            if (!hears || one.local.port() != to.port()) continue;
            if (&there != &at && (!at.plugged_in || !there.plugged_in)) continue;
            const bool faulty = !calm && random.chance(70);
            for (auto copies = faulty ? 2 * random.below(2) : 1; copies != 0; --copies)
                in(delay(), [this, id, from, text = std::string(text)] { hand(id, {from, text}); });
        }
    }

    /// Schedules all data that waits.
    void transmit(socket& from) {
        const bool more = !from.out.empty() || (from.end_wanted && !from.end_sent);
        if (from.sending || from.cut || from.state != socket::connected || !more) return;
        const socket* const to = find(from.other);
        if (to && !to->orphan && !from.out.empty() && to->in.size() >= to->room) return;
        from.sending = true;
        const handle id = from.id;
        in(delay(), [this, id] { pass_on(id); });
    }

    /// The other side sees a reset.
    void send_reset(const socket& from) {
        const handle to = from.other;
        if (to >= 0 && !from.cut)
            in(delay(), [this, to] { fail(to, std::errc::connection_reset); });
    }
    void fail(handle id, std::errc why) {
        socket* const one = find(id);
        if (!one || one->state == socket::dead || one->cut) return;
        if (one->state == socket::connecting)
            why = std::errc::connection_refused;
        else if (one->end_received && why == std::errc::connection_reset)
            why = std::errc::broken_pipe;
        one->error = why;
        one->state = socket::dead;
        touch(*one);
        reap(*one);
    }

    void close(socket& one) {
        --one.owner->open;
        datagram_sockets.erase(one.id);
        if (one.state == socket::listening)
            for (const handle waiting : one.queue)
                if (socket* const child = find(waiting)) send_reset(*child), sockets.erase(waiting);
        if (one.accepted && !one.is_link && one.resets) evicted[one.remote] = has_most(one);
        const bool in_order = one.state == socket::connected && !one.resets && one.in.empty();
        if (one.state != socket::listening && one.state != socket::dead && !in_order)
            send_reset(one);
        if (!in_order || one.cut) return static_cast<void>(sockets.erase(one.id));
        one.orphan = one.end_wanted = true;
        transmit(one);
        reap(one);
    }
    /// From now on everything is lost in both directions.
    void cut(socket& one) {
        disturb(one);
        for (socket* side : {&one, find(one.other)})
            if (side && side->state == socket::connected) side->cut = true, probe(*side);
    }
    /// All its connections to others.
    void cut(const machine& off) {
        for (auto& [id, one] : sockets) {
            const socket* const other = find(one.other);
            if (one.owner->where == &off && other && other->owner->where != &off) cut(one);
        }
    }
    void probe(socket& one) {
        if (!one.cut || one.keep_alive == 0) return;
        const handle id = one.id;
        in(std::chrono::seconds(2 * one.keep_alive), [this, id] {
            if (socket* const silent = find(id))
                silent->cut = false, fail(id, std::errc::timed_out);
        });
    }
    void disturb(const socket& one) { disturbed.insert({one.local, one.remote}); }
    void disturb(const machine& at) {
        for (const auto& [id, one] : sockets)
            if (one.owner->where == &at) disturb(one);
    }
    /// Ends the connections to it.
    void move(machine& which, const endpoint& to) {
        for (auto& [id, one] : sockets) {
            if (one.owner->where != &which) continue;
            if (one.state == socket::listening)
                one.local = {to.bytes(), one.local.port(), 0};
            else if (one.watches)
                hand(id, {});
            else if (one.state != socket::datagrams)
                cut(one);
        }
        which.address = to;
    }
    bool is_queued(const socket& one) const { return queued_.count(one.id) != 0; }
    std::size_t queued(const process& by) const {
        std::size_t count = 0;
        for (const handle id : queued_) count += sockets.count(id) && sockets.at(id).owner == &by;
        return count;
    }

    handle take_queued(socket& from) {
        const handle id = from.queue.front();
        from.queue.pop_front();
        queued_.erase(id);
        socket& one = sockets.at(id);
        one.accepted = true;
        one.resets = from.resets;  // inherited, as on every system
        ++one.owner->open;
        most_accepted = (std::max)(most_accepted, accepted(*one.owner, nullptr));
        return id;
    }
    /// Open connections that have not delivered and are no links: from one host, or all.
    std::size_t accepted(const process& by, const endpoint* from) const {
        std::size_t count = 0;
        for (const auto& [id, one] : sockets)
            count += one.owner == &by && one.accepted && !one.is_link && !one.orphan &&
                     (!from || from->same_address(one.remote));
        return count;
    }

private:
    struct event {
        time_point when;
        std::uint64_t number;
        mutable std::function<void()> what;
        bool operator<(const event& other) const {
            return when != other.when ? when > other.when : number > other.number;
        }
    };

    std::uint16_t next_port() {
        port_ = port_ < 65535 ? static_cast<std::uint16_t>(port_ + 1) : first_free_port;
        return port_;
    }
    std::chrono::microseconds delay() {
        if (calm) return milliseconds(1);
        return random.time(milliseconds(0), milliseconds(random.chance(20) ? 100 : 5));
    }
    void hand(handle id, datagram what) {
        socket* const to = find(id);
        if (!to || to->arrived.size() >= 200) return;
        to->arrived.push_back(std::move(what));
        touch(*to);
    }
    /// Without the one that is being accepted.
    bool has_most(const socket& one) const {
        const auto here = accepted(*one.owner, &one.remote) + 1;
        for (const auto& [id, other] : sockets)
            if (other.owner == one.owner && accepted(*one.owner, &other.remote) > here)
                return false;
        return true;
    }
    void touch(const socket& one) {
        if (!one.orphan && !is_queued(one)) wake(*one.owner);
    }
    void reap(const socket& one) {
        if (one.orphan && (one.state == socket::dead || one.end_sent)) sockets.erase(one.id);
    }

    /// The first packet of a connection.
    void arrive(handle id) {
        socket* const from = find(id);
        if (!from || from->state != socket::connecting || !from->owner->where->plugged_in) return;
        socket* const to = listener(from->remote);
        if (!to) {
            in(delay(), [this, id] { fail(id, std::errc::connection_refused); });
            return;
        }
        if (!to->owner->where->plugged_in || to->queue.size() >= 20) return;
        socket& made = make(*to->owner);
        made.state = socket::connected;
        made.local = from->remote;
        made.remote = from->local;
        made.other = id;
        from->other = made.id;
        to->queue.push_back(made.id);
        queued_.insert(made.id);
        touch(*to);
        if (from->owner->where == to->owner->where) return established(id);
        in(delay(), [this, id] { established(id); });
    }
    void established(handle id) {
        socket* const one = find(id);
        if (!one || one->state != socket::connecting) return;
        one->state = socket::connected;
        if (!calm && random.chance(10)) cut(*one);
        touch(*one);
        transmit(*one);
    }

    /// Some of the waiting data arrives.
    void pass_on(handle id) {
        socket* const from = find(id);
        if (!from) return;
        from->sending = false;
        if (from->cut || from->state != socket::connected) return;
        socket* const to = find(from->other);
        if (!from->owner->where->plugged_in || (to && !to->owner->where->plugged_in)) {
            disturb(*from);
            if (to) disturb(*to);
            from->sending = true;
            in(milliseconds(200), [this, id] { pass_on(id); });
            return;
        }
        if (!to || to->orphan || to->state == socket::dead) {
            if (!from->out.empty()) return fail(id, std::errc::connection_reset);
        } else if (!from->out.empty()) {
            const auto most =
                (std::min)(from->out.size(), to->room - (std::min)(to->room, to->in.size()));
            const auto count = most > 1 && random.chance(200) ? random.between(1, most) : most;
            to->in.append(from->out, 0, count);
            from->out.erase(0, count);
            touch(*to);
            touch(*from);  // there is room
        }
        if (from->out.empty() && from->end_wanted && !from->end_sent) {
            from->end_sent = true;
            if (to) to->end_received = true, touch(*to);
        }
        transmit(*from);
        reap(*from);
    }

    std::priority_queue<event> events_;
    std::uint64_t count_ = 0;
    std::set<handle> queued_;
    handle last_ = 0;
    std::uint16_t port_ = first_free_port;
};

inline network* net = nullptr;

inline bool fails_now() {
    return failing_allocations != 0 && !net->calm && net->random.chance(failing_allocations);
}

}  // namespace simulation

namespace p2pchat::detail::os {

using handle = simulation::handle;
using simulation::net;
using socket_state = simulation::socket;

inline constexpr unsigned char v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

inline auto now() noexcept { return net->time_of(*net->current); }
inline auto wall_time() noexcept {
    return std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(now().time_since_epoch()));
}

inline std::error_code error_of(std::errc why) noexcept { return std::make_error_code(why); }

inline bool parse_v6(const char* text, unsigned char (&bytes)[16]) noexcept {
    std::memset(bytes, 0, sizeof bytes);
    return std::strcmp(text, "::") == 0;
}
inline std::string format_v6(const unsigned char (&)[16]) { return "::"; }

inline std::error_code open_stream(const endpoint&, handle& made) {
    const simulation::with_memory_of system(nullptr);
    if (net->current->open >= net->current->max_open) {
        net->out_of_descriptors = true;
        return error_of(std::errc::too_many_files_open);
    }
    ++net->current->open;
    made = net->make(*net->current).id;
    return {};
}

inline std::error_code listen(handle which, const endpoint& local, bool) {
    const simulation::with_memory_of system(nullptr);
    const endpoint name(net->current->where->address.bytes(), local.port(), 0);
    if (net->listener(name)) return error_of(std::errc::address_in_use);
    socket_state& one = net->sockets.at(which);
    one.state = socket_state::listening;
    one.local = name;
    return {};
}

inline std::error_code accept(handle listener, handle& made, endpoint& from) {
    const simulation::with_memory_of system(nullptr);
    socket_state& one = net->sockets.at(listener);
    if (one.queue.empty()) return error_of(std::errc::operation_would_block);
    if (one.owner->open >= one.owner->max_open) {
        net->out_of_descriptors = true;
        return error_of(std::errc::too_many_files_open);
    }
    made = net->take_queued(one);
    from = net->sockets.at(made).remote;
    return {};
}

inline std::error_code connect(handle which, const endpoint& to) {
    const simulation::with_memory_of system(nullptr);
    socket_state& one = net->sockets.at(which);
    net->connect(one, to);
    return one.state == socket_state::connected ? std::error_code()
                                                : error_of(std::errc::operation_in_progress);
}

inline std::error_code pending_error(handle which) {
    const auto why = std::exchange(net->sockets.at(which).error, std::errc{});
    return why == std::errc{} ? std::error_code() : error_of(why);
}

inline bool is_reset(handle which) {
    return pending_error(which) || net->sockets.at(which).state == socket_state::dead;
}

inline std::error_code send(handle which, const char* data, std::size_t size, std::size_t& sent) {
    const simulation::with_memory_of system(nullptr);
    socket_state& one = net->sockets.at(which);
    sent = 0;
    if (const auto error = pending_error(which)) return error;
    if (one.state == socket_state::dead || one.end_wanted) return error_of(std::errc::broken_pipe);
    if (one.state != socket_state::connected) return error_of(std::errc::operation_would_block);
    if (net->random.chance(5)) return error_of(std::errc::interrupted);
    if (one.out.size() >= one.room) return error_of(std::errc::operation_would_block);
    sent = (std::min)(size, one.room - one.out.size());
    if (sent > 1 && net->random.chance(100)) sent = net->random.between(1, sent);
    if (one.out.empty() && one.first == '\0') one.first = *data;
    if (net->current->on_sent) net->current->on_sent(one, {data, sent});
    one.out.append(data, sent);
    net->sent_in_part |= sent < size;
    net->transmit(one);
    return {};
}

/// Received data is read first, then an error once, then the end.
inline std::error_code receive(handle which, char* buffer, std::size_t size,
                               std::size_t& received) {
    const simulation::with_memory_of system(nullptr);
    socket_state& one = net->sockets.at(which);
    received = 0;
    if (net->random.chance(5)) return error_of(std::errc::interrupted);
    if (!one.in.empty()) {
        received = (std::min)(size, one.in.size());
        if (received > 1 && net->random.chance(100)) received = net->random.between(1, received);
        one.in.copy(buffer, received);
        one.in.erase(0, received);
        if (socket_state* const other = net->find(one.other)) net->transmit(*other);
        return {};
    }
    if (const auto error = pending_error(which)) return error;
    if (one.state == socket_state::dead || one.end_received) return {};
    return error_of(std::errc::operation_would_block);
}

inline std::error_code shutdown_send(handle which) {
    const simulation::with_memory_of system(nullptr);
    socket_state& one = net->sockets.at(which);
    if (one.state != socket_state::connected) return error_of(std::errc::not_connected);
    one.end_wanted = true;
    net->transmit(one);
    return {};
}

inline void stop_listening(handle) noexcept {}
inline void close(handle which) {
    const simulation::with_memory_of system(nullptr);
    net->close(net->sockets.at(which));
}
inline endpoint local(handle which) { return net->sockets.at(which).local; }
inline endpoint remote(handle which) { return net->sockets.at(which).remote; }
inline void no_delay(handle) {}
inline void reset_on_close(handle which, bool on) { net->sockets.at(which).resets = on; }
inline void keep_alive(handle which, int seconds) {
    const simulation::with_memory_of system(nullptr);
    socket_state& one = net->sockets.at(which);
    one.is_link = true;
    one.keep_alive = seconds;
    net->probe(one);
}
inline constexpr bool counts_unacknowledged = true;
inline int unacknowledged(handle which) {
    const socket_state& one = net->sockets.at(which);
    return static_cast<int>(one.out.size()) + (one.end_wanted && !one.end_sent ? 1 : 0);
}

inline endpoint route_source(const endpoint&) { return net->current->where->address; }

// One network of all machines.
struct interface_address {
    endpoint local;
    std::uint32_t index = 0;
    bool loopback = false, broadcast = false;
};
inline bool operator==(const interface_address& a, const interface_address& b) {
    return a.local == b.local;
}
inline bool in_network(const endpoint& address, const interface_address& of) {
    return std::memcmp(address.bytes(), of.local.bytes(), 14) == 0;
}
inline endpoint broadcast_of(const interface_address&) { return simulation::broadcast_address; }
template <typename Visitor>
void visit_interfaces(const Visitor& visitor) {
    interface_address ours;
    ours.local = net->current->where->address;
    ours.index = 1;
    ours.broadcast = true;
    visitor(ours);
}

inline std::error_code open_datagrams(handle& made) {
    if (const auto error = open_stream({}, made)) return error;
    const simulation::with_memory_of system(nullptr);
    net->sockets.at(made).state = socket_state::datagrams;
    net->datagram_sockets.insert(made);
    return {};
}
inline std::error_code open_datagram_port(const interface_address& on, std::uint16_t port,
                                          bool shared, handle& made) {
    const simulation::with_memory_of system(nullptr);
    const endpoint local(on.local.bytes(), port, 0);
    for (const handle other : net->datagram_sockets)
        if (!shared && net->sockets.at(other).local == local)
            return error_of(std::errc::address_in_use);
    if (const auto error = open_datagrams(made)) return error;
    net->sockets.at(made).local = local;
    net->sockets.at(made).hears_all = shared;
    return {};
}
inline std::error_code join(handle which, const endpoint&, const interface_address&) {
    net->sockets.at(which).in_group = true;
    return {};
}
inline std::error_code send_to(handle which, std::string_view text, const endpoint& to) {
    const simulation::with_memory_of system(nullptr);
    const endpoint& local = net->sockets.at(which).local;
    const simulation::machine& where = *net->current->where;
    if (!local.same_address(where.address)) return error_of(std::errc::network_unreachable);
    net->send_datagram(where, local, text, to);
    return {};
}
inline std::error_code receive_from(handle which, char* buffer, std::size_t size,
                                    std::size_t& received, endpoint& from) {
    const simulation::with_memory_of system(nullptr);
    auto& arrived = net->sockets.at(which).arrived;
    received = 0;
    if (net->random.chance(5)) return error_of(std::errc::interrupted);
    if (arrived.empty()) return error_of(std::errc::operation_would_block);
    received = arrived.front().text.copy(buffer, size);
    from = arrived.front().from;
    arrived.pop_front();
    return {};
}

/// Not every system tells of changes.
class address_watch {
public:
    address_watch() = default;
    address_watch(address_watch&&) = delete;
    ~address_watch() { close(); }

    std::error_code open() {
        if (net->random.chance(300)) return error_of(std::errc::not_supported);
        if (const auto error = open_datagrams(socket_)) return error;
        net->sockets.at(socket_).watches = true;
        return {};
    }
    void close() noexcept {
        if (socket_ != p2pchat::tcp_socket::invalid) os::close(std::exchange(socket_, -1));
    }
    handle native_handle() const noexcept { return socket_; }
    bool drain() noexcept {
        auto& arrived = net->sockets.at(socket_).arrived;
        const bool any = !arrived.empty();
        arrived.clear();
        return any;
    }

private:
    handle socket_ = p2pchat::tcp_socket::invalid;
};

// Nothing blocks here.
inline std::error_code wait_ready(handle, bool, int, handle) noexcept {
    return error_of(std::errc::timed_out);
}
inline std::error_code look_up(const char*, std::vector<endpoint>&) {
    return error_of(std::errc::invalid_argument);
}

// Of keys.
enum class file_use { append };
inline std::error_code read_file(const std::string& path, std::string& bytes, bool& ours_alone) {
    const auto found = net->files.find(path);
    if (found == net->files.end()) return error_of(std::errc::no_such_file_or_directory);
    bytes = found->second;
    ours_alone = true;
    return {};
}
inline std::error_code write_file(const std::string& path, file_use, std::string_view bytes) {
    const simulation::with_memory_of system(nullptr);
    net->files[path].append(bytes);
    return {};
}

class channel {
public:
    std::error_code open() noexcept { return {}; }
    void signal() noexcept {}
    void drain() noexcept {}
    handle in() const noexcept { return tcp_socket::invalid; }
};

struct watched {
    bool read = false, write = false;
};

struct readiness {
    watched* source = nullptr;
    bool read = false, write = false;
};

/// Few at once, so that the ready ones seldom fit.
class poller {
public:
    static constexpr int batch = 3;

    std::error_code open() {
        sockets_.clear();
        return {};
    }
    std::error_code watch(handle which, watched& what, bool read, bool write) {
        if (read || write)
            sockets_[which] = &what;
        else
            sockets_.erase(which);
        what.read = read;
        what.write = write;
        return {};
    }
    void prepare() noexcept {}
    int wait(int) {
        const simulation::with_memory_of system(nullptr);
        found_.clear();
        if (std::exchange(net->current->interrupted, false)) return -1;
        auto place = sockets_.upper_bound(last_);
        for (std::size_t seen = 0; seen < sockets_.size(); ++seen, ++place) {
            if (place == sockets_.end()) place = sockets_.begin();
            const auto ready = look(place->first, *place->second);
            if (!ready.source) continue;
            last_ = place->first;
            found_.push_back(last_);
            if (found_.size() == batch) break;
        }
        return static_cast<int>(found_.size());
    }
    int collect(readiness (&ready)[batch]) {
        int count = 0;
        for (const handle which : found_) {
            const auto place = sockets_.find(which);
            if (place != sockets_.end()) ready[count] = look(which, *place->second);
            if (place != sockets_.end() && ready[count].source) ++count;
        }
        return count;
    }
    void wake() noexcept {}

private:
    static readiness look(handle which, watched& what) {
        const socket_state& one = net->sockets.at(which);
        const bool over = one.state == socket_state::dead;
        const bool read = net->current->stormy || over || !one.in.empty() || one.end_received ||
                          !one.queue.empty() || !one.arrived.empty();
        const bool write =
            over || (one.state == socket_state::connected && one.out.size() < one.room);
        const bool wanted = (read && what.read) || (write && what.write);
        return {wanted ? &what : nullptr, read && what.read, write && what.write};
    }

    std::map<handle, watched*> sockets_;
    std::vector<handle> found_;
    handle last_ = 0;
};

}  // namespace p2pchat::detail::os

namespace p2pchat::detail {

class session;

/// In place of TLS: see encryption.hpp.
class tls {
public:
    std::error_code open(const std::string&) {
        key_ = simulation::net->current->key;
        return {};
    }
    std::unique_ptr<session> new_session(bool accepts);
    public_key own() const;

private:
    std::uint64_t key_ = 0;
};

}  // namespace p2pchat::detail

#endif  // P2PCHAT_TESTS_SIMULATION_PLATFORM_HPP
