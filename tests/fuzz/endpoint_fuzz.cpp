// Any bytes as an endpoint: what parse() takes, to_string() gives back; what it refuses leaves the
// result as it was.
//
// SPDX-License-Identifier: MIT

#include "fuzz.hpp"

#include <string>
#include <vector>

namespace {

using fuzz::check;
using p2pchat::endpoint;

const endpoint before("192.0.2.77", 7777);

void check_refused(std::error_code error, const endpoint& result) {
    check(error == p2pchat::errc::bad_address || error == p2pchat::errc::bad_port,
          "an error says what is wrong");
    check(result == before, "an error leaves the result as it was");
}

void check_taken(const endpoint& found) {
    const std::string text = to_string(found);
    endpoint again;
    check(!parse(text, again) && again == found, "parse(to_string(e)) is e");
    check(to_string(again) == text, "to_string() is stable");
    check(found.port() != 0, "no endpoint has port 0");
    check(endpoint(found.address(), found.port()) == found, "address() and port() are all of it");
    check(endpoint(found.bytes(), found.port(), found.scope()) == found, "so are the bytes");
    check(std::hash<endpoint>()(found) == std::hash<endpoint>()(again), "equals hash alike");
    check(!(found < again) && !(again < found), "equals have no order");
    if (found.is_v4()) check(found.scope() == 0, "IPv4 has no scope");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // Copied, so that a sanitizer sees every byte read beyond the end.
    const std::vector<char> bytes(data, data + size);
    const std::string_view text(bytes.data(), bytes.size());
    endpoint found = before;
    if (auto error = parse(text, found))
        check_refused(error, found);
    else
        check_taken(found);

    const endpoint from_address(text, 5000);
    check(!from_address || from_address.port() == 5000, "the port is the one given");
    if (from_address) check_taken(from_address);
    return 0;
}
