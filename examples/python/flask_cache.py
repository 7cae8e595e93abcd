"""A Flask application whose views and functions are cached in Olivia by Flask-Caching.

    python examples/python/flask_cache.py

Then: curl http://127.0.0.1:8000/square/12
Environment: OLIVIA_URL (redis://127.0.0.1:5454/0; with a password redis://:PASSWORD@HOST:PORT/0), PORT (8000).
"""

import os
import time
from wsgiref.simple_server import make_server

from flask import Flask
from flask_caching import Cache

app = Flask(__name__)
app.config.update(
    CACHE_TYPE="RedisCache",
    CACHE_REDIS_URL=os.environ.get("OLIVIA_URL", "redis://127.0.0.1:5454/0"),
    CACHE_KEY_PREFIX="flask:",
    CACHE_DEFAULT_TIMEOUT=300,
)
cache = Cache(app)


@app.get("/now")
@cache.cached(timeout=60)
def now():
    """A view that is computed once per minute."""
    return {"computed_at": time.time_ns()}


@cache.memoize(timeout=60)
def square(number):
    """A function that is computed once per minute and argument."""
    return {"square": number * number, "computed_at": time.time_ns()}


@app.get("/square/<int:number>")
def square_of(number):
    return square(number)


@app.post("/forget")
def forget():
    """Removes the results of square() for all arguments."""
    cache.delete_memoized(square)
    return {}


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), app) as server:
        print(f"http://127.0.0.1:{server.server_port}/now", flush=True)
        server.serve_forever()
