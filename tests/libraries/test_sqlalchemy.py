"""SQLAlchemy: one CLIENT span for each statement, over drivers that we hook too and over such that we do not."""

from collections.abc import Callable
from textwrap import dedent

import pytest
from support.otlp import Span, children, find, one
from support.process import Result
from support.pythons import Python, on_oldest_and_newest, on_releases
from support.servers import mariadb as mariadb_server
from support.servers.mariadb import MariaDB
from support.servers.postgresql import PostgreSQL

from .conftest import Program

Run = Callable[..., Program]

SQLITE = """
import sqlalchemy as sa
engine = sa.create_engine("sqlite://")
"""


def calls(result: Result) -> list[Span]:
    """Their spans in order; nobody else's are there."""
    spans = find(result.spans, kind="client")
    assert {span.scope for span in spans} <= {"remora.sqlalchemy"}
    return spans


CORE = """
import sqlalchemy as sa
from sqlalchemy import text
def use(engine):
    items = sa.Table("item", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("name", sa.String(20)))
    with engine.connect() as db:
        db.execute(text("drop table if exists item"))
        db.execute(text("create table item (id integer, name varchar(20))"))
        db.execute(items.insert(), [{"id": n, "name": "x"} for n in range(3)])
        show(db.execute(sa.select(items.c.name).where(items.c.id == 1)).scalar())
        show(db.execute(text("select 'secret', 5")).scalar())
        with db.begin_nested():
            db.execute(items.delete().where(items.c.id == 2))
        show(db.execute(text("select count(*) from item")).scalar())
        try:
            db.execute(text("select * from nowhere where x = 'secret'"))
        except sa.exc.DBAPIError as error:
            show(type(error).__name__)
"""


def check_core(result: Program, expected: dict[str, object], code: str | None, kind: str) -> None:
    assert result.shown[0] == "x"
    assert result.shown[2] == 2
    spans = calls(result)
    start = [span.name for span in spans].index("drop table item")
    spans = spans[start:]
    names = ["drop table item", "create table item", "INSERT item", "SELECT item", "select", "SAVEPOINT",
             "DELETE item", "select item", "select nowhere"]  # fmt: skip
    summaries = [span["db.query.summary"].split(" sa_savepoint")[0] for span in spans]
    assert summaries[:7] + summaries[8:] == names
    assert summaries[7].startswith("RELEASE")
    texts = [span["db.query.text"] for span in spans]
    assert texts[4] == "select ?, ?"
    assert "secret" not in repr([span.raw for span in spans])
    assert spans[2]["db.operation.batch.size"] == 3
    assert not any("db.operation.batch.size" in span.attributes for span in spans if span is not spans[2])
    for span in spans:
        assert {key: span.get(key) for key in expected} == expected
        assert span.events == []
    assert [span.status for span in spans] == ["unset"] * 9 + ["error"]
    failed = spans[-1]
    assert failed.get("db.response.status_code") == code
    assert failed["error.type"] == kind


def absent(*names: str) -> dict[str, object]:
    return dict.fromkeys(names)


NO_SERVER = absent("server.address", "server.port", "network.peer.address", "network.peer.port")


def sqlite_expected(file: str) -> dict[str, object]:
    return {"db.system.name": "sqlite", "db.namespace": file, **NO_SERVER}


@on_oldest_and_newest
def test_over_sqlite3_the_span_is_sqlalchemy_s(program: Run, tmp_path: object, python: Python) -> None:
    code = CORE + f'use(sa.create_engine("sqlite:///{tmp_path}/shop.db"))'
    kind = "sqlite3.OperationalError"
    check_core(program(code, python=python), sqlite_expected("shop.db"), "SQLITE_ERROR", kind)


@on_releases("old", "middle")
def test_older_releases_give_the_same_spans(program: Run, tmp_path: object, python: Python) -> None:
    code = CORE + f'use(sa.create_engine("sqlite:///{tmp_path}/shop.db"))'
    kind = "sqlite3.OperationalError"
    check_core(program(code, python=python), sqlite_expected("shop.db"), "SQLITE_ERROR", kind)


def postgresql_expected(server: PostgreSQL) -> dict[str, object]:
    return {
        "db.system.name": "postgresql",
        "db.namespace": "postgres",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "network.peer.address": "127.0.0.1",
        "network.peer.port": server.port,
    }


@on_oldest_and_newest
def test_over_psycopg_the_driver_adds_the_peer(program: Run, postgresql: PostgreSQL, python: Python) -> None:
    url = postgresql.url.replace("://", "+psycopg://")
    result = program(CORE + f'use(sa.create_engine("{url}"))', python=python)
    check_core(result, postgresql_expected(postgresql), "42P01", "42P01")


@on_releases("middle")
def test_over_psycopg_with_older_releases(program: Run, postgresql: PostgreSQL, python: Python) -> None:
    url = postgresql.url.replace("://", "+psycopg://")
    result = program(CORE + f'use(sa.create_engine("{url}"))', python=python)
    check_core(result, postgresql_expected(postgresql), "42P01", "42P01")


@on_oldest_and_newest
def test_over_a_driver_of_mariadb(program: Run, mariadb: MariaDB, python: Python) -> None:
    for system in ("mysql", "mariadb"):
        url = (
            f"{system}+pymysql://{mariadb_server.USER}:{mariadb_server.PASSWORD}"
            f"@127.0.0.1:{mariadb.port}/{mariadb_server.DATABASE}"
        )
        result = program(CORE + f'use(sa.create_engine("{url}"))', python=python)
        expected = {
            # What answers, whatever the URL says.
            "db.system.name": "mariadb",
            "db.namespace": mariadb_server.DATABASE,
            "server.address": "127.0.0.1",
            "server.port": mariadb.port,
        }
        check_core(result, expected, "1146", "1146")
        assert mariadb_server.PASSWORD not in repr([span.raw for span in result.spans])
        for file in result.folder.glob("*.jsonl") if result.folder else ():
            file.unlink()


def test_codes_of_drivers_that_hide_them(program: Run, postgresql: PostgreSQL, mariadb: MariaDB) -> None:
    mysql = (
        f"mysql+mysqlconnector://{mariadb_server.USER}:{mariadb_server.PASSWORD}"
        f"@127.0.0.1:{mariadb.port}/{mariadb_server.DATABASE}"
    )
    code = f"""
        import sqlalchemy as sa
        for url in {postgresql.url.replace("://", "+pg8000://")!r}, {mysql!r}:
            with sa.create_engine(url).connect() as db:
                try:
                    db.execute(sa.text("select * from nowhere"))
                except sa.exc.DBAPIError as error:
                    show(type(error.orig).__name__)
    """
    result = program(code)
    assert result.shown == ["ProgrammingError", "ProgrammingError"]
    failed = [span for span in calls(result) if span.status == "error"]
    codes = [(span["db.response.status_code"], span["error.type"]) for span in failed]
    assert codes == [("42P01", "42P01"), ("1146", "1146")]


ASYNC = """
import asyncio, remora
from sqlalchemy.ext.asyncio import create_async_engine
async def main(url, slow):
    engine = create_async_engine(url)
    async def ask(n):
        with remora.span(f"task {n}"):
            async with engine.connect() as db:
                before = remora.current_span_id()
                await db.execute(sa.text(slow))
                show((await db.execute(sa.text(f"select {n}"))).scalar())
                assert remora.current_span_id() == before
    async with engine.connect() as db:
        await db.execute(sa.text("select 0"))
        await db.run_sync(lambda connection: connection.execute(sa.text("select 0")))
    await asyncio.gather(*(ask(n) for n in range(1, 4)))
    try:
        async with engine.connect() as db:
            await asyncio.wait_for(db.execute(sa.text(slow.replace("0.05", "20"))), 0.3)
    except (asyncio.TimeoutError, sa.exc.DBAPIError) as error:
        show(type(error).__name__)
    await engine.dispose()
"""


@on_oldest_and_newest
def test_asynchronous_engines_over_psycopg(program: Run, postgresql: PostgreSQL, python: Python) -> None:
    url = postgresql.url.replace("://", "+psycopg://")
    code = CORE + ASYNC + f'asyncio.run(main("{url}", "select pg_sleep(0.05)"))'
    result = program(code, python=python)
    assert sorted(map(str, result.shown)) == ["1", "2", "3", "TimeoutError"]
    spans = calls(result)
    for n in range(1, 4):
        own = children(result.spans, one(result.spans, name=f"task {n}"))
        assert [span["db.query.text"] for span in own][-2:] == ["select pg_sleep(?)", "select ?"]
    expected = postgresql_expected(postgresql)
    for span in find(spans, name="select"):
        assert {key: span.get(key) for key in expected} == expected
    assert {span.status for span in spans} == {"unset"}


@on_oldest_and_newest
def test_asynchronous_engines_over_aiosqlite(program: Run, tmp_path: object, python: Python) -> None:
    code = CORE + ASYNC + f'asyncio.run(main("sqlite+aiosqlite:///{tmp_path}/a.db", "select 0.05"))'
    result = program(code, python=python)
    assert sorted(result.shown) == [1, 2, 3]
    spans = calls(result)
    assert len(spans) == 2 + 6 + 1
    for n in range(1, 4):
        own = children(result.spans, one(result.spans, name=f"task {n}"))
        assert [span["db.query.text"] for span in own] == ["select ?", "select ?"]
    assert {span["db.namespace"] for span in spans} == {"a.db"}


def test_aiosqlite_alone_has_the_parent_of_the_call(program: Run) -> None:
    code = """
        import asyncio, aiosqlite, remora
        async def main():
            with remora.span("first"):
                db = await aiosqlite.connect(":memory:")
                await db.execute("select 1")
            with remora.span("second"):
                await db.execute("select 2")
            await db.execute("select 3")
            await db.close()
        asyncio.run(main())
    """
    result = program(code)
    spans = find(result.spans, scope="remora.sqlite3")
    ids = [one(result.spans, name=name).span_id for name in ("first", "second")]
    assert [span.parent_id for span in spans] == [*ids, None]


def test_batches_say_how_large_they_are(program: Run) -> None:
    code = (
        CORE
        + SQLITE
        + dedent("""
        items = sa.Table("item", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
        engine = sa.create_engine("sqlite://", insertmanyvalues_page_size=4)
        with engine.begin() as db:
            items.create(db)
            rows = db.execute(items.insert().returning(items.c.id), [{"n": n} for n in range(10)])
            show(len(rows.all()))
            db.execute(items.insert(), [{"n": n} for n in range(7)])
            db.execute(items.insert(), [{"n": 1}])
            db.execute(items.insert(), {"n": 1})
            db.execute(sa.select(items).where(items.c.n == 1, items.c.id == 2))
            db.exec_driver_sql("")
    """)
    )
    result = program(code)
    assert result.shown == [10]
    spans = calls(result)
    sizes = [span.get("db.operation.batch.size") for span in spans if span.name == "INSERT item"]
    assert sizes == [4, 4, 2, 7, None, None]
    assert "db.operation.batch.size" not in spans[-2].attributes
    assert (spans[-1].name, spans[-1]["db.query.text"]) == ("sqlite", "")


def test_engines_of_every_making_and_events(program: Run, tmp_path: object) -> None:
    code = (
        SQLITE
        + f"""
import sqlite3
from sqlalchemy import event
from sqlalchemy.orm import Session
seen = []
event.listen(engine, "before_cursor_execute", lambda *args: seen.append("before"))
event.listen(engine, "handle_error", lambda context: seen.append(type(context.original_exception).__name__))
creator = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect("{tmp_path}/made.db"))
options = engine.execution_options(isolation_level="AUTOCOMMIT")
ping = sa.create_engine("sqlite:///{tmp_path}/ping.db", pool_pre_ping=True)
for one in (engine, creator, options, ping, sa.engine_from_config({{"sqlalchemy.url": "sqlite://"}})):
    with one.connect() as db:
        show(db.execute(sa.text("select :n"), {{"n": 5}}).scalar())
with Session(engine) as session:
    show(session.scalar(sa.text("select 6")))
try:
    with engine.connect() as db:
        db.execute(sa.text("selec 1"))
except sa.exc.OperationalError as error:
    show(error.statement, type(error.orig).__name__)
show(seen)
"""
    )
    result = program(code)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    assert len(calls(result)) == 7


def test_under_a_request_there_is_one_span_a_statement(program: Run) -> None:
    code = SQLITE + dedent("""
        import remora
        def work():
            before = remora.current_span_id()
            with engine.connect() as db:
                db.execute(sa.text("select 1"))
                db.execute(sa.text("select 2"))
                raw = db.connection.cursor()
                raw.execute("select 3")
            return remora.current_span_id() == before
        show(job(work))
    """)
    result = program(code)
    assert result.shown == [True]
    spans = children(result.spans, one(result.spans, kind="server"))
    assert [span.scope for span in spans] == ["remora.sqlalchemy", "remora.sqlalchemy", "remora.sqlite3"]


@pytest.mark.parametrize("sampler", ["always_off", "traceidratio"])
def test_nothing_is_made_where_nothing_is_sampled(program: Run, sampler: str) -> None:
    code = SQLITE + dedent("""
        import remora
        with engine.connect() as db:
            for n in range(50):
                assert db.execute(sa.text("select 5")).scalar() == 5
        show(remora.status()["spans"]["made"])
    """)
    result = program(code, env={"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0"})
    assert result.shown == [0]
    assert result.spans == []


def test_one_decision_of_the_sampler_for_each_call(program: Run) -> None:
    """A driver below a span that is not recorded draws no second lot."""
    code = SQLITE + dedent("""
        with engine.connect() as db:
            for n in range(200):
                db.execute(sa.text("select 5"))
    """)
    spans = calls(
        program(code, env={"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"})
    )
    assert 50 < len(spans) < 150


def test_without_sqlalchemy_s_hook_the_driver_makes_the_span(program: Run) -> None:
    code = SQLITE + 'with engine.connect() as db: show(db.execute(sa.text("select 5")).scalar())'
    result = program(code, env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "sqlalchemy"})
    assert result.shown == [5]
    assert {span.scope for span in result.spans} == {"remora.sqlite3"}
    assert result.spans[-1]["db.query.text"] == "select ?"


def test_old_names_come_beside_the_stable_ones(program: Run, postgresql: PostgreSQL) -> None:
    url = postgresql.url.replace("://", "+psycopg://")
    code = f"""
import sqlalchemy as sa
with sa.create_engine("{url}").connect() as db: db.execute(sa.text("select 5"))
"""
    span = calls(program(code, env={"OTEL_SEMCONV_STABILITY_OPT_IN": "database/dup"}))[-1]
    old = {
        "db.system": "postgresql",
        "db.name": "postgres",
        "db.statement": "select ?",
        "db.operation": "select",
        "net.peer.name": "127.0.0.1",
        "net.peer.port": postgresql.port,
    }
    assert {key: span.get(key) for key in old} == old


def test_where_the_url_names_no_server_the_driver_does(program: Run, postgresql: PostgreSQL) -> None:
    code = f"""
import psycopg, sqlalchemy as sa
engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect("{postgresql.url}"))
with engine.connect() as db: db.execute(sa.text("select 5"))
"""
    expected = postgresql_expected(postgresql)
    span = calls(program(code))[-1]
    assert {key: span.get(key) for key in expected} == expected


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_what_the_url_says_the_driver_does_not_say_again(
    program: Run, postgresql: PostgreSQL, driver: str
) -> None:
    server, folder = f"port={postgresql.port}", postgresql.folder
    urls = [
        f"postgresql+{driver}:///postgres?host=127.0.0.1&{server}&user=postgres",
        f"postgresql+{driver}://postgres@/postgres?host={folder}&{server}",
        f"postgresql+{driver}://postgres@127.0.0.1:{postgresql.port}",
        f"postgresql+{driver}://?host=127.0.0.1&{server}&user=postgres",
    ]
    code = f"""
import sqlalchemy as sa
for url in {urls}:
    with sa.create_engine(url).connect() as db: db.execute(sa.text("select 5"))
"""
    spans = calls(program(code, env={"OTEL_SEMCONV_STABILITY_OPT_IN": "database/dup"}))
    spans = [span for span in spans if span["db.query.text"] == "select ?"]
    assert len(spans) == 4
    for span in spans:
        keys = [attribute["key"] for attribute in span.raw["attributes"]]
        assert len(keys) == len(set(keys))
        assert (span["db.namespace"], span["db.name"]) == ("postgres", "postgres")
    assert [span["server.address"] for span in spans] == ["127.0.0.1", str(folder)] + ["127.0.0.1"] * 2


def test_where_the_url_names_no_file_sqlite3_does(program: Run, tmp_path: object) -> None:
    code = f"""
import itertools, sqlite3
import sqlalchemy as sa
paths = itertools.cycle(["{tmp_path}/one.db", "{tmp_path}/two.db", ":memory:"])
many = sa.create_engine(
    "sqlite://", creator=lambda: sqlite3.connect(next(paths)), poolclass=sa.pool.NullPool)
pool = sa.pool.StaticPool(lambda: sqlite3.connect("{tmp_path}/pool.db"))
for engine in (many, many, many, sa.create_engine("sqlite://", pool=pool), sa.create_engine("sqlite://")):
    with engine.connect() as db:
        for _ in range(2): db.execute(sa.text("select 1"))
"""
    spans = calls(program(code))
    names = ["one.db", "two.db", None, "pool.db", None]
    assert [span.get("db.namespace") for span in spans] == [name for name in names for _ in range(2)]


def test_engines_are_not_kept_alive_and_not_confused(program: Run, tmp_path: object) -> None:
    code = f"""
import gc, weakref
import sqlalchemy as sa
for n in range(20):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/{{n % 2}}.db", poolclass=sa.pool.NullPool)
    with engine.connect() as db: db.execute(sa.text("select 1"))
    kept = weakref.ref(engine.dialect), weakref.ref(engine)
    del engine, db
    gc.collect()
    show([one() is None for one in kept])
"""
    result = program(code)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    assert [span["db.namespace"] for span in calls(result)] == ["0.db", "1.db"] * 10


HOSTILE = """
from sqlalchemy import event
class Loud:
    def __getattr__(self, name):
        raise RuntimeError(name)
    def __str__(self):
        raise RuntimeError("str")
def attempt(*args):
    try:
        with engine.connect() as db:
            show(str(db.exec_driver_sql(*args).all()))
    except BaseException as error:
        show(type(error).__name__, str(getattr(error, "orig", error)))
for args in (("select ?", (Loud(),)), ("select \\ud800",), ("select '" + "x" * 3_000_000 + "' is null",), ("",),
             ("select ?", ()), ("select 1; select 2",), (b"select 1",), ("select 1", ({},))):
    attempt(*args)
try:
    engine.dialect.do_execute(None, "select 1", ())
except AttributeError as error:
    show(str(error))
try:
    engine.dialect.do_execute()
except TypeError as error:
    show(str(error))
"""


def test_hostile_statements_end_as_without_us(program: Run) -> None:
    result = program(SQLITE + HOSTILE)
    assert result.shown == program(SQLITE + HOSTILE, env={"REMORA_ENABLED": "false"}).shown
    assert len(result.shown) == 10
