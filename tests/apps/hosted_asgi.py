"""What ASGI servers are given: `/work/<number>` runs one query. One application with a framework, and some without."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI()


def answer(number: str) -> bytes:
    database = sqlite3.connect(":memory:")
    try:
        return str(database.execute("select ?", (number,)).fetchone()[0]).encode()
    finally:
        database.close()


@app.get("/work/{number}")
async def work(number: str) -> PlainTextResponse:
    return PlainTextResponse(answer(number))


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """ASGI 3."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = answer(scope["path"].rpartition("/")[2])
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


def asgi2(scope: Any) -> Any:
    """ASGI 2: a callable that makes one for each connection."""

    async def instance(receive: Any, send: Any) -> None:
        await bare(scope, receive, send)

    return instance


async def behind(scope: Any, receive: Any, send: Any) -> None:
    """A framework's application behind middleware that it does not know of."""
    await app({**scope, "headers": list(scope.get("headers", ()))}, receive, lambda message: send(message))


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """WSGI, with a body that is made while it is sent."""
    body = answer(environ["PATH_INFO"].rpartition("/")[2])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    yield body
