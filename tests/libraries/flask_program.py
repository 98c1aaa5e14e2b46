"""The application that the tests of Flask send requests into."""

from support.otlp import Span, find
from support.process import Result

# `call(path, …)` sends one request straight into `app` and gives status, body and the body object.
APP = """
import flask, io
app = flask.Flask("tested")

def environ(path="/", method="GET", **more):
    env = {
        "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
        "SERVER_NAME": "server.test", "SERVER_PORT": "8080", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "shop.test:8000", "REMOTE_ADDR": "192.0.2.7", "REMOTE_PORT": "4711",
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    env.update(more)
    return {name: value for name, value in env.items() if value is not None}

def call(path="/", method="GET", application=None, **more):
    statuses = []
    body = (application or app)(environ(path, method, **more), lambda status, *a: statuses.append(status))
    text = b"".join(body).decode()
    if hasattr(body, "close"):
        body.close()
    return int(statuses[-1].split()[0]), text
"""


def servers(result: Result) -> list[Span]:
    """Their spans in order."""
    return find(result.spans, kind="server", scope="remora.flask")
