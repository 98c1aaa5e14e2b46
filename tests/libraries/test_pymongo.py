"""pymongo: one CLIENT span for each command, of the sync and of the asynchronous client."""

from collections.abc import Callable

import pytest
from support.otlp import Span, children, find, one
from support.process import Result
from support.pythons import Python, on_oldest_and_newest, on_releases
from support.servers.mongodb import MongoDB

from .conftest import Program

Run = Callable[..., Program]


@pytest.fixture
def mongo(program: Run, mongodb: MongoDB, request: pytest.FixtureRequest) -> Run:
    """`program`, with the server's address in `MONGO` and a fresh database's name in `DB`."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"

    def run(code: str, *, env: dict[str, str | None] | None = None, **options: object) -> Program:
        return program(code, env={"MONGO": mongodb.uri, "DB": name, **(env or {})}, **options)

    return run


# `db` and `users`, an empty collection; `outcome(call, *args)` shows what a call raised, or `None`.
CLIENT = """
import pymongo
client = pymongo.MongoClient(os.environ["MONGO"])
db = client[os.environ["DB"]]
users = db.users

def outcome(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        show(type(error).__name__)
    else:
        show(None)
"""


def calls(result: Result) -> list[Span]:
    """Their spans in order, without the end of the client's sessions."""
    spans = find(result.spans, kind="client", scope="remora.pymongo")
    return [span for span in spans if span["db.operation.name"] != "endSessions"]


def namespace(result: Result) -> str:
    return str(calls(result)[0]["db.namespace"])


COMMANDS = (
    CLIENT
    + """
users.insert_one({"_id": 1, "name": "secret"})
users.insert_many([{"_id": n} for n in range(2, 12)])
show(users.find_one({"name": "secret"})["_id"])
show(len(list(users.find({}, batch_size=4))))
show(users.update_one({"_id": 1}, {"$set": {"name": "other"}}).modified_count)
show(users.delete_many({"_id": {"$gt": 9}}).deleted_count)
users.create_index("name")
show(len(list(users.aggregate([{"$match": {}}, {"$group": {"_id": None, "n": {"$sum": 1}}}]))))
show(users.find_one_and_update({"_id": 1}, {"$set": {"name": "third"}})["name"])
show(users.distinct("name"))
show(client.admin.command("ping")["ok"])
users.drop()
"""
)


@on_oldest_and_newest
def test_each_command_is_one_span(mongo: Run, mongodb: MongoDB, python: Python) -> None:
    check_commands(mongo(COMMANDS, python=python), mongodb)


@on_releases("old")
def test_old_releases_give_the_same(mongo: Run, mongodb: MongoDB, python: Python) -> None:
    check_commands(mongo(COMMANDS, python=python), mongodb)


def check_commands(result: Program, mongodb: MongoDB) -> None:
    assert result.shown == [1, 11, 1, 2, 1, "other", ["third"], 1.0]
    spans = calls(result)
    assert [(span.name, span.get("db.operation.batch.size")) for span in spans] == [
        ("insert users", None),
        ("insert users", 10),
        ("find users", None),
        ("find users", None),
        ("getMore users", None),
        ("getMore users", None),
        ("update users", None),
        ("delete users", None),
        ("createIndexes users", None),
        ("aggregate users", None),
        ("findAndModify users", None),
        ("distinct users", None),
        ("ping admin", None),
        ("drop users", None),
    ]
    database = namespace(result)
    for span in spans:
        operation, _, target = span.name.partition(" ")
        assert span.kind == "client"
        assert (span.status, span.status_message) == ("unset", "")
        assert span["db.system.name"] == "mongodb"
        assert span["db.operation.name"] == operation
        assert (span["server.address"], span["server.port"]) == ("127.0.0.1", mongodb.port)
        assert span["db.namespace"] == ("admin" if target == "admin" else database)
        assert span.get("db.collection.name") == (None if target == "admin" else "users")
        assert not {"db.query.text", "error.type", "db.response.status_code"} & set(span.attributes)
    assert "secret" not in json_of(spans)


def json_of(spans: list[Span]) -> str:
    return str([span.raw for span in spans])


@on_oldest_and_newest
def test_the_asynchronous_client_gives_the_same_under_the_right_parent(mongo: Run, python: Python) -> None:
    code = """
        import asyncio, pymongo
        async def one(db, n):
            await db.users.insert_one({"n": n})
            return len([user async for user in db.users.find({"n": n})])
        async def main():
            async with pymongo.AsyncMongoClient(os.environ["MONGO"]) as client:
                db = client[os.environ["DB"]]
                return await asyncio.gather(*(one(db, n) for n in range(20)))
        show(job(lambda: asyncio.run(main())))
    """
    result = mongo(code, python=python)
    assert result.shown == [[1] * 20]
    below = children(result.spans, one(result.spans, kind="server"))
    # This server does not know the client's last command.
    below = [span for span in below if span["db.operation.name"] != "endSessions"]
    assert sorted(span.name for span in below) == ["find users"] * 20 + ["insert users"] * 20
    assert {span.status for span in below} == {"unset"}


def test_threads_and_pools_keep_their_parent(mongo: Run) -> None:
    code = (
        CLIENT
        + """
from concurrent.futures import ThreadPoolExecutor
users.insert_one({"_id": 1})
def work():
    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(lambda n: users.find_one()["_id"], range(40)))
show(job(work))
"""
    )
    result = mongo(code)
    assert result.shown == [40]
    below = children(result.spans, one(result.spans, kind="server"))
    assert [span.name for span in below] == ["find users"] * 40


ERRORS = (
    CLIENT
    + """
from pymongo import InsertOne, WriteConcern
users.insert_one({"_id": 1})
outcome(users.insert_one, {"_id": 1})
outcome(users.bulk_write, [InsertOne({"_id": 2}), InsertOne({"_id": 1}), InsertOne({"_id": 3})], ordered=False)
outcome(db.command, "noSuchThing", 1)
outcome(users.aggregate, [{"$noStage": {}}])
outcome(users.with_options(write_concern=WriteConcern(w=0)).insert_one, {"_id": 4})
"""
)


@on_oldest_and_newest
def test_errors_of_the_server_carry_its_code_and_name(mongo: Run, python: Python) -> None:
    check_errors(mongo(ERRORS, python=python))


@on_releases("old")
def test_errors_in_old_releases(mongo: Run, python: Python) -> None:
    check_errors(mongo(ERRORS, python=python))


def check_errors(result: Program) -> None:
    assert result.shown == [
        "DuplicateKeyError",
        "BulkWriteError",
        "OperationFailure",
        "OperationFailure",
        None,
    ]
    spans = calls(result)
    seen = [
        (span.name, span.status, span.get("db.response.status_code"), span.get("error.type"))
        for span in spans
    ]
    unset = ("unset", None, None)
    database = namespace(result)
    # A refused write is in a reply without a name for the code.
    assert seen == [
        ("insert users", *unset),
        ("insert users", "error", "11000", "11000"),
        ("insert users", "error", "11000", "11000"),
        (f"noSuchThing {database}", "error", "59", "CommandNotFound"),
        ("aggregate users", "error", "40234", "Location40234"),
        ("insert users", *unset),
    ]
    assert spans[2]["db.operation.batch.size"] == 3
    assert {span.status_message for span in spans} == {""}


# A way to the server that can be cut or stopped: `way.cut`, `way.stop` are sets of commands.
PROXY = """
import socket, threading
class Way:
    def __init__(self, target):
        self.cut, self.stop = set(), set()
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
    def accept(self):
        while True:
            here = self.listener.accept()[0]
            there = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self.pump, args=(here, there, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(there, here, False), daemon=True).start()
    def pump(self, source, sink, requests):
        try:
            while data := source.recv(65536):
                if requests and any(name in data for name in self.cut):
                    self.cut.clear()
                    break
                if requests and any(name in data for name in self.stop):
                    continue
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try: one.shutdown(socket.SHUT_RDWR)
            except OSError: pass
way = Way(int(os.environ["MONGO"].rpartition(":")[2]))
"""


@on_oldest_and_newest
def test_a_lost_connection_and_a_cancelled_task(mongo: Run, python: Python) -> None:
    code = (
        PROXY
        + """
import asyncio, pymongo
URI = f"mongodb://127.0.0.1:{way.port}"
client = pymongo.MongoClient(URI)
client.db.command("ping")
way.cut.add(b"find")
show(client.db.users.find_one())
client.close()
async def main():
    async with pymongo.AsyncMongoClient(URI) as client:
        await client.db.command("ping")
        way.stop.add(b"find")
        task = asyncio.create_task(client.db.users.find_one())
        await asyncio.sleep(0.3)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            show("cancelled")
        way.stop.clear()
asyncio.run(main())
"""
    )
    result = mongo(code, python=python)
    assert result.shown == [None, "cancelled"]
    lost, again, cancelled = find(calls(result), name="find users")
    # The driver reads again: each command that is sent is a span.
    assert (lost.status, lost["error.type"]) == ("error", "pymongo.errors.AutoReconnect")
    assert again.status == cancelled.status == "unset"
    assert "error.type" not in cancelled.attributes
    assert find(result.spans, name="ping db") != []


# The driver's own way to tell of commands, for what this server cannot do.
EVENTS = """
import datetime
from pymongo import monitoring
events = monitoring._EventListeners([])
SERVER = ("db.example", 27017)

def start(request, command, database="shop", server=SERVER, connection=7):
    if events.enabled_for_commands:
        events.publish_command_start(command, database, request, server, connection)

def succeed(request, reply={"ok": 1}, server=SERVER, connection=7):
    if events.enabled_for_commands:
        events.publish_command_success(datetime.timedelta(0), reply, "any", request, server, connection)

def fail(request, failure, server=SERVER, connection=7):
    if events.enabled_for_commands:
        events.publish_command_failure(datetime.timedelta(0), failure, "any", request, server, connection)
"""


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


@on_releases("old", "newest")
def test_listeners_of_the_application_see_what_they_would_see(mongo: Run, python: Python) -> None:
    code = """
        import pymongo
        from pymongo import monitoring
        class Mine(monitoring.CommandListener):
            def started(self, event): show("started", event.command_name)
            def succeeded(self, event): show("succeeded", event.command_name)
            def failed(self, event): show("failed", event.command_name)
        class Bad(monitoring.CommandListener):
            def started(self, event): raise ValueError("mine")
            succeeded = failed = started
        plain = monitoring._EventListeners([])
        show(plain.event_listeners(), monitoring._LISTENERS.command_listeners)
        client = pymongo.MongoClient(os.environ["MONGO"], event_listeners=[Bad(), Mine()])
        client.db.command("ping")
        try:
            client.db.command("noSuchThing")
        except Exception as error:
            show(type(error).__name__, str(error))
        client.close()
    """
    result = mongo(code, python=python, quiet=False)
    bare = mongo(code, python=python, quiet=False, env={"REMORA_ENABLED": "false"})
    assert result.shown == bare.shown
    assert ["started", "ping"] in result.shown
    assert result.stderr.count("ValueError: mine") == bare.stderr.count("ValueError: mine") > 0
    assert len(find(result.spans, name="ping db")) == 1


@on_oldest_and_newest
def test_a_client_made_before_activation_is_traced_and_afterwards_left_alone(
    mongo: Run, python: Python
) -> None:
    code = (
        CLIENT
        + """
from pymongo import monitoring
asked = monitoring._EventListeners.__dict__["enabled_for_commands"]
listeners = monitoring._EventListeners([])
client.db.command("ping")
import remora, remora._native
remora.init()
client.db.command("buildInfo")
show(listeners.enabled_for_commands, remora.status()["hooks"]["pymongo"]["state"])
remora._native.deactivate()
client.db.command("ping")
show(listeners.enabled_for_commands, monitoring._EventListeners.__dict__["enabled_for_commands"] is asked)
client.close()
"""
    )
    result = mongo(code, env={"REMORA_ENABLED": None}, python=python)
    assert result.shown == [[True, "applied"], [False, True]]
    assert [span.name for span in result.spans] == ["buildInfo db"]


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
    assert span["db.operation"] == span["db.operation.name"] == "find"
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


def test_a_release_without_one_of_its_methods_is_said_once_and_works(mongo: Run) -> None:
    code = """
        import pymongo
        from pymongo import monitoring
        monitoring._EventListeners.tell_start = monitoring._EventListeners.publish_command_start
        del monitoring._EventListeners.publish_command_start
        import remora
        remora.init()
        client = pymongo.MongoClient(os.environ["MONGO"])
        show(monitoring._EventListeners([]).enabled_for_commands)
        show(remora.status()["hooks"]["pymongo"]["state"])
    """
    result = mongo(code, env={"REMORA_ENABLED": None}, quiet=False)
    assert result.shown == [True, "missing"]
    [line] = result.agent_lines
    assert "publish_command_start" in line
