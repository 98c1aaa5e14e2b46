"""Django: responses that are streamed, files, and what is kept of either."""

from collections.abc import Callable
from pathlib import Path

from support.otlp import children
from support.pythons import Python, on_oldest_and_newest

from .conftest import Program
from .django_program import APP, STREAM, selects, servers

Run = Callable[..., Program]


@on_oldest_and_newest
def test_a_streamed_response_is_returned_itself_and_its_span_ends_at_close(
    program: Run, python: Python
) -> None:
    code = (
        STREAM
        + """
import remora
before = remora.status()["spans"]["made"]
def finished(): return remora.status()["spans"]["made"] - before
body = handler()(environ("/stream/3"), lambda *a: None)
show(type(body) is StreamingHttpResponse, body.status_code, finished())
show(b"".join(body).decode(), finished())
body.close()
show(finished())
body.close()
body = handler()(environ("/stream/9"), lambda *a: None)
show(next(iter(body)).decode())
body.close()
dropped = handler()(environ("/stream/8"), lambda *a: None)
next(iter(dropped))
del dropped
try:
    call("/failing")
except ValueError as error:
    show(str(error))
show(finished())
query()
"""
    )
    result = program(code, python=python)
    assert result.shown == [[True, 200, 0], ["012", 3], 4, "0", "midway", 9]
    first, left, dropped, failing = servers(result)
    inside = children(result.spans, first)
    assert len(inside) == 3
    assert all(first.start <= child.start and child.end <= first.end for child in inside)
    assert [len(selects(result, span)) for span in (left, dropped, failing)] == [1, 1, 0]
    assert [span.status for span in (first, left, dropped, failing)] == ["unset"] * 3 + ["error"]
    assert failing["error.type"] == "ValueError"
    assert [event.attributes["exception.message"] for event in failing.events] == ["midway"]
    assert result.spans[-1].parent_id is None


def test_files_reach_the_server_untouched(program: Run, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("content")
    code = (
        APP
        + f"""
url("file", lambda request: FileResponse(open({str(tmp_path / "file.txt")!r}, "rb")))
class Wrapper:
    def __init__(self, file, size=8192): self.file = file
    def __iter__(self): return iter(self.file)
    def close(self): self.file.close()
made_of = []
def function(file, size=8192):
    made_of.append(Wrapper(file))
    return made_of[-1]
body = handler()(environ("/file", **{{"wsgi.file_wrapper": function}}), lambda *a: None)
show(body is made_of[0], b"".join(body).decode())
body.close()
show(call("/file"), call("/file", "HEAD"))
"""
    )
    result = program(code)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    assert [span["http.response.status_code"] for span in servers(result)] == [200] * 3


def test_nothing_of_a_request_is_kept_alive(program: Run) -> None:
    code = (
        STREAM
        + """
import gc, weakref
from django.core.handlers.wsgi import WSGIRequest
class Stream(io.BytesIO): pass
class Request(WSGIRequest):
    def __init__(self, *args):
        super().__init__(*args)
        kept.append(weakref.ref(self))
handler().request_class = Request
kept = []
url("plain", query)
url("broken", lambda request: 1 / 0)
for path in ("/plain", "/stream/2", "/broken"):
    env = environ(path, **{"wsgi.input": Stream()})
    body = handler()(env, lambda *a: None)
    kept += [weakref.ref(env["wsgi.input"]), weakref.ref(body)]
    list(body)
    body.close()
    del body, env
gc.collect()
show(len(kept), [type(one()).__name__ for one in kept if one() is not None])
"""
    )
    assert program(code).shown == [[9, []]]


def test_nothing_is_made_where_nothing_is_sampled_and_the_context_goes_on(program: Run) -> None:
    code = (
        STREAM
        + """
import remora, requests
before = remora.status()["spans"]["sampled_out"]
def view(request):
    requests.get(URL + "/inner")
    return query()
url("", view)
show(call(), call("/stream/2"))
spans = remora.status()["spans"]
show(spans["made"], spans["sampled_out"] - before)
"""
    )
    # Where no trace can begin, each call is one that did not.
    for sampler, left_out in (("parentbased_always_off", 8), ("parentbased_traceidratio", 2)):
        env = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0.0000000001"}
        result = program(code, env=env)
        assert result.shown == [[[200, "1"], [200, "01"]], [0, left_out]]
        assert result.spans == []
