"""Django: the spans of its statements, by the driver or in its stead."""

import json
from collections.abc import Callable

import pytest
from support.otlp import children
from support.process import Env
from support.pythons import Python, on_oldest_and_newest, on_releases
from support.servers import mariadb as mariadb_server
from support.servers import postgresql as postgresql_server
from support.servers.mariadb import MariaDB
from support.servers.postgresql import PostgreSQL

from .conftest import Program
from .django_program import APP, servers

Run = Callable[..., Program]


MODELS = (
    APP
    + """
from django.db import models
class Item(models.Model):
    name = models.CharField(max_length=9)
    class Meta: app_label = "shop"
with connection.schema_editor() as editor: editor.create_model(Item)
def listed(request):
    Item.objects.create(name="a")
    Item.objects.bulk_create([Item(name="b"), Item(name="c")])
    return HttpResponse(",".join(item.name for item in Item.objects.order_by("name")))
url("items", listed)
"""
)


def test_each_query_of_the_orm_is_one_span_of_its_driver(program: Run) -> None:
    code = MODELS + 'show(call("/items"))\n'
    result = program(code)
    assert result.shown == [[200, "a,b,c"]]
    [span] = servers(result)
    inside = children(result.spans, span)
    assert {child.scope for child in inside} == {"remora.sqlite3"}
    statements = [str(child["db.query.text"]).split()[0] for child in inside]
    assert [word for word in statements if word in ("INSERT", "SELECT")] == ["INSERT", "INSERT", "SELECT"]


def test_atomic_requests_keep_the_span_as_the_parent(program: Run) -> None:
    code = MODELS + 'show(call("/items"))\n'
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "ATOMIC_REQUESTS": True}
    result = program(code, env={"SETTINGS": json.dumps({"DATABASES": {"default": database}})})
    assert result.shown == [[200, "a,b,c"]]
    [span] = servers(result)
    inside = children(result.spans, span)
    assert [str(child["db.query.text"]).split()[0] for child in inside].count("BEGIN") == 1


# A driver that no hook of ours is on, as Django's documentation lets it stand in for mysqlclient.
PYMYSQL = """
import pymysql
pymysql.version_info = (2, 2, 7, "final", 1)
pymysql.install_as_MySQLdb()
"""


def over(engine: str, name: str, host: str, port: int | str, user: str, password: str = "") -> Env:
    default = {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": name,
        "HOST": host,
        "PORT": port,
        "USER": user,
        "PASSWORD": password,
        "CONN_MAX_AGE": None,
    }
    return {"SETTINGS": json.dumps({"DATABASES": {"default": default}})}


def over_mariadb(server: MariaDB, host: str = "127.0.0.1") -> Env:
    user, password = mariadb_server.USER, mariadb_server.PASSWORD
    return over("mysql", mariadb_server.DATABASE, host, str(server.port), user, password)


STATEMENTS = """
from django.db import DatabaseError, transaction
def statements(request):
    Item.objects.all().delete()
    Item.objects.create(name="secret")
    with connection.cursor() as cursor:
        cursor.executemany("insert into shop_item (name) values (%s)", [("secret",), ("b",)])
        cursor.execute("select 1, 'secret'")
        show(list(cursor.fetchone()))
        show(cursor.execute("select name from shop_item where name = %s", ["b"]) is not False)
        cursor.fetchall()
        try:
            cursor.execute("select * from nowhere where x = 'secret'")
        except DatabaseError as error:
            show(type(error).__name__)
    return query()
url("statements", statements)
"""


def check_statements(result: Program, scope: str, expected: dict[str, object], code: str) -> None:
    [server] = servers(result)
    spans = [span for span in children(result.spans, server) if span.kind == "client"]
    assert {span.scope for span in spans} == {scope}
    shown = [" ".join(str(span["db.query.text"]).split()) for span in spans]
    at = next(at for at, text in enumerate(shown) if text.startswith("DELETE"))
    spans, shown = spans[at:], shown[at:]
    quote = shown[0].split("shop_item")[0][-1]
    assert shown[1].startswith(f"INSERT INTO {quote}shop_item{quote} ({quote}name{quote}) VALUES (%s)")
    assert shown[2:] == [
        "insert into shop_item (name) values (%s)",
        "select ?, ?",
        "select name from shop_item where name = %s",
        "select * from nowhere where x = ?",
        "select ?",
    ]
    assert [span.get("db.operation.batch.size") for span in spans] == [None] * 2 + [2] + [None] * 4
    assert [span.name for span in spans[2:6]] == [
        "insert shop_item",
        "select",
        "select shop_item",
        "select nowhere",
    ]
    for span in spans:
        assert {name: span.get(name) for name in expected} == expected
    assert [span.get("error.type") for span in spans] == [None] * 5 + [code, None]
    assert spans[5]["db.response.status_code"] == code
    assert "secret" not in repr([span.raw for span in spans])


# The table is there from an earlier test, perhaps.
FRESH = (
    MODELS.replace(
        "with connection.schema_editor",
        "connection.cursor().execute('drop table if exists shop_item')\nwith connection.schema_editor",
    )
    + STATEMENTS
)


def check_over_mariadb(program: Run, mariadb: MariaDB, python: Python) -> None:
    code = PYMYSQL + FRESH + 'show(call("/statements"))\n'
    result = program(code, env=over_mariadb(mariadb), python=python)
    assert result.shown == [[1, "secret"], True, "ProgrammingError", [200, "1"]]
    expected = {
        "db.system.name": "mariadb",
        "db.namespace": mariadb_server.DATABASE,
        "server.address": "127.0.0.1",
        "server.port": mariadb.port,
    }
    check_statements(result, "remora.django", expected, "1146")
    assert mariadb_server.PASSWORD not in repr([span.raw for span in result.spans])


PLAIN = """
class Named(dict): pass
def plain(request):
    with connection.cursor() as cursor:
        for parameters in ((), {}, Named()):
            cursor.execute("select 'secret'", parameters)
        cursor.executemany("insert into shop_item (name) values ('secret')", [()])
        cursor.executemany("insert into shop_item (name) values ('secret')", iter([()]))
        cursor.execute("select 'kept', %(n)s", Named(n=5))
        cursor.executemany("insert into shop_item (name) values (concat('kept', %s))", [["a"]])
    return query()
url("plain", plain)
"""


def test_text_without_parameters_loses_its_literals_and_text_with_them_is_kept(
    program: Run, mariadb: MariaDB
) -> None:
    result = program(PYMYSQL + FRESH + PLAIN + 'show(call("/plain"))\n', env=over_mariadb(mariadb))
    assert result.shown == [[200, "1"]]
    [server] = servers(result)
    spans = children(result.spans, server)
    assert "secret" not in repr([span.raw for span in spans])
    texts = [span["db.query.text"] for span in spans if span.scope == "remora.django"]
    insert = "insert into shop_item (name) values"
    plain = [*["select ?"] * 3, *[f"{insert} (?)"] * 2, "select 'kept', %(n)s"]
    start = texts.index("select ?")
    assert texts[start : start + 7] == [*plain, f"{insert} (concat('kept', %s))"]


@on_oldest_and_newest
def test_over_a_driver_that_is_not_hooked_the_spans_are_django_s(
    program: Run, mariadb: MariaDB, python: Python
) -> None:
    check_over_mariadb(program, mariadb, python)


@on_releases("old", "middle")
def test_so_they_are_with_older_releases(program: Run, mariadb: MariaDB, python: Python) -> None:
    check_over_mariadb(program, mariadb, python)


def test_a_unix_socket_is_the_address_and_has_no_port(program: Run, mariadb: MariaDB) -> None:
    result = program(
        PYMYSQL + APP + 'url("x", query)\nshow(call("/x"))\n', env=over_mariadb(mariadb, str(mariadb.socket))
    )
    [span] = children(result.spans, servers(result)[0])
    assert (span["server.address"], span.get("server.port")) == (str(mariadb.socket), None)


def test_the_application_s_execute_wrappers_are_outside_and_what_they_ask_is_theirs(
    program: Run, mariadb: MariaDB
) -> None:
    code = (
        PYMYSQL
        + APP
        + """
import remora, sqlite3
other = sqlite3.connect(":memory:")
seen = []
def wrapper(execute, sql, params, many, context):
    seen.append(remora.current_span_id())
    other.execute("select 2, 3")
    return execute(sql, params, many, context)
def view(request):
    seen.append(remora.current_span_id())
    with connection.execute_wrapper(wrapper):
        return query()
url("x", view)
show(call("/x"), len(set(seen)), len(seen))
settings.DEBUG = True
connection.force_debug_cursor = True
show(call("/x"), [each["sql"] for each in connection.queries])
"""
    )
    result = program(code, env=over_mariadb(mariadb))
    assert result.shown == [[[200, "1"], 1, 2], [[200, "1"], ["select 1"]]]
    for server in servers(result):
        texts = [(span.scope, span["db.query.text"]) for span in children(result.spans, server)]
        assert texts == [("remora.sqlite3", "select ?, ?"), ("remora.django", "select ?")]


def test_nothing_is_made_where_nothing_is_sampled_or_asked_for(program: Run, mariadb: MariaDB) -> None:
    code = (
        PYMYSQL + APP + 'url("x", query)\nimport remora\nshow(call("/x"), remora.status()["spans"]["made"])\n'
    )
    off = program(code, env={**over_mariadb(mariadb), "OTEL_TRACES_SAMPLER": "always_off"})
    assert (off.shown, off.spans) == ([[[200, "1"], 0]], [])
    without = program(code, env={**over_mariadb(mariadb), "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "django"})
    assert (without.shown, without.spans) == ([[[200, "1"], 0]], [])


def test_a_driver_of_ours_that_is_turned_off_stays_so(program: Run) -> None:
    code = APP + 'url("x", query)\nshow(call("/x"))\n'
    result = program(code, env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "sqlite3"})
    assert [span.scope for span in result.spans] == ["remora.django"]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_over_postgresql_the_spans_are_the_driver_s(
    program: Run, postgresql: PostgreSQL, driver: str
) -> None:
    # Django takes the older driver where there is no newer one.
    hide = "" if driver == "psycopg" else "import sys\nsys.modules['psycopg'] = None\n"
    env = over("postgresql", postgresql_server.DATABASE, "127.0.0.1", postgresql.port, postgresql_server.USER)
    result = program(hide + FRESH + 'show(call("/statements"))\n', env=env)
    assert result.shown == [[1, "secret"], True, "ProgrammingError", [200, "1"]]
    expected = {
        "db.system.name": "postgresql",
        "db.namespace": postgresql_server.DATABASE,
        "server.address": "127.0.0.1",
        "server.port": postgresql.port,
        "network.peer.address": "127.0.0.1",
        "network.peer.port": postgresql.port,
    }
    check_statements(result, f"remora.{driver}", expected, "42P01")


HOSTILE = """
from django.db.backends.utils import CursorWrapper
class Loud:
    def __getattr__(self, name): raise RuntimeError(name)
    def __str__(self): raise RuntimeError("str")
class Text(str):
    def __eq__(self, other): raise RuntimeError("eq")
    __hash__ = None
def attempt(call, *args):
    try:
        show(str(call(*args)))
    except BaseException as error:
        show(type(error).__name__, str(error))
cursor = connection.cursor()
for sql in ("select %s", Text("select 1"), "", None, 5, b"select 1", "selec 1", "select '\\ud800'", Loud()):
    for parameters in ((), (None,), ((),), ([1],), ([Loud()],), (Loud(),), ({"a": 1},)):
        attempt(cursor.execute, sql, *parameters)
    attempt(cursor.executemany, sql, [[1], [2]])
    attempt(cursor.executemany, sql, Loud())
attempt(CursorWrapper._execute)
attempt(CursorWrapper._execute, 1, 2)
attempt(CursorWrapper(None, None).execute, "select 1")
attempt(CursorWrapper(Loud(), Loud()).execute, "select 1")
cursor.close()
attempt(cursor.execute, "select 1")
connection.close()
attempt(cursor.execute, "select 1")
"""


def test_hostile_statements_end_as_without_us(program: Run, mariadb: MariaDB) -> None:
    env = over_mariadb(mariadb)
    result = program(PYMYSQL + APP + HOSTILE, env=env)
    assert result.shown == program(PYMYSQL + APP + HOSTILE, env={**env, "REMORA_ENABLED": "false"}).shown
    assert len(result.shown) == 9 * 9 + 6


def test_neither_connections_nor_what_they_are_called_with_are_kept(program: Run, mariadb: MariaDB) -> None:
    code = (
        PYMYSQL
        + APP
        + """
import gc, weakref
class Parameter(str): pass
def work():
    connection.close()
    query()
    parameter = Parameter("x")
    with connection.cursor() as cursor:
        cursor.execute("select %s", [parameter])
    kept = weakref.ref(connection.connection), weakref.ref(cursor), weakref.ref(parameter)
    connection.close()
    return kept
kept = work()
gc.collect()
show([one() is None for one in kept])
"""
    )
    assert program(code, env=over_mariadb(mariadb)).shown == [[True] * 3]
