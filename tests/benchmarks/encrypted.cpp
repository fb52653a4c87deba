// The raw sockets of the programs that are built with BENCH_ENCRYPTED: the least that a program has
// to do for TLS 1.3 as the library uses it, both sides with a P-256 certificate, no tickets.
//
// SPDX-License-Identifier: MIT
#include <array>
#include <cerrno>
#include <csignal>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "measure.hpp"
#include "raw.hpp"

namespace bench {

namespace {

SSL_CTX* make_context() {
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL does not use MSG_NOSIGNAL
    EVP_PKEY* const pair = EVP_EC_gen("P-256");
    X509* const shown = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(shown), 0);
    X509_gmtime_adj(X509_getm_notAfter(shown), 24 * 60 * 60);
    X509_set_pubkey(shown, pair);
    require(X509_sign(shown, pair, EVP_sha256()) > 0, "cannot make a certificate");
    SSL_CTX* const result = SSL_CTX_new(TLS_method());
    SSL_CTX_set_min_proto_version(result, TLS1_3_VERSION);
    SSL_CTX_use_certificate(result, shown);
    SSL_CTX_use_PrivateKey(result, pair);
    SSL_CTX_set_num_tickets(result, 0);
    SSL_CTX_set_session_cache_mode(result, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(result, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(result, 1);  // else each record takes two calls of recv()
    SSL_CTX_set_verify(result, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    SSL_CTX_set_cert_verify_callback(
        result, [](X509_STORE_CTX*, void*) { return 1; }, nullptr);
    return result;
}

/// By descriptor; each is used by one thread at a time.
SSL*& tls_of(int fd) {
    static std::array<SSL*, 65536> all;
    return all.at(static_cast<std::size_t>(fd));
}

}  // namespace

SSL* new_tls(bool accepts) {
    static SSL_CTX* const context = make_context();
    SSL* const result = SSL_new(context);
    require(result, "no memory for TLS");
    accepts ? SSL_set_accept_state(result) : SSL_set_connect_state(result);
    return result;
}

SSL* take_tls(int fd) { return std::exchange(tls_of(fd), nullptr); }

void begin_encrypted(int fd, bool accepts) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    tls_of(fd) = new_tls(accepts);
    SSL_set_fd(tls_of(fd), fd);
}

ssize_t receive(int fd, char* buffer, std::size_t size) {
    SSL* const tls = tls_of(fd);
    std::size_t received = 0;
    int last = 0;
    do {
        last = SSL_read(tls, buffer + received, static_cast<int>(size - received));
        if (last > 0) received += static_cast<std::size_t>(last);
    } while (last > 0 && received < size && SSL_has_pending(tls));
    if (received > 0) return static_cast<ssize_t>(received);
    const int why = SSL_get_error(tls, last);
    errno = why == SSL_ERROR_WANT_READ ? EAGAIN : EPROTO;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

ssize_t send_some(int fd, std::string_view data) {
    SSL* const tls = tls_of(fd);
    if (!tls) return send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    return SSL_write(tls, data.data(), static_cast<int>(data.size()));
}

void end_sending(int fd) {
    SSL_shutdown(tls_of(fd));
    shutdown(fd, SHUT_WR);
}

void close_connection(int fd) {
    if (SSL* const tls = take_tls(fd)) {
        SSL_shutdown(tls);
        ERR_clear_error();  // the other side may be gone
        SSL_free(tls);
    }
    ::close(fd);
}

}  // namespace bench
