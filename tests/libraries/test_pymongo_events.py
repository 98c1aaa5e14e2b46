"""pymongo's events, as it tells them: what the tests' server cannot do, and what goes wrong."""

from collections.abc import Callable

import pytest
from support.otlp import find, one
from support.pythons import Python, on_oldest_and_newest, on_releases

from .conftest import Program
from .pymongo_program import EVENTS, calls, json_of

Run = Callable[..., Program]


@on_releases("old", "newest")
def test_transactions_change_streams_and_retries_by_recorded_events(program: Run, python: Python) -> None:
    code = (
        EVENTS
        + """
session = {"lsid": {"id": b"1"}, "txnNumber": 1, "autocommit": False}
start(1, {"insert": "users", "documents": [{}, {}], "startTransaction": True, **session}); succeed(1)
start(2, {"commitTransaction": 1, **session}, "admin")
fail(2, {"ok": 0, "code": 91, "codeName": "ShutdownInProgress", "errmsg": "secret"})
start(3, {"commitTransaction": 1, **session}, "admin"); succeed(3)
start(4, {"abortTransaction": 1, **session}, "admin"); succeed(4)
start(5, {"update": "users", "updates": [{}], "txnNumber": 2})
fail(5, {"errmsg": "secret", "errtype": "AutoReconnect"})
start(6, {"update": "users", "updates": [{}], "txnNumber": 2}); succeed(6)
start(7, {"aggregate": "users", "pipeline": [{"$changeStream": {}}]}); succeed(7)
start(8, {"getMore": 123, "collection": "users"}); succeed(8)
start(9, {"aggregate": 1, "pipeline": [{"$changeStream": {}}]}); succeed(9)
start(10, {"getMore": 123, "collection": "$cmd.aggregate"}); succeed(10)
start(11, {"explain": {"find": "users"}}); succeed(11)
start(12, {"delete": "users", "deletes": []})
succeed(12, {"ok": 1, "writeConcernError": {"code": 64, "codeName": "WriteConcernFailed"}})
start(13, {"bulkWrite": 1, "ops": [{}, {}, {}]}, "admin"); succeed(13)
start(14, {"dropUser": "alice"}); succeed(14)
start(15, {"find": "users"}, server=("/run/mongodb-27017.sock", None)); succeed(15, server=("/run/mongodb-27017.sock", None))
"""
    )
    spans = calls(program(code, python=python))
    shown = [
        (
            span.name,
            span.get("db.operation.batch.size"),
            span.get("db.response.status_code"),
            span.get("error.type"),
        )
        for span in spans
    ]
    assert shown == [
        ("insert users", 2, None, None),
        ("commitTransaction admin", None, "91", "ShutdownInProgress"),
        ("commitTransaction admin", None, None, None),
        ("abortTransaction admin", None, None, None),
        ("update users", None, None, "AutoReconnect"),
        ("update users", None, None, None),
        ("aggregate users", None, None, None),
        ("getMore users", None, None, None),
        ("aggregate shop", None, None, None),
        ("getMore $cmd.aggregate", None, None, None),
        ("explain users", None, None, None),
        ("delete users", 0, "64", "WriteConcernFailed"),
        ("bulkWrite admin", 3, None, None),
        ("dropUser shop", None, None, None),
        ("find users", None, None, None),
    ]
    assert (spans[0]["server.address"], "server.port" in spans[0].attributes) == ("db.example", False)
    assert (spans[-1]["server.address"], "server.port" in spans[-1].attributes) == (
        "/run/mongodb-27017.sock",
        False,
    )
    assert "secret" not in json_of(spans)
    assert "alice" not in json_of(spans)


def test_operations_that_failed_in_a_client_s_bulk_write_are_an_error(program: Run) -> None:
    code = (
        EVENTS
        + """
def bulk(request, **reply):
    start(request, {"bulkWrite": 1, "ops": [{}, {}]}, "admin")
    succeed(request, {"ok": 1, **reply})
done = {"ok": 1, "idx": 0, "n": 1}
refused = {"ok": 0, "idx": 1, "n": 0, "code": 11000, "errmsg": "secret"}
bulk(1, nErrors=0, cursor={"id": 0, "firstBatch": [done, done], "ns": "admin.$cmd.bulkWrite"})
bulk(2, nErrors=1, cursor={"id": 0, "firstBatch": [done, refused]})
bulk(3, nErrors=1.0, cursor={"id": 5, "firstBatch": [done]})
bulk(4, nErrors=2, cursor={"id": 0, "firstBatch": [{**refused, "codeName": "DuplicateKey"}, refused]})
bulk(5, nErrors=0, cursor={"firstBatch": []}, writeConcernError={"code": 64, "codeName": "WriteConcernFailed"})
bulk(6, nErrors="x", cursor=5)
bulk(7, nErrors=1, cursor={"firstBatch": 5})
bulk(8, nErrors=1, cursor={"firstBatch": [5, None, {"code": "x"}]})
"""
    )
    spans = calls(program(code))
    assert [(span.get("db.response.status_code"), span.get("error.type")) for span in spans] == [
        (None, None), ("11000", "11000"), (None, "_OTHER"), ("11000", "DuplicateKey"), ("64", "WriteConcernFailed"),
        (None, None), (None, "_OTHER"), (None, "_OTHER"),
    ]  # fmt: skip
    assert [span.status for span in spans] == [
        "error" if "error.type" in span.attributes else "unset" for span in spans
    ]
    assert "secret" not in json_of(spans)


@pytest.mark.parametrize("kind", ["synchronous", "asynchronous"])
def test_a_connection_that_is_given_up_ends_the_command_that_was_on_it(program: Run, kind: str) -> None:
    # Releases up to 4.15 tell nothing more of a command whose task was cancelled.
    code = f"""
{EVENTS}
import asyncio
from pymongo.{kind} import pool
give_up = getattr(pool, {"Connection" if kind == "synchronous" else "AsyncConnection"!r})._raise_connection_failure
class Connection:
    address, server_connection_id, ready = SERVER, 7, True
    def __init__(self, number=7): self.server_connection_id = number
    def close_conn(self, reason): return asyncio.sleep(0) if {kind == "asynchronous"} else None
async def of(coroutine):
    await coroutine
def lose(connection, error):
    try:
        outcome = give_up(connection, error)
        if asyncio.iscoroutine(outcome): asyncio.run(of(outcome))
    except BaseException as raised:
        show(type(raised).__name__)
start(1, {{"find": "kept"}}, connection=8)
start(2, {{"find": "kept"}}, server=("other", 1))
start(3, {{"getMore": 5, "collection": "older"}})
start(4, {{"find": "cancelled"}})
lose(Connection(), asyncio.CancelledError())
start(5, {{"find": "exited"}})
lose(Connection(), SystemExit())
start(6, {{"find": "failed"}})
lose(Connection(), OSError())
fail(6, {{"errtype": "AutoReconnect"}})
lose(Connection(9), KeyboardInterrupt())
lose(Connection(None), KeyboardInterrupt())
lose(Connection("x"), KeyboardInterrupt())
"""
    result = program(code)
    bare = program(
        code.replace("if events.enabled", "if True or events.enabled"), env={"REMORA_ENABLED": "false"}
    )
    assert result.shown == bare.shown
    assert len(result.shown) == 6
    assert [(span.name, span.status, span.get("error.type")) for span in calls(result)] == [
        ("find cancelled", "unset", None), ("find exited", "error", "SystemExit"),
        ("find failed", "error", "AutoReconnect"),
    ]  # fmt: skip


def test_handshakes_and_what_the_driver_hides_make_no_span(program: Run) -> None:
    code = (
        EVENTS
        + """
for n, name in enumerate(("hello", "isMaster", "ismaster", "saslStart", "saslContinue", "authenticate", "createUser",
                          "updateUser", "getnonce")):
    start(n, {name: "alice", "pwd": "secret"}); succeed(n)
"""
    )
    assert program(code).spans == []


def test_lost_events_do_not_leak_and_are_counted(program: Run) -> None:
    code = (
        EVENTS
        + """
import remora
for n in range(5000):
    start(n, {"find": "users"})
show(remora.status()["spans"]["made"])
succeed(0)
for n in range(10_000, 10_010):
    start(n, {"count": "users"}); succeed(n)
show(remora.status()["spans"]["made"])
"""
    )
    result = program(code)
    made = 5000 - 4096
    assert result.shown[0] == made
    # Ten more of the oldest made room at most; the ten that ended are there.
    assert made + 10 <= result.shown[1] <= made + 20
    assert len(find(result.spans, name="count users")) == 10


def test_commands_are_told_apart_by_their_connection(program: Run) -> None:
    # Exhaust cursors: every reply has the request number 0.
    code = (
        EVENTS
        + """
start(0, {"getMore": 1, "collection": "a"}, connection=1)
start(0, {"getMore": 1, "collection": "b"}, connection=2)
start(0, {"getMore": 1, "collection": "c"}, connection=1, server=("other", 1))
fail(0, {"code": 1}, connection=1)
succeed(0, connection=2)
fail(0, {"code": 3}, connection=1, server=("other", 1))
succeed(0, connection=2)
"""
    )
    spans = calls(program(code))
    assert [(span.name, span.get("db.response.status_code")) for span in spans] == [
        ("getMore a", "1"),
        ("getMore b", None),
        ("getMore c", "3"),
    ]


def test_a_command_open_at_a_fork_ends_in_its_own_process(program: Run) -> None:
    code = (
        EVENTS
        + """
start(1, {"find": "users"})
if (pid := os.fork()) == 0:
    succeed(1)
    start(2, {"count": "users"}); succeed(2)
    sys.exit()
os.waitpid(pid, 0)
succeed(1)
"""
    )
    result = program(code)
    found, counted = one(result.spans, "find users"), one(result.spans, "count users")
    assert found.resource["process.pid"] == result.pid != counted.resource["process.pid"]


def test_unsampled_the_driver_is_told_that_nobody_listens(program: Run) -> None:
    code = (
        EVENTS
        + """
import remora
def work():
    start(1, {"find": "users"}); succeed(1)
    return events.enabled_for_commands
show(work(), job(work), remora.status()["spans"]["made"])
"""
    )
    result = program(code, env={"OTEL_TRACES_SAMPLER": "always_off"})
    assert result.shown == [[False, False, 0]]


@pytest.mark.parametrize(
    ("wanted", "has", "made"), [("true", True, 0), ("true", False, 1), ("false", True, 1)]
)
def test_spans_of_the_driver_s_own_are_preferred_where_they_are_on(
    program: Run, wanted: str, has: bool, made: int
) -> None:
    code = f"""
import types
sys.modules["pymongo._otel"] = module = types.ModuleType("pymongo._otel")
module._HAS_OPENTELEMETRY = {has}
{EVENTS}
start(1, {{"find": "users"}}); succeed(1)
"""
    result = program(code, env={"OTEL_PYTHON_INSTRUMENTATION_MONGODB_ENABLED": wanted}, quiet=False)
    assert len(calls(result)) == made
    assert len(result.agent_lines) == 1 - made


def test_the_old_names_are_there_when_asked_for(program: Run) -> None:
    code = (
        EVENTS
        + """
start(1, {"find": "users"}, server=("db.example", 5)); succeed(1, server=("db.example", 5))
"""
    )
    [span] = calls(program(code, env={"OTEL_SEMCONV_STABILITY_OPT_IN": "database/dup"}))
    assert span["db.system"] == span["db.system.name"] == "mongodb"
    assert span["db.name"] == span["db.namespace"] == "shop"
    assert span["db.statement"] == span["db.operation"] == span["db.operation.name"] == "find"
    assert span["db.mongodb.collection"] == span["db.collection.name"] == "users"
    assert span["net.peer.name"] == span["server.address"] == "db.example"
    assert span["net.peer.port"] == span["server.port"] == 5


ODD = (
    EVENTS
    + """
from collections.abc import Mapping
class Raises(Mapping):
    def __len__(self): return 1
    def __iter__(self): raise RuntimeError("mine")
    def __getitem__(self, key): raise RuntimeError("mine")
class Odd(dict):
    def __iter__(self): return iter([b"find"])
class Text(str):
    def __str__(self): raise RuntimeError("mine")
    def __eq__(self, other): raise RuntimeError("mine")
    def __hash__(self): return 1
def attempt(call, *args):
    try:
        show(repr(call(*args)))
    except BaseException as error:
        show(type(error).__name__, str(error))
for command in ({}, None, 5, Raises(), Odd(find="users"), {b"find": "users"}, {"find": b"users"}, {"find": "\\ud800"},
                {"\\ud800": 1}, {Text("find"): Text("users")}, {"find": "x" * 10_000_000}, {"insert": "a", "documents": 5},
                {"getMore": 1}, {"explain": {}}, {"explain": Raises()}, {"x": 1}):
    attempt(events.publish_command_start, command, "shop", 1, SERVER, 7)
    attempt(events.publish_command_success, datetime.timedelta(0), {"ok": 1}, "find", 1, SERVER, 7)
for database, request, server in ((b"shop", 1, SERVER), ("\\ud800", 1, SERVER), (None, 1, SERVER), ("shop", "1", SERVER),
                                  ("shop", 2**70, SERVER), ("shop", 1, None), ("shop", 1, ()), ("shop", 1, ("\\ud800", 1)),
                                  ("shop", 1, ("host", "port")), ("shop", 1, ["host", 1])):
    attempt(events.publish_command_start, {"find": "users"}, database, request, server, 7)
    attempt(events.publish_command_failure, datetime.timedelta(0), Raises(), "find", request, server, 7)
for failure in (None, {}, {"code": "x"}, {"code": 2**70}, {"code": 1, "codeName": b"\\xff"}, {"errtype": 5}):
    attempt(events.publish_command_start, {"find": "users"}, "shop", 1, SERVER, 7)
    attempt(events.publish_command_failure, datetime.timedelta(0), failure, "find", 1, SERVER, 7)
for reply in (None, 5, {"writeErrors": 5}, {"writeErrors": []}, {"writeErrors": [5]}, {"writeConcernError": None}):
    attempt(events.publish_command_start, {"find": "users"}, "shop", 1, SERVER, 7)
    attempt(events.publish_command_success, datetime.timedelta(0), reply, "find", 1, SERVER, 7)
attempt(events.publish_command_start)
attempt(lambda: events.publish_command_start(command={"find": "users"}, database_name="shop", request_id=9,
                                             connection_id=SERVER, server_connection_id=None))
attempt(lambda: events.publish_command_success(duration=None, reply={}, command_name="find", request_id=9,
                                               connection_id=SERVER, server_connection_id=None))
"""
)


@on_oldest_and_newest
def test_odd_values_change_nothing_for_the_driver(program: Run, python: Python) -> None:
    result = program(ODD, python=python)
    bare = program(
        ODD.replace("if events.enabled_for_commands:", "if True:"),
        python=python,
        env={"REMORA_ENABLED": "false"},
    )
    assert result.shown == bare.shown
    assert len(result.shown) == 79
    assert all(len(json_of([span])) < 200_000 for span in calls(result))
    assert {span.get("error.type") for span in calls(result)} == {None, "_OTHER", "1"}


def test_no_command_and_no_reply_is_kept(program: Run) -> None:
    code = (
        EVENTS
        + """
import gc, weakref
class Document(dict): pass
command, reply = Document(find="users"), Document(ok=1)
kept = [weakref.ref(command), weakref.ref(reply)]
start(1, command)
del command
gc.collect()
show(kept[0]() is None)
succeed(1, reply)
del reply
gc.collect()
show(kept[1]() is None)
"""
    )
    assert program(code).shown == [True, True]
