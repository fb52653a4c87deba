// Tests of p2pchat::endpoint: reading, writing, comparing, looking up.
//
// SPDX-License-Identifier: MIT

#include "support.hpp"

#include <random>
#include <set>
#include <sstream>
#include <type_traits>
#include <unordered_set>

using p2pchat::endpoint;
using p2pchat::errc;

namespace {

static_assert(sizeof(endpoint) == 24);
static_assert(std::is_trivially_copyable_v<endpoint>);
static_assert(std::is_nothrow_default_constructible_v<endpoint>);

endpoint parsed(std::string_view text) {
    endpoint result;
    CAPTURE(text);
    CHECK_FALSE(parse(text, result));
    return result;
}

std::error_code why_not(std::string_view text) {
    const endpoint before("192.0.2.1", 7);
    endpoint result = before;
    const std::error_code error = parse(text, result);
    CHECK(result == before);
    return error;
}

endpoint random_endpoint(std::mt19937& random) {
    unsigned char bytes[16] = {};
    // Many zero groups, so that every way to shorten an address occurs.
    for (auto& byte : bytes) byte = random() % 3 ? 0 : static_cast<unsigned char>(random());
    if (random() % 2) {
        std::fill(bytes, bytes + 10, static_cast<unsigned char>(0));
        bytes[10] = bytes[11] = 0xff;
    }
    return {bytes, static_cast<std::uint16_t>(random() % 65535 + 1), 0};
}

}  // namespace

TEST_CASE("a default endpoint is empty") {
    const endpoint nobody;
    CHECK_FALSE(nobody);
    CHECK(nobody.port() == 0);
    CHECK(nobody.scope() == 0);
    CHECK(nobody == endpoint());
}

TEST_CASE("an endpoint has the address and the port it was made of") {
    const endpoint v4("10.18.1.7", 5000);
    CHECK(v4);
    CHECK(v4.address() == "10.18.1.7");
    CHECK(v4.port() == 5000);
    CHECK(v4.is_v4());

    const endpoint v6("fe80::1%2", 65535);
    CHECK(v6);
    CHECK(v6.port() == 65535);
    CHECK(v6.scope() == 2);
    CHECK_FALSE(v6.is_v4());
    CHECK(to_string(v6) == "[fe80::1%2]:65535");
}

TEST_CASE("a text that is no numeric address makes an empty endpoint") {
    for (const std::string address :
         {"", "localhost", "10.18.1", "10.18.1.7:5000", "[::1]", "10.18.1.256", " 10.18.1.7",
          "10.18.1.7 ", "::1::", "fe80::1%", "fe80::1%eth"}) {
        CAPTURE(address);
        CHECK(endpoint(address, 5000) == endpoint());
    }
}

TEST_CASE("an endpoint without an address or a port cannot be connected to") {
    CHECK_FALSE(endpoint("0.0.0.0", 5000));
    CHECK_FALSE(endpoint("::", 5000));
    CHECK_FALSE(endpoint("10.18.1.7", 0));
    CHECK_FALSE(endpoint("::1", 0));
    CHECK(endpoint("::1", 1));
}

TEST_CASE("an endpoint gives its bytes in network order") {
    const unsigned char expected[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 18, 1, 7};
    const endpoint value("10.18.1.7", 5000);
    CHECK(std::equal(std::begin(expected), std::end(expected), value.bytes()));
    CHECK(endpoint(expected, 5000, 0) == value);
}

TEST_CASE("good endpoints are read") {
    CHECK(parsed("10.18.1.7:5000") == endpoint("10.18.1.7", 5000));
    CHECK(parsed("0.0.0.1:1") == endpoint("0.0.0.1", 1));
    CHECK(parsed("255.255.255.255:65535") == endpoint("255.255.255.255", 65535));
    CHECK(parsed("[fe80::1]:5000") == endpoint("fe80::1", 5000));
    CHECK(parsed("[fe80::1%2]:5000") == endpoint("fe80::1%2", 5000));
    CHECK(parsed("[fe80::1%2147483647]:5000").scope() == 2147483647);
    CHECK(parsed("[::1]:1") == endpoint("::1", 1));
    CHECK(parsed("[::ffff:10.18.1.7]:5000") == endpoint("10.18.1.7", 5000));
}

TEST_CASE("an IPv4 address has no scope") {
    const endpoint value("::ffff:10.18.1.7%5", 5000);
    CHECK((value == endpoint() || value == endpoint("10.18.1.7", 5000)));
    const endpoint made(endpoint("10.18.1.7", 5000).bytes(), 5000, 5);
    CHECK(made == endpoint("10.18.1.7", 5000));
}

TEST_CASE("reading a bad endpoint says whether its address is wrong") {
    for (const std::string text : {"",
                                   ":",
                                   ":5000",
                                   "hello",
                                   "hello:5000",
                                   "10.18.1:5000",
                                   "10.18.1.7.8:5000",
                                   "10.18.1.:5000",
                                   ".10.18.1.7:5000",
                                   "10..1.7:5000",
                                   "10.18.1.256:5000",
                                   "10.18.1.1000:5000",
                                   "10.18.1.-7:5000",
                                   "10.18.1.+7:5000",
                                   "10.18.1.07:5000",
                                   "010.18.1.7:5000",
                                   "0x0a.18.1.7:5000",
                                   "10.18.1.a:5000",
                                   " 10.18.1.7:5000",

                                   "<10.18.1.7>:5000",
                                   "167903495:5000",
                                   "fe80::1:5000",
                                   "::1",
                                   "[10.18.1.7]:5000",
                                   "[]:5000",
                                   "[::1:5000",
                                   "[ ::1]:5000",
                                   "[::1 ]:5000",
                                   "[[::1]]:5000",
                                   "[::1%]:5000",
                                   "[::1%x]:5000",
                                   "[::1%-1]:5000",
                                   "[::1%4294967296]:5000",
                                   "[fe80::1%1%2]:5000"}) {
        CAPTURE(text);
        CHECK(why_not(text) == errc::bad_address);
    }
}

TEST_CASE("reading a bad endpoint says whether its port is wrong") {
    for (const std::string port :
         {":", ":0", ":00", ":65536", ":70000", ":100000", ":-1", ":+1", ":1 ", ": 1", ":x", ":1x",
          ":0x50", ":5000:", ":1.5", ":4294967297", ":18446744073709551617"}) {
        CAPTURE(port);
        CHECK(why_not("10.18.1.7" + port) == errc::bad_port);
        CHECK(why_not("[fe80::1]" + port) == errc::bad_port);
    }
    CHECK(why_not(std::string("10.18.1.7:50\0", 13)) == errc::bad_port);
}

TEST_CASE("an endpoint that lacks its port, or has something between, is refused") {
    for (const std::string text : {"10.18.1.7", "10.18.1.7 :5000", "10.18.1.7\n:5000", "[fe80::1]",
                                   "[fe80::1]5000", "[fe80::1] :5000"}) {
        CAPTURE(text);
        CHECK(why_not(text));
    }
}

TEST_CASE("every form that RFC 4291 gives an address reads as the same") {
    const struct {
        const char* text;
        const char* same;
    } table[] = {
        {"ABCD:EF01:2345:6789:ABCD:EF01:2345:6789", "abcd:ef01:2345:6789:abcd:ef01:2345:6789"},
        {"2001:DB8:0:0:8:800:200C:417A", "2001:db8::8:800:200c:417a"},
        {"FF01:0:0:0:0:0:0:101", "ff01::101"},
        {"0:0:0:0:0:0:0:1", "::1"},
        {"1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"},
        {"::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"},
        {"1::", "1:0:0:0:0:0:0:0"},
        {"0:0:0:0:0:FFFF:129.144.52.38", "129.144.52.38"},
        {"::FFFF:129.144.52.38", "129.144.52.38"},
        {"::ffff:8190:3426", "129.144.52.38"},
        {"0:0:0:0:0:0:13.1.68.3", "::d01:4403"},
        {"1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"},
        {"64:ff9b::1.2.3.4", "64:ff9b::102:304"},
    };
    for (const auto& row : table) {
        CAPTURE(std::string(row.text));
        CHECK(endpoint(row.text, 1));
        CHECK(endpoint(row.text, 1) == endpoint(row.same, 1));
    }
}

TEST_CASE("an address that RFC 4291 does not allow is refused") {
    for (const std::string text : {":",
                                   ":::",
                                   "1",
                                   "1:2:3:4:5:6:7",
                                   "1:2:3:4:5:6:7:8:9",
                                   "1::2::3",
                                   ":1:2:3:4:5:6:7",
                                   "1:2:3:4:5:6:7:",
                                   "1:2:3:4:5:6:7:8::",
                                   "::1:2:3:4:5:6:7:8",
                                   "1:::2",
                                   "12345::",
                                   "::g",
                                   "::1.2.3",
                                   "::1.2.3.4.5",
                                   "::1.2.3.256",
                                   "1.2.3.4::",
                                   "::1.2.3.4:5",
                                   "1:2:3:4:5:6:7:1.2.3.4",
                                   "::00001",
                                   "::-1",
                                   "::1/64"}) {
        CAPTURE(text);
        CHECK(why_not("[" + text + "]:5000") == errc::bad_address);
    }
}

TEST_CASE("an IPv6 address is written as RFC 5952 wants it") {
    const struct {
        const char* text;
        const char* written;
    } table[] = {
        {"2001:0db8:0000:0000:0001:0000:0000:0001", "2001:db8::1:0:0:1"},
        {"2001:db8:0:0:0:0:2:1", "2001:db8::2:1"},
        {"2001:db8::0:1", "2001:db8::1"},
        {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
        {"2001:0:0:1:0:0:0:1", "2001:0:0:1::1"},
        {"2001:db8:aaaa:bbbb:cccc:dddd:EEEE:00AA", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:aa"},
        {"0:0:0:0:0:0:0:0", "::"},
        {"0:0:0:0:0:0:0:1", "::1"},
        {"1:0:0:0:0:0:0:0", "1::"},
        {"0:0:1:0:0:0:0:0", "0:0:1::"},
        {"0:1:2:3:4:5:6:7", "0:1:2:3:4:5:6:7"},
        {"fe80::1%3", "fe80::1%3"},
    };
    for (const auto& row : table) {
        CAPTURE(std::string(row.text));
        CHECK(to_string(endpoint(row.text, 5000)) == "[" + std::string(row.written) + "]:5000");
    }
}

TEST_CASE("the address alone is written without brackets and port") {
    CHECK(endpoint("10.18.1.7", 5000).address() == "10.18.1.7");
    CHECK(endpoint("2001:DB8::1", 5000).address() == "2001:db8::1");
    CHECK(endpoint("::ffff:10.18.1.7", 5000).address() == "10.18.1.7");
}

TEST_CASE("any endpoint that is written reads back as the same") {
    std::mt19937 random(1);
    for (int i = 0; i < 5000; ++i) {
        const endpoint value = random_endpoint(random);
        CHECK(parsed(to_string(value)) == value);
        CHECK(endpoint(value.address(), value.port()) == value);
    }
}

TEST_CASE("an endpoint streams as it is written") {
    std::ostringstream out;
    out << endpoint("10.18.1.7", 5000) << ' ' << endpoint("::1", 1);
    CHECK(out.str() == "10.18.1.7:5000 [::1]:1");
}

TEST_CASE("endpoints are equal when address, port and scope are") {
    const endpoint value("fe80::1%2", 5000);
    CHECK(value == endpoint("fe80::1%2", 5000));
    CHECK(value != endpoint("fe80::1%2", 5001));
    CHECK(value != endpoint("fe80::2%2", 5000));
    CHECK(value != endpoint("fe80::1%3", 5000));
    CHECK(value.same_address(endpoint("fe80::1%3", 1)));
    CHECK_FALSE(value.same_address(endpoint("fe80::2%2", 5000)));
}

TEST_CASE("endpoints are ordered by address, then by port") {
    CHECK(endpoint("10.18.1.7", 6000) < endpoint("10.18.1.8", 5000));
    CHECK(endpoint("9.255.255.255", 1) < endpoint("10.0.0.0", 1));
    CHECK(endpoint("10.18.1.7", 5000) < endpoint("10.18.1.7", 5001));
    CHECK(endpoint("10.18.1.7", 255) < endpoint("10.18.1.7", 256));
    CHECK(endpoint("fe80::1%1", 6000) < endpoint("fe80::1%2", 5000));
    CHECK_FALSE(endpoint("fe80::1%2", 5000) < endpoint("fe80::1%1", 6000));
    CHECK_FALSE(endpoint("10.18.1.7", 5000) < endpoint("10.18.1.7", 5000));
    CHECK(endpoint() < endpoint("10.18.1.7", 5000));
}

TEST_CASE("the order of endpoints is total") {
    std::mt19937 random(2);
    for (int i = 0; i < 2000; ++i) {
        const endpoint a = random_endpoint(random), b = random_endpoint(random);
        CHECK((a < b) + (b < a) + (a == b) == 1);
    }
}

TEST_CASE("equal endpoints hash alike, and others seldom do") {
    const std::hash<endpoint> hash;
    CHECK(hash(endpoint("::ffff:10.18.1.7", 5000)) == hash(endpoint("10.18.1.7", 5000)));
    std::unordered_set<std::size_t> hashes, low_bits;
    for (int host = 0; host < 100; ++host) {
        for (std::uint16_t port = 5000; port < 5100; ++port) {
            const std::size_t value = hash(endpoint("10.18.1." + std::to_string(host), port));
            hashes.insert(value);
            low_bits.insert(value % 4096);
        }
    }
    CHECK(hashes.size() > 9900);
    CHECK(low_bits.size() > 3000);  // 10,000 balls in 4,096 bins: about 3,740 when thrown at random
}

TEST_CASE("loopback is recognized in both families") {
    CHECK(endpoint("127.0.0.1", 1).is_loopback());
    CHECK(endpoint("127.255.1.2", 1).is_loopback());
    CHECK(endpoint("::1", 1).is_loopback());
    CHECK(endpoint("::ffff:127.0.0.1", 1).is_loopback());
    CHECK_FALSE(endpoint("128.0.0.1", 1).is_loopback());
    CHECK_FALSE(endpoint("::2", 1).is_loopback());
    CHECK_FALSE(endpoint("1::1", 1).is_loopback());
    CHECK_FALSE(endpoint().is_loopback());
}

TEST_CASE("a numeric address is looked up as itself") {
    endpoint result;
    CHECK_FALSE(p2pchat::resolve("10.18.1.7", 5000, result));
    CHECK(result == endpoint("10.18.1.7", 5000));
    CHECK_FALSE(p2pchat::resolve("fe80::1%2", 5000, result));
    CHECK(result == endpoint("fe80::1%2", 5000));
}

TEST_CASE("the name localhost is looked up as a loopback address") {
    endpoint result;
    CHECK_FALSE(p2pchat::resolve("localhost", 5000, result));
    CHECK(result.is_loopback());
    CHECK(result.port() == 5000);
}

TEST_CASE("an unknown name and port 0 are refused, and leave the result unchanged") {
    const endpoint before("192.0.2.1", 7);
    endpoint result = before;
    // Names that no resolver can look up: the test must not wait for a network.
    CHECK(p2pchat::resolve("", 5000, result) == errc::bad_address);
    CHECK(p2pchat::resolve(std::string(300, 'a'), 5000, result) == errc::bad_address);
    CHECK(p2pchat::resolve(std::string("127.0.0.1\0x", 11), 5000, result) == errc::bad_address);
    CHECK(p2pchat::resolve(std::string("localhost\0x", 11), 5000, result) == errc::bad_address);
    CHECK(p2pchat::resolve("127.0.0.1", 0, result) == errc::bad_port);
    CHECK(p2pchat::resolve("localhost", 0, result) == errc::bad_port);
    CHECK(result == before);
}

TEST_CASE("half an address is not looked up as a whole one") {
    // inet_aton() and with it many resolvers take these for 10.18.0.1, 10.0.0.1, 0.0.0.10, ...
    for (const std::string host :
         {"10.18.1", "10.1", "10", "0x0a.1.2.3", "012.1.2.3", "10.18.1.256"}) {
        CAPTURE(host);
        endpoint result;
        CHECK(p2pchat::resolve(host, 5000, result) == errc::bad_address);
    }
}

TEST_CASE("the detected address is one of this machine, without a port") {
    const endpoint detected = p2pchat::detect_address();
    CHECK(detected.port() == 0);
    CHECK(endpoint(detected.address(), 1));
    p2pchat::tcp_socket socket;
    CHECK_FALSE(socket.listen(detected));
    CHECK(socket.local().same_address(detected));
}

TEST_CASE("errors of the library have a category, texts, and std::errc to compare with") {
    const std::error_code error = errc::bad_port;
    CHECK(&error.category() == &p2pchat::category());
    CHECK(std::string(p2pchat::category().name()) == "p2pchat");
    CHECK(error == std::errc::invalid_argument);
    CHECK(std::error_code(errc::bad_address) == std::errc::invalid_argument);
    CHECK(std::error_code(errc::bad_team) == std::errc::invalid_argument);
    CHECK(std::error_code(errc::bad_text) == std::errc::invalid_argument);
    CHECK(std::error_code(errc::too_few_words) == std::errc::invalid_argument);
    CHECK(std::error_code(errc::no_message) == std::errc::no_message);
    CHECK(std::error_code(errc::message_too_long) == std::errc::message_size);
    CHECK(std::error_code(errc::not_taken) == std::errc::connection_reset);
    CHECK(std::error_code(errc::link_lost) == std::errc::connection_aborted);
    CHECK(std::error_code(errc::queue_full) == std::errc::no_buffer_space);
    CHECK(std::error_code(errc::stopped) == std::errc::operation_canceled);
    CHECK(std::error_code(errc::already_running) == std::errc::already_connected);
    CHECK(std::error_code(errc::connection_limit) == std::errc::connection_aborted);
    CHECK(std::error_code(errc::own_address) == std::errc::invalid_argument);
    CHECK(std::error_code(errc::protocol_error) == std::errc::protocol_error);
    CHECK(error != std::errc::protocol_error);
}

TEST_CASE("every error has a text of its own, and so has an unknown error") {
    std::set<std::string> texts;
    for (int value = 1; value <= 16; ++value)
        texts.insert(std::error_code(value, p2pchat::category()).message());
    CHECK(texts.size() == 16);
    CHECK(texts.count("") == 0);
    CHECK_FALSE(std::error_code(999, p2pchat::category()).message().empty());
}
