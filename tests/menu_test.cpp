// The menu program as scripts drive it, over pipes; and how it ends. POSIX only.
//
// SPDX-License-Identifier: MIT

#include "lan.hpp"
#include "menu_program.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <utility>
#include <vector>

using support::flags;
using support::give_port;
using support::has_terminals;
using support::menu_program;
using support::original;
using support::party;
using support::port_of;

namespace {

const std::string the_menu =
    "**** Menu ****\n"
    "1. Send message\n"
    "2. Query active peers\n"
    "3. Connect to active peers\n"
    "4. Send mandatory message to default peers\n"
    "0. Quit\n"
    "Enter choice: ";

}  // namespace

TEST_CASE("over pipes the prompts and lines are the original's, to the letter") {
    party ours("Team_BTC");
    for (const char* choice : {"2", "3", "9", "0"}) ours.program.enter(choice);
    CHECK_EQ(ours.program.finish(), 0);
    CHECK_EQ(ours.program.text(),
             "Enter your team name: Enter your port number: "
             "Your detected IP address: 127.0.0.1\n"
             "Server listening on all interfaces (port " +
                 ours.port + ")\n" + the_menu + "No connected peers.\n" + the_menu +
                 "No active peers to connect to.\n" + the_menu + "Invalid choice. Try again.\n" +
                 the_menu + "Exiting\n");
}

TEST_CASE("two programs chat, and know each other afterwards") {
    party a("Team_A"), b("Team_B");
    a.send(b.port, "Hi, b!");
    CHECK(b.program.expect_line(a.name() + " Team_A Hi, b!"));
    b.send(a.port, "Hello  a, how are you?");
    CHECK(a.program.expect_line(b.name() + " Team_B Hello  a, how are you?"));
    REQUIRE(b.program.choose("2"));
    CHECK(b.program.expect("Connected Peers:\n" + a.name() + " - Team_A\n"));
    a.send(b.port, "exit");
    CHECK(b.program.expect_line(a.name() + " (Team_A) disconnected."));
    REQUIRE(b.program.choose("2"));
    CHECK(b.program.expect("No connected peers.\n"));
}

TEST_CASE("an open link is shown, and so is its end") {
    party a("Team_A"), b("Team_B");
    a.send(b.port, "Hi");
    REQUIRE(b.program.expect_line(a.name() + " Team_A Hi"));
    REQUIRE(b.program.choose("3"));
    REQUIRE(b.program.expect("Active Peers:\n1. " + a.name() + " - Team_A\n"));
    REQUIRE(b.program.answer("Select peer number: ", "2"));
    CHECK(b.program.expect("Enter a number from 1 to 1.\n"));
    REQUIRE(b.program.answer("Select peer number: ", "1"));
    CHECK(b.program.expect("Connected to " + a.name() + "\n"));
    CHECK(a.program.expect_line(b.name() + " Team_B CONNECT"));
    REQUIRE(b.program.choose("2"));
    CHECK(b.program.expect(a.name() + " - Team_A (linked)\n"));

    SUBCASE("when the other side quits") {
        REQUIRE(a.program.choose("0"));
        CHECK(b.program.expect_line(a.name() + " (Team_A) disconnected."));
    }
    SUBCASE("when the other side says exit") {
        a.send(b.port, "exit");
        CHECK(b.program.expect_line(a.name() + " (Team_A) disconnected."));
    }
    SUBCASE("when the other side is killed") {
        a.program.interrupt(SIGKILL);
        CHECK(b.program.expect_line(a.name() + " (Team_A) was lost: the link to it broke."));
    }
}

TEST_CASE("an address that was only written to is known to b and to the recipient prompt") {
    party a("Team_A"), b("Team_B");
    a.send("1", "nobody hears this");
    REQUIRE(a.program.expect("Not sent: nobody hears this"));
    REQUIRE(a.program.choose("b"));
    CHECK(a.program.expect("No active peers to send to.\n"));
    a.send(b.port, "Hi");
    REQUIRE(b.program.expect_line(a.name() + " Team_A Hi"));
    REQUIRE(a.program.choose("b"));
    REQUIRE(a.program.answer("Enter message to all peers: ", "hear, hear"));
    CHECK(a.program.expect("Sent to " + b.name() + "\n"));
    CHECK(b.program.expect_line(a.name() + " Team_A @all hear, hear"));
    REQUIRE(a.program.choose("1"));
    REQUIRE(a.program.answer("Enter recipient's IP address: ", "1"));
    REQUIRE(a.program.answer("(type 'exit' to disconnect): ", "by number"));
    CHECK(b.program.expect_line(a.name() + " Team_A by number"));

    // The original's entries list only peers that were heard from.
    REQUIRE(a.program.choose("2"));
    CHECK(a.program.expect("No connected peers.\n"));
    REQUIRE(a.program.choose("3"));
    CHECK(a.program.expect("No active peers to connect to.\n"));

    SUBCASE("once, when it has written, too") {
        b.send(a.port, "Hi");
        REQUIRE(a.program.expect_line(b.name() + " Team_B Hi"));
        REQUIRE(a.program.choose("b"));
        REQUIRE(a.program.answer("Enter message to all peers: ", "once"));
        CHECK(a.program.expect("Sent to " + b.name() + "\n**** Menu"));
        b.send(a.port, "exit");
        REQUIRE(a.program.expect_line(b.name() + " (Team_B) disconnected."));
    }
    SUBCASE("until a message does not reach it") {
        REQUIRE(b.program.choose("0"));
        REQUIRE_EQ(b.program.finish(), 0);
        a.send(b.port, "still there?");
        REQUIRE(a.program.expect("Not sent: still there?"));
    }
    REQUIRE(a.program.choose("b"));
    CHECK(a.program.expect("No active peers to send to.\n"));
}

TEST_CASE("leaving notifies every known peer") {
    party a("Team_A"), b("Team_B");
    a.send(b.port, "Hi");
    REQUIRE(b.program.expect_line(a.name() + " Team_A Hi"));
    SUBCASE("a peer that it has only written to") {}
    SUBCASE("a peer that it has heard from") {
        b.send(a.port, "Hi");
        REQUIRE(a.program.expect_line(b.name() + " Team_B Hi"));
    }
    SUBCASE("after a signal, too") {
        REQUIRE(a.program.expect("Enter choice: "));  // the delivery has been reported
        a.program.interrupt(SIGTERM);
        CHECK(b.program.expect_line(a.name() + " (Team_A) disconnected."));
        return;
    }
    REQUIRE(a.program.choose("0"));
    CHECK_EQ(a.program.finish(), 0);
    CHECK(b.program.expect_line(a.name() + " (Team_A) disconnected."));
    REQUIRE(b.program.choose("2"));
    CHECK(b.program.expect("No connected peers.\n"));
}

TEST_CASE("the menu program talks with the original") {
    original theirs;
    party ours("Team_BTC");
    REQUIRE_FALSE(theirs.send(ours.address(), "Hi from Python"));
    CHECK(ours.program.expect_line(to_string(theirs.address()) + " Python Hi from Python"));

    ours.send(port_of(theirs.address()), "Hi yourself");
    CHECK(theirs.wait_printed(ours.name() + " Team_BTC Hi yourself"));

    REQUIRE(ours.program.choose("3"));
    REQUIRE(ours.program.answer("Select peer number: ", "1"));
    CHECK(ours.program.expect("Connected to " + to_string(theirs.address()) + "\n"));
    CHECK(theirs.wait_printed(ours.name() + " Team_BTC CONNECT"));
    REQUIRE(ours.program.choose("2"));
    CHECK(ours.program.expect("Connected Peers:\n" + to_string(theirs.address()) + " - Python\n"));

    ours.send(port_of(theirs.address()), "exit");
    CHECK(theirs.wait_printed(ours.name() + " (Team_BTC) disconnected."));
}

TEST_CASE("a message that the original truncates is reported as an error") {
    original theirs;
    party ours("Team_BTC");
    ours.send(port_of(theirs.address()), std::string(3000, 'x') + "the end");
    CHECK(ours.program.expect("Error sending to " + to_string(theirs.address()) + ": "));
    CHECK(ours.program.expect("xthe end (s sends it again)\n"));
}

TEST_CASE("a message is not lost when its peer is down") {
    party ours("Team_BTC");
    ours.send("1", "so much to say");
    CHECK(ours.program.expect("Error sending to 127.0.0.1:1: Connection refused\n"));
    CHECK(ours.program.expect("Not sent: so much to say (s sends it again)\n"));
}

TEST_CASE("a message that is not confirmed is reported as sent, and not offered again") {
    support::raw_listener theirs;  // which takes it, and does not close
    party ours("Team_BTC");
    ours.send(port_of(theirs.address()), "Hi there");
    CHECK(ours.program.expect("Sent to " + to_string(theirs.address()) +
                              ", but not confirmed: Hi there\n"));
    REQUIRE(ours.program.choose("s"));
    CHECK(ours.program.expect("No message has failed.\n"));
    CHECK_EQ(support::count(ours.program.text(), "Not sent"), 0);
}

TEST_CASE("a message that fails again goes behind the other failed ones") {
    party ours("Team_BTC");
    for (const char* text : {"first", "second", "third"}) {
        ours.send("1", text);
        REQUIRE(ours.program.expect(std::string("Not sent: ") + text + " (s sends it again)\n"));
    }
    for (const char* text : {"third", "second", "first", "third"}) {
        REQUIRE(ours.program.choose("s"));
        CHECK(ours.program.expect(std::string("To 127.0.0.1:1: ") + text + '\n'));
        CHECK(ours.program.expect(std::string("Not sent: ") + text +
                                  " (s sends it again, after the others)\n"));
    }
}

TEST_CASE("a recipient may include its port, and an error in it is explained") {
    party ours("Team_A"), theirs("Team_B");
    const std::string question = "Enter recipient's IP address: ";
    REQUIRE(ours.program.choose("1"));
    for (const char* host : {"127.0.0.1:", "localhost:"})
        for (const char* port : {"70000", "0", "", "x"}) {
            REQUIRE(ours.program.answer(question, std::string(host) + port));
            CHECK(ours.program.expect(std::string(host) + port + ": a port is a number from 1"));
        }
    REQUIRE(ours.program.answer(question, "[::1]:70000"));
    CHECK(ours.program.expect("[::1]:70000: not a port"));
    REQUIRE(ours.program.answer(question, "256.1.1.1:5000"));
    CHECK(ours.program.expect("256.1.1.1:5000: not an IP address"));
    REQUIRE(ours.program.answer(question, "localhost:" + theirs.port));
    REQUIRE(ours.program.answer("Enter your message (type 'exit' to disconnect): ", "Hi"));
    CHECK(theirs.program.expect_line(ours.name() + " Team_A Hi"));
}

TEST_CASE("an unknown host is not reported as an invalid address") {
    party ours("Team_BTC");
    REQUIRE(ours.program.choose("1"));
    for (const std::string host : {"no such host", "no such host:5000"}) {
        REQUIRE(ours.program.answer("Enter recipient's IP address: ", host));
        CHECK(ours.program.expect(host + ": unknown host\n"));
    }
    for (const std::string address : {"256.1.1.1", "1.2.3.4.5:5000", "fe80::1::2", "[::x]:5000"}) {
        REQUIRE(ours.program.answer("Enter recipient's IP address: ", address));
        CHECK(ours.program.expect(address + ": not an IP address\n"));
    }
}

TEST_CASE("every prompt checks its answer, and asks again with a reason") {
    support::raw_listener other;
    menu_program ours(flags());
    REQUIRE(ours.answer("Enter your team name: ", ""));
    CHECK(ours.expect("A team name cannot be empty.\n"));
    REQUIRE(ours.answer("Enter your team name: ", std::string(65, 'x')));
    CHECK(ours.expect("at most 64 bytes.\n"));
    REQUIRE(ours.answer("Enter your team name: ", " The  big Team "));
    CHECK(ours.expect("white space. Press Enter for The__big_Team, or type another.\n"));
    REQUIRE(ours.answer("Enter your team name: ", ""));

    for (const char* wrong : {"", "0", "65536", "-1", "5000x", "99999999999999999999"}) {
        REQUIRE(ours.answer("Enter your port number: ", wrong));
        CHECK(ours.expect("A port is a number from 1 to 65535.\n"));
    }
    const auto taken = port_of(other.address());
    REQUIRE(ours.answer("Enter your port number: ", taken));
    CHECK(ours.expect("Port " + taken + " is taken"));
    give_port(ours);

    REQUIRE(ours.choose("x"));
    CHECK(ours.expect("Invalid choice. Try again.\n"));
    REQUIRE(ours.choose("1"));
    for (const char* wrong : {"", "256.1.1.1", "no such host", "0.0.0.0"})
        REQUIRE(ours.answer("Enter recipient's IP address: ", wrong));
    REQUIRE(ours.answer("Enter recipient's IP address: ", "localhost"));
    REQUIRE(ours.answer("Enter recipient's port number: ", "none"));
    CHECK(ours.expect("A port is a number from 1 to 65535.\n"));
    REQUIRE(ours.answer("Enter recipient's port number: ", " 1 "));
    REQUIRE(ours.answer("Enter your message (type 'exit' to disconnect): ", "  "));
    CHECK(ours.expect("A message cannot be empty.\n"));
    REQUIRE(ours.answer("Enter your message (type 'exit' to disconnect): ", "x"));
    CHECK(ours.expect("Error sending to "));
}

TEST_CASE("control characters in incoming text are shown, and not obeyed") {
    party ours("Team_BTC");
    const p2pchat::endpoint sender("127.0.0.1", 4711);
    const auto shows = [&](std::string_view team, std::string_view text, const std::string& line) {
        CHECK_EQ(support::one_shot(ours.address(), support::wire(sender, text, team)),
                 support::ending::closed);
        CHECK(ours.program.expect_line("127.0.0.1:4711 " + line));
    };
    shows("T", "clear \x1b[2J bell \a del \x7f", R"(T clear \x1b[2J bell \x07 del \x7f)");
    shows("T\x1b]0;x\a", "Hi", R"(T\x1b]0;x\x07 Hi)");
    shows("T", "one\r\n127.0.0.1:1 T two", R"(T one\x0d\x0a127.0.0.1:1 T two)");
    shows("T",
          "c1 \xc2\x9b"
          "2J bidi \xe2\x80\xae",
          R"(T c1 \xc2\x9b2J bidi \xe2\x80\xae)");
    shows("T", "broken \xff \xc3( \xe2\x82 \xed\xa0\x80 \xc0\xaf",
          R"(T broken \xff \xc3( \xe2\x82 \xed\xa0\x80 \xc0\xaf)");
    shows("Größe", "naïve 漢字 🙂", "Größe naïve 漢字 🙂");
}

TEST_CASE("invisible characters in incoming text are shown") {
    party ours("Team_BTC");
    const std::pair<std::string, std::string> invisible[] = {
        {"\u200b", R"(\xe2\x80\x8b)"},          // zero-width space
        {"\u200c", R"(\xe2\x80\x8c)"},          // zero-width non-joiner
        {"\u200d", R"(\xe2\x80\x8d)"},          // zero-width joiner
        {"\u200e", R"(\xe2\x80\x8e)"},          // left-to-right mark
        {"\u2060", R"(\xe2\x81\xa0)"},          // word joiner
        {"\u206f", R"(\xe2\x81\xaf)"},          // nominal digit shapes
        {"\ufeff", R"(\xef\xbb\xbf)"},          // byte order mark
        {"\u00ad", R"(\xc2\xad)"},              // soft hyphen
        {"\u034f", R"(\xcd\x8f)"},              // combining grapheme joiner
        {"\u061c", R"(\xd8\x9c)"},              // Arabic letter mark
        {"\u115f", R"(\xe1\x85\x9f)"},          // Hangul filler
        {"\u180e", R"(\xe1\xa0\x8e)"},          // Mongolian vowel separator
        {"\u3164", R"(\xe3\x85\xa4)"},          // Hangul filler
        {"\ufe0f", R"(\xef\xb8\x8f)"},          // variation selector
        {"\U000e0000", R"(\xf3\xa0\x80\x80)"},  // tags
        {"\U000e0041", R"(\xf3\xa0\x81\x81)"},
        {"\U000e007f", R"(\xf3\xa0\x81\xbf)"},
        {"\U000e01ef", R"(\xf3\xa0\x87\xaf)"},  // variation selector
    };
    const auto one_shot = [&](const std::string& team, const std::string& text) {
        const auto bytes = support::wire({"127.0.0.1", 4711}, text, team);
        CHECK_EQ(support::one_shot(ours.address(), bytes), support::ending::closed);
    };
    for (const auto& [character, shown] : invisible) {
        one_shot("T" + character, "a" + character + "b");
        CHECK(ours.program.expect_line("127.0.0.1:4711 T" + shown + " a" + shown + "b"));
    }
    const std::string visible = "ᄀ ក ᠠ ‐ ⁰ 漢 🙂 é";
    one_shot("T", visible);
    CHECK(ours.program.expect_line("127.0.0.1:4711 T " + visible));
}

#ifdef __linux__
TEST_CASE("a message with a false sender is marked, and makes no peer") {
    support::lan lan;
    if (!lan.usable()) return;
    const p2pchat::endpoint ours(lan.here_address().address(), 5000);
    std::unique_ptr<menu_program> program;
    lan.here.run([&] {
        program = std::make_unique<menu_program>(
            menu_program::words{"--team", "BTC", "--port", "5000", "--address", ours.address(),
                                "--default-peer", "127.0.0.1:1"});
    });
    REQUIRE(program->expect("Enter choice: "));
    lan.there.run([&] {
        const p2pchat::endpoint true_sender(lan.there_address().address(), 7000);
        support::one_shot(ours, support::wire(true_sender, "It is me"));
        support::one_shot(ours, support::wire({"10.18.1.7", 5000}, "It is not me"));
        support::one_shot(ours, support::wire({"10.18.1.7", 5000}, "exit"));
    });
    CHECK(program->expect_line("10.99.0.2:7000 Raw It is me"));
    CHECK(program->expect("\n[not verified, came from 10.99.0.2:"));
    CHECK(program->expect("] 10.18.1.7:5000 Raw It is not me\n"));
    program->enter("2");
    CHECK(program->expect("Connected Peers:\n10.99.0.2:7000 - Raw\n**** Menu"));
}
#endif

TEST_CASE("mandatory messages go to each default peer, and each outcome is reported") {
    original first, second;
    party ours("Team_BTC", {"--default-peer", to_string(first.address()), "--default-peer",
                            to_string(second.address())});
    REQUIRE(ours.program.choose("4"));
    REQUIRE(ours.program.answer("Enter mandatory message: ", "All hands"));
    CHECK(ours.program.expect("Error sending to 127.0.0.1:1: Connection refused\n"));
    CHECK(ours.program.expect("Sent mandatory message to " + to_string(first.address()) + "\n"));
    CHECK(ours.program.expect("Sent mandatory message to " + to_string(second.address()) + "\n"));
    CHECK(first.wait_printed(ours.name() + " Team_BTC All hands"));
    CHECK(second.wait_printed(ours.name() + " Team_BTC All hands"));
}

TEST_CASE("flags replace prompts, and an invalid one is named") {
    const auto ends = [](const menu_program::words& arguments, int status, std::string_view word) {
        menu_program program(arguments);
        CHECK_EQ(program.finish(), status);
        CHECK_MESSAGE(program.text().find(word) != std::string::npos, program.text());
    };
    ends({"--help"}, 0, "--default-peer");
    ends({"-h"}, 0, "--default-peer");
    ends({"--version"}, 0, "p2pchat " + std::string(p2pchat::version) + "\n");
    ends({"--prot", "5000"}, 2, "--prot: no such flag");
    ends({"5000"}, 2, "5000: no such flag");
    ends({"--team"}, 2, "--team: needs a value");
    ends({"--team", "a b"}, 2, "a_b");
    ends({"--team="}, 2, "--team");
    ends({"--port", "0"}, 2, "--port 0: ");
    ends({"--port=65536"}, 2, "--port 65536: ");
    ends({"--address", "nowhere"}, 2, "--address nowhere: ");
    ends({"--default-peer", "10.1.1.1"}, 2, "--default-peer 10.1.1.1: ");

    support::raw_listener other;
    ends(flags({"--team", "BTC", "--port", port_of(other.address())}), 1, "is taken");

    menu_program program(flags({"--team=BTC", "--port=" + support::free_port()}));
    REQUIRE(program.choose("0"));
    CHECK_EQ(program.finish(), 0);
    CHECK_EQ(program.text().find("Enter your"), std::string::npos);
}

TEST_CASE("every prompt lets the user leave in order") {
    // The steps that lead to the prompt, and the prompt.
    using steps = std::vector<std::pair<const char*, const char*>>;
    const std::pair<steps, const char*> places[] = {
        {{}, "Enter choice: "},
        {{{"Enter choice: ", "1"}}, "Enter recipient's IP address: "},
        {{{"Enter choice: ", "1"}, {"IP address: ", "127.0.0.1"}}, "recipient's port number: "},
        {{{"Enter choice: ", "1"}, {"IP address: ", "127.0.0.1"}, {"port number: ", "1"}},
         "Enter your message (type 'exit' to disconnect): "},
        {{{"Enter choice: ", "4"}}, "Enter mandatory message: "},
    };
    const auto leave = [&](menu_program& program, auto how) {
        how(program);
        CHECK_EQ(program.finish(), 0);
        CHECK(program.expect("\nExiting"));
    };
    const auto everywhere = [&](auto make, auto how) {
        for (const auto& [way, prompt] : places) {
            auto program = make();
            for (const auto& [question, answer] : way)
                REQUIRE(program->program.answer(question, answer));
            REQUIRE(program->program.expect(prompt));
            leave(program->program, how);
        }
    };
    const auto piped = [] { return std::make_unique<party>("BTC"); };
    const auto typed = [] { return std::make_unique<party>("BTC", support::terminal_kind{}); };
    SUBCASE("by the end of the input") {
        everywhere(piped, [](menu_program& p) { p.end_input(); });
        menu_program program(flags());
        REQUIRE(program.expect("Enter your team name: "));
        leave(program, [](menu_program& p) { p.end_input(); });
    }
    SUBCASE("by SIGINT") {
        everywhere(piped, [](menu_program& p) { p.interrupt(); });
    }
    SUBCASE("by Ctrl-C") {
        if (!has_terminals()) return;
        everywhere(typed, [](menu_program& p) { p.press('\x03'); });
    }
    SUBCASE("by Ctrl-D") {
        if (!has_terminals()) return;
        everywhere(typed, [](menu_program& p) { p.type("\x04"); });
    }
    SUBCASE("by Ctrl-C at the first questions") {
        if (!has_terminals()) return;
        menu_program program(flags(), support::terminal_kind{});
        REQUIRE(program.answer("Enter your team name: ", "BTC"));
        REQUIRE(program.expect("Enter your port number: "));
        leave(program, [](menu_program& p) { p.press('\x03'); });
    }
}

TEST_CASE("the program ends while a message is pending to a silent peer") {
    support::raw_listener silent;
    party ours("Team_BTC");
    ours.send(port_of(silent.address()), "anybody there?");
    auto peer = silent.accept();
    ours.program.interrupt();
    CHECK_EQ(ours.program.finish(), 0);
    CHECK(ours.program.expect("Not sent: anybody there? "));
    CHECK(ours.program.expect("Exiting\n"));
}

TEST_CASE("the program ends when its output is closed") {
    party ours("Team_BTC");
    ours.program.end_output();
    ours.program.enter("2");
    CHECK_EQ(ours.program.finish(), 0);
}

TEST_CASE("an input that is closed from the start counts as ended") {
    menu_program program(flags(), "exec <&-");
    CHECK_EQ(program.finish(), 0);
    CHECK_EQ(program.text(), "Enter your team name: \nExiting\n");
}

TEST_CASE("a second signal ends the program while its output is blocked") {
    constexpr int size = 40'000;  // two of them are more than a pipe holds
    party ours("Team_BTC");
    for (int i = 0; i < 3; ++i) {
        support::raw_peer peer(ours.address());
        peer.send(support::wire({"127.0.0.1", 4711}, std::string(size, 'x')));
        peer.half_close();
    }
    REQUIRE(support::wait_until([&] { return ours.program.unread() > size + 1000; }));
    // Repeatedly: a signal that is still pending swallows the next.
    CHECK(support::wait_until([&] {
        ours.program.interrupt(SIGTERM);
        return ours.program.has_ended();
    }));
}

TEST_CASE("signals that the parent process ignores stay ignored") {
    menu_program program(flags(), "trap '' HUP INT");
    REQUIRE(program.expect("Enter your team name: "));
    for (const int number : {SIGHUP, SIGINT}) program.interrupt(number);
    program.enter("Team_BTC");
    give_port(program);
    program.interrupt(SIGTERM);
    CHECK_EQ(program.finish(), 0);
}

TEST_CASE("closing the terminal ends the program in order") {
    if (!has_terminals()) return;
    party ours("Team_BTC", support::terminal_kind{});
    ours.program.end_input();
    CHECK_EQ(ours.program.finish(), 0);
}
