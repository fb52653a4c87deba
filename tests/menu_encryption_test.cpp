// The menu program with encryption: which key belongs to which peer, and what happens when a key
// changes. With OpenSSL. POSIX only.
//
// SPDX-License-Identifier: MIT

#include "examples/menu/settings/changed_keys.hpp"
#include "menu_program.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

using support::content;
using support::count;
using support::flags;
using support::has_terminals;
using support::menu_program;
using support::nobody;
using support::recording_node;

namespace {

/// The path of a new file, in a folder that is removed at the end.
std::string new_file() {
    static int count = 0;
    return support::state_folder() + "/encryption-" + std::to_string(++count);
}

/// A program with a key, over pipes.
struct person {
    /// With files of its own, if none are given.
    person(std::string team_name, const nobody& place, const std::string& identity = new_file(),
           const std::string& pins = new_file(), const std::string& mode = "required")
        : team(std::move(team_name)),
          address(place.address()),
          program(flags({"--team", team, "--port", support::port_of(address), "--encryption", mode,
                         "--identity", identity, "--pins", pins})),
          key(own_key(program)) {}

    /// The fingerprint that a program says is its own.
    static std::string own_key(menu_program& program) {
        constexpr std::size_t size = 8 * 5 + 7;
        REQUIRE(program.expect("\nYour key: "));
        const auto at = program.text().find("\nYour key: ") + 11;
        REQUIRE(program.wait_until_output(
            [&] { return program.text().find('\n', at) != std::string::npos; }));
        const auto key = program.text().substr(at, program.text().find_first_of("\r\n", at) - at);
        REQUIRE_EQ(key.size(), size);
        return key;
    }

    void send(const p2pchat::endpoint& to, const std::string& text) {
        REQUIRE(program.choose("1"));
        REQUIRE(program.answer("Enter recipient's IP address: ", to_string(to)));
        REQUIRE(program.answer("Enter your message (type 'exit' to disconnect): ", text));
    }
    void leave() {
        REQUIRE(program.choose("0"));
        CHECK_EQ(program.finish(), 0);
    }
    std::string name() const { return to_string(address) + ' ' + team; }

    const std::string team;
    const p2pchat::endpoint address;
    menu_program program;
    const std::string key;
};

/// The line that reports a changed key.
std::string changed(const p2pchat::endpoint& address, const std::string& team,
                    const std::string& key) {
    return "KEY CHANGED: " + to_string(address) + (team.empty() ? "" : " (" + team + ')') +
           " was refused, as its key is not the known one. Its key now: " + key +
           ". If you know why it changed, type k to accept it.";
}

p2pchat::config encrypted(const std::string& team, std::uint16_t port) {
    auto settings = support::local(team);
    settings.encryption = p2pchat::encryption::required;
    settings.port = port;
    return settings;
}

/// A node that is known to `ours` by one key, and then has another.
std::unique_ptr<recording_node> with_another_key(person& ours, const std::string& team,
                                                 const nobody& place) {
    const auto settings = encrypted(team, place.address().port());
    {
        recording_node first(settings);
        REQUIRE_FALSE(first->send(ours.address, "as before"));
        REQUIRE(ours.program.expect_line("[encrypted] " + to_string(place.address()) + ' ' + team +
                                         " as before"));
    }
    auto second = std::make_unique<recording_node>(settings);
    REQUIRE((*second)->send(ours.address, "changed") == p2pchat::errc::not_taken);
    REQUIRE(
        ours.program.expect_line(changed(place.address(), team, fingerprint((*second)->key()))));
    return second;
}

p2pchat::peer offer(const p2pchat::endpoint& address, unsigned char key) {
    p2pchat::peer result;
    result.address = address;
    result.key.bytes[0] = key;
    return result;
}

}  // namespace

TEST_CASE("two programs talk encrypted, and each shows the other's key") {
    const nobody here, there;
    person ann("Ann", here), bob("Bob", there);
    CHECK_NE(ann.key, bob.key);
    ann.send(bob.address, "Hi, Bob!");
    CHECK(bob.program.expect_line("[encrypted] " + ann.name() + " Hi, Bob!"));
    bob.send(ann.address, "Hi, Ann!");
    CHECK(ann.program.expect_line("[encrypted] " + bob.name() + " Hi, Ann!"));
    const std::string of_ann = to_string(ann.address) + " - Ann key " + ann.key,
                      of_bob = to_string(bob.address) + " - Bob key " + bob.key;
    REQUIRE(ann.program.choose("2"));
    CHECK(ann.program.expect("Connected Peers:\n" + of_bob + "\n**** Menu"));
    REQUIRE(bob.program.choose("3"));
    CHECK(bob.program.expect("Active Peers:\n1. " + of_ann + "\nSelect peer number: "));
    bob.program.enter("1");
    CHECK(ann.program.expect_line("[encrypted] " + bob.name() + " CONNECT"));
    REQUIRE(ann.program.choose("2"));
    CHECK(ann.program.expect(to_string(bob.address) + " - Bob (linked) key " + bob.key + '\n'));
    REQUIRE(ann.program.choose("?"));
    CHECK(ann.program.expect("\nk or /key               accept a changed key of a peer"));
}

TEST_CASE("the mark and the key are ASCII in a terminal, too") {
    if (!has_terminals()) return;
    const nobody here, there;
    const auto log = new_file();
    menu_program ours(
        flags({"--team", "Ours", "--port", support::port_of(here.address()), "--encryption",
               "required", "--identity", new_file(), "--pins", new_file(), "--log", log}),
        support::terminal_kind{}, {"NO_COLOR=1"});
    REQUIRE(ours.shows("\nYour key: "));
    recording_node bob(encrypted("Bob", there.address().port()));
    REQUIRE_FALSE(bob->send(here.address(), "Hi"));
    CHECK(ours.shows(" [encrypted] " + to_string(bob.address()) + " Bob Hi\n"));
    REQUIRE_FALSE(bob->connect(here.address()).error);
    CHECK(ours.shows(" [encrypted] " + to_string(bob.address()) + " (Bob) connected.\n"));
    CHECK(content(log).find(" <- [encrypted] " + to_string(bob.address()) + " Bob Hi\n") !=
          std::string::npos);
}

TEST_CASE("with --encryption preferred the lines about a peer without a key are the original's") {
    const nobody here, there;
    person ann("Ann", here, new_file(), new_file(), "preferred");
    support::party bob("Bob");
    bob.send(support::port_of(ann.address), "unencrypted");
    CHECK(ann.program.expect_line(bob.name() + " Bob unencrypted"));
    REQUIRE(ann.program.choose("2"));
    CHECK(ann.program.expect("Connected Peers:\n" + bob.name() + " - Bob\n**** Menu"));
}

TEST_CASE("a changed key is refused and reported until it is accepted") {
    const nobody here, there;
    person ann("Ann", here);
    {
        person bob("Bob", there);
        bob.send(ann.address, "Hi");
        REQUIRE(ann.program.expect_line("[encrypted] " + bob.name() + " Hi"));
        bob.leave();
    }
    REQUIRE(ann.program.choose("k"));
    CHECK(ann.program.expect("No key has changed.\n"));
    person bob("Bob", there);
    std::string team;
    SUBCASE("its owner writes first") { team = "Bob"; }
    SUBCASE("its owner is written to first") {
        ann.send(bob.address, "Bob?");
        REQUIRE(ann.program.expect("Not sent: Bob?"));
    }
    const auto told = changed(bob.address, team, bob.key);
    const std::string described =
        to_string(bob.address) + (team.empty() ? "" : " - " + team) + " key " + bob.key + '\n';
    for (const char* text : {"refused", "refused again"}) {
        bob.send(ann.address, text);
        REQUIRE(bob.program.expect("the peer closed without taking the message\nNot sent: " +
                                   std::string(text)));
        CHECK(ann.program.expect_line(told));
    }
    ann.send(bob.address, "refused, too");
    CHECK(ann.program.expect("Error sending to " + to_string(bob.address) +
                             ": the key is not the pinned one\nNot sent: refused, too"));
    CHECK_EQ(count(ann.program.text(), "KEY CHANGED"), 1);

    const std::string question = "Accept it (yes, no): ";
    REQUIRE(ann.program.choose("k"));
    CHECK(ann.program.expect(described));
    for (const char* unclear : {"", "y", "k", "YES"}) {
        REQUIRE(ann.program.answer(question, unclear));
        CHECK(ann.program.expect("yes accepts the key, no discards it, 0 goes back.\n"));
    }
    REQUIRE(ann.program.answer(question, "0"));
    bob.send(ann.address, "not yet");
    REQUIRE(bob.program.expect("Not sent: not yet"));
    REQUIRE(ann.program.choose("k"));
    REQUIRE(ann.program.answer(question, "yes"));
    CHECK(ann.program.expect("Accepted: " + to_string(bob.address) + " now has this key.\n"));
    bob.send(ann.address, "at last");
    CHECK(ann.program.expect_line("[encrypted] " + bob.name() + " at last"));
    ann.send(bob.address, "welcome");
    CHECK(bob.program.expect_line("[encrypted] " + ann.name() + " welcome"));
    REQUIRE(ann.program.choose("2"));
    CHECK(ann.program.expect(to_string(bob.address) + " - Bob key " + bob.key + '\n'));
    REQUIRE(ann.program.choose("k"));
    CHECK(ann.program.expect("No key has changed.\n"));
    CHECK_EQ(count(ann.program.text(), "KEY CHANGED"), 1);
    CHECK_EQ(count(ann.program.text(), "[encrypted] " + bob.name() + ' '), 2);
    CHECK_EQ(count(bob.program.text(), "[encrypted] " + ann.name() + ' '), 1);
}

TEST_CASE("one of several changed keys can be accepted, and another discarded") {
    const nobody here, first_place, second_place;
    person ann("Ann", here);
    const auto bob = with_another_key(ann, "Bob", first_place);
    const auto carl = with_another_key(ann, "Carl", second_place);
    const std::string of_bob =
        to_string(bob->address()) + " - Bob key " + fingerprint((*bob)->key()) + '\n';
    const std::string of_carl =
        to_string(carl->address()) + " - Carl key " + fingerprint((*carl)->key()) + '\n';
    const std::string selection = "Select key number: ", question = "Accept it (yes, no): ";
    REQUIRE(ann.program.choose("k"));
    CHECK(ann.program.expect("1. " + of_bob + "2. " + of_carl));
    REQUIRE(ann.program.answer(selection, "3"));
    CHECK(ann.program.expect("Enter a number from 1 to 2.\n"));
    REQUIRE(ann.program.answer(selection, "0"));
    REQUIRE(ann.program.choose("k"));
    REQUIRE(ann.program.answer(selection, "2"));
    REQUIRE(ann.program.expect(of_carl));
    REQUIRE(ann.program.answer(question, "yes"));
    REQUIRE(ann.program.expect("Accepted: " + to_string(carl->address())));
    CHECK((*bob)->send(ann.address, "I am Bob") == p2pchat::errc::not_taken);
    // What is shown later than that: so it has been heard of by then.
    CHECK_FALSE((*carl)->send(ann.address, "I am Carl"));
    CHECK(ann.program.expect_line("[encrypted] " + to_string(carl->address()) + " Carl I am Carl"));

    REQUIRE(ann.program.choose("k"));
    REQUIRE(ann.program.expect(of_bob));
    REQUIRE(ann.program.answer(question, "no"));
    REQUIRE(ann.program.choose("k"));
    CHECK(ann.program.expect("No key has changed.\n"));
    CHECK((*bob)->send(ann.address, "It is me") == p2pchat::errc::not_taken);
    CHECK(ann.program.wait_until_output([&] {
        return count(ann.program.text(), "KEY CHANGED: " + to_string(bob->address())) == 2;
    }));
}

TEST_CASE("a flood of changed keys does not flood the screen") {
    const nobody here, there;
    person ann("Ann", here);
    const auto bobs_again = [&](int how_many) {
        for (int i = 0; i < how_many; ++i) {
            recording_node bob(encrypted("Bob", there.address().port()));
            for (int again = 0; again < 3; ++again) static_cast<void>(bob->send(ann.address, "Hi"));
        }
    };
    bobs_again(1 + 13);  // the first one's key becomes the known one
    recording_node carl(encrypted("Carl", 0));
    REQUIRE_FALSE(carl->send(ann.address, "is told after all those"));
    REQUIRE(ann.program.expect("Carl is told after all those\n"));
    CHECK_EQ(count(ann.program.text(), "KEY CHANGED"), menu::changed_keys::max_per_host);
    CHECK_EQ(count(ann.program.text(), "No further keys from there are reported"), 1);

    ann.program.enter("k");
    REQUIRE(ann.program.answer("\n8. ", "8"));
    REQUIRE(ann.program.answer("Accept it (yes, no): ", "yes"));
    REQUIRE(ann.program.expect("Accepted: "));
    bobs_again(1);
    CHECK(ann.program.expect("KEY CHANGED: " + to_string(there.address())));
}

TEST_CASE("each changed key is listed once, with a limit for all and one for each host") {
    menu::changed_keys keys;
    const p2pchat::endpoint bob("10.1.1.1", 5000);
    CHECK(keys.add(offer(bob, 1)));
    CHECK_FALSE(keys.add(offer(bob, 1)));
    CHECK(keys.add(offer({"10.1.1.1", 5001}, 1)));
    std::size_t added = 2;
    for (unsigned char key = 2; key < 100; ++key) added += keys.add(offer(bob, key));
    CHECK_EQ(added, menu::changed_keys::max_per_host);
    CHECK_FALSE(keys.has_room(bob));
    CHECK(keys.has_room({"10.1.1.2", 5000}));
    for (int host = 2; host < 200; ++host)
        added += keys.add(offer({"10.1.1." + std::to_string(host), 1}, 1));
    CHECK_EQ(added, menu::changed_keys::max);
    CHECK_FALSE(keys.has_room({"10.1.2.1", 5000}));

    keys.remove(offer(bob, 2));
    CHECK_EQ(keys.all().size(), menu::changed_keys::max - 1);
    keys.accept(offer(bob, 3));
    CHECK_FALSE(keys.add(offer(bob, 3)));  // was on its way
    const auto left = keys.all();
    CHECK_EQ(left.size(), menu::changed_keys::max - menu::changed_keys::max_per_host + 1);
    CHECK_EQ(left[0].address.port(), 5001);
}

TEST_CASE("the program's key and the keys of its peers survive a restart") {
    const nobody here, there;
    const auto identity = new_file(), pins = new_file();
    std::string key;
    person bob("Bob", there);
    {
        person ann("Ann", here, identity, pins);
        key = ann.key;
        bob.send(ann.address, "Hi");
        REQUIRE(ann.program.expect_line("[encrypted] " + bob.name() + " Hi"));
        ann.send(bob.address, "Hi");
        REQUIRE(bob.program.expect_line("[encrypted] " + ann.name() + " Hi"));
        ann.leave();
    }
    CHECK_EQ(content(pins).rfind(bob.name() + ' ', 0), 0);
    person ann("Ann", here, identity, pins);
    CHECK_EQ(ann.key, key);
    ann.send(bob.address, "me again");
    CHECK(bob.program.expect_line("[encrypted] " + ann.name() + " me again"));
    CHECK_EQ(count(bob.program.text(), "KEY CHANGED"), 0);
}

TEST_CASE("by default keys are stored in the settings folder, but only at a terminal") {
    if (!support::has_terminals()) return;
    const support::folder home;
    const auto key = [](const menu_program::words& more, bool at_terminal) {
        const nobody place;
        menu_program::words line = {"--team", "Ann", "--port", support::port_of(place.address()),
                                    "--encryption=preferred"};
        line.insert(line.end(), more.begin(), more.end());
        std::optional<menu_program> program;
        at_terminal ? program.emplace(flags(line), support::terminal_kind{})
                    : program.emplace(flags(line));
        auto result = person::own_key(*program);
        REQUIRE(program->choose("0"));
        REQUIRE_EQ(program->finish(), 0);
        const bool is_kept = at_terminal && more.front() == "--config";
        CHECK_NE(
            program->text().find("There is no folder to store keys in: your key is a new one") !=
                std::string::npos,
            is_kept);
        return result;
    };
    const menu_program::words with_folder = {"--config", home.file("new")};
    const auto first = key(with_folder, true);
    CHECK_EQ(key(with_folder, true), first);
    for (const char* name : {"new/identity", "new/pins"})
        CHECK(std::filesystem::exists(home.file(name)));
    CHECK_NE(key(with_folder, false), first);
    const auto once = key({"--no-config"}, true);
    CHECK_NE(once, first);
    CHECK_NE(key({"--no-config"}, true), once);
}

TEST_CASE("an invalid key flag is named before the first question") {
    const auto ends = [](const menu_program::words& arguments, const std::string& why) {
        menu_program program(flags(arguments));
        CHECK_EQ(program.finish(), 2);
        CHECK_EQ(program.text(), "p2pchat: " + why + "\nSee p2pchat --help.\n");
    };
    const auto wrong = new_file(), good = new_file();
    std::ofstream(wrong) << "nothing of the kind\n";
    std::filesystem::permissions(
        wrong, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    ends({"--encryption"}, "--encryption: needs a value");
    ends({"--encryption", "maybe"}, "--encryption maybe: off, preferred or required");
    ends({"--identity="}, "--identity : needs a file name");
    ends({"--pins="}, "--pins : needs a file name");
    ends({"--identity", good}, "--identity " + good + ": needs --encryption preferred or required");
    ends({"--encryption=off", "--pins", good},
         "--pins " + good + ": needs --encryption preferred or required");
    ends({"--encryption", "preferred", "--identity", wrong},
         "--identity " + wrong + ": the identity is not a P-256 key, or others may read its file");
    ends({"--encryption", "preferred", "--identity", good, "--pins", wrong},
         "--pins " + wrong + ": a line of the pins is not \"address team key\"");
    ends({"--encryption", "preferred", "--identity", wrong + "/none"},
         "--identity " + wrong + "/none: Not a directory");
    ends({"--encryption", "preferred", "--identity", good, "--pins", support::state_folder()},
         "--pins " + support::state_folder() + ": Is a directory");
    menu_program help({"--help"});
    CHECK_EQ(help.finish(), 0);
    for (const char* flag : {"--encryption required", "--identity FILE", "--pins FILE"})
        CHECK(help.text().find(flag) != std::string::npos);
}

TEST_CASE("without --encryption no keys are shown or accepted") {
    support::party ours("Ours");
    REQUIRE(ours.program.choose("?"));
    REQUIRE(ours.program.choose("k"));
    REQUIRE(ours.program.expect("Invalid choice. Try again.\n"));
    for (const char* word : {"key", "encrypted"}) CHECK_EQ(count(ours.program.text(), word), 0);
}
