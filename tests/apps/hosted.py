"""A small Flask application for servers: `/work/<number>` runs one query; `/pid` says who answers."""

import os
import sqlite3
import sys

from flask import Flask

app = Flask("hosted")


@app.get("/work/<int:number>")
def work(number: int) -> str:
    database = sqlite3.connect(":memory:")
    try:
        return str(database.execute("select ?", (number,)).fetchone()[0])
    finally:
        database.close()


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]))
