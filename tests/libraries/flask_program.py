"""The application that the tests of Flask send requests into."""

from support.otlp import Span, find
from support.process import Result

from .wsgi_program import ENVIRON

# `call(path, …)` sends one request straight into `app` and gives status and body.
APP = (
    ENVIRON
    + """
import flask
app = flask.Flask("tested")

def call(path="/", method="GET", application=None, **more):
    return exchange(application or app, environ(path, method, **more))
"""
)


def servers(result: Result) -> list[Span]:
    """Their spans in order."""
    return find(result.spans, kind="server", scope="remora.flask")
