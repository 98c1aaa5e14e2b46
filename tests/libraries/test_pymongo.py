"""pymongo: one CLIENT span for each command, of the sync and of the asynchronous client."""

from collections.abc import Callable

from support.otlp import children, find, one
from support.pythons import Python, on_oldest_and_newest, on_releases
from support.servers.mongodb import MongoDB

from .conftest import Program
from .pymongo_program import CLIENT, PROXY, calls, json_of, namespace

Run = Callable[..., Program]

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


@on_releases("old", "newest")
def test_an_error_has_its_code_whatever_class_documents_have(mongo: Run, python: Python) -> None:
    code = (
        CLIENT
        + """
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from bson.son import SON
users.insert_one({"_id": 1})
for kind in (RawBSONDocument, SON):
    documents = users.with_options(CodecOptions(document_class=kind))
    outcome(documents.find_one, {"$wrong": 1})
"""
    )
    result = mongo(code, python=python)
    assert result.shown == ["OperationFailure", "OperationFailure"]
    finds = find(calls(result), name="find users")
    seen = [(span["db.response.status_code"], span["error.type"]) for span in finds]
    assert seen == [("2", "BadValue")] * 2


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


@on_releases("old", "newest")
def test_an_interrupted_command_ends_there_and_is_no_error(mongo: Run, python: Python) -> None:
    code = (
        PROXY
        + """
import pymongo, remora, signal
client = pymongo.MongoClient(f"mongodb://127.0.0.1:{way.port}")
users = client[os.environ["DB"]].users
users.insert_one({})
def interrupt():
    way.stopped.wait()
    os.kill(os.getpid(), signal.SIGINT)
for name, call in ((b"find", users.find_one), (b"insert", lambda: users.insert_many([{}, {}])),
                   (b"distinct", lambda: users.distinct("x"))):
    made = remora.status()["spans"]["made"]
    way.stopped.clear()
    way.stop.add(name)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        call()
    except KeyboardInterrupt:
        show(remora.status()["spans"]["made"] - made)
    thread.join()
    way.stop.clear()
show(users.count_documents({}))
"""
    )
    result = mongo(code, python=python)
    assert result.shown == [1, 1, 1, 1]
    seen = [(span.name, span.status, span.get("error.type")) for span in calls(result)]
    names = ["insert users", "find users", "insert users", "distinct users", "aggregate users"]
    assert seen == [(name, "unset", None) for name in names]


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
