#!/usr/bin/env python3
"""Faults from the network, and the menu program on several machines, in network namespaces.

    run.py NETWORK_PEER MENU [CASE…]     the two programs; without a case: all of them

Cases of one stage that mostly wait run side by side.

Whatever the network does to a message, it is shown once or its sender is told that it was not
delivered: the sender logs each one's outcome, the receiver each one shown; this script compares.
Needs Linux and root, iproute2 and, for the case behind_nat, nft or iptables; skipped (exit status
77) elsewhere.

SPDX-License-Identifier: MIT
"""

import collections
import concurrent.futures
import itertools
import os
import pathlib
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # nothing is to be left in the source tree
from hosts import BadWire, Host, Switch, Unusable

HERE = pathlib.Path(__file__).resolve().parent
ENCRYPTED = 'P2PCHAT_TEST_ENCRYPTED' in os.environ  # all that is said
DEFAULT_PEER = '10.206.5.228'  # given to a host of ours; nothing here leaves this machine


def check(holds, words):
    if not holds:
        raise AssertionError(words)


# ---------------------------------------------------------------------- every message accounted for

class Talk:
    """A sender on the left of the wire, receivers on the right, and the records of both."""

    ONE_SHOTS, LINKS = 6, 2  # receivers

    def __init__(self, programs):
        self.peer_program = programs[0]
        self.left, self.right = Host(), Host()
        self.wire = BadWire(self.left, self.right)
        self.sender = self.start(self.left, '10.98.0.1', 1)
        self.receiver = self.start(self.right, '10.98.0.2', self.ONE_SHOTS + self.LINKS)
        self.receivers = [self.receiver]  # those of before included
        self.numbers = itertools.count(1)
        self.sent = 0

    def start(self, host, address, nodes):
        program = host.start(self.peer_program, address, str(nodes))
        program.expect('node ', nodes)
        return program

    def nodes(self):
        return [words[1] for words in self.receiver.lines('node')]

    def link(self):
        """Links the sender to some of the receivers."""
        for node in self.nodes()[:self.LINKS]:
            self.sender.tell(f'connect {node}')
        self.sender.expect('connected ', self.LINKS)
        return [words[1] for words in self.sender.lines('connected') if words[2] == 'linked']

    def say(self, verb, to, count, size, pause=0):
        self.sender.tell(f'{verb} {to} {self.sent + 1} {count} {size} {pause}')
        self.sent += count

    def say_much(self, scale=1.0, pause=0):
        """Sends small and large messages, over links and as one-shots, by post() and by send()."""
        nodes = self.nodes()
        for node in nodes[:self.LINKS]:
            self.say('post', node, int(400 * scale), 40, pause)
            self.say('post', node, int(40 * scale), 5000, pause * 10)
        for node in nodes[self.LINKS:-1]:
            self.say('post', node, int(40 * scale), 40, pause * 10)
            self.say('post', node, int(5 * scale), 20000, pause * 80)
        self.say('send', nodes[-1], int(5 * scale), 40, pause * 80)

    def settle(self):
        """Checks that every message has its outcome, and that delivered ones were shown."""
        self.sender.wait(lambda: self.outcomes().total() >= self.sent)
        self.receiver.wait(lambda: self.delivered() <= self.shown('whole').keys(), 10)

    def outcomes(self):
        return collections.Counter(words[1] for words in self.sender.lines('outcome'))

    def delivered(self):
        return {w[1] for w in self.sender.lines('outcome') if w[2] == 'delivered'}

    def shown(self, how):
        return collections.Counter(words[1] for program in self.receivers
                                   for words in program.lines('shown') if words[2] == how)

    def account(self, all_delivered=False):
        """Ends both sides and compares their records."""
        self.settle()
        check(self.sender.end() == 0 and self.receiver.end() == 0, 'a side ended badly')
        outcomes, delivered = self.outcomes(), self.delivered()
        whole, cut = self.shown('whole'), self.shown('cut')
        self.print_books(delivered, whole, cut)
        everyone = {str(number) for number in range(1, self.sent + 1)}
        check(outcomes.keys() == everyone, f'without outcome: {everyone - outcomes.keys()}')
        check(set(outcomes.values()) == {1}, 'more than one outcome for a message')
        check(delivered <= whole.keys(), f'not shown: {delivered - whole.keys()}')
        check((whole + cut).keys() <= everyone, 'shown what nobody sent')
        check(max((whole + cut).values(), default=1) == 1, 'something was shown twice')
        check(not delivered & cut.keys(), 'delivered, but not whole')
        check(delivered, 'nothing was delivered')
        check(not all_delivered or delivered == everyone, 'not everything was delivered')
        check(not self.sender.lines('failed'), self.sender.lines('failed'))

    def print_books(self, delivered, whole, cut):
        reasons = collections.Counter(' '.join(words[2:]) for words in self.sender.lines('outcome')
                                      if words[2] != 'delivered')
        print('  wire:    ', ', '.join(f'{n} {what}' for what, n in self.wire.counts.items() if n))
        print(f'  messages: {self.sent} sent, {len(delivered)} delivered, '
              f'{reasons.total()} reported not delivered '
              f'({len(whole.keys() - delivered)} of these shown, {len(cut)} cut short)')
        for reason, number in reasons.most_common():
            print(f'    {number:6} {reason}')

    def close(self):
        self.wire.close()


def loss(talk):
    """20 % of the packets are lost."""
    talk.link()
    talk.wire.loss, talk.wire.delay = 0.2, 0.002
    talk.say_much(0.6, pause=1)  # so that messages do not share packets under load
    talk.settle()
    check(talk.wire.counts['lost'] > 200, 'too little was lost')
    talk.account()


def delay(talk):
    """Each packet takes 300 ms: a round trip is 0.6 s."""
    talk.wire.delay = 0.3
    check(len(talk.link()) == talk.LINKS, 'no link')
    talk.say_much(0.2)
    talk.account(all_delivered=True)


def duplication(talk):
    """30 % of the packets are duplicated."""
    talk.wire.duplication, talk.wire.delay, talk.wire.jitter = 0.3, 0.001, 0.002
    check(len(talk.link()) == talk.LINKS, 'no link')
    talk.say_much()
    talk.settle()
    check(talk.wire.counts['doubled'] > 200, 'too little was doubled')
    talk.account(all_delivered=True)


def reordering(talk):
    """Each packet takes 0 to 20 ms, so that many are reordered."""
    talk.wire.jitter = 0.02
    check(len(talk.link()) == talk.LINKS, 'no link')
    talk.say_much()
    talk.settle()
    check(talk.wire.counts['overtaken'] > 200, 'too little was overtaken')
    talk.account(all_delivered=True)


def everything(talk):
    """5 % are lost, 10 % duplicated, each takes 5 to 55 ms."""
    wire = talk.wire
    wire.loss, wire.duplication, wire.delay, wire.jitter = 0.05, 0.1, 0.005, 0.05
    talk.link()
    talk.say_much()
    talk.account()


def begin_to_talk(talk):
    """A conversation of some seconds, well under way."""
    talk.wire.delay = 0.001
    check(len(talk.link()) == talk.LINKS, 'no link')
    talk.say_much(pause=20)
    talk.sender.expect('delivered', 100)


def cut_for_5_s(talk):
    """The wire is cut for five seconds in the middle of a conversation."""
    begin_to_talk(talk)
    talk.wire.cut = True
    time.sleep(5)  # the fault itself
    talk.wire.cut = False
    talk.settle()
    for node in talk.nodes():
        talk.say('send', node, 1, 40)
    talk.settle()
    check(len(talk.delivered() & last(talk, len(talk.nodes()))) == len(talk.nodes()),
          'not everything is as before')
    talk.account()


def last(talk, count):
    return {str(number) for number in range(talk.sent - count + 1, talk.sent + 1)}


def cut_for_good(talk):
    """The wire is cut for good in the middle of a conversation: both sides notice."""
    begin_to_talk(talk)
    talk.wire.cut = True
    cut_at = time.monotonic()
    talk.sender.expect(' lost', talk.LINKS)
    talk.receiver.expect(' lost', talk.LINKS)
    print(f'  both sides knew of the lost links {time.monotonic() - cut_at:.1f} s after the cut')
    talk.account()


def killed(talk):
    """The wire is cut, the receiver is killed without a FIN, its successor is on the same host."""
    begin_to_talk(talk)
    talk.wire.cut = True
    time.sleep(0.5)  # what was on the way has arrived or never will
    talk.receiver.kill()
    time.sleep(0.5)  # so that the kernel's FINs and resets meet the cut wire
    talk.wire.cut = False
    talk.sender.expect(' lost', talk.LINKS)
    talk.settle()
    talk.receiver = talk.start(talk.right, '10.98.0.2', talk.ONE_SHOTS + talk.LINKS)
    talk.receivers.append(talk.receiver)
    before = len(talk.delivered())
    talk.say_much(0.2)
    talk.settle()
    check(len(talk.delivered()) - before >= 200, 'the successor does not get everything')
    talk.account()


# --------------------------------------------------------------------- people on several machines

class Machines:
    """Three machines on a switch."""

    def __init__(self, programs):
        self.peer_program, self.menu_program = programs
        self.switch = Switch()
        self.hosts = [Host(), Host(), Host()]
        self.addresses = [self.switch.plug(host) for host in self.hosts]

    def menu(self, host, team, port, *flags):
        """The menu program, with its first two questions answered."""
        program = host.start(self.menu_program, *flags)
        program.expect('Enter your team name: ')
        program.tell(team)
        program.expect('Enter your port number: ')
        program.tell(str(port))
        program.expect('Enter choice: ')
        return program

    def original(self, host, team, address, port):
        program = host.start(sys.executable, HERE / 'original.py', team, address, str(port))
        program.expect('listening')
        return program

    def close(self):
        pass


def choose(menu, *answers):
    """Types answers that lead back to the menu; returns what was printed meanwhile."""
    start = len(menu.output)
    prompts = menu.output.count('Enter choice: ')
    menu.tell(*answers)
    menu.expect('Enter choice: ', prompts + 1)
    return menu.output[start:]


def leave(menu):
    menu.tell('0')
    menu.expect('Exiting')
    check(menu.end() == 0, 'a menu program ended badly')


def people(machines):
    """Two people on two machines chat with each other, and with a third who runs the original."""
    (a, b, c), (at_a, at_b, at_c) = machines.hosts, machines.addresses
    alice, bob = machines.menu(a, 'Team_A', 5000), machines.menu(b, 'Team_B', 6000)
    alice.expect(f'Your detected IP address: {at_a}')
    bob.expect(f'Your detected IP address: {at_b}')
    carol = machines.original(c, 'Team_C', at_c, 7000)

    choose(alice, '1', at_b, '6000', 'Hi from A')
    bob.expect(f'{at_a}:5000 Team_A Hi from A')
    check(f'{at_a}:5000 - Team_A' in choose(bob, '2'), 'B does not know A')
    check(f'Connected to {at_a}:5000' in choose(bob, '3', '1'), 'B cannot connect')
    alice.expect(f'{at_b}:6000 Team_B CONNECT')
    check(f'{at_b}:6000 - Team_B (linked)' in choose(alice, '2'), 'A has no link')
    for number in range(20):
        choose(alice, '1', f'{at_b}:6000', f'over the link {number}')
        choose(bob, '1', f'{at_a}:5000', f'and back {number}')
    bob.expect('over the link 19')
    alice.expect('and back 19')

    choose(alice, '1', at_c, '7000', 'Hi, original')
    carol.expect(f'{at_a}:5000 Team_A Hi, original')
    carol.tell(f'{at_a} 5000 Hi, menu')
    alice.expect(f'{at_c}:7000 Team_C Hi, menu')
    check('Connected to ' in choose(alice, '3', '2'), 'A cannot connect to the original')
    carol.expect(f'{at_a}:5000 Team_A CONNECT')
    told = choose(alice, '1', at_c, '7000', 'long ' * 1000)
    check('Error sending to ' in told, 'nobody was told that the original cut a message')
    carol.tell(f'{at_a} 5000 exit')
    alice.expect(f'{at_c}:7000 (Team_C) disconnected.')

    choose(alice, '1', at_b, '6000', 'exit')
    bob.expect(f'{at_a}:5000 (Team_A) disconnected.')
    leave(alice)
    leave(bob)


def default_peer(machines):
    """Menu entry 4 reaches the default peer, where the original runs."""
    (a, _, c), (at_a, _, at_c) = machines.hosts, machines.addresses
    c.ip('addr', 'add', f'{DEFAULT_PEER}/32', 'dev', 'lo')
    a.ip('route', 'add', DEFAULT_PEER, 'via', at_c)
    original = machines.original(c, 'Default', DEFAULT_PEER, 6555)
    menu = machines.menu(a, 'Team_A', 5000)
    check(f'Sent mandatory message to {DEFAULT_PEER}:6555' in choose(menu, '4', 'present'),
          'not sent')
    original.expect(f'{at_a}:5000 Team_A present')
    original.kill()
    check(f'Error sending to {DEFAULT_PEER}:6555: ' in choose(menu, '4', 'gone?'), 'no error')
    leave(menu)


def liar(machines):
    """A message with a false sender is shown and marked; it makes and removes no peer."""
    (a, b, c), (at_a, at_b, _) = machines.hosts, machines.addresses
    alice, bob = machines.menu(a, 'Team_A', 5000), machines.menu(b, 'Team_B', 6000)
    mallory = machines.original(c, 'Team_A', at_a, 5000)  # says that it is A
    mallory.tell(f'{at_b} 6000 trust me')
    bob.expect('trust me')
    check('[not verified, came from 10.99.0.3:' in bob.output, 'not marked')
    check('No connected peers.' in choose(bob, '2'), 'a liar became a peer')

    choose(alice, '1', at_b, '6000', 'it is me')
    mallory.tell(f'{at_b} 6000 exit')
    mallory.tell(f'{at_b} 6000 gone')
    bob.expect('[not verified, came from 10.99.0.3:', 2)
    check('disconnected' not in bob.output, "somebody else's exit was believed")
    check(f'{at_a}:5000 - Team_A' in choose(bob, '2'), "somebody else's exit removed a peer")
    choose(bob, '1', at_a, '5000', 'to the real A')
    alice.expect('to the real A')
    check('to the real A' not in mallory.output, 'a message was redirected')
    leave(alice)
    leave(bob)


def masquerade(router):
    """Packets that leave the router by its device `lan` have the router's address."""
    try:
        router.run('nft', 'add table nat; add chain nat post { type nat hook postrouting priority '
                   '100; }; add rule nat post oifname "lan" masquerade')
    except Unusable:
        router.run('iptables', '-t', 'nat', '-A', 'POSTROUTING', '-o', 'lan', '-j', 'MASQUERADE')
    router.run('sysctl', '-q', '-w', 'net.ipv4.ip_forward=1')


def behind_nat(machines):
    """A node with a false claim is marked, but listed and reachable by its link."""
    (router, b, _), (at_router, at_b, _) = machines.hosts, machines.addresses
    inside = Host()
    router.ip('link', 'add', 'inner', 'type', 'veth', 'peer', 'name', 'lan', 'netns', inside.name)
    router.add_address('inner', '192.168.7.1/24')
    inside.add_address('lan', '192.168.7.2/24')
    inside.ip('route', 'add', 'default', 'via', '192.168.7.1')
    masquerade(router)

    bob = machines.menu(b, 'Team_B', 6000, *(['--encryption', 'required'] if ENCRYPTED else []))
    natted = inside.start(machines.peer_program, '192.168.7.2', '1')
    natted.expect('node ')
    natted.tell(f'send {at_b}:6000 1 1 20 0')
    natted.expect('outcome 1 delivered')
    bob.expect(f'[not verified, came from {at_router}:')
    check('No connected peers.' in choose(bob, '2'), 'a one-shot from behind NAT made a peer')

    natted.tell(f'connect {at_b}:6000')
    natted.expect(f'connected {at_b}:6000 linked')
    natted.tell(f'post {at_b}:6000 2 5 20 0')
    natted.expect(' delivered', 6)
    bob.expect('[not verified, ', 6)
    listed = choose(bob, '2')
    check(f'{at_router}:' in listed and '- Net (linked)' in listed, f'not listed: {listed}')
    check('192.168.7.2' not in listed, 'listed by its claim')
    told = choose(bob, '1', '1', '42 answer.')  # number 1 of the list
    check('Error' not in told, told)
    natted.expect('shown 42 ')
    leave(bob)
    natted.expect(f'left {at_b}:6000 ')
    natted.end()


def listener(machines):
    """An eavesdropper can read all unencrypted messages of two nodes, and no encrypted one."""
    with machines.switch.host.listen('port1') as heard:
        one, other = (host.start(machines.peer_program, '-', '1') for host in machines.hosts[:2])
        other.expect('node ')
        to = other.lines('node')[0][1]
        one.tell(f'send {to} 1 1 40 0')
        other.expect('shown 1 whole')
        one.tell(f'connect {to}')
        one.expect(' linked')
        one.tell(f'send {to} 2 1 40 0')
        other.expect('shown 2 whole')
        check(one.end() == 0 and other.end() == 0, 'a side ended badly')
        heard.setblocking(False)
        passed = b''
        try:
            while True:
                passed += heard.recv(65536)
        except BlockingIOError:
            pass
    check(len(passed) > 1000, 'nothing was heard')
    for word in (b' Net ', b'xxxxxxxx', b'CONNECT', b'ACK'):
        check((word in passed) != ENCRYPTED, f'{word}: heard, or not')


def link_local(machines):
    """Two nodes with link-local addresses only, each behind a device with another number."""
    a, b = machines.hosts[0], Host()
    b.ip('link', 'add', 'other', 'type', 'veth', 'peer', 'name', 'another')
    machines.switch.plug(b)
    for host, address in ((a, 'fe80::a/64'), (b, 'fe80::b/64')):
        host.ip('addr', 'add', address, 'dev', 'lan', 'nodad')
    scope_a, scope_b = a.index_of('lan'), b.index_of('lan')
    check(scope_a != scope_b, 'the devices have the same number')

    one = a.start(machines.peer_program, f'fe80::a%{scope_a}', '1')
    other = b.start(machines.peer_program, f'fe80::b%{scope_b}', '1')
    one.expect('node ')
    other.expect('node ')
    port_a, port_b = (program.lines('node')[0][1].rpartition(':')[2] for program in (one, other))
    to_a, to_b = f'[fe80::a%{scope_b}]:{port_a}', f'[fe80::b%{scope_a}]:{port_b}'

    one.tell(f'send {to_b} 1 1 20 0')
    one.expect('outcome 1 delivered')
    other.tell('peers')
    other.expect(f'peer {to_a} Net heard')  # as it is reached from there
    other.tell(f'send {to_a} 2 1 20 0', f'connect {to_a}')
    other.expect('outcome 2 delivered')
    other.expect(f'connected {to_a} linked')
    one.tell('peers')
    one.expect(f'peer {to_b} Net linked')
    one.tell(f'send {to_b} 3 1 20 0')
    one.expect('outcome 3 delivered')
    check(one.end() == 0 and other.end() == 0, 'a node ended badly')
    check(not one.lines('rejected') and not other.lines('rejected'), 'somebody was not believed')


# --------------------------------------------------------------------------------------- discovery

LONGEST_PAUSE = 33 + 1  # seconds between two announcements, and a busy machine's delay
NOTICED = 2             # seconds, as the system tells of a change
FIRST_ONES = 8          # seconds in which a node that starts announces itself more often: once more
                        # when its IPv6 address can be used


class Neighbours:
    """Hosts on one Ethernet, without any address given."""

    side_by_side = True

    def __init__(self, programs):
        self.peer_program = programs[0]
        self.switch = Switch()

    def start(self, host, nodes=1):
        program = host.start(self.peer_program, '-', str(nodes), 'discovery')
        program.expect('node ', nodes)
        return program

    def settle(self):
        """A host, its address, its node."""
        host = Host()
        address = self.switch.plug(host)
        return host, address, self.start(host)

    def close(self):
        pass


def seen_by(program):
    """The addresses that are found and not gone."""
    result = set()
    for what, who, *_ in program.lines():
        if what == 'found':
            result.add(who.rpartition(':')[0])
        elif what == 'gone':
            result.discard(who.rpartition(':')[0])
    return result


def wait_until_seen(program, addresses, bound=LONGEST_PAUSE):
    """Waits for exactly these, for so many seconds at most; returns how long it took."""
    began = time.monotonic()
    check(program.wait(lambda: seen_by(program) == addresses, bound),
          f'after {bound} s {seen_by(program)} are seen, not {addresses}')
    return time.monotonic() - began


def tell(case, words):
    print(f'  {case.__name__}: {words}\n', end='', flush=True)


def second_device(here):
    """A second device comes up while the node runs: it is found there, by its address there."""
    b, at_b, bob = here.settle()
    _, at_a, alice = here.settle()
    wait_until_seen(bob, {at_a})
    other, c = Switch('10.97.0'), Host()
    at_c = other.plug(c)
    carol = here.start(c)
    time.sleep(FIRST_ONES)
    there = other.plug(b, 'second')
    took = wait_until_seen(carol, {there}, NOTICED)
    wait_until_seen(bob, {at_a, at_c}, 5)
    check(seen_by(alice) == {at_b}, 'a host is seen where it is not')
    tell(second_device, f'found after {took:.1f} s')


def device_down(here):
    """A device goes down and comes up again; a node that arrived meanwhile is found."""
    b, at_b, bob = here.settle()
    _, at_a, _ = here.settle()
    wait_until_seen(bob, {at_a})
    b.ip('link', 'set', 'lan', 'down')
    _, at_c, carol = here.settle()
    time.sleep(LONGEST_PAUSE)  # the fault itself, long enough to be noticed
    check(seen_by(bob) == {at_a}, 'somebody came by a device that is down')
    b.ip('link', 'set', 'lan', 'up')
    took = wait_until_seen(bob, {at_a, at_c}, NOTICED)
    wait_until_seen(carol, {at_a, at_b}, 5)
    tell(device_down, f'found after {took:.1f} s')


def another_address(here):
    """A host's address changes: the new one is found, the old one expires."""
    b, at_b, bob = here.settle()
    _, at_a, alice = here.settle()
    wait_until_seen(alice, {at_b})
    time.sleep(FIRST_ONES)
    b.ip('addr', 'del', f'{at_b}/24', 'dev', 'lan')
    b.ip('addr', 'add', '10.99.0.77/24', 'dev', 'lan')
    took = wait_until_seen(alice, {at_b, '10.99.0.77'}, NOTICED)
    wait_until_seen(alice, {'10.99.0.77'}, 91)
    check(seen_by(bob) == {at_a}, 'the one that moved has lost the other')
    tell(another_address, f'found after {took:.1f} s')


def before_the_cable(here):
    """A node starts on a host without a network, which is plugged in later."""
    b = Host()
    bob = here.start(b)
    _, at_a, alice = here.settle()
    time.sleep(FIRST_ONES)
    at_b = here.switch.plug(b)
    took = wait_until_seen(alice, {at_b}, NOTICED)
    wait_until_seen(bob, {at_a}, 5)
    tell(before_the_cable, f'found after {took:.1f} s')


def half_is_lost(here):
    """Half of all packets are lost."""
    a, b = Host(), Host()
    wire = BadWire(a, b, ethernet=True)
    wire.loss = 0.5
    alice, bob = here.start(a), here.start(b)
    took = wait_until_seen(alice, {'10.98.0.2'})
    took += wait_until_seen(bob, {'10.98.0.1'})
    wire.close()
    check(wire.counts['lost'] > 0, 'nothing was lost')
    tell(half_is_lost, f'found after {took:.1f} s')


def outage(here):
    """The wire is cut for 12 s: links break, and both linked programs are found again."""
    a, b = Host(), Host()
    wire = BadWire(a, b, ethernet=True)
    alice, bob = here.start(a), here.start(b)
    wait_until_seen(alice, {'10.98.0.2'})
    wait_until_seen(bob, {'10.98.0.1'})
    alice.tell(f"connect {alice.lines('found')[0][1]}")
    alice.expect(' linked')
    wire.cut = True
    time.sleep(12)  # the fault itself
    wire.cut = False
    began = time.monotonic()
    for program in (alice, bob):
        check(program.wait(lambda: len(program.lines('found')) > 1, LONGEST_PAUSE), 'not found again')
    took = time.monotonic() - began
    alice.tell(f"connect {alice.lines('found')[1][1]}")  # as talk does
    alice.expect(' linked', 2)
    wire.close()
    tell(outage, f'found again {took:.1f} s after the wire is back')


def killed_peer(here):
    """A killed node expires 90 s after it was last heard; one that leaves is gone at once."""
    b, at_b, _ = here.settle()
    _, at_c, carol = here.settle()
    _, at_a, alice = here.settle()
    wait_until_seen(alice, {at_b, at_c})
    b.programs[0].kill()
    killed_at = time.monotonic()
    check(carol.end() == 0, 'it ended badly')
    wait_until_seen(alice, {at_b}, 2)
    wait_until_seen(alice, set(), 95)
    took = time.monotonic() - killed_at
    check(85 < took < 92, f'forgotten {took:.1f} s after the kill')
    tell(killed_peer, f'forgotten after {took:.1f} s')


class Crowd(Neighbours):
    """As many nodes as are allowed for one address, on each of many hosts."""

    side_by_side = False
    HOSTS, NODES = 25, 8

    def __init__(self, programs):
        super().__init__(programs)
        self.hosts = [Host() for _ in range(self.HOSTS)]
        self.addresses = {self.switch.plug(host) for host in self.hosts}


def two_hundred(crowd):
    """200 nodes on 25 hosts all know each other within 5 seconds."""
    everybody = crowd.HOSTS * crowd.NODES
    programs = [host.start(crowd.peer_program, '-', str(crowd.NODES), 'discovery')
                for host in crowd.hosts]
    for program in programs:
        program.expect('node ', crowd.NODES)
    began = time.monotonic()
    wanted = crowd.NODES * (everybody - 1)
    for program in programs:
        check(program.wait(lambda: program.output.count('found ') >= wanted,
                           began + 5 - time.monotonic()),
              f"{program.output.count('found ')} times found instead of {wanted}")
    took = time.monotonic() - began
    for program in programs:
        check(seen_by(program) == crowd.addresses, 'somebody is not seen')
        check('gone ' not in program.output, 'somebody was forgotten')
    tell(two_hundred, f'all after {took:.1f} s')


# ------------------------------------------------------------------- other programs of the course

def meet(machines, habit):
    """The menu program, and a program of that habit on another machine."""
    (a, b, _), (_, at_b, _) = machines.hosts, machines.addresses
    kin = b.start(sys.executable, HERE / 'kin.py', habit, at_b, '6000')
    kin.expect('listening')
    return machines.menu(a, 'Team_A', 5000), kin


def claims_another(machines, habit):
    at_a, at_b, _ = machines.addresses
    menu, kin = meet(machines, habit)
    kin.tell(f'{at_a} 5000 Hi there')
    menu.expect(f'{at_b}:6000 Kin Hi there')
    check('not verified' not in menu.output, 'marked as not verified')
    check(f'{at_b}:6000 - Kin' in choose(menu, '2'), 'not listed')
    choose(menu, 'r', 'an answer')
    kin.expect(f'received {at_a}:5000 Team_A an answer')
    kin.tell(f'{at_a} 5000 exit')
    menu.expect(f'{at_b}:6000 (Kin) disconnected.')
    leave(menu)


def claims_loopback(machines):
    """A program that claims 127.0.1.1 means its own machine."""
    claims_another(machines, 'claims_loopback')


def claims_yours(machines):
    """So does one that claims the recipient's address."""
    claims_another(machines, 'claims_yours')


def reads_to_end(machines):
    """A program that reads until the end can be connected to."""
    (at_a, at_b, _) = machines.addresses
    menu, kin = meet(machines, 'reads_to_end')
    kin.tell(f'{at_a} 5000 Hi')
    menu.expect(f'{at_b}:6000 Kin Hi')
    check(f'Connected to {at_b}:6000' in choose(menu, '3', '1'), 'not connected')
    kin.expect(f'received {at_a}:5000 Team_A CONNECT')
    choose(menu, '1', f'{at_b}:6000', 'and a text')
    kin.expect(f'received {at_a}:5000 Team_A and a text')
    leave(menu)


def keeps_open(machines):
    """A message that is taken without closing is not offered again, and holds up no other."""
    (at_a, at_b, _) = machines.addresses
    menu, kin = meet(machines, 'keeps_open')
    for text in ('first', 'second', 'third'):
        choose(menu, '1', f'{at_b}:6000', text)
        kin.expect(f'received {at_a}:5000 Team_A {text}')
    menu.expect(f'Sent to {at_b}:6000, but not confirmed: third')
    check('Not sent' not in menu.output, 'offered again')
    check(kin.output.count('received') == 3, 'received more than was sent')
    leave(menu)


def at_form(machines):
    """The team and the end of the text of a program that writes both in its own way."""
    (at_a, at_b, _) = machines.addresses
    menu, kin = meet(machines, 'at_form')
    kin.tell(f'{at_a} 5000 Hi there')
    menu.expect(f'{at_b}:6000 Kin Hi there\n')
    kin.tell(f'{at_a} 5000 exit')
    menu.expect(f'{at_b}:6000 (Kin) disconnected.')
    leave(menu)


def restarts(machines):
    """A CONNECT leaves the port of a program that closes at once free for its next start."""
    (at_a, at_b, _) = machines.addresses
    menu, kin = meet(machines, 'restarts')
    kin.tell(f'{at_a} 5000 Hi')
    menu.expect(f'{at_b}:6000 Kin Hi')
    check(f'Connected to {at_b}:6000' in choose(menu, '3', '1'), 'not connected')
    kin.expect(f'received {at_a}:5000 Team_A CONNECT')
    waiting = machines.hosts[1].output_of('ss', '-Htan', 'state', 'time-wait', 'sport', '=', ':6000')
    check(not waiting, waiting)
    kin.tell('restart')
    kin.expect('listening', 2)
    check('cannot listen' not in kin.output, kin.output)
    leave(menu)


def says_goodbye(machines):
    """Programs that leave by words of their own."""
    (at_a, at_b, _) = machines.addresses
    menu, kin = meet(machines, 'says_goodbye')
    for number, words in enumerate(('Kin DISCONNECT', 'Kin [PEER_QUIT]', 'DISCONNECTED'), 1):
        kin.tell(f'{at_a} 5000 Hi {number}')
        menu.expect(f'{at_b}:6000 Kin Hi {number}')
        kin.tell(f'{at_a} 5000 !{at_b}:6000 {words}')
        menu.expect(f'{at_b}:6000 (Kin) disconnected.', number)
    kin.tell(f'{at_a} 5000 quit')
    menu.expect(f'{at_b}:6000 Kin quit')
    leave(menu)


# ---------------------------------------------------------------------------------------- the cases

CASES = {
    Talk: (loss, delay, duplication, reordering, everything, cut_for_5_s, cut_for_good, killed),
    Machines: (people, default_peer, liar, behind_nat, link_local, listener, claims_loopback,
               claims_yours, reads_to_end, keeps_open, at_form, restarts, says_goodbye),
    Crowd: (two_hundred,),
    Neighbours: (second_device, device_down, another_address, before_the_cable, half_is_lost,
                 outage, killed_peer),
}


def run(case, stage, programs):
    began = time.monotonic()
    print(f'{case.__name__}: {case.__doc__}\n', end='', flush=True)
    network = None
    try:
        network = stage(programs)
        case(network)
        print(f'  {case.__name__}: ok, {time.monotonic() - began:.1f} s\n', end='', flush=True)
        return True
    except AssertionError as error:
        print(f'  {case.__name__}: FAILED: {error}\n', end='', flush=True)
        return False
    finally:
        if network:
            network.close()


def run_all(stage, cases, programs):
    """Runs them in parallel if they mostly wait; true if all passed."""
    at_once = len(cases) if getattr(stage, 'side_by_side', False) else 1
    results = []
    while cases:
        now, cases = cases[:at_once], cases[at_once:]
        try:
            with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
                results += pool.map(lambda case: run(case, stage, programs), now)
        finally:
            Host.remove_all()
    return all(results)


def main(programs, wanted):
    if sys.platform != 'linux' or os.geteuid() != 0:
        print('skipped: this needs Linux and root')
        return 77
    unknown = set(wanted) - {case.__name__ for cases in CASES.values() for case in cases}
    if unknown:
        print(f'no such case: {unknown}')
        return 2
    results = []
    try:
        with tempfile.TemporaryDirectory() as home:
            os.environ['HOME'] = home  # for what the menu program keeps there
            for stage, cases in CASES.items():
                chosen = [case for case in cases if not wanted or case.__name__ in wanted]
                results.append(run_all(stage, chosen, programs))
    except Unusable as error:
        print(f'skipped: {error}')
        return 77 if all(results) else 1
    return 0 if all(results) else 1


if __name__ == '__main__':
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:3], sys.argv[3:]))
