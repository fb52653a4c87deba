#!/usr/bin/env python3
"""Draws picture.svg: a chat of two people on one LAN, from a real run of the menu program in tmux.

Usage: picture.py PROGRAM OUTPUT.svg

The LAN is two network namespaces and a cable, so announcements stay within it. Needs root,
iproute2 and tmux.

SPDX-License-Identifier: MIT
"""

import contextlib
import html
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata

COLUMNS, ROWS = 70, 21
CELL_WIDTH, CELL_HEIGHT, MARGIN, TITLE = 7.8, 17, 14, 30
BACKGROUND, FOREGROUND, QUIET = "#16181d", "#d8dee9", "#79818f"
COLOURS = {31: "#e06c75", 32: "#98c379", 33: "#e5c07b", 35: "#c678dd", 36: "#56b6c2",
           92: "#b5e890", 93: "#f0d399", 94: "#6cb6ff", 95: "#dda0f0", 96: "#7fdbe6"}


class Terminal:
    """A tmux session with a server of its own, which runs the program."""

    def __init__(self, socket, command):
        self.tmux = ["tmux", "-S", socket, "-f", os.devnull]
        subprocess.run(self.tmux + ["new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS)]
                       + command, check=True)

    def screen(self, *flags):
        return subprocess.run(self.tmux + ["capture-pane", "-p", *flags], check=True,
                              capture_output=True, encoding="utf-8").stdout

    def wait_for(self, text, times=1):
        end = time.monotonic() + 10
        while self.screen().count(text) < times:
            if time.monotonic() > end:
                sys.exit(f"waited in vain for: {text}\n{self.screen()}")
            time.sleep(0.02)

    def type(self, text):
        subprocess.run(self.tmux + ["send-keys", "-l", text], check=True)
        self.wait_for(text)

    def enter(self, text, then):
        """Types a line and waits for the reply, even if the same text was there before."""
        times = self.screen().count(then) + 1
        subprocess.run(self.tmux + ["send-keys", "-l", text], check=True)
        subprocess.run(self.tmux + ["send-keys", "Enter"], check=True)
        self.wait_for(then, times)

    def cursor(self):
        position = subprocess.run(self.tmux + ["display-message", "-p", "#{cursor_x} #{cursor_y}"],
                                  check=True, capture_output=True, encoding="utf-8").stdout
        return [int(part) for part in position.split()]

    def close(self):
        subprocess.run(self.tmux + ["kill-server"], check=False)


def talk(btc, eth):
    for person, team in (btc, "BTC"), (eth, "ETH"):
        person.wait_for("Enter your team name:")
        person.enter(team, "Enter your port number:")
        person.enter("5000", "Enter choice:")
    btc.wait_for("(ETH) is on the network.")
    eth.wait_for("(BTC) is on the network.")
    btc.enter("/chat ETH", "Each line goes to ETH.")
    btc.enter("Hi! Anybody there?", "Anybody there? ✓")
    eth.wait_for("BTC Hi! Anybody there?")
    eth.enter("/chat BTC", "Each line goes to BTC.")
    btc.type("We start at ten, in")  # not sent: incoming messages do not disturb it
    eth.enter("Yes, all five of us.", "all five of us. ✓")
    btc.wait_for("ETH: Yes, all five of us.")
    eth.enter("/all Coffee first.", "Coffee first. ✓")
    btc.wait_for("ETH to all: Coffee first.")


def style_of(codes, current):
    colour, quiet = current
    for code in codes:
        if code == 0:
            colour, quiet = None, False
        elif code in COLOURS:
            colour = code
        elif code == 39:
            colour = None
        elif code in (2, 22):
            quiet = code == 2
    return colour, quiet


def runs(line, style):
    """Splits a line into pieces of one style: column, text, colour."""
    column, pieces = 0, []
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b"):
            style = style_of([int(code or 0) for code in part[2:-1].split(";")], style)
        elif part:
            pieces.append((column, part, QUIET if style[1] else COLOURS.get(style[0], FOREGROUND)))
            column += sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in part)
    return pieces, style


def drawn(terminal, title, left):
    width = COLUMNS * CELL_WIDTH + 2 * MARGIN
    height = ROWS * CELL_HEIGHT + TITLE + MARGIN
    parts = [f'<g transform="translate({left:g} 0)">'
             f'<rect width="{width:g}" height="{height:g}" rx="9" fill="{BACKGROUND}"/>'
             f'<text x="{width / 2:g}" y="20" text-anchor="middle" fill="{QUIET}">{title}</text>']
    style = (None, False)
    for row, line in enumerate(terminal.screen("-e").splitlines()):
        pieces, style = runs(line, style)
        for column, text, colour in pieces:
            if text.strip():
                x, y = MARGIN + column * CELL_WIDTH, TITLE + (row + 0.8) * CELL_HEIGHT
                size = len(text) * CELL_WIDTH
                parts.append(f'<text x="{x:g}" y="{y:g}" fill="{colour}" textLength="{size:g}" '
                             f'xml:space="preserve">{html.escape(text)}</text>')
    x, y = terminal.cursor()
    parts.append(f'<rect x="{MARGIN + x * CELL_WIDTH:g}" y="{TITLE + y * CELL_HEIGHT:g}" '
                 f'width="{CELL_WIDTH}" height="{CELL_HEIGHT}" fill="{FOREGROUND}" opacity="0.7"/>')
    return parts + ["</g>"], width, height


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def main():
    program, output = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # cleans up, too
    hosts = {f"p2pchat-picture-{os.getpid()}-{address}": address
             for address in ("192.168.1.20", "192.168.1.21")}
    with contextlib.ExitStack() as stack:
        # Not the user's own files: messages kept there would be sent, and shown in the picture.
        home = stack.enter_context(tempfile.TemporaryDirectory())
        for host in hosts:
            ip("netns", "add", host)
            stack.callback(ip, "netns", "delete", host)
        first, second = hosts
        ip("-n", first, "link", "add", "lan", "type", "veth", "peer", "name", "lan",
           "netns", second)
        for host, address in hosts.items():
            ip("-n", host, "address", "add", address + "/24", "broadcast", "+", "dev", "lan")
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", "lan", "up")
        people = []
        for host in hosts:
            state = os.path.join(home, host)
            people.append(Terminal(state + ".tmux", ["ip", "netns", "exec", host,
                                                     "env", "HOME=" + state,
                                                     "XDG_CONFIG_HOME=" + state, program,
                                                     "--no-config"]))
            stack.callback(people[-1].close)
        talk(*people)
        left, width, height = drawn(people[0], "team BTC, on 192.168.1.20", 0)
        right, _, _ = drawn(people[1], "team ETH, on 192.168.1.21", width + MARGIN)
    with open(output, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width + MARGIN:g} '
                   f'{height:g}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, '
                   'DejaVu Sans Mono, monospace" font-size="13">\n'
                   '<title>Two people start the menu program on one network, find each other and '
                   'chat</title>\n'
                   + "\n".join(left + right) + "\n</svg>\n")


if __name__ == "__main__":
    main()
