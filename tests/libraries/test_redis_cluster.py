"""redis-py where a call has more than one server: clusters and Sentinels."""

from collections.abc import Callable
from pathlib import Path

from support.pythons import Python, on_releases
from support.servers.redis import Cluster, Redis

from .conftest import Program
from .redis_program import CLUSTER, SENTINEL, calls, check_cluster

Run = Callable[..., Program]


@on_releases("old", "middle", "newest")
def test_a_cluster_s_call_is_one_span_whatever_nodes_it_takes(
    redis: Run, redis_cluster: Cluster, python: Python
) -> None:
    code = f"import remora, redis.cluster, redis.asyncio.cluster\nCLUSTER = {redis_cluster.ports}\n{CLUSTER}"
    result = redis(code, python=python)
    check_cluster(result, redis_cluster)


PIPELINES = """
import redis.cluster, redis.asyncio.cluster
CLUSTER = {ports}
def place(node):
    return [node.host, node.port]
db = redis.cluster.RedisCluster(host="127.0.0.1", port=CLUSTER[-1])
def start(db):
    return place(next(iter(db.nodes_manager.startup_nodes.values())))
for name in "abc":
    with db.pipeline() as pipe:
        pipe.set(f"{{{{{{name}}}}}}1", 1).get(f"{{{{{{name}}}}}}2").execute()
    show(place(db.get_node_from_key(name)))
show(start(db))
with db.pipeline() as pipe:
    for name in "abc": pipe.get(name)
    pipe.execute()
show(start(db))
with db.pipeline() as pipe:
    # Sent to the wrong node, and again to the right one.
    slots = db.nodes_manager.slots_cache
    right = slots[db.keyslot("a")]
    wrong = next(nodes for nodes in slots.values() if nodes[0].port != right[0].port)
    slots[db.keyslot("a")] = wrong
    pipe.get("a").execute()
async def body(db):
    await db.initialize()
    for name in "abc":
        await db.pipeline().set(f"{{{{{{name}}}}}}1", 1).get(f"{{{{{{name}}}}}}2").execute()
        show(place(db.get_node_from_key(name)))
    show(start(db))
    pipe = db.pipeline()
    for name in "abc": pipe.get(name)
    await pipe.execute()
asynchronous(body, lambda: redis.asyncio.cluster.RedisCluster(host="127.0.0.1", port=CLUSTER[-1]))
"""


@on_releases("old", "middle", "newest")
def test_a_pipeline_names_the_node_that_takes_it_and_of_several_the_first_that_the_client_knew(
    redis: Run, redis_cluster: Cluster, python: Python
) -> None:
    result = redis(PIPELINES.format(ports=redis_cluster.ports), python=python)
    found = [
        [span["server.address"], span["server.port"]]
        for span in calls(result)
        if span.name.startswith("PIPELINE")
    ]
    assert found == result.shown
    assert len(found) == 9
    assert len({port for _, port in found}) > 1


TRANSACTIONS = """
import redis.cluster, redis.asyncio.cluster
CLUSTER = {ports}
db = redis.cluster.RedisCluster(host="127.0.0.1", port=CLUSTER[0])
for name in "abc":
    with db.pipeline(transaction=True) as pipe:
        pipe.watch(f"{{{{{{name}}}}}}1")
        pipe.get(f"{{{{{{name}}}}}}1")
        pipe.multi()
        pipe.set(f"{{{{{{name}}}}}}1", 1)
        pipe.set(f"{{{{{{name}}}}}}2", 1)
        show(len(pipe.execute()), db.get_node_from_key(name).port)
async def body(db):
    await db.initialize()
    for name in "abc":
        async with db.pipeline(transaction=True) as pipe:
            await pipe.watch(f"{{{{{{name}}}}}}1")
            await pipe.get(f"{{{{{{name}}}}}}1")
            pipe.multi()
            pipe.set(f"{{{{{{name}}}}}}1", 1)
            pipe.set(f"{{{{{{name}}}}}}2", 1)
            show(len(await pipe.execute()), db.get_node_from_key(name).port)
asynchronous(body, lambda: redis.asyncio.cluster.RedisCluster(host="127.0.0.1", port=CLUSTER[0]))
"""


def test_a_cluster_s_transaction_is_one_span_and_so_is_each_call_before_it_with_the_node_s_address(
    redis: Run, redis_cluster: Cluster
) -> None:
    result = redis(TRANSACTIONS.format(ports=redis_cluster.ports))
    assert [count for count, _ in result.shown] == [2] * 6
    assert {port for _, port in result.shown} <= set(redis_cluster.ports)
    found = [(span.name, span["server.port"]) for span in calls(result) if "server.port" in span.attributes]
    expected = [(name, port) for _, port in result.shown for name in ("WATCH", "GET", "MULTI SET")]
    assert [one for one in found if one[0] in ("WATCH", "GET", "MULTI SET")] == expected


@on_releases("old", "newest")
def test_a_pipeline_that_reaches_no_node_names_the_one_that_the_client_starts_from(
    redis: Run, redis_cluster: Cluster, python: Python
) -> None:
    code = f"""
        import redis.cluster
        CLUSTER = {redis_cluster.ports}
        db = redis.cluster.RedisCluster(host="127.0.0.1", port=CLUSTER[0])
        show(next(iter(db.nodes_manager.startup_nodes.values())).port)
        with db.pipeline() as pipe:
            pipe.execute_command("KEYS", "*", target_nodes=5)
            try:
                pipe.execute()
            except TypeError as error:
                show(type(error).__name__)
    """
    result = redis(code, python=python)
    port, error = result.shown
    assert error == "TypeError"
    [span] = [span for span in calls(result) if span.name == "PIPELINE KEYS"]
    assert (span["server.port"], span["error.type"]) == (port, "TypeError")


@on_releases("old", "middle", "newest")
def test_behind_sentinels_a_call_is_one_span_with_the_master_s_address(
    redis: Run, redis_server: Redis, tmp_path: Path, python: Python
) -> None:
    options = f"sentinel monitor main 127.0.0.1 {redis_server.port} 1"
    sentinel = Redis(tmp_path / "sentinel", options, sentinel=True)
    try:
        result = redis(SENTINEL.format(port=sentinel.port), python=python)
    finally:
        sentinel.close()
    assert result.shown == [True, "1", None, True, "2", None]
    assert len(result.spans) == 6
    found = [
        (span.name, span["server.address"], span["server.port"], span["db.namespace"])
        for span in calls(result)
    ]
    assert found == [(name, "127.0.0.1", redis_server.port, "2") for name in ("SET", "GET", "MULTI GET")] * 2


def test_a_master_that_no_sentinel_knows_is_an_error_without_an_address(
    redis: Run, redis_server: Redis, tmp_path: Path
) -> None:
    options = f"sentinel monitor main 127.0.0.1 {redis_server.port} 1"
    sentinel = Redis(tmp_path / "sentinel", options, sentinel=True)
    code = SENTINEL.format(port=sentinel.port).partition("show")[0].replace('"main"', '"other"')
    code += """
attempt(db.get, "a")
async def body(db):
    try:
        await db.get("a")
    except redis.RedisError as error:
        show(type(error).__name__)
asynchronous(body, lambda: redis.asyncio.sentinel.Sentinel([]).master_for("other"))
"""
    try:
        result = redis(code)
    finally:
        sentinel.close()
    assert result.shown == ["MasterNotFoundError", "MasterNotFoundError"]
    assert [(span.name, span["error.type"], span.get("server.address")) for span in calls(result)] == [
        ("GET", "redis.sentinel.MasterNotFoundError", None),
        ("GET", "redis.asyncio.sentinel.MasterNotFoundError", None),
    ]
