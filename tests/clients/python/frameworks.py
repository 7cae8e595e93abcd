"""The examples of docs/frameworks.md, run as a user runs them, and the interfaces of the caches that they show.

Usage: frameworks.py PORT
"""

import contextlib
import http.cookiejar
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request

import django
import redis
from django.conf import settings
from dogpile.cache import make_region

from checks import Checks, supported

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PYTHON_EXAMPLES = os.path.join(ROOT, "examples", "python")
NODE_EXAMPLES = os.path.join(ROOT, "target", "clients", "examples")
START_SECONDS_MAX = 30

sys.path.insert(0, PYTHON_EXAMPLES)
from lock import Lock  # noqa: E402
from rate_limit import RateLimit  # noqa: E402

PORT = int(sys.argv[1])
URL = f"redis://127.0.0.1:{PORT}/0"
BACKENDS = {
    "built-in": "django.core.cache.backends.redis.RedisCache",
    "django-redis": "django_redis.cache.RedisCache",
}
settings.configure(
    CACHES={
        name: {"BACKEND": backend, "LOCATION": URL, "KEY_PREFIX": name, "TIMEOUT": 300}
        for name, backend in (BACKENDS | {"default": BACKENDS["built-in"]}).items()
    }
)
django.setup()
from django.core.cache import caches  # noqa: E402
from django_redis import get_redis_connection  # noqa: E402

checks = Checks()
needs = checks.needs
HAS = supported(PORT)


def environment():
    return os.environ | {"OLIVIA_URL": URL, "PORT": "0"}


def output(*command):
    """What an example prints that ends by itself."""
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def python(name, *args):
    return [sys.executable, "-B", os.path.join(PYTHON_EXAMPLES, name), *args]


def node(name):
    return ["node", os.path.join(NODE_EXAMPLES, name)]


@contextlib.contextmanager
def site(*command):
    """A function that sends a request to a path of the running example."""
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(START_SECONDS_MAX, process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
        assert line.startswith("http://"), f"{command}: {line}{process.stderr.read()}"
        base = line[: line.index("/", len("http://"))]

        def ask(path, browser=urllib.request.build_opener(), method="GET"):
            request = urllib.request.Request(base + path, method=method)
            with browser.open(request, timeout=20) as reply:
                return json.load(reply)

        yield ask
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


def browser():
    """One visitor: it keeps cookies."""
    return urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))


def fails_for_want_of(command, function):
    try:
        function()
    except redis.ResponseError as error:
        assert str(error).startswith(f"unknown command '{command}'"), error
    else:
        raise AssertionError(f"no error, though {command} does not exist")


@needs("SET EX", "GET", "INCRBY", "EXISTS")
def django_site():
    for flags in [], ["--django-redis"]:
        with site(*python("django_cache.py", *flags)) as ask, site(*python("django_cache.py", *flags)) as other:
            assert ask("/report") == ask("/report") == other("/report"), flags
            one, two = browser(), browser()
            assert [ask("/visits", one)["visits"], other("/visits", one)["visits"]] == [1, 2], flags
            assert ask("/visits", two)["visits"] == 1, flags
            before = ask("/hits")["hits"]
            assert other("/hits")["hits"] == before + 1, flags


@needs("SET EX", "MGET", "MSET", "EXPIRE", "PERSIST", "FLUSHDB", "SCAN", "TTL")
def django_backends():
    for name in BACKENDS:
        cache = caches[name]
        cache.set("k", {"a": [1, 2]}, 60)
        assert cache.get("k") == {"a": [1, 2]} and "k" in cache
        assert cache.get("nope", "default") == "default"
        assert not cache.add("k", 1) and cache.add("new", 1)
        assert cache.get_or_set("other", lambda: 5) == 5
        cache.set_many({"m1": 1, "m2": "two"}, timeout=60)
        assert cache.get_many(["m1", "m2", "m3"]) == {"m1": 1, "m2": "two"}
        cache.delete_many(["m1", "m2"])
        assert cache.get_many(["m1", "m2"]) == {}
        assert cache.touch("k", 0.05 if name == "django-redis" else 1) and not cache.touch("nope", 60)
        time.sleep(1.1)
        assert cache.get("k") is None
        cache.set("n", 1, timeout=None)
        assert cache.incr("n", 4) == 5 and cache.decr("n") == 4
        assert cache.delete("n") and not cache.delete("n")
        cache.set("version", "old", version=1)
        assert cache.incr_version("version") == 2 and cache.get("version", version=2) == "old"
        cache.clear()
        assert cache.get("new") is None


@needs("SCAN", "TTL", "PTTL", "PERSIST", "EXPIRE")
def django_redis_extensions():
    cache = caches["django-redis"]
    cache.set("a:1", 1, timeout=50)
    cache.set("a:2", 2, timeout=None)
    assert 49 <= cache.ttl("a:1") <= 50 and cache.ttl("a:2") is None
    assert cache.expire("a:2", 20) and cache.persist("a:2") and cache.ttl("a:2") is None
    assert sorted(cache.iter_keys("a:*")) == sorted(cache.keys("a:*")) == ["a:1", "a:2"]
    assert cache.delete_pattern("a:*") == 2
    assert get_redis_connection("django-redis").incr("counter") == 1
    cache.clear()


@needs("SET EX", "GET", "DEL")
def flask_site():
    with site(*python("flask_cache.py")) as ask, site(*python("flask_cache.py")) as other:
        assert ask("/now") == other("/now")
        first = ask("/square/12")
        assert first["square"] == 144 and other("/square/12") == first
        ask("/forget", method="POST")
        assert other("/square/12")["computed_at"] > first["computed_at"]


@needs("SET NX", "DELIFEQ", "SETEX")
def dogpile_computes_once_in_two_processes():
    redis.Redis.from_url(URL).flushdb()
    processes = [
        subprocess.Popen(python("dogpile_cache.py"), env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    reports = [process.communicate(timeout=60)[0].splitlines()[0] for process in processes]
    assert reports[0].startswith("report of") and reports[0] == reports[1], reports


@needs("SET NX", "DELIFEQ")
def lock():
    printed = output(*python("lock.py"))
    assert [line.rsplit(": ")[1] for line in printed.splitlines()] == ["True", "False", "True", "True", "True"]
    client = redis.Redis.from_url(URL)
    # Eight threads take turns: each adds one by GET and SET, which only a lock makes safe.
    client.set("turns", 0)

    def take_turns():
        for _ in range(25):
            with Lock(redis.Redis.from_url(URL), "turns"):
                client.set("turns", int(client.get("turns")) + 1)

    threads = [threading.Thread(target=take_turns) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("turns") == b"200"
    late = Lock(client, "late", ttl_ms=40)
    assert late.acquire(wait=False)
    time.sleep(0.06)
    next_one = Lock(client, "late")
    assert next_one.acquire(wait=False)
    assert not late.release() and next_one.release()


@needs("INCR", "EXPIRE NX", "TTL")
def rate_limit():
    client = redis.Redis.from_url(URL)
    client.delete("rate:203.0.113.7")
    printed = output(*python("rate_limit.py"))
    assert [line.split(": ")[1].split()[0] for line in printed.splitlines()] == ["allowed"] * 3 + ["refused"] * 2
    limit = RateLimit(client, 2, 2)
    assert [limit.allows("window")[0] for _ in range(3)] == [True, True, False]
    time.sleep(2.1)
    assert limit.allows("window") == (True, 2)


@needs("SET EX", "GET", "EXPIRE", "DEL")
def express_sessions():
    with site(*node("sessions.mjs")) as ask, site(*node("sessions.mjs")) as other:
        one = browser()
        assert [ask("/", one)["visits"], other("/", one)["visits"], ask("/", browser())["visits"]] == [1, 2, 1]
        ask("/logout", one, method="POST")
        assert other("/", one)["visits"] == 1


@needs("SET PX", "MGET", "SCAN", "DEL", "MULTI")
def cache_manager():
    assert output(*node("cache.mjs")).splitlines() == [
        "{ square: 144 } { square: 144 } computed 1 time(s)",
        "a and b: [ 1, [ 2 ] ]",
        "1.2 s later: [ 1, undefined ]",
        "after del: undefined",
    ]


@needs()
def what_needs_eval_says_so():
    if "EVAL" in HAS:  # this is Redis
        return
    client = redis.Redis.from_url(URL)
    fails_for_want_of("EVAL", lambda: client.eval("return 1", 0))
    held = client.lock("redis-py", timeout=1)
    assert held.acquire(blocking=False)
    fails_for_want_of("EVALSHA", held.release)
    arguments = {"url": URL, "distributed_lock": True, "lock_timeout": 1, "thread_local_lock": False}
    region = make_region().configure("dogpile.cache.redis", arguments=arguments)
    fails_for_want_of("EVALSHA", lambda: region.get_or_create("distributed", lambda: 1))


checks.run("frameworks", HAS)
checks.finish("frameworks")
