"""Programs that use redis-py, or valkey-py, which differs by its names."""

from support.otlp import Span, children, find, one
from support.process import Result
from support.servers.redis import Cluster, Redis

from .conftest import Program

SYNC = """
db.set("user", "secret")
show(db.get("user").decode())
db.execute_command("mget", "user", "secret")
db.config_get("port")
with db.pipeline() as pipe:
    show(pipe.get("a").get("b").execute())
with db.pipeline(transaction=False) as pipe:
    show(pipe.get("a").set("secret", 1).execute())
with db.pipeline() as pipe:
    show(pipe.incr("n").execute())
    show(pipe.execute())
with db.pipeline() as pipe:
    pipe.watch("n")
    value = int(pipe.get("n"))
    pipe.multi()
    pipe.set("n", value + 1)
    show(pipe.execute())
"""
ASYNC = """
async def body(db):
    await db.set("user", "secret")
    show((await db.get("user")).decode())
    await db.execute_command("mget", "user", "secret")
    await db.config_get("port")
    async with db.pipeline() as pipe:
        show(await pipe.get("a").get("b").execute())
    async with db.pipeline(transaction=False) as pipe:
        show(await pipe.get("a").set("secret", 1).execute())
    async with db.pipeline() as pipe:
        show(await pipe.incr("n").execute())
        show(await pipe.execute())
    async with db.pipeline() as pipe:
        await pipe.watch("n")
        value = int(await pipe.get("n"))
        pipe.multi()
        pipe.set("n", value + 1)
        show(await pipe.execute())
asynchronous(body)
"""
EXPECTED = [
    ("SET", "SET ? ?", None),
    ("GET", "GET ?", None),
    ("mget", "mget ? ?", None),
    ("CONFIG GET", "CONFIG GET ?", None),
    ("MULTI GET", "GET ?", 2),
    ("PIPELINE", "GET ?; SET ? ?", 2),
    ("MULTI INCRBY", "INCRBY ? ?", None),
    ("WATCH", "WATCH ?", None),
    ("GET", "GET ?", None),
    ("MULTI SET", "SET ? ?", None),
]


CLUSTER = """
db = redis.cluster.RedisCluster(host="127.0.0.1", port=CLUSTER[0])
show("made")
with remora.span("work"):
    for n in range(12): db.set(f"key{n}", n)
    show(db.get("key1").decode())
    attempt(db.lpush, "key1", 1)
    with db.pipeline() as pipe:
        for n in range(6): pipe.get(f"key{n}")
        show(len(pipe.execute()))
    db.dbsize(target_nodes="primaries")
    # What is known of the slots is wrong: it is learnt anew inside one call.
    nodes = db.nodes_manager
    for slot in list(nodes.slots_cache): nodes.slots_cache[slot] = nodes.slots_cache[0]
    for n in range(12): assert db.get(f"key{n}") == str(n).encode()
async def body(db):
    await db.initialize()
    with remora.span("async work"):
        for n in range(12): await db.set(f"key{n}", n)
        show((await db.get("key1")).decode())
        pipe = db.pipeline()
        for n in range(6): pipe.get(f"key{n}")
        show(len(await pipe.execute()))
asynchronous(body, lambda: redis.asyncio.cluster.RedisCluster(host="127.0.0.1", port=CLUSTER[0]))
"""

SENTINEL = """
from redis.sentinel import Sentinel
import redis.asyncio.sentinel
db = Sentinel([("127.0.0.1", {port})], socket_timeout=5).master_for("main", db=2)
show(db.set("a", 1))
show(db.get("a").decode())
show(db.pipeline().get("a").get("b").execute()[1])
async def body(db):
    show(await db.set("a", 2))
    show((await db.get("a")).decode())
    show((await db.pipeline().get("a").get("b").execute())[1])
def master():
    sentinel = redis.asyncio.sentinel.Sentinel([("127.0.0.1", {port})], socket_timeout=5)
    return sentinel.master_for("main", db=2)
asynchronous(body, master)
"""

# `db` has a cache. What is not there is not cached; another client's write makes it forget.
CACHED = """
import remora, time
other = redis.Redis(host="127.0.0.1", port=PORT)
other.set("a", 1)
db.ping()
with remora.span("work"):
    inside = remora.current_span_id()
    for n in range(3): show(db.get("a").decode())
    for n in range(2): show(db.get("nothing"))
    other_write = type(other).execute_command.__wrapped__
    other_write(other, "SET", "a", 2)
    while db.get("a") == b"1": time.sleep(0.01)
    for n in range(2): show(db.get("a").decode())
    show(remora.current_span_id() == inside)
    db.set("b", 1)
    try:
        db.lpush("b", 1)
    except redis.RedisError:
        pass
show(remora.current_span_id())
"""

SCOPES = ("remora.redis", "remora.valkey")


def calls(result: Result) -> list[Span]:
    """Their spans in order."""
    return [span for span in find(result.spans, kind="client") if span.scope in SCOPES]


def shape(spans: list[Span]) -> list[tuple[object, ...]]:
    return [(span.name, span["db.query.text"], span.get("db.operation.batch.size")) for span in spans]


def check_each_way(result: Program, server: Redis) -> None:
    assert result.shown == ["secret", [None, None], [None, True], [1], [], [True]]
    spans = calls(result)
    assert len(spans) == len(result.spans)
    assert shape(spans) == EXPECTED
    for span in spans:
        assert (span.kind, span.status, span.events) == ("client", "unset", [])
        assert span["db.system.name"] == "redis"
        assert span["db.operation.name"] == span.name
        assert span["db.namespace"] == "0"
        assert (span["server.address"], span["server.port"]) == ("127.0.0.1", server.port)
        assert set(span.attributes) <= {
            "db.system.name", "db.operation.name", "db.query.text", "db.namespace", "server.address",
            "server.port", "db.operation.batch.size",
        }  # fmt: skip
    assert "secret" not in str([span.attributes for span in spans])


def check_cluster(result: Program, cluster: Cluster) -> None:
    assert result.shown == ["made", "1", "ResponseError", 6, "1", 6]
    for name, others in (("work", 14), ("async work", 0)):
        parent = one(result.spans, name=name)
        spans = [span for span in calls(result) if span.parent_id == parent.span_id]
        ids = {span.span_id for span in calls(result)}
        assert not [span for span in calls(result) if span.parent_id in ids]
        sets = find(spans, name="SET")
        assert len(sets) == 12
        assert {span["server.port"] for span in sets} == set(cluster.ports)
        assert {span["server.address"] for span in sets} <= {"127.0.0.1", "localhost"}
        assert all("server.port" in span.attributes for span in spans)
        [pipeline] = find(spans, name="PIPELINE GET")
        assert pipeline["db.operation.batch.size"] == 6
        assert len(spans) == 14 + others


def check_cached(result: Program) -> None:
    """Of `CACHED`."""
    assert result.shown == ["1", "1", "1", None, None, "2", "2", True, None]
    spans = [
        (span.name, span.get("error.type")) for span in children(result.spans, one(result.spans, "work"))
    ]
    assert spans == [
        ("GET", None), ("GET", None), ("GET", None), ("GET", None), ("SET", None), ("LPUSH", spans[-1][1]),
    ]  # fmt: skip
    assert spans[-1][1]
