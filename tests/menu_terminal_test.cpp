// The menu program as users see it, in a pseudo-terminal. POSIX only; without libedit or without
// pseudo-terminals, the tests that need them say that they are skipped.
//
// SPDX-License-Identifier: MIT

#include "menu_program.hpp"

#include <doctest/doctest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

using support::begin_message;
using support::flags;
using support::has_editor;
using support::has_terminals;
using support::menu_program;
using support::original;
using support::party;
using support::terminal_kind;

namespace {

const std::string message_prompt = "Enter your message (type 'exit' to disconnect): ";

/// Sends `text` to `to`, whatever else is on the screen.
void say(party& from, const p2pchat::endpoint& to, const std::string& text) {
    REQUIRE(from.program.choose("1"));
    REQUIRE(from.program.answer("Enter recipient's IP address: ", to_string(to)));
    REQUIRE(from.program.answer(message_prompt, text));
}

p2pchat::endpoint sender(std::uint16_t port = 4711) { return {"127.0.0.1", port}; }

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

/// A file of the test's own, removed with it.
struct temporary_file {
    std::string name = (std::filesystem::temp_directory_path() /
                        ("p2pchat-log-" + std::to_string(getpid()) + "-" + support::free_port()))
                           .string();

    temporary_file() = default;
    temporary_file(const temporary_file&) = delete;
    temporary_file& operator=(const temporary_file&) = delete;
    ~temporary_file() { std::remove(name.c_str()); }

    std::string text() const { return support::content(name); }
};

}  // namespace

TEST_CASE("a half-typed line is kept while ten messages arrive") {
    if (!has_editor()) return;
    unsigned short columns = 80;
    std::string typed;
    SUBCASE("in a wide window") { typed = "half a line"; }
    SUBCASE("in a narrow window, over several rows") {
        columns = 20;
        typed = "a line of several words, longer than the window is wide";
    }
    SUBCASE("in UTF-8, with wide characters at the window's edge") {
        columns = 21;
        typed = "naïve 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢 🙂";
    }
    SUBCASE("ending exactly at the window's edge") { columns = 49, typed = "x"; }
    party ours("Ours", terminal_kind{}), theirs("Theirs");
    begin_message(ours, theirs);
    ours.program.resize(columns, 8);
    ours.program.type(typed);
    REQUIRE(ours.program.shows_line(message_prompt + typed));
    for (int i = 0; i < 10; ++i) {
        const auto text = "message " + std::to_string(i);
        CHECK_EQ(support::one_shot(ours.address(), support::wire(sender(), text)),
                 support::ending::closed);
        CHECK(ours.program.wait_until_output(
            [&] { return contains(ours.program.text(), "127.0.0.1:4711 Raw " + text); }));
        CHECK(ours.program.shows_line(message_prompt + typed));
    }
    // Each message once, on lines of its own, and no rest of the prompt between them.
    std::string shown = ours.program.screen().text();
    shown.erase(std::remove(shown.begin(), shown.end(), '\n'), shown.end());
    std::size_t at = shown.find("message 0");
    for (int i = 1; i < 10; ++i) {
        const auto next = shown.find("message " + std::to_string(i), at);
        REQUIRE_NE(next, std::string::npos);
        CHECK_FALSE(contains(shown.substr(at, next - at), "Enter"));
        at = next;
    }
    ours.program.enter(", whole");
    CHECK(theirs.program.expect_line(ours.name() + " Ours " + typed + ", whole"));
    CHECK(ours.program.shows("✓ Delivered to "));
}

TEST_CASE("a line is edited as in a shell, in characters and not in bytes") {
    if (!has_editor()) return;
    party ours("Ours", terminal_kind{}), theirs("Theirs");
    begin_message(ours, theirs);
    ours.program.type("漢字🙂\x7f\x7fé ");  // deletes two characters
    ours.program.type("tail\x01head \x05.\n");   // to the beginning, to the end
    CHECK(theirs.program.expect_line(ours.name() + " Ours head 漢é tail."));

    REQUIRE(ours.program.shows("✓ Delivered"));
    begin_message(ours, theirs);
    ours.program.type("\x1b[A");  // up: what was typed here before
    REQUIRE(ours.program.shows_line(message_prompt + "head 漢é tail."));
    ours.program.enter(" Again.");
    CHECK(theirs.program.expect_line(ours.name() + " Ours head 漢é tail. Again."));
}

TEST_CASE("a pasted tab stays in the line") {
    if (!has_editor()) return;
    party ours("Ours", terminal_kind{}), theirs("Theirs");
    begin_message(ours, theirs);
    ours.program.enter("one\ttwo");
    CHECK(theirs.program.expect_line(ours.name() + R"( Ours one\x09two)"));
}

TEST_CASE("pasted lines become one line, which only the user's Enter ends") {
    if (!has_editor()) return;
    party ours("Ours", terminal_kind{}), theirs("Theirs");
    begin_message(ours, theirs);
    ours.program.type("<>\x02");  // Ctrl-B: between the two
    ours.program.paste("my list\nb\n\nmy private \x1b\x01line\n");
    REQUIRE(ours.program.shows_line(message_prompt + "<my list b my private line>"));
    ours.program.enter("");
    CHECK(theirs.program.expect_line(ours.name() + " Ours <my list b my private line>"));

    REQUIRE(ours.program.shows("✓ Delivered"));
    REQUIRE(ours.program.shows_line("Enter choice:"));
    ours.program.paste("0\nb\nmy private line");
    ours.program.enter("");
    CHECK(ours.program.shows("Enter choice: 0 b my private line\nInvalid choice. Try again."));
}

TEST_CASE("input that arrives together with an answer is ignored") {
    if (!has_terminals()) return;
    terminal_kind kind;
    SUBCASE("with an editor, if there is one") {}
    SUBCASE("without an editor") { kind.type = "dumb"; }
    party ours("Ours", kind), theirs("Theirs");
    const auto is_told = [&] {
        return ours.program.expect("Ignored: the input that arrived together with that line.");
    };
    for (const char* rest : {"\nb\nmy private line\n", "\n0\n", "\n0"}) {
        say(ours, theirs.address(), std::string("my list") + rest);
        CHECK(is_told());
    }
    REQUIRE(ours.program.choose("b\nmy private line"));
    CHECK(is_told());
    REQUIRE(ours.program.answer("to all peers: ", "the end"));
    CHECK(theirs.program.expect_line(ours.name() + " Ours @all the end"));
    CHECK_FALSE(contains(theirs.program.text(), "private"));
}

TEST_CASE("Esc goes back from every question, as does Enter where an answer is needed") {
    if (!has_editor()) return;
    const std::string to = "Enter recipient's IP address: ";
    party ours("Ours", terminal_kind{}), theirs("Theirs");
    auto& program = ours.program;
    const auto goes_back = [&](const std::string& question, const std::string& back) {
        REQUIRE(program.expect(question));
        program.type(back);
        REQUIRE(program.expect("Enter choice: "));
    };
    REQUIRE(program.expect("Enter choice: "));
    for (const std::string back : {"\n", "\x1b", "half an answer\x1b"}) {
        program.enter("4");
        goes_back("Enter mandatory message: ", back);
        program.enter("1");
        goes_back(to, back);
        program.enter("1");
        REQUIRE(program.answer(to, "127.0.0.1"));
        goes_back("recipient's port number: ", back);
        program.enter("1");
        REQUIRE(program.answer(to, "127.0.0.1:1"));
        goes_back(message_prompt, back);
        program.type(back);
        REQUIRE(program.expect("**** Menu ****"));
        REQUIRE(program.expect("Enter choice: "));
    }
    for (const char* none : {"cannot be empty", "Not sent", "Invalid choice", "enter an address"})
        CHECK_FALSE(contains(program.text(), none));
    say(theirs, ours.address(), "Hi");
    REQUIRE(program.shows("Theirs Hi"));
    for (const char* back : {"\n", "\x1b"}) {
        program.enter("3");
        goes_back("Select peer number: ", back);
        program.enter("b");
        goes_back("Enter message to all peers: ", back);
        program.enter("r");
        goes_back(message_prompt, back);
    }
    program.enter("2");
    say(ours, theirs.address(), "and on");
    CHECK(theirs.program.expect_line(ours.name() + " Ours and on"));
}

TEST_CASE("Esc at the first two questions goes back to the first") {
    if (!has_editor()) return;
    menu_program program(flags(), terminal_kind{});
    REQUIRE(program.expect("Enter your team name: "));
    program.type("Te\x1b");
    REQUIRE(program.shows("Enter your team name: Te\nEnter your team name:"));
    program.enter("Wrong");
    REQUIRE(program.expect("Enter your port number: "));
    program.type("50\x1b");
    REQUIRE(program.shows("Enter your port number: 50\nEnter your team name:"));
    program.enter("Right");
    REQUIRE(program.shows("Enter your team name: Right\nEnter your port number:"));
    const auto port = support::give_port(program);
    party theirs("Theirs");
    REQUIRE(program.choose("1"));
    REQUIRE(program.answer("Enter recipient's IP address: ", theirs.name()));
    REQUIRE(program.answer(message_prompt, "Hi"));
    CHECK(theirs.program.expect_line("127.0.0.1:" + port + " Right Hi"));
}

TEST_CASE("without an editor Esc goes back when Enter follows") {
    if (!has_terminals()) return;
    terminal_kind dumb;
    dumb.type = "dumb";
    party ours("Ours", dumb);
    REQUIRE(ours.program.choose("4"));
    REQUIRE(ours.program.answer("Enter mandatory message: ", "half a message\x1b"));
    REQUIRE(ours.program.choose("0"));
    CHECK_EQ(ours.program.finish(), 0);
    CHECK_FALSE(contains(ours.program.text(), "Not sent"));
}

TEST_CASE("in vi mode Esc belongs to the editor") {
    if (!has_editor()) return;
    temporary_file settings;
    std::ofstream(settings.name) << "bind -v\n";
    party ours("Ours", terminal_kind{}, {}, {"EDITRC=" + settings.name});
    REQUIRE(ours.program.shows_line("Enter choice:"));
    CHECK_FALSE(ours.program.screen().brackets_pastes());
    ours.program.type("22\x1b");
    REQUIRE(ours.program.expect("22\b"));
    ours.program.enter("x");  // deletes a character
    CHECK(ours.program.shows("Enter choice: 2\nNo connected peers."));
}

TEST_CASE("keys do what people expect, or nothing") {
    if (!has_editor()) return;
    party ours("Ours", terminal_kind{}), theirs("Theirs");
    begin_message(ours, theirs);
    ours.program.type("middle end");
    for (const std::string back : {"\x1b[1;2D", "\x1b[1;3D", "\x1b[1;5D", "\x1b\x1b[D"})
        ours.program.type(back + "<\x1b[4~");  // goes to the word's beginning, and to the end
    for (const std::string home : {"\x1b[1~", "\x1b[7~", "\x1b[1;5H"})
        ours.program.type(home + "x^\x1b[D\x1b[D\x1b[3~\x1b[8~");  // deletes the x
    // Up and down where there is no history, PageUp, PageDown, Insert, F1 and F5 of several
    // terminals, Shift-Tab; some with Ctrl.
    for (const char* none :
         {"\x1b[1;5A", "\x1b[1;5B", "\x1b[5~", "\x1b[6~", "\x1b[2~", "\x1b[5;5~", "\x1bOP",
          "\x1b[11~", "\x1b[[A", "\x1b[1;5P", "\x1b[15~", "\x1b[15;5~", "\x1b[[E", "\x1b[Z"})
        ours.program.type(none);
    ours.program.enter(".");
    CHECK(theirs.program.expect_line(ours.name() + " Ours ^^^middle <<<<end."));
}

TEST_CASE("resizing the window keeps the line") {
    if (!has_editor()) return;
    const std::string typed = "a line of several words, longer than a narrow window";
    party ours("Ours", terminal_kind{}), theirs("Theirs");
    begin_message(ours, theirs);
    ours.program.type(typed);
    REQUIRE(ours.program.shows_line(message_prompt + typed));
    for (const auto columns : {std::uint16_t{30}, std::uint16_t{90}, std::uint16_t{17}}) {
        const auto before = ours.program.text().size();
        ours.program.resize(columns, 24);
        CHECK(ours.program.wait_until_output([&] {  // it is drawn again
            return ours.program.text().find("Enter your mess", before) != std::string::npos;
        }));
        CHECK_EQ(support::one_shot(ours.address(), support::wire(sender(columns), "ping")),
                 support::ending::closed);
        const auto line = "127.0.0.1:" + std::to_string(columns) + " Raw ping";
        CHECK(ours.program.wait_until_output([&] { return contains(ours.program.text(), line); }));
        CHECK(ours.program.shows_line(message_prompt + typed));
    }
    ours.program.enter("");
    CHECK(theirs.program.expect_line(ours.name() + " Ours " + typed));
}

TEST_CASE("Ctrl-C within a line quits, and leaves the line on the screen") {
    if (!has_editor()) return;
    party ours("Ours", terminal_kind{}), theirs("Theirs");
    begin_message(ours, theirs);
    ours.program.type("never mind\x01");
    REQUIRE(ours.program.expect("never mind"));
    CHECK_EQ(support::one_shot(ours.address(), support::wire(sender(), "Hi")),
             support::ending::closed);
    REQUIRE(ours.program.shows("127.0.0.1:4711 Raw Hi"));
    REQUIRE(ours.program.shows("Raw Hi\n" + message_prompt + "never mind"));
    ours.program.press('\x03');
    CHECK_EQ(ours.program.finish(), 0);
    CHECK(contains(ours.program.screen().text(), message_prompt + "never mind\nExiting"));
}

TEST_CASE("Ctrl-Z does nothing where there is no shell to return to") {
    if (!has_editor()) return;
    party ours("Ours", terminal_kind{});
    REQUIRE(ours.program.shows_line("Enter choice:"));
    ours.program.type(
        "\x1a"
        "2\n");
    CHECK(ours.program.shows("Enter choice: 2\nNo connected peers."));
}

TEST_CASE("the prompt stays usable while a peer does not answer") {
    if (!has_terminals()) return;
    support::raw_listener silent;
    original answers;
    party ours("Ours", terminal_kind{});
    say(ours, silent.address(), "anybody there?");
    auto peer = silent.accept();
    say(ours, answers.address(), "Hi");
    CHECK(ours.program.shows("✓ Delivered to " + to_string(answers.address()) + ": Hi"));
    CHECK_FALSE(contains(ours.program.screen().text(), "Error sending"));
    peer.reset();
    CHECK(ours.program.shows("✗ Error sending to " + to_string(silent.address()) + ": "));
    CHECK(ours.program.shows("Not sent: anybody there? (s sends it again)"));

    ours.program.enter("s");
    auto again = silent.accept();
    again.read_to_end();
    CHECK_EQ(again.text(), ours.name() + " Ours anybody there?");
    again.close();
    CHECK(ours.program.shows("✓ Delivered to " + to_string(silent.address()) + ": anybody"));
    ours.program.enter("s");
    CHECK(ours.program.shows("No message has failed."));
}

TEST_CASE("quitting waits for pending messages until Ctrl-C") {
    if (!has_terminals()) return;
    support::raw_listener silent;
    party ours("Ours", terminal_kind{});
    say(ours, silent.address(), "Hi");
    auto peer = silent.accept();
    REQUIRE(ours.program.choose("0"));
    REQUIRE(ours.program.shows("Waiting for pending messages; Ctrl-C quits now."));
    SUBCASE("it arrives") {
        peer.read_to_end();
        peer.close();
        CHECK_EQ(ours.program.finish(), 0);
        CHECK(contains(ours.program.screen().text(), "✓ Delivered to "));
    }
    SUBCASE("Ctrl-C") {
        ours.program.press('\x03');
        CHECK_EQ(ours.program.finish(), 0);
        CHECK(contains(ours.program.screen().text(), "Not sent: Hi"));
    }
}

TEST_CASE("Ctrl-C quits without a hint to wait or to press it") {
    if (!has_terminals()) return;
    support::raw_listener silent;
    party ours("Ours", terminal_kind{});
    say(ours, silent.address(), "Hi");
    auto peer = silent.accept();
    REQUIRE(ours.program.expect("Enter choice: "));
    ours.program.press('\x03');
    CHECK_EQ(ours.program.finish(), 0);
    CHECK(contains(ours.program.screen().text(), "Not sent: Hi"));
    CHECK_FALSE(contains(ours.program.text(), "Waiting for pending messages"));
}

TEST_CASE("entries without a number have keys and words, and ? lists them") {
    if (!has_terminals()) return;
    original first, second;
    party ours("Ours", terminal_kind{});
    auto& program = ours.program;
    REQUIRE(program.choose("?"));
    for (const char* word : {"/send", "/peers", "/connect", "/mandatory", "/all", "/reply",
                             "/again", "/quit", "IP:PORT", "Enter for the last one"})
        CHECK(program.shows(word));
    REQUIRE(program.choose("r"));
    CHECK(program.expect("There is no message to reply to yet."));
    REQUIRE(program.choose("b"));
    CHECK(program.expect("No active peers to send to."));

    REQUIRE_FALSE(first.send(ours.address(), "I am first"));
    REQUIRE(program.shows("Python I am first"));
    REQUIRE_FALSE(second.send(ours.address(), "I am second"));
    REQUIRE(program.shows("Python I am second"));
    program.enter("/peers");
    CHECK(program.expect("Connected Peers:"));

    REQUIRE(program.choose("r"));
    REQUIRE(program.answer(message_prompt, "answer"));
    CHECK(second.wait_printed(ours.name() + " Ours answer"));
    CHECK(first.printed().empty());

    REQUIRE(program.choose("b"));
    REQUIRE(program.answer("Enter message to all peers: ", "hear, hear"));
    CHECK(first.wait_printed(ours.name() + " Ours @all hear, hear"));
    CHECK(second.wait_printed(ours.name() + " Ours @all hear, hear"));
    CHECK(program.shows("✓ Sent to " + to_string(first.address())));

    const bool first_is_one = first.address() < second.address();
    REQUIRE(program.choose("1"));
    REQUIRE(program.answer("Enter recipient's IP address: ", first_is_one ? "1" : "2"));
    REQUIRE(program.answer(message_prompt, "by number"));
    CHECK(first.wait_printed(ours.name() + " Ours by number"));
    REQUIRE(program.choose("1"));
    REQUIRE(program.answer("Enter recipient's IP address: ", ""));
    REQUIRE(program.answer(message_prompt, "to the last one"));
    CHECK(first.wait_printed(ours.name() + " Ours to the last one"));
    REQUIRE(program.choose("1"));
    REQUIRE(program.answer("Enter recipient's IP address: ", "0"));
    REQUIRE(program.choose("/quit"));
    CHECK_EQ(program.finish(), 0);
}

TEST_CASE("an address that was only written to is in the list of recipients") {
    if (!has_terminals()) return;
    original heard;
    party ours("Ours", terminal_kind{}), theirs("Theirs");
    REQUIRE_FALSE(heard.send(ours.address(), "Hi"));
    REQUIRE(ours.program.shows("Python Hi"));
    say(ours, theirs.address(), "Hi");
    REQUIRE(ours.program.shows("✓ Delivered"));
    const auto both =
        "1. " + to_string(heard.address()) + " - Python\n2. " + theirs.name() + "\nEnter ";
    REQUIRE(ours.program.choose("1"));
    CHECK(ours.program.shows(both + "recipient's IP address:"));
    REQUIRE(ours.program.answer("Enter recipient's IP address: ", "2"));
    REQUIRE(ours.program.answer(message_prompt, "by number"));
    CHECK(ours.program.shows("✓ Delivered to " + theirs.name() + ": by number"));
    REQUIRE(ours.program.choose("b"));
    CHECK(ours.program.shows(both + "message to all peers:"));
}

TEST_CASE("a terminal shows the menu once, then by Enter, and the hint about Esc once") {
    if (!has_terminals()) return;
    party ours("Ours", terminal_kind{});
    const std::string last = "0. Quit\nc. Chat  b. To all  r. Reply  ?. Help\nEnter choice:";
    CHECK(ours.program.shows(last));
    REQUIRE(ours.program.choose("2"));
    CHECK(ours.program.shows(last + " 2\nNo connected peers.\nEnter choice:"));
    REQUIRE(ours.program.choose(""));
    CHECK(ours.program.shows(last + " 2\nNo connected peers.\nEnter choice:\n**** Menu ****"));
    REQUIRE(ours.program.expect("Enter choice: "));
    const std::string way_back = "Esc goes back";
    const auto& text = ours.program.text();
    CHECK(contains(text, way_back));
    CHECK_EQ(text.find(way_back), text.rfind(way_back));
}

TEST_CASE("a connection is shown as one, and is no message to reply to") {
    if (!has_terminals()) return;
    party ours("Ours", terminal_kind{});
    CHECK_EQ(support::one_shot(ours.address(), support::wire(sender(), "CONNECT")),
             support::ending::closed);
    CHECK(ours.program.shows(" 127.0.0.1:4711 (Raw) connected.\n"));
    CHECK_FALSE(contains(ours.program.text(), "CONNECT"));
    REQUIRE(ours.program.choose("r"));
    CHECK(ours.program.expect("There is no message to reply to yet."));
}

TEST_CASE("colours are for terminals only, and NO_COLOR turns them off") {
    if (!has_terminals()) return;
    const auto sends = [](const terminal_kind& kind, const menu_program::words& environment) {
        party ours("Ours", kind, {}, environment);
        CHECK_EQ(support::one_shot(ours.address(), support::wire(sender(), "Hi")),
                 support::ending::closed);
        REQUIRE(ours.program.shows("127.0.0.1:4711 Raw Hi"));
        return ours.program.text();
    };
    const auto colour = [](const std::string& text) {
        const auto end = text.find("m127.0.0.1:4711 Raw");
        REQUIRE_NE(end, std::string::npos);
        const auto start = text.rfind('\x1b', end);
        return text.substr(start, end - start);
    };
    const auto coloured = sends(terminal_kind{}, {});
    CHECK_EQ(colour(coloured), colour(sends(terminal_kind{}, {})));
    CHECK_FALSE(contains(sends(terminal_kind{}, {"NO_COLOR=1"}), "m127.0.0.1:4711 Raw"));
    terminal_kind dumb;
    dumb.type = "dumb";
    const auto plain = sends(dumb, {});
    CHECK_FALSE(contains(plain, "\x1b"));
    CHECK(contains(plain, "\r\n127.0.0.1:4711 Raw Hi\r\n"));
}

TEST_CASE("each message is preceded by its time of day") {
    if (!has_terminals()) return;
    party ours("Ours", terminal_kind{});
    CHECK_EQ(support::one_shot(ours.address(), support::wire(sender(), "Hi")),
             support::ending::closed);
    REQUIRE(ours.program.shows(" 127.0.0.1:4711 Raw Hi"));
    const auto text = ours.program.screen().text();
    const auto at = text.find(" 127.0.0.1:4711 Raw Hi");
    CHECK_EQ(text[at - 9], '\n');
    CHECK_EQ(text[at - 6], ':');
    CHECK_EQ(text[at - 3], ':');
}

TEST_CASE("--log appends each message as one line") {
    temporary_file log;
    {
        std::ofstream(log.name) << "before\n";
        party ours("Ours", {"--log", log.name});
        CHECK_EQ(support::one_shot(ours.address(), support::wire(sender(), "one\ntwo \x1b")),
                 support::ending::closed);
        ours.send("1", "Hi");
        REQUIRE(ours.program.expect("Not sent: Hi"));
        REQUIRE(ours.program.choose("0"));
        CHECK_EQ(ours.program.finish(), 0);
    }
    std::istringstream lines(log.text());
    std::string line;
    REQUIRE(std::getline(lines, line));
    CHECK_EQ(line, "before");
    REQUIRE(std::getline(lines, line));
    CHECK_EQ(line.substr(10, 1), " ");
    CHECK_EQ(line.substr(19), R"( <- 127.0.0.1:4711 Raw one\x0atwo \x1b)");
    REQUIRE(std::getline(lines, line));
    CHECK_EQ(line.substr(19), " -> 127.0.0.1:1 Hi [not sent: Connection refused]");
    CHECK_FALSE(std::getline(lines, line));
}

TEST_CASE("two programs can write to one log without torn lines") {
    constexpr int messages = 50;
    temporary_file log;
    party a("A", {"--log", log.name}), b("B", {"--log", log.name});
    for (int i = 0; i < messages; ++i)
        for (const auto* to : {&a, &b})
            CHECK_EQ(support::one_shot(to->address(), support::wire(sender(), "a message")),
                     support::ending::closed);
    for (auto* program : {&a.program, &b.program}) {
        REQUIRE(program->choose("0"));
        CHECK_EQ(program->finish(), 0);
    }
    std::istringstream lines(log.text());
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count)
        CHECK_EQ(line.substr(19), " <- 127.0.0.1:4711 Raw a message");
    CHECK_EQ(count, 2 * messages);
}

#ifdef __linux__
TEST_CASE("a full disk is reported once, and the chat goes on") {
    if (access("/dev/full", W_OK) != 0) {
        MESSAGE("skipped: this needs /dev/full");
        return;
    }
    party ours("Ours", {"--log", "/dev/full"});
    for (const char* text : {"one", "two", "three"}) {
        CHECK_EQ(support::one_shot(ours.address(), support::wire(sender(), text)),
                 support::ending::closed);
        CHECK(ours.program.expect_line("127.0.0.1:4711 Raw " + std::string(text)));
    }
    const std::string told = "The log cannot be written: No space left on device";
    CHECK(ours.program.expect_line(told));
    REQUIRE(ours.program.choose("0"));
    CHECK_EQ(ours.program.finish(), 0);
    CHECK_EQ(ours.program.text().find(told), ours.program.text().rfind(told));
}
#endif

TEST_CASE("a log at its size limit is reported once, and the chat goes on") {
    temporary_file log;
    std::ofstream(log.name).close();
    std::filesystem::resize_file(log.name, 4'000'000);
    party ours("Ours", {"--log", log.name}, "ulimit -f 3000");  // blocks of 512 or 1024 bytes
    for (const char* text : {"one", "two"}) {
        CHECK_EQ(support::one_shot(ours.address(), support::wire(sender(), text)),
                 support::ending::closed);
        CHECK(ours.program.expect_line("127.0.0.1:4711 Raw " + std::string(text)));
    }
    CHECK(ours.program.expect_line("The log cannot be written: File too large"));
    REQUIRE(ours.program.choose("0"));
    CHECK_EQ(ours.program.finish(), 0);
}

TEST_CASE("a log that cannot be opened is reported as an invalid flag") {
    menu_program program(flags({"--log", "/nonexistent/directory/log"}));
    CHECK_EQ(program.finish(), 2);
    CHECK(contains(program.text(), "--log /nonexistent/directory/log: No such file"));
}
