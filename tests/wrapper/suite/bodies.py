"""Streamed response bodies, as a WSGI server handles them."""

import collections
import gc
import io
import weakref

import flask
from remora import current_span_id, span
from werkzeug.test import create_environ

from _spans import made

app = flask.Flask("bodies")
steps = []


def stream(pieces, error=None):
    try:
        for piece in pieces:
            steps.append(current_span_id())
            with span("piece"):
                pass
            yield piece
        if error:
            raise error
    finally:
        steps.append(("closed", current_span_id()))


@app.route("/stream")
def streaming():
    return flask.Response(stream([b"a", b"b", b"c"]))


@app.route("/broken")
def broken():
    return flask.Response(stream([b"a"], ValueError("in the body")))


@app.route("/with")
def with_close():
    response = flask.Response(stream([b"a"]))
    response.call_on_close(lambda: steps.append(("called", current_span_id())))
    return response


def body_of(path):
    steps.clear()
    heads = []
    body = app.wsgi_app(create_environ(path), lambda status, headers, error=None: heads.append(status))
    return body


def server_spans():
    return [one for one in made() if one.kind == 2]


def test_the_span_is_in_force_while_a_piece_is_made_and_ends_with_close():
    body = body_of("/stream")
    assert current_span_id() is None
    assert iter(body) is body
    pieces = []
    for piece in body:
        pieces.append(piece)
        assert current_span_id() is None
    assert pieces == [b"a", b"b", b"c"]
    assert server_spans() == []
    body.close()
    (one,) = server_spans()
    ids = {step if isinstance(step, str) else step[1] for step in steps}
    assert ids == {one.id}
    assert not one.failed


def test_a_body_left_half_way_ends_at_close():
    body = body_of("/stream")
    assert next(iter(body)) == b"a"
    body.close()
    (one,) = server_spans()
    assert steps[-1] == ("closed", one.id)


def test_a_body_thrown_away_ends_its_span():
    body = body_of("/stream")
    next(body)
    reference = weakref.ref(body)
    del body
    gc.collect()
    assert reference() is None
    (one,) = server_spans()
    assert steps[-1] == ("closed", one.id)


def test_an_exception_in_the_body_is_recorded_and_passes():
    body = body_of("/broken")
    assert next(body) == b"a"
    try:
        next(body)
    except ValueError as error:
        assert str(error) == "in the body"
    else:
        raise AssertionError
    body.close()
    (one,) = server_spans()
    assert one.failed
    assert one.events[0][1]["exception.message"] == "in the body"


def test_callbacks_at_close_run_in_the_span_and_once():
    body = body_of("/with")
    assert b"".join(body) == b"a"
    body.close()
    (one,) = server_spans()
    assert ("called", one.id) in steps
    assert len([step for step in steps if step[0] == "called"]) == 1


def test_the_body_answers_as_the_one_inside():
    body = body_of("/stream")
    assert "ClosingIterator" in repr(body)
    assert body.__class__.__name__ == "ClosingIterator"
    assert isinstance(body, body.__class__)
    assert not hasattr(body, "__len__")
    assert not hasattr(body, "no_such_attribute")
    body.close()
    made()


class Sized(flask.Response):
    """A streamed response whose body says how many pieces it has."""

    def __call__(self, environ, start_response):
        start_response("200 OK", [])
        return collections.deque([b"a", b"b"])


@app.route("/sized")
def sized():
    return Sized(stream([b"not this"]))


def test_a_body_that_has_a_length_keeps_it():
    body = body_of("/sized")
    assert type(body) is not collections.deque
    assert len(body) == 2
    assert b"".join(body) == b"ab"
    body.close()
    made()


def test_a_server_sends_it():
    from wsgiref.handlers import SimpleHandler

    out = io.BytesIO()
    handler = SimpleHandler(io.BytesIO(), out, io.StringIO(), create_environ("/stream"), multithread=False)
    handler.run(app.wsgi_app)
    assert out.getvalue().endswith(b"abc")
    (one,) = server_spans()
    assert not one.failed
