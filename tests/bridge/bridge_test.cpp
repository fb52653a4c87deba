// The bridge as processes of its own, between a broker that the test starts and nodes of the test.
// A LAN is the nodes that are linked to one bridge: discovery is off, and all is on loopback.
//
// SPDX-License-Identifier: MIT

#include "../../examples/bridge/batches.hpp"
#include "../menu_program.hpp"
#include "../support.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using support::menu_program;
using support::recording_node;

namespace {

/// mosquitto, on a port of its own, with its state in memory only.
class broker {
public:
    explicit broker(std::string port = support::free_port(),
                    std::string_view settings = "allow_anonymous true\n")
        : port_(std::move(port)) {
        std::ofstream(files_.path() + "/conf") << "listener " << port_ << " 127.0.0.1\n"
                                               << settings;
        process_ = fork();
        REQUIRE(process_ >= 0);
        if (process_ == 0) {
            const auto file = files_.path() + "/conf";
            const int nothing = open("/dev/null", O_WRONLY);
            for (const int stream : {1, 2}) dup2(nothing, stream);
            for (const auto* path : {"/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"})
                execl(path, "mosquitto", "-c", file.c_str(), nullptr);
            _exit(127);
        }
        REQUIRE(support::wait_until([&] {
            p2pchat::tcp_socket socket;
            return !socket.connect(address(), support::patience) || has_ended();
        }));
    }
    broker(const broker&) = delete;
    broker& operator=(const broker&) = delete;
    ~broker() { stop(); }

    /// kill -9.
    void stop() {
        if (process_ > 0) kill(process_, SIGKILL);
        if (process_ > 0) waitpid(process_, nullptr, 0);
        process_ = 0;
    }
    /// False, and says so, where mosquitto is not installed, or the port is taken.
    bool usable() {
        if (has_ended())
            MESSAGE("skipped: this needs mosquitto (Debian: apt-get install mosquitto)");
        return process_ > 0;
    }
    const std::string& port() const { return port_; }

private:
    p2pchat::endpoint address() const {
        return {"127.0.0.1", static_cast<std::uint16_t>(std::stoi(port_))};
    }
    bool has_ended() {
        if (process_ > 0 && waitpid(process_, nullptr, WNOHANG) == process_) process_ = 0;
        return process_ == 0;
    }

    support::folder files_;
    std::string port_;
    pid_t process_ = 0;
};

/// A proxy between a bridge and the broker: forwards both directions, one connection at a time, and
/// on demand holds back the broker's.
class cable {
public:
    explicit cable(const broker& to)
        : to_("127.0.0.1", static_cast<std::uint16_t>(std::stoi(to.port()))) {
        REQUIRE_FALSE(listener_.listen({"127.0.0.1", 0}));
        thread_ = std::thread([this] { run(); });
    }
    cable(const cable&) = delete;
    cable& operator=(const cable&) = delete;
    ~cable() {
        ended_ = true;
        thread_.join();
    }

    std::string port() const { return std::to_string(listener_.local().port()); }
    void hold(bool is_held) { held_ = is_held; }

private:
    void run() {
        while (!ended_) {
            p2pchat::tcp_socket near, far;
            if (listener_.accept(near, 10ms) || far.connect(to_, support::patience)) continue;
            while (!ended_ && pass_on(near, far)) {
            }
        }
    }
    bool pass_on(p2pchat::tcp_socket& near, p2pchat::tcp_socket& far) const {
        const bool held = held_;
        pollfd waits[2] = {{static_cast<int>(near.native_handle()), POLLIN, 0},
                           {held ? -1 : static_cast<int>(far.native_handle()), POLLIN, 0}};
        poll(waits, 2, 5);
        return (waits[0].revents == 0 || move(near, far)) &&
               (waits[1].revents == 0 || move(far, near));
    }
    static bool move(p2pchat::tcp_socket& from, p2pchat::tcp_socket& to) {
        char buffer[4096];
        std::size_t size = 0;
        if (from.receive(buffer, sizeof buffer, size, support::patience) || size == 0) return false;
        return !to.send({buffer, size}, size, support::patience);
    }

    const p2pchat::endpoint to_;
    p2pchat::tcp_socket listener_;
    std::atomic<bool> held_{false}, ended_{false};
    std::thread thread_;
};

/// Runs a command without its output; whether its exit status is 0.
bool run(const std::string& command) {
    return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

/// Whether a program is installed; if not, the test is skipped, and says so.
bool is_installed(const std::string& name) {
    const bool there = run("command -v " + name);
    if (!there) MESSAGE("skipped: this needs " << name);
    return there;
}

/// Publishes as any client of the broker might, from a file with `payload`.
void publish(const broker& at, const std::string& topic, const std::string& payload,
             const std::string& more = {}) {
    const support::folder files;
    const auto file = files.path() + "/payload";
    std::ofstream(file, std::ios::binary) << payload;
    REQUIRE(run("mosquitto_pub -h 127.0.0.1 -p " + at.port() + " -q 1 -t 'p2pchat/test/" + topic +
                "' -f " + file + more));
}

/// The retained message of a topic, as any client can read it.
std::string retained(const broker& at, const std::string& topic) {
    const support::folder files;
    const auto file = files.path() + "/payload";
    REQUIRE(std::system(("mosquitto_sub -h 127.0.0.1 -p " + at.port() +
                         " -C 1 -W 20 -N -t 'p2pchat/test/" + topic + "' >" + file)
                            .c_str()) == 0);
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// The flags of a bridge on loopback, with a broker there, and `more`.
menu_program::words bridge_flags(const std::string& broker_port, const std::string& state,
                                 const menu_program::words& more) {
    menu_program::words result{"--team",
                               "Lan",
                               "--port",
                               "0",
                               "--address",
                               "127.0.0.1",
                               "--no-discovery",
                               "--room",
                               "test",
                               "--broker",
                               "127.0.0.1:" + broker_port,
                               "--state",
                               state};
    result.insert(result.end(), more.begin(), more.end());
    return result;
}

/// A LAN: its bridge, and the nodes that link to it.
class lan {
public:
    template <class Broker>
    lan(const Broker& at, const std::string& site)
        : words_(bridge_flags(at.port(), files_.path() + "/state", {"--site", site})) {
        start();
    }

    /// `first` is a command that the shell runs before, if any.
    void start(const std::string& first = {}) {
        program = std::make_unique<menu_program>(words_, first);
        REQUIRE(program->expect("I am "));
        REQUIRE(program->expect("\n"));
        const auto& text = program->text();
        const auto begin = text.find("I am ") + 5;
        REQUIRE_FALSE(
            parse(std::string_view(text).substr(begin, text.find('\n', begin) - begin), address));
        REQUIRE(program->expect("the broker says: Success"));
    }
    void link(recording_node& node) const { REQUIRE(node->connect(address).linked); }

    p2pchat::endpoint address;
    std::unique_ptr<menu_program> program;

private:
    support::folder files_;
    menu_program::words words_;
};

p2pchat::config person(const std::string& team) { return support::local(team); }

/// Waits until the answer to `who` lists `site` with `peer`.
bool knows(recording_node& node, const lan& at, const std::string& site, const std::string& peer) {
    return support::wait_until([&] {
        static_cast<void>(node->send(at.address, "who"));
        const auto seen = node.seen().messages;
        return std::any_of(seen.begin(), seen.end(), [&](const p2pchat::message& m) {
            return m.text.rfind(site + ": ", 0) == 0 && m.text.find(peer) != std::string::npos;
        });
    });
}

}  // namespace

TEST_CASE("a message on one LAN is shown once on the others, with its sender and site") {
    broker middle;
    if (!middle.usable()) return;
    lan north(middle, "north"), south(middle, "south");
    recording_node ann(person("Ann")), bob(person("Bob")), cid(person("Cid"));
    north.link(ann);
    south.link(bob);
    south.link(cid);
    REQUIRE(knows(ann, north, "south", "Cid " + to_string(cid.address())));
    REQUIRE(knows(bob, south, "north", "Ann " + to_string(ann.address())));

    CHECK_FALSE(ann->send(north.address, "hi"));
    CHECK(bob.wait_text("Ann@north: hi"));
    CHECK(cid.wait_text("Ann@north: hi"));
    CHECK_FALSE(bob->send(south.address, "exit now? no"));
    CHECK(ann.wait_text("Bob@south: exit now? no"));
    CHECK_FALSE(cid->send(south.address, "tab\there \x1b[2J"));
    CHECK(ann.wait_text("Cid@south: tab\there \x1b[2J"));  // as it was said
    CHECK_FALSE(bob->send(south.address, "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"));
    CHECK(ann.wait_text("Bob@south: \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"));
    support::raw_peer hand(south.address);
    CHECK(hand.send("127.0.0.1:9 Hand two\r\nlines\n"));
    hand.half_close();
    CHECK(hand.read_to_end() == support::ending::closed);
    CHECK(ann.wait([](const support::record& r) {  // a line break of a link is a VT
        return r.count_text("Hand@south: two\vlines") + r.count_text("Hand@south: two\nlines") == 1;
    }));
    CHECK_FALSE(ann->send(north.address, "@all hi"));  // as the menu program says it to all
    CHECK(bob.wait_text("@all Ann@north: hi"));
    for (int i = 0; i < 500; ++i)
        CHECK_FALSE(ann->post(north.address, std::to_string(i), {}, p2pchat::when_full::wait));
    CHECK(bob.wait_text("Ann@north: 499"));
    for (int i = 0; i < 500; ++i)
        CHECK(bob.seen().count_text("Ann@north: " + std::to_string(i)) == 1);
    CHECK(bob.seen().count_text("Ann@north: hi") == 1);
    CHECK(ann.seen().count_text("Ann@north: hi") == 0);
}

TEST_CASE("no message is delivered without a broker, and delivery resumes with a new one") {
    auto middle = std::make_unique<broker>();
    if (!middle->usable()) return;
    lan north(*middle, "north"), south(*middle, "south");
    recording_node ann(person("Ann")), bob(person("Bob"));
    north.link(ann);
    south.link(bob);
    REQUIRE(knows(ann, north, "south", "Bob"));
    const auto port = middle->port();
    middle->stop();
    REQUIRE(north.program->expect("lost the broker"));
    CHECK(north.program->expect("the broker cannot be reached: Connection refused"));
    CHECK(ann->send(north.address, "into the void"));
    middle = std::make_unique<broker>(port);
    REQUIRE(middle->usable());
    REQUIRE(north.program->expect("the broker says: Success"));
    REQUIRE(south.program->expect("the broker says: Success"));
    CHECK(support::wait_until([&] { return !ann->send(north.address, "again"); }));
    CHECK(bob.wait_text("Ann@north: again"));
    CHECK(bob.seen().count_text("Ann@north: into the void") == 0);
}

TEST_CASE("a restarted bridge shows messages of its absence, and a second bridge replaces it") {
    broker middle;
    if (!middle.usable()) return;
    lan north(middle, "north"), south(middle, "south");
    recording_node ann(person("Ann")), bob(person("Bob"));
    north.link(ann);
    south.link(bob);
    REQUIRE(knows(ann, north, "south", "Bob"));
    south.program->interrupt(SIGKILL);
    south.program->finish();
    CHECK_FALSE(ann->send(north.address, "while you were away"));
    south.start();
    south.link(bob);
    REQUIRE(knows(bob, south, "north", "Ann"));
    CHECK(support::wait_until([&] { return !ann->send(north.address, "welcome back"); }));
    CHECK(bob.wait_text("Ann@north: welcome back"));

    lan second(middle, "south");
    REQUIRE(south.program->expect("another bridge has taken over this site"));
    CHECK(south.program->finish() == 1);
    CHECK(knows(ann, north, "south", "nobody"));
}

TEST_CASE("a bridge whose clock was set back is heard as before") {
    broker middle;
    if (!middle.usable()) return;
    const char* const yesterday = std::getenv("P2PCHAT_YESTERDAY");
    if (!yesterday) MESSAGE("skipped: this needs Linux");
    if (!yesterday) return;
    lan north(middle, "north"), south(middle, "south");
    recording_node ann(person("Ann")), bob(person("Bob"));
    north.link(ann);
    south.link(bob);
    REQUIRE(knows(ann, north, "south", "Bob"));
    CHECK_FALSE(ann->send(north.address, "today"));
    CHECK(bob.wait_text("Ann@north: today"));
    north.program->interrupt(SIGTERM);
    CHECK(north.program->finish() == 0);

    north.start("export LD_PRELOAD=" + std::string(yesterday));
    north.link(ann);
    CHECK(knows(ann, north, "south", "Bob"));
    CHECK_FALSE(ann->send(north.address, "today again"));
    CHECK(bob.wait_text("Ann@north: today again"));
    CHECK_FALSE(north.program->has_ended());
}

TEST_CASE("publications of any client are bounded, and reach peers only") {
    broker middle;
    if (!middle.usable()) return;
    if (!is_installed("mosquitto_pub")) return;
    lan north(middle, "north");
    recording_node ann(person("Ann")), stranger(person("Zoe"));
    north.link(ann);
    CHECK_FALSE(ann->send(north.address, "who"));
    CHECK(ann.wait_text("there are no other sites"));

    publish(middle, "said/evil", "e 1\n10.0.0.1:9 Eve \x1b[2J\u202eexit\n");
    CHECK(ann.wait_text("Eve@evil: \x1b[2J\u202eexit"));
    for (int i = 0; i < 2; ++i)
        publish(middle, "said/evil", "e 1\n10.0.0.1:9 Eve again, and to the byte\n");
    publish(middle, "said/evil", "no number\n10.0.0.1:9 Eve nothing\n");
    publish(middle, "said/evil",
            "e 2\nnot a line\n10.0.0.1:9 Eve " + std::string(100'000, 'x') + '\n');
    publish(middle, "said/ev\xc3\xa9", "e 1\n10.0.0.1:9 Eve from no site\n");
    publish(middle, "said/north", "e 3\n10.0.0.1:9 Eve as ourselves\n");
    publish(middle, "said/evil", "e 4\n" + std::string(512 * 1024, 'x'));
    publish(middle, "told/north/evil", to_string(stranger.address()) + " Zoe nonsense\n");
    publish(middle, "told/north/evil", to_string(ann.address()) + " Ann not shown: hi\n");
    CHECK(ann.wait_text("Lan@north: at evil not shown: hi"));
    publish(middle, "newest/north", "0");
    publish(middle, "here/evil", "Eve 10.0.0.1:9 \x1b[2J" + std::string(5000, 'x'));
    for (int i = 0; i < 150; ++i)
        publish(middle, "said/site" + std::to_string(i), "e 1\n10.0.0.1:9 Eve of many\n");
    publish(middle, "said/evil", "e 5\n10.0.0.1:9 Eve the last\n");
    CHECK(ann.wait_text("Eve@evil: the last"));

    const auto seen = ann.seen();
    const auto count_with = [&](std::string_view word) {
        return std::count_if(
            seen.messages.begin(), seen.messages.end(),
            [&](const p2pchat::message& m) { return m.text.find(word) != std::string::npos; });
    };
    CHECK(count_with("to the byte") == 1);
    CHECK(count_with("nothing") + count_with("no site") + count_with("ourselves") == 0);
    CHECK(count_with("xxxx") == 0);
    CHECK(count_with("of many") == 150);  // more than are noted
    CHECK(stranger.seen().messages.empty());
    REQUIRE(knows(ann, north, "evil", "Eve 10.0.0.1:9 \\x1b[2J"));
    for (const auto& m : ann.seen().messages) CHECK(m.text.size() < 2100);
}

TEST_CASE("forged publications for a site neither silence it nor end its bridge") {
    broker middle;
    if (!middle.usable()) return;
    if (!is_installed("mosquitto_pub")) return;
    const auto claim = [&](const std::string& epoch) {
        publish(middle, "newest/north", epoch, " --retain");
    };
    claim("9999999999999999999");
    lan north(middle, "north"), south(middle, "south");
    recording_node ann(person("Ann")), bob(person("Bob"));
    north.link(ann);
    south.link(bob);
    REQUIRE(knows(ann, north, "south", "Bob"));
    const auto epoch = retained(middle, "newest/north");
    CHECK(epoch != "9999999999999999999");
    const std::string huge = "18446744073709551615\n10.0.0.1:9 Eve a huge number\n";
    const auto forge = [&] {
        publish(middle, "said/north", huge);
        publish(middle, "said/north", epoch + ' ' + huge);
        publish(middle, "said/north", epoch + " 2\n10.0.0.1:9 Eve before you\n");
        for (int i = 0; i < 10; ++i)
            publish(middle, "said/north", "e" + std::to_string(i) + ' ' + huge);
        publish(middle, "here/north", "Eve alone is here", " --retain");
        claim("9");
    };
    forge();
    CHECK(south.program->expect("a malformed batch from north"));
    CHECK(north.program->expect("a forged announcement of another bridge of this site"));
    for (const auto* text : {"first", "second", "third"}) {
        CHECK_FALSE(ann->send(north.address, text));
        CHECK(bob.wait_text(std::string("Ann@north: ") + text));
    }
    CHECK(knows(bob, south, "north", "Ann"));
    CHECK(support::wait_until([&] { return retained(middle, "newest/north") == epoch; }));

    for (lan* const side : {&north, &south}) {  // and after a restart of both
        side->program->interrupt(SIGTERM);
        CHECK(side->program->finish() == 0);
    }
    claim("99999999999999999999");
    north.start();
    south.start();
    north.link(ann);
    south.link(bob);
    REQUIRE(knows(ann, north, "south", "Bob"));
    forge();
    CHECK_FALSE(ann->send(north.address, "fourth"));
    CHECK(bob.wait_text("Ann@north: fourth"));
    CHECK_FALSE(north.program->has_ended());
}

TEST_CASE("a message too large for the broker is refused, and others are delivered") {
    std::string limit;
    std::size_t longest = 0;  // that is shown
    SUBCASE("by the broker's announced limit") {
        limit = "max_packet_size";
        longest = 1890;
    }
    SUBCASE("by the broker's refusal") {
        limit = "message_size_limit";
        longest = 1930;
    }
    broker middle(support::free_port(), "allow_anonymous true\n" + limit + " 2000\n");
    if (!middle.usable()) return;
    lan north(middle, "north"), south(middle, "south");
    auto small = person("Sue");
    small.max_message_bytes = 1000;
    recording_node ann(person("Ann")), zoe(person("Zoe")), bob(person("Bob")), sue(small);
    north.link(ann);
    south.link(bob);
    south.link(sue);
    REQUIRE(knows(ann, north, "south", "Sue"));

    // On one link: messages before it are delivered, those behind it are not, as the link breaks.
    support::outcomes told;
    const auto link_lost = make_error_code(p2pchat::errc::link_lost);
    north.program->interrupt(SIGSTOP);  // so that all are queued by then
    told.post(*ann, north.address, "before");
    told.post(*ann, north.address, std::string(3000, 'x'));
    for (int i = 0; i < 200; ++i) told.post(*ann, north.address, "behind");
    north.program->interrupt(SIGCONT);
    CHECK(told.wait());
    CHECK(told.count({}) == 1);
    CHECK(told.count(link_lost) == 201);
    CHECK_FALSE(zoe->send(north.address, "by somebody else"));
    CHECK(bob.wait_text("Zoe@north: by somebody else"));
    CHECK(bob.seen().count_text("Ann@north: before") == 1);
    CHECK(bob.seen().count_text("Ann@north: behind") == 0);

    // Of each size round the limit.
    std::size_t taken = 0;
    for (std::size_t size = 1880; size < 2000; size += 3) {
        const std::string text(size, 'y');
        const bool delivered = !zoe->send(north.address, text);
        if (delivered) CHECK(bob.wait_text("Zoe@north: " + text));
        taken += delivered;
    }
    CHECK(taken > 0);
    CHECK(taken < 40);
    CHECK_FALSE(zoe->send(north.address, "after all these"));
    CHECK(bob.wait_text("Zoe@north: after all these"));

    // A notice about a message not shown is sent, although it is longer; batches are not too large.
    north.link(ann);
    CHECK_FALSE(ann->send(north.address, std::string(longest, 'z')));
    CHECK(ann.wait([](const support::record& r) {
        return std::any_of(r.messages.begin(), r.messages.end(), [](const p2pchat::message& m) {
            return m.text.find("not shown to") != std::string::npos &&
                   m.text.find("zzzz") != std::string::npos;
        });
    }));
    support::outcomes many;
    for (int i = 0; i < 500; ++i)
        many.post(*ann, north.address, std::string(100, 'm') + std::to_string(i),
                  p2pchat::when_full::wait);
    CHECK(many.wait());
    CHECK(many.count({}) == 500);
    CHECK(bob.wait_text("Ann@north: " + std::string(100, 'm') + "499"));
}

TEST_CASE("messages that a slow broker has not acknowledged in time are refused for good") {
    broker middle;
    if (!middle.usable()) return;
    cable between(middle);
    lan north(between, "north"), south(middle, "south");
    recording_node ann(person("Ann")), zoe(person("Zoe")), bob(person("Bob"));
    north.link(ann);
    south.link(bob);
    REQUIRE(knows(ann, north, "south", "Bob"));
    between.hold(true);
    support::outcomes told;
    for (int i = 0; i < 636; ++i) told.post(*ann, north.address, std::to_string(i));
    CHECK(told.wait());
    CHECK(told.count({}) == 0);
    CHECK(zoe->send(north.address, "while it is slow") == p2pchat::errc::not_taken);
    between.hold(false);
    CHECK(support::wait_until([&] { return !zoe->send(north.address, "in time"); }));
    CHECK(bob.wait_text("Zoe@north: in time"));

    // A message that was published before it was refused is shown, and its sender is told.
    CHECK(ann.wait_text("Lan@north: published after all: 0"));
    std::size_t shown = 0, corrected = 0;
    for (int i = 0; i < 636; ++i) {
        const auto text = std::to_string(i);
        shown += bob.seen().count_text("Ann@north: " + text);
        corrected += ann.seen().count_text("Lan@north: published after all: " + text);
    }
    CHECK(shown == corrected);
    CHECK(shown < 636);
    CHECK(bob.seen().count_text("Zoe@north: while it is slow") == 0);
}

namespace {

/// Batches without a bridge, recorded. There is no other site.
struct recorded_batches {
    std::vector<std::string> published;
    std::size_t refused = 0;
    std::uint64_t latest = 0;  // receipt of the node
    menu::batches::sites nobody;
    menu::batches all{{[this](const std::string& payload) {
                           published.push_back(payload);
                           return static_cast<int>(published.size());
                       },
                       [this](std::uint64_t, bool taken) { refused += !taken; },
                       [this] { return latest; }, [](const auto&, const auto&) {}},
                      nobody};

    void add(std::uint64_t receipt, const std::string& text, std::uint16_t port) {
        all.add({"127.0.0.1:9 Ann " + text, receipt, {"127.0.0.1", port}});
    }
};

}  // namespace

TEST_CASE("the queue for the broker is bounded") {
    recorded_batches bridge;
    bridge.all.connected(64 * 1024);
    const std::string text(1000, 'x');
    for (std::uint16_t i = 1; i <= 5000; ++i) bridge.add(i, text, i);
    CHECK(bridge.published.size() == 1);
    CHECK(bridge.refused > 5000 - 1 - menu::batches::max_waiting / text.size());
    CHECK(bridge.refused < 5000);
}

TEST_CASE("messages received from a link before a refusal broke it are not published") {
    recorded_batches bridge;
    bridge.all.connected(1000);
    bridge.latest = 3;
    bridge.add(1, std::string(2000, 'x'), 1);
    bridge.add(2, "of the same link", 1);
    bridge.add(3, "of another one", 2);
    CHECK(bridge.refused == 2);
    bridge.all.acknowledged(1);
    bridge.add(4, "of a new link from there", 1);
    REQUIRE(bridge.published.size() == 2);
    CHECK(bridge.published[0].find("of another one") != std::string::npos);
    CHECK(bridge.published[1].find("of a new link") != std::string::npos);
}

TEST_CASE("the bridge reconnects to a broker that acknowledges nothing") {
    broker middle;
    if (!middle.usable()) return;
    cable between(middle);
    lan north(between, "north"), south(middle, "south");
    recording_node ann(person("Ann")), bob(person("Bob"));
    north.link(ann);
    south.link(bob);
    REQUIRE(knows(ann, north, "south", "Bob"));
    between.hold(true);
    CHECK(ann->send(north.address, "no answer"));
    CHECK(north.program->expect("lost the broker: it acknowledges nothing"));
    between.hold(false);
    CHECK(north.program->expect("the broker says: Success"));
    CHECK(support::wait_until([&] { return !ann->send(north.address, "an answer"); }));
    CHECK(bob.wait_text("Ann@north: an answer"));
    CHECK(bob.seen().count_text("Ann@north: no answer") == 1);  // it had come to the broker
}

TEST_CASE("the bridge connects with TLS and a password, and not with a wrong one of either") {
    const support::folder files;
    const auto& at = files.path();
    if (!is_installed("openssl") || !is_installed("mosquitto_passwd")) return;
    const std::string make =
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test"
        " -addext subjectAltName=IP:127.0.0.1 ";
    for (const std::string name : {"broker", "other"})
        REQUIRE(run(make + "-keyout " + at + '/' + name + ".key -out " + at + '/' + name + ".pem"));
    std::ofstream(at + "/passwords").close();
    REQUIRE(run("mosquitto_passwd -b " + at + "/passwords ann right"));
    REQUIRE(run("chmod -R a+rX " + at));  // mosquitto reads as its own user
    broker middle(support::free_port(), "allow_anonymous false\npassword_file " + at +
                                            "/passwords\ncertfile " + at + "/broker.pem\nkeyfile " +
                                            at + "/broker.key\n");
    if (!middle.usable()) return;
    const auto start = [&](const std::string& trusted, const std::string& password) {
        return std::make_unique<menu_program>(
            bridge_flags(middle.port(), at + "/state",
                         {"--tls", at + '/' + trusted, "--user", "ann"}),
            "export P2PCHAT_BRIDGE_PASSWORD=" + password);
    };
    CHECK(start("broker.pem", "right")->expect("the broker says: Success"));
    CHECK(start("broker.pem", "wrong")->expect("the broker says: Not authorized"));
    const auto deceived = start("other.pem", "right");
    CHECK(deceived->expect("the broker cannot be reached: A TLS error"));
    CHECK(deceived->text().find("Success") == std::string::npos);
    const auto nowhere = start("missing.pem", "right");
    CHECK(nowhere->finish() == 1);
}

TEST_CASE("an error in the command line is explained, and nothing is started") {
    const auto refused = [&](const menu_program::words& more, std::string_view why) {
        menu_program program(bridge_flags("1", "/dev/null/none", more));
        return program.finish() == 2 && program.text().find(why) != std::string::npos;
    };
    CHECK(refused({"--loud"}, "bridge: --loud: no such flag"));
    CHECK(refused({"--user"}, "bridge: --user: needs a value"));
    CHECK(refused({"--team", "", "--site", "a"}, "bridge: --team: A team name cannot be empty."));
    CHECK(refused({"--team", std::string(64, 'a'), "--site", "a"}, "at most 64 bytes"));
    CHECK(refused({"--team", ""}, "--room and --site"));
    CHECK(refused({"--room", "a/b"}, "--room and --site"));
    CHECK(refused({"--site", "north+"}, "--room and --site"));
    CHECK(refused({"--port", "65536"}, "--port takes a number"));
    CHECK(refused({"--address", "north"}, "--address takes an IP"));
    CHECK(refused({"--broker", ":1883"}, "--broker takes HOST[:PORT]"));
    CHECK(refused({"--broker", "[::1]:0"}, "--broker takes HOST[:PORT]"));
    menu_program help({"--help"});
    CHECK(help.finish() == 0);
    CHECK(help.text().find("--broker HOST[:PORT]") != std::string::npos);
}
