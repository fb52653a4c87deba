// What stands in for TLS: it proves keys without cryptography, as only who is believed is tested.
// Included after p2pchat.hpp; platform.hpp declares the class.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_SIMULATION_ENCRYPTION_HPP
#define P2PCHAT_TESTS_SIMULATION_ENCRYPTION_HPP

namespace simulation {

/// Zero: no key.
inline p2pchat::public_key key_of(std::uint64_t number) noexcept {
    p2pchat::public_key result;
    std::memcpy(result.bytes, &number, sizeof number);
    return result;
}

/// Records as those of TLS: a type, two bytes, the size in two bytes, and what nobody else reads.
/// The connecting side says hello, the other side answers with its key, and gets one.
class session final : public p2pchat::detail::session {
public:
    session(const p2pchat::public_key& ours, bool accepts) : ours_(ours), accepts_(accepts) {}

    std::error_code decrypt(std::string_view bytes, std::string& text) override {
        if (!accepts_ && !std::exchange(begun_, true)) add(handshake, "hello");
        received_.append(bytes);
        while (!ended && !received_.empty()) {
            const auto byte = [this](std::size_t at) {
                return static_cast<unsigned char>(received_[at]);
            };
            if (received_[0] < alert || received_[0] > data) return fail();
            if (received_.size() < 5) break;
            const std::size_t size = byte(3) * std::size_t{256} + byte(4);
            if (received_.size() < 5 + size) break;
            const std::string content = scrambled(std::string_view(received_).substr(5, size));
            const char type = received_[0];
            received_.erase(0, 5 + size);
            if (type == alert && content == "fatal") return failed();
            if (type == handshake) {
                if (ready || !take_key(content)) return fail();
            } else if (!ready) {
                return fail();
            } else if (type == data) {
                text.append(content);
            } else {
                ended = true;
            }
        }
        return {};
    }
    std::error_code encrypt(std::string_view text) override {
        try {
            add(data, text);
            return {};
        } catch (const std::bad_alloc&) {
            return failed();
        }
    }
    void end() noexcept override {
        if (!ready || std::exchange(end_sent_, true)) return;
        try {
            add(alert, "end");
        } catch (const std::bad_alloc&) {  // then the other side takes it for cut
        }
    }

private:
    static constexpr char alert = 0x15, handshake = 0x16, data = 0x17;

    static std::error_code failed() { return make_error_code(p2pchat::errc::encryption_failed); }
    std::error_code fail() {
        add(alert, "fatal");
        return failed();
    }
    static std::string scrambled(std::string_view text) {
        std::string result(text);
        for (char& byte : result) byte = static_cast<char>(byte ^ 0x5a);
        return result;
    }
    void add(char type, std::string_view content) {
        const char head[] = {type, 3, 3, static_cast<char>(content.size() / 256),
                             static_cast<char>(content.size() % 256)};
        std::string whole(head, sizeof head);
        ciphertext.append(whole.append(scrambled(content)));
    }
    bool take_key(const std::string& content) {
        const auto* const bytes = reinterpret_cast<const char*>(ours_.bytes);
        const std::string_view proof(bytes, sizeof ours_.bytes);
        if (accepts_ && !std::exchange(begun_, true)) {
            if (content == "hello") add(handshake, proof);
            return content == "hello";
        }
        if (content.size() != sizeof key.bytes) return false;
        content.copy(reinterpret_cast<char*>(key.bytes), sizeof key.bytes);
        if (!accepts_) add(handshake, proof);
        return ready = true;
    }

    const p2pchat::public_key ours_;
    const bool accepts_;
    std::string received_;
    bool begun_ = false, end_sent_ = false;
};

}  // namespace simulation

namespace p2pchat::detail {

inline std::unique_ptr<session> tls::new_session(bool accepts) {
    return std::make_unique<simulation::session>(own(), accepts);
}
inline public_key tls::own() const { return simulation::key_of(key_); }

}  // namespace p2pchat::detail

#endif  // P2PCHAT_TESTS_SIMULATION_ENCRYPTION_HPP
