#!/usr/bin/env python3
"""Draws picture.svg: two terminals talking, from a real run of the menu program in tmux.

Usage: picture.py PROGRAM OUTPUT.svg

SPDX-License-Identifier: MIT
"""

import html
import os
import re
import subprocess
import sys
import time
import unicodedata

COLUMNS, ROWS = 70, 20
CELL_WIDTH, CELL_HEIGHT, MARGIN, TITLE = 7.8, 17, 14, 30
BACKGROUND, FOREGROUND, QUIET = "#16181d", "#d8dee9", "#79818f"
COLOURS = {31: "#e06c75", 32: "#98c379", 33: "#e5c07b", 35: "#c678dd", 36: "#56b6c2",
           92: "#b5e890", 93: "#f0d399", 94: "#6cb6ff", 95: "#dda0f0", 96: "#7fdbe6"}


class Terminal:
    """A tmux session of its own server, with the program in it."""

    def __init__(self, name, command):
        self.tmux = ["tmux", "-L", f"p2pchat-picture-{os.getpid()}-{name}", "-f", os.devnull]
        subprocess.run(self.tmux + ["new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS)]
                       + command, check=True)

    def screen(self, *flags):
        return subprocess.run(self.tmux + ["capture-pane", "-p", *flags], check=True,
                              capture_output=True, encoding="utf-8").stdout

    def wait_for(self, text):
        end = time.monotonic() + 10
        while text not in self.screen():
            if time.monotonic() > end:
                sys.exit(f"waited in vain for: {text}\n{self.screen()}")
            time.sleep(0.02)

    def type(self, text):
        subprocess.run(self.tmux + ["send-keys", "-l", text], check=True)
        self.wait_for(text)

    def enter(self, text, then):
        """Types a line and waits for what the program says to it."""
        subprocess.run(self.tmux + ["send-keys", "-l", text], check=True)
        subprocess.run(self.tmux + ["send-keys", "Enter"], check=True)
        self.wait_for(then)

    def cursor(self):
        position = subprocess.run(self.tmux + ["display-message", "-p", "#{cursor_x} #{cursor_y}"],
                                  check=True, capture_output=True, encoding="utf-8").stdout
        return [int(part) for part in position.split()]

    def close(self):
        subprocess.run(self.tmux + ["kill-server"], check=False)


def talk(btc, eth):
    btc.wait_for("Enter choice:")
    eth.wait_for("Enter choice:")
    btc.enter("1", "recipient's IP address:")
    btc.enter("127.0.0.1:6000", "Enter your message")
    btc.enter("Hi! Anybody there?", "Delivered")
    eth.enter("r", "Enter your message")
    eth.enter("Yes, all five of us.", "Delivered")
    eth.enter("3", "Select peer number:")
    eth.enter("1", "Connected to")
    btc.wait_for("connected.")
    btc.enter("r", "Enter your message")
    btc.type("We start at ten, in")
    eth.enter("r", "Enter your message")
    eth.enter("Has the room changed?", "Delivered to 127.0.0.1:5000: Has")
    btc.wait_for("Has the room")


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
    """The line's pieces of one style: column, text, colour."""
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


def main():
    program, output = sys.argv[1:]

    def start(team, port):
        return Terminal(team, [program, "--team", team, "--port", port, "--address", "127.0.0.1",
                               "--default-peer", "127.0.0.1:1"])

    btc, eth = start("BTC", "5000"), start("ETH", "6000")
    try:
        talk(btc, eth)
        left, width, height = drawn(btc, "team BTC, port 5000", 0)
        right, _, _ = drawn(eth, "team ETH, port 6000", width + MARGIN)
    finally:
        btc.close()
        eth.close()
    with open(output, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width + MARGIN:g} '
                   f'{height:g}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, '
                   'DejaVu Sans Mono, monospace" font-size="13">\n'
                   '<title>Two terminals with the menu program, talking</title>\n'
                   + "\n".join(left + right) + "\n</svg>\n")


if __name__ == "__main__":
    main()
