// A network of peers in memory: the header's engine on a platform of its own (platform.hpp), where
// processes are killed, stopped and started again, connections are cut and clocks leap, strangers
// flood discovery and name false peers, and what the library promises is checked at each step. A
// run follows from its seed alone.
//
//     simulation [--seed N] [--count N] [--seconds N] [--peers N] [--trace]
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_PLATFORM "tests/simulation/platform.hpp"  // as the header finds it
#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"

#include "tests/simulation/encryption.hpp"

#include <cstdio>
#include <cstdlib>
#include <optional>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) (static_cast<void>(address))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) (static_cast<void>(address))
#endif

namespace {

/// The memory of a run, at the same addresses each time: timers that are due at once run in the
/// order of their addresses, and a seed has to give the same run whatever ran before. The address
/// sanitizer is told what is freed.
class arena {
public:
    void begin() noexcept {
        if (!start_) start_ = static_cast<char*>(std::malloc(size));
        used_ = 0;
        for (void*& list : free_) list = nullptr;
        on_ = start_ != nullptr;
        ASAN_UNPOISON_MEMORY_REGION(start_, size);
    }
    void end() noexcept { on_ = false; }
    void* get(std::size_t bytes) noexcept {
        const std::size_t kind = kind_of(bytes);
        if (!on_ || kind >= kinds) return std::malloc(bytes);
        if (void* const again = free_[kind]) {
            ASAN_UNPOISON_MEMORY_REGION(again, std::size_t{16} << kind);
            free_[kind] = *static_cast<void**>(again);
            return again;
        }
        const std::size_t whole = std::size_t{16} << kind;
        if (size - used_ < whole) return std::malloc(bytes);
        used_ += whole;
        return start_ + used_ - whole;
    }
    void put(void* what, std::size_t bytes) noexcept {
        if (!start_ || std::less<>()(static_cast<char*>(what), start_) ||
            !std::less<>()(static_cast<char*>(what), start_ + size))
            return std::free(what);
        if (!on_) return;
        const std::size_t kind = kind_of(bytes);
        *static_cast<void**>(what) = free_[kind];
        free_[kind] = what;
        ASAN_POISON_MEMORY_REGION(what, std::size_t{16} << kind);
    }

private:
    static std::size_t kind_of(std::size_t bytes) noexcept {
        std::size_t kind = 0;
        while ((std::size_t{16} << kind) < bytes) ++kind;
        return kind;
    }

    static constexpr std::size_t size = std::size_t{256} << 20, kinds = 20;
    char* start_ = nullptr;
    std::size_t used_ = 0;
    void* free_[kinds] = {};
    bool on_ = false;
} memory;

}  // namespace

void* operator new(std::size_t size) {
    if (simulation::fails_now()) throw std::bad_alloc();
    void* const result = memory.get(size + 16);
    if (!result) throw std::bad_alloc();
    *static_cast<std::size_t*>(result) = size + 16;
    return static_cast<char*>(result) + 16;
}
void operator delete(void* what) noexcept {
    if (!what) return;
    void* const start = static_cast<char*>(what) - 16;
    memory.put(start, *static_cast<std::size_t*>(start));
}
void operator delete(void* what, std::size_t) noexcept { operator delete(what); }

namespace {

using namespace std::chrono_literals;
using namespace p2pchat::detail;
using p2pchat::config;
using p2pchat::encryption;
using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::public_key;
using simulation::milliseconds;
using simulation::net;

/// Whether a message still has to come in order after its sender was told that it timed out or was
/// lost. It does not: a process that resumes may read a new connection before an old link, which
/// its peer has given up meanwhile.
constexpr bool late_in_order = false;

/// Descriptors; a process with fewer may have none left for a connection.
constexpr std::size_t enough = 1000;

/// How much too late an outcome may be reported in a busy process.
constexpr milliseconds slack{300};

struct options {
    std::uint64_t seed = 1, count = 1;
    int seconds = 20;
    std::size_t peers = 0;  // 0: random
    bool trace = false;
} chosen;

/// The first broken promise ends the run.
struct broken_promise {
    std::string what;
};

std::string place() {
    const auto since = std::chrono::duration_cast<std::chrono::microseconds>(
        net->now.time_since_epoch() - std::chrono::hours(1));
    char text[32];
    std::snprintf(text, sizeof text, "%.6f s: ", static_cast<double>(since.count()) / 1e6);
    return text;
}

template <typename... Parts>
std::string join(const Parts&... parts) {
    std::string result;
    const auto add = [&](const auto& part) {
        if constexpr (std::is_convertible_v<decltype(part), std::string_view>)
            result.append(part);
        else if constexpr (std::is_same_v<std::decay_t<decltype(part)>, endpoint>)
            result.append(to_string(part));
        else if constexpr (std::is_same_v<std::decay_t<decltype(part)>, std::error_code>)
            result.append(part ? part.message() : "delivered");
        else
            result.append(std::to_string(part));
    };
    (add(parts), ...);
    return result;
}

template <typename... Parts>
void trace(const Parts&... parts) {
    if (chosen.trace) std::printf("%s%s\n", place().c_str(), join(parts...).c_str());
}

template <typename... Parts>
void require(bool holds, const Parts&... parts) {
    if (!holds) throw broken_promise{join(place(), parts...)};
}

/// A message, from its post to its end.
struct sent {
    std::uint64_t from = 0;  // a life of a process
    endpoint to;
    std::string text;  // begins with its number
    bool keeps = false, over = false;
    std::vector<public_key> keys;   // that its sender had pinned for its peer until its end
    bool any_key = false;           // for a time its sender had pinned none
    std::optional<awaited> answer;  // if its sender waits
    bool shown = false, confirmed = false;
    std::error_code outcome = std::make_error_code(std::errc::operation_in_progress);
    clock::duration at{}, limit{};  // in the sender's own time
    clock::time_point kept_from{};  // on its clock
};

class world;

/// A process that runs a node, again and again.
class peer_process {
public:
    peer_process(world& all, simulation::machine& where, std::uint16_t number, bool discovers,
                 encryption mode);

    bool lives() const noexcept { return engine_ != nullptr; }
    endpoint address() const { return {system.where->address.bytes(), settings_.port, 0}; }
    const std::string& name() const noexcept { return settings_.team; }

    void start();
    void kill();
    void stop();
    void stand_still(std::chrono::microseconds time);
    /// Once it has next sent only a part of something.
    void in_midst(std::function<void()> fate) { fate_ = std::move(fate); }
    void excuse(clock::duration time) noexcept { excused_ += time; }
    void be_short_of_memory(std::size_t failing) noexcept {
        system.no_memory = failing;
        was_short_ = was_short_ || failing != 0;
    }
    bool post(const endpoint& to, std::string text, bool waits, bool opens_link,
              bool keeps = false);
    void broadcast(std::size_t size);
    endpoint known_peer() const;
    void check_at_end();
    /// Checks that messages kept for a peer that is there and was heard have been sent.
    void check_kept(const peer_process& other);
    /// Whether it claims the address at which it is.
    bool claim_holds() const;
    bool may_link() const;  ///< and has room for another
    bool knows(const peer_process& other) const;
    bool is_linked(const peer_process& other) const;
    /// Checks that the two have found each other, and are linked if their programs saw to that.
    void check_found(const peer_process& other, bool nobody_left) const;
    bool has_found(const peer_process& other) const;
    /// Whether discovery finds it. One with few links or connections gives up one for another, and
    /// then finds the peer that it gave up again.
    bool is_on_lan() const;
    /// Whether it hears of others at once, however many there are.
    bool hears_at_once() const { return is_on_lan() && settings_.max_received_bytes > 10000; }
    void trust(const endpoint& other, const public_key& key);
    /// Its program names the other's key, without which it may send what the other refuses.
    void accept(const peer_process& other);
    /// Whether neither side refuses the other.
    bool may_talk(const peer_process& other) const;
    bool is_encrypted() const { return settings_.encryption != encryption::off; }
    bool has_descriptors() const noexcept { return system.max_open == enough; }

    simulation::process system;

private:
    void turn();
    void do_work();
    void sleep();
    void take();
    void take_event(const event& what);
    void take_message(const p2pchat::message& what);
    void confirm_later(std::uint64_t receipt, std::uint64_t number);
    void check_key(const p2pchat::message& what) const;
    void check_sent(const simulation::socket& by, std::string_view bytes);
    const std::map<endpoint, public_key>& pins() const;
    public_key pinned(const endpoint& who) const;
    bool accepts(const peer_process& other) const;
    void trust_later(const endpoint& other, const public_key& key);
    void check_refusal(const endpoint& from, std::error_code why);
    void handle_some();
    void handle_one();
    void give_back(std::size_t bytes);
    bool post(std::uint64_t number, bool opens_link);  ///< false if it is refused at once
    void connect_later(const endpoint& to, std::chrono::microseconds delay);
    std::set<std::uint64_t> kept_numbers() const;
    void tell(sent& message, std::error_code error);
    void check_waiting();
    void check_bounds();
    void end_life();
    /// Its own time, without that during which it did not run.
    clock::duration own_time() const { return net->time_of(system).time_since_epoch() - excused_; }

    world& all_;
    config settings_;
    p2pchat::counters counts_;
    std::unique_ptr<engine> engine_;
    std::mutex unlocked_;  // as there are no threads
    spin_policy spin_;
    waiter caller_{unlocked_, spin_, SIZE_MAX};  // for all outcomes that are waited for
    std::uint64_t life_ = 0;
    clock::time_point alarm_ = never;
    clock::duration excused_{};
    std::function<void()> fate_;
    std::deque<std::size_t> inbox_;  // costs of messages taken but not yet handled
    std::size_t held_ = 0;           // the sum of these costs
    std::size_t news_ = 0;           // events other than messages since the last message
    bool handling_ = false;
    std::set<std::uint64_t> pending_;  // messages without an outcome yet
    std::set<std::uint64_t> stored_;   // messages kept for longer than a process lives
    /// The last number shown, by the sender's life and by the name under which it wrote to us.
    std::map<std::pair<std::uint64_t, endpoint>, std::uint64_t> last_from_, last_kept_from_;
    std::set<endpoint> joined_, found_;
    mutable std::map<endpoint, public_key> pins_;
    mutable std::size_t read_pins_ = 0;  // bytes of the file
    std::string sent_plain_;             // and must not have
    bool seeks_ = false;                 // its program connects to those that it finds
    bool was_short_ = false;             // of memory in this life, so that it may not know who left
};

class world {
public:
    world(std::uint64_t seed, std::size_t count);
    world(const world&) = delete;
    void live(std::chrono::seconds time);

    simulation::network wires;
    std::deque<simulation::machine> machines;
    std::deque<peer_process> peers;
    std::deque<sent> messages;                  // by their number
    std::map<endpoint, std::string> strangers;  // what each says, by where it comes from
    std::uint64_t lives = 0;
    std::size_t moves = 0;
    std::uint64_t keys = 0;
    bool seeking = true;  // programs connect to those that they find

    std::uint64_t number_of(std::string_view text) const {
        std::uint64_t number = messages.size();
        if (!text.empty() && text.front() == '#')
            std::from_chars(text.data() + 1, text.data() + text.size(), number);
        return number;
    }
    std::string new_text(std::size_t size) const {
        std::string text = join("#", messages.size(), " ");
        text.append(size, static_cast<char>('a' + messages.size() % 26)).append(".");
        return text;
    }
    peer_process& any_peer() { return peers[wires.random.below(peers.size())]; }

private:
    void act();
    void misfortune();
    void be_strange();
    void take_without_closing();
    void shout(const endpoint& from, std::string_view text);
    void flood(simulation::time_point end);
    void name_false_peers();
    void check_found();
    void check_newcomer();
    void settle(std::chrono::seconds time);
    /// With encryption, one that claims an address at which it no longer is may be refused.
    bool may_confuse(const peer_process& one, const peer_process& other) const {
        return encryption_ && (!one.claim_holds() || !other.claim_holds());
    }
    void check_reach(peer_process& one, peer_process& other);
    bool was_delivered(peer_process& by, const peer_process& to, std::string text, bool opens_link);

    struct taken {
        p2pchat::tcp_socket socket;
        std::string text;
        bool whole = false;
    };

    /// A host that links itself to nodes and names false peers, as often as it is asked.
    struct liar {
        simulation::machine where;
        simulation::process system;
        std::string names;
        std::deque<std::pair<p2pchat::tcp_socket, std::string>> links;  // and what to send

        void turn();
    };

    bool discovery_ = false, encryption_ = false, exits_ = true;
    std::deque<liar> liars_;
    std::optional<peer_process> newcomer_;
    std::size_t flooded_ = 0;
    simulation::process stranger_;
    std::deque<p2pchat::tcp_socket> strange_;
    p2pchat::tcp_socket silent_;  // where a program listens that does not close what it has taken
    std::deque<taken> taken_;
};

// ------------------------------------------------------------------------------- a peer's process

peer_process::peer_process(world& all, simulation::machine& where, std::uint16_t number,
                           bool discovers, encryption mode)
    : all_(all) {
    auto& random = net->random;
    system.where = &where;
    system.turn = [this] { turn(); };
    settings_.team = join("P", number);
    settings_.port = static_cast<std::uint16_t>(5000 + number);
    if (random.chance(300)) settings_.address = where.address.address();
    settings_.max_message_bytes = random.chance(700) ? 1024 : 70000;
    settings_.max_connections = random.chance(discovers ? 250 : 500) ? random.between(1, 8) : 100;
    settings_.max_links = random.chance(discovers ? 250 : 500) ? random.below(4) : 100;
    settings_.max_peers = random.chance(300) ? random.between(1, 4) : 100;
    settings_.max_queued_bytes = random.chance(500) ? random.between(1, 2000) : 100000;
    settings_.max_received_bytes = random.chance(500) ? random.between(1, 3000) : 100000;
    settings_.connect_timeout = milliseconds(random.between(500, 2000));
    settings_.handshake_timeout = milliseconds(random.between(500, 2000));
    settings_.delivery_timeout = milliseconds(random.between(500, 2000));
    settings_.first_message_timeout = milliseconds(3000);
    settings_.quiet_period = milliseconds(1500);
    settings_.keep_alive = std::chrono::seconds(2);
    if (random.chance(300)) settings_.keep_for = std::chrono::seconds(random.below(20));
    if (random.chance(300)) settings_.max_kept_bytes = random.between(1, 3000);
    system.max_open = random.chance(100) ? random.between(4, 12) : enough;
    settings_.confirm_later = random.chance(300);
    settings_.discovery = discovers;
    seeks_ = discovers && random.chance(700);
    settings_.encryption = mode;
    if (!is_encrypted()) return;
    settings_.pins = name();
    system.on_sent = [this](const auto& by, std::string_view bytes) { check_sent(by, bytes); };
}

void peer_process::start() {
    net->current = &system;
    if (is_encrypted()) {  // another program, or its files are lost
        if (system.key == 0 || net->random.chance(200)) system.key = ++all_.keys;
        if (net->random.chance(100)) {
            net->files.erase(settings_.pins);
            pins_.clear();
            read_pins_ = 0;
        }
    }
    engine_ = std::make_unique<engine>(settings_, counts_);
    if (const auto error = engine_->start(os::now())) {
        require(false, name(), " does not start: ", error);
    }
    life_ = ++all_.lives;
    was_short_ = system.no_memory != 0;
    trace(name(), " starts its life ", life_, " as ", address());
    net->wake(system);
    for (const auto number : std::exchange(stored_, {})) post(number, false);
}

/// One turn of the loop, as node::impl has it.
void peer_process::turn() {
    if (!engine_) return;
    net->current = &system;
    net->most_accepted = 0;
    net->out_of_descriptors = net->sent_in_part = false;
    auto& events = engine_->events();
    do_work();
    events.prepare();
    const auto began = os::now();
    const int count = events.wait(0);
    engine_->set_time(os::now(), os::wall_time());
    net->most_accepted = net->accepted(system, nullptr);
    const int ready = events.collect(count, began);
    for (int i = 0; i < ready; ++i) {
        if (net->random.chance(100)) handle_one();
        const simulation::with_memory_of ours(&system);
        events.run_event(i);
    }
    {
        const simulation::with_memory_of ours(&system);
        events.run_timers();
    }
    take();
    check_waiting();
    check_bounds();
    if (net->sent_in_part && fate_ && !net->calm) return std::exchange(fate_, nullptr)();
    if (count != 0 || engine_->has_work()) return net->wake(system, system.stormy ? 1000us : 20us);
    do_work();  // as the loop does before it sleeps
    sleep();
}

void peer_process::do_work() {
    const simulation::with_memory_of ours(&system);
    engine_->do_work();
}

/// Waits until the next timer, unless something happens before.
void peer_process::sleep() {
    const auto next = engine_->events().next_timer();
    if (next == never) return;
    const auto when = (std::max)(next - system.where->leap, net->now + 1ms);
    if (alarm_ > net->now && alarm_ <= when) return;
    alarm_ = when;
    net->at(when, [this] { net->wake(system); });
}

/// Takes and records what the mailbox has; it is handled, and the room given back, later.
void peer_process::take() {
    bunch work, used;
    engine_->mail().take(work);
    news_ = 0;
    while (!work.empty()) {
        bool is_news = false;
        const auto bytes = work.pass_on(
            [&](const event& what) {
                is_news = what.kind != event_kind::message;
                take_event(what);
            },
            [](const posting& one) { one.done(one.outcome); }, used);
        inbox_.push_back(bytes);
        held_ += bytes;
        if (is_news) news_ += bytes;
    }
    engine_->mail().give_back(used, 0);
    if (!std::exchange(handling_, true)) handle_some();
}

void peer_process::take_event(const event& what) {
    const endpoint& about = what.content.sender;
    if (what.kind == event_kind::message) {
        // Each may cause events: peers that join or leave by it, or a refusal.
        require(held_ - news_ < settings_.max_received_bytes, name(),
                " takes messages although it holds ", held_ - news_, " bytes, at most ",
                settings_.max_received_bytes);
        news_ = 0;
        take_message(what.content);
    } else if (what.kind == event_kind::joined) {
        trace(name(), ": ", about, " joined");
        require(joined_.insert(about).second || was_short_, name(), ": ", about, " joined twice");
    } else if (what.kind == event_kind::left) {
        trace(name(), ": ", about, " left");
        require(joined_.erase(about) == 1 || was_short_, name(), ": ", about,
                " left, and had not joined");
    } else if (what.kind == event_kind::kept) {
        trace(name(), " keeps ", what.content.text.substr(0, 40), " for ", about);
    } else if (what.kind == event_kind::rejected) {
        check_refusal(about, what.why);
    } else if (what.kind == event_kind::found) {
        trace(name(), " finds ", about);
        require(found_.insert(about).second || was_short_, name(), " finds ", about, " twice");
        if (seeks_ && all_.seeking) connect_later(about, net->random.time(0ms, 5ms));
    } else if (what.kind == event_kind::gone) {
        trace(name(), ": ", about, " is gone");
        require(found_.erase(about) == 1 || was_short_, name(), ": ", about,
                " is gone, and had not been found");
    } else if (what.kind == event_kind::key_changed) {
        trace(name(), ": ", about, " has another key");
        require(is_encrypted(), name(), " is told of a key and does not encrypt");
        if (net->random.chance(500)) trust_later(about, what.content.key);
    }
}

/// As the README's program does, except that it tries again if there is no room at once.
void peer_process::connect_later(const endpoint& to, std::chrono::microseconds delay) {
    net->in(delay, [this, to, life = life_] {
        if (life != life_ || !engine_ || !all_.seeking) return;
        if (system.stopped || !post(to, "CONNECT", false, true)) connect_later(to, 1s);
    });
}

void peer_process::take_message(const p2pchat::message& what) {
    const std::string_view text = what.text;
    trace(name(), ": ", what.sender, " says ", text.substr(0, 40), " over ", what.origin);
    const auto number = all_.number_of(text);
    if (what.receipt != 0) confirm_later(what.receipt, number);
    check_key(what);
    const bool disturbed = net->disturbed.count(what.origin) != 0;
    const auto strange = all_.strangers.find(what.origin);
    if (strange != all_.strangers.end())
        return require(disturbed || text.substr(0, strange->second.size()) == strange->second,
                       name(), " shows a stranger's '", text, "' of '", strange->second, "'");
    if (number >= all_.messages.size()) return require(disturbed, name(), " shows '", text, "'");
    sent& message = all_.messages[number];
    if (text != message.text)
        return require(disturbed && !what.key, name(), " shows a message of ", message.text.size(),
                       " bytes cut: '", text.substr(0, 40), "', ", text.size(), " bytes");
    require(message.any_key || std::count(message.keys.begin(), message.keys.end(),
                                          simulation::key_of(system.key)) != 0,
            name(), " shows number ", number, ", which its sender did not mean for its key");
    auto& last = (message.keeps ? last_kept_from_ : last_from_)[{message.from, message.to}];
    require(!std::exchange(message.shown, true), name(), " shows number ", number, " twice");
    if (what.receipt == 0) message.confirmed = true;
    if (message.over && !late_in_order) return;
    // It is kept under the address that its peer had then, so a post to another may overtake it.
    if (message.keeps && all_.moves != 0) return;
    require(number > last, name(), " shows number ", number, " after ", last);
    last = number;
}

/// Checks that its sender is to be believed.
void peer_process::check_key(const p2pchat::message& what) const {
    if (!is_encrypted()) return;
    require(what.key || settings_.encryption != encryption::required, name(),
            " takes a message unencrypted from ", what.sender);
    const public_key known = pinned(what.sender);
    require(!what.verified || !known || known == what.key, name(), " takes a message from ",
            what.sender, what.key ? " under another key" : " unencrypted");
}

/// Checks that nothing is sent unencrypted to a peer whose key is known, and with `required` to
/// nobody. What is broken is reported later, as callers may not throw.
void peer_process::check_sent(const simulation::socket& by, std::string_view bytes) {
    if (by.first >= tls_alert && by.first <= tls_handshake) return;
    if (settings_.encryption == encryption::required) sent_plain_ = join("to ", by.remote);
    for (auto at = bytes.find('#'); at < bytes.size(); at = bytes.find('#', at + 1)) {
        const auto number = all_.number_of(bytes.substr(at));
        if (bytes.find(' ', at) == std::string_view::npos || number >= all_.messages.size())
            continue;
        const sent& message = all_.messages[number];
        // A link that was unencrypted before may still have lines to send.
        const bool before = by.is_link && message.any_key;
        if (message.from == life_ && pinned(message.to) && !before)
            sent_plain_ = join("number ", number, " to ", message.to);
    }
}

const std::map<endpoint, public_key>& peer_process::pins() const {
    const std::string_view all = net->files[settings_.pins];
    while (read_pins_ < all.size()) {
        const auto end = all.find('\n', read_pins_);
        const auto line = all.substr(read_pins_, end - read_pins_);
        endpoint who;
        public_key key;
        require(!parse(line.substr(0, line.find(' ')), who) &&
                    scan_key(line.substr(line.rfind(' ') + 1), key),
                name(), " has pinned '", line, "'");
        pins_[who] = key;
        read_pins_ = end + 1;
    }
    return pins_;
}

public_key peer_process::pinned(const endpoint& who) const {
    if (!is_encrypted()) return {};
    const auto found = pins().find(who);
    return found == pins().end() ? public_key() : found->second;
}

/// As a program that has asked its user, who takes a while.
void peer_process::trust_later(const endpoint& other, const public_key& key) {
    net->in(net->random.time(0ms, 2000ms), [this, other, key, life = life_] {
        if (life != life_ || !engine_) return;
        system.stopped ? trust_later(other, key) : trust(other, key);
    });
}

void peer_process::trust(const endpoint& other, const public_key& key) {
    trace(name(), " trusts ", key ? "a key of " : "no key of ", other);
    net->current = &system;
    engine_->set_time(os::now(), os::wall_time());
    take();
    require(!engine_->trust(other, key), name(), " cannot trust a key");
    require(!is_encrypted() || pinned(other) == key, name(), " does not pin a trusted key");
    for (const auto number : pending_) {
        sent& message = all_.messages[number];
        if (message.to != other) continue;
        message.keys.push_back(key);
        message.any_key |= !key;
    }
    take();
    net->wake(system);
}

bool peer_process::accepts(const peer_process& other) const {
    if (!is_encrypted()) return other.settings_.encryption != encryption::required;
    if (settings_.encryption == encryption::required && !other.is_encrypted()) return false;
    const public_key known = pinned(other.address());
    return !known || known == simulation::key_of(other.system.key);
}

void peer_process::accept(const peer_process& other) {
    const public_key key = simulation::key_of(other.system.key);
    if (is_encrypted() && pinned(other.address()) != key) trust(other.address(), key);
}

bool peer_process::may_talk(const peer_process& other) const {
    return accepts(other) && other.accepts(*this);
}

/// As a program that knows only later whether it took the message, maybe too late.
void peer_process::confirm_later(std::uint64_t receipt, std::uint64_t number) {
    auto& random = net->random;
    const bool taken = net->calm || random.chance(950);
    const auto pause = random.time(0ms, !net->calm && random.chance(50) ? 2500ms : 5ms);
    net->in(pause, [this, receipt, number, taken, life = life_] {
        if (life != life_ || !engine_) return;
        if (system.stopped) return confirm_later(receipt, number);
        trace(name(), taken ? " confirms " : " does not take ", receipt);
        if (taken && number < all_.messages.size()) all_.messages[number].confirmed = true;
        net->current = &system;
        engine_->set_time(os::now(), os::wall_time());
        {
            const simulation::with_memory_of ours(&system);
            engine_->confirm(receipt, taken);
        }
        take();
        net->wake(system);
    });
}

/// Checks that no connection is evicted without need, and then one of the host with most.
void peer_process::check_refusal(const endpoint& from, std::error_code why) {
    trace(name(), " refuses ", from, ": ", why);
    if (why != errc::connection_limit) return;
    require(net->out_of_descriptors || net->most_accepted >= settings_.max_connections, name(),
            " refuses ", from, " with ", net->most_accepted, " of ", settings_.max_connections,
            " connections");
    const auto found = net->evicted.find(from);
    require(found == net->evicted.end() || found->second, name(), " refuses ", from,
            " although another host has more connections");
}

/// The handlers, which are slow at times, and slower the less room there is.
void peer_process::handle_some() {
    std::size_t bytes = 0;
    for (auto left = net->random.between(1, 20); left != 0 && !inbox_.empty(); --left) {
        bytes += inbox_.front();
        held_ -= inbox_.front();
        inbox_.pop_front();
    }
    if (bytes != 0) give_back(bytes);
    handling_ = !inbox_.empty();
    if (!handling_) return;
    const auto life = life_;
    const auto pause = net->random.time(0ms, !net->calm && net->random.chance(50) ? 1000ms : 5ms);
    net->in(pause, [this, life] {
        if (life == life_ && engine_) handle_some();
    });
}

/// As the driver may at any time, while the standby drives.
void peer_process::handle_one() {
    if (inbox_.empty()) return;
    const auto bytes = inbox_.front();
    held_ -= bytes;
    inbox_.pop_front();
    give_back(bytes);
}

void peer_process::give_back(std::size_t bytes) {
    bunch none;
    engine_->mail().give_back(none, bytes);
    if (engine_->has_work()) net->wake(system);
}

bool peer_process::post(const endpoint& to, std::string text, bool waits, bool opens_link,
                        bool keeps) {
    const auto number = all_.messages.size();
    sent& message = all_.messages.emplace_back();
    message.to = to;
    message.text = std::move(text);
    if (waits) message.answer.emplace(awaited{caller_, message.outcome});
    message.keeps = keeps;
    return post(number, opens_link);
}

bool peer_process::post(std::uint64_t number, bool opens_link) {
    net->current = &system;
    engine_->set_time(os::now(), os::wall_time());
    sent& message = all_.messages[number];
    message.from = life_;
    message.over = false;
    message.outcome = std::make_error_code(std::errc::operation_in_progress);
    message.at = own_time();
    postings item;
    engine_->mail().new_posting(item);
    posting& what = item.front();
    what.opens_link = opens_link;
    const public_key known = pinned(message.to);
    message.keys.assign(1, known);
    message.any_key = !known;
    auto step = settings_.connect_timeout +
                (std::max)(settings_.delivery_timeout, settings_.handshake_timeout);
    // One handshake more, and then perhaps all again unencrypted.
    if (is_encrypted()) step = 2 * (step + settings_.handshake_timeout);
    if (message.answer) {
        message.limit = opens_link ? step : settings_.connect_timeout + settings_.delivery_timeout;
        what.caller = &*message.answer;
        what.deadline = os::now() + message.limit;
    } else {
        // At worst all waiting messages go one after the other, each after a failed link.
        message.limit = 2 * step * static_cast<int>(pending_.size() + 2);
        what.done = [this, number](std::error_code error) { tell(all_.messages[number], error); };
    }
    if (message.keeps) {
        message.kept_from = os::now();
        message.limit += settings_.keep_for;
        engine_->may_keep(what);
    }
    std::size_t queued = 0;
    for (const auto other : pending_) {
        const sent& before = all_.messages[other];
        if (before.to == message.to && !before.keeps && !before.over &&
            before.outcome == std::errc::operation_in_progress)
            queued += before.text.size();
    }
    std::error_code error;
    try {
        const simulation::with_memory_of ours(&system);
        error = engine_->post(message.to, message.text, item);
    } catch (const std::bad_alloc&) {
        error = std::make_error_code(std::errc::not_enough_memory);
    }
    trace(name(), " posts ", message.text.substr(0, 40), " to ", message.to,
          message.answer ? ", waiting" : "", message.keeps ? ", to be kept" : "",
          error ? ": " + error.message() : "");
    if (error) return message.over = true, false;
    require(
        message.keeps || queued == 0 || queued + message.text.size() <= settings_.max_queued_bytes,
        name(), " queues ", queued + message.text.size(), " bytes for ", message.to);
    pending_.insert(number);
    take();
    net->wake(system);
    return true;
}

std::set<std::uint64_t> peer_process::kept_numbers() const {
    std::set<std::uint64_t> result;
    for (const auto& one : engine_->kept()) {
        const auto number = all_.number_of(one.text);
        require(pending_.count(number) == 1 && result.insert(number).second, name(), " keeps ",
                one.text.substr(0, 40), " twice, or after its outcome");
    }
    return result;
}

void peer_process::broadcast(std::size_t size) {
    net->current = &system;
    for (const auto& one : engine_->peers()) post(one.address, all_.new_text(size), false, false);
}

endpoint peer_process::known_peer() const {
    net->current = const_cast<simulation::process*>(&system);
    const auto known = engine_->peers();
    return known.empty() ? endpoint() : known[net->random.below(known.size())].address;
}

void peer_process::tell(sent& message, std::error_code error) {
    trace(name(), " is told of ", message.text.substr(0, 40), " to ", message.to, ": ", error);
    require(!message.over, name(), " is told twice of ", message.text.substr(0, 40));
    message.over = true;
    message.outcome = error;
    const bool command = message.text.front() != '#';
    require(error || command || message.confirmed, name(),
            " is told delivered, but not taken: ", message.text.substr(0, 40), " to ", message.to);
    require(error != std::errc::operation_in_progress, name(), " is told nothing");
    const auto kept_for = net->time_of(system) - message.kept_from;
    require(error != errc::expired || (message.keeps && kept_for >= settings_.keep_for), name(),
            " does not keep ", message.text.substr(0, 40), " for as long as it should");
    const auto took = own_time() - message.at;
    require(took <= message.limit + slack, name(), " waited ",
            std::chrono::duration_cast<milliseconds>(took).count(), " ms for ",
            message.text.substr(0, 40), " to ", message.to, ", at most ",
            std::chrono::duration_cast<milliseconds>(message.limit).count());
}

/// Checks that blocking callers get their outcome at once, and wait no longer than allowed.
void peer_process::check_waiting() {
    for (auto place = pending_.begin(); place != pending_.end();) {
        sent& message = all_.messages[*place];
        const bool told = message.answer && message.outcome != std::errc::operation_in_progress;
        if (told) tell(message, std::error_code(message.outcome));
        const auto waited = own_time() - message.at;
        require(message.over || waited <= message.limit + slack, name(), " waits ",
                std::chrono::duration_cast<milliseconds>(waited).count(), " ms for ",
                message.text.substr(0, 40), " to ", message.to, ", at most ",
                std::chrono::duration_cast<milliseconds>(message.limit).count());
        place = message.over ? pending_.erase(place) : std::next(place);
    }
}

void peer_process::check_bounds() {
    require(sent_plain_.empty(), name(), " sends unencrypted: ", sent_plain_);
    std::size_t accepted = 0, links = 0, ours = 0;
    for (const auto& [id, one] : net->sockets) {
        if (one.owner != &system || one.orphan || one.state == simulation::socket::listening ||
            one.state == simulation::socket::datagrams)
            continue;
        if (one.is_link)
            ++links;
        else if (one.accepted)
            ++accepted;
        else if (one.local)
            ++ours;
    }
    ours -= (std::min)(ours, net->queued(system));
    require(accepted <= settings_.max_connections, name(), " has accepted ", accepted);
    require(ours <= settings_.max_connections, name(), " has opened ", ours);
    require(links <= settings_.max_links, name(), " has ", links, " links, at most ",
            settings_.max_links);
    require(joined_.size() <= settings_.max_peers + links || was_short_, name(), " knows ",
            joined_.size(), " peers with ", links, " links");
    std::size_t kept = 0;
    for (const auto& one : engine_->kept()) kept += one.text.size();
    require(kept <= settings_.max_kept_bytes, name(), " keeps ", kept, " bytes");
}

void peer_process::check_at_end() {
    if (!engine_) return;
    net->current = &system;
    // With discovery, a peer may just have been heard, and kept messages be on their way to it.
    const auto kept = kept_numbers();
    for (const auto number : pending_)
        require(kept.count(number) == 1 || (settings_.discovery && all_.messages[number].keeps),
                name(), " is never told of ", all_.messages[number].text.substr(0, 40));
    std::set<endpoint> known;
    for (const auto& one : engine_->peers()) {
        known.insert(one.address);
        require(one.linked || one.address.port() < simulation::first_free_port ||
                    all_.strangers.count(one.address) != 0,
                name(), " knows ", one.address, ", the end of a link that has ended");
    }
    require(known == joined_ || was_short_, name(), " knows others than have joined");
    std::set<endpoint> found;
    for (const auto& one : engine_->candidates()) found.insert(one.address);
    require(found == found_ || was_short_, name(), " has other candidates than it was told of");
    const auto left = net->accepted(system, nullptr);
    require(left == 0, name(), " keeps ", left, " connections that bring nothing");
}

void peer_process::check_kept(const peer_process& other) {
    if (!other.claim_holds() || !may_talk(other)) return;
    for (const auto& one : engine_->kept())
        require(!(one.to == other.address()) || one.team != other.name(), name(), " keeps ",
                one.text.substr(0, 40), " though ", other.name(), " is there");
}

bool peer_process::may_link() const {
    std::size_t links = 0;
    for (const auto& [id, one] : net->sockets) links += one.owner == &system && one.is_link;
    return links < settings_.max_links && has_descriptors() && claim_holds();
}

bool peer_process::claim_holds() const {
    return settings_.address.empty() || settings_.address == system.where->address.address();
}

bool peer_process::knows(const peer_process& other) const {
    net->current = const_cast<simulation::process*>(&system);
    for (const auto& one : engine_->peers())
        if (one.address == other.address()) return true;
    return false;
}

bool peer_process::is_linked(const peer_process& other) const {
    return engine_->has_link(other.address());
}

bool peer_process::is_on_lan() const {
    return lives() && settings_.discovery && has_descriptors() && claim_holds() &&
           settings_.max_links > 50 && settings_.max_connections > 50;
}

bool peer_process::has_found(const peer_process& other) const {
    for (const auto& one : engine_->candidates())
        if (one.address == other.address()) return true;
    return false;
}

void peer_process::check_found(const peer_process& other, bool nobody_left) const {
    if (!is_on_lan() || !other.is_on_lan() || !may_talk(other)) return;
    require(has_found(other), name(), " has not found ", other.name());
    // One that was short of memory may not have been able to connect.
    const auto links = [](const peer_process& one) { return one.seeks_ && !one.was_short_; };
    require(!nobody_left || !links(*this) || !links(other) || is_linked(other), name(),
            " has found ", other.name(), " and has no link to it");
}

void peer_process::kill() {
    trace(name(), " is killed");
    net->current = &system;
    take();  // it had taken that much
    stored_ = kept_numbers();
    end_life();
}

void peer_process::stop() {
    trace(name(), " stops");
    net->current = &system;
    engine_->set_time(os::now(), os::wall_time());
    const auto kept = pending_;
    {
        const simulation::with_memory_of ours(&system);
        engine_->stop(make_error_code(errc::stopped));
    }
    take();
    check_waiting();
    for (const auto number : kept)
        if (all_.messages[number].outcome == errc::not_sent) stored_.insert(number);
    require(pending_.empty(), name(), " stopped without an outcome");
    end_life();
}

void peer_process::end_life() {
    system.stopped = false;
    engine_.reset();  // as the system does, without notice
    pending_.clear();
    inbox_.clear();
    joined_.clear();
    found_.clear();
    was_short_ = false;
    last_from_.clear();
    last_kept_from_.clear();
    held_ = 0;
    handling_ = false;
}

void peer_process::stand_still(std::chrono::microseconds time) {
    if (system.stopped) return;
    trace(name(), " stands still");
    system.stopped = true;
    for (const auto& [id, one] : net->sockets)  // its data arrives in part, with a pause
        if (one.owner == &system && !one.accepted && !one.end_wanted) net->disturb(one);
    const auto life = life_;
    net->in(time, [this, time, life] {
        if (life != life_ || !engine_) return;
        trace(name(), " goes on");
        system.stopped = false;
        system.interrupted = true;
        excused_ += time;
        net->wake(system);
    });
}

// ----------------------------------------------------------------------------------- what happens

world::world(std::uint64_t seed, std::size_t count) : wires(seed) {
    net = &wires;
    if (count == 0) count = wires.random.between(2, 8);
    const auto hosts = wires.random.between(1, count + 1);
    for (std::size_t i = 0; i <= hosts; ++i)
        machines.push_back({endpoint(join("10.0.0.", i + 1), 0), {}, true});
    discovery_ = wires.random.chance(400);
    if (discovery_) {
        const auto carried = wires.random.below(3);
        wires.broadcasts = carried != 1;
        wires.multicasts = carried != 2;
        exits_ = wires.random.chance(300);  // a peer that has left is not linked again
    }
    encryption_ = wires.random.chance(400);
    const auto mode = [this] {
        const auto drawn = encryption_ ? wires.random.below(5) : 0;
        return drawn < 2   ? encryption::off
               : drawn < 4 ? encryption::preferred
                           : encryption::required;
    };
    for (std::size_t i = 0; i < count; ++i) {
        const bool discovers = discovery_ && i / hosts < 8 && wires.random.chance(800);
        peers.emplace_back(*this, machines[1 + i % hosts], static_cast<std::uint16_t>(i), discovers,
                           mode());  // at most eight from one host are found
    }
    machines.push_back({endpoint("10.0.251.1", 0), {}, true});
    newcomer_.emplace(*this, machines.back(), std::uint16_t{999}, true, mode());
    stranger_.where = &machines[0];
    stranger_.turn = [this] { take_without_closing(); };
    wires.current = &stranger_;
    static_cast<void>(silent_.listen({"0.0.0.0", 4000}));
}

/// A random action of a peer.
void world::act() {
    auto& random = wires.random;
    peer_process& who = any_peer();
    if (!who.lives()) {
        if (random.chance(50)) who.start();
        return;
    }
    if (who.system.stopped) return;
    peer_process& other = any_peer();
    endpoint to = other.address();
    if (random.chance(300))
        if (const endpoint known = who.known_peer()) to = known;
    if (random.chance(20)) to = {to.bytes(), static_cast<std::uint16_t>(random.between(1, 9)), 0};
    if (random.chance(20)) to = {stranger_.where->address.bytes(), 4000, 0};
    if (to == who.address()) return;
    const auto size = random.chance(50) ? random.below(2000) : random.below(60);
    const bool waits = random.chance(200);
    const bool keeps = !waits && size < 1000 && random.chance(300);  // short enough for every peer
    const auto what = random.below(1000);
    if (encryption_ && random.chance(5))
        who.trust(to, simulation::key_of(random.below(keys + 2)));
    else if (what < 60)
        who.post(to, "CONNECT", waits, true);
    else if (what < 90)
        exits_ ? static_cast<void>(who.post(to, "exit", waits, false)) : be_strange();
    else if (what < 110)
        who.broadcast(size);
    else if (what < 250)
        be_strange();
    else
        for (auto left = random.chance(100) ? random.between(1, 30) : 1; left != 0; --left)
            who.post(to, new_text(size), waits, false, keeps);
}

/// A random fault.
void world::misfortune() {
    auto& random = wires.random;
    peer_process& who = any_peer();
    simulation::machine& where = *who.system.where;
    const auto what = random.below(110);
    if (what < 10) {
        if (who.lives()) who.kill();
    } else if (what < 20) {
        who.in_midst([&who] { who.kill(); });
    } else if (what < 30) {
        if (who.lives() && !who.system.stopped) who.stop();
    } else if (what < 50) {
        if (who.lives()) who.stand_still(random.time(0ms, 4000ms));
    } else if (what < 60) {
        who.in_midst([&who] { who.stand_still(net->random.time(0ms, 4000ms)); });
    } else if (what < 70) {
        trace("the clock of ", where.address, " leaps");
        const auto leap = random.time(0ms, 5000ms);
        where.leap += leap;
        wires.disturb(where);
        for (auto& one : peers)
            if (one.system.where == &where) one.excuse(leap), net->wake(one.system);
    } else if (what < 80) {
        trace(where.address, " is unplugged");
        where.plugged_in = false;
        const bool for_long = discovery_ && random.chance(300);
        if (for_long) wires.cut(where);
        wires.in(for_long ? 12s : random.time(0ms, 3000ms), [&where] { where.plugged_in = true; });
    } else if (what < 85) {
        const endpoint moved(join("10.0.", 1 + ++moves % 200, ".", random.between(1, 250)), 0);
        trace(where.address, " moves to ", moved);
        wires.move(where, moved);
    } else if (what < 90) {
        trace(who.name(), " is told of sockets that are not ready");
        who.system.stormy = true;
        wires.in(random.time(0ms, 4000ms), [&who] { who.system.stormy = false; });
        wires.wake(who.system);
    } else if (what < 95) {
        trace(who.name(), " is short of memory");
        who.be_short_of_memory(random.chance(300) ? 1000 : random.between(1, 100));
        wires.in(random.time(0ms, 1000ms), [&who] { who.be_short_of_memory(0); });
    } else if (!wires.sockets.empty()) {
        auto place = wires.sockets.begin();
        std::advance(place, static_cast<std::ptrdiff_t>(random.below(wires.sockets.size())));
        wires.cut(place->second);
    }
}

/// A message typed by hand: a part of it, the rest later, or never.
void world::be_strange() {
    auto& random = wires.random;
    wires.current = &stranger_;
    p2pchat::tcp_socket socket;
    static_cast<void>(socket.connect(any_peer().address(), 0ms));
    if (!socket.is_open()) return;
    const auto origin = socket.local();
    const bool links = random.chance(300);  // and then its message is only half a line
    strangers[origin] = links ? "CONNECT" : join("pay ", origin.port(), " to Bob only if he asks");
    const auto name = join(endpoint(stranger_.where->address.bytes(), origin.port(), 0), " X ");
    const std::string first =
        join(links ? name + "CONNECT\n" : "", name, "pay ", origin.port(), " to Bob");
    const bool goes_on = random.chance(700);
    if (!goes_on) wires.disturbed.insert(origin);
    const auto say = [this](std::size_t which, std::string_view text) {
        wires.current = &stranger_;
        std::size_t size = 0;
        static_cast<void>(strange_[which].send(text, size, 0ms));
    };
    const auto which = strange_.size();
    strange_.push_back(std::move(socket));
    wires.in(150ms, [=] { say(which, first); });
    if (goes_on)
        wires.in(150ms + random.time(0ms, 900ms), [=] {
            say(which, " only if he asks");
            static_cast<void>(strange_[which].shutdown_send());
        });
    wires.in(6s, [=] {
        wires.current = &stranger_;
        strange_[which].close();
    });
}

/// As a program that reads, shows the message and closes with one of the next connections, if at all.
void world::take_without_closing() {
    wires.current = &stranger_;
    for (auto& [socket, text, whole] : taken_) {
        char bytes[4096];
        std::size_t size = 0;
        while (!socket.receive(bytes, sizeof bytes, size, 0ms) && size != 0)
            text.append(bytes, size);
        p2pchat::message_view view;
        if (whole || parse(text, view)) continue;
        const auto number = number_of(view.text);
        if (number >= messages.size() || messages[number].text != view.text) continue;
        whole = messages[number].confirmed = true;
        trace("the silent program takes ", view.text.substr(0, 40));
        require(!std::exchange(messages[number].shown, true), "number ", number,
                " is sent to the silent program twice");
    }
    p2pchat::tcp_socket next;
    while (!silent_.accept(next, 0ms)) {
        if (wires.random.chance(300)) taken_.clear();
        taken_.push_back({std::move(next), {}, false});
        wires.wake(stranger_);
    }
}

/// To all, under any address.
void world::shout(const endpoint& from, std::string_view text) {
    const endpoint& all =
        wires.broadcasts ? simulation::broadcast_address : simulation::group_address;
    wires.send_datagram(*stranger_.where, from, text, {all.bytes(), 21975, 0});
}

/// A host that comes and goes at eight of its ports, 200 times a second.
void world::flood(simulation::time_point end) {
    for (int i = 0; i < 4; ++i, ++flooded_) {
        const auto port = static_cast<std::uint16_t>(4100 + flooded_ / 2 % 8);
        const endpoint from(stranger_.where->address.bytes(), port, 0);
        const auto text = join(from, " X ", flooded_ % 2 == 0 ? "HELLO" : "exit");
        shout(from, text);
    }
    if (wires.now < end) wires.in(20ms, [this, end] { flood(end); });
}

/// Six hosts, more than have all places between them.
void world::name_false_peers() {
    for (std::size_t i = 0; i < 6; ++i) {
        liar& one = liars_.emplace_back();
        one.where.address = endpoint(join("10.0.250.", i + 1), 0);
        one.system.where = &one.where;
        one.system.turn = [&one] { one.turn(); };
        for (std::size_t k = 1; k <= 50; ++k)
            one.names += join("PEER 10.0.", 240 + i, ".", k, ":4000/X\n");
        wires.current = &one.system;
        for (const auto& to : peers) {
            if (!to.lives()) continue;
            auto& [socket, text] = one.links.emplace_back();
            static_cast<void>(socket.connect(to.address(), 0ms));
            strangers[socket.local()] = "CONNECT";  // where there is no room for a link
            text = join(endpoint(one.where.address.bytes(), 4200, 0), " X CONNECT\nKNOWS 1\n");
        }
    }
}

void world::liar::turn() {
    net->current = &system;
    for (auto& [socket, text] : links) {
        if (!socket.is_open()) continue;
        char bytes[4096];
        std::string heard;
        std::size_t size = 0;
        while (!socket.receive(bytes, sizeof bytes, size, 0ms) && size != 0)
            heard.append(bytes, size);
        if (heard.find("PEERS\n") != std::string::npos) text += names;
        static_cast<void>(socket.send(text, size, 0ms));
        text.erase(0, size);
    }
}

/// Checks that all have found each other, once they had time for all announcements, and for links
/// after them.
void world::check_found() {
    wires.calm = true;
    settle(100s);
    for (auto& one : peers)
        for (auto& other : peers)
            if (&one != &other) one.check_found(other, !exits_);
    seeking = false;
    settle(30s);
}

/// Checks that a newcomer is found, and finds others, in spite of strangers.
void world::check_newcomer() {
    seeking = true;
    const auto adversary = wires.random.below(20);
    if (adversary < 4) name_false_peers(), settle(95s);  // in which they name them twice
    if (adversary >= 12) flood(wires.now + 11s), settle(6s);
    newcomer_->start();
    settle(5s);
    for (auto& one : peers) {
        if (!one.hears_at_once() || !newcomer_->hears_at_once() || !newcomer_->may_talk(one))
            continue;
        require(one.has_found(*newcomer_), one.name(), " does not find the newcomer in time");
        require(newcomer_->has_found(one), "the newcomer does not find ", one.name(), " in time");
    }
    seeking = false;
    newcomer_->stop();
    for (auto& one : liars_) {
        wires.current = &one.system;
        one.links.clear();
    }
    settle(30s);
}

void world::settle(std::chrono::seconds time) {
    for (const auto end = wires.now + time; wires.step(end);) {
    }
}

bool world::was_delivered(peer_process& by, const peer_process& to, std::string text,
                          bool opens_link) {
    const auto number = messages.size();
    by.post(to.address(), std::move(text), false, opens_link);
    settle(30s);
    return messages[number].over && !messages[number].outcome;
}

/// Checks that without further faults all peers reach each other, that two peers have one link
/// although both open one at once, and that a peer that says exit is gone.
void world::check_reach(peer_process& one, peer_process& other) {
    if (!one.has_descriptors() || !other.has_descriptors()) return;
    if (may_confuse(one, other)) return;
    one.accept(other);
    other.accept(one);
    if (!one.may_talk(other)) return;
    if (encryption_ && discovery_)  // as anybody can say it of those that do not
        for (const auto* which : {&one, &other})
            if (!which->is_encrypted())
                shout(which->address(), join(which->address(), " X HERE tls")), settle(1s);
    const auto names = join(one.name(), " and ", other.name());
    const bool link =
        one.may_link() && other.may_link() && !one.is_linked(other) && !other.is_linked(one);
    if (link) {
        other.post(one.address(), "CONNECT", false, true);
        // It may take longer than one of the two waits if the other has no room.
        static_cast<void>(was_delivered(one, other, "CONNECT", true));
        require(one.is_linked(other) && other.is_linked(one), names, " do not link");
    }
    require(was_delivered(one, other, new_text(10), false), names, " cannot talk");
    if (!link) return;
    require(was_delivered(one, other, "exit", false), names, ": no exit");
    require(!one.is_linked(other) && !other.is_linked(one) && !other.knows(one), names,
            ": exit, and still there");
}

void world::live(std::chrono::seconds time) {
    auto& random = wires.random;
    const auto end = wires.now + time;
    const milliseconds pace(random.between(2, 50));
    const milliseconds luck(random.between(100, 4000));
    std::function<void()> acting = [&] {
        act();
        if (wires.now < end) wires.in(random.time(0ms, 2 * pace), acting);
    };
    std::function<void()> suffering = [&] {
        misfortune();
        if (wires.now < end) wires.in(random.time(0ms, 2 * luck), suffering);
    };
    messages.emplace_back();  // no number 0
    for (auto& one : peers) one.start();
    acting();
    suffering();
    if (discovery_ && random.chance(300))
        wires.in(random.time(0ms, time), [this] { flood(wires.now + 5s); });
    settle(time + 600s);
    if (discovery_) check_found();
    for (auto& one : peers) one.check_at_end();
    wires.calm = true;
    if (discovery_) check_newcomer();
    for (auto& one : peers)
        for (auto& other : peers)
            if (&one != &other && one.lives() && other.lives()) check_reach(one, other);
    settle(60s);
    for (auto& one : peers)
        for (auto& other : peers)
            if (one.lives() && one.has_descriptors() && other.lives() && other.has_descriptors() &&
                !may_confuse(one, other))
                one.check_kept(other);
    for (auto& one : peers)
        if (one.lives()) one.stop();
    wires.current = &stranger_;
    strange_.clear();
    taken_.clear();
    silent_.close();
}

bool run(std::uint64_t seed) {
    memory.begin();
    bool kept = true;
    try {
        world(seed, chosen.peers).live(std::chrono::seconds(chosen.seconds));
    } catch (const broken_promise& broken) {
        std::printf("seed %llu, %s\n", static_cast<unsigned long long>(seed), broken.what.c_str());
        kept = false;
    }
    memory.end();
    return kept;
}

}  // namespace

int main(int count, char** arguments) {
    for (int i = 1; i < count; ++i) {
        const std::string_view name = arguments[i];
        if (name == "--trace") {
            chosen.trace = true;
            continue;
        }
        const auto value = ++i < count ? std::strtoull(arguments[i], nullptr, 10) : 0;
        if (name == "--seed")
            chosen.seed = value;
        else if (name == "--count")
            chosen.count = value;
        else if (name == "--seconds")
            chosen.seconds = static_cast<int>(value);
        else if (name == "--peers")
            chosen.peers = static_cast<std::size_t>(value);
        else
            return std::printf("no such option: %s\n", arguments[i - 1]), 2;
    }
    for (std::uint64_t i = 0; i < chosen.count; ++i) {
        const auto seed = chosen.seed + i;
        if (run(seed)) continue;
        std::printf(
            "again, with all that happens: %s --seconds %d --peers %zu --seed %llu --trace\n",
            arguments[0], chosen.seconds, chosen.peers, static_cast<unsigned long long>(seed));
        return 1;
    }
    return 0;
}
