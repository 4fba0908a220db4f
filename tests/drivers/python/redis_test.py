"""redis-py on a tenant's database; REDIS_URL and REDIS_CA name it. Prints `ok` when everything held."""

import asyncio
import os
import threading

import redis
import redis.asyncio
from redis.exceptions import ExecAbortError, NoPermissionError, ResponseError, WatchError

URL = os.environ["REDIS_URL"]
TLS = {"ssl_ca_certs": os.environ["REDIS_CA"]} if URL.startswith("rediss:") else {}


def refused(kind, call, *args):
    try:
        call(*args)
    except kind as error:
        return str(error)
    raise AssertionError(f"not refused: {call} {args}")


def commands(r):
    r.flushdb()
    assert r.set("greeting", "hello") and r.get("greeting") == "hello"
    assert r.mset({f"k{n}": n for n in range(100)}) and r.mget("k0", "k99", "none") == ["0", "99", None]
    assert sorted(r.scan_iter("k*", count=10)) == sorted(f"k{n}" for n in range(100))
    assert len(r.keys("*")) == r.dbsize() == 101
    assert r.randomkey() in r.keys()
    r.rpush("list", "c", "a", "b")
    r.mset({"w_a": 2, "w_b": 1, "w_c": 3})
    assert r.sort("list", alpha=True) == ["a", "b", "c"]
    assert r.blpop(["none", "list"], timeout=1) in (("list", "c"), ["list", "c"])
    assert r.lmpop(2, "none", "list", direction="LEFT") == ["list", ["a"]]
    assert r.blpop("none", timeout=0.01) is None
    r.xadd("stream", {"f": "v"}, id="1-1")
    r.xgroup_create("stream", "group", id="0")
    entries = r.xreadgroup("group", "me", {"stream": ">"})
    entries = entries.items() if isinstance(entries, dict) else entries
    assert [name for name, _ in entries] == ["stream"]
    assert "'none'" in refused(ResponseError, lambda: r.xreadgroup("group", "me", {"none": ">"}))
    r.zadd("places", {"a": 1, "b": 2})
    assert r.bzpopmin("places", timeout=1)[0] == "places"
    assert r.object("encoding", "k1") == "int"
    value = b"\x00\r\n\xff" * 200_000
    r.set("large", value)
    raw = redis.Redis.from_url(URL, **TLS)
    assert raw.get("large") == value
    raw.close()


def scripts(r):
    incr = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert incr(keys=["counter"], args=[5]) == 5 and incr(keys=["counter"], args=[2]) == 7
    assert "key" in refused(ResponseError, r.eval, "return redis.call('GET', 'elsewhere')", 0)


def transactions(r):
    r.set("balance", 1)
    with r.pipeline() as pipe:
        pipe.watch("balance")
        r.incr("balance")
        pipe.multi()
        pipe.incr("balance")
        refused(WatchError, pipe.execute)
    with r.pipeline() as pipe:
        assert pipe.incr("balance").keys("balance").get("none").execute() == [3, ["balance"], None]
    with r.pipeline(transaction=False) as pipe:
        for n in range(5000):
            pipe.set(f"p{n % 50}", n).get(f"p{n % 50}")
        assert pipe.execute()[1::2] == [str(n) for n in range(5000)]
    with r.pipeline() as pipe:
        pipe.set("a", 1).execute_command("SET", "a")
        refused((ExecAbortError, ResponseError), pipe.execute)
    # One lock, many threads.
    r.set("total", 0)

    def work():
        for _ in range(20):
            with r.lock("lock", timeout=30):
                r.set("total", int(r.get("total")) + 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert r.get("total") == "80"


def messages(r):
    with r.pubsub() as p:
        p.subscribe("news")
        p.psubscribe("n?ws*", "__keyspace@0__:watched")
        for _ in range(3):
            assert p.get_message(timeout=10)["type"] in ("subscribe", "psubscribe")
        r.publish("news", "hello")
        found = [p.get_message(timeout=10) for _ in range(2)]
        assert sorted((it["type"], it["channel"], it["data"]) for it in found) == [
            ("message", "news", "hello"),
            ("pmessage", "news", "hello"),
        ], found
        assert "news" in r.pubsub_channels()
        assert dict(r.pubsub_numsub("news", "olds")) == {"news": 1, "olds": 0}


def refusals(r):
    for call in [
        lambda: r.config_get("*"),
        lambda: r.execute_command("SHUTDOWN"),
        lambda: r.execute_command("SWAPDB", 0, 1),
        lambda: r.execute_command("MONITOR"),
    ]:
        refused(NoPermissionError, call)
    refused(ResponseError, r.execute_command, "SELECT", "1")
    refused(ResponseError, r.execute_command, "NOSUCH", "a")


async def many():
    pool = redis.asyncio.BlockingConnectionPool.from_url(URL, decode_responses=True, max_connections=20, **TLS)
    r = redis.asyncio.Redis.from_pool(pool)
    await asyncio.gather(*(r.set(f"async{n}", n) for n in range(500)))
    values = await asyncio.gather(*(r.get(f"async{n}") for n in range(500)))
    assert values == [str(n) for n in range(500)]
    # One waits, another wakes it.
    waiting = asyncio.create_task(r.blpop("queue", timeout=20))
    while not (await r.ping()):
        pass
    await r.rpush("queue", "job")
    assert tuple(await waiting) == ("queue", "job")
    await r.aclose()


for protocol in (2, 3):
    with redis.Redis.from_url(URL, decode_responses=True, protocol=protocol, **TLS) as client:
        commands(client)
        scripts(client)
        transactions(client)
        messages(client)
        refusals(client)
        asyncio.run(many())
print("ok")
