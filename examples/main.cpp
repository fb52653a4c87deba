// main.cpp - the numbered menu program: chats with the peers of the local network.
//
// SPDX-License-Identifier: MIT
//
// Its prompts and lines are those of the Python original, to the letter, so that habits,
// transcripts and scripts carry over; it adds lines only where the original leaves the user in the
// dark. The terminal and the settings are in the files it includes; this file uses the library.

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"

#include "menu/conversation.hpp"
#include "menu/outbox.hpp"
#include "menu/people.hpp"
#include "menu/settings/changed_keys.hpp"
#include "menu/settings/folder.hpp"
#include "menu/settings/log.hpp"
#include "menu/settings/options.hpp"
#include "menu/settings/remembered.hpp"
#include "menu/terminal/screen.hpp"
#include "menu/terminal/style.hpp"
#include "menu/terminal/text.hpp"
#include "menu/to_all.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <iostream>
#include <iterator>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using p2pchat::endpoint;
using p2pchat::to_string;

class chat {
public:
    explicit chat(menu::options settings) : settings_(std::move(settings)) {}

    /// From the first question to the last line; returns the program's exit status.
    int run() {
        if (const auto ended = begin()) return *ended;
        while (!screen_.leaving())
            if (!(conversation_->is_open() ? converse() : choose_from_menu())) break;
        return end();
    }

private:
    /// An entry of the menu: chosen there by its key, and anywhere by its word.
    struct entry {
        std::string_view key, word, parameters, help;
        void (chat::*run)(const std::string& argument);  // null: quit
    };
    static const std::vector<entry>& entries() {
        static const std::vector<entry> all = {
            {"1", "/send", "", "send a message", &chat::send_message},
            {"2", "/peers", "", "list the peers, and others on the network", &chat::show_peers},
            {"3", "/connect", "", "connect to a peer", &chat::connect_to_peer},
            {"4", "/mandatory", "", "send a message to the default peers", &chat::send_mandatory},
            {"c", "/chat", "NAME", "start a chat: each line goes to NAME, or to all",
             &chat::open_chat},
            {"b", "/all", "TEXT", "send a message to all peers", &chat::send_to_all},
            {"r", "/reply", "", "reply to the last message", &chat::reply},
            {"s", "/again", "", "send a failed message again", &chat::send_again},
            {"n", "/name", "PEER NAME", "name a peer, permanently", &chat::give_name},
            {"k", "/key", "", "accept a changed key of a peer", &chat::accept_key},
            {"m", "/menu", "", "go back from a chat to the menu", &chat::show_menu},
            {"?", "/help", "", "show this help", &chat::show_help},
            {"0", "/quit", "", "quit", nullptr}};
        return all;
    }
    bool is_offered(std::string_view key) const { return key != "k" || is_encrypted(); }
    bool is_encrypted() const { return settings_.encryption != p2pchat::encryption::off; }

    /// Runs the entry that was typed, by its key or by its word with an argument. Returns whether
    /// the program goes on; nothing if no entry was typed.
    std::optional<bool> run_entry(std::string_view typed) {
        const auto space = typed.find(' ');
        const auto command = typed.substr(0, space);
        const std::string argument(
            space == std::string_view::npos ? "" : menu::trimmed(typed.substr(space)));
        for (const auto& [key, word, parameters, help, run] : entries()) {
            const bool is_chosen = command == word || (command == key && !conversation_->is_open());
            if (!is_chosen || !is_offered(key)) continue;
            if (parameters.empty() && !argument.empty()) continue;
            if (run != nullptr) (this->*run)(argument);
            return run != nullptr;
        }
        return std::nullopt;
    }

    /// A script gets the menu before each choice, as from the original; a user at a terminal gets
    /// it once, and then by Enter. False: quit.
    bool choose_from_menu() {
        const std::string menu =
            "**** Menu ****\n"
            "1. Send message\n"
            "2. Query active peers\n"
            "3. Connect to active peers\n"
            "4. Send mandatory message to default peers\n"
            "0. Quit";
        const char* more = "\nc. Chat  b. To all  r. Reply  ?. Help";
        if (menu_is_due_) screen_.print(style_.dim(screen_.live() ? menu + more : menu));
        menu_is_due_ = !screen_.live();
        const auto choice = screen_.ask("Enter choice: ");
        const auto typed = choice ? menu::trimmed(*choice) : "";
        menu_is_due_ = menu_is_due_ || typed.empty();
        if (!choice || (typed.empty() && screen_.live())) return true;
        const auto goes_on = run_entry(typed);
        if (!goes_on) screen_.print("Invalid choice. Try again.");
        return goes_on.value_or(true);
    }

    /// Handles a line of a conversation: a message, a command, or `//` for a message that begins
    /// with a slash. False: quit.
    bool converse() {
        // A line that is shown again with its outcome is erased where it was typed.
        const auto is_shown_as_sent = [](const std::string& line) {
            return line.rfind('/', 0) != 0 || line.rfind("//", 0) == 0 ||
                   line.rfind("/all ", 0) == 0;
        };
        const auto line = screen_.ask(conversation_->prompt(), is_shown_as_sent);
        if (!line) return show_menu(""), true;
        const std::string typed(menu::trimmed(*line));
        if (typed.empty()) return true;
        if (typed.front() != '/') return conversation_->say(typed), true;
        if (typed.substr(0, 2) == "//") return conversation_->say(typed.substr(1)), true;
        const auto goes_on = run_entry(typed);
        if (!goes_on)
            screen_.print(style_.warning(
                "No such command; /help lists them. // begins a message with a slash."));
        return goes_on.value_or(true);
    }

    /// The candidates that Tab has for the last word.
    std::vector<std::string> candidates_for(const std::string& typed) const {
        std::vector<std::string> candidates;
        const auto space = typed.find(' ');
        const auto first = std::string_view(typed).substr(0, space);
        const bool takes_name = first == "/chat" || first == "/name";
        if (asks_recipient_ || (takes_name && space != std::string::npos)) {
            for (const auto& peer : people_->recipients()) candidates.push_back(peer.name);
        } else if (space == std::string::npos && !typed.empty()) {
            for (const auto& each : entries())
                if (is_offered(each.key)) candidates.emplace_back(each.word);
        }
        return candidates;
    }

    // ---- beginning and end

    /// Asks for what the flags left open, and starts; returns an exit status if the program ends.
    std::optional<int> begin() {
        read_settings();
        if (!settings_.log.empty())
            if (const auto error = log_.open(settings_.log))
                return menu::reject_flag("--log " + settings_.log, error.message());
        if (const auto status = set_up_keys()) return status;
        if (!ask_team_and_port()) return end();
        if (!node_)
            if (const auto problem = start(settings_.port); !problem.empty())
                return std::cerr << "p2pchat: " << problem << '\n', 1;
        write_settings();
        const auto us = node_->address();
        screen_.print(style_.dim("Your detected IP address: " + us.address() +
                                 "\nServer listening on all interfaces (port " +
                                 std::to_string(us.port()) + ")"));
        if (is_encrypted()) show_own_key();
        if (screen_.live())
            screen_.print(
                style_.dim("Esc goes back to the menu, as does Enter where an answer is needed."));
        screen_.complete_with([this](const std::string& typed) { return candidates_for(typed); });
        if (!settings_.quiet) screen_.set_title("p2pchat " + menu::visible(settings_.team));
        outbox_->resume();
        return std::nullopt;
    }

    /// Reads the answers of an earlier start. A script answers each time.
    void read_settings() {
        if (!settings_.use_folder || !screen_.live())
            settings_.folder.clear();
        else if (settings_.folder.empty())
            settings_.folder = menu::default_folder();
        remembered_.read(state_file("settings"));
        names_.read(state_file("names"));
        const auto team = remembered_.find("team");
        const auto port = menu::number(remembered_.find("port"), 1, 65535);
        if (settings_.team.empty() && menu::team_error(team).empty()) settings_.team = team;
        if (settings_.port != 0 || !port) return;
        settings_.port = static_cast<std::uint16_t>(*port);
        port_is_remembered_ = true;
    }

    /// Stores each answer the first time.
    void write_settings() {
        std::error_code error;
        for (const auto& [key, value] :
             {std::pair("team", settings_.team),
              std::pair("port", std::to_string(node_->address().port()))})
            if (remembered_.find(key).empty() && !error) error = remembered_.set(key, value);
        if (error)
            screen_.print(style_.warning("Settings cannot be stored: " + error.message()));
        else if (!remembered_.name().empty())
            screen_.print(
                style_.dim("Team and port are remembered in " + menu::visible(remembered_.name())));
    }

    /// The path of a file in the settings folder. Empty: there is no folder.
    std::string state_file(const std::string& name) const {
        return settings_.folder.empty() ? "" : settings_.folder + '/' + name;
    }

    /// Sets the key files that no flag names, and tries them: an error in these ends the program
    /// before the first question. Returns an exit status then.
    std::optional<int> set_up_keys() {
        if (!is_encrypted()) return std::nullopt;
        if (settings_.identity.empty()) settings_.identity = state_file("identity");
        if (settings_.pins.empty()) settings_.pins = state_file("pins");
        p2pchat::config trial;  // an error is that of the setting made last
        trial.team = "trial";
        trial.address = "127.0.0.1";
        const auto try_start = [&](const std::string& flag, const std::string& value,
                                   const std::string& file) -> std::optional<int> {
            auto error = menu::create_folder_of(menu::native_path(file));
            if (!error) error = p2pchat::node(trial).start();
            if (!error) return std::nullopt;
            return menu::reject_flag(flag + ' ' + value, error.message());
        };
        trial.encryption = settings_.encryption;
        const std::string word(menu::encryption_words[static_cast<int>(settings_.encryption)]);
        if (const auto status = try_start("--encryption", word, {})) return status;
        trial.identity = settings_.identity;
        if (const auto status = try_start("--identity", trial.identity, trial.identity))
            return status;
        trial.pins = settings_.pins;
        return try_start("--pins", trial.pins, trial.pins);
    }

    void show_own_key() {
        screen_.print("Your key: " + fingerprint(node_->key()));
        if (!settings_.identity.empty() && !settings_.pins.empty()) return;
        const std::string loss = settings_.identity.empty()
                                     ? "your key is a new one at each start."
                                     : "the keys of others are forgotten at the end.";
        screen_.print(style_.warning("There is no folder to store keys in: " + loss));
    }

    /// Starts a node that listens on `port`. Returns the error; empty: none.
    std::string start(std::uint16_t port) {
        p2pchat::config config;
        config.team = settings_.team;
        config.port = port;
        config.address = settings_.address;
        config.leave_on_stop = true;
        config.discovery = settings_.discovery;
        config.encryption = settings_.encryption;
        config.identity = settings_.identity;
        config.pins = settings_.pins;
        node_.emplace(std::move(config));
        outbox_.emplace(*node_, screen_, style_, log_,
                        settings_.outbox.empty() ? state_file("outbox-" + std::to_string(port))
                                                 : settings_.outbox);
        people_.emplace(*node_, *outbox_, names_);
        conversation_.emplace(screen_, style_, *people_, *outbox_, log_);
        node_->on_message([this](const p2pchat::message& m) { show_message(m); });
        node_->on_connected([this](const p2pchat::peer& peer) { show_connected(peer); });
        node_->on_peer_left(
            [this](const p2pchat::peer& p, p2pchat::departure d) { show_departure(p, d); });
        node_->on_peer_found([this](const p2pchat::candidate& c) { show_found(c, true); });
        node_->on_peer_gone([this](const p2pchat::candidate& c) { show_found(c, false); });
        node_->on_key_changed([this](const p2pchat::peer& offered) { show_changed_key(offered); });
        const auto error = node_->start();
        if (!error) return {};
        const bool is_taken = error == std::errc::address_in_use;
        return "Port " + std::to_string(port) + (is_taken ? " is taken: " : ": ") + error.message();
    }

    int end() {
        if (outbox_) outbox_->finish();
        if (node_) node_->stop();
        screen_.print("Exiting");
        return 0;
    }

    // ---- questions

    /// Uses an answer, and returns the error in it; empty: none.
    using check = std::function<std::string(const std::string& answer)>;

    /// Asks until the answer is valid; false if the user leaves or goes back: by Esc or, once there
    /// is a menu, by an empty line where that is no answer.
    bool ask(const std::string& prompt, const check& use) {
        while (const auto line = screen_.ask(prompt)) {
            const std::string answer(menu::trimmed(*line));
            const auto problem = use(answer);
            if (problem.empty()) return true;
            if (answer.empty() && node_ && screen_.live()) return false;
            screen_.print(style_.warning(problem));
        }
        return false;
    }

    /// Asks for what the flags left open. Esc goes back to the first question.
    bool ask_team_and_port() {
        const bool team_is_given = !settings_.team.empty();
        if (port_is_remembered_) {
            const auto port = std::exchange(settings_.port, std::uint16_t{0});
            const auto problem = team_is_given ? try_port(port) : "";
            if (node_) return true;
            if (!problem.empty()) screen_.print(style_.warning(problem));
        }
        while (!screen_.leaving())
            if ((team_is_given || ask_team()) && (settings_.port != 0 || ask_own_port()))
                return true;
        return false;
    }

    /// Starts on a port, or leaves nothing behind. Returns the error; empty: none.
    std::string try_port(std::uint16_t port) {
        auto problem = start(port);
        if (!problem.empty())
            conversation_.reset(), people_.reset(), outbox_.reset(), node_.reset();
        return problem;
    }

    bool ask_team() {
        std::string suggestion;
        return ask("Enter your team name: ", [&](const std::string& answer) {
            settings_.team = answer.empty() ? suggestion : answer;
            suggestion = menu::with_underscores(answer);
            auto problem = menu::team_error(settings_.team);
            if (problem.empty() || !menu::team_error(suggestion).empty()) return problem;
            return problem + " Press Enter for " + suggestion + ", or type another.";
        });
    }

    bool ask_port(const std::string& prompt, const std::function<std::string(std::uint16_t)>& use) {
        return ask(prompt, [&](const std::string& answer) {
            const auto port = menu::number(answer, 1, 65535);
            return port ? use(static_cast<std::uint16_t>(*port))
                        : "A port is a number from 1 to 65535.";
        });
    }

    bool ask_own_port() {
        return ask_port("Enter your port number: ",
                        [&](std::uint16_t port) { return try_port(port); });
    }

    /// The answer is an address with or without a port, a name, a number from the list or, if
    /// empty, the last recipient.
    bool ask_recipient(endpoint& to) {
        const auto peers = people_->known();
        show_recipients(peers);
        bool goes_back = false;
        asks_recipient_ = true;
        const bool is_given = ask("Enter recipient's IP address: ", [&](const std::string& answer) {
            goes_back = answer == "0";
            return goes_back ? std::string() : read_recipient(answer, peers, to);
        });
        asks_recipient_ = false;
        if (!is_given || goes_back) return false;
        const bool is_complete =
            to.port() != 0 || ask_port("Enter recipient's port number: ", [&](std::uint16_t port) {
                to = endpoint(to.bytes(), port, to.scope());
                return std::string();
            });
        if (is_complete) last_recipient_ = to;
        return is_complete;
    }

    /// Returns the error; empty: none. Port 0 in `to` means that the port is still to be asked for.
    std::string read_recipient(const std::string& answer, const std::vector<p2pchat::peer>& peers,
                               endpoint& to) const {
        if (answer.empty()) {
            to = last_recipient_;
            return to ? "" : "There is no last recipient yet: enter an address.";
        }
        if (const auto index = menu::number(answer, 1, peers.size())) {
            to = peers[*index - 1].address;
            return {};
        }
        const auto named = people_->named(answer);
        if (named.size() == 1) to = named.front().address;
        if (named.size() > 1)
            return "Several peers have that name: Tab or /peers tells them apart.";
        if (!named.empty()) return {};
        auto error = parse(answer, to);
        if (!error && to) return {};
        const auto colon = answer.find(':');
        const bool has_port = colon != std::string::npos && colon == answer.rfind(':');  // not IPv6
        const auto port = has_port ? menu::number(answer.substr(colon + 1), 1, 65535) : 1;
        if (!port) return menu::visible(answer) + ": a port is a number from 1 to 65535";
        const auto host = answer.substr(0, has_port ? colon : std::string::npos);
        if (answer.front() != '[') error = resolve(host, static_cast<std::uint16_t>(*port), to);
        const bool is_host_name = host.find_first_not_of("0123456789.") != std::string::npos &&
                                  host.find(':') == std::string::npos;
        if (error && is_host_name) return menu::visible(answer) + ": unknown host";
        if (error || !to)
            return menu::visible(answer) + ": " +
                   (error ? error.message() : "not the address of a host");
        if (!has_port) to = endpoint(to.bytes(), 0, to.scope());
        return {};
    }

    bool ask_text(const std::string& prompt, std::string& text) {
        return ask(prompt, [&](const std::string& answer) {
            text = answer;
            return answer.empty() ? "A message cannot be empty." : "";
        });
    }

    // ---- events; called by the node's thread

    void show_message(const p2pchat::message& m) {
        const auto sender = to_string(m.sender), team = menu::visible(m.team);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            last_writer_ = m.reply_to();
        }
        const std::string encrypted = m.key ? "[encrypted] " : "";
        const std::string mark =
            m.verified ? "" : "[not verified, came from " + to_string(m.origin) + "] ";
        const bool marks_all = menu::is_to_all(m.text) && screen_.live();
        const auto text = menu::visible(marks_all ? menu::without_mark(m.text) : m.text);
        const std::string time = screen_.live() ? menu::now("%H:%M:%S ") : "";
        const auto line = conversation_->is_open()
                              ? conversation_->formatted(m)
                              : style_.dim(marks_all ? "[to all] " : "") +
                                    style_.by_name(sender, sender + ' ' + team) + ' ' + text;
        screen_.notify(style_.dim(time) + style_.good(encrypted) + style_.warning(mark) + line);
        screen_.ring();
        if (const auto error =
                log_.add("<- " + encrypted + mark + sender + ' ' + m.team + ' ' + m.text))
            screen_.notify(style_.warning("The log cannot be written: " + error.message()));
    }

    void show_connected(const p2pchat::peer& peer) {
        const std::string encrypted = peer.key ? "[encrypted] " : "";
        const std::string time = screen_.live() ? menu::now("%H:%M:%S ") : "";
        // A script gets the line of the original.
        const auto line =
            screen_.live() ? label_of(peer.address, peer.team) + " connected."
                           : to_string(peer.address) + ' ' + menu::visible(peer.team) + " CONNECT";
        screen_.notify(style_.dim(time) + style_.good(encrypted) +
                       (screen_.live() ? style_.dim(line) : line));
    }

    void show_departure(const p2pchat::peer& peer, p2pchat::departure how) {
        using p2pchat::departure;
        if (how == departure::forgotten || how == departure::by_us) return;
        outbox_->forget(peer.address);
        // A peer that leaves says exit. A link that ends without one is that of a killed program.
        const char* const words = how == departure::left ? " disconnected."
                                  : how == departure::replaced
                                      ? " is gone: another one is at this address now."
                                      : " was lost: the link to it broke.";
        screen_.notify(style_.dim(label_of(peer.address, peer.team) + words));
    }

    /// At a terminal only, and no more than five in ten seconds; /peers lists them all.
    void show_found(const p2pchat::candidate& candidate, bool is_present) {
        const auto now = std::chrono::steady_clock::now();
        if (now - found_since_ > std::chrono::seconds(10)) {
            found_since_ = now;
            found_lately_ = 0;
        }
        if (!screen_.live() || ++found_lately_ > 5) return;
        screen_.notify(style_.dim(label_of(candidate.address, candidate.team) +
                                  (is_present ? " is on the network." : " has left the network.")));
    }

    std::string label_of(const endpoint& peer, const std::string& team) const {
        return conversation_->is_open() ? people_->name_of(peer, team)
                                        : to_string(peer) + " (" + menu::visible(team) + ')';
    }

    /// Reports each address and key once, and no more of them than there is room for.
    void show_changed_key(const p2pchat::peer& offered) {
        if (!changed_.add(offered)) return;
        const auto team = offered.team.empty() ? "" : " (" + menu::visible(offered.team) + ")";
        screen_.notify(style_.bad("KEY CHANGED: " + to_string(offered.address) + team +
                                  " was refused, as its key is not the known one. Its key now: " +
                                  fingerprint(offered.key) +
                                  ". If you know why it changed, type k to accept it."));
        if (!changed_.has_room(offered.address))
            screen_.notify(style_.bad(
                "No further keys from there are reported until you decide on these with k."));
    }

    // ---- the menu's entries

    void send_message(const std::string&) {
        endpoint to;
        if (ask_recipient(to)) write_to(to);
    }

    void reply(const std::string&) {
        endpoint to;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            to = last_writer_;
        }
        if (!to) return screen_.print("There is no message to reply to yet.");
        screen_.print(style_.dim("To " + to_string(to)));
        write_to(to);
    }

    void write_to(const endpoint& to) {
        std::string text;
        if (ask_text("Enter your message (type 'exit' to disconnect): ", text))
            outbox_->send({to}, text, "");
    }

    void send_mandatory(const std::string&) {
        std::string text;
        if (ask_text("Enter mandatory message: ", text))
            outbox_->send(settings_.default_peers, text, "Sent mandatory message to ");
    }

    void open_chat(const std::string& name) {
        if (name.empty()) return conversation_->open(std::nullopt);
        if (const auto peer = find_peer(name)) conversation_->open(peer);
    }

    void show_menu(const std::string&) {
        conversation_->close();
        menu_is_due_ = true;
    }

    /// By a name, a number from the list, or IP:PORT; prints an error if there is no such peer.
    std::optional<endpoint> find_peer(const std::string& name) {
        endpoint to;
        const auto problem = read_recipient(name, people_->known(), to);
        if (problem.empty() && to.port() != 0) return to;
        screen_.print(style_.warning(problem.empty() ? name + ": a port is needed, too" : problem));
        return std::nullopt;
    }

    void give_name(const std::string& argument) {
        const auto space = argument.find(' ');
        if (space == std::string::npos)
            return screen_.print(style_.warning("Usage: /name PEER NAME"));
        const auto peer = find_peer(argument.substr(0, space));
        if (!peer) return;
        const std::string name(menu::trimmed(argument.substr(space)));
        const auto problem = people_->give_name(*peer, name);
        screen_.print(problem.empty() ? to_string(*peer) + " is now called " + name + '.'
                                      : style_.warning(problem));
    }

    void send_to_all(const std::string& message) {
        if (!message.empty()) return conversation_->say_to_all(message);
        if (conversation_->is_open()) return conversation_->open(std::nullopt);
        const auto peers = people_->known();
        if (peers.empty()) return screen_.print("No active peers to send to.");
        show_recipients(peers);
        std::vector<endpoint> all;
        all.reserve(peers.size());
        for (const auto& peer : peers) all.push_back(peer.address);
        std::string text;
        if (ask_text("Enter message to all peers: ", text))
            outbox_->send(all, std::string(menu::to_all_mark) + text, "Sent to ");
    }

    void send_again(const std::string&) { outbox_->send_again(); }

    void accept_key(const std::string&) {
        const auto offered = changed_.all();
        if (offered.empty()) return screen_.print("No key has changed.");
        std::size_t number = 1;
        if (offered.size() > 1) {
            list(offered);
            const auto choose = [&](const std::string& answer) {
                const auto value = menu::number(answer, 0, offered.size());
                if (value) number = *value;
                return value ? ""
                             : "Enter a number from 1 to " + std::to_string(offered.size()) + ".";
            };
            if (!ask("Select key number: ", choose) || number == 0) return;
        }
        decide_on(offered[number - 1]);
    }

    void decide_on(const p2pchat::peer& offered) {
        screen_.print(described(offered));
        screen_.print(
            style_.dim("Compare it, over another channel than this, with \"Your key\" in the "
                       "peer's program."));
        std::string decision;
        const bool is_given = ask("Accept it (yes, no): ", [&](const std::string& answer) {
            decision = answer;
            const bool is_clear = answer == "yes" || answer == "no" || answer == "0";
            return is_clear ? "" : "yes accepts the key, no discards it, 0 goes back.";
        });
        if (!is_given || decision == "0") return;
        if (decision == "no") return changed_.remove(offered);
        changed_.accept(offered);
        const auto error = node_->trust(offered.address, offered.key);
        screen_.print(error ? style_.bad("The key cannot be stored: " + error.message())
                            : "Accepted: " + to_string(offered.address) + " now has this key.");
    }

    void show_peers(const std::string&) {
        if (conversation_->is_open()) return list(people_->known());
        const auto peers = node_->peers(), others = people_->found();
        screen_.print(peers.empty() ? "No connected peers." : "Connected Peers:");
        for (const auto& peer : peers) screen_.print(described(peer));
        if (!others.empty()) screen_.print("On the network:");
        for (const auto& peer : others) screen_.print(described(peer));
    }

    void connect_to_peer(const std::string&) {
        auto peers = node_->peers();
        for (auto& other : people_->found()) peers.push_back(std::move(other));
        if (peers.empty()) return screen_.print("No active peers to connect to.");
        screen_.print("Active Peers:");
        list(peers);
        endpoint to;
        const bool chosen = ask("Select peer number: ", [&](const std::string& answer) {
            const auto value = menu::number(answer, 0, peers.size());
            if (!value) return "Enter a number from 1 to " + std::to_string(peers.size()) + ".";
            if (*value != 0) to = peers[*value - 1].address;
            return std::string();
        });
        if (chosen && to) outbox_->connect(to);
    }

    void show_help(const std::string&) {
        menu_is_due_ = !conversation_->is_open();
        for (const auto& [key, word, parameters, help, run] : entries()) {
            if (!is_offered(key)) continue;
            auto line =
                std::string(key) + " or " + std::string(word) + ' ' + std::string(parameters);
            line.resize(24, ' ');
            screen_.print(line + std::string(help));
        }
        screen_.print(
            "A recipient is a name, a number from the list of peers, an IP address, IP:PORT, a "
            "host\n"
            "name, HOST:PORT, or Enter for the last one; Tab completes names. 0 goes back to the\n"
            "menu, as does Esc at any prompt.");
    }

    void show_recipients(const std::vector<p2pchat::peer>& peers) {
        if (screen_.live() && peers.size() <= 20) list(peers);
    }

    void list(const std::vector<p2pchat::peer>& peers) {
        for (std::size_t i = 0; i < peers.size(); ++i)
            screen_.print(std::to_string(i + 1) + ". " + described(peers[i]));
    }

    std::string described(const p2pchat::peer& peer) const {
        const auto address = to_string(peer.address);
        const auto team = peer.team.empty() ? "" : " - " + menu::visible(peer.team);
        const auto key = peer.key ? " key " + fingerprint(peer.key) : "";
        const auto name = names_.of(peer.address);
        return style_.by_name(address, address + team) + (peer.linked ? " (linked)" : "") +
               (name.empty() ? "" : " is " + name) + style_.dim(key);
    }

    menu::options settings_;
    menu::remembered remembered_;
    bool port_is_remembered_ = false;
    bool menu_is_due_ = true;
    bool asks_recipient_ = false;
    menu::given_names names_;
    menu::screen screen_;
    const menu::style style_{screen_.colours()};
    menu::chat_log log_;
    menu::changed_keys changed_;
    endpoint last_recipient_;
    std::mutex mutex_;                                     // guards the next
    endpoint last_writer_;                                 // the recipient of a reply
    std::chrono::steady_clock::time_point found_since_{};  // for the node's thread, as is the next
    int found_lately_ = 0;                                 // since then
    std::optional<p2pchat::node> node_;
    std::optional<menu::outbox> outbox_;
    std::optional<menu::people> people_;
    std::optional<menu::conversation> conversation_;
};

}  // namespace

int main(int argc, char** argv) {
    menu::options settings;
    const auto arguments = menu::utf8_arguments(argc, argv);
    if (const auto status = menu::read_options(arguments, settings)) return *status;
    return chat(std::move(settings)).run();
}
