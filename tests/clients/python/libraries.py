"""redis-py and valkey-py, each in RESP2 and RESP3, with and without asyncio. Usage: libraries.py PORT"""

import asyncio
import sys
import threading
import time

import redis
import redis.asyncio
import valkey
import valkey.asyncio

from checks import Checks, supported

checks = Checks()
needs = checks.needs


def raises(client, text, *args):
    """The request gets an error that begins so."""
    try:
        reply = client.execute_command(*args)
    except Exception as error:  # noqa: BLE001 - each library has its own class
        assert str(error).startswith(text), f"{args}: {error}"
    else:
        raise AssertionError(f"{args}: {reply!r} instead of an error")


@needs("PING")
def ping(make, _):
    assert make().ping() is True


@needs("ECHO")
def echo(make, _):
    assert make().echo("a b\r\n") == b"a b\r\n"


@needs("HELLO")
def hello_reports_the_protocol(make, protocol):
    reply = make().execute_command("HELLO", protocol)
    if isinstance(reply, list):
        reply = dict(zip(reply[::2], reply[1::2]))
    assert reply[b"proto"] == protocol, reply
    assert set(reply) >= {b"server", b"version", b"proto", b"id", b"mode", b"role", b"modules"}, reply


@needs("HELLO")
def hello_of_another_version_is_refused(make, _):
    raises(make(), "NOPROTO", "HELLO", 4)


@needs("SET", "GET", "DEL")
def value_reads_back(make, _):
    client = make()
    for key, value in [("k", b"v"), ("", b""), (b"\r\n\0:,\"", bytes(range(256))), ("grüße", "ü".encode())]:
        assert client.set(key, value) is True
        assert client.get(key) == value, key
        assert client.delete(key) == 1
        assert client.get(key) is None


@needs("SET", "GET", "DEL")
def large_value_reads_back(make, _):
    client = make()
    for size in [16_383, 65_536, 1_000_003, 8_000_000]:
        value = b"0123456789abcdef" * (size // 16 + 1)
        assert client.set("large", value[:size]) is True
        assert client.get("large") == value[:size], size
    assert client.delete("large") == 1


@needs("SET", "MGET", "DEL")
def mget_keeps_order_and_shows_what_is_missing(make, _):
    client = make()
    client.set("a", 1)
    client.set("b", 2)
    assert client.mget("b", "nope", "a", "b") == [b"2", None, b"1", b"2"]
    assert client.delete("a", "b", "b", "nope") == 2


@needs("INCR", "SET", "GET", "DEL")
def incr_counts(make, _):
    # Client.incr() sends INCRBY.
    client = make()
    client.delete("n")
    assert [client.execute_command("INCR", "n") for _ in range(3)] == [1, 2, 3]
    assert client.get("n") == b"3"
    client.set("n", "9223372036854775807")
    raises(client, "increment or decrement would overflow", "INCR", "n")
    client.set("n", "12x")
    raises(client, "value is not an integer or out of range", "INCR", "n")
    assert client.get("n") == b"12x"
    client.delete("n")


@needs("GET", "SET", "DEL")
def errors_have_their_texts(make, _):
    client = make()
    raises(client, "unknown command 'NOSUCH', with args beginning with: 'a' 'b'", "NOSUCH", "a", "b")
    raises(client, "wrong number of arguments for 'get' command", "GET")
    raises(client, "wrong number of arguments for 'get' command", "GET", "a", "b")
    raises(client, "wrong number of arguments for 'set' command", "SET", "a")
    assert client.ping() is True


@needs("SET", "GET", "INCR", "DEL")
def long_pipeline_is_answered_in_order(make, _):
    client = make()
    with client.pipeline(transaction=False) as pipe:
        for number in range(3_000):
            pipe.set(f"p{number}", number)
            pipe.get(f"p{number}")
            pipe.execute_command("INCR", f"p{number}")
        replies = pipe.execute()
    expected = [reply for number in range(3_000) for reply in (True, b"%d" % number, number + 1)]
    assert replies == expected
    assert client.delete(*(f"p{number}" for number in range(900))) == 900
    with client.pipeline(transaction=False) as pipe:
        for number in range(900, 3_000):
            pipe.delete(f"p{number}")
        assert pipe.execute() == [1] * 2_100


@needs("INCR", "GET", "DEL")
def threads_share_a_pool(make, _):
    client = make()
    client.delete("shared")

    def count():
        for _ in range(200):
            client.execute_command("INCR", "shared")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("shared") == b"1600"
    client.delete("shared")


@needs("COMMAND")
def commands_are_listed(make, _):
    commands = make().command()
    commands = {str(name).lower(): entry for name, entry in commands.items()}
    assert commands["get"]["arity"] == 2, commands["get"]
    assert commands["mget"]["arity"] == -2, commands["mget"]
    assert make().command_count() == len(commands)


@needs("SET EX", "SET PX", "TTL", "PTTL", "DEL")
def set_with_a_ttl(make, _):
    client = make()
    assert client.set("t", "v", ex=100) is True
    assert 99 <= client.ttl("t") <= 100
    assert client.set("t", "v", px=100_000) is True
    assert 99_000 <= client.pttl("t") <= 100_000
    client.set("t", "v")
    assert client.ttl("t") == -1
    client.delete("t")
    assert client.ttl("t") == -2
    raises(client, "syntax error", "SET", "t", "v", "NOSUCH")
    raises(client, "invalid expire time in 'set' command", "SET", "t", "v", "EX", "0")
    raises(client, "value is not an integer or out of range", "SET", "t", "v", "EX", "soon")


@needs("SET PX", "GET")
def key_expires_on_time(make, _):
    client = make()
    with client.pipeline(transaction=False) as pipe:
        assert pipe.set("soon", "v", px=80).get("soon").execute() == [True, b"v"]
    time.sleep(0.1)
    assert client.get("soon") is None


@needs("SET NX", "GET", "DEL")
def set_if_absent_or_present(make, _):
    client = make()
    client.delete("c")
    assert client.set("c", 1, xx=True) is None
    assert client.set("c", 1, nx=True) is True
    assert client.set("c", 2, nx=True) is None
    assert client.set("c", 3, xx=True) is True
    assert client.get("c") == b"3"
    client.delete("c")


@needs("SET GET", "DEL")
def set_returns_the_old_value(make, _):
    client = make()
    client.delete("g")
    assert client.set("g", 1, get=True) is None
    assert client.set("g", 2, get=True) == b"1"
    client.delete("g")


@needs("SET KEEPTTL", "SET EX", "TTL", "DEL")
def set_keeps_a_ttl(make, _):
    client = make()
    client.set("kt", 1, ex=100)
    client.set("kt", 2, keepttl=True)
    assert 99 <= client.ttl("kt") <= 100
    client.delete("kt")


@needs("EXPIRE", "PERSIST", "TTL", "SET", "DEL")
def expire_and_persist(make, _):
    client = make()
    client.set("e", 1)
    assert client.expire("e", 100)
    assert 99 <= client.ttl("e") <= 100
    assert client.persist("e")
    assert not client.persist("e")
    assert client.ttl("e") == -1
    assert client.expire("e", -1)
    assert client.get("e") is None
    assert not client.expire("e", 100)


@needs("EXISTS", "SET", "DEL")
def exists_counts_each_mention(make, _):
    client = make()
    client.set("x", 1)
    assert client.exists("x", "x", "nope") == 2
    client.delete("x")


@needs("MSET", "MSETNX", "MGET", "DEL")
def mset_sets_all_or_none(make, _):
    client = make()
    assert client.mset({"m1": "a", "m2": "b"}) is True
    assert not client.msetnx({"m2": "c", "m3": "d"})
    assert client.mget("m1", "m2", "m3") == [b"a", b"b", None]
    client.delete("m1", "m2")


@needs("INCRBY", "DECR", "DECRBY", "INCRBYFLOAT", "SET", "DEL")
def numbers_are_changed_in_place(make, _):
    client = make()
    client.set("n", 10)
    assert client.incrby("n", 5) == 15
    assert client.decr("n") == 14
    assert client.decrby("n", 4) == 10
    assert float(client.incrbyfloat("n", 0.5)) == 10.5
    client.delete("n")


@needs("APPEND", "STRLEN", "GETRANGE", "SETRANGE", "GET", "DEL")
def parts_of_a_value(make, _):
    client = make()
    client.delete("s")
    assert client.append("s", "hello") == 5
    assert client.append("s", " world") == 11
    assert client.strlen("s") == 11
    assert client.getrange("s", -5, -1) == b"world"
    assert client.setrange("s", 6, "Redis") == 11
    assert client.get("s") == b"hello Redis"
    assert client.setrange("s", 13, "!") == 14
    assert client.get("s") == b"hello Redis\0\0!"
    client.delete("s")


@needs("GETDEL", "GETEX", "SET", "TTL")
def get_and_change(make, _):
    client = make()
    client.set("g", 1)
    assert client.getex("g", ex=50) == b"1"
    assert 49 <= client.ttl("g") <= 50
    assert client.getdel("g") == b"1"
    assert client.getdel("g") is None


@needs("MULTI", "EXEC", "SET", "GET", "INCRBY", "DEL")
def default_pipeline_is_a_transaction(make, _):
    with make().pipeline() as pipe:
        replies = pipe.set("tx", 1).incr("tx").get("tx").delete("tx").execute()
    assert replies == [True, 2, b"2", 1]


@needs("SCAN", "SET", "DEL")
def scan_returns_every_key(make, _):
    client = make()
    for number in range(500):
        client.set(f"scan:{number}", 1)
    assert set(client.scan_iter("scan:*", count=17)) == {b"scan:%d" % number for number in range(500)}
    assert client.delete(*(f"scan:{number}" for number in range(500))) == 500


@needs("KEYS", "SET", "DEL", "DBSIZE")
def keys_by_pattern(make, _):
    client = make()
    client.set("key:[1]", 1)
    client.set("key:2", 1)
    assert sorted(client.keys("key:?")) == [b"key:2"]
    assert client.keys("key:\\[1\\]") == [b"key:[1]"]
    assert client.dbsize() >= 2
    client.delete("key:[1]", "key:2")


@needs("CLIENT SETNAME", "CLIENT ID")
def connection_has_a_name(make, _):
    client = make(single_connection_client=True)
    assert client.client_setname("me") is True
    assert client.client_getname() in (b"me", "me")
    assert client.client_id() > 0


@needs("INFO")
def info_has_what_tools_read(make, _):
    info = make().info()
    for field in ["redis_version", "uptime_in_seconds", "connected_clients", "used_memory"]:
        assert field in info, field


@needs("SET", "GET", "DEL")
def asyncio_client(make, _):
    async def use():
        client = make(asynchronous=True)
        await asyncio.gather(*(client.set(f"as{number}", number) for number in range(50)))
        values = await asyncio.gather(*(client.get(f"as{number}") for number in range(50)))
        assert values == [b"%d" % number for number in range(50)]
        assert await client.delete(*(f"as{number}" for number in range(50))) == 50
        await client.aclose()

    asyncio.run(use())


def main():
    port = int(sys.argv[1])
    has = supported(port)
    libraries = {
        "redis-py": (redis.Redis, redis.asyncio.Redis),
        "valkey-py": (valkey.Valkey, valkey.asyncio.Valkey),
    }
    for name, (plain, asynchronous_class) in libraries.items():
        for protocol in (2, 3):

            def make(asynchronous=False, **options):
                kind = asynchronous_class if asynchronous else plain
                return kind(port=port, protocol=protocol, socket_timeout=20, **options)

            checks.run(f"{name} RESP{protocol}", has, make, protocol)
    checks.finish("redis-py and valkey-py")


main()
