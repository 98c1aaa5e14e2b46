"""redis-py with a cache of its own: what is answered there is not sent and leaves no span."""

from collections.abc import Callable

import pytest
from support.otlp import children, one
from support.pythons import Python, on_releases
from support.servers.redis import Cluster

from .conftest import Program
from .redis_program import CACHED, calls, check_cached

Run = Callable[..., Program]

# The library allows servers from 7.4 on; older ones track keys alike.
ALLOW = """
import redis.connection
from redis.cache import CacheConfig
redis.connection.CacheProxyConnection.MIN_ALLOWED_VERSION = "6.0.0"
"""
CLIENT = 'redis.Redis(host="127.0.0.1", port=PORT, protocol=3, cache_config=CacheConfig())'


@on_releases("middle", "newest")
def test_a_call_that_the_client_s_cache_answers_leaves_no_span(redis: Run, python: Python) -> None:
    check_cached(redis(f"{ALLOW}db = {CLIENT}\n{CACHED}", python=python))


def test_in_a_pipeline_or_a_transaction_nothing_comes_from_the_cache(redis: Run) -> None:
    code = """
        db.set("a", 1)
        show(db.get("a").decode())
        with db.pipeline() as pipe:
            show([value.decode() for value in pipe.get("a").get("a").execute()])
    """
    result = redis(f"{ALLOW}db = {CLIENT}" + code.replace("\n        ", "\n"))
    assert result.shown == ["1", ["1", "1"]]
    assert [span.name for span in calls(result)] == ["SET", "GET", "MULTI GET"]


def test_a_cluster_s_call_is_left_out_alike(redis: Run, redis_cluster: Cluster) -> None:
    code = f"""
{ALLOW}
import remora, redis.cluster
db = redis.cluster.RedisCluster(host="127.0.0.1", port={redis_cluster.ports[0]}, protocol=3, cache_config=CacheConfig())
for name in "abc": db.set(name, name)
with remora.span("first"):
    show([db.get(name).decode() for name in "abc"])
with remora.span("again"):
    show([db.get(name).decode() for name in "abc"])
"""
    result = redis(code)
    assert result.shown == [["a", "b", "c"]] * 2
    assert [span.name for span in children(result.spans, one(result.spans, "first"))] == ["GET"] * 3
    assert children(result.spans, one(result.spans, "again")) == []


@pytest.mark.parametrize("sampler", ["always_off", "always_on"])
def test_replies_and_the_cache_s_order_are_as_without_us(redis: Run, sampler: str) -> None:
    code = f"""
{ALLOW}
from redis.cache import CacheEntry, CacheEntryStatus, CacheKey, DefaultCache
cache = DefaultCache(CacheConfig(max_size=2))
db = redis.Redis(port=PORT, protocol=3, cache=cache)
for name in "abcd": db.set(name, name)
for name in "ababcbdab":
    show(db.get(name).decode(), [key.redis_keys[0] for key in cache.collection])
entry = CacheEntry(cache_key=CacheKey("GET", ("x",)), cache_value=b"x", status=CacheEntryStatus.VALID, connection_ref=None)
show(entry.status.value)
try:
    db.execute_command("GET", "a")
except ValueError as error:
    show(str(error))
"""
    result = redis(code, env={"OTEL_TRACES_SAMPLER": sampler})
    bare = redis(code, env={"REMORA_ENABLED": "false"})
    assert result.shown == bare.shown
    assert result.shown[-1] == "Cannot create cache key."
