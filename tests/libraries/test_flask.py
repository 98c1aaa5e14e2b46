"""Flask: one SERVER span for each request."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.otlp import children, one
from support.pythons import Python, on_every_python, on_oldest_and_newest

from .conftest import Program, Upstream
from .expected import of_server
from .flask_program import APP, servers

Run = Callable[..., Program]


@on_every_python
def test_a_request_is_one_server_span_with_the_stable_attributes(program: Run, python: Python) -> None:
    code = (
        APP
        + """
@app.get("/items/<int:item>")
def item(item):
    return f"item {item}"
show(call("/items/7", QUERY_STRING="sig=secret&b=c", HTTP_USER_AGENT="tests/1.0"))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[200, "item 7"]]
    [span] = result.spans
    assert (span.name, span.kind, span.status, span.parent_id) == (
        "GET /items/<int:item>",
        "server",
        "unset",
        None,
    )
    assert span.attributes == of_server("/items/7", "/items/<int:item>")


def test_the_route_has_blueprints_and_the_root_that_the_application_is_mounted_at(program: Run) -> None:
    code = (
        APP
        + """
outer = flask.Blueprint("outer", "outer", url_prefix="/shop")
inner = flask.Blueprint("inner", "inner", url_prefix="/api/<version>")
@inner.route("/items/<item>", methods=["GET", "POST"])
def item(version, item):
    return "x"
outer.register_blueprint(inner)
app.register_blueprint(outer)
show(call("/shop/api/v1/items/3"))
show(call("/shop/api/v1/items/3", "POST", SCRIPT_NAME="/mounted"))
show(call("/shop/api/v1/items/3", SCRIPT_NAME="/mounted/"))
"""
    )
    spans = servers(program(code))
    route = "/shop/api/<version>/items/<item>"
    assert [span["http.route"] for span in spans] == [route, "/mounted" + route, "/mounted" + route]
    assert [span.name for span in spans] == [f"GET {route}", f"POST /mounted{route}", f"GET /mounted{route}"]
    assert spans[1]["url.path"] == "/mounted/shop/api/v1/items/3"


def test_only_5xx_is_an_error_and_what_matches_no_rule_has_no_route(program: Run) -> None:
    code = (
        APP
        + """
@app.get("/made/<int:code>")
def made(code):
    return "x", code
@app.get("/aborted/<int:code>")
def aborted(code):
    flask.abort(code)
@app.get("/moved")
def moved():
    return flask.redirect("/made/200")
show([call(path)[0] for path in ("/made/200", "/moved", "/made/404", "/aborted/403", "/made/503",
                                 "/aborted/500", "/nowhere")], call("/moved", "POST")[0])
"""
    )
    result = program(code)
    codes = [200, 302, 404, 403, 503, 500, 404]
    assert result.shown == [[codes, 405]]
    spans = servers(result)
    assert [span["http.response.status_code"] for span in spans] == [*codes, 405]
    wanted = [None, None, None, None, "503", "500", None, None]
    assert [span.get("error.type") for span in spans] == wanted
    assert [span.status for span in spans] == ["error" if error else "unset" for error in wanted]
    assert [span.name for span in spans[-2:]] == ["GET", "POST"]
    assert not any("http.route" in span.attributes for span in spans[-2:])
    assert all(span.events == [] for span in spans)


@on_every_python
def test_an_unhandled_exception_is_recorded_and_the_span_says_500(program: Run, python: Python) -> None:
    code = (
        APP
        + """
import logging
logging.disable(logging.CRITICAL)
class Broken(Exception): pass
@app.get("/broken")
def broken():
    try:
        raise KeyError("first")
    except KeyError as error:
        raise Broken("second") from error
show(call("/broken")[0])
"""
    )
    result = program(code, python=python)
    assert result.shown == [500]
    [span] = result.spans
    assert (span.name, span.status, span["error.type"]) == ("GET /broken", "error", "500")
    assert span["http.response.status_code"] == 500
    [event] = span.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "__main__.Broken"
    assert event.attributes["exception.message"] == "second"
    stack = event.attributes["exception.stacktrace"]
    assert "KeyError: 'first'" in stack
    assert "direct cause of the following" in stack
    assert stack.endswith("__main__.Broken: second")
    assert ", in broken" in stack


def test_an_exception_that_propagates_is_the_same_one_and_recorded_once(program: Run) -> None:
    code = (
        APP
        + """
import traceback
app.config["PROPAGATE_EXCEPTIONS"] = True
error = ValueError("mine")
@app.get("/broken")
def broken():
    raise error
try:
    call("/broken")
except ValueError as caught:
    show(caught is error)
    show([frame.name for frame in traceback.extract_tb(caught.__traceback__)])
"""
    )
    result = program(code)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    [span] = result.spans
    assert (span.status, span["error.type"]) == ("error", "ValueError")
    assert [event.attributes["exception.type"] for event in span.events] == ["ValueError"]
    assert "http.response.status_code" not in span.attributes


def test_handlers_of_the_application_decide_what_an_exception_means(program: Run) -> None:
    code = (
        APP
        + """
class Missing(Exception): pass
class Down(Exception): pass
app.register_error_handler(Missing, lambda error: ("missing", 404))
app.register_error_handler(Down, lambda error: ("down", 503))
@app.get("/missing")
def missing(): raise Missing()
@app.get("/down")
def down(): raise Down()
@app.before_request
def gate():
    if flask.request.args.get("stop"):
        return "stopped", 401
@app.teardown_request
def teardown(error): pass
show(call("/missing"), call("/down"), call("/down", QUERY_STRING="stop=1"))
"""
    )
    result = program(code)
    assert result.shown == [[[404, "missing"], [503, "down"], [401, "stopped"]]]
    spans = servers(result)
    assert [span.status for span in spans] == ["unset", "error", "unset"]
    assert [span.get("error.type") for span in spans] == [None, "503", None]
    assert [span["http.route"] for span in spans] == ["/missing", "/down", "/down"]


def test_an_error_that_was_answered_stays_one_where_a_teardown_raises(program: Run) -> None:
    code = (
        APP
        + """
import logging
logging.disable(logging.CRITICAL)
@app.get("/down")
def down(): return "x", 503
@app.get("/broken")
def broken(): raise ValueError("view")
@app.get("/fine")
def fine(): return "x"
@app.teardown_request
def teardown(error): raise RuntimeError("teardown")
for path in ("/down", "/broken", "/fine"):
    try:
        call(path)
    except RuntimeError as error:
        show(str(error))
"""
    )
    result = program(code)
    assert result.shown == ["teardown"] * 3
    down, broken, fine = servers(result)
    for span, code, raised in ((down, 503, "RuntimeError"), (broken, 500, "ValueError")):
        assert (span["http.response.status_code"], span.status, span["error.type"]) == (
            code,
            "error",
            str(code),
        )
        assert [event.attributes["exception.type"] for event in span.events] == [raised]
    # Its answer was never sent: the server makes one of what was raised.
    assert (fine.status, fine["error.type"], fine.get("http.response.status_code")) == (
        "error",
        "RuntimeError",
        None,
    )


STREAM = (
    APP
    + """
import sqlite3, time
db = sqlite3.connect(":memory:", check_same_thread=False)
closed = []
def pieces(count):
    try:
        for n in range(count):
            db.execute("select 1").fetchone()
            yield f"{n}"
    finally:
        closed.append(count)
@app.get("/stream/<int:count>")
def stream(count):
    return app.response_class(pieces(count))
@app.get("/context/<int:count>")
def context(count):
    body = (flask.request.path + piece for piece in pieces(count))
    return app.response_class(flask.stream_with_context(body))
@app.get("/broken")
def broken():
    def body():
        yield "a"
        raise ValueError("midway")
    return app.response_class(body())
"""
)


@on_every_python
def test_a_streamed_response_ends_at_close_and_is_the_parent_of_what_it_does(
    program: Run, python: Python
) -> None:
    code = STREAM + 'show(call("/stream/3"), call("/context/2"), closed)\n'
    result = program(code, python=python)
    assert result.shown == [[[200, "012"], [200, "/context/20/context/21"], [3, 2]]]
    first, second = servers(result)
    for span, count in ((first, 3), (second, 2)):
        inside = children(result.spans, span)
        assert len(inside) == count
        assert all(span.start <= child.start and child.end <= span.end for child in inside)
        assert (span["http.response.status_code"], span.status) == (200, "unset")
    assert len(result.spans) == 2 + 5


def test_a_client_that_leaves_early_ends_the_span_without_an_error(program: Run) -> None:
    code = (
        STREAM
        + """
body = app(environ("/stream/9"), lambda *a: None)
show(next(iter(body)).decode())
body.close()
show(closed)
body.close()
dropped = iter(app(environ("/stream/8"), lambda *a: None))
next(dropped)
del dropped
import remora
show(remora.status()["spans"]["made"])
"""
    )
    result = program(code)
    assert result.shown[:2] == ["0", [9]]
    spans = servers(result)
    assert [(span.status, span["http.response.status_code"]) for span in spans] == [("unset", 200)] * 2


def test_an_exception_in_mid_stream_is_recorded(program: Run) -> None:
    code = (
        STREAM
        + """
try:
    call("/broken")
except ValueError as error:
    show(str(error))
"""
    )
    result = program(code)
    assert result.shown == ["midway"]
    [span] = servers(result)
    assert (span.status, span["error.type"]) == ("error", "ValueError")
    assert [event.attributes["exception.message"] for event in span.events] == ["midway"]


def test_an_exception_in_mid_stream_leaves_the_error_that_was_answered(program: Run) -> None:
    code = (
        STREAM
        + """
@app.get("/down")
def down():
    return app.response_class(broken().response, status=503)
try:
    call("/down")
except ValueError as error:
    show(str(error))
"""
    )
    result = program(code)
    assert result.shown == ["midway"]
    [span] = servers(result)
    assert (span.status, span["error.type"], span["http.response.status_code"]) == ("error", "503", 503)
    assert [event.attributes["exception.message"] for event in span.events] == ["midway"]


@on_oldest_and_newest
def test_the_body_of_an_unsampled_request_is_made_in_the_caller_s_trace(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = (
        STREAM
        + """
import requests
@app.get("/unsampled")
def unsampled():
    def body():
        requests.get(URL + "/body")
        yield "a"
    return app.response_class(body())
@app.get("/plain")
def plain():
    response = app.make_response("b")
    response.call_on_close(lambda: requests.get(URL + "/close"))
    return response
@app.errorhandler(ZeroDivisionError)
def failed(error): return unsampled(), 503
@app.get("/failing")
def failing(): 1 / 0
caller = "00-" + "1" * 32 + "-" + "2" * 16 + "-00"
show([call(path, HTTP_TRACEPARENT=caller) for path in ("/unsampled", "/plain", "/failing")])
"""
    )
    result = program(code, python=python)
    assert result.shown == [[[200, "a"], [200, "b"], [503, "a"]]]
    assert result.spans == []
    assert upstream.paths() == ["/body", "/close", "/body"]
    assert {(one.trace_id, one.sampled) for one in upstream.received} == {("1" * 32, False)}


def test_a_request_that_its_own_sampler_leaves_out_leaves_out_its_body(program: Run) -> None:
    code = (
        STREAM
        + """
import remora
show(call("/stream/3"))
spans = remora.status()["spans"]
show(spans["made"], spans["sampled_out"])
"""
    )
    env = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.0000000001"}
    assert program(code, env=env).shown == [[200, "012"], [0, 1]]


def test_an_unsampled_body_that_is_ready_reaches_the_server_untouched(program: Run) -> None:
    code = (
        STREAM
        + """
app.get("/plain")(lambda: "x")
caller = {"HTTP_TRACEPARENT": "00-" + "1" * 32 + "-" + "2" * 16 + "-00"}
show([type(app(environ(path, **caller), lambda *a: None)).__name__ for path in ("/plain", "/stream/1")])
"""
    )
    [[plain, stream]] = program(code).shown
    assert plain == "ClosingIterator"
    assert stream != plain


def test_lists_and_files_reach_the_server_untouched(program: Run, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("content")
    code = (
        APP
        + f"""
@app.get("/file")
def file():
    return flask.send_file({str(tmp_path / "file.txt")!r})
@app.get("/list")
def lists():
    return ["a", "b"]
class Wrapper:
    def __init__(self, file, size=8192): self.file = file
    def __iter__(self): return iter(self.file)
    def close(self): self.file.close()
made = []
def function(file, size=8192):
    made.append(Wrapper(file))
    return made[-1]
body = app(environ("/file", **{{"wsgi.file_wrapper": Wrapper}}), lambda *a: None)
show(type(body).__name__, b"".join(body).decode())
body.close()
body = app(environ("/file", **{{"wsgi.file_wrapper": function}}), lambda *a: None)
show(body is made[0], b"".join(body).decode())
body.close()
show(type(app(environ("/file"), lambda *a: None)).__module__)
show(type(app(environ("/list"), lambda *a: None)).__module__)
show(type(app(environ("/list", "HEAD"), lambda *a: None)).__name__, call("/list", "HEAD"))
class Own(flask.Flask):
    def wsgi_app(self, environ, start_response):
        result = super().wsgi_app(environ, start_response)
        self.seen = type(result)
        return [b"other"]
own = Own("own")
own.get("/list")(lambda: "x")
show(call("/list", application=own), own.seen.__module__)
"""
    )
    result = program(code)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    spans = servers(result)
    assert {span["http.response.status_code"] for span in spans} == {200}
    assert [span.name for span in spans][-3:] == ["HEAD /list", "HEAD /list", "GET /list"]


def test_middleware_and_nested_applications_are_one_server_span(program: Run) -> None:
    code = (
        APP
        + """
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
api = flask.Flask("api")
@api.get("/items/<item>")
def item(item): return "api item"
@app.get("/<path:rest>")
def everything(rest):
    env = dict(flask.request.environ, SCRIPT_NAME="/in", PATH_INFO="/items/4")
    return app.response_class(api(env, lambda *a: None), status=202)
mounted = DispatcherMiddleware(app, {"/api": api})
show(call("/api/items/3", application=mounted))
show(call("/other", application=mounted))
app.wsgi_app = ProxyFix(app.wsgi_app)
show(call("/third", HTTP_X_FORWARDED_FOR="203.0.113.9", HTTP_X_FORWARDED_PROTO="https"))
"""
    )
    result = program(code)
    assert result.shown == [[200, "api item"], [202, "api item"], [202, "api item"]]
    spans = servers(result)
    assert [span["http.route"] for span in spans] == [
        "/api/items/<item>",
        "/in/items/<item>",
        "/in/items/<item>",
    ]
    assert [span["http.response.status_code"] for span in spans] == [200, 202, 202]
    assert (spans[2]["client.address"], spans[2]["url.scheme"]) == ("203.0.113.9", "https")
    # What `ProxyFix` has put in its place is no peer.
    assert spans[2]["network.peer.address"] == "192.0.2.7"


def test_a_test_client_inside_a_request_makes_a_child(program: Run) -> None:
    code = (
        APP
        + """
@app.get("/inner")
def inner(): return "inner"
@app.get("/outer")
def outer(): return app.test_client().get("/inner").text
show(call("/outer"))
show(call("/inner"))
"""
    )
    result = program(code)
    assert result.shown == [[200, "inner"], [200, "inner"]]
    outer = one(result.spans, "GET /outer")
    [inner] = children(result.spans, outer)
    assert inner.name == "GET /inner"
    assert [span.parent_id for span in servers(result)] == [None, outer.span_id, None]


def test_a_request_that_the_application_makes_up_leaves_the_one_it_is_in_its_name(program: Run) -> None:
    code = (
        APP
        + """
@app.get("/part/<int:number>")
def part(number): return f"part {number}", 203
@app.get("/batch")
def batch():
    with app.test_request_context("/part/1") as context:
        try: made = app.full_dispatch_request(context)
        except TypeError: made = app.full_dispatch_request()
        return made.get_data()
show(call("/batch"))
"""
    )
    result = program(code)
    assert result.shown == [[200, "part 1"]]
    [span] = result.spans
    assert (span.name, span["http.route"], span["http.response.status_code"]) == ("GET /batch", "/batch", 200)


@pytest.mark.parametrize("extension", ["flask_restx", "flask_restful"])
def test_an_extension_that_answers_for_flask_shows_what_it_answers(program: Run, extension: str) -> None:
    code = (
        APP
        + f"import {extension} as extension"
        + """
import logging
app.logger.setLevel(logging.CRITICAL)
class Coded(Exception):
    code = "f405"
class Item(extension.Resource):
    def get(self, name):
        raise {"boom": ValueError("boom"), "coded": Coded("coded"), "known": LookupError()}.get(name) or flask.abort(503)
api = extension.Api(app, errors={"LookupError": {"message": "none", "status": 404}})
api.add_resource(Item, "/items/<name>")
if extension.__name__ == "flask_restx":
    api.errorhandler(LookupError)(lambda error: ({}, 404))
show([call(f"/items/{name}")[0] for name in ("boom", "coded", "known", "down")])
"""
    )
    result = program(code)
    assert result.shown == [[500, 500, 404, 503]]
    spans = servers(result)
    assert {span["http.route"] for span in spans} == {"/items/<name>"}
    messages = [[event.attributes["exception.message"] for event in span.events] for span in spans]
    assert messages == [["boom"], ["coded"], [], []]


def test_a_thread_started_by_a_request_serves_others_in_their_own_traces(program: Run) -> None:
    code = (
        APP
        + """
import queue, threading
work, done = queue.Queue(), queue.Queue()
def server():
    while (path := work.get()):
        done.put(call(path))
@app.get("/first")
def first():
    threading.Thread(target=server, daemon=True).start()
    return "first"
@app.get("/later")
def later(): return "later"
show(call("/first"))
for _ in range(3):
    work.put("/later")
    show(done.get(timeout=10))
work.put(None)
"""
    )
    spans = servers(program(code))
    assert len(spans) == 4
    assert len({span.trace_id for span in spans}) == 4


def test_a_pool_of_threads_that_a_request_has_made_serves_others_in_their_own_traces(program: Run) -> None:
    code = (
        APP
        + """
import functools, sqlite3
from multiprocessing.pool import Pool, ThreadPool
@functools.cache
def pool(): return ThreadPool(2)
def ask(number):
    sqlite3.connect(":memory:").execute(f"select 1 as n{number}")
    return number
class Unsized:
    def __init__(self, number): self.number = number
    def __call__(self, number): return ask(number) + self.number
@app.get("/<int:number>")
def view(number):
    made = [pool().apply(ask, (number,)), *pool().map(ask, [number]), *pool().starmap(ask, [(number,)])]
    made += [*pool().imap(Unsized(1), [number]), *pool().imap_unordered(ask, iterable=[number], chunksize=2)]
    made.append(pool().apply_async(func=ask, args=(number,)).get())
    return str(made)
show(call("/1"), call("/2"))
show(pool().map(ask, [3]))
with Pool(1) as processes:
    show(processes.map(abs, [-4]), list(processes.imap(abs, [-5])))
"""
    )
    result = program(code)
    shown = [[[200, f"[{n}, {n}, {n}, {n + 1}, {n}, {n}]"] for n in (1, 2)], [3], [[4], [5]]]
    assert result.shown == shown
    first, second = servers(result)
    for number, span in enumerate((first, second), 1):
        texts = [child["db.query.text"] for child in children(result.spans, span)]
        assert texts == [f"select ? as n{number}"] * 6
    assert one(result.spans, parent_id=None, kind="client")["db.query.text"] == "select ? as n3"


def test_async_views_are_the_parents_of_what_they_do(program: Run) -> None:
    pytest.importorskip("asgiref", reason="asgiref is not installed: no async views")
    code = (
        APP
        + """
import asyncio, sqlite3
@app.get("/async")
async def view():
    await asyncio.sleep(0)
    sqlite3.connect(":memory:").execute("select 1")
    return "async"
show(call("/async"))
"""
    )
    result = program(code)
    assert result.shown == [[200, "async"]]
    [server] = servers(result)
    [query] = children(result.spans, server)
    assert query.scope == "remora.sqlite3"
    assert server["http.route"] == "/async"


def test_nothing_of_a_request_is_kept_alive(program: Run) -> None:
    code = (
        APP
        + """
import gc, logging, weakref
logging.disable(logging.CRITICAL)
class Environ(dict): pass
class Stream(io.BytesIO): pass
class Response(flask.Response): pass
app.response_class = Response
kept = []
@app.get("/<kind>")
def view(kind):
    kept.append(weakref.ref(flask.request._get_current_object()))
    if kind == "broken":
        raise ValueError("x" )
    response = Response(["x"] if kind == "plain" else iter("xy"))
    kept.append(weakref.ref(response))
    return response
for kind in ("plain", "streamed", "broken"):
    env = Environ(environ("/" + kind, **{"wsgi.input": Stream()}))
    kept += [weakref.ref(env), weakref.ref(env["wsgi.input"])]
    body = app(env, lambda *a: None)
    list(body)
    body.close()
    del body, env
gc.collect()
show(len(kept), [type(one()).__name__ for one in kept if one() is not None])
"""
    )
    result = program(code)
    assert result.shown == [[11, []]]


def test_nothing_is_made_where_nothing_is_sampled(program: Run) -> None:
    code = (
        APP
        + """
import sqlite3, remora, requests
@app.get("/")
def view():
    sqlite3.connect(":memory:").execute("select 1")
    requests.get(URL + "/inner")
    return "x"
show(call())
spans = remora.status()["spans"]
show(spans["made"], spans["sampled_out"])
"""
    )
    # Where no trace can begin, each call is one that did not.
    for sampler, left_out in (("parentbased_always_off", 3), ("parentbased_traceidratio", 1)):
        env = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0.0000000001"}
        result = program(code, env=env)
        assert result.shown == [[200, "x"], [0, left_out]]
        assert result.spans == []


def test_a_request_of_which_nothing_can_be_seen_has_no_span_at_all(program: Run) -> None:
    code = (
        APP
        + """
import remora
app.get("/")(lambda: str(remora.current_trace_id()))
show(call()[1] != "None", call(HTTP_TRACEPARENT="00-" + "1" * 32 + "-" + "2" * 16 + "-00")[1])
show(call(HTTP_BAGGAGE="a=b")[1] != "None")
"""
    )
    off = {"OTEL_TRACES_SAMPLER": "always_off"}
    assert program(code, env=off).shown == [[False, "1" * 32], True]
    # A log record would show it.
    assert program(code, env={**off, "OTEL_PYTHON_LOG_CORRELATION": "true"}).shown == [[True, "1" * 32], True]


@on_oldest_and_newest
def test_a_module_imported_before_activation_gives_the_same_spans(program: Run, python: Python) -> None:
    code = (
        APP
        + """
app.get("/x/<y>")(lambda y: y)
import remora
remora.init()
show(call("/x/1"))
import inspect
show([str(inspect.signature(getattr(flask.Flask, name)))
      for name in ("wsgi_app", "full_dispatch_request", "handle_exception")])
"""
    )
    early = program(code, env={"REMORA_ENABLED": None}, python=python)
    before = [(span.name, span.attributes) for span in servers(early)]
    late = program(code, python=python)
    assert late.shown == early.shown
    assert [(span.name, span.attributes) for span in servers(late)[1:]] == before
    assert len(before) == 1


def test_a_disabled_library_is_left_alone(program: Run) -> None:
    code = (
        APP
        + """
app.get("/")(lambda: "x")
show(call())
import remora
show(remora.status()["hooks"]["flask"]["state"], type(flask.Flask.wsgi_app).__name__)
"""
    )
    result = program(code, env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask"})
    assert result.shown == [[200, "x"], ["disabled", "function"]]
    assert result.spans == []


def test_a_release_without_an_expected_attribute_is_one_line_and_runs(program: Run, tmp_path: Path) -> None:
    (tmp_path / "flask").mkdir()
    (tmp_path / "flask" / "__init__.py").write_text("from flask.app import Flask\n")
    (tmp_path / "flask" / "app.py").write_text(
        "class Flask:\n"
        "    def wsgi_app(self, environ, start_response):\n"
        "        start_response('200 OK', [])\n"
        "        return [b'old']\n"
        "    def full_dispatch_request(self): pass\n"
    )
    code = f"""
        sys.path.insert(0, {str(tmp_path)!r})
        import flask, remora
        environ = {{"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}}
        show(flask.Flask().wsgi_app(environ, lambda *a: None)[0].decode())
        hook = remora.status()["hooks"]["flask"]
        show(hook["state"], [target["state"] for target in hook["targets"][:3]])
    """
    result = program(code, quiet=False)
    assert result.shown == ["old", ["missing", ["applied", "applied", "missing"]]]
    [line] = result.agent_lines
    assert "flask" in line
    assert "Flask.handle_exception" in line
    assert result.stderr.splitlines() == [line]
    [span] = servers(result)
    assert (span.name, span["url.path"]) == ("GET", "/x")
