#!/usr/bin/env python3
"""A stand-in for other programs of the original's course, with the habit that is named.

    kin.py HABIT ADDRESS PORT     prints what it receives, sends the lines `IP PORT BYTES`

    claims_loopback   says that it is 127.0.1.1, as gethostbyname(gethostname()) does on Debian
    claims_yours      says that it has the recipient's address
    reads_to_end      reads until the end of the stream before it closes
    keeps_open        reads once, and closes with its next connection
    at_form           writes `<address> @ <team>`, the text and `<end>` on lines of their own
    restarts          closes at once, and its listener has no SO_REUSEADDR: `restart` on its input
    says_goodbye      closes at once; it leaves by a word of its own, which the test types

Of BYTES, `\\n` is a line end; they follow sender and team, or `!` sends them as they are.

SPDX-License-Identifier: MIT
"""

import socket
import sys
import threading

HABIT, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
kept = []


def receive(connection):
    data = connection.recv(1024)
    while HABIT == 'reads_to_end' and (more := connection.recv(1024)):
        data += more
    print('received ' + data.decode(errors='replace').strip(), flush=True)
    while kept:
        kept.pop().close()
    if HABIT == 'keeps_open':
        kept.append(connection)
    else:
        connection.close()


def listen():
    listener = socket.socket()
    try:
        listener.bind(('', PORT))
    except OSError as error:
        print(f'cannot listen: {error}', flush=True)
        return None, None
    listener.listen()
    print('listening', flush=True)

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            receive(connection)

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    return listener, serving


def message(to, text):
    claims = {'claims_loopback': '127.0.1.1', 'claims_yours': to}
    sender = f'{claims.get(HABIT, ADDRESS)}:{PORT}'
    if text.startswith('!'):
        return text[1:]
    if HABIT == 'at_form':
        return f'<{sender}> @ <Kin>\n{text}\n<end>'
    return f'{sender} Kin {text}'


listening, serving = listen()
for line in sys.stdin:
    if line == 'restart\n':
        listening.shutdown(socket.SHUT_RDWR)
        serving.join()  # in accept() it would hold the port
        listening.close()
        listening, serving = listen()
        continue
    to, port, text = line.rstrip('\n').replace('\\n', '\n').split(' ', 2)
    with socket.create_connection((to, int(port))) as connection:
        connection.sendall(message(to, text).encode())
