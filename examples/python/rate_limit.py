"""A rate limit: a number of requests per client and window, counted by INCR and EXPIRE NX.

    python examples/python/rate_limit.py

The libraries that count by Lua need EVAL, which Olivia does not have; these two commands are enough.
"""

import os

import redis


class RateLimit:
    """At most `limit` requests per `window_seconds` and client. The window begins with the first request."""

    def __init__(self, client, limit, window_seconds):
        self.client = client
        self.limit = limit
        self.window_seconds = window_seconds

    def allows(self, who):
        """Counts a request. Returns whether it is within the limit, and the seconds until the window ends."""
        key = f"rate:{who}"
        with self.client.pipeline() as pipe:
            count, _, seconds = pipe.incr(key).expire(key, self.window_seconds, nx=True).ttl(key).execute()
        return count <= self.limit, seconds


if __name__ == "__main__":
    limit = RateLimit(redis.Redis.from_url(os.environ.get("OLIVIA_URL", "redis://127.0.0.1:5454/0")), 3, 2)
    for request in range(1, 6):
        allowed, seconds = limit.allows("203.0.113.7")
        print(f"request {request}: {'allowed' if allowed else f'refused for {seconds} s'}")
