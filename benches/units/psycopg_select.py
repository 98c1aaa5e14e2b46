"""psycopg `select 1` on loopback, on one cursor."""

import os

import loop
import psycopg

connection = psycopg.connect(os.environ["BENCH_POSTGRES"], autocommit=True)
cursor = connection.cursor()


def run(n):
    for _ in range(n):
        cursor.execute("select 1").fetchone()


loop.main(run)
