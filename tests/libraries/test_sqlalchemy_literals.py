"""SQLAlchemy: values that it writes into a statement's text itself are not shown, whatever else the text has."""

from collections.abc import Callable

import pytest
from support.otlp import find
from support.pythons import Python, on, on_oldest_and_newest, on_releases
from support.servers import mariadb as mariadb_server
from support.servers.mariadb import MariaDB
from support.servers.postgresql import PostgreSQL

from .conftest import Program

Run = Callable[..., Program]

# What stands in no text is 471147114 and `secret`; each statement has a parameter besides.
CODE = """
import sqlalchemy as sa
from sqlalchemy import bindparam, select
def use(engine):
    table = sa.Table("literal", sa.MetaData(), sa.Column("id", sa.Integer), sa.Column("name", sa.String(20)))
    number, name = table.c.id, table.c.name
    alone = bindparam("alone", "secret", literal_execute=True)
    several = bindparam("several", ["secret", "other"], expanding=True, literal_execute=True)
    statements = [
        select(name).where(name == alone, number > 1),
        select(name).where(name.in_(several), number > 1),
        select(name).where(number > 1).limit(bindparam("most", 471147114, literal_execute=True)),
        select(name).where(name == bindparam("given", "secret", literal_execute=True), number > 1),
        table.insert().values(name=bindparam("given", "secret", literal_execute=True), id=1),
        table.update().values(name=alone).where(number == 471147114),
        select(sa.values(sa.column("n", sa.String), name="v", literal_binds=True).data([("secret",)])).where(
            sa.column("n") == "a"),
    ]
    with engine.connect() as db:
        table.drop(db, checkfirst=True)
        table.create(db)
        for statement in statements[:OF]:
            for _ in range(2):
                db.execute(statement)
        # Twice the same text, with other values: what one execution has shown is not the other's.
        other = select(name).where(name == bindparam("x", literal_execute=True), number > 1)
        for value in ("secret", "secret2"):
            db.execute(other, {"x": value})
        db.execute(sa.text("select 'written' where 1 = :x"), {"x": 471147114})
        db.execute(select(name).where(name.in_(["secret", "other"]), number > 471147114).limit(471147114))
        db.execute(table.insert(), [{"id": 471147114, "name": "secret"}, {"id": 471147114, "name": "secret"}])
"""


def check(program: Run, url: str, marker: str, python: Python, *, of: int = 7) -> None:
    result = program(CODE.replace("OF", str(of)) + f'use(sa.create_engine("{url}"))', python=python)
    spans = find(result.spans, scope="remora.sqlalchemy")
    assert not any(secret in repr([span.raw for span in spans]) for secret in ("471147114", "secret"))
    texts = [" ".join(str(span["db.query.text"]).split()) for span in spans]
    texts = texts[[text.startswith("CREATE TABLE") for text in texts].index(True) + 1 :]
    assert texts[: 2 * of : 2] == texts[1 : 2 * of : 2]
    assert marker in texts[0].split("WHERE")[1]
    assert "literal.name = ?" in texts[0]
    assert "IN (?)" in texts[2]
    assert texts[-5] == texts[-4]
    # What the application has written beside a parameter stays as it is written.
    assert "'written'" in texts[-3]
    assert "?" not in texts[-2].replace(marker, "")


# Nothing here has a parameter: what stands in the text goes.
PLAIN = """
import sqlalchemy as sa
def use(url, role):
    engine = sa.create_engine(url)
    table = sa.Table("literal_plain", sa.MetaData(),
        sa.Column("id", sa.Integer), sa.Column("name", sa.String(20), server_default="secret"))
    with engine.connect() as db:
        table.metadata.drop_all(db)
        for statement in role:
            db.execute(sa.DDL(statement))
        db.exec_driver_sql("select 'secret', 471147114")
        db.exec_driver_sql("select 'secret', 471147114", {})
        db.execute(sa.text("select 'secret', 471147114"))
        table.metadata.create_all(db)
        table.metadata.drop_all(db)
        db.exec_driver_sql("select 'written' where 1 = %(n)s", {"n": 471147114})
"""
ROLE = ["create role of_literals password 'secret'", "drop role of_literals"]
USER = ["create user 'of_literals'@'localhost' identified by 'secret'", "drop user 'of_literals'@'localhost'"]


def check_plain(
    program: Run, scope: str, url: str, role: list[str], python: Python | None = None, off: str = ""
) -> None:
    env = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": off or None}
    result = program(PLAIN + f'use("{url}", {role})', env=env, **({"python": python} if python else {}))
    spans = find(result.spans, scope=scope)
    assert not any(secret in repr([span.raw for span in spans]) for secret in ("471147114", "secret"))
    texts = [" ".join(str(span.get("db.query.text")).split()) for span in spans]
    assert texts.count("select ?, ?") == 3
    [create] = [text for text in texts if text.startswith("CREATE TABLE")]
    assert "DEFAULT ?" in create
    assert any("of_literals" in text or "user ?@?" in text for text in texts)
    assert texts[-1].startswith("select 'written'")


@on_oldest_and_newest
def test_a_text_that_is_handed_over_as_it_is_shows_no_literal_over_psycopg(
    program: Run, postgresql: PostgreSQL, python: Python
) -> None:
    url = postgresql.url.replace("://", "+psycopg://")
    check_plain(program, "remora.sqlalchemy", url, ROLE, python)


# 3.14 is the newest that it has wheels for.
@on("3.11", "3.14")
def test_nor_over_psycopg2(program: Run, postgresql: PostgreSQL, python: Python) -> None:
    url = postgresql.url.replace("://", "+psycopg2://")
    check_plain(program, "remora.sqlalchemy", url, ROLE, python)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_nor_where_the_span_is_the_driver_s(program: Run, postgresql: PostgreSQL, driver: str) -> None:
    url = postgresql.url.replace("://", f"+{driver}://")
    check_plain(program, f"remora.{driver}", url, ROLE, off="sqlalchemy")


@on_releases("old", "middle")
def test_nor_with_older_releases_over_postgresql(
    program: Run, postgresql: PostgreSQL, python: Python
) -> None:
    url = postgresql.url.replace("://", "+psycopg2://")
    check_plain(program, "remora.sqlalchemy", url, ROLE, python)


def test_nor_is_it_shown_over_mariadb(program: Run, mariadb: MariaDB) -> None:
    url = (
        f"mysql+pymysql://{mariadb_server.USER}:{mariadb_server.PASSWORD}"
        f"@127.0.0.1:{mariadb.port}/{mariadb_server.DATABASE}"
    )
    check_plain(program, "remora.sqlalchemy", url, USER)


@on_oldest_and_newest
def test_over_sqlite_no_value_is_shown_that_was_written_into_the_text(
    program: Run, tmp_path: object, python: Python
) -> None:
    # Its VALUES is no table that has a name.
    check(program, f"sqlite:///{tmp_path}/a.db", "?", python, of=6)


@on_releases("old", "middle")
def test_nor_with_older_releases(program: Run, tmp_path: object, python: Python) -> None:
    check(program, f"sqlite:///{tmp_path}/a.db", "?", python, of=6)


@on_oldest_and_newest
def test_nor_over_postgresql(program: Run, postgresql: PostgreSQL, python: Python) -> None:
    check(program, postgresql.url.replace("://", "+psycopg://"), "%(id_1)s", python)


@on_oldest_and_newest
def test_nor_over_mariadb(program: Run, mariadb: MariaDB, python: Python) -> None:
    url = (
        f"mysql+pymysql://{mariadb_server.USER}:{mariadb_server.PASSWORD}"
        f"@127.0.0.1:{mariadb.port}/{mariadb_server.DATABASE}"
    )
    check(program, url, "%(id_1)s", python, of=6)
