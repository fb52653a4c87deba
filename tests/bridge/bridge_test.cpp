// The bridge as processes of its own, between a broker that the test starts and nodes of the test.
// A LAN is whoever knows one bridge: discovery is off, and all is on loopback.
//
// SPDX-License-Identifier: MIT

#include "../menu_program.hpp"
#include "../support.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <memory>
#include <string>
#include <string_view>

using support::menu_program;
using support::recording_node;

namespace {

/// mosquitto, on a port of its own, with nothing kept but in memory.
class broker {
public:
    explicit broker(std::string port = support::free_port()) : port_(std::move(port)) {
        std::ofstream(files_.path() + "/conf")
            << "listener " << port_ << " 127.0.0.1\nallow_anonymous true\n";
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
    /// False, and says so, where mosquitto is not installed, or somebody else has the port.
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

/// A LAN: its bridge, and whoever links to it.
class lan {
public:
    lan(const broker& at, const std::string& site)
        : state_(files_.path() + "/state"),
          words_{"--team",
                 "Lan",
                 "--port",
                 "0",
                 "--address",
                 "127.0.0.1",
                 "--no-discovery",
                 "--room",
                 "test",
                 "--broker",
                 "127.0.0.1:" + at.port(),
                 "--site",
                 site,
                 "--state",
                 state_} {
        start();
    }

    void start() {
        program = std::make_unique<menu_program>(words_);
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
    std::string state_;
    menu_program::words words_;
};

p2pchat::config person(const std::string& team) { return support::local(team); }

/// Waits until whoever says `who` hears that `site` is there with `peer`.
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

TEST_CASE("what is said on one LAN is shown on the others once, with who said it and where") {
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
    CHECK(ann.wait_text("Cid@south: tab\\x09here \\x1b[2J"));
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

TEST_CASE("what no broker has is not delivered, and what one forgets is shown all the same") {
    auto middle = std::make_unique<broker>();
    if (!middle->usable()) return;
    lan north(*middle, "north"), south(*middle, "south");
    recording_node ann(person("Ann")), bob(person("Bob"));
    north.link(ann);
    south.link(bob);
    REQUIRE(knows(ann, north, "south", "Bob"));
    const auto port = middle->port();
    middle->stop();
    REQUIRE(north.program->expect("the broker is gone"));
    CHECK(ann->send(north.address, "into the void"));
    middle = std::make_unique<broker>(port);
    REQUIRE(middle->usable());
    REQUIRE(north.program->expect("the broker says: Success"));
    REQUIRE(south.program->expect("the broker says: Success"));
    CHECK(support::wait_until([&] { return !ann->send(north.address, "again"); }));
    CHECK(bob.wait_text("Ann@north: again"));
    CHECK(bob.seen().count_text("Ann@north: into the void") == 0);
}

TEST_CASE("a bridge that was killed shows what came meanwhile, and a second one takes its place") {
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
    CHECK(support::wait_until([&] { return !ann->send(north.address, "welcome back"); }));
    CHECK(bob.wait_text("Ann@north: welcome back"));

    lan second(middle, "south");
    REQUIRE(south.program->expect("another bridge has this site"));
    CHECK(south.program->finish() == 1);
    CHECK(knows(ann, north, "south", "nobody"));
}
