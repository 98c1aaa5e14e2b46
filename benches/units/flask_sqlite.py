"""A Flask request with one sqlite query, by a direct call of the WSGI application; `app` is for gunicorn."""

import sqlite3

from flask import Flask
from wsgi_request import send

app = Flask("bench")
database = sqlite3.connect(":memory:", check_same_thread=False)
database.execute("create table item (id integer primary key, name text)")
database.executemany("insert into item values (?, ?)", [(i, f"item {i}") for i in range(100)])


@app.get("/items/<int:item>")
def item(item):
    row = database.execute("select name from item where id = ?", (item,)).fetchone()
    return {"id": item, "name": row[0]}


def run(n):
    send(app, n)


if __name__ == "__main__":
    import loop

    loop.main(run)
