#!/usr/bin/env python3
"""What a message costs over two bridges and a broker, beside the broker alone, in the same run.

    bridge.py BRIDGE BRIDGE_LOAD [COUNT [ROUNDS]]

mosquitto, on a free port of loopback; mosquitto_pub and mosquitto_sub with QoS 1 for the number of
messages a second, two clients of libmosquitto in one process for the latency. Medians.

SPDX-License-Identifier: MIT
"""

import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TEXT = 'a message of forty bytes, as most are...'


def free_port():
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


def alone(port, count, lines):
    """Messages a second from mosquitto_pub to mosquitto_sub."""
    to = ['-h', '127.0.0.1', '-p', str(port), '-q', '1', '-t', 'bench/alone']
    subscriber = subprocess.Popen(['stdbuf', '-oL', 'mosquitto_sub', *to, '-C', str(count), '-d'],
                                  stdout=subprocess.PIPE, text=True)
    for line in subscriber.stdout:
        if 'Subscribed' in line:
            break
    with open(lines, encoding='ascii') as text:
        begin = time.monotonic()
        subprocess.run(['mosquitto_pub', *to, '-l'], stdin=text, check=True)
        for _ in subscriber.stdout:
            pass
        subscriber.wait()
        return count / (time.monotonic() - begin)


def load(*words):
    shown = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [float(word) for word in shown.splitlines()[-1].split()]


def measure(bridge_program, load_program, count, rounds, folder, ends):
    port = free_port()
    config = folder / 'conf'
    config.write_text(f'listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n'
                      'set_tcp_nodelay true\n')
    ends.append(subprocess.Popen(['mosquitto', '-c', str(config)], stderr=subprocess.DEVNULL))
    addresses = []
    for site in 'north', 'south':
        bridge = subprocess.Popen(
            [bridge_program, '--team', 'BTC', '--port', '0', '--address', '127.0.0.1',
             '--no-discovery', '--room', 'bench', '--site', site, '--broker',
             f'127.0.0.1:{port}', '--state', str(folder / site)], stdout=subprocess.PIPE, text=True)
        ends.append(bridge)
        addresses.append(bridge.stdout.readline().split()[-1])
        while 'Success' not in bridge.stdout.readline():
            pass
    lines = folder / 'lines'
    lines.write_text(f'{TEXT}\n' * count)
    table = []
    for _ in range(rounds):
        rate, late = load(load_program, 'lan', *addresses, str(count), '500')
        _, late_alone = load(load_program, 'mqtt', str(port), '0', '500')
        table.append((rate, alone(port, count, lines), late, late_alone))
        print('  {:9.0f} {:9.0f}   {:7.0f} {:7.0f}'.format(*table[-1]), flush=True)
    rate, rate_alone, late, late_alone = map(statistics.median, zip(*table))
    print(f'messages a second: {rate:.0f} over two bridges, {rate_alone:.0f} by mosquitto_pub and '
          f'mosquitto_sub alone: {rate / rate_alone:.2f}')
    print(f'latency, median: {late:.0f} us over two bridges, {late_alone:.0f} us over the broker '
          f'alone: {late / late_alone:.2f}')


def main():
    programs, numbers = sys.argv[1:3], [int(word) for word in sys.argv[3:]]
    if not all(map(shutil.which, ['mosquitto', 'mosquitto_pub', 'mosquitto_sub'])):
        print('skipped: mosquitto, mosquitto_pub and mosquitto_sub are not all installed')
        sys.exit(77)
    count, rounds = (numbers + [20000, 5][len(numbers):])[:2]
    ends = []
    try:
        with tempfile.TemporaryDirectory(prefix='p2pchat-') as folder:
            pathlib.Path(folder).chmod(0o755)
            measure(*programs, count, rounds, pathlib.Path(folder), ends)
    finally:
        for program in reversed(ends):
            program.kill()
            program.wait()


main()
