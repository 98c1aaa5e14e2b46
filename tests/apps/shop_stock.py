"""The shop's stock: a flask service on sqlite3. Port in `PORT`, database file in `DATABASE`."""

import os
import sqlite3

from flask import Flask, abort, g, jsonify, redirect, request

app = Flask(__name__)
database = os.environ.get("DATABASE", "shop.sqlite")


def connection():
    if "connection" not in g:
        g.connection = sqlite3.connect(database)
    return g.connection


@app.teardown_appcontext
def close(_):
    if "connection" in g:
        g.pop("connection").close()


@app.get("/items/<name>")
def item(name):
    row = connection().execute("SELECT name, price, left FROM items WHERE name = ?", (name,)).fetchone()
    if row is None:
        abort(404)
    return jsonify(name=row[0], price=row[1], left=row[2])


@app.post("/orders")
def order():
    name = request.get_json()["item"]
    with connection() as db:
        db.execute("UPDATE items SET left = left - 1 WHERE name = ?", (name,))
        number = db.execute("INSERT INTO orders (item) VALUES (?)", (name,)).lastrowid
    return jsonify(number=number), 201


@app.get("/latest")
def latest():
    # The literal must not be seen in the span.
    (name,) = connection().execute("SELECT name FROM items WHERE price > 3 ORDER BY rowid DESC").fetchone()
    return redirect(f"/items/{name}")


@app.get("/broken")
def broken():
    connection().execute("SELECT * FROM no_such_table")
    return jsonify(never="reached")


def prepare():
    with sqlite3.connect(database) as db:
        db.execute("DROP TABLE IF EXISTS items")
        db.execute("DROP TABLE IF EXISTS orders")
        db.execute("CREATE TABLE items (name TEXT PRIMARY KEY, price REAL, left INTEGER)")
        db.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, item TEXT)")
        db.executemany("INSERT INTO items VALUES (?, ?, ?)", [("anchor", 12.5, 3), ("rope", 4.25, 40)])
    db.close()


if __name__ == "__main__":
    prepare()
    app.run("127.0.0.1", int(os.environ.get("PORT", "8001")), threaded=True)
