"""A function whose result is computed once, however many processes request it at the same time: dogpile.cache.

    python examples/python/dogpile_cache.py

`distributed_lock=True` of dogpile's Redis backend needs EVAL; the mutex of lock.py takes its place.
"""

import os
import time

from dogpile.cache import make_region
from dogpile.cache.proxy import ProxyBackend

from lock import Lock


class Mutex:
    """The lock in the form that dogpile expects."""

    def __init__(self, client, key):
        self.lock = Lock(client, key)

    def acquire(self, wait=True):
        return self.lock.acquire(wait)

    def release(self):
        self.lock.release()

    def locked(self):
        return self.lock.client.exists(self.lock.key) == 1


class OneComputation(ProxyBackend):
    """A backend whose mutex of a key is shared by all processes."""

    def get_mutex(self, key):
        return Mutex(self.proxied.writer_client, key)


region = make_region(key_mangler=lambda key: f"dogpile:{key}").configure(
    "dogpile.cache.redis",
    expiration_time=60,
    arguments={
        "url": os.environ.get("OLIVIA_URL", "redis://127.0.0.1:5454/0"),
        # A little longer than expiration_time, so that an old value can be served while a new one is computed.
        "redis_expiration_time": 120,
    },
    wrap=[OneComputation],
)


@region.cache_on_arguments()
def report(day):
    """A function that takes a second."""
    time.sleep(1)
    return f"report of {day}, computed by process {os.getpid()}"


if __name__ == "__main__":
    begin = time.monotonic()
    print(report(time.strftime("%A")))
    print(f"after {time.monotonic() - begin:.1f} s")
