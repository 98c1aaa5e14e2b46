"""redis-py: one CLIENT span for each command, and for each pipeline or transaction sent."""

from collections.abc import Callable

import pytest
from support.otlp import find, one
from support.pythons import Python, on_oldest_and_newest, on_releases
from support.servers.redis import Redis

from .conftest import Program
from .redis_program import ASYNC, SYNC, calls, check_each_way

Run = Callable[..., Program]


@pytest.mark.parametrize("code", [SYNC, ASYNC], ids=["sync", "asyncio"])
@on_oldest_and_newest
def test_each_command_and_each_pipeline_is_one_span_without_values(
    redis: Run, redis_server: Redis, python: Python, code: str
) -> None:
    check_each_way(redis(code, python=python), redis_server)


@pytest.mark.parametrize("code", [SYNC, ASYNC], ids=["sync", "asyncio"])
@on_releases("old", "middle")
def test_older_releases_are_traced_alike(redis: Run, redis_server: Redis, python: Python, code: str) -> None:
    check_each_way(redis(code, python=python), redis_server)


@on_releases("old", "middle", "newest")
def test_errors_carry_the_server_s_prefix_and_a_lost_watch_is_none(redis: Run, python: Python) -> None:
    code = """
        db.set("text", "x")
        attempt(db.lpush, "text", 1)
        attempt(db.execute_command, "NOSUCH", "secret")
        attempt(db.evalsha, "0" * 40, 0)
        with db.pipeline(transaction=False) as pipe:
            attempt(pipe.set("secret", 1).lpush("text", "secret").execute)
        with db.pipeline() as pipe:
            show(len(pipe.lpush("text", 1).execute(raise_on_error=False)))
        with db.pipeline() as pipe:
            pipe.watch("text")
            db.set("text", "y")
            pipe.multi()
            attempt(pipe.get("text").execute)
        attempt(redis.Redis(host="127.0.0.1", port=1).get, "x")
        async def body(adb):
            try:
                await adb.lpush("text", 1)
            except redis.RedisError as error:
                show(type(error).__name__)
        asynchronous(body)
        try:
            db.execute_command()
        except IndexError:
            show("IndexError")
    """
    result = redis(code, python=python)
    shown = ["ResponseError", "ResponseError", "NoScriptError", "ResponseError", 1, "WatchError"]
    assert result.shown == [*shown, "ConnectionError", "ResponseError", "IndexError"]
    failed = [
        (span.name, span["error.type"], span.get("db.response.status_code"), span.status_message)
        for span in calls(result)
        if span.status == "error"
    ]
    assert failed == [
        ("LPUSH", "redis.exceptions.ResponseError", "WRONGTYPE", ""),
        ("NOSUCH", "redis.exceptions.ResponseError", "ERR", ""),
        ("EVALSHA", "redis.exceptions.NoScriptError", "NOSCRIPT", ""),
        ("PIPELINE", "redis.exceptions.ResponseError", "WRONGTYPE", ""),
        ("GET", "redis.exceptions.ConnectionError", None, ""),
        ("LPUSH", "redis.exceptions.ResponseError", "WRONGTYPE", ""),
        ("redis", "IndexError", None, ""),
    ]
    assert "secret" not in str([span.attributes for span in result.spans])
    assert all("error.type" not in span.attributes for span in calls(result) if span.status == "unset")


def test_a_pipeline_s_text_says_where_it_leaves_off(redis: Run) -> None:
    code = """
        for count in (32, 33):
            with db.pipeline(transaction=False) as pipe:
                for n in range(count):
                    pipe.set(f"k{n}", n).get(f"k{n}")
                pipe.execute()
        with db.pipeline() as pipe:
            for n in range(64): pipe.get("a")
            pipe.set("a", 1).get("a").execute()
    """
    short, long, late = calls(redis(code))
    mixed = "; ".join(["SET ? ?; GET ?"] * 32)
    assert (short["db.query.text"], short["db.operation.batch.size"]) == (mixed, 64)
    assert (long["db.query.text"], long["db.operation.batch.size"]) == (f"{mixed}; ...", 66)
    assert late["db.query.text"] == "; ".join(["GET ?"] * 64) + "; ..."
    assert (late.name, late["db.operation.batch.size"]) == ("MULTI", 66)


# `checked()` waits until the client has asked twice on its own whether its database answers.
MULTIDB = """
import remora, time
warnings.simplefilter("ignore")
plain = db
def pings():
    stats = redis.Redis.execute_command.__wrapped__(plain, "INFO", "commandstats")
    return stats.get("cmdstat_ping", {"calls": 0})["calls"]
before = pings()
def checked():
    return pings() >= before + 6
def config(module):
    database = module.DatabaseConfig(client_kwargs={"host": "127.0.0.1", "port": PORT}, weight=1.0)
    return module.MultiDbConfig(databases_config=[database], health_check_interval=2)
"""
MULTIDB_SYNC = """
import redis.multidb.client, redis.multidb.config
db = redis.multidb.client.MultiDBClient(config(redis.multidb.config))
with remora.span("request"):
    show(db.set("a", 1))
with remora.span("other"):
    with db.pipeline() as pipe:
        show(len(pipe.get("a").get("b").execute()))
while not checked(): time.sleep(0.05)
db.close()
"""
MULTIDB_ASYNC = """
import redis.asyncio.multidb.client, redis.asyncio.multidb.config
async def body(db):
    with remora.span("request"):
        show(await db.set("a", 1))
    with remora.span("other"):
        pipe = db.pipeline()
        pipe.get("a")
        pipe.get("b")
        show(len(await pipe.execute()))
    while not checked(): await asyncio.sleep(0.05)
asynchronous(body, lambda: redis.asyncio.multidb.client.MultiDBClient(config(redis.asyncio.multidb.config)))
"""


@pytest.mark.parametrize("code", [MULTIDB_SYNC, MULTIDB_ASYNC], ids=["sync", "asyncio"])
def test_what_a_client_of_several_databases_asks_on_its_own_makes_no_span(redis: Run, code: str) -> None:
    result = redis(MULTIDB + code)
    assert result.shown == [True, 2]
    assert [(span.name, span.parent_id) for span in calls(result)] == [
        ("SET", one(result.spans, "request").span_id),
        ("MULTI GET", one(result.spans, "other").span_id),
    ]


def test_scripts_show_their_digest_and_loading_them_for_a_pipeline_is_no_call_of_its_own(redis: Run) -> None:
    code = """
        script = db.register_script("return ARGV[1]")
        show(script.sha)
        with db.pipeline() as pipe:
            script(args=["secret"], client=pipe)
            show(pipe.execute()[0].decode())
        show(script(args=["secret"]).decode())
        db.eval("return 'secret'", 0)
        async def body(adb):
            script = adb.register_script("return ARGV[1]")
            async with adb.pipeline() as pipe:
                await script(args=["secret"], client=pipe)
                await pipe.execute()
            await adb.evalsha(script.sha, 0, "x")
        asynchronous(body)
    """
    result = redis(code)
    sha = result.shown[0]
    assert result.shown[1:] == ["secret", "secret"]
    assert [(span.name, span.get("db.stored_procedure.name")) for span in calls(result)] == [
        ("MULTI EVALSHA", None), ("EVALSHA", sha), ("EVAL", None), ("MULTI EVALSHA", None), ("EVALSHA", sha),
    ]  # fmt: skip
    assert "secret" not in str([span.attributes for span in result.spans])


@on_oldest_and_newest
def test_the_address_and_the_database_are_those_of_the_pool(
    redis: Run, redis_server: Redis, python: Python
) -> None:
    code = """
        for one in (redis.Redis(unix_socket_path=PATH, db=3), redis.Redis.from_url(f"redis://localhost:{PORT}/2"),
                    redis.Redis(port=str(PORT), db="1"), redis.Redis(port=PORT, single_connection_client=True),
                    redis.Redis(connection_pool=redis.BlockingConnectionPool(port=PORT, db=4))):
            one.get("x")
            one.get("x")
            one.pipeline().get("y").execute()
        asynchronous(lambda db: db.get("x"), lambda: redis.asyncio.Redis(unix_socket_path=PATH, db=5))
    """
    found = [
        (span["server.address"], span.get("server.port"), span["db.namespace"])
        for span in calls(redis(code, python=python))
    ]
    port = redis_server.port
    expected = [
        (redis_server.path, None, "3"), ("localhost", port, "2"), ("localhost", port, "1"), ("localhost", port, "0"),
        ("localhost", port, "4"),
    ]  # fmt: skip
    assert found == [one for one in expected for _ in range(3)] + [(redis_server.path, None, "5")]


def test_a_pool_s_place_is_not_believed_once_the_pool_is_gone(redis: Run) -> None:
    code = """
        import gc, weakref
        gone = []
        for n in range(300):
            one = redis.Redis(host="127.0.0.1", port=PORT, db=n % 16)
            one.get("x")
            gone.append(weakref.ref(one.connection_pool))
            one.close()
            del one
            if n % 10 == 0: gc.collect()
        gc.collect()
        show(sum(ref() is not None for ref in gone))
    """
    result = redis(code)
    assert result.shown == [0]
    assert [span["db.namespace"] for span in calls(result)] == [str(n % 16) for n in range(300)]


@on_oldest_and_newest
def test_published_messages_are_calls_and_waiting_for_them_is_not(redis: Run, python: Python) -> None:
    code = """
        channel = db.pubsub(ignore_subscribe_messages=True)
        channel.subscribe("news")
        while channel.get_message(timeout=1): pass
        db.publish("news", "secret")
        message = None
        while message is None: message = channel.get_message(timeout=1)
        show(message["data"].decode())
        channel.close()
        db.rpush("list", "secret")
        show(db.blpop("list", timeout=1)[1].decode())
        show(db.blpop("list", timeout=1))
    """
    result = redis(code, python=python)
    assert result.shown == ["secret", "secret", None]
    assert [span["db.query.text"] for span in calls(result)] == [
        "PUBLISH ? ?", "RPUSH ? ?", "BLPOP ? ?", "BLPOP ? ?",
    ]  # fmt: skip


@on_oldest_and_newest
def test_the_parent_is_right_across_tasks_and_a_cancelled_call_is_no_error(
    redis: Run, python: Python
) -> None:
    code = """
        import remora
        async def body(adb):
            async def work(name):
                with remora.span(name):
                    await asyncio.gather(adb.get("a"), adb.pipeline().get("b").execute())
                    await adb.get("c")
                    show(remora.current_span_id() is not None)
            await asyncio.gather(work("one"), work("two"))
            try:
                await asyncio.wait_for(adb.blpop("nothing"), 0.1)
            except asyncio.TimeoutError:
                show("timeout")
            show(remora.current_span_id())
            coroutine = adb.get("never")
            coroutine.close()
        asynchronous(body)
    """
    result = redis(code, python=python, quiet=False)
    assert result.shown == [True, True, "timeout", None]
    for name in ("one", "two"):
        parent = one(result.spans, name=name)
        inside = [span for span in calls(result) if span.parent_id == parent.span_id]
        assert sorted(span.name for span in inside) == ["GET", "GET", "MULTI GET"]
    [cancelled] = find(result.spans, name="BLPOP")
    assert (cancelled.status, cancelled.get("error.type")) == ("unset", None)
    assert len(calls(result)) == 7


ODD = """
class Odd(str):
    def __str__(self): raise RuntimeError("odd")
    __repr__ = __str__
    def __hash__(self): raise RuntimeError("odd")
    def __eq__(self, other): raise RuntimeError("odd")
class Stranger:
    def __getattr__(self, name): raise RuntimeError("stranger")
    def __bytes__(self): raise RuntimeError("stranger")
for args in ((b"GET", b"secret"), ("SET secret value",), ("client", "id"), (5, "x"), (None,),
             ("GET\\ud800", "x"), (b"\\xff\\xfe", "x"), ("X" * (10 << 20),), ("GET", Stranger()), (Stranger(),),
             ("mget", *["secret"] * 5000), ("CONFIG GET port secret",), (["GET"],), ("EVALSHA x 1", "secret")):
    for where in (db, db.pipeline(transaction=False)):
        try:
            result = where.execute_command(*args)
            if where is not db: result = len(where.execute())
            show(str(result)[:80] if args != ("client", "id") else "id")
        except Exception as error:
            show(type(error).__name__)
class Mine(redis.Redis):
    def execute_command(self, *args, **options):
        return super().execute_command(*args, **options)
show(Mine(host="127.0.0.1", port=PORT).get("x"))
"""


def test_odd_commands_end_as_without_us_and_show_no_value(redis: Run) -> None:
    code = "db.flushdb()\n" + ODD
    result = redis(code)
    assert result.shown == redis(code, env={"REMORA_ENABLED": "false"}).shown
    texts = [str(span.attributes) + span.name for span in calls(result)]
    assert not [text for text in texts if "secret" in text or "value" in text or len(text) > 1000]
    assert {"SET ? ?", "GET ?", "CONFIG GET ? ?"} <= {span.get("db.query.text") for span in calls(result)}
    assert calls(result)[-1].name == "GET"


def test_old_names_are_there_where_they_are_asked_for(redis: Run, redis_server: Redis) -> None:
    result = redis('db.get("secret")', env={"OTEL_SEMCONV_STABILITY_OPT_IN": "database/dup"})
    [span] = calls(result)
    assert span["db.system"] == span["db.system.name"] == "redis"
    assert span["db.statement"] == span["db.query.text"] == "GET ?"
    assert (span["db.operation"], span["db.redis.database_index"]) == ("GET", 0)
    assert (span["net.peer.name"], span["net.peer.port"]) == ("127.0.0.1", redis_server.port)


@pytest.mark.parametrize("code", [SYNC, ASYNC], ids=["sync", "asyncio"])
def test_nothing_is_made_where_nothing_is_sampled(redis: Run, code: str) -> None:
    result = redis(
        code + 'import remora\nshow(remora.status()["spans"]["made"])',
        env={"OTEL_TRACES_SAMPLER": "always_off"},
    )
    assert result.shown == ["secret", [None, None], [None, True], [1], [], [True], 0]
    assert result.spans == []


@on_oldest_and_newest
def test_a_client_made_before_activation_gives_the_same_spans(redis: Run, python: Python) -> None:
    code = """
        import inspect
        get = redis.Redis.get
        import remora
        remora.init()
        show(get(db, "x"), db.pipeline().get("y").execute())
        asynchronous(lambda adb: adb.get("x"))
        show([inspect.iscoroutinefunction(one) for one in (
            redis.asyncio.Redis.execute_command, redis.asyncio.client.Pipeline.execute, redis.Redis.execute_command,
            redis.asyncio.cluster.RedisCluster._execute_command)])
    """
    result = redis(code, env={"REMORA_ENABLED": None}, python=python)
    assert result.shown == [[None, [None]], [True, True, False, True]]
    assert [span.name for span in calls(result)] == ["GET", "MULTI GET", "GET"]
