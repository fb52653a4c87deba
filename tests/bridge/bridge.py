#!/usr/bin/env python3
"""Three LANs of three peers, their bridges, and a broker that forgets all when it ends.

    bridge.py BRIDGE PEER [CASE…]     the two programs; without a case: all of them

Every message is shown on the other LANs once, or its sender is told; none is shown twice. Needs
Linux and root, iproute2 and mosquitto; skipped (exit status 77) elsewhere.

SPDX-License-Identifier: MIT
"""

import collections
import pathlib
import re
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True  # nothing is to be left in the source tree
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / 'network'))
from hosts import Host, Switch, Unusable

SITES = ['north', 'south', 'west']
PEERS = 3  # on each LAN


def check(holds, words):
    if not holds:
        raise AssertionError(words)


class Bridge:
    """A bridge on a host of its own, which is on its LAN and on the network of the broker."""

    def __init__(self, world, lan, room='room', number=0):
        self.lan, self.host = lan, Host()
        self.wan = f'wan{lan.number}{number}'
        world.wan.plug(self.host, 'wan')
        lan.switch.plug(self.host, 'lan')
        self.words = [world.bridge, '--team', 'Lan', '--port', '5000', '--site', lan.site,
                      '--broker', world.broker_address, '--room', room,
                      '--state', f'{world.folder}/{lan.site}-{room}-{number}']
        self.start()

    def start(self):
        self.program = self.host.start(*self.words)
        self.program.expect('the broker says: Success')


class Lan:
    """A switch with peers."""

    def __init__(self, world, number):
        self.number, self.site = number, SITES[number]
        self.switch = Switch(f'10.{number + 1}.0')
        self.peers = []
        for i in range(PEERS):
            host = Host()
            self.switch.plug(host)
            self.peers.append(host.start(world.peer, f'{self.site}{i}'))


class World:
    def __init__(self, programs, folder):
        self.bridge, self.peer = programs
        self.folder = folder
        self.wan = Switch('10.98.0')
        self.broker_host = Host()
        self.broker_address = self.wan.plug(self.broker_host)
        self.config = pathlib.Path(folder) / 'mosquitto.conf'
        self.config.write_text(f'listener 1883 {self.broker_address}\nallow_anonymous true\n')
        self.start_broker()
        self.lans = [Lan(self, number) for number in range(len(SITES))]
        self.sent = 0

    def start_broker(self):
        self.broker = self.broker_host.start('mosquitto', '-c', str(self.config))
        self.broker.expect('running')

    def peers(self):
        return [(lan, peer) for lan in self.lans for peer in lan.peers]

    def wait_linked(self, bridges):
        """Until everybody on a LAN has a link to all the others, and to so many bridges."""
        wanted = f'peers {PEERS - 1 + bridges} bridges {bridges}'
        for _, peer in self.peers():
            check(peer.wait(lambda p=peer: p.tell('peers') or wanted in p.output), peer.output)

    def wait_present(self, peer, sites):
        """Until the bridges list all the others' peers."""
        def holds():
            peer.tell('who')
            return all(any(line.count(f'{site}{i} ') for line in peer.output.splitlines()
                           if line.startswith(f'shown {site}: '))
                       for site in sites for i in range(PEERS))
        check(peer.wait(holds), peer.output)

    def wait_ready(self, bridges=1):
        """Until everybody on a LAN is linked, and the bridges know the other LANs' peers."""
        self.wait_linked(bridges)
        for lan in self.lans:
            self.wait_present(lan.peers[0], [site for site in SITES if site != lan.site])

    def say(self, count, pause=0):
        """Everybody says so many."""
        self.said = {}
        for lan, peer in self.peers():
            peer.tell(f'say {self.sent + 1} {count} {pause}')
            for number in range(self.sent + 1, self.sent + count + 1):
                self.said[number] = (lan, peer)
            self.sent += count

    def outcomes(self, peer):
        return collections.Counter(words[1] for words in peer.lines('outcome'))

    def wait_outcomes(self, share, bridges=1):
        for _, peer in self.peers():
            mine = [n for n, (_, who) in self.said.items() if who is peer]
            check(peer.wait(lambda: len(self.outcomes(peer)) >= share * len(mine), 120), 'no outcomes')

    def settled(self):
        """Until nothing more is shown: what is said now comes behind all that."""
        self.wait_outcomes(1)
        mark = 10_000_000 + self.sent
        for lan in self.lans:
            lan.peers[0].tell(f'say {mark + lan.number} 1 0')
        for lan, peer in self.peers():
            for other in self.lans:
                check(other is lan or peer.wait(
                    lambda: f'@{other.site}: {mark + other.number}\n' in peer.output, 60),
                    f'{peer.output[-500:]}: {other.site} is not heard any more')

    def account(self):
        """Compares the books of all."""
        self.settled()
        shown = {}  # for each peer: how often each number of another LAN
        told = collections.Counter()
        for lan, peer in self.peers():
            texts = [line[6:] for line in peer.output.splitlines() if line.startswith('shown ')]
            shown[peer] = collections.Counter(int(found[1]) for text in texts if
                                              (found := re.fullmatch(r'\w+@\w+: (\d+)', text)))
            told.update(int(found[1]) for text in texts if
                        (found := re.fullmatch(r'Lan@\w+: at \w+ .*: (\d+)', text)))
        delivered = {int(words[1]) for _, peer in self.peers() for words in peer.lines('outcome')
                     if words[2] == 'delivered'}
        refused = {int(words[1]) for _, peer in self.peers() for words in peer.lines('outcome')
                   if words[2] != 'delivered'}
        twice, lost, elsewhere = [], [], 0
        for number, (lan, _) in self.said.items():
            for other, peer in self.peers():
                times = shown[peer][number]
                if times > (0 if other is lan else 1):
                    twice.append(number)
                if other is not lan and times == 0 and number in delivered and number not in refused | told.keys():
                    lost.append(number)
                elsewhere += times
        print(f'  {len(self.said)} said, {len(delivered - refused)} delivered to the bridge, '
              f'{len(refused)} reported not delivered, {len(told)} of which more was told; '
              f'shown {elsewhere} times')
        check(not twice, f'shown twice or at home: {len(twice)}, as {twice[:5]}')
        check(not lost, f'lost: {len(lost)}, as {lost[:5]}')
        return elsewhere


def quiet(world):
    """10,000 messages, and nothing happens: all are shown everywhere."""
    for lan in world.lans:
        Bridge(world, lan)
    world.wait_ready()
    world.say(1112)
    check(world.account() == 9 * 1112 * 6, 'not all were shown')


def faults(world):
    """10,000 messages, while the broker, a bridge and a cable fail, and come back."""
    bridges = [Bridge(world, lan) for lan in world.lans]
    world.wait_ready()
    world.say(1112, pause=15)
    world.wait_outcomes(0.1)
    world.broker.kill()
    world.start_broker()
    world.wait_outcomes(0.3)
    bridges[0].program.kill()
    world.wait_outcomes(0.4)
    bridges[0].start()
    world.wait_outcomes(0.6)
    bridges[1].host.ip('link', 'set', 'wan', 'down')
    world.wait_outcomes(0.7)
    bridges[1].host.ip('link', 'set', 'wan', 'up')
    bridges[2].program.kill()
    bridges[2].start()
    world.account()


def two_bridges(world):
    """Two on each LAN: the one that was started first ends."""
    first = [Bridge(world, lan) for lan in world.lans]
    second = [Bridge(world, lan, number=1) for lan in world.lans]
    for bridge in first:
        bridge.program.expect('another bridge has taken over this site')
    for bridge in second:
        bridge.program.expect('the broker says: Success', 2)
    world.wait_ready()
    world.say(100)
    check(world.account() == 9 * 100 * 6, 'not all were shown')


def ring(world):
    """Three rooms, each of two LANs: two bridges of different rooms are on each LAN."""
    for number, lan in enumerate(world.lans):
        Bridge(world, lan, room=f'room{number}')
        Bridge(world, lan, room=f'room{(number + 1) % 3}', number=1)
    world.wait_ready(bridges=2)
    world.say(100)
    check(world.account() == 9 * 100 * 6, 'not all were shown')


def main():
    programs, names = sys.argv[1:3], sys.argv[3:]
    for case in [globals()[name] for name in names] or [quiet, faults, two_bridges, ring]:
        print(f'{case.__name__}: {case.__doc__}', flush=True)
        try:
            if not shutil.which('mosquitto'):
                raise Unusable('mosquitto is not installed')
            with tempfile.TemporaryDirectory(prefix='p2pchat-') as folder:
                pathlib.Path(folder).chmod(0o755)  # mosquitto reads as its own user
                case(World(programs, folder))
        except Unusable as error:
            print(f'skipped: {error}')
            sys.exit(77)
        finally:
            Host.remove_all()


main()
