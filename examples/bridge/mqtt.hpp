// mqtt.hpp - an MQTT 5 client with libmosquitto: it reconnects, has a persistent session, and
// acknowledges a message when its handler has returned.
//
// SPDX-License-Identifier: MIT

#ifndef BRIDGE_MQTT_HPP
#define BRIDGE_MQTT_HPP

#include <mosquitto.h>
#include <mqtt_protocol.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iostream>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace mqtt {

struct settings {
    std::string host, id, user, password;
    int port = 0;
    std::string tls;   // a file of trusted certificates; empty: unencrypted
    std::string will;  // a topic whose retained message is cleared when the client is gone
};

/// publish() and max_size() may be called by any thread; all else, and the handlers, by one.
class client {
public:
    std::function<void(bool resumed)> on_connected;  // resumed: the broker knew the session
    std::function<void()> on_lost;
    /// `retained`: published before the subscription.
    std::function<void(std::string_view topic, const std::string& payload, bool retained)>
        on_message;
    std::function<void(int id)> on_acknowledged;  // as publish() returned it
    std::function<void(int id, bool too_large)> on_refused;

    explicit client(const settings& settings) : settings_(settings) {
        mosquitto_lib_init();
        mosquitto_property_add_int32(&session_, MQTT_PROP_SESSION_EXPIRY_INTERVAL, 24 * 60 * 60);
        create();
    }
    client(const client&) = delete;
    client& operator=(const client&) = delete;
    ~client() {
        mosquitto_destroy(client_);
        mosquitto_property_free_all(&session_);
        mosquitto_lib_cleanup();
    }

    /// Returns an error, if any. A broker that does not answer is none: turn() keeps trying.
    std::string open() {
        if (!settings_.user.empty())
            mosquitto_username_pw_set(client_, settings_.user.c_str(), settings_.password.c_str());
        mosquitto_will_set(client_, settings_.will.c_str(), 0, nullptr, 1, true);
        if (!settings_.tls.empty())
            if (const int error = mosquitto_tls_set(client_, settings_.tls.c_str(), nullptr,
                                                    nullptr, nullptr, nullptr))
                return mosquitto_strerror(error);
        const int error = mosquitto_connect_bind_v5(client_, settings_.host.c_str(), settings_.port,
                                                    10, nullptr, session_);
        return error == MOSQ_ERR_INVAL ? mosquitto_strerror(error) : "";
    }
    /// Waits a while for something to do, and does it. A lost connection is made anew by the next
    /// turn.
    void turn() {
        if (lost_) std::this_thread::sleep_for(std::chrono::milliseconds(200));
        const int error = lost_ ? mosquitto_reconnect(client_) : mosquitto_loop(client_, 200, 1);
        say_unreachable(error);
        lost_ = error != MOSQ_ERR_SUCCESS;
    }
    /// Forgets all that the broker has not acknowledged, and connects anew.
    void reconnect() {
        say("lost the broker: it acknowledges nothing");
        on_lost();
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            mosquitto_destroy(client_);
            create();
        }
        open();
    }
    /// Sends what is queued, and disconnects.
    void close() {
        mosquitto_disconnect(client_);
        for (int i = 0; i < 20 && mosquitto_loop(client_, 100, 1) == MOSQ_ERR_SUCCESS; ++i) {
        }
    }

    void subscribe(const std::string& topics) {
        mosquitto_subscribe(client_, nullptr, topics.c_str(), 1);
    }
    /// With QoS 1; without a connection, it is sent when there is one again. Returns its id; 0: it
    /// is too large for the broker, or there is no memory.
    int publish(const std::string& topic, std::string_view payload, bool retained = false) {
        const std::lock_guard<std::mutex> lock(mutex_);
        int id = 0;
        const int error =
            mosquitto_publish(client_, &id, topic.c_str(), static_cast<int>(payload.size()),
                              payload.data(), 1, retained);
        return error == MOSQ_ERR_SUCCESS || error == MOSQ_ERR_NO_CONN ? id : 0;
    }
    /// The largest payload for a topic.
    std::size_t max_size(std::string_view topic) const {
        constexpr std::size_t overhead = 10;  // of a packet with an id, and without properties
        const std::size_t all = max_packet_;
        return all - std::min(all, topic.size() + overhead);
    }
    /// Prints a line once, even if each further attempt fails in the same way.
    void say(const std::string& line) {
        if (line != std::exchange(said_, line)) std::cout << line << '\n' << std::flush;
    }

private:
    void create() {
        client_ = mosquitto_new(settings_.id.c_str(), false, this);  // false: resume the session
        mosquitto_int_option(client_, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
        mosquitto_int_option(client_, MOSQ_OPT_TCP_NODELAY, 1);  // or each message takes 40 ms
        // So that turn() writes acknowledgements, not libmosquitto before it calls the handler.
        mosquitto_threaded_set(client_, true);
        mosquitto_connect_v5_callback_set(client_, [](mosquitto*, void* self, int reason, int flags,
                                                      const mosquitto_property* more) {
            static_cast<client*>(self)->on_answer(reason, flags, more);
        });
        mosquitto_disconnect_callback_set(client_, [](mosquitto*, void* self, int reason) {
            auto& owner = *static_cast<client*>(self);
            owner.say(std::string("lost the broker: ") + mosquitto_reason_string(reason));
            owner.on_lost();
        });
        mosquitto_publish_v5_callback_set(
            client_, [](mosquitto*, void* self, int id, int reason, const mosquitto_property*) {
                static_cast<client*>(self)->on_published(id, reason);
            });
        mosquitto_message_callback_set(client_,
                                       [](mosquitto*, void* self, const mosquitto_message* m) {
                                           static_cast<client*>(self)->take(*m);
                                       });
    }
    void on_answer(int reason, int flags, const mosquitto_property* more) {
        constexpr int session_present = 1;
        say(std::string("the broker says: ") + mosquitto_reason_string(reason));
        if (reason != 0) return;
        std::uint32_t size = max_payload;
        mosquitto_property_read_int32(more, MQTT_PROP_MAXIMUM_PACKET_SIZE, &size, false);
        max_packet_ = size;
        on_connected((flags & session_present) != 0);
    }
    void on_published(int id, int reason) {
        constexpr int first_error = MQTT_RC_UNSPECIFIED;
        if (reason < first_error) return on_acknowledged(id);
        say(std::string("the broker refused a message: ") + mosquitto_reason_string(reason));
        on_refused(id, reason == MQTT_RC_PACKET_TOO_LARGE);
    }
    void say_unreachable(int error) {
        const char* const reason =
            error == MOSQ_ERR_ERRNO ? std::strerror(errno) : mosquitto_strerror(error);
        const bool is_said = error == MOSQ_ERR_CONN_LOST || error == MOSQ_ERR_NO_CONN;
        if (error != MOSQ_ERR_SUCCESS && !is_said)
            say(std::string("the broker cannot be reached: ") + reason);
    }
    /// Ignores messages that are too large, and takes at most 8 MB a second: the rest waits at the
    /// broker.
    void take(const mosquitto_message& m) {
        constexpr std::size_t overhead = 200;
        constexpr std::chrono::nanoseconds a_byte{120};
        const auto size = static_cast<std::size_t>(m.payloadlen);
        free_at_ = std::max(free_at_, clock::now()) + a_byte * (size + overhead);
        std::this_thread::sleep_until(free_at_ - std::chrono::seconds(1));
        const auto* const bytes = size != 0 ? static_cast<const char*>(m.payload) : "";
        if (size <= max_payload) on_message(m.topic, std::string(bytes, size), m.retain);
    }

    using clock = std::chrono::steady_clock;
    static constexpr std::size_t max_payload = 512 * 1024;
    const settings settings_;
    clock::time_point free_at_;
    std::string said_;
    bool lost_ = false;
    mosquitto_property* session_ = nullptr;
    std::atomic<std::size_t> max_packet_{max_payload};  // of the broker
    std::mutex mutex_;                                  // guards client_, for other threads
    mosquitto* client_ = nullptr;
};

}  // namespace mqtt

#endif  // BRIDGE_MQTT_HPP
