"""Hosts of a network of our own, made of Linux network namespaces, and programs that run on them.

A `Switch` joins hosts by veth pairs and a bridge; a `BadWire` joins two by a wire that loses,
delays, doubles, reorders or is cut: two tun or tap devices, with this process moving each packet
from one to the other. (tc netem would do most of that, but many kernels come without it, and it
counts nothing per cause.) Needs root, iproute2 and /dev/net/tun.

SPDX-License-Identifier: MIT
"""

import concurrent.futures
import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time

PATIENCE = 60  # seconds for what has to happen


class Unusable(Exception):
    """This system does not allow network namespaces."""


class Host:
    """A network namespace."""

    made = []
    numbers = itertools.count()

    def __init__(self):
        self.name = f'p2pchat-{os.getpid()}-{next(Host.numbers)}'
        self.programs = []
        command('ip', 'netns', 'add', self.name)
        Host.made.append(self)
        self.ip('link', 'set', 'lo', 'up')

    def ip(self, *words):
        command('ip', '-n', self.name, *words)

    def run(self, *words):
        command('ip', 'netns', 'exec', self.name, *words)

    def output_of(self, *words):
        return command('ip', 'netns', 'exec', self.name, *words)

    def add_address(self, device, address):
        self.ip('addr', 'add', address, 'dev', device)
        self.ip('link', 'set', device, 'up')

    def index_of(self, device):
        """The device's number, which is the scope of its link-local addresses."""
        shown = command('ip', '-n', self.name, '-oneline', 'link', 'show', device)
        return int(shown.partition(':')[0])

    def start(self, *words):
        program = Program('ip', 'netns', 'exec', self.name, *words)
        self.programs.append(program)
        return program

    def enter(self):
        """Moves the calling thread to this host."""
        with open(f'/run/netns/{self.name}', 'rb') as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), 'setns')

    def call(self, work):
        """Runs `work` in a thread on this host; returns or raises what it does."""
        def here():
            self.enter()
            return work()

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(here).result()

    def listen(self, device):
        """A socket that receives all packets of a device."""
        def work():
            heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # all kinds
            heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
            heard.bind((device, 0))
            return heard

        return self.call(work)

    def remove(self):
        for program in self.programs:
            program.kill()
        command('ip', 'netns', 'del', self.name)

    @staticmethod
    def remove_all():
        while Host.made:
            Host.made.pop().remove()


def benchmark(work):
    """Runs it, and removes all hosts; returns the exit status (77 means skipped to Meson)."""
    try:
        work()
    except Unusable as error:
        print(f'skipped: {error}')
        return 77
    finally:
        Host.remove_all()
    return 0


def command(*words):
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise Unusable(f'{words[0]} is not installed') from error
    except subprocess.CalledProcessError as error:
        raise Unusable(f'{" ".join(words)}: {error.stderr.strip()}') from error


class Program:
    """A child process; its output is collected as it comes."""

    def __init__(self, *words):
        self.child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT)
        self.output = ''
        self.ended = False
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while data := os.read(self.child.stdout.fileno(), 65536):
            with self.changed:
                self.output += data.decode(errors='replace')
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def tell(self, *lines):
        for line in lines:
            self.child.stdin.write((line + '\n').encode())
        self.child.stdin.flush()

    def lines(self, word=''):
        """The whole lines so far that begin with `word`, split into words."""
        with self.changed:
            whole = self.output.rpartition('\n')[0].splitlines()
        return [line.split() for line in whole if line.startswith(word)]

    def wait(self, holds, bound=PATIENCE):
        """Waits until `holds()`; false if that takes too long."""
        end = time.monotonic() + bound
        while not holds():
            with self.changed:
                left = end - time.monotonic()
                if left <= 0 or self.ended and not holds():
                    return holds()
                self.changed.wait(min(left, 0.2))
        return True

    def expect(self, text, times=1, bound=PATIENCE):
        """Waits until `text` has been printed so many times."""
        if not self.wait(lambda: self.output.count(text) >= times, bound):
            raise AssertionError(f'no {text!r} in:\n{self.output[-2000:]}')

    def end(self, bound=PATIENCE):
        """Ends its input, waits, and returns its exit status."""
        self.child.stdin.close()
        try:
            status = self.child.wait(bound)
        except subprocess.TimeoutExpired as error:
            raise AssertionError('it does not end') from error
        self.reader.join(bound)
        return status

    def kill(self):
        """Kills it by SIGKILL if it still runs."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        self.reader.join(PATIENCE)


class Switch:
    """Hosts on one Ethernet: 10.99.0.1, 10.99.0.2, …"""

    def __init__(self, network='10.99.0'):
        self.network = network
        self.host = Host()
        self.count = 0
        self.host.ip('link', 'add', 'bridge', 'type', 'bridge')
        self.host.ip('link', 'set', 'bridge', 'up')

    def plug(self, host, device='lan'):
        """Gives the host's address here."""
        self.count += 1
        port = f'port{self.count}'
        self.host.ip('link', 'add', port, 'type', 'veth', 'peer', 'name', device,
                     'netns', host.name)
        self.host.ip('link', 'set', port, 'master', 'bridge', 'up')
        address = f'{self.network}.{self.count}'
        host.add_address(device, f'{address}/24')
        return address


class BadWire:
    """Two hosts, 10.98.0.1 and 10.98.0.2, and a wire between them that can be impaired.

    Like Ethernet it carries broadcasts, too."""

    def __init__(self, left, right, seed=1, ethernet=False):
        self.loss = self.duplication = 0.0  # shares of the packets
        self.delay = self.jitter = 0.0      # seconds; jitter reorders
        self.cut = False
        self.counts = dict.fromkeys(('passed', 'lost', 'doubled', 'overtaken', 'cut off'), 0)
        self.ends = [open_tun(left, '10.98.0.1', '10.98.0.2', ethernet),
                     open_tun(right, '10.98.0.2', '10.98.0.1', ethernet)]
        self.random = random.Random(seed)
        self.under_way = []  # a heap of (when due, number, where to, packet)
        self.number = 0
        self.newest = {end: 0 for end in self.ends}
        self.ending = False
        self.mover = threading.Thread(target=self._move, daemon=True)
        self.mover.start()

    def close(self):
        self.ending = True
        self.mover.join()
        for end in self.ends:
            os.close(end)

    def _move(self):
        while not self.ending:
            now = time.monotonic()
            due = self.under_way[0][0] - now if self.under_way else 0.05
            for end in select.select(self.ends, [], [], min(max(due, 0), 0.05))[0]:
                self._accept(os.read(end, 65536), self.ends[1 - self.ends.index(end)])
            while self.under_way and self.under_way[0][0] <= time.monotonic():
                self._deliver(*heapq.heappop(self.under_way)[1:])

    def _accept(self, packet, to):
        if self.random.random() < self.loss:
            self.counts['lost'] += 1
            return
        twice = self.random.random() < self.duplication
        self.counts['doubled'] += twice
        for _ in range(1 + twice):
            due = time.monotonic() + self.delay + self.random.random() * self.jitter
            self.number += 1
            heapq.heappush(self.under_way, (due, self.number, to, packet))

    def _deliver(self, number, to, packet):
        if self.cut:  # what is on the wire when it is cut is lost too
            self.counts['cut off'] += 1
            return
        self.counts['overtaken'] += number < self.newest[to]
        self.newest[to] = max(number, self.newest[to])
        self.counts['passed'] += 1
        try:
            os.write(to, packet)
        except OSError:
            self.counts['lost'] += 1  # its queue is full, as on a real wire


def open_tun(host, address, peer, ethernet):
    """A device on the host with its only route; reading it returns what the host sends."""
    kind = 2 if ethernet else 1  # IFF_TAP, IFF_TUN

    def work():
        end = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
        # TUNSETIFF with IFF_NO_PI: bare packets.
        fcntl.ioctl(end, 0x400454CA, struct.pack('16sH22x', b'lan', 0x1000 | kind))
        return end

    try:
        end = host.call(work)
    except OSError as error:
        raise Unusable(f'/dev/net/tun: {error}') from error
    if ethernet:
        host.add_address('lan', f'{address}/24')
    else:
        host.ip('addr', 'add', address, 'peer', peer, 'dev', 'lan')
        host.ip('link', 'set', 'lan', 'up')
    return end
