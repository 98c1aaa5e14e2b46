"""Django: one SERVER span for each request."""

import json
from collections.abc import Callable

from support.otlp import children
from support.pythons import Python, on_oldest_and_newest, on_releases

from .conftest import Program
from .django_program import APP, STREAM, selects, servers
from .expected import of_server

Run = Callable[..., Program]


@on_oldest_and_newest
def test_a_request_is_one_server_span_with_the_stable_attributes(program: Run, python: Python) -> None:
    code = (
        APP
        + """
url("items/<int:item>/", query)
show(call("/items/7/", QUERY_STRING="sig=secret&b=c", HTTP_USER_AGENT="tests/1.0"))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[200, "1"]]
    [span] = servers(result)
    route = "/items/<int:item>/"
    assert (span.name, span.kind, span.status, span.parent_id) == (f"GET {route}", "server", "unset", None)
    assert span.attributes == of_server("/items/7/", route)
    [statement] = children(result.spans, span)
    assert (statement.scope, statement.kind) == ("remora.sqlite3", "client")
    assert statement["db.query.text"] == "select ?"


def test_the_route_has_includes_the_root_and_regular_expressions_as_they_are_written(program: Run) -> None:
    code = (
        APP
        + r"""
url("", query)
url("api/", include([path("v1/<slug:name>/", query), re_path(r"^old/(?P<pk>\d+)/$", query)]))
regex(r"^raw/(\w+)$", query)
show(call("/")[0], call("/api/v1/x/")[0], call("/api/old/7/", "POST")[0], call("/raw/x")[0])
show(call("/api/v1/x/", SCRIPT_NAME="/mounted")[0], call("/raw/x", SCRIPT_NAME="/mounted/")[0])
with django.test.override_settings(FORCE_SCRIPT_NAME="/forced"):
    show(call("/raw/x")[0])
"""
    )
    result = program(code.replace("import django\n", "import django, django.test\n"))
    assert result.shown == [[200] * 4, [200] * 2, 200]
    spans = servers(result)
    routes = [
        "/",
        "/api/v1/<slug:name>/",
        "/api/old/(?P<pk>\\d+)/$",
        "/^raw/(\\w+)$",
        "/mounted/api/v1/<slug:name>/",
        "/mounted/^raw/(\\w+)$",
        "/forced/^raw/(\\w+)$",
    ]
    assert [span["http.route"] for span in spans] == routes
    methods = ["GET", "GET", "POST", "GET", "GET", "GET", "GET"]
    assert [span.name for span in spans] == [f"{m} {r}" for m, r in zip(methods, routes, strict=True)]


VIEWS = (
    APP
    + """
from django.core.exceptions import PermissionDenied, SuspiciousOperation
class Broken(Exception): pass
def made(request, code): return HttpResponse("x", status=code)
def missing(request): raise Http404("no such thing")
def denied(request): raise PermissionDenied("no")
def odd(request): raise SuspiciousOperation("odd")
def broken(request):
    try:
        raise KeyError("first")
    except KeyError as error:
        raise Broken("second") from error
def moved(request): return HttpResponseRedirect("/made/200")
url("made/<int:code>", made)
for view in (missing, denied, odd, broken, moved): url(view.__name__, view)
"""
)


def test_only_5xx_is_an_error_and_what_matches_nothing_has_no_route(program: Run) -> None:
    code = VIEWS + (
        'paths = ("/made/200", "/moved", "/made/404", "/missing", "/denied", "/odd", "/made/503", "/nowhere")\n'
        "show([call(path)[0] for path in paths])\n"
        "settings.DEBUG = True\n"
        "show([call(path)[0] for path in paths])\n"
    )
    result = program(code)
    codes = [200, 302, 404, 404, 403, 400, 503, 404]
    assert result.shown == [codes, codes]
    spans = servers(result)
    assert [span["http.response.status_code"] for span in spans] == codes * 2
    assert [span.get("error.type") for span in spans] == ([None] * 6 + ["503", None]) * 2
    assert [span.status for span in spans] == (["unset"] * 6 + ["error", "unset"]) * 2
    assert all(span.events == [] for span in spans)
    assert [("http.route" in span.attributes, span.name) for span in (spans[7], spans[15])] == [
        (False, "GET")
    ] * 2


@on_oldest_and_newest
def test_an_unhandled_exception_is_recorded_and_the_span_says_500(program: Run, python: Python) -> None:
    code = (
        VIEWS
        + """
show(call("/broken")[0])
settings.DEBUG = True
show(call("/broken")[0])
settings.DEBUG_PROPAGATE_EXCEPTIONS = True
import traceback
try:
    call("/broken")
except Broken as error:
    show([frame.name for frame in traceback.extract_tb(error.__traceback__)])
"""
    )
    result = program(code, python=python)
    assert result.shown[:2] == [500, 500]
    assert result.shown == program(code, python=python, env={"REMORA_ENABLED": "false"}).shown
    spans = servers(result)
    assert [span.name for span in spans] == ["GET /broken"] * 3
    assert [(span.status, span["error.type"]) for span in spans] == [
        ("error", "500"),
        ("error", "500"),
        ("error", "__main__.Broken"),
    ]
    assert "http.response.status_code" not in spans[2].attributes
    for span in spans:
        [event] = span.events
        assert event.name == "exception"
        assert event.attributes["exception.type"] == "__main__.Broken"
        assert event.attributes["exception.message"] == "second"
        stack = event.attributes["exception.stacktrace"]
        assert "KeyError: 'first'" in stack
        assert ", in broken" in stack


def test_middleware_may_answer_before_there_is_a_route(program: Run) -> None:
    code = (
        APP
        + """
def gate(get_response):
    def middleware(request):
        if request.GET.get("stop"):
            query()
            return HttpResponse("stopped", status=401)
        response = get_response(request)
        response["x-seen"] = "1"
        return response
    return middleware
class Rescue:
    def __init__(self, get_response): self.get_response = get_response
    def __call__(self, request): return self.get_response(request)
    def process_exception(self, request, error):
        return HttpResponse("rescued", status=503)
def broken(request): raise ValueError("x")
url("broken", broken)
url("", query)
show(call("/", QUERY_STRING="stop=1"), call("/"), call("/broken"))
"""
    )
    env = {"SETTINGS": json.dumps({"MIDDLEWARE": ["__main__.gate", "__main__.Rescue"]})}
    result = program(code, env=env)
    assert result.shown == [[[401, "stopped"], [200, "1"], [503, "rescued"]]]
    spans = servers(result)
    assert [span.name for span in spans] == ["GET", "GET /", "GET /broken"]
    assert [span.status for span in spans] == ["unset", "unset", "error"]
    assert all(span.events == [] for span in spans)
    assert [len(selects(result, span)) for span in spans] == [1, 1, 0]


def test_async_views_under_wsgi_are_the_parents_of_what_they_do(program: Run) -> None:
    code = (
        APP
        + """
import asyncio, sqlite3
from asgiref.sync import sync_to_async
async def view(request):
    await asyncio.sleep(0)
    sqlite3.connect(":memory:").execute("select 2")
    return await sync_to_async(query)()
url("async", view)
show(call("/async"))
"""
    )
    result = program(code)
    assert result.shown == [[200, "1"]]
    [span] = servers(result)
    assert span["http.route"] == "/async"
    assert len(selects(result, span)) == 2


def test_settings_choose_what_is_recorded(program: Run) -> None:
    code = (
        APP
        + """
url("", query)
url("health", query)
show(call("/")[0], call("/health")[0], call("/health", HTTP_TRACEPARENT=f"00-{'7' * 32}-{'8' * 16}-01")[0])
from django.test import Client
show(Client().get("/health").status_code)
"""
    )
    env = {
        "OTEL_PYTHON_DJANGO_EXCLUDED_URLS": "health$",
        "OTEL_PYTHON_DJANGO_TRACED_REQUEST_ATTRS": "path_info,content_type,nothing",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE": "content-type",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup",
    }
    result = program(code, env=env)
    assert result.shown == [[200] * 3, 200]
    [span] = servers(result)
    assert (span["path_info"], span["content_type"]) == ("/", "")
    assert span["http.response.header.content-type"] == ["text/html; charset=utf-8"]
    assert (span["http.method"], span["http.status_code"], span["http.target"]) == ("GET", 200, "/")
    assert "nothing" not in span.attributes
    queries = [each for each in result.spans if each.get("db.query.text") == "select ?"]
    assert [each.parent_id for each in queries] == [span.span_id, None, "8" * 16, None]
    code += 'import remora\nshow(remora.status()["hooks"]["django"]["state"])\n'
    off = program(code, env={"OTEL_PYTHON_DJANGO_INSTRUMENT": "false"})
    assert off.shown == [*result.shown, "disabled"]
    assert [each.span_id for each in servers(off)] == [span.span_id]


def test_the_framework_of_rest_apis_swallows_exceptions_and_the_status_says_so(program: Run) -> None:
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "rest_framework"]
    code = (
        APP
        + """
from rest_framework.decorators import api_view
from rest_framework.exceptions import APIException, NotFound
from rest_framework.response import Response
settings.REST_FRAMEWORK = {"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [], "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]}
@api_view(["GET"])
def fine(request): return Response({"a": 1})
@api_view(["GET"])
def missing(request): raise NotFound()
@api_view(["GET"])
def down(request): raise APIException("down")
@api_view(["GET"])
def broken(request): raise ValueError("broken")
for name in ("fine", "missing", "down", "broken"): url(name, globals()[name])
show([call("/" + name)[0] for name in ("fine", "missing", "down", "broken")])
"""
    )
    result = program(code, env={"SETTINGS": json.dumps({"INSTALLED_APPS": apps})})
    assert result.shown == [[200, 404, 500, 500]]
    spans = servers(result)
    assert [span.status for span in spans] == ["unset", "unset", "error", "error"]
    assert [[event.attributes["exception.type"] for event in span.events] for span in spans] == [
        [],
        [],
        [],
        ["ValueError"],
    ]


def test_odd_requests_get_what_they_get_without_the_agent(program: Run) -> None:
    code = (
        APP
        + r"""
class Odd:
    def __str__(self): raise ValueError("no text")
def odd(request, x=None):
    request.odd = Odd()
    return query()
url("x/<path:x>", odd)
url("", odd)
class Evil:
    streaming = "yes"
    def __getattr__(self, name): raise ValueError(name)
def outcome(path="/", method="GET", **more):
    try:
        return call(path, method, **more)[0]
    except Exception as error:
        return [type(error).__name__, str(error)]
long = "x" * (10 << 20)
show(outcome("/x/\xff\xfe"), outcome("/x/\u20ac"), outcome("/x/\udce9"), outcome("/x/" + long),
     outcome("/", QUERY_STRING=long), outcome("/", QUERY_STRING="\udc80"), outcome("/", "BREW"),
     outcome("/", method=b"GET"), outcome("/", HTTP_HOST="[::bad"), outcome("/", HTTP_HOST=b"bytes"),
     outcome("/", HTTP_TRACEPARENT="\udc80", HTTP_USER_AGENT="a\r\nb: c"), outcome(None), outcome("/x/a\0b"))
from django.core.handlers.base import BaseHandler
class Handler(type(handler())):
    def get_response(self, request): return Evil()
show(outcome("/", application=Handler()))
"""
    )
    env = {"OTEL_PYTHON_DJANGO_TRACED_REQUEST_ATTRS": "odd,user,path_info,session"}
    result = program(code, env=env)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    assert len(servers(result)) == 14
    assert [span.name for span in servers(result)][:2] == ["GET /x/<path:x>", "GET"]


@on_oldest_and_newest
def test_a_module_imported_before_activation_gives_the_same_spans(program: Run, python: Python) -> None:
    code = (
        STREAM
        + """
url("x/<y>", query)
url("broken", lambda request: 1 / 0)
handler()
import remora
remora.init()
show(call("/x/1"), call("/stream/2"), call("/broken")[0])
"""
    )
    early = program(code, env={"REMORA_ENABLED": None}, python=python)
    before = [(span.name, span.attributes, len(span.events)) for span in servers(early)]
    late = program(code, python=python)
    assert late.shown == early.shown
    assert [(span.name, span.attributes, len(span.events)) for span in servers(late)[3:]] == before
    assert len(before) == 3


@on_releases("old", "middle")
def test_old_releases_give_the_same_spans(program: Run, python: Python) -> None:
    code = (
        STREAM
        + """
from django.test import Client
url("items/<int:item>/", query)
url("broken", lambda request: 1 / 0)
show(call("/items/7/")[0], call("/stream/2"), call("/broken")[0], call("/nowhere")[0])
show(Client().get("/items/8/").status_code)
import remora
hook = remora.status()["hooks"]["django"]
show(hook["state"], sorted({target["state"] for target in hook["targets"]} - {"waiting"}))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[200, [200, "01"], 500, 404], 200, ["applied", ["applied"]]]
    spans = servers(result)
    names = [
        "GET /items/<int:item>/",
        "GET /stream/<int:count>",
        "GET /broken",
        "GET",
        "GET /items/<int:item>/",
    ]
    assert [span.name for span in spans] == names
    assert [span["http.response.status_code"] for span in spans] == [200, 200, 500, 404, 200]
    assert [len(selects(result, span)) for span in spans] == [1, 2, 0, 0, 1]
    assert [len(span.events) for span in spans] == [0, 0, 1, 0, 0]
