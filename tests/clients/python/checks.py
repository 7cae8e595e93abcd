"""The shared part of the clients in tests/clients: checks that name the commands they need, and their count.

A check of a command that the server does not have is skipped, and named at the end. Commands in REQUIRED are
never skipped.
"""

import socket
import sys
import traceback

REQUIRED = {"PING", "HELLO", "GET", "SET", "MGET", "DEL", "INCR", "COMMAND"}

# Options that a server may lack: the request that shows whether it has them.
OPTIONS = {
    "SET EX": ["SET", "probe", "v", "EX", "100"],
    "SET PX": ["SET", "probe", "v", "PX", "100000"],
    "SET NX": ["SET", "probe", "v", "NX"],
    "SET GET": ["SET", "probe", "v", "GET"],
    "SET KEEPTTL": ["SET", "probe", "v", "KEEPTTL"],
    "EXPIRE NX": ["EXPIRE", "probe", "100", "NX"],
    "CLIENT SETNAME": ["CLIENT", "SETNAME", "probe"],
    "CLIENT ID": ["CLIENT", "ID"],
}


class Raw:
    """The least client: one request, one reply."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.socket.makefile("rb")

    def __call__(self, *args):
        out = b"*%d\r\n" % len(args)
        for arg in args:
            arg = arg if isinstance(arg, bytes) else str(arg).encode()
            out += b"$%d\r\n%b\r\n" % (len(arg), arg)
        self.socket.sendall(out)
        return self.reply()

    def reply(self):
        line = self.file.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Exception(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
        raise AssertionError(f"no RESP2 reply: {line!r}")


def supported(port):
    """The commands and options of the server."""
    raw = Raw(port)
    names = {entry[0].decode().upper() for entry in raw("COMMAND")}
    missing = REQUIRED - names
    assert not missing, f"COMMAND lacks {sorted(missing)}"
    names |= {name for name, request in OPTIONS.items() if not isinstance(raw(*request), Exception)}
    raw("DEL", "probe")
    return names


class Checks:
    """The checks of one program."""

    def __init__(self):
        self.all = []
        self.passed = 0
        self.failed = 0
        self.skipped = {}

    def needs(self, *commands):
        """Marks a function as a check that uses these commands or options."""

        def mark(function):
            self.all.append((function, commands))
            return function

        return mark

    def run(self, label, has, *args):
        """Runs every check whose commands are in `has`."""
        for function, commands in self.all:
            lacks = [command for command in commands if command not in has]
            if lacks:
                self.skipped[function.__name__] = lacks
                continue
            try:
                function(*args)
                self.passed += 1
            except Exception:  # noqa: BLE001 - whatever a client raises is a failure
                self.failed += 1
                print(f"FAILED {label}: {function.__name__}", file=sys.stderr)
                traceback.print_exc(limit=3)

    def finish(self, program):
        """Prints the sum and ends the program with it."""
        print(f"{program}: {self.passed} passed, {self.failed} failed, {len(self.skipped)} skipped")
        for name, lacks in sorted(self.skipped.items()):
            print(f"  skipped {name}: no {', '.join(lacks)}")
        sys.exit(1 if self.failed else 0)
