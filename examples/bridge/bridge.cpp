// bridge.cpp - joins LANs over an MQTT broker: what is said to all on one LAN is shown once on the
// others, as `BTC@north: hi`. Its topics and what it promises: examples/README.md.
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
    menu::told, menu::visible;
using lock = std::unique_lock<std::mutex>;
volatile std::sig_atomic_t ended = 0;

/// The node's handlers have their own thread, and never wait. The client's run in run(), and wait for
/// the LAN, since their return acknowledges the message to the broker.
class bridge {
public:
    explicit bridge(menu::bridge_options with)
        : with_(std::move(with)), notes_(with_.state), client_(with_.broker), node_(with_.node) {
        node_.on_message([this](const p2pchat::message& m) { on_said_here(m); });
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
        for (int i = 0; with_.node.discovery && i < 4 && !ended; ++i) {  // first, the peers
            here_.link_all();
            std::this_thread::sleep_for(std::chrono::seconds(1));
        }
        if (const string error = client_.open(); !error.empty()) return error;
        for (; !ended && !replaced_; client_.turn())
            if (!look_after()) client_.renew();
        if (!replaced_) publish("here", "", true);
        client_.leave();
        return replaced_ ? "another bridge has this site" : "";
    }

private:
    static constexpr std::size_t max_sites = 64;       // that are listed and waited for
    static constexpr std::chrono::seconds contest{5};  // another bridge is back after 200 ms

    /// Returns what was published: as much of it as the broker takes.
    string publish(const string& what, string payload, bool retained = false) {
        const string topic = with_.base + what + '/' + with_.site;
        payload.resize(std::min(payload.size(), client_.room(topic)));
        client_.publish(topic, payload, retained);
        return payload;
    }
    /// The latest epoch that a broker has been told is of the bridge that was started last. So it is
    /// told at a start, and when it has lost everything.
    void on_connected(bool resumed) {
        const lock held(mutex_);
        for (const auto* what : {"said/+", "here/+"}) client_.subscribe(with_.base + what);
        client_.subscribe(with_.base + "newest/" + with_.site);
        client_.subscribe(with_.base + "shown/" + with_.site + "/+");
        client_.subscribe(with_.base + "told/" + with_.site + "/+");
        if (!resumed || !started_) publish("newest", batches_.epoch(), true);
        connected_ = started_ = true;
        here_.set_changed();
        batches_.connected(client_.room(said_));
    }
    void on_lost() {
        const lock held(mutex_);
        connected_ = false;
        replaced_ = replaced_ || steady_clock::now() < contested_until_;
        batches_.lost();
    }

    // From this LAN.

    void on_said_here(const p2pchat::message& m) {
        const lock held(mutex_);
        if (m.receipt == 0) return;  // a link's CONNECT
        if (m.text == "who") return answer(m);
        menu::said one{{}, m.receipt, m.origin};  // without a line, it is refused in its turn
        if (!is_bridge(m.team))
            static_cast<void>(format(m.reply_to(), m.team, menu::on_one_line(m.text), one.line));
        batches_.add(std::move(one));
    }
    void answer(const p2pchat::message& m) {
        node_.confirm(m.receipt);
        if (others_.empty()) node_.post(m.reply_to(), "nobody is on another side");
        for (const auto& [site, peers] : others_)
            node_.post(m.reply_to(), string(site) += ": " + peers);
    }
    /// Links to the peers of this LAN, publishes who is here, and tells senders if a site has not
    /// reported in time that it has shown their messages. False if the broker has left a batch
    /// without an answer for too long.
    bool look_after() {
        const lock held(mutex_);
        if (batches_.timed_out()) return false;
        batches_.refuse_overdue();
        if (!connected_) return true;
        if (steady_clock::now() > looks_at_)
            here_.link_all(), looks_at_ = steady_clock::now() + std::chrono::seconds(1);
        if (here_.changed()) listed_ = publish("here", here_.list(), true);
        if (contested_until_ != decltype(contested_until_){} &&
            steady_clock::now() > contested_until_)
            deny();
        const auto [sites, lines] = batches_.give_up();
        for (const auto& site : sites) {
            others_.erase(site);
            for (const auto& one : lines)
                tell("at " + site + ' ', told(one.line, "perhaps not shown"));
        }
        return true;
    }

    // From the other sites, or from anybody who may write to the room.

    void on_published(string_view topic, const string& payload, bool retained) {
        const string what(topic.substr(0, topic.find('/', with_.base.size())));
        const string site(topic.substr(topic.rfind('/') + 1));
        if (!menu::is_site(site)) return;
        if (what == with_.base + "said" && site != with_.site) return on_said_there(site, payload);
        const lock held(mutex_);
        if (what == with_.base + "newest") on_newest(payload, retained);
        if (what == with_.base + "here") on_here(site, payload);
        if (what == with_.base + "told") tell("at " + site + ' ', payload);
        if (what == with_.base + "shown") batches_.shown(site, payload);
    }
    /// Two bridges of a site have one id, and take the connection from each other: while we have it,
    /// another epoch is a lie. One from before we had it is a lie, too, unless we lose it again.
    void on_newest(const string& epoch, bool retained) {
        if (epoch == batches_.epoch()) {
            announced_ = true;
            contested_until_ = {};
        } else if (announced_ && retained) {
            contested_until_ = steady_clock::now() + contest;
        } else if (announced_) {
            deny();
        }
    }
    /// At most once a second, as anybody may bring it about.
    void complain(const string& what) {
        if (steady_clock::now() < complains_at_) return;
        complains_at_ = steady_clock::now() + std::chrono::seconds(1);
        client_.say(what);
    }
    void deny() {
        complain("somebody announces another bridge of this site");
        contested_until_ = {};
        publish("newest", batches_.epoch(), true);
    }
    void on_here(const string& site, const string& list) {
        if (site == with_.site) {
            if (list != listed_) here_.set_changed();  // somebody else, or our last will
        } else if (list.empty()) {
            others_.erase(site);
            batches_.settled(site);
        } else if (others_.size() < max_sites || others_.count(site) != 0) {
            others_[site] = visible(list.substr(0, 2 * menu::lan_peers::max_list));
            batches_.came(site);
        } else {
            complain("there are too many sites to wait for " + site);
        }
    }
    void on_said_there(const string& site, const string& payload) {
        const auto begin = steady_clock::now();
        std::istringstream lines(payload);
        string line, epoch;
        std::uint64_t count = 0;
        p2pchat::message_view what;
        std::getline(lines, line);
        if (!(std::istringstream(line) >> epoch >> count) || !menu::is_site(epoch))
            return complain("what " + site + " says cannot be read");
        const auto name = epoch + ' ' + std::to_string(count);
        const auto verdict = notes_.begin(site, epoch, payload);
        const auto here = here_.snapshot();
        while (verdict != shown_notes::known && std::getline(lines, line)) {
            if (parse(line, what)) continue;
            const auto text = menu::with_origin(what, site);
            if (verdict != shown_notes::fresh)
                publish("told/" + site, told(line, "perhaps not shown"));
            for (const auto& peer : here)
                if (verdict == shown_notes::fresh) show(peer.first, text, site, line);
        }
        lock held(mutex_);
        settled_.wait(held, [this] { return owed_ == 0; });
        batches_.extend(steady_clock::now() - begin);
        publish("shown/" + site, name);
    }
    void show(p2pchat::endpoint to, const string& text, const string& site, const string& line) {
        const auto done = [this, to, site, line](std::error_code error) {
            const auto why = "not shown to " + to_string(to) + ", " + error.message();
            if (error) publish("told/" + site, told(line, why));
            const lock held(mutex_);
            if (--owed_ == 0) settled_.notify_one();
        };
        ++owed_;
        if (const auto error = node_.post(to, text, done, p2pchat::when_full::wait)) done(error);
    }
    /// Nobody but a peer is written to on the broker's account.
    void tell(const string& where, const string& line) {
        p2pchat::message_view what;
        if (parse(line, what) || !here_.contains(what.sender)) return;
        node_.post(what.sender, node_.team() + ": " + where + string(what.text), {},
                   p2pchat::when_full::refuse, p2pchat::when_absent::keep);
    }

    const menu::bridge_options with_;
    const string said_ = with_.base + "said/" + with_.site;
    steady_clock::time_point looks_at_, complains_at_;
    bool started_ = false;                        // and has published its epoch
    bool announced_ = false;                      // the broker has told us our epoch
    steady_clock::time_point contested_until_{};  // by a bridge that may have been started later
    bool replaced_ = false;                       // by one that was
    shown_notes notes_;
    std::atomic<std::size_t> owed_{0};  // outcomes still to come of what is being shown
    std::condition_variable settled_;

    std::mutex mutex_;  // guards the rest, except the client and the node
    bool connected_ = false;
    string listed_;                // who is here, as published
    menu::batches::sites others_;  // those that are there, and who is there
    menu::batches batches_{{[this](auto& payload) { return client_.publish(said_, payload); },
                            [this](auto receipt, bool taken) { node_.confirm(receipt, taken); },
                            [this] { return node_.statistics().received; },
                            [this](auto& line, auto& why) { tell({}, told(line, why)); }},
                           others_};

    mqtt::client client_;
    p2pchat::node node_;
    menu::lan_peers here_{node_};
};

}  // namespace

int main(int argc, char** argv) {
    menu::bridge_options options;
    if (const auto status = menu::read_bridge_options(argc, argv, options)) return *status;
    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int) { ended = 1; });
    const string error = bridge(options).run();
    return error.empty() ? 0 : (std::cerr << error << '\n', 1);
}
