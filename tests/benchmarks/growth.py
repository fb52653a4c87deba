#!/usr/bin/env python3
# Runs the program "growth", prints its points as tables and draws them as one picture (SVG); its
# other lines it prints as they are.
# Usage: growth.py path-to-the-program [picture.svg [rounds]]
#
# SPDX-License-Identifier: MIT
import math
import subprocess
import sys

PANELS = {
    "links": ("open links", "round trip, µs (p50)"),
    "peers": ("peers known", "round trip, µs (p50)"),
    "senders": ("threads that post", "µs for a message"),
    "bytes": ("bytes of a message", "µs for a message"),
}
WIDTH, HEIGHT, MARGIN = 360, 240, 56
OURS, RAW, INK, GRID = "#1f6feb", "#8b949e", "#24292f", "#d8dee4"


def measure(program, rounds):
    figures = {}
    with subprocess.Popen([program, *rounds], stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            if "\t" not in line:
                print(line, end="", flush=True)
                continue
            what, how_many, ours, raw = line.split("\t")
            figures.setdefault(what, []).append((int(how_many), float(ours), float(raw)))
    if run.returncode:
        sys.exit(run.returncode)
    return figures


def print_tables(figures):
    for what, points in figures.items():
        many, cost = PANELS[what]
        has_raw = any(raw for _, _, raw in points)
        print(f"\n{many:>20}  {cost:>22}" + (f"  {'raw sockets':>12}" if has_raw else ""))
        for how_many, ours, raw in points:
            print(f"{how_many:>20,}  {ours:>22.3g}" + (f"  {raw:>12.3g}" if has_raw else ""))


def text(x, y, words, anchor="middle", size=11, turn=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{turn}>'
            f"{words}</text>")


def short(value):
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:g}"


class Panel:
    """One diagram, both axes logarithmic, the vertical one over whole decades."""

    def __init__(self, left, top, what, points):
        self.left, self.top, self.what, self.points = left, top, what, points
        values = [v for _, ours, raw in points for v in (ours, raw) if v > 0]
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)
        self.last = math.log10(points[-1][0])
        self.first = math.log10(points[0][0])

    def x(self, how_many):
        share = (math.log10(how_many) - self.first) / (self.last - self.first)
        return self.left + MARGIN + share * (WIDTH - 1.5 * MARGIN)

    def y(self, cost):
        share = (math.log10(cost) - self.low) / (self.high - self.low)
        return self.top + HEIGHT - MARGIN + share * -(HEIGHT - 1.5 * MARGIN)

    def axes(self):
        many, cost = PANELS[self.what]
        left, right = self.x(self.points[0][0]), self.x(self.points[-1][0])
        for decade in range(self.low, self.high + 1):
            y = self.y(10.0 ** decade)
            yield f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
            yield text(left - 6, y + 4, short(10.0 ** decade), "end")
        for how_many, _, _ in self.points:
            yield text(self.x(how_many), self.top + HEIGHT - MARGIN + 18, short(how_many))
        yield text((left + right) / 2, self.top + HEIGHT - 16, many, size=12)
        middle = self.top + (HEIGHT - MARGIN) / 2 + 10
        x = self.left + 14
        yield text(x, middle, cost, size=12, turn=f' transform="rotate(-90 {x} {middle})"')

    def line(self, column, colour):
        points = [(self.x(p[0]), self.y(p[column])) for p in self.points if p[column] > 0]
        if points:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            for x, y in points:
                yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'

    def draw(self):
        yield from self.axes()
        yield from self.line(2, RAW)
        yield from self.line(1, OURS)


def draw(figures):
    width, height = 2 * WIDTH, 2 * HEIGHT + 40
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           f'font-family="sans-serif" fill="{INK}">')
    yield '<rect width="100%" height="100%" fill="white"/>'
    yield text(width / 2, 24, "What a message costs as things grow", size=15)
    yield text(width - 150, 24, "p2pchat", "start", 12, f' style="fill:{OURS}"')
    yield text(width - 90, 24, "raw sockets", "start", 12, f' style="fill:{RAW}"')
    for i, (what, points) in enumerate(figures.items()):
        yield from Panel(i % 2 * WIDTH, 40 + i // 2 * HEIGHT, what, points).draw()
    yield "</svg>"


def main():
    program = sys.argv[1]
    figures = measure(program, sys.argv[3:])
    print_tables(figures)
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w", encoding="utf-8") as file:
            file.write("\n".join(draw(figures)) + "\n")
        print(f"\ndrawn: {sys.argv[2]}")


if __name__ == "__main__":
    main()
