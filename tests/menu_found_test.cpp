// The menu program with discovery, and with messages kept for absent peers. POSIX only.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "menu_program.hpp"

#include <doctest/doctest.h>

#include <sys/stat.h>

#include <fstream>
#include <memory>

using support::content;
using support::flags;
using support::has_terminals;
using support::menu_program;
using support::recording_node;
using support::terminal_kind;

namespace {

std::string kept_file(const std::string& port) {
    return support::state_folder() + "/outbox-" + port;
}

std::string port_of(const support::nobody& place) { return std::to_string(place.address().port()); }

/// A user at a terminal, with team and port given by flags.
struct person {
    person(const std::string& team, const std::string& port, menu_program::words more = {})
        : program(arguments(team, port, std::move(more)), terminal_kind{}, {"NO_COLOR=1"}) {
        REQUIRE(program.expect("Server listening on all interfaces (port " + port + ")"));
    }

    static menu_program::words arguments(const std::string& team, const std::string& port,
                                         menu_program::words more) {
        more.insert(more.end(),
                    {"--team", team, "--port", port, "--config", support::state_folder()});
        return flags(more);
    }
    void send(const std::string& port, const std::string& text) {
        REQUIRE(program.choose("1"));
        REQUIRE(program.answer("Enter recipient's IP address: ", "127.0.0.1:" + port));
        REQUIRE(program.answer("Enter your message (type 'exit' to disconnect): ", text));
    }
    void leave() {
        REQUIRE(program.choose("0"));
        CHECK_EQ(program.finish(), 0);
    }

    menu_program program;
};

p2pchat::config known_by_port(const std::string& port) {
    auto settings = support::local("Theirs");
    settings.port = static_cast<std::uint16_t>(std::stoi(port));
    return settings;
}

}  // namespace

#if defined(__linux__)

TEST_CASE("two people enter a team and a port, find each other, and talk") {
    support::segment lan;
    if (!lan.usable() || !has_terminals()) return;
    support::host first, second;
    lan.plug(first, "lan", "10.99.0.1/24");
    lan.plug(second, "lan", "10.99.0.2/24");
    std::unique_ptr<menu_program> ann, bob;
    first.run([&] {
        ann = std::make_unique<menu_program>(menu_program::words{"--default-peer", "127.0.0.1:1"},
                                             terminal_kind{}, menu_program::words{"NO_COLOR=1"});
    });
    second.run([&] {  // over pipes, as a script
        bob = std::make_unique<menu_program>(menu_program::words{"--default-peer", "127.0.0.1:1"});
    });
    REQUIRE(ann->answer("Enter your team name: ", "Ann"));
    REQUIRE(ann->answer("Enter your port number: ", "5000"));
    REQUIRE(bob->answer("Enter your team name: ", "Bob"));
    REQUIRE(bob->answer("Enter your port number: ", "6000"));
    REQUIRE(ann->shows("10.99.0.2:6000 (Bob) is on the network."));
    REQUIRE(ann->choose("2"));
    REQUIRE(ann->shows("No connected peers.\nOn the network:\n10.99.0.2:6000 - Bob\n"));
    REQUIRE(ann->choose("b"));
    REQUIRE(ann->shows("1. 10.99.0.2:6000 - Bob\nEnter message to all peers:"));
    REQUIRE(ann->answer("Enter message to all peers: ", "Hello, Bob!"));
    CHECK(ann->shows("Sent to 10.99.0.2:6000"));
    CHECK(bob->expect_line("10.99.0.1:5000 Ann @all Hello, Bob!"));

    REQUIRE(bob->choose("b"));
    REQUIRE(bob->answer("Enter message to all peers: ", "Hello, Ann!"));
    CHECK(bob->expect("Sent to 10.99.0.1:5000\n"));
    CHECK(ann->shows("[to all] 10.99.0.2:6000 Bob Hello, Ann!"));
    REQUIRE(ann->choose("2"));
    CHECK(ann->shows("Connected Peers:\n10.99.0.2:6000 - Bob\n"));
    REQUIRE(ann->choose("3"));
    REQUIRE(ann->answer("Select peer number: ", "1"));
    CHECK(ann->shows("Connected to 10.99.0.2:6000 by a link"));
    REQUIRE(bob->choose("0"));
    CHECK_EQ(bob->finish(), 0);
    CHECK(ann->shows("10.99.0.2:6000 (Bob) has left the network."));
}

TEST_CASE("a found peer has a number at each question; --no-discovery finds nobody") {
    support::host machine;
    if (!machine.usable() || !machine.command("ip link set lo up")) return;
    std::unique_ptr<menu_program> ann, bob, cy;
    const menu_program::words to_nobody = {"--default-peer", "127.0.0.1:1"};
    const auto start = [&](std::unique_ptr<menu_program>& program, const std::string& team,
                           const std::string& port, menu_program::words more) {
        more.insert(more.end(), {"--team", team, "--port", port});
        machine.run([&] { program = std::make_unique<menu_program>(more); });
        REQUIRE(program->expect("(port " + port + ")"));
    };
    start(cy, "Cy", "7000", {"--default-peer", "127.0.0.1:1", "--no-discovery"});
    start(ann, "Ann", "5000", to_nobody);
    start(bob, "Bob", "6000", to_nobody);
    REQUIRE(support::wait_until([&] {  // a script gets no line about a found peer
        REQUIRE(ann->choose("2"));
        REQUIRE(ann->expect("**** Menu ****"));
        const auto& text = ann->text();
        return text.find("On the network:\n127.0.0.1:6000 - Bob\n") != text.npos;
    }));
    REQUIRE(ann->choose("3"));
    REQUIRE(ann->expect("Active Peers:\n1. 127.0.0.1:6000 - Bob\nSelect peer number: "));
    ann->enter("1");
    CHECK(ann->expect("Connected to 127.0.0.1:6000\n"));
    CHECK(bob->expect_line("127.0.0.1:5000 Ann CONNECT"));
    REQUIRE(cy->choose("2"));
    CHECK(cy->expect("No connected peers.\n**** Menu"));
}

#endif

TEST_CASE("a message for an absent peer is kept, and sent when the peer appears") {
    if (!has_terminals()) return;
    const support::nobody here, there;  // until a program is
    const auto port = port_of(here), theirs = port_of(there);
    person ours("Ours", port);
    ours.send(theirs, "are you there?");
    CHECK(ours.program.shows("Kept until 127.0.0.1:" + theirs + " is reachable: are you there?"));
    CHECK(content(kept_file(port)).find(" 127.0.0.1:" + theirs + " are you there?\n") !=
          std::string::npos);
    recording_node them(known_by_port(theirs));
    REQUIRE_FALSE(them->send({"127.0.0.1", known_by_port(port).port}, "now I am"));
    CHECK(them.wait_text("are you there?"));
    CHECK(ours.program.shows("✓ Delivered to 127.0.0.1:" + theirs + ": are you there?"));
    CHECK(content(kept_file(port)).empty());
    ours.leave();
}

TEST_CASE("kept messages survive a restart, in a file that only its owner can read") {
    if (!has_terminals()) return;
    const support::nobody here, there;  // until a program is
    const auto port = port_of(here), theirs = port_of(there);
    menu_program::words where;
    auto file = kept_file(port);
    SUBCASE("in the folder of --config") {}
    SUBCASE("in the file of --outbox") {
        file = support::state_folder() + "/by flag";
        where = {"--outbox", file};
    }
    {
        person ours("Ours", port, where);
        for (const char* text : {"first", "second", "third"}) {
            ours.send(theirs, text);
            REQUIRE(ours.program.shows(std::string("is reachable: ") + text));
        }
        ours.send(theirs, "exit");  // is about now, and not kept
        REQUIRE(ours.program.shows("Not sent: exit"));
        SUBCASE("after an orderly exit") {
            ours.leave();
            CHECK(ours.program.shows("Kept for the next start: 3, in " + file));
        }
        SUBCASE("after a kill") {
            ours.program.interrupt(SIGKILL);
            CHECK_EQ(ours.program.finish(), -SIGKILL);
        }
    }
    struct stat about = {};
    REQUIRE(stat(file.c_str(), &about) == 0);
    CHECK((about.st_mode & 0777) == 0600);

    person ours("Ours", port, where);
    CHECK(ours.program.shows("Kept from before: 3, "));
    recording_node them(known_by_port(theirs));
    REQUIRE_FALSE(them->send({"127.0.0.1", known_by_port(port).port}, "here"));
    REQUIRE(ours.program.shows("✓ Delivered to 127.0.0.1:" + theirs + ": third"));
    REQUIRE(them.wait_messages(3));
    const auto got = them.seen().messages;
    CHECK(got[0].text == "first");
    CHECK(got[1].text == "second");
    CHECK(got[2].text == "third");
    ours.leave();
    CHECK(stat(file.c_str(), &about) != 0);
}

TEST_CASE("messages kept for a day expire, and a file that cannot be written is reported once") {
    if (!has_terminals()) return;
    const support::nobody here, there;  // until a program is
    const auto port = port_of(here), theirs = port_of(there);
    const auto file = support::state_folder() + "/old";
    std::ofstream(file) << "1000 127.0.0.1:" << theirs << " long ago\nnonsense\n1000 nobody x\n";
    {
        person ours("Ours", port, {"--outbox", file});
        CHECK(
            ours.program.shows("✗ Expired, 127.0.0.1:" + theirs + " was not reachable: long ago"));
        ours.leave();
    }
    person ours("Ours", port, {"--outbox", "/dev/null/none"});
    ours.send(theirs, "one");
    CHECK(ours.program.shows("The kept messages cannot be stored: "));
    ours.send(theirs, "two");
    CHECK(ours.program.shows("is reachable: two"));
    const auto text = ours.program.screen().text();
    CHECK(text.find("cannot be stored") == text.rfind("cannot be stored"));
}
