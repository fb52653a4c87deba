// Encryption between two honest sides with a middleman who is not: the input says what happens to
// the bytes between them. In any case each side gets a prefix of what the other sent, and an
// orderly end only after all of it.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#define P2PCHAT_OPENSSL
#include "fuzz.hpp"

#include <string>
#include <string_view>

namespace {

using fuzz::check;
using p2pchat::detail::session;

struct side {
    std::unique_ptr<session> tls;
    std::string told;  // by the other side
    std::string says;  // to the other side
    std::size_t said = 0;
    bool failed = false;

    void open(std::string_view bytes) {
        if (!failed && !tls->ended) failed = bool(tls->decrypt(bytes, told));
    }
    void encrypt() {
        if (failed || !tls->ready || said == says.size()) return;
        failed = bool(tls->encrypt(std::string_view(says).substr(said, 40)));
        said = (std::min)(said + 40, says.size());
        if (said == says.size()) tls->end();
    }
};

/// Passes on some of the bytes under way, changed as two bytes of the input say.
void carry(side& from, side& to, unsigned how, unsigned where) {
    auto& bytes = from.tls->ciphertext;
    if (bytes.empty()) return from.encrypt();
    const std::size_t at = where % bytes.size();
    if (how % 8 == 1) bytes[at] = static_cast<char>(bytes[at] ^ (1 << how / 32));
    if (how % 8 == 2) bytes.erase(at, how / 8);
    if (how % 8 == 3) bytes.insert(at, bytes.substr(0, how / 8));
    if (how % 8 == 4) bytes.insert(at, how / 8, static_cast<char>(where));
    const std::string some = bytes.substr(0, how % 8 == 5 ? at : bytes.size());
    bytes.erase(0, some.size());
    to.open(some);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static p2pchat::detail::tls ann, bob;
    static const bool ready = !ann.open({}) && !bob.open({});
    check(ready, "there is no TLS");
    side sides[] = {{ann.new_session(false), {}, std::string(100, 'a')},
                    {bob.new_session(true), {}, std::string(100, 'b')}};
    sides[0].open({});
    bool honest = true;
    for (std::size_t i = 0; i + 2 < size && i < 300; i += 3) {
        honest = honest && data[i + 1] % 8 != 1 && data[i + 1] % 8 != 2 && data[i + 1] % 8 != 3 &&
                 data[i + 1] % 8 != 4;
        carry(sides[data[i] % 2], sides[1 - data[i] % 2], data[i + 1], data[i + 2]);
    }
    for (int i = 0; i < 40; ++i) carry(sides[i % 2], sides[1 - i % 2], 0, 0);
    for (const int i : {0, 1}) {
        const side &one = sides[i], &other = sides[1 - i];
        check(one.told == other.says.substr(0, one.told.size()), "something else was told");
        check(!one.tls->ended || one.failed || one.told == other.says, "it was cut");
        check(!one.tls->ready || one.tls->key == (i == 0 ? bob : ann).own(), "another key");
        check(!honest || (one.tls->ended && !one.failed), "honest, and not all was told");
    }
    return 0;
}
