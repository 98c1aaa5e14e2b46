"""psycopg2: one CLIENT span for each call of a cursor, against a real PostgreSQL; its types stay what they are."""

from collections.abc import Callable
from textwrap import dedent

import pytest
from support.otlp import Span, children, find, one
from support.process import Result
from support.pythons import Python, on, on_releases
from support.servers.postgresql import PostgreSQL

from .conftest import Program

Run = Callable[..., Program]
# The newest that it has wheels for.
on_oldest_and_newest = on("3.11", "3.14")

CONNECT = """
import io, os, psycopg2, psycopg2.extensions, psycopg2.extras
from psycopg2 import sql
DSN = os.environ["DSN"]
db = psycopg2.connect(DSN)
db.autocommit = True
cursor = db.cursor()
"""


@pytest.fixture
def pg(program: Run, postgresql: PostgreSQL) -> Run:
    """Runs code with an open connection, `db`, and a `cursor` of it."""

    def run(code: str, *, env: dict[str, str | None] | None = None, **options: object) -> Program:
        return program(CONNECT + dedent(code), env={"DSN": postgresql.url, **(env or {})}, **options)

    return run


def calls(result: Result) -> list[Span]:
    """Their spans in order."""
    return find(result.spans, kind="client", scope="remora.psycopg2")


WAYS = """
cursor.execute("create temporary table item (id int, name text)")
cursor.executemany("insert into item values (%s, %s)", [(n, "x") for n in range(3)])
cursor.execute("select name from item where id = %s", (1,))
show(cursor.fetchall())
cursor.copy_expert("copy item (id, name) from stdin", io.StringIO("3\\ty\\n4\\ty\\n"))
cursor.copy_from(io.StringIO("5\\ty\\n"), "item")
out = io.StringIO()
cursor.copy_to(out, "item")
show(len(out.getvalue().splitlines()))
cursor.callproc("lower", ("SECRET",))
show(cursor.fetchone())
db.autocommit = False
with db, db.cursor("named") as named:
    named.execute("select id from item where id > %s order by id", (3,))
    show([row for row in named])
    named.scroll(0, "absolute")
"""
SHOWN = [[["x"]], 6, ["secret"], [[4], [5]]]
TEXTS = [
    ("create table item", "create temporary table item (id int, name text)", None),
    ("insert item", "insert into item values (%s, %s)", 3),
    ("select item", "select name from item where id = %s", None),
    ("copy item", "copy item (id, name) from stdin", None),
    ('COPY "item"', 'COPY "item" FROM STDIN', None),
    ('COPY "item"', 'COPY "item" TO STDOUT', None),
    ("lower", None, None),
    ("select item", "select id from item where id > %s order by id", None),
]


def check_ways(result: Program, postgresql: PostgreSQL) -> None:
    assert result.shown == SHOWN
    spans = calls(result)
    assert [
        (span.name, span.get("db.query.text"), span.get("db.operation.batch.size")) for span in spans
    ] == TEXTS
    assert len(result.spans) == len(spans)
    procedure = spans[6]
    assert procedure["db.stored_procedure.name"] == "lower"
    assert "SECRET" not in repr(procedure.raw)
    for span in spans:
        fixed = {
            "db.system.name": "postgresql",
            "db.namespace": "postgres",
            "server.address": "127.0.0.1",
            "server.port": postgresql.port,
            "network.peer.address": "127.0.0.1",
            "network.peer.port": postgresql.port,
        }
        assert {key: span.get(key) for key in fixed} == fixed
        assert span.get("db.query.summary") == (None if span is procedure else span.name)
        assert (span.status, span.events) == ("unset", [])


@on_oldest_and_newest
def test_each_way_to_run_statements_is_one_span(pg: Run, postgresql: PostgreSQL, python: Python) -> None:
    check_ways(pg(WAYS, python=python), postgresql)


@on_releases("old", "middle")
def test_older_releases_give_the_same_spans(pg: Run, postgresql: PostgreSQL, python: Python) -> None:
    check_ways(pg(WAYS, python=python), postgresql)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("execute(\"select 'secret', 5\")", "select ?, ?"),
        ("execute(\"select 'secret', 5\", ())", "select ?, ?"),
        ("execute(\"select 'kept', %s\", (5,))", "select 'kept', %s"),
        ("execute(\"select 'kept', %(n)s\", {'n': 5})", "select 'kept', %(n)s"),
        ("execute(b\"select 'secret', 5\")", "select ?, ?"),
        ("execute(query=\"select 'kept', %s\", vars=[5])", "select 'kept', %s"),
        (
            "execute(sql.SQL('select {}, {}, {} from pg_class as {}').format(sql.Identifier('re\"l', 'oid'),"
            " sql.Literal('secret'), sql.Placeholder(), sql.Identifier('re\"l')), ('x',))",
            'select "re""l"."oid", ?, %s from pg_class as "re""l"',
        ),
        ("execute(sql.SQL(', ').join([sql.SQL('select 7'), sql.Literal('secret')]))", "select ?, ?"),
        ("execute(sql.SQL('select {n}').format(n=sql.Placeholder('n')), {'n': 1})", "select %(n)s"),
        ("execute(\"select 'secret', 5\", type('Named', (dict,), {})())", "select ?, ?"),
        ("execute(\"select 'kept', %(n)s\", type('Named', (dict,), {})(n=5))", "select 'kept', %(n)s"),
        ("execute(\"select 'secret', 5\", __import__('collections').deque())", "select ?, ?"),
        ("executemany(\"select 'secret', 5\", [(), ()])", "select ?, ?"),
        ("executemany(\"select 'secret', 5\", (() for _ in range(2)))", "select ?, ?"),
        ("executemany(\"select 'kept', %s\", [[5], [6]])", "select 'kept', %s"),
        ("execute(type('Query', (sql.SQL,), {})('select 5 from pg_class'))", "select ? from pg_class"),
    ],
)
def test_no_value_is_shown_and_text_with_parameters_is_kept(pg: Run, call: str, text: str) -> None:
    result = pg(f"cursor.{call}")
    [span] = calls(result)
    assert span["db.query.text"] == text
    assert "secret" not in repr(span.raw)


def test_what_the_extras_compose_shows_no_values(pg: Run) -> None:
    code = """
        cursor.execute("create temporary table item (id int, name text)")
        rows = [(n, "secret") for n in range(5)]
        psycopg2.extras.execute_values(cursor, "insert into item values %s", rows, page_size=3)
        psycopg2.extras.execute_batch(cursor, "insert into item values (%s, %s)", rows)
        cursor.execute("select count(*) from item")
        show(cursor.fetchone())
    """
    result = pg(code)
    assert result.shown == [[10]]
    spans = calls(result)
    assert len(spans) == 5
    assert "secret" not in repr([span.raw for span in spans])


TYPES = """
class Connection(psycopg2.extensions.connection): pass
class Cursor(psycopg2.extensions.cursor):
    def execute(self, query, vars=None):
        return super().execute(query, vars)
own = psycopg2.connect(DSN, connection_factory=Connection, cursor_factory=Cursor)
show(type(db) is psycopg2.extensions.connection, type(cursor) is psycopg2.extensions.cursor,
     type(own) is Connection, type(own.cursor()) is Cursor)
for connection in (db, own):
    psycopg2.extras.register_uuid(conn_or_curs=connection)
    psycopg2.extras.register_default_jsonb(conn_or_curs=connection.cursor())
    psycopg2.extras.register_inet(connection)
    psycopg2.extensions.register_type(psycopg2.extensions.UNICODE, connection)
    show(psycopg2.extensions.quote_ident('a"b', connection), psycopg2.extensions.encrypt_password("a", "b", connection)[:3])
    show(sql.Identifier("x").as_string(connection), psycopg2.extras.DictCursor in type(cursor).__mro__)
for factory in (psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor, psycopg2.extras.NamedTupleCursor,
                psycopg2.extras.LoggingCursor):
    if factory is psycopg2.extras.LoggingCursor:
        own = psycopg2.connect(DSN, connection_factory=psycopg2.extras.LoggingConnection)
        own.initialize(io.StringIO())
    with own.cursor(cursor_factory=factory) as each:
        each.execute("select 5 as five, %s as six", (6,))
        show(type(each) is factory, str(each.fetchone()))
from psycopg2.pool import SimpleConnectionPool
pool = SimpleConnectionPool(1, 2, DSN)
pooled = pool.getconn()
pooled.cursor().execute("select 7")
pool.putconn(pooled)
pool.closeall()
waited = psycopg2.connect(DSN, async_=True)
psycopg2.extras.wait_select(waited)
asynchronous = waited.cursor()
asynchronous.execute("select 8")
psycopg2.extras.wait_select(waited)
show(asynchronous.fetchone())
psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
cursor.execute("select 9")
show(cursor.fetchone(), cursor.query.decode(), cursor.mogrify("select %s", (1,)).decode())
"""


@on_oldest_and_newest
def test_types_factories_and_the_functions_in_c_are_as_without_us(pg: Run, python: Python) -> None:
    result = pg(TYPES, python=python)
    assert result.shown == pg(TYPES, env={"REMORA_ENABLED": "false"}, python=python).shown
    texts = [span["db.query.text"] for span in calls(result)]
    # One span a call, whatever the factory; what `register_…` asks the server is among them.
    assert texts.count("select 5 as five, %s as six") == 4
    assert texts[-3:] == ["select ?"] * 3


@on_oldest_and_newest
def test_errors_carry_the_sqlstate_and_fail_as_without_us(pg: Run, python: Python) -> None:
    code = """
        cursor.execute("create temporary table item (id int primary key)")
        cursor.execute("insert into item values (471147114)")
        def attempt(method, *args):
            try:
                getattr(cursor, method)(*args)
            except BaseException as error:
                show(type(error).__name__, str(error), getattr(error, "pgcode", None))
        attempt("execute", "insert into item values (%s)", (471147114,))
        attempt("execute", "select * from nowhere where x = '471147114'")
        attempt("executemany", "insert into item values (%s)", [(471147114,)])
        attempt("copy_expert", "copy nowhere from stdin", io.StringIO())
        attempt("callproc", "nothing", (471147114,))
        attempt("execute", "select %s", ())
        attempt("execute")
        attempt("execute", 5)
        attempt("execute", "select '" + chr(0xd800) + "'")
        cursor.close()
        attempt("execute", "select 1")
        db.close()
        cursor = psycopg2.extensions.cursor.__new__(psycopg2.extensions.cursor)
        attempt("execute", "select 1")
    """
    result = pg(code, python=python)
    assert result.shown == pg(code, env={"REMORA_ENABLED": "false"}, python=python).shown
    spans = calls(result)[2:]
    codes = [span.get("db.response.status_code") for span in spans]
    assert codes[:5] == ["23505", "42P01", "23505", "42P01", "42883"]
    assert [span["error.type"] for span in spans[:5]] == codes[:5]
    assert {(span.status, span.status_message) for span in spans} == {("error", "")}
    assert "471147114" not in repr([span.raw for span in spans])


def test_the_parent_is_right_and_the_caller_s_context_is_untouched(pg: Run) -> None:
    code = """
        import remora
        class File(io.StringIO):
            def read(self, *args):
                seen.append(remora.current_span_id())
                return super().read(*args)
        seen = []
        def work():
            seen.append(remora.current_span_id())
            cursor.execute("create temporary table item (id int)")
            cursor.copy_expert("copy item from stdin", File("1\\\\n"))
            seen.append(remora.current_span_id())
            return len(set(seen))
        show(job(work))
    """
    result = pg(code)
    assert result.shown == [1]
    assert len(children(result.spans, one(result.spans, kind="server"))) == len(calls(result)) == 2


SQLALCHEMY = """
import sqlalchemy as sa
engine = sa.create_engine(DSN.replace("://", "+psycopg2://"))
items = sa.Table("of_psycopg2", sa.MetaData(), sa.Column("id", sa.Integer))
with engine.begin() as connection:
    items.drop(connection, checkfirst=True)
    items.create(connection)
    connection.execute(items.insert(), [{"id": n} for n in range(3)])
    show(connection.execute(sa.select(sa.func.count()).select_from(items)).scalar())
made = sa.create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(DSN))
with made.connect() as connection:
    connection.execute(sa.text("select 5"))
"""


@on_releases("middle")
def test_below_sqlalchemy_it_adds_the_peer_with_an_older_release(
    pg: Run, postgresql: PostgreSQL, python: Python
) -> None:
    check_below_sqlalchemy(pg, postgresql, python)


@on_oldest_and_newest
def test_below_sqlalchemy_it_adds_the_peer(pg: Run, postgresql: PostgreSQL, python: Python) -> None:
    check_below_sqlalchemy(pg, postgresql, python)


def check_below_sqlalchemy(pg: Run, postgresql: PostgreSQL, python: Python) -> None:
    result = pg(SQLALCHEMY, python=python)
    assert result.shown == [3]
    spans = find(result.spans, kind="client")
    assert {span.scope for span in spans} == {"remora.sqlalchemy"}
    for span in spans:
        assert (span["network.peer.address"], span["network.peer.port"]) == ("127.0.0.1", postgresql.port)
        assert (span["server.address"], span["db.namespace"]) == ("127.0.0.1", "postgres")


def test_over_a_unix_socket_the_folder_is_the_address(program: Run, postgresql: PostgreSQL) -> None:
    code = f"""
        import psycopg2
        db = psycopg2.connect(host={str(postgresql.folder)!r}, port={postgresql.port}, user="postgres", dbname="postgres")
        for _ in range(2):
            db.cursor().execute("select 1")
    """
    for span in calls(program(code)):
        assert span["server.address"] == str(postgresql.folder)
        assert not {"server.port", "network.peer.address", "network.peer.port"} & set(span.attributes)


def test_nothing_is_made_where_nothing_is_sampled_or_it_is_turned_off(pg: Run) -> None:
    code = WAYS + 'import remora\nshow(remora.status()["spans"]["made"])\n'
    for env in ({"OTEL_TRACES_SAMPLER": "always_off"}, {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "psycopg2"}):
        result = pg(code, env=env)
        assert (result.shown, result.spans) == ([*SHOWN, 0], [])


def test_taken_out_again_the_identical_originals_are_there(program: Run) -> None:
    code = """
        import inspect
        from psycopg2.extensions import cursor
        names = ("execute", "executemany", "callproc", "copy_expert", "copy_from", "copy_to")
        def described(one):
            return [one.__name__, one.__qualname__, one.__doc__, inspect.isfunction(one), inspect.isroutine(one)]
        before = [cursor.__dict__[name] for name in names]
        import remora, remora._native
        remora.init()
        during = [cursor.__dict__[name] for name in names]
        show([a is b for a, b in zip(before, during)])
        show([described(a) == described(b) for a, b in zip(before, during)])
        remora._native.deactivate()
        show([a is cursor.__dict__[name] for a, name in zip(before, names)])
    """
    result = program(code, env={"REMORA_ENABLED": None})
    assert result.shown == [[False] * 6, [True] * 6, [True] * 6]


def test_a_child_process_traces_with_a_connection_of_its_own(pg: Run) -> None:
    code = """
        cursor.execute("select 1")
        if (pid := os.fork()) == 0:
            own = psycopg2.connect(DSN)
            own.cursor().execute("select 2")
            own.close()
            sys.exit()
        os.waitpid(pid, 0)
        cursor.execute("select 3")
    """
    spans = calls(pg(code))
    assert len({span.span_id for span in spans}) == len({span.trace_id for span in spans}) == 3
    assert len({span.resource["process.pid"] for span in spans}) == 2
