#!/usr/bin/env python3
"""The cost of discovery at rest: bytes on the wire, and wake-ups of a node, of 1, 10 and 100 nodes.

    wire_cost.py NETWORK_PEER [NODES…]

Each network is a bridge with hosts in namespaces of their own; they run side by side. Counted is
all that the hosts send, at the bridge, ARP and the system's own multicast included. Of 1,000 on one
machine its kernel drops much (each datagram to all becomes thousands): that shows the machine.

SPDX-License-Identifier: MIT
"""

import concurrent.futures
import json
import pathlib
import sys
import time

sys.dont_write_bytecode = True  # nothing is to be left in the source tree
from hosts import Host, Switch, benchmark, command

NODES_OF_A_HOST = 8  # as many as are believed of one address
FIRST_ONES, MEASURED = 45, 120  # seconds


def bytes_sent(switch):
    """Bytes sent by all hosts, counted at the bridge's ports."""
    shown = json.loads(command('ip', '-n', switch.host.name, '-s', '-j', 'link'))
    return sum(device['stats64']['rx']['bytes'] for device in shown
               if device.get('master') == 'bridge')


def wake_ups(program):
    """Wake-ups: each is the end of a thread's sleep."""
    total = 0
    for status in pathlib.Path(f'/proc/{program.child.pid}/task').glob('*/status'):
        total += int(status.read_text().partition('\nvoluntary_ctxt_switches:')[2].split()[0])
    return total


def measure(peer_program, count):
    of_a_host = 1 if count < 20 else NODES_OF_A_HOST
    switch = Switch()
    programs = []
    for first in range(0, count, of_a_host):
        host = Host()
        switch.plug(host)
        nodes = min(of_a_host, count - first)
        programs.append((host.start(peer_program, '-', str(nodes), 'discovery'), nodes))
    for program, nodes in programs:
        program.expect('node ', nodes)
    time.sleep(FIRST_ONES)
    began, sent, woken = time.monotonic(), bytes_sent(switch), wake_ups(programs[0][0])
    time.sleep(MEASURED)
    minutes = (time.monotonic() - began) / 60
    sent, woken = bytes_sent(switch) - sent, wake_ups(programs[0][0]) - woken
    program, nodes = programs[0]
    return (f'{count:5} nodes: {sent / minutes:10.0f} bytes a minute, '
            f'{sent / minutes / count:6.0f} of each; {woken / minutes / nodes:6.1f} wake-ups of '
            f"one, which has found {program.output.count('found ') / nodes:.0f}")


def main(peer_program, counts):
    with concurrent.futures.ThreadPoolExecutor(len(counts)) as pool:
        for line in pool.map(lambda count: measure(peer_program, count), counts):
            print(line, flush=True)


if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    counts = [int(word) for word in sys.argv[2:]] or [1, 10, 100]
    sys.exit(benchmark(lambda: main(sys.argv[1], counts)))
