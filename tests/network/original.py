#!/usr/bin/env python3
"""A stand-in for the Python original, written from its description: one recv(1024), then close.

    original.py TEAM ADDRESS PORT     prints what it receives, sends the lines `IP PORT TEXT`

SPDX-License-Identifier: MIT
"""

import socket
import sys
import threading

TEAM, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


def receive(connection):
    with connection:
        words = connection.recv(1024).decode(errors='replace').split()
    if len(words) < 3:
        return
    sender, team, text = words[0], words[1], ' '.join(words[2:])
    goes = text.lower() == 'exit'
    print(f'{sender} ({team}) disconnected.' if goes else f'{sender} {team} {text}', flush=True)


def serve(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=receive, args=(connection,), daemon=True).start()


def send(address, port, text):
    with socket.create_connection((address, int(port))) as connection:
        connection.sendall(f'{ADDRESS}:{PORT} {TEAM} {text}'.encode())


listening = socket.create_server(('', PORT))
threading.Thread(target=serve, args=(listening,), daemon=True).start()
print('listening', flush=True)
for line in sys.stdin:
    send(*line.rstrip('\n').split(' ', 2))
