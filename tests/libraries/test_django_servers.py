"""Django: what calls it, from the test client to a server."""

import json
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.otlp import children, find, one
from support.process import Service
from support.pythons import Python, on_oldest_and_newest

from .conftest import Program
from .django_program import APP, selects, servers

Run = Callable[..., Program]


def test_static_files_are_one_span_and_the_application_below_is_not_another(
    program: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("static")
    settings = {
        "INSTALLED_APPS": ["django.contrib.staticfiles"],
        "STATIC_URL": "/static/",
        "STATICFILES_DIRS": [str(tmp_path)],
    }
    code = (
        APP
        + """
from wsgiref.util import FileWrapper
from django.contrib.staticfiles.handlers import StaticFilesHandler
static = StaticFilesHandler(handler())
url("", query)
file = {"wsgi.file_wrapper": FileWrapper}
show(call("/static/a.txt", application=static), call("/static/a.txt", application=static, **file),
     call("/static/none", application=static)[0], call("/", application=static))
"""
    )
    result = program(code, env={"SETTINGS": json.dumps(settings)})
    assert result.shown == [[[200, "static"], [200, "static"], 404, [200, "1"]]]
    spans = servers(result)
    assert [span["http.response.status_code"] for span in spans] == [200, 200, 404, 200]
    assert [span.name for span in spans] == ["GET", "GET", "GET", "GET /"]


def test_the_test_client_makes_one_span_also_inside_a_request(program: Run) -> None:
    code = (
        APP
        + """
from django.test import Client
def outer(request): return HttpResponse(Client().get("/inner").content)
def stream(request): return StreamingHttpResponse(iter("ab"))
url("inner", query)
url("outer", outer)
url("stream", stream)
url("h\u00e9/<x>", query)
show(Client().get("/outer").content.decode())
show(call("/inner"))
show(b"".join(Client().get("/stream")).decode())
show(Client().get("/h\u00e9/\u20ac").status_code, call("/h\u00e9/\u20ac".encode().decode("latin-1"))[0])
"""
    )
    result = program(code)
    assert result.shown == ["1", [200, "1"], "ab", [200, 200]]
    outer = one(result.spans, "GET /outer")
    [inner] = children(result.spans, outer)
    assert inner.name == "GET /inner"
    assert [span.parent_id for span in servers(result)] == [None, outer.span_id] + [None] * 4
    assert [span["url.path"] for span in servers(result)[-2:]] == ["/h\u00e9/\u20ac"] * 2
    assert {span["http.response.status_code"] for span in servers(result)} == {200}


@on_oldest_and_newest
def test_the_asynchronous_test_client_makes_one_span(program: Run, python: Python) -> None:
    code = (
        APP
        + """
import asyncio, inspect
from asgiref.sync import sync_to_async
from django.core.handlers.base import BaseHandler
from django.test import AsyncClient
async def view(request, x):
    await asyncio.sleep(0)
    return await sync_to_async(query)()
async def broken(request): raise ValueError("x")
async def pieces():
    yield "a"
    yield "b"
url("async/<x>", view)
url("sync", query)
url("broken", broken)
url("stream", lambda request: StreamingHttpResponse(pieces()))
async def main():
    client = AsyncClient(raise_request_exception=False)
    paths = ("/async/1", "/sync", "/broken", "/nowhere")
    codes = [(await client.get(path)).status_code for path in paths]
    streamed = await client.get("/stream")
    return codes + [b"".join([piece async for piece in streamed]).decode()]
show(asyncio.run(main()), inspect.iscoroutinefunction(BaseHandler.get_response_async))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[[200, 200, 500, 404, "ab"], True]]
    spans = servers(result)
    assert [span.name for span in spans] == [
        "GET /async/<x>",
        "GET /sync",
        "GET /broken",
        "GET",
        "GET /stream",
    ]
    assert [span["http.response.status_code"] for span in spans] == [200, 200, 500, 404, 200]
    assert [len(selects(result, span)) for span in spans] == [1, 1, 0, 0, 0]
    assert [len(span.events) for span in spans] == [0, 0, 1, 0, 0]
    assert {span.parent_id for span in spans} == {None}


def test_the_development_server_and_its_reloading_parent(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "manage.py").write_text(
        "import sys\n"
        "from django.conf import settings\n"
        "from django.core.management import execute_from_command_line\n"
        "from django.http import HttpResponse\n"
        "from django.urls import path\n"
        "settings.configure(DEBUG=True, ALLOWED_HOSTS=['*'], ROOT_URLCONF='__main__', SECRET_KEY='x',\n"
        "    INSTALLED_APPS=['django.contrib.staticfiles'], STATIC_URL='/static/')\n"
        "urlpatterns = [path('items/<int:item>/', lambda request, item: HttpResponse(str(item)))]\n"
        "execute_from_command_line(sys.argv)\n"
    )
    server = service(
        [sys.executable, "manage.py", "runserver", "127.0.0.1:{port}"],
        cwd=tmp_path,
        env={"OTEL_BSP_SCHEDULE_DELAY": "50"},
    )
    for number in range(3):
        with urllib.request.urlopen(f"{server.url}/items/{number}/") as answer:
            assert answer.read() == str(number).encode()
    # The child is killed with its parent.
    end = time.monotonic() + 20
    while len(server.spans) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    spans = servers(server.stop())
    assert [span.name for span in spans] == ["GET /items/<int:item>/"] * 3
    assert server.pid not in {span.resource["process.pid"] for span in spans}


WRAPPED = """
import django, sqlite3
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="shop", SECRET_KEY="x", MIDDLEWARE=[])
django.setup()
from django.core.handlers.wsgi import WSGIHandler
def view(request):
    sqlite3.connect(":memory:").execute("select 1")
    return HttpResponse("fine")
urlpatterns = [path("health", view), path("items", view)]
handler = WSGIHandler()
def application(environ, start_response):
    return handler(environ, start_response)
"""


@pytest.mark.parametrize("server", [["gunicorn", "-b"], ["hypercorn", "-b"]], ids=lambda server: server[0])
def test_an_excluded_request_has_no_span_of_the_server_s_either(
    service: Callable[..., Service], tmp_path: Path, server: list[str]
) -> None:
    """Django is not what the server calls: the server's hook has made a span before Django's settings are asked."""
    (tmp_path / "shop.py").write_text(WRAPPED)
    app = "shop:application" if server[0] == "gunicorn" else "wsgi:shop:application"
    running = service(
        [sys.executable, "-m", *server, "127.0.0.1:{port}", "--log-level", "critical", app],
        cwd=tmp_path,
        env={"OTEL_PYTHON_DJANGO_EXCLUDED_URLS": "health$"},
    )
    caller = {"traceparent": f"00-{'7' * 32}-{'8' * 16}-01"}
    for path, headers in (("items", {}), ("health", {}), ("health", caller), ("items", caller)):
        with urllib.request.urlopen(
            urllib.request.Request(f"{running.url}/{path}", headers=headers)
        ) as answer:
            assert answer.read() == b"fine"
    running.stop()
    first, last = found = find(running.spans, kind="server")
    assert [(span.name, span.scope) for span in found] == [("GET /items", "remora.django")] * 2
    queries = [span.parent_id for span in find(running.spans, scope="remora.sqlite3")]
    # The caller's goes on; without one there is nothing that it could hang below.
    assert queries == [first.span_id, "8" * 16, last.span_id]
    assert (first.parent_id, last.parent_id) == (None, "8" * 16)
