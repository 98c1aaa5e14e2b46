"""A FastAPI request with one sqlite query, by a direct call of the ASGI application; `app` is for uvicorn."""

import asyncio
import sqlite3

from fastapi import FastAPI

app = FastAPI()
database = sqlite3.connect(":memory:", check_same_thread=False)
database.execute("create table item (id integer primary key, name text)")
database.executemany("insert into item values (?, ?)", [(i, f"item {i}") for i in range(100)])


@app.get("/items/{item}")
async def item(item: int):
    row = database.execute("select name from item where id = ?", (item,)).fetchone()
    return {"id": item, "name": row[0]}


def scope():
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/items/7",
        "raw_path": b"/items/7",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"bench/1.0"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
    }


async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message):
    if message.get("status", 200) != 200:
        raise RuntimeError(message)


async def calls(n):
    for _ in range(n):
        await app(scope(), receive, send)


if __name__ == "__main__":
    import loop

    runner = asyncio.Runner()
    loop.main(lambda n: runner.run(calls(n)))
