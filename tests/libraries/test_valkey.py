"""valkey-py, a fork of redis-py: the same spans by its own names."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.pythons import Python, on_oldest_and_newest
from support.servers.redis import Cluster, Redis

from .conftest import Program
from .redis_program import (
    ASYNC,
    CACHED,
    CLUSTER,
    SENTINEL,
    SYNC,
    calls,
    check_cached,
    check_cluster,
    check_each_way,
)

Run = Callable[..., Program]


@pytest.mark.parametrize("code", [SYNC, ASYNC], ids=["sync", "asyncio"])
@on_oldest_and_newest
def test_each_command_and_each_pipeline_is_one_span_without_values(
    valkey: Run, redis_server: Redis, python: Python, code: str
) -> None:
    result = valkey(code, python=python)
    check_each_way(result, redis_server)
    assert {span.scope for span in result.spans} == {"remora.valkey"}


def test_errors_carry_the_server_s_prefix_and_a_lost_watch_is_none(valkey: Run) -> None:
    code = """
        db.set("text", "x")
        attempt(db.lpush, "text", 1)
        attempt(db.evalsha, "0" * 40, 0)
        with db.pipeline() as pipe:
            pipe.watch("text")
            db.set("text", "y")
            pipe.multi()
            attempt(pipe.get("text").execute)
        attempt(redis.Redis(host="127.0.0.1", port=1).get, "x")
    """
    result = valkey(code)
    assert result.shown == ["ResponseError", "NoScriptError", "WatchError", "ConnectionError"]
    failed = [
        (span.name, span["error.type"], span.get("db.response.status_code"))
        for span in calls(result)
        if span.status == "error"
    ]
    assert failed == [
        ("LPUSH", "valkey.exceptions.ResponseError", "WRONGTYPE"),
        ("EVALSHA", "valkey.exceptions.NoScriptError", "NOSCRIPT"),
        ("GET", "valkey.exceptions.ConnectionError", None),
    ]


@on_oldest_and_newest
def test_a_cluster_s_call_is_one_span_whatever_nodes_it_takes(
    valkey: Run, redis_cluster: Cluster, python: Python
) -> None:
    code = f"import remora, redis.cluster, redis.asyncio.cluster\nCLUSTER = {redis_cluster.ports}\n{CLUSTER}"
    check_cluster(valkey(code, python=python), redis_cluster)


def test_behind_sentinels_a_call_has_the_master_s_address(
    valkey: Run, redis_server: Redis, tmp_path: Path
) -> None:
    options = f"sentinel monitor main 127.0.0.1 {redis_server.port} 1"
    sentinel = Redis(tmp_path / "sentinel", options, sentinel=True)
    try:
        result = valkey(SENTINEL.format(port=sentinel.port))
    finally:
        sentinel.close()
    assert {(span["server.address"], span["server.port"]) for span in calls(result)} == {
        ("127.0.0.1", redis_server.port)
    }
    assert len(result.spans) == 6


def test_a_call_that_the_client_s_cache_answers_leaves_no_span(valkey: Run) -> None:
    client = 'redis.Redis(host="127.0.0.1", port=PORT, protocol=3, cache_enabled=True)'
    check_cached(valkey(CACHED, client=client))


def test_it_and_redis_py_are_told_apart(valkey: Run) -> None:
    # The fixture changes names: this one is put together.
    code = """
        db.get("x")
        name = "re" + "dis"
        __import__(name).Redis(port=PORT).get("x")
    """.replace(".Redis", ".__dict__['Re' + 'dis']")
    assert [span.scope for span in valkey(code).spans] == ["remora.valkey", "remora.redis"]
