"""psycopg: one CLIENT span for each call of a cursor, against a real PostgreSQL."""

from collections.abc import Callable
from textwrap import dedent

import pytest
from support.otlp import Span, children, find, one
from support.process import Result
from support.pythons import Python, on, on_oldest_and_newest, on_releases
from support.servers.postgresql import PostgreSQL

from .conftest import Program

Run = Callable[..., Program]

CONNECT = """
import os, psycopg
from psycopg import sql
DSN = os.environ["DSN"]
db = psycopg.connect(DSN, autocommit=True)
"""


@pytest.fixture
def pg(program: Run, postgresql: PostgreSQL) -> Run:
    """Runs code with an open connection, `db`."""

    def run(code: str, *, env: dict[str, str | None] | None = None, **options: object) -> Program:
        return program(CONNECT + dedent(code), env={"DSN": postgresql.url, **(env or {})}, **options)

    return run


def calls(result: Result) -> list[Span]:
    """Their spans in order."""
    return find(result.spans, kind="client", scope="remora.psycopg")


WAYS = """
cursor = db.cursor()
cursor.execute("create temporary table item (id int, name text)")
cursor.executemany("insert into item values (%s, %s)", [(n, "x") for n in range(3)])
show(cursor.execute("select name from item where id = %s", (1,)).fetchall())
show(list(cursor.stream("select id from item order by id")))
with cursor.copy("copy item (id, name) from stdin") as copy:
    for n in range(3, 6): copy.write_row((n, "y"))
with cursor.copy("copy item to stdout") as copy:
    show(len(list(copy.rows())))
show(db.execute("select 1").fetchone())
with db.transaction():
    with db.cursor("named") as named:
        show(named.execute("select id from item where id > %s", (3,)).fetchall())
"""
WAYS_ASYNC = """
import asyncio
async def main():
    async with await psycopg.AsyncConnection.connect(DSN, autocommit=True) as db:
        cursor = db.cursor()
        await cursor.execute("create temporary table item (id int, name text)")
        await cursor.executemany("insert into item values (%s, %s)", [(n, "x") for n in range(3)])
        await cursor.execute("select name from item where id = %s", (1,))
        show(await cursor.fetchall())
        show([row async for row in cursor.stream("select id from item order by id")])
        async with cursor.copy("copy item (id, name) from stdin") as copy:
            for n in range(3, 6): await copy.write_row((n, "y"))
        async with cursor.copy("copy item to stdout") as copy:
            show(len([row async for row in copy.rows()]))
        show(await (await db.execute("select 1")).fetchone())
        async with db.transaction():
            async with db.cursor("named") as named:
                await named.execute("select id from item where id > %s", (3,))
                show(await named.fetchall())
asyncio.run(main())
"""
SHOWN = [[["x"]], [[0], [1], [2]], 6, [1], [[4], [5]]]
TEXTS = [
    ("create table item", "create temporary table item (id int, name text)", None),
    ("insert item", "insert into item values (%s, %s)", 3),
    ("select item", "select name from item where id = %s", None),
    ("select item", "select id from item order by id", None),
    ("copy item", "copy item (id, name) from stdin", None),
    ("copy item", "copy item to stdout", None),
    ("select", "select ?", None),
    ("select item", "select id from item where id > %s", None),
]


def check_ways(result: Program, postgresql: PostgreSQL) -> None:
    assert result.shown == SHOWN
    spans = calls(result)
    assert [(span["db.query.text"], span.get("db.operation.batch.size")) for span in spans] == [
        (text, size) for _, text, size in TEXTS
    ]
    assert [span.name for span in spans] == [name for name, _, _ in TEXTS]
    assert len(result.spans) == len(spans)
    for span in spans:
        fixed = {
            "db.system.name": "postgresql",
            "db.namespace": "postgres",
            "db.query.summary": span.name,
            "server.address": "127.0.0.1",
            "server.port": postgresql.port,
            "network.peer.address": "127.0.0.1",
            "network.peer.port": postgresql.port,
        }
        assert {key: span.get(key) for key in fixed} == fixed
        assert not set(span.attributes) - {*fixed, "db.query.text", "db.operation.batch.size"}
        assert (span.status, span.events) == ("unset", [])


@pytest.mark.parametrize("code", [WAYS, WAYS_ASYNC], ids=["sync", "async"])
@on_oldest_and_newest
def test_each_way_to_run_statements_is_one_span(
    pg: Run, postgresql: PostgreSQL, python: Python, code: str
) -> None:
    check_ways(pg(code, python=python), postgresql)


@pytest.mark.parametrize("code", [WAYS, WAYS_ASYNC], ids=["sync", "async"])
@on_releases("old", "middle")
def test_older_releases_give_the_same_spans(
    pg: Run, postgresql: PostgreSQL, python: Python, code: str
) -> None:
    check_ways(pg(code, python=python), postgresql)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("execute(\"select 'secret', 5\")", "select ?, ?"),
        ("execute(\"select 'secret', 5\", ())", "select ?, ?"),
        ("execute(\"select 'kept', %s\", (5,))", "select 'kept', %s"),
        ("execute(\"select 'kept', %(n)s\", {'n': 5})", "select 'kept', %(n)s"),
        ("execute(b\"select 'secret', 5\")", "select ?, ?"),
        ("execute(query=\"select 'kept', %s\", params=[5])", "select 'kept', %s"),
        (
            "execute(sql.SQL('select {}, {}, {} from {}').format(sql.Identifier('re\"l', 'oid'),"
            " sql.Literal('secret'), sql.Placeholder(), sql.SQL('pg_class re\"\"l').__class__('pg_class as '"
            ") + sql.Identifier('re\"l')), ('x',))",
            'select "re""l"."oid", ?, %s from pg_class as "re""l"',
        ),
        ("execute(sql.SQL(', ').join([sql.SQL('select 7'), sql.Literal('secret')]))", "select ?, ?"),
        ("execute(sql.SQL('select {n}').format(n=sql.Placeholder('n')), {'n': 1})", "select %(n)s"),
        ("execute(\"select 'secret', 5\", type('Named', (dict,), {})())", "select ?, ?"),
        ("execute(\"select 'kept', %(n)s\", type('Named', (dict,), {})(n=5))", "select 'kept', %(n)s"),
        ("execute(\"select 'secret', 5\", __import__('collections').UserList())", "select ?, ?"),
        ("cursor().executemany(\"select 'secret', 5\", [(), ()])", "select ?, ?"),
        ("cursor().executemany(\"select 'secret', 5\", (() for _ in range(2)))", "select ?, ?"),
        ("cursor().executemany(\"select 'kept', %s\", [[5], [6]])", "select 'kept', %s"),
    ],
)
def test_no_value_is_shown_and_text_with_parameters_is_kept(pg: Run, call: str, text: str) -> None:
    result = pg(f"db.{call}")
    [span] = calls(result)
    assert span["db.query.text"] == text
    assert "secret" not in repr(span.raw)


DERIVED = """
class Query(sql.SQL): pass
class Name(sql.Identifier): pass
class Whole(sql.Composed): pass
class Text(sql.SQL):
    def as_string(self, context=None): return "select 'secret', 7"
    def as_bytes(self, context=None): return b"select 'secret', 7"
class Inner(sql.SQL):
    def __getattribute__(self, name):
        if name == "_obj": show("asked")
        return super().__getattribute__(name)
for query in (
    Query("select relname, 'secret' from pg_class"),
    sql.SQL("select {} from {}").format(Query("relname"), Name("pg_class")),
    Whole([sql.SQL("select relname from "), sql.Identifier("pg_class")]),
    Text("select 5"),
    sql.SQL("{}, {}").format(Text("select 5"), sql.SQL("6")),
):
    db.execute(query)
before = Inner("select 1")
show("run")
db.execute(before)
"""


def test_a_class_derived_from_one_of_sql_shows_as_it_unless_it_makes_the_text_itself(pg: Run) -> None:
    result = pg(DERIVED)
    assert result.shown == pg(DERIVED, env={"REMORA_ENABLED": "false"}).shown
    spans = calls(result)
    assert [span.get("db.query.text") for span in spans] == [
        "select relname, ? from pg_class",
        'select relname from "pg_class"',
        'select relname from "pg_class"',
        None,
        "?, ?",
        None,
    ]
    assert [spans[at].name for at in (0, 3, 5)] == ["select pg_class", "postgresql", "postgresql"]
    assert "secret" not in repr([span.raw for span in spans])


@on("3.14", "3.15")
def test_template_strings_show_no_values(pg: Run, python: Python) -> None:
    code = """
        secret, table, inner = "secret", "pg_class", t"select {'secret'}"
        for query in (t"select {secret}, {5}", t"select {secret:l}", t"select count(*) from {table:i}",
                      t"{inner:q}", t"select {sql.Literal('secret'):l}, {sql.SQL('7'):q}"):
            db.execute(query)
            list(db.cursor().stream(query))
    """
    spans = calls(pg(code, python=python))
    texts = ["select ?, ?", "select ?", 'select count(*) from "pg_class"', "select ?", "select ?, ?"]
    assert [span["db.query.text"] for span in spans] == [text for text in texts for _ in range(2)]
    assert "secret" not in repr([span.raw for span in spans])


ERRORS = """
db.execute("create temporary table t (n int unique)")
def attempt(call):
    try:
        call()
    except BaseException as error:
        show(type(error).__name__, getattr(error, "sqlstate", None), error.__traceback__.tb_next is not None)
cursor = db.cursor()
cursor.execute("insert into t values (%s)", (471147114,))
for call in (
    lambda: cursor.execute("insert into t values (471147114)"),
    lambda: db.execute("select * from nowhere"),
    lambda: cursor.executemany("insert into t values (%s)", [(471147114,)]),
    lambda: list(cursor.stream("selec 471147114")),
    lambda: cursor.copy("copy nowhere from stdin").__enter__(),
    lambda: cursor.execute("select %s", object()),
    lambda: cursor.execute("select %s"),
    lambda: cursor.execute(5),
    lambda: cursor.execute(),
    lambda: cursor.execute("select '\\ud800'"),
    lambda: cursor.stream(),
):
    attempt(call)
db.close()
attempt(lambda: cursor.execute("select 1"))
"""


@on_oldest_and_newest
def test_errors_carry_the_sqlstate_and_fail_as_without_us(pg: Run, python: Python) -> None:
    result = pg(ERRORS, python=python)
    assert result.shown == pg(ERRORS, python=python, env={"REMORA_ENABLED": "false"}).shown
    spans = calls(result)[2:]
    codes = [span.get("db.response.status_code") for span in spans]
    assert codes[:5] == ["23505", "42P01", "23505", "42601", "42P01"]
    assert [span["error.type"] for span in spans[:5]] == codes[:5]
    assert {(span.status, span.status_message) for span in spans} == {("error", "")}
    assert all(span.events == [] for span in spans)
    assert "471147114" not in repr([span.raw for span in spans])
    assert spans[-1]["error.type"] == "psycopg.OperationalError"


def test_a_stream_ends_with_its_first_row_and_a_copy_with_its_block(pg: Run) -> None:
    code = """
        import time
        cursor = db.cursor()
        rows = cursor.stream("select generate_series(1, 5)")
        show(type(rows).__name__, next(rows))
        time.sleep(0.3)
        rows.close()
        never = cursor.stream("select 2")
        del never
        with cursor.copy("copy (select 3) to stdout") as copy:
            time.sleep(0.3)
            show(type(copy).__name__, copy.read().tobytes().decode())
            copy.read()
        manager = cursor.copy("copy (select 4) to stdout")
        show(type(manager).__name__, type(manager).__module__)
        try:
            with cursor.copy("copy (select 5) to stdout") as copy:
                raise ValueError("secret")
        except ValueError as error:
            show(str(error))
    """
    result = pg(code)
    bare = pg(code, env={"REMORA_ENABLED": "false"})
    # Its class is the generator's; only `type` sees what follows it.
    assert [shown if isinstance(shown, str) else shown[1] for shown in result.shown] == [
        shown if isinstance(shown, str) else shown[1] for shown in bare.shown
    ]
    stream, copy, failed = calls(result)
    assert stream.duration < 250_000_000 < copy.duration
    assert (failed.status, failed["error.type"]) == ("error", "ValueError")
    assert "secret" not in repr(failed.raw)


def test_the_parent_is_right_and_the_caller_s_context_is_untouched(pg: Run) -> None:
    code = """
        import remora
        def work():
            before = remora.current_span_id()
            db.execute("select 1")
            seen = [remora.current_span_id() == before for _ in db.cursor().stream("select generate_series(1, 2)")]
            with db.cursor().copy("copy (select 1) to stdout") as copy:
                seen.append(remora.current_span_id() == before)
                list(copy)
            seen.append(remora.current_span_id() == before)
            return seen
        show(job(work))
        import asyncio
        async def main():
            async with await psycopg.AsyncConnection.connect(DSN) as one, \\
                    await psycopg.AsyncConnection.connect(DSN) as two:
                async def ask(db, n):
                    with remora.span(f"task {n}"):
                        await db.execute("select pg_sleep(0.05)")
                        await (await db.execute("select 1")).fetchone()
                await asyncio.gather(ask(one, 1), ask(two, 2))
        asyncio.run(main())
    """
    result = pg(code)
    assert result.shown == [[True] * 4]
    assert len(children(result.spans, one(result.spans, kind="server"))) == 3
    for n in (1, 2):
        assert len(children(result.spans, one(result.spans, name=f"task {n}"))) == 2


def test_a_cancelled_call_is_no_error(pg: Run) -> None:
    code = """
        import asyncio
        async def main():
            async with await psycopg.AsyncConnection.connect(DSN, autocommit=True) as db:
                try:
                    await asyncio.wait_for(db.execute("select pg_sleep(20)"), 0.2)
                except asyncio.TimeoutError:
                    show("timeout")
                show(await (await db.execute("select 1")).fetchone())
                db.cursor().execute("select 1").close()
        asyncio.run(main())
    """
    result = pg(code)
    assert result.shown == ["timeout", [1]]
    slow, after = calls(result)
    assert slow.status == after.status == "unset"
    assert "error.type" not in slow.attributes


@on_oldest_and_newest
def test_pipelines_pools_two_phases_and_factories_work_as_without_us(pg: Run, python: Python) -> None:
    code = """
        import psycopg_pool
        with db.pipeline() as pipeline:
            one, two = db.cursor(), db.cursor()
            one.execute("select 1")
            show(one.fetchone())
            two.execute("select * from nowhere")
            try:
                pipeline.sync()
            except psycopg.Error as error:
                show(error.sqlstate)
        class Cursor(psycopg.ClientCursor):
            def execute(self, query, params=None, **kwargs):
                show("mine")
                return super().execute(query, params, **kwargs)
        with psycopg.connect(DSN, cursor_factory=Cursor, row_factory=psycopg.rows.dict_row) as other:
            cursor = other.execute("select %s::int as n", (2,))
            show(type(cursor) is Cursor, cursor.fetchone(), isinstance(cursor, psycopg.Cursor))
            with other.cursor() as inner:
                show(inner is inner.__enter__())
        db.autocommit = False
        xid = db.xid(1, "remora", "one")
        db.tpc_begin(xid)
        db.execute("select 3")
        db.tpc_prepare()
        db.tpc_rollback()
        with psycopg_pool.ConnectionPool(DSN, min_size=1, max_size=2) as pool:
            with pool.connection() as pooled:
                show(pooled.execute("select 4").fetchone())
        show(db.pgconn.status)
    """
    result = pg(code, python=python)
    assert result.shown == pg(code, python=python, env={"REMORA_ENABLED": "false"}).shown
    spans = calls(result)
    texts = [span["db.query.text"] for span in spans]
    assert texts == ["select ?", "select * from nowhere", "select %s::int as n", "select ?", "select ?"]
    # Its error came with a later call.
    assert spans[1].status == "unset"


def test_a_reused_address_is_not_taken_for_the_connection_that_was_there(
    pg: Run, postgresql: PostgreSQL
) -> None:
    code = f"""
        import gc, weakref
        try:
            db.execute("create database other")
        except psycopg.Error:
            pass
        for n in range(40):
            name = ("postgres", "other")[n % 2]
            another = psycopg.connect(DSN, dbname=name)
            another.execute("select 1")
            kept = weakref.ref(another)
            another.close()
            del another
            gc.collect()
            assert kept() is None
        socket = psycopg.connect(host={str(postgresql.folder)!r}, port={postgresql.port}, user="postgres")
        socket.execute("select 2")
        socket.close()
    """
    *spans, on_socket = calls(pg(code))[1:]
    assert [span["db.namespace"] for span in spans] == ["postgres", "other"] * 20
    assert on_socket["server.address"] == str(postgresql.folder)
    assert not {"server.port", "network.peer.address", "network.peer.port"} & set(on_socket.attributes)


def test_nothing_is_made_where_nothing_is_sampled(pg: Run) -> None:
    code = WAYS + 'import remora\nshow(remora.status()["spans"]["made"])\n'
    result = pg(code, env={"OTEL_TRACES_SAMPLER": "always_off"})
    assert result.shown == [*SHOWN, 0]
    assert result.spans == []


def test_old_names_come_beside_the_stable_ones(pg: Run, postgresql: PostgreSQL) -> None:
    [span] = calls(pg('db.execute("select 1")', env={"OTEL_SEMCONV_STABILITY_OPT_IN": "database/dup"}))
    old = {
        "db.system": "postgresql",
        "db.name": "postgres",
        "db.statement": "select ?",
        "db.operation": "select",
        "net.peer.name": "127.0.0.1",
        "net.peer.port": postgresql.port,
    }
    assert {key: span.get(key) for key in old} == old


HOSTILE = """
class Loud:
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        db.execute("select 8")
        raise RuntimeError(name)
    def __str__(self):
        raise RuntimeError("str")
class Text(str):
    def __eq__(self, other): raise RuntimeError("eq")
    __hash__ = None
def attempt(call, *args):
    try:
        show(str(call(*args).fetchall()))
    except BaseException as error:
        show(type(error).__name__, str(error))
cursor = db.cursor()
for query in (Loud(), Text("select 1"), "select '" + "x" * 3_000_000 + "' is null", "", ";", "select 1; select 2",
              b"\\xff\\xfe", "select 1\\0", None, sql.SQL, sql.Composed([])):
    attempt(cursor.execute, query)
    attempt(cursor.execute, query, Loud())
class Odd(sql.Composable):
    def __init__(self): pass
    def as_bytes(self, context): return b"select 'secret'"
attempt(cursor.execute, Odd())
"""


def test_hostile_queries_end_as_without_us(pg: Run) -> None:
    result = pg(HOSTILE)
    assert result.shown == pg(HOSTILE, env={"REMORA_ENABLED": "false"}).shown
    assert len(result.shown) == 23
    assert "secret" not in repr([span.raw for span in calls(result)])


def test_taken_out_again_the_identical_originals_are_there(program: Run) -> None:
    code = """
        import inspect, psycopg
        from psycopg import cursor, cursor_async, _server_cursor, _server_cursor_async
        owners = (cursor.Cursor, cursor_async.AsyncCursor)
        names = [(owner, name) for owner in owners for name in ("execute", "executemany", "stream", "copy")]
        names += [(_server_cursor.ServerCursor, "execute"), (_server_cursor_async.AsyncServerCursor, "execute")]
        def described(one):
            return [str(inspect.signature(one)), one.__name__, one.__qualname__, one.__module__, one.__doc__,
                    inspect.iscoroutinefunction(one), inspect.isgeneratorfunction(one),
                    inspect.isasyncgenfunction(one), inspect.isfunction(one)]
        before = [owner.__dict__[name] for owner, name in names]
        import remora, remora._native
        remora.init()
        during = [owner.__dict__[name] for owner, name in names]
        show([a is b for a, b in zip(before, during)])
        show([described(a) == described(b) for a, b in zip(before, during)])
        remora._native.deactivate()
        show([a is owner.__dict__[name] for a, (owner, name) in zip(before, names)])
    """
    result = program(code, env={"REMORA_ENABLED": None})
    assert result.shown == [[False] * 10, [True] * 10, [True] * 10]


@on("3.15")
def test_a_lazy_import_stays_lazy_until_its_first_use_which_is_traced(
    program: Run, postgresql: PostgreSQL, python: Python
) -> None:
    code = """
lazy import psycopg
lazy from psycopg import connect
show("psycopg" in sys.modules)
show(connect(os.environ["DSN"]).execute("select 200").fetchone())
show("psycopg" in sys.modules)
"""
    result = program(code, env={"DSN": postgresql.url}, python=python)
    assert result.shown == [False, [200], True]
    assert len(calls(result)) == 1


@on_oldest_and_newest
def test_a_module_imported_before_activation_gives_the_same_spans(pg: Run, python: Python) -> None:
    code = """
        import remora
        execute = psycopg.Cursor.execute
        cursor = db.cursor()
        remora.init()
        show(cursor.execute("select 1").fetchone())
        list(cursor.stream("select 2"))
    """
    early = pg(code, env={"REMORA_ENABLED": None}, python=python)
    spans = calls(early)
    late = pg(code, python=python)
    assert early.shown == late.shown == [[1]]
    assert [span.attributes for span in calls(late)[2:]] == [span.attributes for span in spans]
    assert len(spans) == 2


def test_a_child_process_traces_with_a_connection_of_its_own(pg: Run) -> None:
    code = """
        db.execute("select 1")
        if (pid := os.fork()) == 0:
            with psycopg.connect(DSN) as own:
                own.execute("select 2")
            sys.exit()
        os.waitpid(pid, 0)
        db.execute("select 3")
    """
    spans = calls(pg(code))
    assert len({span.span_id for span in spans}) == len({span.trace_id for span in spans}) == 3
    assert len({span.resource["process.pid"] for span in spans}) == 2


def test_a_disabled_library_is_left_alone(pg: Run) -> None:
    code = """
        import remora
        show(db.execute("select 1").fetchone(), remora.status()["hooks"]["psycopg"]["state"])
    """
    result = pg(code, env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "psycopg"})
    assert result.shown == [[[1], "disabled"]]
    assert calls(result) == []
