"""`select 1` on one cursor of the standard library's sqlite3."""

import sqlite3

import loop

execute = sqlite3.connect(":memory:").cursor().execute


def run(n):
    for _ in range(n):
        execute("select 1").fetchone()


loop.main(run)
