// Tests of encryption: nobody can read, change or forge what two nodes send. With OpenSSL.
//
// SPDX-License-Identifier: MIT

#include "files.hpp"
#include "support.hpp"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#if !defined(_WIN32)
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>

using namespace support;
using p2pchat::encryption;
using p2pchat::errc;

namespace {

p2pchat::config encrypted(std::string team = "BTC", encryption mode = encryption::required) {
    auto settings = local(std::move(team));
    settings.encryption = mode;
    return settings;
}

/// Passes on what two peers send to each other, and may change it.
class middleman {
public:
    /// Called with each piece; if it returns false, the connection is cut here.
    using change = std::function<bool(std::string& bytes, bool forth)>;

    explicit middleman(const p2pchat::endpoint& to, change hook = {})
        : to_(to), hook_(std::move(hook)), accepts_([this] { accept(); }) {}
    middleman(const middleman&) = delete;
    middleman& operator=(const middleman&) = delete;
    ~middleman() {
        ending_ = true;
        accepts_.join();
        for (auto& one : copies_) one.join();
    }

    p2pchat::endpoint address() const { return listener_.address(); }
    /// What was sent to the other side, or by it.
    std::string seen(bool forth) const {
        const std::lock_guard<std::mutex> lock(mutex_);
        return seen_[forth];
    }

private:
    struct connection {
        p2pchat::tcp_socket ends[2];
    };

    void accept() {
        while (!ending_) {
            auto both = std::make_shared<connection>();
            if (listener_.socket().accept(both->ends[0], 20ms)) continue;
            if (both->ends[1].connect(to_, patience)) continue;
            for (const bool forth : {true, false})
                copies_.emplace_back([this, both, forth] { copy(*both, forth); });
        }
    }
    void copy(connection& both, bool forth) {
        auto &from = both.ends[forth ? 0 : 1], &to = both.ends[forth ? 1 : 0];
        while (!ending_) {
            char buffer[16 * 1024];
            std::size_t size = 0;
            const auto error = from.receive(buffer, sizeof buffer, size, 20ms);
            if (error == std::errc::timed_out) continue;
            std::string bytes(buffer, size);
            if (error || size == 0) break;
            {
                const std::lock_guard<std::mutex> lock(mutex_);
                seen_[forth] += bytes;
                if (hook_ && !hook_(bytes, forth)) break;
            }
            std::size_t sent = 0;
            if (to.send(bytes, sent, patience)) break;
        }
        static_cast<void>(to.shutdown_send());
    }

    raw_listener listener_;
    const p2pchat::endpoint to_;
    const change hook_;
    mutable std::mutex mutex_;
    std::string seen_[2];
    std::atomic<bool> ending_{false};
    std::vector<std::thread> copies_;
    std::thread accepts_;
};

struct freed {
    void operator()(BIO* what) const { BIO_free(what); }
    void operator()(EVP_PKEY* what) const { EVP_PKEY_free(what); }
    void operator()(SSL* what) const { SSL_free(what); }
    void operator()(SSL_CTX* what) const { SSL_CTX_free(what); }
    void operator()(X509* what) const { X509_free(what); }
};
template <class What>
using owned = std::unique_ptr<What, freed>;

/// TLS typed by hand, with a certificate that may be unfit.
class typed_tls {
public:
    enum class shows { good, nothing, rsa, expired, old_version };

    explicit typed_tls(const p2pchat::endpoint& to, shows what = shows::good)
        : context_(SSL_CTX_new(TLS_client_method())) {
        if (what != shows::nothing) certify(what);
        if (what == shows::old_version)
            SSL_CTX_set_max_proto_version(context_.get(), TLS1_2_VERSION);
        ssl_.reset(SSL_new(context_.get()));
        SSL_set_bio(ssl_.get(), in_ = BIO_new(BIO_s_mem()), out_ = BIO_new(BIO_s_mem()));
        SSL_set_connect_state(ssl_.get());
        REQUIRE_FALSE(socket_.connect(to, patience));
    }

    /// Completes the handshake; false if the other side ends it.
    bool shake_hands() {
        while (!SSL_is_init_finished(ssl_.get())) {
            const int done = SSL_do_handshake(ssl_.get());
            flush();
            if (done != 1 && !receive()) return false;
        }
        return true;
    }
    void send(std::string_view text) {
        REQUIRE(SSL_write(ssl_.get(), text.data(), static_cast<int>(text.size())) > 0);
        flush();
    }
    void say_end() {
        SSL_shutdown(ssl_.get());
        flush();
    }
    void half_close() { static_cast<void>(socket_.shutdown_send()); }
    /// Text up to and including a LF, or to the end of the stream.
    std::string line() {
        char one = 0;
        std::string text;
        while (one != '\n') {
            const int size = SSL_read(ssl_.get(), &one, 1);
            if (size == 1) {
                text += one;
                continue;
            }
            const int why = SSL_get_error(ssl_.get(), size);
            ended_ = why == SSL_ERROR_ZERO_RETURN;
            if (why != SSL_ERROR_WANT_READ || !receive()) return text;
        }
        return text;
    }
    /// Whether the other side has sent close_notify, which confirms that it has taken all.
    bool heard_end() { return line().empty() && ended_; }

private:
    void certify(shows what) {
        const owned<EVP_PKEY> key(what == shows::rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256"));
        const owned<X509> made(X509_new());
        X509_gmtime_adj(X509_getm_notBefore(made.get()), -7200);
        X509_gmtime_adj(X509_getm_notAfter(made.get()), what == shows::expired ? -3600 : 3600);
        X509_set_pubkey(made.get(), key.get());
        X509_sign(made.get(), key.get(), EVP_sha256());
        REQUIRE_EQ(SSL_CTX_use_certificate(context_.get(), made.get()), 1);
        REQUIRE_EQ(SSL_CTX_use_PrivateKey(context_.get(), key.get()), 1);
    }
    void flush() {
        char* bytes = nullptr;
        const long size = BIO_get_mem_data(out_, &bytes);
        std::size_t sent = 0;
        static_cast<void>(socket_.send({bytes, static_cast<std::size_t>(size)}, sent, patience));
        static_cast<void>(BIO_reset(out_));
    }
    bool receive() {
        char buffer[4096];
        std::size_t size = 0;
        if (socket_.receive(buffer, sizeof buffer, size, patience) || size == 0) return false;
        BIO_write(in_, buffer, static_cast<int>(size));
        return true;
    }

    p2pchat::tcp_socket socket_;
    owned<SSL_CTX> context_;
    owned<SSL> ssl_;
    BIO *in_ = nullptr, *out_ = nullptr;
    bool ended_ = false;
};

/// What on_key_changed is called with.
class changed_keys {
public:
    void watch(p2pchat::node& node) {
        node.on_key_changed([this](const p2pchat::peer& offered) {
            const std::lock_guard<std::mutex> lock(mutex_);
            offered_.push_back(offered);
        });
    }
    std::vector<p2pchat::peer> wait() {
        wait_until([&] {
            const std::lock_guard<std::mutex> lock(mutex_);
            return !offered_.empty();
        });
        const std::lock_guard<std::mutex> lock(mutex_);
        return offered_;
    }

private:
    std::mutex mutex_;
    std::vector<p2pchat::peer> offered_;
};

/// Settings for a peer that comes back at the same address, with another key.
p2pchat::config again(const p2pchat::config& as, std::uint16_t port) {
    auto settings = as;
    settings.port = port;
    return settings;
}

const std::string long_text(60 * 1024, 'x');

/// Settings with discovery, on a discovery port of its own.
p2pchat::config discovering(encryption mode) {
    auto settings = encrypted("Ann", mode);
    settings.discovery = true;
    settings.discovery_port = support::new_discovery_port();
    return settings;
}

#if !defined(_WIN32)

/// Announces something for a peer in a datagram, as any program on its machine can.
void announce(const p2pchat::endpoint& peer, std::uint16_t discovery_port, std::string_view what) {
    const int socket = ::socket(AF_INET, SOCK_DGRAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(peer.port());
    const auto* const any = reinterpret_cast<const sockaddr*>(&address);
    REQUIRE(::bind(socket, any, sizeof address) == 0);
    address.sin_port = htons(discovery_port);
    const std::string text = wire(peer, what);
    CHECK(::sendto(socket, text.data(), text.size(), 0, any, sizeof address) ==
          static_cast<ssize_t>(text.size()));
    ::close(socket);
}

/// Accepts the next connection to a port; whether it begins as TLS does.
bool comes_encrypted(raw_listener& there) {
    raw_peer peer = there.accept();
    char first = 0;
    std::size_t size = 0;
    CHECK_FALSE(peer.socket().receive(&first, 1, size, patience));
    return first == 0x16;
}

/// While one lives, no file may grow beyond this size, as on a full disk.
class full_disk {
public:
    explicit full_disk(std::size_t bytes) {
        ::getrlimit(RLIMIT_FSIZE, &before_);
        const rlimit now{bytes, before_.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &now) == 0);
    }
    full_disk(const full_disk&) = delete;
    full_disk& operator=(const full_disk&) = delete;
    ~full_disk() {
        ::setrlimit(RLIMIT_FSIZE, &before_);
        ::signal(SIGXFSZ, handler_);
    }

private:
    void (*const handler_)(int) = ::signal(SIGXFSZ, SIG_IGN);
    rlimit before_{};
};

#endif

}  // namespace

TEST_CASE("an encrypted one-shot is delivered, and carries its sender's key") {
    recording_node ann(encrypted("Ann")), bob(encrypted("Bob"));
    CHECK_FALSE(ann->send(bob.address(), "Hi"));
    REQUIRE(bob.wait_text("Hi"));
    CHECK(bob.seen().messages[0].verified);
    CHECK(bob.seen().messages[0].key == ann->key());
    CHECK(bool(ann->key()));
    CHECK(ann->key() != bob->key());
    CHECK_EQ(fingerprint(ann->key()).size(), 47);
    REQUIRE(bob->peers().size() == 1);
    CHECK(bob->peers()[0].key == ann->key());
    CHECK_FALSE(bob->send(ann.address(), long_text));
    REQUIRE(ann.wait_messages(1));
    CHECK(ann.seen().messages[0].text == long_text);
    CHECK_EQ(ann->send(bob.address(), std::string(70 * 1024, 'y')), errc::message_too_long);
}

TEST_CASE("a fingerprint is eight numbers of five digits") {
    p2pchat::public_key key;
    CHECK_EQ(p2pchat::fingerprint(key), "00000 00000 00000 00000 00000 00000 00000 00000");
    for (int i = 0; i < 16; ++i) key.bytes[i] = static_cast<unsigned char>(i == 1 ? 7 : 0xff);
    CHECK_EQ(p2pchat::fingerprint(key), "65287 65535 65535 65535 65535 65535 65535 65535");
}

TEST_CASE("an encrypted link carries messages both ways, in order, confirmed, and ends in order") {
    outcomes told;
    recording_node ann(encrypted("Ann")), bob(encrypted("Bob"));
    const auto made = ann->connect(bob.address());
    CHECK_FALSE(made.error);
    CHECK(made.linked);
    CHECK_EQ(linked_peers(*bob), 1);
    for (int i = 0; i < 3000; ++i) {
        told.post(*ann, bob.address(), "a" + std::to_string(i), p2pchat::when_full::wait);
        told.post(*bob, ann.address(), "b" + std::to_string(i), p2pchat::when_full::wait);
    }
    told.post(*ann, bob.address(), long_text, p2pchat::when_full::wait);
    REQUIRE(told.wait());
    CHECK_EQ(told.count({}), 6001);
    REQUIRE(bob.wait_messages(3001));
    const auto seen = bob.seen().messages;
    bool in_order = true;
    for (std::size_t i = 0; i < 3000; ++i)
        in_order = in_order && seen[i].text == "a" + std::to_string(i) && seen[i].key == ann->key();
    CHECK(in_order);
    CHECK(seen[3000].text == long_text);

    SUBCASE("by exit") {
        CHECK_FALSE(ann->leave(bob.address()));
        REQUIRE(bob.wait_left(1));
        CHECK(bob.seen().left[0].second == p2pchat::departure::left);
    }
    SUBCASE("by stop") {
        ann->stop();
        REQUIRE(bob.wait_left(1));
        CHECK(bob.seen().left[0].second == p2pchat::departure::stopped);
    }
}

TEST_CASE("one encrypted link stands when both sides open one at once, and nothing is lost") {
    outcomes told;
    recording_node ann(encrypted("Ann")), bob(encrypted("Bob"));
    std::thread other([&] { static_cast<void>(ann->connect(bob.address())); });
    static_cast<void>(bob->connect(ann.address()));
    other.join();
    for (int i = 0; i < 100; ++i) {
        told.post(*ann, bob.address(), "to Bob");
        told.post(*bob, ann.address(), "to Ann");
    }
    REQUIRE(told.wait());
    CHECK_EQ(told.count({}), 200);
    CHECK(wait_until([&] { return linked_peers(*ann) == 1 && linked_peers(*bob) == 1; }));
}

TEST_CASE("an eavesdropper sees neither text nor team") {
    recording_node bob(encrypted("Robert"));
    middleman eve(bob.address());
    recording_node ann(encrypted("Annabel"));
    CHECK_FALSE(ann->send(eve.address(), "attack at dawn"));
    CHECK(ann->connect(eve.address()).linked);
    CHECK_FALSE(ann->send(eve.address(), "attack at dusk"));
    CHECK_FALSE(bob->send(ann.address(), "which hill?"));
    REQUIRE(ann.wait_text("which hill?"));
    CHECK(bob.seen().count_text("attack at dusk") == 1);
    CHECK(linked_peers(*bob) == 1);  // so what Bob said went through it too
    for (const bool forth : {true, false}) {
        const std::string seen = eve.seen(forth);
        CHECK(seen.size() > 500);
        for (const char* word :
             {"attack", "hill", "Annabel", "Robert", "CONNECT", "ACK 1", "127.0"})
            CHECK(seen.find(word) == std::string::npos);
    }
}

TEST_CASE("an encrypted message may come byte by byte") {
    recording_node ann(encrypted("Ann")), bob(encrypted("Bob"));
    raw_listener between;
    std::thread copies([&] {
        auto from = between.accept();
        raw_peer to(bob.address());
        const auto copy = [](raw_peer& in, raw_peer& out) {
            char one = 0;
            for (std::size_t size = 1; size == 1;) {
                if (in.socket().receive(&one, 1, size, patience) || size == 0) break;
                out.send({&one, 1});
            }
            out.half_close();
        };
        std::thread back([&] { copy(to, from); });
        copy(from, to);
        back.join();
    });
    CHECK_FALSE(ann->send(between.address(), "byte by byte"));
    copies.join();
    CHECK(bob.wait_text("byte by byte"));
}

TEST_CASE("one changed bit ends a connection, and nothing behind it is taken") {
    std::atomic<bool> change{false};
    recording_node bob(encrypted("Bob"));
    middleman eve(bob.address(), [&](std::string& bytes, bool forth) {
        if (change && forth) bytes.back() = static_cast<char>(bytes.back() ^ 4);
        return true;
    });
    recording_node ann(encrypted("Ann"));
    SUBCASE("a one-shot") {
        CHECK_FALSE(ann->send(eve.address(), "first"));
        change = true;
        CHECK(ann->send(eve.address(), "second"));
        REQUIRE(bob.wait_rejected(errc::encryption_failed));
        CHECK(bob.seen().messages.size() == 1);
    }
    SUBCASE("a link") {
        REQUIRE(ann->connect(eve.address()).linked);
        CHECK_FALSE(ann->send(eve.address(), "first"));
        change = true;
        CHECK(ann->send(eve.address(), "second"));
        REQUIRE(bob.wait_left(1));
        CHECK(bob.seen().left[0].second == p2pchat::departure::lost);
        CHECK(bob.seen().count_text("second") == 0);
    }
}

TEST_CASE("a truncated TLS connection is not an orderly end") {
    recording_node bob(encrypted("Bob"));
    recording_node ann(encrypted("Ann"));
    SUBCASE("a message without close_notify is not shown") {
        // close_notify is the last record, of 24 bytes: it is not passed on.
        middleman eve(bob.address(), [&](std::string& bytes, bool forth) {
            const std::size_t before = bytes.size() - (std::min)(bytes.size(), std::size_t{24});
            const bool end = bytes.compare(before, 5, std::string("\x17\x03\x03\x00\x13", 5)) == 0;
            if (forth && end) bytes.resize(before);
            return true;
        });
        CHECK(ann->send(eve.address(), "never ended"));
        REQUIRE(bob.wait_rejected(std::errc::connection_reset));
        CHECK(bob.seen().messages.empty());
    }
    SUBCASE("a message is not delivered without the receiver's close_notify") {
        middleman eve(bob.address(), [&](std::string&, bool forth) {
            return forth || bob->statistics().received == 0;
        });
        CHECK_EQ(ann->send(eve.address(), "taken, but nobody says so"), errc::not_taken);
        CHECK(bob.wait_messages(1));
    }
    SUBCASE("a truncated link is lost") {
        std::atomic<bool> now{false};
        middleman eve(bob.address(), [&](std::string&, bool) { return !now; });
        REQUIRE(ann->connect(eve.address()).linked);
        now = true;
        CHECK(ann->send(eve.address(), "lost"));
        REQUIRE(bob.wait_left(1));
        CHECK(bob.seen().left[0].second == p2pchat::departure::lost);
    }
}

TEST_CASE("a half-close without close_notify is not an orderly end") {
    recording_node bob(encrypted("Bob"));
    typed_tls cut(bob.address());
    REQUIRE(cut.shake_hands());
    SUBCASE("a one-shot is neither confirmed nor shown") {
        cut.send("127.0.0.1:5000 Me never ended");
        cut.half_close();
        REQUIRE_FALSE(cut.heard_end());
        REQUIRE(bob.seen().messages.empty());
        CHECK(bob.wait_rejected(std::errc::connection_reset));
    }
    SUBCASE("a link is lost") {
        cut.send("127.0.0.1:5000 Me CONNECT\n");
        REQUIRE_EQ(cut.line(), to_string(bob.address()) + " Bob CONNECT\n");
        cut.half_close();
        REQUIRE(bob.wait_left(1));
        CHECK(bob.seen().left[0].second == p2pchat::departure::lost);
    }
}

TEST_CASE("a replayed connection is refused") {
    recording_node bob(encrypted("Bob"));
    middleman eve(bob.address());
    recording_node ann(encrypted("Ann"));
    CHECK_FALSE(ann->send(eve.address(), "pay 100"));
    raw_peer later(bob.address());
    later.send(eve.seen(true));
    CHECK(later.read_to_end() == ending::reset);
    CHECK(bob.wait_rejected(errc::encryption_failed));
    CHECK(bob.seen().messages.size() == 1);
}

TEST_CASE("encryption::required neither takes nor sends anything unencrypted") {
    recording_node bob(encrypted("Bob"));
    CHECK(one_shot(bob.address(), wire({"127.0.0.1", 5000}, "Hi")) == ending::reset);
    CHECK(bob.wait_rejected(errc::not_encrypted));
    raw_peer opener(bob.address());
    opener.send(wire({"127.0.0.1", 5000}, "CONNECT\n"));
    CHECK(opener.read_to_end() == ending::reset);
    CHECK(bob.wait_rejected(errc::not_encrypted, 2));
    CHECK(one_shot(bob.address(), wire(bob.address(), "I am you")) == ending::reset);
    CHECK(bob.wait_rejected(errc::not_encrypted, 3));
    CHECK(bob.seen().messages.empty());

    original python;
    CHECK_EQ(bob->send(python.address(), "Hi"), errc::encryption_failed);
    CHECK_EQ(bob->connect(python.address()).error, errc::encryption_failed);
    CHECK(python.printed().empty());
    recording_node open(local("Open"));
    CHECK_EQ(bob->send(open.address(), "Hi"), errc::encryption_failed);
    CHECK(open->send(bob.address(), "Hi"));
    CHECK(open.seen().messages.empty());
}

TEST_CASE("encryption::preferred sends unencrypted to peers whose key is not known") {
    recording_node ann(encrypted("Ann", encryption::preferred)),
        bob(encrypted("Bob", encryption::preferred));
    original python;
    CHECK_FALSE(ann->send(python.address(), "Hi"));
    CHECK_FALSE(python.send(ann.address(), "Hi yourself"));
    REQUIRE(ann.wait_text("Hi yourself"));
    CHECK_FALSE(ann->send(bob.address(), "unencrypted"));
    REQUIRE(bob.wait_text("unencrypted"));
    for (const auto& m : {ann.seen().messages[0], bob.seen().messages[0]}) CHECK_FALSE(m.key);
}

TEST_CASE("a peer whose key is known is never sent anything unencrypted again") {
    recording_node ann(encrypted("Ann", encryption::preferred));
    p2pchat::endpoint there;
    {
        recording_node bob(encrypted("Bob"));
        there = bob.address();
        CHECK_FALSE(bob->send(ann.address(), "first"));  // so Ann knows his key
        REQUIRE(ann.wait_text("first"));
        CHECK(ann.seen().messages[0].key == bob->key());
        CHECK_FALSE(ann->send(there, "encrypted"));
        CHECK(bob.wait_text("encrypted"));
    }
    // Whoever has that port now is sent nothing but TLS, and is refused if unencrypted.
    raw_listener eve(there);
    std::thread said([&] {
        auto peer = eve.accept();
        char first = 0;
        std::size_t size = 0;
        CHECK_FALSE(peer.socket().receive(&first, 1, size, patience));
        CHECK(first == 0x16);
        peer.close();
    });
    CHECK_EQ(ann->send(there, "encrypted"), errc::encryption_failed);
    said.join();
    CHECK(one_shot(ann.address(), wire(there, "It's me, Bob", "Bob")) == ending::reset);
    CHECK(one_shot(ann.address(), wire(there, "exit", "Bob")) == ending::reset);
    CHECK(ann.wait_rejected(errc::not_encrypted, 2));
    CHECK(ann.seen().messages.size() == 1);
    CHECK(ann->peers().size() == 1);
}

TEST_CASE("an unencrypted link is closed when its peer's key becomes known") {
    recording_node ann(encrypted("Ann", encryption::preferred));
    typed_link clear(ann);
    clear.send("unencrypted");
    REQUIRE(clear.wait_ack(1));
    typed_tls sealed(ann.address());
    REQUIRE(sealed.shake_hands());
    sealed.send(wire(clear.address(), "encrypted"));
    sealed.say_end();
    CHECK(sealed.heard_end());
    clear.send("unencrypted again");
    CHECK(clear.peer.read_to_end() == ending::reset);
    CHECK(ann.wait_rejected(errc::not_encrypted));
    CHECK(ann.seen().count_text("unencrypted again") == 0);
}

TEST_CASE("a link under a key that is no longer trusted ends, and nothing more goes over it") {
    recording_node ann(encrypted("Ann")), bob(encrypted("Bob"));
    auto there = bob.address();
    SUBCASE("a link that we opened") {}
    SUBCASE("a link that the peer opened") { REQUIRE(bob->connect(ann.address()).linked); }
    SUBCASE("a link to another address of the peer") {
        if (!has_wide_loopback()) return;
        there = {"127.0.0.2", there.port()};
    }
    REQUIRE(ann->connect(there).linked);
    REQUIRE(wait_until([&] { return linked_peers(*bob) == 1; }));
    CHECK_FALSE(ann->trust(there, bob->key()));
    CHECK_EQ(linked_peers(*ann), 1);
    p2pchat::public_key other;
    other.bytes[0] = 1;
    CHECK_FALSE(ann->trust(there, other));
    CHECK_EQ(linked_peers(*ann), 0);
    CHECK_EQ(ann->send(there, "for somebody else"), errc::key_changed);
    REQUIRE(ann.wait_left(1));
    CHECK(ann.seen().left[0].second == p2pchat::departure::lost);
    REQUIRE(bob.wait_left(1));
    CHECK(bob.seen().count_text("for somebody else") == 0);
}

TEST_CASE("messages under a key that is no longer trusted are not taken") {
    recording_node ann(encrypted("Ann")), bob(encrypted("Bob"));
    REQUIRE(bob->connect(ann.address()).linked);
    p2pchat::public_key other;
    other.bytes[0] = 1;
    CHECK_FALSE(ann->trust(bob.address(), other));
    CHECK(bob->send(ann.address(), "it's me, Bob"));
    CHECK(bob->send(ann.address(), "it's still me"));
    CHECK(ann.seen().messages.empty());
}

TEST_CASE("a link being opened under a key that is no longer trusted is not made") {
    gate trusted;
    recording_node ann(encrypted("Ann")), bob(encrypted("Bob"));
    p2pchat::public_key other;
    other.bytes[0] = 1;
    std::size_t pieces = 0;
    // The handshake is one flight back; the next, the answer to CONNECT, waits.
    middleman held(bob.address(), [&](std::string&, bool forth) {
        return forth || ++pieces == 1 || trusted.wait();
    });
    std::error_code failed;
    std::thread connects([&] { failed = ann->connect(held.address()).error; });
    REQUIRE(bob.wait_connected(1));
    CHECK_FALSE(ann->trust(held.address(), other));
    trusted.open();
    connects.join();
    CHECK_EQ(failed, errc::key_changed);
    CHECK_EQ(linked_peers(*ann), 0);
}

TEST_CASE("a link that is refused while it waits for room is not read once there is room") {
    auto settings = encrypted("Ann", encryption::preferred);
    settings.max_received_bytes = 1;  // each event fills it
    gate go_on;
    recording_node ann(settings, [&](recording_node&, const p2pchat::message& m) {
        if (m.text == "first") CHECK(go_on.wait());
    });
    typed_link clear(ann);
    clear.send("first");
    REQUIRE(ann.wait_text("first"));
    clear.send("second");
    clear.send("third");
    REQUIRE(clear.peer.send("what?\n"));  // read after the messages that wait
    REQUIRE(wait_until([&] { return ann->statistics().rejected == 1; }));
    p2pchat::public_key known;
    known.bytes[0] = 1;
    REQUIRE_FALSE(ann->trust(clear.address(), known));
    go_on.open();
    CHECK(clear.peer.read_to_end() == ending::reset);
    CHECK(ann.wait_rejected(errc::not_encrypted));
    typed_tls sealed(ann.address());
    REQUIRE(sealed.shake_hands());
    sealed.send(wire(nobody().address(), "next"));
    sealed.say_end();
    CHECK(sealed.heard_end());
    CHECK(ann.wait_text("next"));
    CHECK(ann.seen().messages.size() == 2);  // the first and this
}

TEST_CASE("encryption::off sends unencrypted, even to a peer whose key is trusted") {
    recording_node ann(local("Ann")), bob(local("Bob"));
    p2pchat::public_key key;
    key.bytes[0] = 1;
    REQUIRE_FALSE(ann->trust(bob.address(), key));
    CHECK_FALSE(ann->send(bob.address(), "one-shot"));
    REQUIRE(bob->connect(ann.address()).linked);
    CHECK_FALSE(bob->send(ann.address(), "to her"));
    CHECK_FALSE(ann->send(bob.address(), "to him"));
    CHECK(ann.wait_text("to her"));
    CHECK(bob.wait_text("to him"));
}

TEST_CASE("another key for a known peer is refused until it is accepted") {
    changed_keys told;
    outcomes kept;
    recording_node ann(encrypted("Ann"));
    told.watch(*ann);
    auto bob = std::make_unique<recording_node>(encrypted("Bob"));
    const auto there = bob->address();
    CHECK_FALSE((*bob)->send(ann.address(), "I am Bob"));
    REQUIRE(ann.wait_text("I am Bob"));
    bob.reset();
    bob = std::make_unique<recording_node>(again(encrypted("Bob"), there.port()));
    const auto key = (*bob)->key();

    SUBCASE("when the peer sends") {
        CHECK_EQ((*bob)->send(ann.address(), "me too"), errc::not_taken);
    }
    SUBCASE("when the peer links") {
        CHECK((*bob)->connect(ann.address()).error);
        CHECK_EQ(linked_peers(*ann), 0);
    }
    SUBCASE("when we send or link") {
        CHECK_EQ(ann->send(there, "Bob?"), errc::key_changed);
        CHECK_EQ(ann->connect(there).error, errc::key_changed);
    }
    const auto offered = told.wait();
    REQUIRE(!offered.empty());
    CHECK(offered[0].address == there);
    CHECK(offered[0].key == key);
    CHECK(ann.seen().messages.size() == 1);
    CHECK((*bob).seen().messages.empty());

    CHECK_FALSE(ann->trust(there, key));
    CHECK_FALSE((*bob)->send(ann.address(), "me again"));
    CHECK_FALSE(ann->send(there, "welcome"));
    CHECK(ann.wait_text("me again"));
    CHECK(bob->wait_text("welcome"));
}

TEST_CASE("a peer without a fit certificate is refused, and the reason is reported") {
    using shows = typed_tls::shows;
    recording_node bob(encrypted("Bob"));
    const auto refused = [&](shows what, errc why) {
        typed_tls client(bob.address(), what);
        if (client.shake_hands()) client.send("127.0.0.1:5000 Eve Hi");
        client.say_end();
        CHECK_FALSE(client.heard_end());
        CHECK(bob.wait_rejected(why));
    };
    SUBCASE("no certificate") { refused(shows::nothing, errc::bad_certificate); }
    SUBCASE("RSA") { refused(shows::rsa, errc::bad_certificate); }
    SUBCASE("expired") { refused(shows::expired, errc::bad_certificate); }
    SUBCASE("TLS 1.2") { refused(shows::old_version, errc::encryption_failed); }
    CHECK(bob.seen().messages.empty());
    typed_tls good(bob.address());
    REQUIRE(good.shake_hands());
    good.send("127.0.0.1:5000 Me Hi");
    good.say_end();
    CHECK(good.heard_end());
    CHECK(bob.wait_text("Hi"));
}

TEST_CASE("an encrypted link has the same lines as an unencrypted one") {
    recording_node bob(encrypted("Bob"));
    typed_tls me(bob.address());
    REQUIRE(me.shake_hands());
    me.send("127.0.0.1:5000 Me CONNECT\n");
    CHECK_EQ(me.line(), to_string(bob.address()) + " Bob CONNECT\n");
    me.send("127.0.0.1:5000 Me Hi\n");
    CHECK_EQ(me.line(), "ACK 1\n");
    CHECK_FALSE(bob->post({"127.0.0.1", 5000}, "Hi yourself"));
    CHECK_EQ(me.line(), to_string(bob.address()) + " Bob Hi yourself\n");
    me.send("ACK 1\n");
    me.send("127.0.0.1:5000 Me exit\n");
    CHECK_EQ(me.line(), "ACK 2\n");
    CHECK(me.heard_end());
    CHECK(bob.wait_left(1));
}

TEST_CASE("a handshake has first_message_timeout, and holds up no other peer") {
    auto settings = encrypted("Bob");
    SUBCASE("a handshake that never finishes") {
        settings.first_message_timeout = 200ms;
        recording_node bob(settings);
        raw_peer silent(bob.address());
        silent.send(std::string_view("\x16\x03\x01\x02\x00\x01", 6));
        CHECK(silent.read_to_end() == ending::reset);
        CHECK(bob.wait_rejected(std::errc::timed_out));
    }
    SUBCASE("a handshake without a message") {
        settings.first_message_timeout = 500ms;
        recording_node bob(settings);
        typed_tls silent(bob.address());
        REQUIRE(silent.shake_hands());
        CHECK(bob.wait_rejected(std::errc::timed_out));
    }
    SUBCASE("a pause is not an end") {
        settings.quiet_period = 50ms;
        settings.first_message_timeout = 1000ms;
        recording_node bob(settings);
        typed_tls slow(bob.address());
        REQUIRE(slow.shake_hands());
        slow.send("127.0.0.1:5000 Me half a");
        CHECK(bob.wait_rejected(std::errc::timed_out));
        CHECK(bob.seen().messages.empty());
    }
    SUBCASE("our handshake with a silent peer") {
        settings.handshake_timeout = 200ms;
        recording_node bob(settings);
        raw_listener silent;
        const stopwatch time;
        CHECK_EQ(bob->send(silent.address(), "Hi"), std::errc::timed_out);
        CHECK(time.is_short());
    }
    SUBCASE("a node stops at once") {
        recording_node bob(settings);
        raw_peer silent(bob.address());
        silent.send(std::string_view("\x16\x03\x01\x02\x00\x01", 6));
        raw_listener nothing;
        outcomes told;
        told.post(*bob, nothing.address(), "Hi");
        CHECK(wait_until([&] { return bob->statistics().connections == 1; }));
        const stopwatch time;
        bob->stop();
        CHECK(time.is_short());
        CHECK(told.wait());
        CHECK_EQ(told.count(errc::stopped), 1);
    }
}

TEST_CASE("bytes that only begin like TLS are refused") {
    recording_node bob(encrypted("Bob", encryption::preferred));
    CHECK(one_shot(bob.address(), "\x16garbage garbage garbage") == ending::reset);
    CHECK(bob.wait_rejected(errc::encryption_failed));
    recording_node open(local("Open"));
    CHECK(one_shot(open.address(), "\x16garbage garbage garbage") == ending::reset);
}

TEST_CASE("a node keeps its key in the identity file") {
    const folder here;
    auto settings = encrypted("Bob");
    settings.identity = here.file("identity");
    p2pchat::public_key key;
    {
        recording_node bob(settings);
        key = bob->key();
        CHECK(bool(key));
    }
    SUBCASE("a restart") {
        recording_node bob(settings);
        CHECK(bob->key() == key);
    }
    SUBCASE("two nodes with one file") {
        recording_node first(settings), second(settings);
        CHECK(first->key() == key);
        CHECK(second->key() == key);
    }
    SUBCASE("no file: another key each time") {
        settings.identity.clear();
        recording_node bob(settings);
        CHECK(bob->key() != key);
    }
    SUBCASE("a file with something else in it is refused") {
        std::ofstream(settings.identity, std::ios::trunc) << "nothing";
        p2pchat::node bob(settings);
        CHECK_EQ(bob.start(), errc::bad_identity);
    }
    SUBCASE("a folder that does not exist") {
        settings.identity = here.file("missing/identity");
        p2pchat::node bob(settings);
        CHECK_EQ(bob.start(), std::errc::no_such_file_or_directory);
    }
#if !defined(_WIN32)
    using std::filesystem::perms;
    CHECK(std::filesystem::status(here.file("identity")).permissions() ==
          (perms::owner_read | perms::owner_write));
    SUBCASE("a file that others can read is refused") {
        std::filesystem::permissions(settings.identity, perms::group_read,
                                     std::filesystem::perm_options::add);
        p2pchat::node bob(settings);
        CHECK_EQ(bob.start(), errc::bad_identity);
    }
#endif
}

TEST_CASE("a peer that comes back under another team has the same key, and is the same peer") {
    const folder here;
    auto of_bob = encrypted("Bob");
    of_bob.identity = here.file("bob");
    recording_node ann(encrypted("Ann"));
    auto bob = std::make_unique<recording_node>(of_bob);
    of_bob.port = bob->address().port();
    of_bob.team = "Robert";
    CHECK_FALSE((*bob)->send(ann.address(), "Hi"));
    REQUIRE(ann.wait_joined(1));
    bob.reset();
    support::outcomes posts;
    REQUIRE_FALSE(posts.post(*ann, {"127.0.0.1", of_bob.port}, "kept for Bob",
                             p2pchat::when_full::refuse, p2pchat::when_absent::keep));
    REQUIRE(wait_until([&] { return ann->kept().size() == 1; }));
    recording_node robert(of_bob);
    CHECK_FALSE(robert->send(ann.address(), "Hi again"));
    CHECK(robert.wait_text("kept for Bob"));
    CHECK(posts.wait());
    REQUIRE(ann->peers().size() == 1);
    CHECK(ann->peers()[0].team == "Robert");
    CHECK(ann.seen().joined.size() == 1);
    CHECK(ann.seen().left.empty());
}

TEST_CASE("known keys are still known after a restart") {
    const folder here;
    auto settings = encrypted("Ann");
    settings.pins = here.file("pins");
    auto of_bob = encrypted("Bob");
    of_bob.identity = here.file("bob");
    auto bob = std::make_unique<recording_node>(of_bob);
    of_bob.port = bob->address().port();
    const auto key = (*bob)->key();
    {
        recording_node ann(settings);
        CHECK_FALSE((*bob)->send(ann.address(), "Hi"));
        REQUIRE(ann.wait_text("Hi"));
        CHECK_FALSE((*bob)->send(ann.address(), "Hi again"));
    }
    const std::string line = content(settings.pins);
    CHECK(line.rfind(to_string(bob->address()) + " Bob ", 0) == 0);
    CHECK(std::count(line.begin(), line.end(), '\n') == 1);

    SUBCASE("the known key is accepted") {
        recording_node ann(settings);
        CHECK_FALSE(ann->send(bob->address(), "Hi"));
    }
    SUBCASE("another key is refused") {
        bob.reset();
        recording_node eve(again(encrypted("Bob"), of_bob.port));
        recording_node ann(settings);
        CHECK_EQ(ann->send(eve.address(), "Hi"), errc::key_changed);
        CHECK_FALSE(ann->trust(eve.address(), eve->key()));
        ann->stop();
        CHECK_EQ(ann->trust(eve.address(), eve->key()), errc::stopped);
        recording_node later(settings);
        CHECK_FALSE(later->send(eve.address(), "Hi"));
    }
    SUBCASE("a peer may be forgotten") {
        bob.reset();
        recording_node eve(again(encrypted("Bob"), of_bob.port));
        {
            recording_node ann(settings);
            CHECK_FALSE(ann->trust(eve.address(), {}));
        }
        recording_node ann(settings);
        CHECK_FALSE(ann->send(eve.address(), "Hi"));
    }
    SUBCASE("a cut last line is ignored") {
        std::ofstream(settings.pins, std::ios::app) << "127.0.0.1:9 Eve 00112233";
        {
            recording_node ann(settings);
            CHECK_FALSE(ann->send(bob->address(), "Hi"));
        }
        recording_node ann(settings);
        recording_node carl(encrypted("Carl"));
        CHECK_FALSE(carl->send(ann.address(), "Hi"));
        ann->stop();
        CHECK(content(settings.pins).find("00112233#\n" + to_string(carl.address())) !=
              std::string::npos);
    }
    SUBCASE("another bad line is refused") {
        std::ofstream(settings.pins, std::ios::app) << "127.0.0.1:9 Eve 00112233\n";
        p2pchat::node ann(settings);
        CHECK_EQ(ann.start(), errc::bad_pins);
    }
    SUBCASE("two nodes share the file") {
        recording_node first(settings), second(settings);
        recording_node carl(encrypted("Carl"));
        const auto there = carl.address();
        CHECK_FALSE(carl->send(first.address(), "Hi"));
        CHECK(first.wait_text("Hi"));
        carl->stop();
        recording_node eve(again(encrypted("Carl"), there.port()));
        CHECK_EQ(eve->send(second.address(), "Hi"), errc::not_taken);
        CHECK(second.wait_rejected(errc::key_changed));
    }
    if (bob) CHECK((*bob)->key() == key);
}

#if !defined(_WIN32)

TEST_CASE("a line of the pins file that a full disk has cut spoils no other") {
    const folder here;
    auto settings = encrypted("Ann");
    settings.pins = here.file("pins");
    constexpr std::size_t begun = 1 << 20;  // more than anything else this program writes
    std::ofstream(settings.pins) << std::string(begun - 2, '#') << "#\n";
    p2pchat::public_key key;
    key.bytes[0] = 1;
    {
        recording_node ann(settings);
        {
            const full_disk full(begun + 20);
            CHECK(ann->trust({"127.0.0.1", 9}, key));
            CHECK(ann->trust({"127.0.0.1", 10}, key));
        }
        CHECK_FALSE(ann->trust({"127.0.0.1", 11}, key));
    }
    const std::string lines = content(settings.pins).substr(begun);
    CHECK(lines.find("#\n127.0.0.1:11 - 01") != std::string::npos);
    CHECK(std::count(lines.begin(), lines.end(), '\n') == 2);
    p2pchat::node again(settings);
    CHECK_FALSE(again.start());
}

TEST_CASE("a line of the pins file that consists of two is refused") {
    const folder here;
    auto settings = encrypted("Ann");
    settings.pins = here.file("pins");
    std::ofstream(settings.pins) << "127.0.0.1:9 Eve 0011127.0.0.1:10 Bob " << std::string(64, '1')
                                 << '\n';
    p2pchat::node ann(settings);
    CHECK_EQ(ann.start(), errc::bad_pins);
}

TEST_CASE("a pipe in place of a key file is an error, and is not waited for") {
    const folder here;
    auto settings = encrypted("Ann");
    const std::string pipe = here.file("pipe");
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
    SUBCASE("pins") { settings.pins = pipe; }
    SUBCASE("identity") { settings.identity = pipe; }
    p2pchat::node ann(settings);
    CHECK(ann.start());
}

#endif

TEST_CASE("two nodes append keys to one pins file at once, a line each") {
    const folder here;
    auto settings = encrypted("Ann");
    settings.pins = here.file("pins");
    {
        recording_node first(settings), second(settings);
        const auto meet = [](const p2pchat::endpoint& node, std::uint16_t from) {
            for (std::uint16_t port = from; port < from + 25; ++port) {
                typed_tls one(node);
                REQUIRE(one.shake_hands());
                one.send(wire({"127.0.0.1", port}, "Hi"));
                one.say_end();
                CHECK(one.heard_end());
            }
        };
        std::thread other([&] { meet(second.address(), 101); });
        meet(first.address(), 1);
        other.join();
    }
    const auto lines = content(settings.pins);
    CHECK_EQ(std::count(lines.begin(), lines.end(), '\n'), 50);
    p2pchat::node again(settings);
    CHECK_FALSE(again.start());  // each line is valid
}

TEST_CASE("one address has no more than its share of the known keys") {
    const folder here;
    auto settings = encrypted("Ann");
    settings.pins = here.file("pins");
    recording_node ann(settings);
    for (std::uint16_t port = 1; port <= 70; ++port) {
        typed_tls one(ann.address());
        REQUIRE(one.shake_hands());
        one.send(wire({"127.0.0.1", port}, "Hi"));
        one.say_end();
        CHECK(one.heard_end());
    }
    CHECK(ann.wait_messages(70));
    const auto lines = content(settings.pins);
    CHECK_EQ(std::count(lines.begin(), lines.end(), '\n'), 64);
}

TEST_CASE("a kept message is sent encrypted when its peer comes") {
    outcomes told;
    recording_node ann(encrypted("Ann"));
    const nobody absent;
    told.post(*ann, absent.address(), "later", p2pchat::when_full::refuse,
              p2pchat::when_absent::keep);
    CHECK(ann.wait([](const record& r) { return !r.kept.empty(); }));
    recording_node bob(again(encrypted("Bob"), absent.address().port()));
    CHECK_FALSE(bob->send(ann.address(), "here I am"));
    CHECK(told.wait());
    REQUIRE(bob.wait_text("later"));
    CHECK(bob.seen().messages[0].key == ann->key());
}

TEST_CASE("messages to a peer that announces encryption are encrypted from the first on") {
    auto settings = encrypted("Ann", encryption::preferred);
    settings.discovery = true;
    settings.address = "127.0.0.1";
    settings.discovery_port = support::new_discovery_port();
    recording_node ann(settings);
    settings.team = "Bob";
    {
        recording_node bob(settings);
        settings.port = bob.address().port();
        REQUIRE(ann.wait_found(1));
        CHECK_EQ(ann.seen().found[0].knows, "tls");
        CHECK_FALSE(ann->send(bob.address(), "Hi"));
        REQUIRE(bob.wait_text("Hi"));
        CHECK(bob.seen().messages[0].key == ann->key());
    }
    // Announcing it no more changes nothing for a peer whose key is known.
    settings.encryption = encryption::off;
    recording_node eve(settings);
    REQUIRE(ann.wait([](const record& r) { return r.found.back().knows.empty(); }));
    CHECK_EQ(ann->send(eve.address(), "Hi"), errc::encryption_failed);
    CHECK(eve.seen().messages.empty());
}

#if !defined(_WIN32)

TEST_CASE("messages to a peer falsely announced as encrypted go unencrypted if no key is known") {
    const auto settings = discovering(encryption::preferred);
    recording_node ann(settings);
    SUBCASE("it closes the connection") {
        original python;
        announce(python.address(), settings.discovery_port, "HERE tls");
        REQUIRE(ann.wait_found(1));
        CHECK_FALSE(ann->send(python.address(), "Hi"));
        CHECK(python.wait_printed(wire(ann.address(), "Hi", "Ann")));
        CHECK(python.printed().size() == 1);
    }
    SUBCASE("it resets the connection") {
        recording_node open(local("Open"));
        announce(open.address(), settings.discovery_port, "HERE tls");
        REQUIRE(ann.wait_found(1));
        const auto made = ann->connect(open.address());
        CHECK_FALSE(made.error);
        CHECK(made.linked);
        CHECK_FALSE(ann->send(open.address(), "Hi"));
        REQUIRE(open.wait_text("Hi"));
        CHECK_FALSE(open.seen().messages[0].key);
    }
    SUBCASE("it answers unencrypted") {
        raw_listener there;
        announce(there.address(), settings.discovery_port, "HERE tls");
        REQUIRE(ann.wait_found(1));
        outcomes told;
        told.post(*ann, there.address(), "Hi");
        {
            raw_peer first = there.accept();
            first.send("what?\n");
            first.read_to_end();
        }
        raw_peer second = there.accept();
        CHECK(second.read_to_end() == ending::closed);
        CHECK(second.text() == wire(ann.address(), "Hi", "Ann"));
        second.close();
        CHECK(told.wait());
        CHECK(told.count({}) == 1);
    }
}

TEST_CASE("an announcement of encryption lasts as long as the candidate") {
    const auto settings = discovering(encryption::preferred);
    outcomes told;
    recording_node ann(settings);
    raw_listener there;
    announce(there.address(), settings.discovery_port, "HERE tls");
    REQUIRE(ann.wait_found(1));
    bool encrypted = true;
    SUBCASE("the candidate stays") {}
    SUBCASE("the candidate leaves") {
        announce(there.address(), settings.discovery_port, "exit");
        REQUIRE(ann.wait_gone(1));
        encrypted = false;
    }
    SUBCASE("a later announcement differs") {
        announce(there.address(), settings.discovery_port, "HERE");
        REQUIRE(wait_until([&] { return ann->candidates()[0].knows.empty(); }));
        encrypted = false;
    }
    told.post(*ann, there.address(), "Hi");
    CHECK(comes_encrypted(there) == encrypted);
}

TEST_CASE("an unencrypted link is closed when its peer announces encryption") {
    const auto settings = discovering(encryption::preferred);
    outcomes told;
    recording_node ann(settings);
    typed_link clear(ann);
    announce(clear.address(), settings.discovery_port, "HERE tls");
    REQUIRE(ann.wait_found(1));
    told.post(*ann, clear.address(), "Hi");
    CHECK(comes_encrypted(clear.listener));
    clear.peer.half_close();
    CHECK(clear.peer.read_to_end() == ending::closed);
    CHECK(clear.peer.text().find("Hi") == std::string::npos);
}

#endif
