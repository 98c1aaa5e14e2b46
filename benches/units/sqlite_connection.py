"""`select 1` by the connection's own `execute`, which makes a cursor each time."""

import sqlite3

import loop

connection = sqlite3.connect(":memory:")


def run(n):
    for _ in range(n):
        connection.execute("select 1").fetchone()


loop.main(run)
