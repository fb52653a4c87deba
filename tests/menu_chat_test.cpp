// Conversations in the menu program, as users see them, in pseudo-terminals. POSIX only; where it
// was built without libedit, a half-typed line is not drawn again, and the tests of that are
// skipped.
//
// SPDX-License-Identifier: MIT

#include "menu_program.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>

using support::begin_message;
using support::count;
using support::flags;
using support::folder;
using support::has_editor;
using support::has_terminals;
using support::menu_program;
using support::nobody;
using support::party;
using support::squeezed;
using support::terminal_kind;

namespace {

const terminal_kind usual, small{"xterm", 40, 15};

/// Starts a conversation from the menu.
void chat(party& from, const std::string& with, const std::string& prompt) {
    REQUIRE(from.program.shows_line("Enter choice:"));
    from.program.enter("/chat " + with);
    REQUIRE(from.program.shows_line(prompt));
}

/// Line breaks do not count.
bool shows(menu_program& program, const std::string& text) {
    const bool came = program.wait_until_output([&] {
        return squeezed(program.screen().text()).find(squeezed(text)) != std::string::npos;
    });
    if (!came) MESSAGE("waited for: ", text, "\nand there was: ", program.screen().text());
    return came;
}

/// Makes `from` known to `to`.
void greet(party& from, party& to) {
    begin_message(from, to);
    from.program.enter("Hello");
    REQUIRE(shows(to.program, from.name() + ' '));
    REQUIRE(shows(from.program, "Delivered to " + to.name()));
}

}  // namespace

TEST_CASE("a conversation with one peer, or with all, shows each line with its outcome") {
    if (!has_terminals()) return;
    terminal_kind kind = usual;
    SUBCASE("at 80 x 24") {}
    SUBCASE("at 40 x 15") { kind = small; }
    party ann("Ann", kind), bob("Bob", kind), carl("Carl", kind);
    greet(bob, ann);
    greet(carl, ann);
    greet(carl, bob);

    chat(ann, "Bob", "Bob> ");
    ann.program.enter("Are you there?");
    CHECK(shows(ann.program, "to Bob: Are you there? ✓"));
    CHECK(shows(bob.program, ann.name() + " Ann Are you there?"));
    chat(bob, "Ann", "Ann> ");
    bob.program.enter("Yes");
    CHECK(shows(bob.program, "to Ann: Yes ✓"));
    CHECK(shows(ann.program, "Bob: Yes"));

    // A message to all is shown with its sender, or its outcome, in every conversation.
    chat(carl, "", "all> ");
    carl.program.enter("Lunch?");
    CHECK(shows(carl.program, "to all: Lunch? ✓ 2 of 2"));
    for (party* one : {&ann, &bob}) CHECK(shows(one->program, "Carl to all: Lunch?"));
    ann.program.enter("/all Yes, at ten");
    CHECK(shows(ann.program, "to all: Yes, at ten ✓ 2 of 2"));
    for (party* one : {&carl, &bob}) CHECK(shows(one->program, "Ann to all: Yes, at ten"));
    REQUIRE(ann.program.shows_line("Bob>"));
    ann.program.enter("with you, too");
    CHECK(shows(bob.program, "Ann: with you, too"));

    // The menu is shown once, at the start.
    CHECK_EQ(count(ann.program.screen().text(), "**** Menu"), 1);
    CHECK_EQ(count(carl.program.screen().text(), "with you"), 0);

    bob.program.enter("/quit");
    CHECK_EQ(bob.program.finish(), 0);
    CHECK(shows(ann.program, "Bob disconnected."));
}

TEST_CASE("in a conversation a slash begins a command, and two slashes a message") {
    if (!has_terminals()) return;
    party ann("Ann", usual), bob("Bob", usual);
    greet(bob, ann);
    chat(ann, "1", "Bob> ");
    ann.program.enter("//usr is a folder");
    CHECK(shows(bob.program, "Ann /usr is a folder"));
    REQUIRE(ann.program.shows_line("Bob>"));
    ann.program.enter("/usr is none");
    CHECK(shows(ann.program, "Bob> /usr is none\nNo such command; /help lists them."));
    REQUIRE(ann.program.shows_line("Bob>"));
    ann.program.enter("1");  // keys are for the menu
    CHECK(shows(ann.program, "to Bob: 1 ✓"));
    ann.program.enter("/help");
    for (const char* word : {"/peers", "/chat NAME", "/all TEXT", "/menu", "/quit", "/name"})
        CHECK(shows(ann.program, word));
    ann.program.enter("/peers");
    CHECK(shows(ann.program, "1. " + bob.name() + " - Bob"));
    REQUIRE(ann.program.shows_line("Bob>"));
    ann.program.enter("/chat nobody@all");
    CHECK(shows(ann.program, "nobody@all: "));
    REQUIRE(ann.program.shows_line("Bob>"));
    ann.program.enter("/menu");
    CHECK(ann.program.shows_line("?. Help\nEnter choice:"));
    CHECK_EQ(count(bob.program.text(), "is none"), 0);
}

TEST_CASE("the line of a message for an absent peer says that it is kept") {
    if (!has_terminals()) return;
    const nobody here;
    party ann("Ann", usual), bob("Bob", usual);
    greet(bob, ann);
    const auto absent = to_string(here.address());
    chat(ann, absent, absent + "> ");
    ann.program.enter("later");
    CHECK(shows(ann.program, "to " + absent + ": later kept until " + absent + " is reachable"));
    REQUIRE(ann.program.shows_line(absent + ">"));
    ann.program.enter("/chat Bob");
    REQUIRE(ann.program.shows_line("Bob>"));
    ann.program.enter("exit");
    CHECK(shows(ann.program, "to Bob: exit ✓"));
}

TEST_CASE("a line being typed in a conversation stays intact while messages arrive") {
    if (!has_editor()) return;
    terminal_kind kind = usual;
    SUBCASE("at 80 x 24") {}
    SUBCASE("at 40 x 15") { kind = small; }
    party ann("Ann", kind), bob("Bob", kind);
    greet(bob, ann);
    chat(ann, "Bob", "Bob> ");
    const std::string typed = "naïve 漢字漢字 🙂 and on, longer than half a row";
    ann.program.type(typed);
    REQUIRE(ann.program.shows_line("Bob> " + typed));
    // Controls, marks of direction and what is no UTF-8 are shown, and not obeyed.
    const std::pair<std::string, std::string> lines[] = {
        {"plain", "plain"},
        {"漢字 🙂 שלום", "漢字 🙂 שלום"},
        {"a\x1b[2Jb", "a\\x1b[2Jb"},
        {"right\u202eleft", "right\\xe2\\x80\\xaeleft"},
        {"cut \xe2\x80", "cut \\xe2\\x80"}};
    for (const auto& [text, shown] : lines) {
        CHECK_EQ(support::one_shot(ann.address(), support::wire({"127.0.0.1", 4711}, text)),
                 support::ending::closed);
        CHECK(shows(ann.program, "Raw: " + shown));
        CHECK(ann.program.shows_line("Bob> " + typed));
    }
    ann.program.resize(30, 10);
    CHECK(ann.program.shows_line("Bob> " + typed));
    ann.program.resize(kind.columns, kind.rows);
    CHECK(ann.program.shows_line("Bob> " + typed));
    ann.program.enter(", whole");
    CHECK(shows(ann.program, "to Bob: " + typed + ", whole ✓"));
    CHECK(shows(bob.program, "Ann " + typed + ", whole"));
    CHECK_EQ(count(ann.program.screen().text(), "naïve"), 1);  // the line typed has gone
}

TEST_CASE("the user can type and send while a thousand messages a second arrive") {
    if (!has_editor()) return;
    terminal_kind kind = usual;
    SUBCASE("at 80 x 24") {}
    SUBCASE("at 40 x 15") { kind = small; }
    constexpr int messages = 1000;
    party ann("Ann", kind), bob("Bob", kind);
    support::recording_node flood(support::local("Flood"));
    greet(bob, ann);
    REQUIRE_FALSE(flood->connect(ann.address()).error);
    chat(ann, "Bob", "Bob> ");
    std::thread sender([&] {
        auto next = std::chrono::steady_clock::now();
        for (int i = 0; i < messages; ++i) {
            CHECK_FALSE(flood->post(ann.address(), "flood " + std::to_string(i), {},
                                    p2pchat::when_full::wait));
            std::this_thread::sleep_until(next += std::chrono::milliseconds(1));  // their rate
        }
    });
    const std::string words = "one types while it floods";
    ann.program.type(words);
    CHECK(ann.program.shows_line("Bob> " + words));
    ann.program.enter("");
    CHECK(shows(ann.program, "to Bob: " + words + " ✓"));
    CHECK(shows(bob.program, "Ann " + words));
    sender.join();
    CHECK(shows(ann.program, "flood " + std::to_string(messages - 1)));
    CHECK(ann.program.shows_line("Bob>"));
    const auto text = ann.program.screen().text();
    CHECK_EQ(count(text, "Flood: flood "), messages);
    CHECK_EQ(count(text, "Bob>"), 1);  // the prompt, as it stands now
}

TEST_CASE("Tab completes commands and names, which include an address where two are the same") {
    if (!has_editor()) return;
    party ann("Ann", usual), bob("Robert", usual), other("Bob", usual), third("Bob", usual);
    for (party* one : {&bob, &other}) greet(*one, ann);
    REQUIRE(ann.program.shows_line("Enter choice:"));
    ann.program.type("/ch\tRo\t");
    REQUIRE(ann.program.shows_line("Enter choice: /chat Robert"));
    ann.program.enter("");
    REQUIRE(ann.program.shows_line("Robert>"));
    ann.program.enter("/chat Bob");
    REQUIRE(ann.program.shows_line("Bob>"));
    greet(third, ann);
    ann.program.enter("");
    REQUIRE(ann.program.shows_line("Bob@" + other.name() + ">"));
    ann.program.enter("/chat Bob");
    CHECK(shows(ann.program, "Several peers have that name"));
    ann.program.type("/chat B\t\t");
    CHECK(shows(ann.program, "Bob@" + other.name() + "  "));
    CHECK(shows(ann.program, "Bob@" + third.name() + "  "));
    ann.program.enter("\x15/chat Bob@" + third.name());  // Ctrl-U: in place of that
    REQUIRE(ann.program.shows_line("Bob@" + third.name() + ">"));
    ann.program.enter("for the third");
    CHECK(shows(third.program, "Ann for the third"));
    ann.program.type("tab\there");  // elsewhere it is a character
    CHECK(shows(ann.program, "> tab"));
}

TEST_CASE("a given name is permanent, and a conversation opens with its last lines, dimmed") {
    if (!has_terminals()) return;
    const folder home;
    const menu_program::words kept = {"--config", home.path(), "--log", home.file("log")};
    party bob("Bob", usual);
    {
        party ann("Ann", usual, kept);
        greet(bob, ann);
        REQUIRE(ann.program.shows_line("Enter choice:"));
        ann.program.enter("/name Bob 7");
        CHECK(shows(ann.program, "A name cannot be a number"));
        REQUIRE(ann.program.shows_line("Enter choice:"));
        ann.program.enter("/name Bob robert");
        CHECK(shows(ann.program, bob.name() + " is now called robert."));
        chat(ann, "robert", "robert> ");
        for (int i = 1; i <= 30; ++i) {
            ann.program.enter("line " + std::to_string(i));
            REQUIRE(shows(ann.program, "to robert: line " + std::to_string(i) + " ✓"));
        }
        ann.program.enter("/all for everybody");
        REQUIRE(shows(ann.program, "for everybody ✓"));
        ann.program.enter("/quit");
        CHECK_EQ(ann.program.finish(), 0);
    }
    // Team and port are not asked for again.
    menu_program ann(flags(kept), usual, {"NO_COLOR="});
    REQUIRE(ann.shows_line("Enter choice:"));
    ann.enter("/chat " + bob.name());
    REQUIRE(ann.shows_line("robert>"));
    const auto shown = ann.screen().text();
    CHECK_EQ(count(shown, "line "), 20 + 1);  // and the one that says how it works
    for (const char* there : {"to robert: line 11\n", "to robert: line 30\n"})
        CHECK_EQ(count(shown, there), 1);
    CHECK(ann.text().find("\x1b[2m20") != std::string::npos);
    CHECK_EQ(count(shown, "everybody"), 0);
    ann.enter("/chat");
    REQUIRE(ann.shows_line("all>"));
    CHECK(shows(ann, "to all: for everybody"));
}

TEST_CASE("team and port are asked for once, and not stored over pipes or with --no-config") {
    if (!has_terminals()) return;
    const folder home;
    const menu_program::words where = {"--config", home.path()};
    std::string port;
    {
        party ann("Ann", usual, where);
        port = ann.port;
        CHECK(shows(ann.program, "remembered in " + home.path() + "/settings"));
        CHECK_EQ(support::content(home.file("settings")), "port " + port + "\nteam Ann\n");
        // The port is taken for a second one, which has the rest.
        menu_program second(flags(where), usual);
        REQUIRE(second.expect("Port " + port + " is taken: "));
        support::give_port(second);
        REQUIRE(second.choose("0"));
        CHECK_EQ(second.finish(), 0);
        CHECK_EQ(support::content(home.file("settings")), "port " + port + "\nteam Ann\n");
    }
    menu_program again(flags(where), usual);
    CHECK(again.expect("(port " + port + ")"));
    REQUIRE(again.choose("0"));
    CHECK_EQ(again.finish(), 0);
    CHECK_EQ(count(again.text(), "Enter your"), 0);

    const folder none;
    party piped("Ann", {"--config", none.path()});
    party unwilling("Bob", usual, {"--config", none.path(), "--no-config"});
    for (party* one : {&piped, &unwilling}) {
        REQUIRE(one->program.choose("0"));
        CHECK_EQ(one->program.finish(), 0);
    }
    CHECK(std::filesystem::is_empty(none.path()));
}

TEST_CASE("the bell rings and the title counts while the window has no focus") {
    if (!has_editor()) return;
    menu_program::words more;
    bool is_quiet = false;
    SUBCASE("by default") {}
    SUBCASE("with --quiet neither does") { more = {"--quiet"}, is_quiet = true; }
    party ann("Ann", usual, more), bob("Bob", usual);
    const auto title = [&](const std::string& text) {
        return ann.program.wait_until_output(
            [&] { return ann.program.screen().title() == (is_quiet ? "" : text); });
    };
    REQUIRE(ann.program.shows_line("Enter choice:"));
    CHECK(title("2;p2pchat Ann"));
    greet(bob, ann);
    CHECK(title("2;p2pchat Ann"));
    CHECK_EQ(ann.program.screen().bells(), 0);
    ann.program.type("\x1b[O");
    ann.program.type("x");  // read behind that, and so is what comes next
    REQUIRE(ann.program.shows_line("Enter choice: x"));
    chat(bob, ann.name(), ann.name() + "> ");
    for (const char* text : {"one", "two"}) {
        bob.program.enter(text);
        CHECK(shows(ann.program, std::string("Bob ") + text));
    }
    CHECK(title("2;(2) p2pchat Ann"));
    CHECK_EQ(ann.program.screen().bells() > 0, !is_quiet);
    ann.program.type("\x1b[I");
    CHECK(title("2;p2pchat Ann"));
}
