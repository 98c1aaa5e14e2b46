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
