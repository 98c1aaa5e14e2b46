"""ASGI applications under servers that speak to real clients: streams, clients that leave, WebSockets."""

import contextlib
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.otlp import Span, children, one
from support.process import Service
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from .asgi_program import SERVERS

# `done(text)` leaves a line in the file `done` when something has come to its end.
APP = """
import asyncio, contextlib, pathlib, sqlite3
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from starlette.responses import StreamingResponse

app = FastAPI()
db = sqlite3.connect(":memory:", check_same_thread=False)
def query(): db.execute("select 1").fetchone()
def done(text):
    with open("done", "a") as file: print(text, file=file)

@app.get("/events")
async def events():
    async def pieces():
        for number in range(3):
            query()
            await asyncio.sleep(0.05)
            yield f"data: {number}\\n\\n"
    return StreamingResponse(pieces(), media_type="text/event-stream")

@app.get("/endless")
async def endless():
    async def pieces():
        try:
            while True:
                query()
                yield b"x" * 65536
                await asyncio.sleep(0.01)
        finally:
            done("endless")
    return StreamingResponse(pieces())

@app.post("/upload")
async def upload(request: Request):
    try:
        async for piece in request.stream(): done("begun")
    finally:
        done("upload")

@app.get("/slow")
async def slow(request: Request):
    done("waits")
    try:
        while not await request.is_disconnected():
            await asyncio.sleep(0.02)
        query()
    finally:
        done("slow")

@app.websocket("/echo/{room}")
async def echo(socket: WebSocket, room: str):
    await socket.accept()
    try:
        async for text in socket.iter_text():
            query()
            await socket.send_text(text)
    finally:
        done("echo")

@app.websocket("/reads")
async def reads(socket: WebSocket):
    await socket.accept()
    try:
        while True: await socket.receive_text()
    finally:
        done("reads")

@app.websocket("/refused")
async def refused(socket: WebSocket): await socket.close()

@app.websocket("/broken")
async def broken(socket: WebSocket):
    await socket.accept()
    raise ValueError("mine")

@app.websocket("/ended")
async def ended(socket: WebSocket):
    await socket.accept()
    await socket.close(4001, "enough")

async def bare(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown": return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "headers": [(b"x-room", b"1")]})
    while (message := await receive())["type"] == "websocket.receive":
        query()
        await send({"type": "websocket.send", "text": message["text"]})
    done("bare")
"""
CALLER = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
UVICORN = SERVERS["uvicorn"]
GUNICORN = [*SERVERS["gunicorn"], "-k", "asgi"]

Start = Callable[..., Service]


@pytest.fixture
def start(service: Callable[..., Service], tmp_path: Path) -> Start:
    """Starts a server with one of `APP`'s applications."""

    def started(*command: str, app: str = "app", **options: object) -> Service:
        (tmp_path / "apps.py").write_text(APP)
        return service([sys.executable, *command, f"apps:{app}"], cwd=tmp_path, **options)

    return started


def wait_for(path: Path, text: str) -> None:
    """Until the application has `done` it."""
    end = time.monotonic() + 10
    while not path.exists() or text not in path.read_text().split():
        assert time.monotonic() < end, f"{text} did not end"
        time.sleep(0.02)


def leave(server: Service, head: str, until: Callable[[socket.socket], object]) -> None:
    """Sends a request, reads some of the answer or waits, and resets the connection."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(f"{head}\r\nHost: here.test\r\ntraceparent: {CALLER}\r\n".encode())
        client.sendall(b"Content-Length: 1000\r\n\r\nxx" if head.startswith("POST") else b"\r\n")
        until(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def ended(server: Service) -> list[Span]:
    """Its server spans, once it has been stopped; each below the caller."""
    server.stop()
    assert "remora:" not in server.output
    spans = [span for span in server.spans if span.kind == "server"]
    assert {(span.trace_id, span.parent_id) for span in spans} == {("a" * 32, "b" * 16)}
    return spans


@pytest.mark.parametrize(
    "command",
    [[*UVICORN, "--http", "h11"], [*UVICORN, "--http", "httptools"], SERVERS["hypercorn"], GUNICORN],
    ids=["h11", "httptools", "hypercorn", "gunicorn"],
)
def test_a_stream_of_events_is_one_span_until_its_last_message(start: Start, command: list[str]) -> None:
    server = start(*command)
    request = urllib.request.Request(server.url + "/events", headers={"traceparent": CALLER})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.read() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    span = one(ended(server))
    assert (span.name, span.status, span["http.response.status_code"]) == ("GET /events", "unset", 200)
    queries = children(server.spans, span)
    assert len(queries) == 3
    assert span.end > max(query.end for query in queries)


@pytest.mark.parametrize(
    "command",
    [[*UVICORN, "--http", "h11"], [*UVICORN, "--http", "httptools"], SERVERS["hypercorn"], GUNICORN],
    ids=["h11", "httptools", "hypercorn", "gunicorn"],
)
def test_a_client_that_leaves_is_no_error(start: Start, command: list[str], tmp_path: Path) -> None:
    server = start(*command)
    done = tmp_path / "done"
    leave(server, "GET /endless HTTP/1.1", lambda client: client.recv(1 << 20, socket.MSG_WAITALL))
    wait_for(done, "endless")
    leave(server, "POST /upload HTTP/1.1", lambda client: wait_for(done, "begun"))
    wait_for(done, "upload")
    leave(server, "GET /slow HTTP/1.1", lambda client: wait_for(done, "waits"))
    wait_for(done, "slow")
    endless, upload, slow = ended(server)
    assert [span.name for span in (endless, upload, slow)] == ["GET /endless", "POST /upload", "GET /slow"]
    for span in (endless, upload, slow):
        assert (span.status, span.events, span.get("error.type")) == ("unset", [], None)
    assert endless["http.response.status_code"] == 200
    assert len(children(server.spans, endless)) >= 1


@pytest.mark.parametrize(
    "command",
    [
        [*UVICORN, "--ws", "websockets"],
        [*UVICORN, "--ws", "websockets-sansio"],
        [*UVICORN, "--ws", "wsproto"],
        SERVERS["hypercorn"],
        GUNICORN,
    ],
    ids=["websockets", "websockets-sansio", "wsproto", "hypercorn", "gunicorn"],
)
def test_a_websocket_is_one_span_until_its_connection_ends(
    start: Start, command: list[str], tmp_path: Path
) -> None:
    server = start(*command)
    url = server.url.replace("http", "ws")

    def opened(path: str) -> contextlib.AbstractContextManager[object]:
        return connect(url + path, additional_headers={"traceparent": CALLER})

    with opened("/echo/7?token=1") as client:
        for text in ("a", "b"):
            client.send(text)
            assert client.recv() == text
    wait_for(tmp_path / "done", "echo")
    with opened("/reads") as client:
        pass
    wait_for(tmp_path / "done", "reads")
    with pytest.raises(InvalidStatus) as refusal, opened("/refused"):
        pass
    assert refusal.value.response.status_code == 403
    for path in ("/broken", "/ended"):
        with contextlib.suppress(ConnectionClosed), opened(path) as client:
            client.recv(10)
    spans = ended(server)
    assert [span.name for span in spans] == [
        "GET /echo/{room}",
        "GET /reads",
        "GET /refused",
        "GET /broken",
        "GET /ended",
    ]
    echo, reads, refused, broken, over = spans
    assert [span["http.response.status_code"] for span in spans] == [101, 101, 403, 101, 101]
    assert (echo["url.path"], echo["url.query"], echo["url.scheme"]) == ("/echo/7", "token=1", "ws")
    queries = children(server.spans, echo)
    assert len(queries) == 2
    assert echo.end > queries[-1].end
    for span in (echo, reads, refused, over):
        assert (span.status, span.events) == ("unset", [])
    assert (broken.status, broken["error.type"]) == ("error", "ValueError")
    assert [event.attributes["exception.message"] for event in broken.events] == ["mine"]


@pytest.mark.parametrize(
    "command", [UVICORN, SERVERS["hypercorn"], GUNICORN], ids=["uvicorn", "hypercorn", "gunicorn"]
)
def test_a_websocket_of_a_bare_application_has_the_servers_span(
    start: Start, command: list[str], tmp_path: Path
) -> None:
    server = start(
        *command, app="bare", env={"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE": "x-.*"}
    )
    with connect(server.url.replace("http", "ws"), additional_headers={"traceparent": CALLER}) as client:
        client.send("a")
        assert client.recv() == "a"
    wait_for(tmp_path / "done", "bare")
    span = one(ended(server))
    assert (span.name, span.status, span["http.response.status_code"]) == ("GET", "unset", 101)
    assert span["http.response.header.x-room"] == ["1"]
    assert len(children(server.spans, span)) == 1


def test_a_server_that_ends_while_a_websocket_is_open_loses_no_span(start: Start) -> None:
    server = start(*UVICORN)
    with connect(
        server.url.replace("http", "ws") + "/echo/1", additional_headers={"traceparent": CALLER}
    ) as client:
        client.send("a")
        assert client.recv() == "a"
        [span] = ended(server)
    assert (span.name, span.status) == ("GET /echo/{room}", "unset")
