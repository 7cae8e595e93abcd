#!/usr/bin/env python3
"""Runs every client of tests/clients on a server that it starts and ends.

Usage: run.py [--redis] [NAME ...]
  --redis  on redis-server instead of target/debug/olivia: shows that the checks hold for Redis
  NAME     libraries, node, cli, benchmark, frameworks, metrics, and with --redis transcripts; default: all
  metrics tests Olivia only
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.join(ROOT, "tests", "clients")
HOME = os.path.join(ROOT, "target", "clients")
PYTHON = os.path.join(HOME, "python", "bin", "python")

PROGRAMS = {
    "libraries": [PYTHON, "-B", os.path.join(HERE, "python", "libraries.py")],
    "node": ["node", os.path.join(HOME, "node", "libraries.mjs")],
    "cli": [PYTHON, "-B", os.path.join(HERE, "python", "cli.py")],
    "benchmark": [PYTHON, "-B", os.path.join(HERE, "python", "benchmark.py")],
    "frameworks": [PYTHON, "-B", os.path.join(HERE, "python", "frameworks.py")],
    "metrics": [PYTHON, "-B", os.path.join(HERE, "python", "metrics.py")],
}

# Conversations that are tests of ours; here they are held with Redis.
ON_REDIS = {"transcripts": [PYTHON, "-B", os.path.join(HERE, "python", "transcripts.py")]}

# Each program may take so long. A server is looked for every 10 ms, so many times.
TIMEOUT_SECONDS = 300
START_LOOKS = 6000


def start_olivia(folder):
    """The process and its port."""
    log = open(os.path.join(folder, "log"), "w+")
    program = os.path.join(ROOT, "target", "debug", "olivia")
    process = subprocess.Popen([program, "--config", "/dev/null", "--port", "0"], cwd=folder, env={}, stderr=log)
    port = None
    for _ in range(START_LOOKS):
        log.seek(0)
        found = re.search(r"listens on \S*:(\d+)", log.read())
        if found or process.poll() is not None:
            port = found and int(found.group(1))
            break
        time.sleep(0.01)
    if not port:
        process.kill()
        log.seek(0)
        sys.exit("olivia does not start: " + log.read())
    return process, port


def start_redis(folder):
    """The process and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]
    process = subprocess.Popen([shutil.which("redis-server"), *options], cwd=folder, stdout=subprocess.DEVNULL)
    for _ in range(START_LOOKS):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except OSError:
            time.sleep(0.01)
    process.kill()
    sys.exit("redis-server does not start")


def main():
    words = sys.argv[1:]
    is_redis = "--redis" in words
    programs = PROGRAMS | ON_REDIS if is_redis else PROGRAMS
    if is_redis:
        programs.pop("metrics")
    names = [word for word in words if word != "--redis"] or list(programs)
    unknown = [name for name in names if name not in programs]
    if unknown:
        sys.exit(f"unknown: {unknown}; there are {list(programs)}")
    # Node.js finds its packages beside the program.
    shutil.copy(os.path.join(HERE, "node", "libraries.mjs"), os.path.join(HOME, "node"))
    for name in "sessions.mjs", "cache.mjs":
        shutil.copy(os.path.join(ROOT, "examples", "node", name), os.path.join(HOME, "examples"))
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        process, port = (start_redis if is_redis else start_olivia)(folder)
        try:
            for name in names:
                begin = time.monotonic()
                try:
                    code = subprocess.run([*programs[name], str(port)], timeout=TIMEOUT_SECONDS).returncode
                except subprocess.TimeoutExpired:
                    code = "no end"
                print(f"{name}: {time.monotonic() - begin:.1f} s", flush=True)
                if code != 0:
                    failed.append(f"{name} ({code})")
            if process.poll() is not None:
                failed.append(f"the server ended with {process.returncode}")
        finally:
            process.terminate()
            process.wait(TIMEOUT_SECONDS)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


main()
