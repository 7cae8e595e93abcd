"""redis-cli: one-shot, interactive on a terminal, --pipe, --scan and its watching modes. Usage: cli.py PORT"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from checks import Checks, supported

checks = Checks()
needs = checks.needs


def cli(port, *args, stdin=b""):
    """The output of redis-cli."""
    command = ["redis-cli", "-p", str(port), *args]
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=20)
    assert result.returncode == 0, result
    return result.stdout.decode()


def array(*args):
    """A request."""
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


@needs("SET", "GET", "DEL")
def one_shot(port):
    for options in [[], ["-3"]]:
        assert cli(port, *options, "SET", "k", "a b") == "OK\n"
        assert cli(port, *options, "GET", "k") == "a b\n"
        assert cli(port, *options, "--no-raw", "GET", "k") == '"a b"\n'
        assert cli(port, *options, "--no-raw", "GET", "nope") == "(nil)\n"
        assert cli(port, *options, "DEL", "k") == "1\n"


@needs("SET", "MGET", "DEL")
def arrays_are_shown(port):
    cli(port, "SET", "a", "1")
    assert cli(port, "--no-raw", "MGET", "a", "nope") == '1) "1"\n2) (nil)\n'
    cli(port, "DEL", "a")


@needs("GET")
def errors_are_shown(port):
    assert "ERR wrong number of arguments for 'get' command" in cli(port, "GET")
    assert "ERR unknown command 'NOSUCH'" in cli(port, "NOSUCH", "a")


@needs("SET", "GET", "DEL")
def value_from_standard_input(port):
    value = bytes(byte for byte in range(256) if byte != 0) * 50
    assert cli(port, "-x", "SET", "k", stdin=value) == "OK\n"
    command = ["redis-cli", "-p", str(port), "GET", "k"]
    assert subprocess.run(command, capture_output=True, timeout=20).stdout == value + b"\n"
    cli(port, "DEL", "k")


@needs("SET", "DEL", "INCR", "ECHO")
def mass_insertion_by_pipe(port):
    requests = b"".join(array(b"SET", b"pipe:%d" % at, b"v" * 100) for at in range(20_000))
    output = cli(port, "--pipe", stdin=requests)
    assert "errors: 0, replies: 20000" in output, output
    requests = b"".join(array(b"DEL", b"pipe:%d" % at) for at in range(20_000))
    assert "errors: 0, replies: 20000" in cli(port, "--pipe", stdin=requests)


@needs("INCR", "DEL")
def request_repeated(port):
    assert cli(port, "-r", "3", "INCR", "n") == "1\n2\n3\n"
    cli(port, "DEL", "n")


class Terminal:
    """redis-cli on a terminal of its own."""

    def __init__(self, port, *args):
        self.seen = b""
        self.process, self.file = pty.fork()
        if self.process == 0:
            # Without a size redis-cli would ask the terminal for it.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            os.execvp("redis-cli", ["redis-cli", "-p", str(port), *args])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.file)

    def type(self, line):
        os.write(self.file, line + b"\r")

    def expect(self, pattern):
        """Reads on until the pattern has come."""
        end = time.monotonic() + 15
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.file], [], [], max(0, end - time.monotonic()))
            assert ready, f"{pattern!r} does not come: {self.seen!r}"
            self.seen += os.read(self.file, 65_536)
        self.seen = self.seen[found.end() :]


@needs("SET", "GET", "DEL")
def interactive_on_a_terminal(port):
    with Terminal(port) as terminal:
        # redis-cli drops what is typed before its prompt.
        prompt = b"127.0.0.1:%d> " % port
        terminal.expect(prompt)
        for typed, shown in [
            (b"set term 'a b'", b"OK\r\n"),
            (b"get term", b'"a b"\r\n'),
            (b"get nope", rb"\(nil\)\r\n"),
            (b"del term", rb"\(integer\) 1\r\n"),
            (b"get", rb"\(error\) ERR wrong number of arguments for 'get' command\r\n"),
        ]:
            terminal.type(typed)
            terminal.expect(shown + prompt)


@needs("SCAN", "SET", "DEL")
def scan_mode(port):
    for at in range(30):
        cli(port, "SET", f"scan:{at}", "1")
    keys = cli(port, "--scan", "--pattern", "scan:*").split()
    assert sorted(keys) == sorted(f"scan:{at}" for at in range(30)), keys
    cli(port, "DEL", *keys)


@needs("SCAN", "SET", "DEL", "TYPE", "STRLEN", "DBSIZE", "MEMORY")
def big_keys(port):
    cli(port, "SET", "big", "x" * 5_000)
    cli(port, "SET", "small", "x")
    assert re.search(r"Biggest string found .*big.* has 5000 bytes", cli(port, "--bigkeys"))
    assert re.search(r"Biggest string found .*big.* has [5-9]\d{3} bytes", cli(port, "--memkeys"))
    cli(port, "DEL", "big", "small")


@needs("INFO")
def stat_mode(port):
    with Terminal(port, "--stat", "-i", "0.1") as terminal:
        for _ in range(3):
            terminal.expect(rb"\n\d+ +[\d.]+[KMG]? +\d+ +\d+ +\d+ \(\+\d+\) +\d+")


@needs("PING")
def latency_mode(port):
    lowest, highest, mean, count = cli(port, "--latency", "--raw", "-i", "0.5").split()[:4]
    assert int(count) > 5 and float(lowest) <= float(mean) <= float(highest) < 1_000, (lowest, highest, mean, count)


port = int(sys.argv[1])
checks.run("redis-cli", supported(port), port)
checks.finish("redis-cli")
