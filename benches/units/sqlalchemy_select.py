"""SQLAlchemy core, `select 1` on sqlite in memory, on one connection."""

import loop
from sqlalchemy import create_engine, text

connection = create_engine("sqlite://").connect()
statement = text("select 1")


def run(n):
    for _ in range(n):
        connection.execute(statement).scalar()


loop.main(run)
