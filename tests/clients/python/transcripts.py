"""Plays tests/sessions/redis/*.txt on a server: shows that redis-server sends the expected replies.

Usage: transcripts.py PORT. The marks of a transcript are described in tests/sessions.rs. Transcripts that say
"Not as redis-server 7.0" or need a configuration are left out.
"""

import fnmatch
import glob
import os
import re
import socket
import sys
import time

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "sessions", "redis")


def unescape(text):
    """The bytes of a text with the escapes of transcripts."""
    out = b""
    while text:
        if text[0] != "\\":
            out += text[0].encode()
            text = text[1:]
            continue
        kind, text = text[1], text[2:]
        if kind in "nr\\":
            out += {"n": b"\n", "r": b"\r", "\\": b"\\"}[kind]
        elif kind == "x":
            out += bytes([int(text[:2], 16)])
            text = text[2:]
        elif kind == "*":
            count, what, text = re.match(r"(\d+)\{(.*?)\}(.*)", text, re.DOTALL).groups()
            out += unescape(what) * int(count)
        else:
            raise ValueError(f"no such escape: {kind}")
    return out


def request(line):
    """The words of a line as a request."""
    words = [b"" if word == '""' else unescape(word) for word in line.split(" ")]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Connection:
    """A client of a transcript."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.received = b""

    def read(self, is_enough):
        while not is_enough(self.received):
            piece = self.socket.recv(65_536)
            assert piece, f"closed after {self.received!r}"
            self.received += piece

    def take(self, count):
        taken, self.received = self.received[:count], self.received[count:]
        return taken


def play(path, port):
    """Goes through one transcript."""
    clients = {}
    name = "a"
    Connection(port).socket.sendall(request("FLUSHALL"))
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    for number, line in enumerate(lines, 1):
        mark, _, rest = line.partition(" ")
        if mark in ("", "#", "?"):
            continue
        if mark == "%":
            name = rest
            continue
        if mark == "@":
            count, unit = re.match(r"\+(\d+)(ms|s)$", rest).groups()
            time.sleep(int(count) / (1000 if unit == "ms" else 1))
            continue
        client = clients.setdefault(name, None) or Connection(port)
        clients[name] = client
        where = f"{os.path.basename(path)}:{number}"
        if mark == "*":
            client.socket.sendall(request(rest))
        elif mark == ">>":
            client.socket.sendall(unescape(rest))
        elif mark == "<<":
            expected = unescape(rest)
            client.read(lambda received, least=len(expected): len(received) >= least)
            got = client.take(len(expected))
            assert got == expected, f"{where}: {got!r} instead of {expected!r}"
        elif mark == "~":
            client.read(lambda received: b"\n" in received)
            got = client.take(client.received.index(b"\n") + 1).decode().rstrip("\r\n")
            assert fnmatch.fnmatchcase(got, rest.replace("[", "[[]")), f"{where}: {got!r} is not like {rest!r}"
        elif line == "= close":
            try:
                assert client.received == b"" and client.socket.recv(1) == b"", f"{where}: not closed"
            except ConnectionResetError:
                pass
        else:
            raise ValueError(f"{where}: what is {line!r}?")
    for name, client in clients.items():
        client.socket.settimeout(0.02)
        try:
            client.received += client.socket.recv(65_536)
        except OSError:
            pass
        assert client.received == b"", f"{os.path.basename(path)}: {name} got {client.received!r} at the end"


def main():
    failed = 0
    paths = sorted(glob.glob(os.path.join(FOLDER, "*.txt")))
    for path in paths:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if "Not as redis-server 7.0" in text or "\n$ " in text:
            continue
        try:
            play(path, int(sys.argv[1]))
        except (AssertionError, OSError) as error:
            failed += 1
            print(f"FAILED {os.path.basename(path)}: {error}", file=sys.stderr)
    print(f"transcripts: {len(paths)}, {failed} failed")
    sys.exit(1 if failed else 0)


main()
