"""sqlite3: one CLIENT span for each call that runs statements."""

from collections.abc import Callable

import pytest
from support.otlp import Span, children, find, one
from support.process import Result
from support.pythons import Python, on_every_python, on_oldest_and_newest

from .conftest import Program

Run = Callable[..., Program]

MEMORY = """
import sqlite3
db = sqlite3.connect(":memory:")
"""


def calls(result: Result) -> list[Span]:
    """Their spans in order."""
    return find(result.spans, kind="client", scope="remora.sqlite3")


@on_every_python
def test_each_way_to_run_statements_is_one_span(program: Run, python: Python) -> None:
    code = MEMORY + (
        "cursor = db.cursor()\n"
        'cursor.execute("create table item (id integer, name text)")\n'
        'cursor.executemany("insert into item values (?, ?)", [(n, "x") for n in range(3)])\n'
        "cursor.executescript(\"delete from item where id = 2; update item set name = 'new'\")\n"
        'show(db.execute("select name from item where id = ?", (1,)).fetchall())\n'
        'db.executemany("insert into item values (?, ?)", [(7, "y"), (8, "z")])\n'
        'db.executescript("delete from item")\n'
    )
    result = program(code, python=python)
    assert result.shown == [[["new"]]]
    spans = calls(result)
    assert len(spans) == len(result.spans)
    assert [(span.name, span["db.query.text"], span.get("db.operation.batch.size")) for span in spans] == [
        ("create table item", "create table item (id integer, name text)", None),
        ("insert item", "insert into item values (?, ?)", 3),
        ("delete item; update item", "delete from item where id = ?; update item set name = ?", None),
        ("select item", "select name from item where id = ?", None),
        ("insert item", "insert into item values (?, ?)", 2),
        ("delete item", "delete from item", None),
    ]
    for span in spans:
        assert span.kind == "client"
        assert span.status == "unset"
        assert span["db.system.name"] == "sqlite"
        assert span["db.query.summary"] == span.name
        assert not {"server.address", "server.port", "db.namespace"} & set(span.attributes)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("db.execute(\"select 'secret', 5\")", "select ?, ?"),
        ("db.execute(\"select 'secret', 5\", ())", "select ?, ?"),
        ("db.execute(\"select 'secret', 5\", [])", "select ?, ?"),
        ("db.execute(\"select 'kept', ?\", (5,))", "select 'kept', ?"),
        ("db.execute(\"select 'kept', :n\", {'n': 5})", "select 'kept', :n"),
        ("db.cursor().executescript(\"select 'secret'; select 5\")", "select ?; select ?"),
    ],
)
def test_text_without_parameters_loses_its_literals_and_text_with_them_is_kept(
    program: Run, call: str, text: str
) -> None:
    [span] = calls(program(MEMORY + call))
    assert span["db.query.text"] == text


# Parameters of many kinds; `Pair` and `Named` are derived from the interpreter's own containers.
CONTAINERS = MEMORY + (
    "import collections\n"
    'db.execute("create table t (n, m)")\n'
    "class Named(dict): pass\n"
    'Pair = collections.namedtuple("Pair", "n m", defaults=(1, 2))\n'
    'Nothing = collections.namedtuple("Nothing", "")\n'
)


@pytest.mark.parametrize(
    "call",
    [
        "db.execute(\"select 'secret', 5\", {})",
        "db.execute(\"select 'secret', 5\", Named())",
        "db.execute(\"select 'secret', 5\", Nothing())",
        "db.execute(\"select 'secret', 5\", collections.UserList())",
        "db.execute(\"select 'secret', 5\", collections.deque())",
        "db.executemany(\"insert into t values ('secret', 5)\", [(), ()])",
        "db.executemany(\"insert into t values ('secret', 5)\", ())",
        "db.executemany(\"insert into t values ('secret', 5)\", iter([(), ()]))",
        "db.cursor().executemany(\"insert into t values ('secret', 5)\", [{}])",
    ],
)
def test_what_is_not_known_to_hold_parameters_counts_as_none(program: Run, call: str) -> None:
    span = calls(program(CONTAINERS + call))[-1]
    assert span["db.query.text"].count("?") == 2
    assert "secret" not in repr(span.raw)


@pytest.mark.parametrize(
    "call",
    [
        "db.execute(\"select 'kept', ?, ?\", Pair())",
        "db.execute(\"select 'kept', :n\", Named(n=5))",
        "db.executemany(\"insert into t values ('kept', ?)\", [(1,), (2,)])",
        "db.executemany(\"insert into t values ('kept', ?)\", ([1],))",
        "db.executemany(\"insert into t values ('kept', :n)\", [Named(n=5)])",
    ],
)
def test_text_with_parameters_in_a_derived_container_is_kept(program: Run, call: str) -> None:
    span = calls(program(CONTAINERS + call))[-1]
    assert "'kept'" in span["db.query.text"]


@pytest.mark.parametrize(
    ("rows", "size"),
    [("[]", 0), ("[(1,)]", None), ("((1,), (2,))", 2), ("iter([(1,), (2,)])", None)],
)
def test_the_batch_size_is_set_where_it_is_known_and_not_one(
    program: Run, rows: str, size: int | None
) -> None:
    code = MEMORY + f'db.execute("create table t (n)")\ndb.executemany("insert into t values (?)", {rows})'
    span = calls(program(code))[-1]
    assert span.get("db.operation.batch.size") == size


@pytest.mark.parametrize(
    ("arguments", "namespace"),
    [
        ('"data/shop.db"', "shop.db"),
        ('pathlib.Path("data/shop.db")', "shop.db"),
        ('b"data/shop.db"', "shop.db"),
        ('database="data/shop.db"', "shop.db"),
        ('"data/odd#name?.db"', "odd#name?.db"),
        ('"file:data/shop%20front.db?mode=rwc", uri=True', "shop front.db"),
        ('"file:one?mode=memory&cache=shared", uri=True', None),
        ('"file::memory:?cache=shared", uri=True', None),
        ('":memory:"', None),
        ('""', None),
    ],
)
def test_the_file_s_name_is_the_namespace(
    program: Run, tmp_path: object, arguments: str, namespace: str | None
) -> None:
    code = f"""
        import os, pathlib, sqlite3
        os.chdir({str(tmp_path)!r})
        os.makedirs("data", exist_ok=True)
        db = sqlite3.connect({arguments})
        db.execute("select 1")
        db.cursor().execute("select 1")
    """
    assert [span.get("db.namespace") for span in calls(program(code))] == [namespace] * 2


@on_every_python
def test_a_connection_made_by_its_class_has_the_namespace_of_its_own_file(
    program: Run, tmp_path: object, python: Python
) -> None:
    code = f"""
        import os, sqlite3
        os.chdir({str(tmp_path)!r})
        class Before(sqlite3.Connection): pass
        class Fixed(sqlite3.Connection):
            def __init__(self, *args, **options): super().__init__("fixed.db")
        addresses = set()
        def use(make, path):
            db = make(path)
            addresses.add(id(db))
            db.execute("select 1")
            db.cursor().execute("select 1")
            if path != "left.db": db.close()
        for make in (sqlite3.connect, sqlite3.Connection, Before, Fixed):
            for path in ("a.db", "left.db", ":memory:"):
                use(make, path)
        use(lambda path: sqlite3.connect(path, factory=Fixed), "a.db")
        use(lambda path: sqlite3.Connection(database=path), "b.db")
        try: sqlite3.Connection("no/such/folder.db")
        except sqlite3.OperationalError as error: show(str(error))
        again = sqlite3.connect("a.db")
        again.__init__("b.db")
        again.execute("select 1")
        show(sqlite3.Connection.__init__.__name__, type(sqlite3.Connection.__init__).__name__)
        show(len(addresses) < 10)
    """
    result = program(code, python=python)
    assert result.shown[-1] is True
    bare = program(code, python=python, env={"REMORA_ENABLED": "false"})
    assert result.shown[0] == bare.shown[0]
    names = ["a.db", "left.db", None] * 3 + ["fixed.db"] * 4 + ["b.db"]
    found = [span.get("db.namespace") for span in calls(result)]
    assert found == [name for name in names for _ in range(2)] + ["b.db"]


def test_a_path_of_the_application_s_is_asked_once(program: Run, tmp_path: object) -> None:
    code = f"""
        import os, pathlib, sqlite3
        os.chdir({str(tmp_path)!r})
        asked = []
        class Fresh:
            def __fspath__(self):
                asked.append(self)
                return f"{{len(asked)}}.db"
        class Mine(type(pathlib.Path())):
            def __fspath__(self):
                asked.append(self)
                return f"{{len(asked)}}.db"
        for path in (Fresh(), Mine("x.db"), pathlib.Path("plain.db"), pathlib.PurePath("pure.db")):
            db = sqlite3.connect(path)
            show(os.path.basename(db.execute("pragma database_list").fetchone()[2]), len(asked))
    """
    result = program(code)
    assert result.shown == [["1.db", 1], ["2.db", 2], ["plain.db", 2], ["pure.db", 2]]
    assert [span.get("db.namespace") for span in calls(result)] == [None, None, "plain.db", "pure.db"]


def test_a_cancelled_call_is_no_error(program: Run) -> None:
    code = MEMORY + (
        "import asyncio\n"
        'db.execute("create table t (n)")\n'
        "def rows(error):\n"
        "    yield (1,)\n"
        "    raise error\n"
        "for error in (KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), ValueError()):\n"
        "    try:\n"
        '        db.executemany("insert into t values (?)", rows(error))\n'
        "    except BaseException as raised:\n"
        "        show(raised is error)\n"
    )
    result = program(code)
    assert result.shown == [True] * 4
    ends = [(span.status, span.get("error.type")) for span in calls(result)[1:]]
    assert ends == [("unset", None)] * 3 + [("error", "ValueError")]


@on_every_python
def test_statements_of_a_function_in_sql_have_spans_by_every_way(program: Run, python: Python) -> None:
    code = MEMORY + (
        'other = sqlite3.connect(":memory:")\n'
        'db.create_function("f", 0, lambda: other.execute("select 5 as inner_one").fetchone()[0])\n'
        'show(db.execute("select f()").fetchall())\n'
        'show(db.cursor().execute("select f()").fetchall())\n'
        'db.executescript("select f()")\n'
        'db.cursor().executescript("select f()")\n'
    )
    result = program(code, python=python)
    assert result.shown == [[[5]], [[5]]]
    texts = sorted(span["db.query.text"] for span in calls(result))
    assert texts == ["select ? as inner_one"] * 4 + ["select f()"] * 4
    assert {span.parent_id for span in calls(result)} == {None}


@on_every_python
def test_errors_carry_sqlite_s_own_name(program: Run, python: Python) -> None:
    code = MEMORY + (
        'db.execute("create table t (n integer unique)")\n'
        'db.execute("insert into t values (?)", (1,))\n'
        'for sql in ("insert into t values (1)", "select * from nowhere", "selec 1"):\n'
        "    try:\n"
        "        db.execute(sql)\n"
        "    except sqlite3.Error as error:\n"
        "        show(error.sqlite_errorname)\n"
    )
    result = program(code, python=python)
    assert result.shown == ["SQLITE_CONSTRAINT_UNIQUE", "SQLITE_ERROR", "SQLITE_ERROR"]
    spans = calls(result)[2:]
    assert [span["db.response.status_code"] for span in spans] == result.shown
    errors = ["sqlite3.IntegrityError", "sqlite3.OperationalError", "sqlite3.OperationalError"]
    assert [span["error.type"] for span in spans] == errors
    assert {(span.status, span.status_message) for span in spans} == {("error", "")}
    assert all(span.events == [] for span in spans)


WRONG = MEMORY + (
    "def attempt(call, *args):\n"
    "    try:\n"
    "        show(str(call(*args).fetchall()))\n"
    "    except BaseException as error:\n"
    "        show(type(error).__name__, str(error))\n"
    "cursor = db.cursor()\n"
    'for args in ((), (5,), (None,), (b"select 1",), ("select 1", 5), ("select ?", ()),\n'
    '             ("select 1", (), 3), ("select \\ud800",), ("",), ("select 1; select 2",),\n'
    '             ("select 1\\0",)):\n'
    "    attempt(db.execute, *args)\n"
    "    attempt(cursor.execute, *args)\n"
    "    attempt(cursor.executescript, *args)\n"
    "    attempt(cursor.executemany, *args)\n"
)


@on_every_python
def test_wrong_calls_fail_as_without_us(program: Run, python: Python) -> None:
    result = program(WRONG, python=python)
    bare = program(WRONG, python=python, env={"REMORA_ENABLED": "false"})
    assert result.shown == bare.shown
    assert len(result.shown) == 44
    assert find(result.spans, kind="client")


def test_a_huge_statement_is_shortened_and_runs(program: Run) -> None:
    code = MEMORY + (
        'sql = "select \'" + "x" * 900_000 + "\' as secret, " + ", ".join("?" * 900)\n'
        "row = db.execute(sql, tuple(range(900))).fetchone()\n"
        "show(len(row[0]), len(row))\n"
        'db.execute("select \'" + "x" * 900_000 + "\'")\n'
    )
    result = program(code)
    assert result.shown == [[900_000, 901]]
    kept, sanitized = calls(result)
    assert len(kept["db.query.text"]) <= 64 * 1024
    assert len(sanitized["db.query.text"]) <= 64 * 1024
    assert "xxx" not in sanitized["db.query.text"]


@on_every_python
def test_types_factories_and_subclasses_stay_what_they_are(program: Run, python: Python) -> None:
    code = """
        import sqlite3
        class Cursor(sqlite3.Cursor):
            def execute(self, sql, *args):
                return super().execute(sql + " -- mine", *args)
        class Connection(sqlite3.Connection):
            def cursor(self, factory=Cursor):
                return super().cursor(factory)
            def execute(self, sql, *args):
                show("connection")
                return super().execute(sql, *args)
        db = sqlite3.connect(":memory:", factory=Connection)
        show(type(db) is Connection, isinstance(db, sqlite3.Connection), type(db.cursor()) is Cursor)
        db.row_factory = sqlite3.Row
        with db:
            row = db.cursor().execute("select 1 as one").fetchone()
        show(type(row).__name__, row["one"], row.keys())
        show(type(db.execute("select 2")) is sqlite3.Cursor or type(db.execute("select 2")) is Cursor)
        show([row[0] for row in sqlite3.Cursor(db).execute("select 3")])
        plain = sqlite3.connect(":memory:")
        show(type(plain) is sqlite3.Connection, type(plain.execute("select 4")) is sqlite3.Cursor)
        show(sqlite3.Cursor.execute.__class__.__name__, sqlite3.Cursor.execute.__name__)
        other = sqlite3.connect(":memory:")
        plain.execute("create table t (n)")
        plain.backup(other)
        show(other.execute("select count(*) from t").fetchone())
    """
    result = program(code, python=python)
    bare = program(code, python=python, env={"REMORA_ENABLED": "false"})
    assert result.shown == bare.shown
    texts = [span["db.query.text"] for span in calls(result)]
    assert texts.count("select ? -- mine") + texts.count("select ? as one -- mine") >= 1
    assert len(find(result.spans, name="create table t")) == 1


def test_a_cursor_whose_init_was_not_called_fails_as_without_us(program: Run) -> None:
    code = MEMORY + (
        "class Cursor(sqlite3.Cursor):\n"
        "    def __init__(self, connection): pass\n"
        "try:\n"
        '    Cursor(db).execute("select 1")\n'
        "except sqlite3.ProgrammingError as error:\n"
        "    show(str(error))\n"
    )
    result = program(code)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    [span] = calls(result)
    assert span["error.type"] == "sqlite3.ProgrammingError"


def test_threads_share_nothing_but_the_parent(program: Run) -> None:
    code = """
        import sqlite3, threading
        def work():
            def query(n):
                db = sqlite3.connect(":memory:")
                for _ in range(50):
                    db.execute(f"select {n}").fetchone()
            threads = [threading.Thread(target=query, args=(n,)) for n in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        job(work)
    """
    result = program(code)
    spans = children(result.spans, one(result.spans, kind="server"))
    assert len(spans) == 200
    assert {(span.name, span["db.query.text"]) for span in spans} == {("select", "select ?")}


def test_nothing_is_made_where_nothing_is_sampled(program: Run) -> None:
    code = MEMORY + (
        'import remora\nshow(db.execute("select 1").fetchone())\nshow(remora.status()["spans"]["made"])\n'
    )
    result = program(code, env={"OTEL_TRACES_SAMPLER": "always_off"})
    assert result.shown == [[1], 0]
    assert result.spans == []


def test_statements_and_connections_are_not_kept_without_bound(program: Run) -> None:
    code = MEMORY + (
        "import gc, sys, weakref\n"
        "class Connection(sqlite3.Connection): pass\n"
        'other = sqlite3.connect(":memory:", factory=Connection)\n'
        'other.execute("select 1")\n'
        "reference = weakref.ref(other)\n"
        "del other\n"
        "gc.collect()\n"
        "show(reference() is None)\n"
        "def peak():\n"
        '    with open("/proc/self/statm") as file: return int(file.read().split()[1]) * 4096\n'
        "for n in range(20_000): db.execute(f\"select {n}, '{'x' * 500}'\").fetchone()\n"
        "before = peak()\n"
        "for n in range(60_000): db.execute(f\"select {n}, '{'y' * 500}'\").fetchone()\n"
        "show(peak() - before)\n"
    )
    result = program(code, env={"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_TRACES_EXPORTER": "none"})
    released, growth = result.shown
    assert released is True
    assert growth < 16 * 1024 * 1024


@on_oldest_and_newest
def test_a_module_imported_before_activation_gives_the_same_spans(program: Run, python: Python) -> None:
    code = """
        import sqlite3
        from sqlite3 import connect, Cursor, Connection
        execute = Connection.execute
        db = connect(":memory:")
        import remora
        remora.init()
        show(db.execute("select 1").fetchone())
        show(Cursor(db).execute("select 2").fetchone())
    """
    early = program(code, env={"REMORA_ENABLED": None}, python=python)
    assert early.shown == [[1], [2]]
    shown = [span.attributes for span in calls(early)]
    late = program(code, python=python)
    assert [span.attributes for span in calls(late)[2:]] == shown
    assert len(shown) == 2


def test_a_disabled_library_is_left_alone(program: Run) -> None:
    code = MEMORY + (
        'import remora\nshow(db.execute("select 1").fetchone())\n'
        'show(remora.status()["hooks"]["sqlite3"]["state"], type(sqlite3.Cursor.execute).__name__)\n'
    )
    result = program(code, env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "sqlite3"})
    assert result.shown == [[1], ["disabled", "method_descriptor"]]
    assert result.spans == []
