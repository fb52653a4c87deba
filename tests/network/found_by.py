#!/usr/bin/env python3
"""How soon two hosts find each other, and what they send at rest: p2pchat, CZMQ's beacon as
Zyre uses it, and Avahi, where those are installed.

    found_by.py NETWORK_PEER [ZBEACON]

Each on a network of the same kind: two hosts in namespaces on a bridge. The time is from the start
of the second host's program until both have found the other.

SPDX-License-Identifier: MIT
"""

import shutil
import statistics
import sys
import time

sys.dont_write_bytecode = True  # nothing is to be left in the source tree
from hosts import Host, Switch, benchmark
from wire_cost import bytes_sent

ROUNDS, SETTLED, MEASURED = 9, 40, 60  # the latter are seconds

# A system of its own as far as Avahi can see, which ends with its first process.
AVAHI = ('unshare', '--mount', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc',
         'sh', '-c', '''
hostname host-$0
mount -t tmpfs none /run
mkdir -p /run/dbus
dbus-daemon --system --fork
avahi-daemon --daemonize --no-rlimits --no-chroot
avahi-publish --service node-$0 _p2pchat._tcp 5000 &
exec avahi-browse --parsable --resolve --ignore-local _p2pchat._tcp''')


def measure(commands, sign):
    """Times a command on each host, which prints the sign when it has found the other."""
    switch = Switch()
    hosts = [Host(), Host()]
    for host in hosts:
        switch.plug(host)
    times = []
    for _ in range(ROUNDS):
        programs = [hosts[0].start(*commands[0])]
        time.sleep(5)  # what it says at its start is said
        began = time.monotonic()
        programs.append(hosts[1].start(*commands[1]))
        for program in programs:
            program.expect(sign)
        times.append(time.monotonic() - began)
        for program in programs:
            program.kill()
    for host, command in zip(hosts, commands):
        host.start(*command)
    time.sleep(SETTLED)
    sent = bytes_sent(switch)
    time.sleep(MEASURED)
    a_minute = (bytes_sent(switch) - sent) * 60 / MEASURED / len(hosts)
    return (f'found each other in {statistics.median(times):.2f} s (median of {ROUNDS}, at most '
            f'{max(times):.2f}), {a_minute:.0f} bytes a minute of each')


def main(peer_program, zbeacon=None):
    subjects = {'p2pchat': ([(peer_program, '-', '1', 'discovery')] * 2, 'found ')}
    if zbeacon:
        subjects['zbeacon'] = ([(zbeacon,)] * 2, 'found ')
    if all(map(shutil.which, ('avahi-daemon', 'avahi-browse', 'dbus-daemon'))):
        subjects['Avahi'] = ([(*AVAHI, '1'), (*AVAHI, '2')], '=;')
    for name, (commands, sign) in subjects.items():
        print(f'{name:8}', measure(commands, sign), flush=True)


if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(benchmark(lambda: main(*sys.argv[1:])))
