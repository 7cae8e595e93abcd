"""A lock that one process holds at a time: SET NX PX takes it, DELIFEQ releases it if it is still ours.

    python examples/python/lock.py

docs/frameworks.md has the limits of this lock. redis-py's own Lock needs EVAL, which Olivia does not have.
"""

import os
import secrets
import time

import redis


class Lock:
    """A lock by name. It expires after `ttl_ms`, so that a process that dies does not keep it."""

    def __init__(self, client, name, ttl_ms=10_000):
        self.client = client
        self.key = f"lock:{name}"
        self.ttl_ms = ttl_ms
        self.token = None

    def acquire(self, wait=True):
        """Takes the lock; with `wait`, tries until it is free. Returns whether the lock was taken."""
        token = secrets.token_hex(16)
        while not self.client.set(self.key, token, nx=True, px=self.ttl_ms):
            if not wait:
                return False
            time.sleep(0.02 + secrets.randbelow(30) / 1000)
        self.token = token
        return True

    def release(self):
        """Releases the lock. Returns False if it was no longer ours, since it was held for longer than `ttl_ms`."""
        token, self.token = self.token, None
        return token is not None and self.client.execute_command("DELIFEQ", self.key, token) == 1

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *_):
        self.release()


if __name__ == "__main__":
    url = os.environ.get("OLIVIA_URL", "redis://127.0.0.1:5454/0")
    first, second = (Lock(redis.Redis.from_url(url), "report") for _ in range(2))
    print("first takes it:", first.acquire(wait=False))
    print("second takes it meanwhile:", second.acquire(wait=False))
    print("first releases it:", first.release())
    print("second takes it then:", second.acquire(wait=False))
    print("second releases it:", second.release())
