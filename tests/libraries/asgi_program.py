"""Applications that ASGI tests run in a program of their own, and the servers that call them."""

from support.otlp import Span, find
from support.process import Result

# `call(app, path, …)` sends one request into an application and gives its status, and the exception that left it.
CALL = """
import asyncio, sqlite3
def call(app, path="/", method="GET", headers=(), root="", kind="http", messages=(), query=b"",
         without=(), **more):
    scope = {
        "type": kind, "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": method, "scheme": "http" if kind == "http" else "ws", "path": path,
        "raw_path": path.encode("utf-8", "replace"), "query_string": query, "root_path": root,
        "headers": [(b"host", b"shop.test:8000"), (b"user-agent", b"tests/1.0"), *headers],
        "client": ("192.0.2.7", 4711), "server": ("127.0.0.1", 8000),
    }
    if kind == "websocket":
        del scope["method"]
    scope.update(more)
    for key in without:
        del scope[key]
    sent, waiting = [], list(messages)
    if kind == "http":
        waiting.append({"type": "http.request", "body": b"", "more_body": False})
    async def receive():
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(60)
    async def send(message):
        sent.append(message)
    async def main():
        try:
            await app(scope, receive, send)
        except Exception as error:
            return repr(error)
    raised = asyncio.run(main())
    status = [message["status"] for message in sent if "status" in message]
    return [*status, raised] if raised else status
"""
FASTAPI = (
    CALL
    + """
from fastapi import APIRouter, FastAPI, HTTPException, BackgroundTasks, WebSocket
from starlette.responses import StreamingResponse
app = FastAPI()
db = sqlite3.connect(":memory:", check_same_thread=False)
def query(): db.execute("select 1").fetchone()
"""
)
# What makes a server listen on `{port}`; the application follows.
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "--port", "{port}", "--log-level", "critical"],
    "hypercorn": ["-m", "hypercorn", "-b", "127.0.0.1:{port}", "--log-level", "CRITICAL"],
    "gunicorn": ["-m", "gunicorn", "-b", "127.0.0.1:{port}", "--log-level", "critical"],
    "waitress": ["-m", "waitress", "--listen=127.0.0.1:{port}"],
}


def servers(result: Result) -> list[Span]:
    return find(result.spans, kind="server")
