// bridge.cpp - joins LANs over an MQTT broker: a message to all on one LAN is shown once on each of
// the others, as `BTC@north: hi`. Its topics and guarantees: examples/README.md.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "../menu/terminal/text.hpp"
#include "batches.hpp"
#include "lan_peers.hpp"
#include "mqtt.hpp"
#include "options.hpp"
#include "p2pchat.hpp"
#include "shown_notes.hpp"

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <sstream>

namespace {

using std::string, std::string_view, std::chrono::steady_clock, menu::shown_notes, menu::is_bridge,
    menu::notice, menu::visible;
using lock = std::unique_lock<std::mutex>;
volatile std::sig_atomic_t ended = 0;

/// The node's handlers have a thread of their own, and never wait. The client's handlers run in
/// run(), and wait for the LAN, since their return acknowledges the message to the broker.
class bridge {
public:
    explicit bridge(menu::bridge_options options)
        : options_(std::move(options)),
          notes_(options_.state),
          client_(options_.broker),
          node_(options_.node) {
        node_.on_message([this](const p2pchat::message& m) { on_lan_message(m); });
        client_.on_connected = [this](bool resumed) { on_connected(resumed); };
        client_.on_lost = [this] { on_lost(); };
        client_.on_message = [this](auto topic, auto& payload, bool retained) {
            on_published(topic, payload, retained);
        };
        client_.on_acknowledged = [this](int id) {
            const lock held(mutex_);
            batches_.acknowledged(id);
        };
        client_.on_refused = [this](int id, bool too_large) {
            const lock held(mutex_);
            batches_.refused(id, too_large);
        };
    }
    ~bridge() { node_.stop(); }  // first, as its handlers use all the rest

    string run() {
        if (const auto error = node_.start()) return error.message();
        std::cout << "I am " << node_.address() << '\n' << std::flush;
        for (int i = 0; options_.node.discovery && i < 4 && !ended; ++i) {  // first, the peers
            lan_.link_all();
            std::this_thread::sleep_for(std::chrono::seconds(1));
        }
        if (const string error = client_.open(); !error.empty()) return error;
        for (; !ended && !replaced_; client_.turn())
            if (!do_regular_work()) client_.reconnect();
        if (!replaced_) publish("here", "", true);
        client_.close();
        return replaced_ ? "another bridge has taken over this site" : "";
    }

private:
    static constexpr std::size_t max_sites = 64;               // listed and waited for
    static constexpr std::chrono::seconds contest_timeout{5};  // a real one reconnects in 200 ms

    /// Returns the payload as published: cut to the size that the broker takes.
    string publish(const string& kind, string payload, bool retained = false) {
        const string topic = options_.base + kind + '/' + options_.site;
        payload.resize(std::min(payload.size(), client_.max_size(topic)));
        client_.publish(topic, payload, retained);
        return payload;
    }
    /// The latest epoch published is that of the bridge that was started last. So it is published
    /// at the start, and again if the broker has lost everything.
    void on_connected(bool resumed) {
        const lock held(mutex_);
        for (const auto* topic : {"said/+", "here/+"}) client_.subscribe(options_.base + topic);
        client_.subscribe(options_.base + "newest/" + options_.site);
        client_.subscribe(options_.base + "shown/" + options_.site + "/+");
        client_.subscribe(options_.base + "told/" + options_.site + "/+");
        if (!resumed || !started_) publish("newest", batches_.epoch(), true);
        connected_ = started_ = true;
        lan_.set_changed();
        batches_.connected(client_.max_size(said_topic_));
    }
    void on_lost() {
        const lock held(mutex_);
        connected_ = false;
        replaced_ = replaced_ || steady_clock::now() < contested_until_;
        batches_.disconnected();
    }

    // From this LAN.

    void on_lan_message(const p2pchat::message& m) {
        const lock held(mutex_);
        if (m.text == "who") return answer(m);
        menu::outgoing message{{}, m.receipt, m.origin};  // refused in its turn if without a line
        if (!is_bridge(m.team))
            static_cast<void>(
                format(m.reply_to(), m.team, menu::on_one_line(m.text), message.line));
        batches_.add(std::move(message));
    }
    void answer(const p2pchat::message& m) {
        node_.confirm(m.receipt);
        const auto say = [&](const string& line) {  // who asks can ask again
            static_cast<void>(node_.post(m.reply_to(), line));
        };
        if (sites_.empty()) say("there are no other sites");
        for (const auto& [site, peers] : sites_) say(string(site) += ": " + peers);
    }
    /// Connects to the peers of this LAN, publishes their list, and tells senders if a site has not
    /// reported in time that it has shown their messages. False if the broker has not acknowledged
    /// a batch by the timeout.
    bool do_regular_work() {
        const lock held(mutex_);
        if (batches_.drop_timed_out()) return false;
        batches_.refuse_overdue();
        if (!connected_) return true;
        if (steady_clock::now() > next_link_all_)
            lan_.link_all(), next_link_all_ = steady_clock::now() + std::chrono::seconds(1);
        if (lan_.changed()) published_list_ = publish("here", lan_.list(), true);
        if (contested_until_ != decltype(contested_until_){} &&
            steady_clock::now() > contested_until_)
            deny();
        const auto [sites, batch] = batches_.give_up_sites();
        for (const auto& site : sites) {
            sites_.erase(site);
            for (const auto& message : batch)
                tell("at " + site + ' ', notice(message.line, "perhaps not shown"));
        }
        return true;
    }

    // From the other sites, or from any client that may write to the room.

    void on_published(string_view topic, const string& payload, bool retained) {
        const string kind(topic.substr(0, topic.find('/', options_.base.size())));
        const string site(topic.substr(topic.rfind('/') + 1));
        if (!menu::is_site(site)) return;
        if (kind == options_.base + "said" && site != options_.site) return on_batch(site, payload);
        const lock held(mutex_);
        if (kind == options_.base + "newest") on_newest(payload, retained);
        if (kind == options_.base + "here") on_here(site, payload);
        if (kind == options_.base + "told") tell("at " + site + ' ', payload);
        if (kind == options_.base + "shown") batches_.shown(site, payload);
    }
    /// Two bridges of a site have the same client id, and take the connection from each other. So
    /// while this one is connected, another epoch is forged. An older one is forged, too, unless
    /// the connection is soon lost.
    void on_newest(const string& epoch, bool retained) {
        if (epoch == batches_.epoch()) {
            announced_ = true;
            contested_until_ = {};
        } else if (announced_ && retained) {
            contested_until_ = steady_clock::now() + contest_timeout;
        } else if (announced_) {
            deny();
        }
    }
    /// Prints a warning, at most one a second, as any client may cause them.
    void warn(const string& line) {
        if (steady_clock::now() < next_warning_) return;
        next_warning_ = steady_clock::now() + std::chrono::seconds(1);
        client_.say(line);
    }
    void deny() {
        warn("a forged announcement of another bridge of this site");
        contested_until_ = {};
        publish("newest", batches_.epoch(), true);
    }
    void on_here(const string& site, const string& list) {
        if (site == options_.site) {
            if (list != published_list_) lan_.set_changed();  // forged, or this bridge's last will
        } else if (list.empty()) {
            sites_.erase(site);
            batches_.site_done(site);
        } else if (sites_.size() < max_sites || sites_.count(site) != 0) {
            sites_[site] = visible(list.substr(0, 2 * menu::lan_peers::max_list));
            batches_.site_appeared(site);
        } else {
            warn("too many sites: not waiting for " + site);
        }
    }
    void on_batch(const string& site, const string& payload) {
        const auto begin = steady_clock::now();
        std::istringstream lines(payload);
        string line, epoch;
        std::uint64_t count = 0;
        p2pchat::message_view message;
        std::getline(lines, line);
        if (!(std::istringstream(line) >> epoch >> count) || !menu::is_site(epoch))
            return warn("a malformed batch from " + site);
        const auto name = epoch + ' ' + std::to_string(count);
        const auto verdict = notes_.begin(site, epoch, payload);
        const auto peers = lan_.snapshot();
        while (verdict != shown_notes::known && std::getline(lines, line)) {
            if (parse(line, message)) continue;
            const auto text = menu::with_origin(message, site);
            if (verdict != shown_notes::fresh)
                publish("told/" + site, notice(line, "perhaps not shown"));
            for (const auto& peer : peers)
                if (verdict == shown_notes::fresh) show(peer.first, text, site, line);
        }
        lock held(mutex_);
        all_shown_.wait(held, [this] { return pending_ == 0; });
        batches_.extend(steady_clock::now() - begin);
        publish("shown/" + site, name);
    }
    void show(p2pchat::endpoint to, const string& text, const string& site, const string& line) {
        const auto done = [this, to, site, line](std::error_code error) {
            const auto remark = "not shown to " + to_string(to) + ", " + error.message();
            if (error) publish("told/" + site, notice(line, remark));
            const lock held(mutex_);
            if (--pending_ == 0) all_shown_.notify_one();
        };
        ++pending_;
        if (const auto error = node_.post(to, text, done, p2pchat::when_full::wait)) done(error);
    }
    /// Sends a notice to the sender of a message, if it is a peer: the broker cannot make the
    /// bridge write to others.
    void tell(const string& place, const string& line) {
        p2pchat::message_view message;
        if (parse(line, message) || !lan_.contains(message.sender)) return;
        const auto notice = node_.team() + ": " + place + string(message.text);
        static_cast<void>(node_.post(message.sender, notice, {}, p2pchat::when_full::refuse,
                                     p2pchat::when_absent::keep));
    }

    const menu::bridge_options options_;
    const string said_topic_ = options_.base + "said/" + options_.site;
    steady_clock::time_point next_link_all_, next_warning_;
    bool started_ = false;                        // and has published its epoch
    bool announced_ = false;                      // the broker has sent us our own epoch
    steady_clock::time_point contested_until_{};  // by a bridge that may have been started later
    bool replaced_ = false;                       // by that bridge
    shown_notes notes_;
    std::atomic<std::size_t> pending_{0};  // outcomes of the batch being shown
    std::condition_variable all_shown_;

    std::mutex mutex_;  // guards the rest, except the client and the node
    bool connected_ = false;
    string published_list_;       // of the peers of this LAN
    menu::batches::sites sites_;  // the other sites that are present, and their peers
    menu::batches batches_{{[this](auto& payload) { return client_.publish(said_topic_, payload); },
                            [this](auto receipt, bool taken) { node_.confirm(receipt, taken); },
                            [this] { return node_.statistics().received; },
                            [this](auto& line, auto& remark) { tell({}, notice(line, remark)); }},
                           sites_};

    mqtt::client client_;
    p2pchat::node node_;
    menu::lan_peers lan_{node_};
};

}  // namespace

int main(int argc, char** argv) {
    menu::bridge_options options;
    if (const auto status = menu::read_bridge_options(argc, argv, options)) return *status;
    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int) { ended = 1; });
    const string error = bridge(options).run();
    return error.empty() ? 0 : (std::cerr << error << '\n', 1);
}
