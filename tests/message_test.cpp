// Tests of p2pchat::parse and p2pchat::format: the wire format of a message.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <cstdlib>
#include <new>
#include <random>

using p2pchat::endpoint;
using p2pchat::errc;
using p2pchat::message_view;

namespace {

thread_local std::size_t allocations = 0;

void* allocate(std::size_t size) {
    ++allocations;
    if (void* const memory = std::malloc(size ? size : 1)) return memory;
    throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

const endpoint sender("10.18.1.7", 5000);

message_view parsed(std::string_view bytes) {
    message_view result;
    CAPTURE(bytes);
    CHECK_FALSE(parse(bytes, result));
    return result;
}

std::error_code why_not(std::string_view bytes) {
    message_view result;
    return parse(bytes, result);
}

std::error_code why_not_format(const endpoint& from, std::string_view team, std::string_view text) {
    std::string result;
    return format(from, team, text, result);
}

std::string random_bytes(std::mt19937& random, std::string_view alphabet, std::size_t max_size) {
    std::string result(random() % (max_size + 1), ' ');
    for (char& c : result) c = alphabet[random() % alphabet.size()];
    return result;
}

}  // namespace

TEST_CASE("a message is its sender, its team and its text") {
    const message_view m = parsed("10.18.1.7:5000 Team_BTC Hi");
    CHECK(m.sender == sender);
    CHECK(m.team == "Team_BTC");
    CHECK(m.text == "Hi");
}

TEST_CASE("a sender may have an IPv6 address") {
    CHECK(parsed("[fe80::1]:5000 BTC Hi").sender == endpoint("fe80::1", 5000));
    CHECK(parsed("[::ffff:10.18.1.7]:5000 BTC Hi").sender == sender);
}

TEST_CASE("the text keeps its inner spaces") {
    CHECK(parsed("10.18.1.7:5000 BTC  two  \t words ").text == "two  \t words");
}

TEST_CASE("white space at both ends is dropped, and any white space separates words") {
    for (const std::string space :
         {" ", "  ", "\t", "\n", "\v", "\f", "\r", "\r\n", " \t\n\v\f\r "}) {
        const std::string bytes = space + "10.18.1.7:5000" + space + "BTC" + space + "Hi" + space;
        const message_view m = parsed(bytes);
        CHECK(m.sender == sender);
        CHECK(m.team == "BTC");
        CHECK(m.text == "Hi");
    }
}

TEST_CASE("sender and team may stand in angle brackets") {
    for (const std::string bytes :
         {"<10.18.1.7:5000> <BTC> hi", "<10.18.1.7:5000> BTC hi", "10.18.1.7:5000 <BTC> hi"}) {
        const message_view m = parsed(bytes);
        CHECK(m.sender == sender);
        CHECK(m.team == "BTC");
        CHECK(m.text == "hi");
    }
    CHECK(parsed("<[fe80::1]:5000> <BTC> hi").sender == endpoint("fe80::1", 5000));
    CHECK(parsed("10.18.1.7:5000 BTC <hi>").text == "<hi>");
}

TEST_CASE("brackets that do not match are part of a team, and spoil a sender") {
    CHECK(parsed("10.18.1.7:5000 <BTC hi").team == "<BTC");
    CHECK(parsed("10.18.1.7:5000 BTC> hi").team == "BTC>");
    CHECK(parsed("10.18.1.7:5000 < hi").team == "<");
    CHECK(why_not("<10.18.1.7:5000 BTC hi"));
    CHECK(why_not("<10.18.1.7:5000"));
    CHECK(why_not("10.18.1.7:5000> BTC hi"));
    CHECK(why_not("<<10.18.1.7:5000>> BTC hi"));
    CHECK(why_not("< 10.18.1.7:5000 > BTC hi"));
    CHECK(why_not("<10.18.1.7:5000>BTC hi"));
}

TEST_CASE("the team may be written as other programs of the course do, with an end line") {
    for (const std::string before : {"", "[12:34:56] ", "[2026-12-01T12:34]\t"}) {
        const std::string head = "<10.18.1.66:5000> " + before + "@ <Prakul>\n";
        for (const std::string end : {"\n<end>", "\n<end>\n", ""}) {
            const std::string bytes = head + "Hi there" + end;
            const message_view m = parsed(bytes);
            CHECK(m.sender == endpoint("10.18.1.66", 5000));
            CHECK(m.team == "Prakul");
            CHECK(m.text == "Hi there");
        }
        CHECK(parsed(head + "two\nlines\n<end>").text == "two\nlines");
        CHECK(parsed(head + "no <end>").text == "no <end>");
        CHECK(why_not(head + "<end>") == errc::bad_text);
        CHECK(why_not(head + "\n") == errc::too_few_words);
    }
    CHECK(parsed("10.18.1.7:5000 BTC hi\n<end>").text == "hi\n<end>");
    CHECK(parsed("10.18.1.7:5000 @ Prakul hi").team == "@");
    CHECK(parsed("10.18.1.7:5000 @<Prakul> hi").team == "@<Prakul>");
    CHECK(parsed("10.18.1.7:5000 [12:34] hi").team == "[12:34]");
    CHECK(parsed("10.18.1.7:5000 [12:34 @ <x> hi").team == "[12:34");
    CHECK(parsed("10.18.1.7:5000 [12 34] @ <x> hi").team == "[12");
}

TEST_CASE("the text may run over several lines") {
    CHECK(parsed("10.18.1.7:5000 BTC one\ntwo\n\nfour\n").text == "one\ntwo\n\nfour");
    CHECK(parsed("10.18.1.7:5000 BTC one\r\ntwo\r\n").text == "one\r\ntwo");
}

TEST_CASE("text is kept byte for byte, whatever it contains") {
    for (const std::string text :
         {"\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80", "\xff\xfe\x80 broken UTF-8",
          "\x1b[2J\x1b]0;title\x07", "\x7f\x08\x01", "<>", "ACK 1 2", "\xc2\xa0nbsp\xc2\xa0",
          "\x85\xa0"}) {
        const std::string bytes = "10.18.1.7:5000 BTC " + text;
        CHECK(parsed(bytes).text == text);
    }
}

TEST_CASE("only ASCII white space is white space") {
    CHECK(parsed("10.18.1.7:5000 B\xc2\xa0TC hi").team == "B\xc2\xa0TC");
    CHECK(parsed("10.18.1.7:5000 B\x85\x1c\x1f hi").team == "B\x85\x1c\x1f");
}

TEST_CASE("fewer than three words are not a message") {
    for (const std::string bytes : {"", " ", "\r\n", "10.18.1.7:5000", "10.18.1.7:5000 BTC",
                                    " 10.18.1.7:5000 BTC \n", "<10.18.1.7:5000> <BTC>"}) {
        CAPTURE(bytes);
        CHECK(why_not(bytes) == errc::too_few_words);
    }
    for (const std::string bytes : {"x", "hello there", "ACK 3", "exit"}) {
        CAPTURE(bytes);
        CHECK(why_not(bytes));
    }
}

TEST_CASE("a bad sender is refused, and the error says whether its address or its port is bad") {
    for (const std::string text :
         {"hello", "10.18.1", "10.18.1.256:5000", "10.18.1.x:5000", "localhost:5000",
          "fe80::1:5000", "[fe80::1:5000", "[10.18.1.7]:5000", ":5000", "[]:5000", "[::g]:1"}) {
        CAPTURE(text);
        CHECK(why_not(text + " BTC hi") == errc::bad_address);
    }
    for (const std::string text : {"10.18.1.7:0", "10.18.1.7:65536", "10.18.1.7:-1", "10.18.1.7:x",
                                   "10.18.1.7:", "[fe80::1]:0", "[fe80::1]:65536", "10.18.1.7:50x0",
                                   "10.18.1.7:99999999999999"}) {
        CAPTURE(text);
        CHECK(why_not(text + " BTC hi") == errc::bad_port);
    }
    CHECK(why_not("10.18.1.7:65535 BTC hi") == std::error_code());
}

TEST_CASE("a team has 1 to 64 bytes") {
    const std::string longest(64, 'T');
    CHECK(parsed("10.18.1.7:5000 " + longest + " hi").team.size() == 64);
    CHECK(parsed("10.18.1.7:5000 <" + longest + "> hi").team.size() == 64);
    CHECK(why_not("10.18.1.7:5000 " + longest + "T hi") == errc::bad_team);
    CHECK(why_not("10.18.1.7:5000 <" + longest + "T> hi") == errc::bad_team);
    CHECK(why_not("10.18.1.7:5000 <> hi") == errc::bad_team);
}

TEST_CASE("NUL is refused wherever it stands") {
    const std::string good = "10.18.1.7:5000 BTC hello there";
    for (std::size_t i = 0; i <= good.size(); ++i) {
        std::string bad = good;
        bad.insert(i, 1, '\0');
        CAPTURE(i);
        CHECK(why_not(bad));
    }
    CHECK(why_not(std::string("10.18.1.7:5000 BTC a\0b", 22)) == errc::bad_text);
    CHECK(why_not(std::string("10.18.1.7:5000 B\0C ab", 21)) == errc::bad_team);
}

TEST_CASE("a CR inside the text is refused unless LF follows") {
    CHECK(why_not("10.18.1.7:5000 BTC one\rtwo") == errc::bad_text);
    CHECK(why_not("10.18.1.7:5000 BTC one\r\rtwo") == errc::bad_text);
    CHECK(why_not("10.18.1.7:5000 BTC one\r\r\ntwo") == errc::bad_text);
    CHECK(why_not("10.18.1.7:5000 BTC a long text, so that CR stands past the first words\rtwo") ==
          errc::bad_text);
    CHECK(parsed("10.18.1.7:5000 BTC one\r").text == "one");
}

TEST_CASE("a forbidden byte is found at every place of a text of every length") {
    for (std::size_t size = 3; size < 40; ++size) {
        for (std::size_t i = 1; i + 1 < size; ++i) {
            std::string text(size, 'x');
            text[i] = '\r';
            CHECK(why_not("1.2.3.4:5 T " + text) == errc::bad_text);
            CHECK(why_not_format(sender, "T", text) == errc::bad_text);
            text[i] = '\0';
            CHECK(why_not("1.2.3.4:5 T " + text) == errc::bad_text);
            CHECK(why_not_format(sender, "T", text) == errc::bad_text);
            text[i] = '\x0e';
            CHECK_FALSE(why_not("1.2.3.4:5 T " + text));
            CHECK_FALSE(why_not_format(sender, "T", text));
        }
    }
}

TEST_CASE("parsing gives views into the bytes and allocates nothing") {
    const std::string bytes = "  <10.18.1.7:5000> <BTC> " + std::string(100000, 'x') + "\n";
    message_view m;
    const std::size_t before = allocations;
    const std::error_code good = parse(bytes, m), bad = parse("[::1%x]:0 B C", m);
    const std::size_t after = allocations;
    CHECK(after == before);
    CHECK_FALSE(good);
    CHECK(bad);
    REQUIRE_FALSE(parse(bytes, m));
    CHECK(m.text.data() == bytes.data() + 25);
    CHECK(m.team.data() == bytes.data() + 20);
}

TEST_CASE("a message is written with single spaces and no terminator") {
    std::string result = "what was there before";
    CHECK_FALSE(format(sender, "Team_BTC", "Hi", result));
    CHECK(result == "10.18.1.7:5000 Team_BTC Hi");
    CHECK_FALSE(p2pchat::format({"FE80::1", 5000}, "BTC", "two  words", result));
    CHECK(result == "[fe80::1]:5000 BTC two  words");
}

TEST_CASE("format refuses a sender that cannot be answered") {
    CHECK(why_not_format(endpoint(), "BTC", "hi"));
    CHECK(why_not_format({"10.18.1.7", 0}, "BTC", "hi") == errc::bad_port);
    CHECK(why_not_format({"0.0.0.0", 5000}, "BTC", "hi") == errc::bad_address);
    CHECK(why_not_format({"::", 5000}, "BTC", "hi") == errc::bad_address);
}

TEST_CASE("format refuses a team that would not be read back") {
    for (const std::string& team :
         {std::string(), std::string(" "), std::string("two words"), std::string("BTC "),
          std::string("B\tC"), std::string("B\nC"), std::string("B\vC"), std::string("B\fC"),
          std::string("B\rC"), std::string("B\0C", 3), std::string(65, 'T'), std::string("<BTC>"),
          std::string("<>"), std::string("@"), std::string("[12:34]")}) {
        CAPTURE(team);
        CHECK(why_not_format(sender, team, "hi") == errc::bad_team);
    }
    CHECK_FALSE(why_not_format(sender, std::string(64, 'T'), "hi"));
    CHECK_FALSE(why_not_format(sender, "<BTC", "hi"));
    CHECK_FALSE(why_not_format(sender, "@BTC", "hi"));
    CHECK_FALSE(why_not_format(sender, "[BTC", "hi"));
    CHECK_FALSE(why_not_format(sender,
                               "M\xc3\xbc"
                               "nchen",
                               "hi"));
}

TEST_CASE("format refuses a text that would not be read back") {
    for (const std::string& text :
         {std::string(), std::string(" "), std::string(" hi"), std::string("hi "),
          std::string("hi\n"), std::string("\thi"), std::string("one\ntwo"),
          std::string("one\r\ntwo"), std::string("one\rtwo"), std::string("one\0two", 7),
          std::string("\0", 1), std::string("hi\v"), std::string("\fhi")}) {
        CAPTURE(text);
        CHECK(why_not_format(sender, "BTC", text) == errc::bad_text);
    }
}

TEST_CASE("a refusal leaves the result unchanged") {
    std::string result = "before";
    CHECK(format(sender, "BTC", "", result));
    CHECK(format(sender, "", "hi", result));
    CHECK(format(endpoint(), "BTC", "hi", result));
    CHECK(result == "before");
}

TEST_CASE("any message that is written reads back as the same") {
    const std::string_view alphabet("ab<> \t\n\v\f\r\0:[]\x80\xff", 17);
    std::mt19937 random(3);
    std::size_t written = 0;
    for (int i = 0; i < 100000; ++i) {
        const std::string team = random_bytes(random, alphabet, 4),
                          text = random_bytes(random, alphabet, 6);
        std::string bytes;
        if (format(sender, team, text, bytes)) continue;
        ++written;
        const message_view m = parsed(bytes);
        CHECK(m.sender == sender);
        CHECK(m.team == team);
        CHECK(m.text == text);
    }
    CHECK(written > 1000);
}

TEST_CASE("any message that is read from one line can be written, unless its team has brackets") {
    const std::string_view alphabet("ab<> \t\r\0:[]\x80\xff", 14);
    std::mt19937 random(4);
    std::size_t read = 0;
    for (int i = 0; i < 100000; ++i) {
        const std::string bytes = "1.2.3.4:5 " + random_bytes(random, alphabet, 10);
        message_view m;
        if (parse(bytes, m)) continue;
        if (m.team.front() == '<' && m.team.back() == '>' && m.team.size() > 1) continue;
        if (m.team.front() == '[' && m.team.back() == ']') continue;
        ++read;
        CHECK_FALSE(why_not_format(m.sender, m.team, m.text));
    }
    CHECK(read > 1000);
}

TEST_CASE("random bytes are read or refused, and nothing else happens") {
    const std::string_view alphabet("0123456789.:[]%<>abcdef \n", 25);
    std::mt19937 random(5);
    for (int i = 0; i < 200000; ++i) {
        const std::string bytes = random_bytes(random, alphabet, 30);
        message_view m;
        if (parse(bytes, m)) continue;
        CHECK(m.sender.port() != 0);
        CHECK_FALSE(m.team.empty());
        CHECK_FALSE(m.text.empty());
    }
}

TEST_CASE("an answer goes to the sender, at the IP that an unverified message came from") {
    p2pchat::message m;
    m.sender = sender;
    m.origin = endpoint("10.18.1.9", 40000);
    CHECK(m.reply_to() == endpoint("10.18.1.9", m.sender.port()));
    m.by_link = true;
    CHECK(m.reply_to() == m.origin);
    m.verified = true;
    CHECK(m.reply_to() == m.sender);
}
