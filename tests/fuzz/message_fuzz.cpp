// Any bytes as a message: the views lie inside the input, what format() writes parse() gives back,
// and what parse() refuses format() does not write.
//
// SPDX-License-Identifier: MIT

#include "fuzz.hpp"

#include <functional>
#include <string>
#include <vector>

namespace {

using fuzz::check;
using p2pchat::message_view;

bool inside(std::string_view part, std::string_view whole) {
    const std::less_equal<const char*> before;  // defined for pointers into different arrays
    return before(whole.data(), part.data()) &&
           before(part.data() + part.size(), whole.data() + whole.size());
}

void check_written(const message_view& m) {
    std::string bytes = "as it was";
    if (format(m.sender, m.team, m.text, bytes)) {
        check(bytes == "as it was", "an error leaves the result as it was");
        return;
    }
    check(bytes.find_first_of({"\r\n\0", 3}) == std::string::npos, "what is written is one line");
    message_view again;
    check(!parse(bytes, again), "parse() takes what format() writes");
    check(again.sender == m.sender && again.team == m.team && again.text == m.text,
          "and gives it back");
    std::string once_more;
    check(!format(again.sender, again.team, again.text, once_more) && once_more == bytes,
          "format() is stable");
    check(!parse(" \r\n" + bytes + "\r\n ", again) && again.text == m.text,
          "white space at the ends means nothing");
}

void check_taken(const message_view& m, std::string_view bytes) {
    check(inside(m.team, bytes) && inside(m.text, bytes), "views lie inside the input");
    check(m.team.data() + m.team.size() < m.text.data(), "the text stands behind the team");
    check(static_cast<bool>(m.sender) && m.sender.scope() == 0, "the sender is somebody");
    check(!m.team.empty() && m.team.size() <= p2pchat::max_team_bytes, "the team has a size");
    check(m.team.find_first_of({" \t\n\v\f\r\0", 7}) == std::string_view::npos, "it is a word");
    check(!m.text.empty() && m.text.find('\0') == std::string_view::npos, "the text is text");
    check_written(m);
}

/// A message of which only the sender is known to be good.
void check_parts(std::string_view bytes) {
    message_view m;
    m.sender = p2pchat::endpoint("10.18.1.7", 5000);
    const auto middle = bytes.find('|');
    m.team = bytes.substr(0, middle);
    if (middle != std::string_view::npos) m.text = bytes.substr(middle + 1);
    check_written(m);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // Copied, so that a sanitizer sees every byte read beyond the end.
    const std::vector<char> bytes(data, data + size);
    const std::string_view text(bytes.data(), bytes.size());
    message_view found;
    if (auto error = parse(text, found))
        check(error.category() == p2pchat::category(), "an error is one of ours");
    else
        check_taken(found, text);
    check_parts(text);
    return 0;
}
