"""The application that the tests of Django send requests into."""

from support.otlp import Span, children, find
from support.process import Result

from .wsgi_program import ENVIRON

# Settings come from the variable `SETTINGS`, JSON over the defaults; `url(pattern, view)` and `regex(pattern, view)`
# add routes; `handler()` is a WSGI handler; `call(path, …)` sends one request straight into it.
APP = (
    ENVIRON
    + """
import json, os, sys
import django
from django.conf import settings
urlpatterns = []
OPTIONS = {
    "SECRET_KEY": "tests", "ALLOWED_HOSTS": ["*"], "ROOT_URLCONF": "__main__", "MIDDLEWARE": [],
    "DEBUG": False, "USE_TZ": True, "DEFAULT_AUTO_FIELD": "django.db.models.AutoField",
    "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    "LOGGING_CONFIG": None,
    **json.loads(os.environ.get("SETTINGS", "{}")),
}
settings.configure(**OPTIONS)
django.setup()
import logging
logging.disable(logging.CRITICAL)
from django.db import connection
from django.http import FileResponse, Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import include, path, re_path

def url(pattern, view, **more):
    urlpatterns.append(path(pattern, view, **more))

def regex(pattern, view):
    urlpatterns.append(re_path(pattern, view))

HANDLERS = []
def handler():
    from django.core.handlers.wsgi import WSGIHandler
    if not HANDLERS:
        HANDLERS.append(WSGIHandler())
    return HANDLERS[0]

def call(path="/", method="GET", application=None, **more):
    return exchange(application or handler(), environ(path, method, **more))

# A new connection is set up by statements of its own.
connection.ensure_connection()

def query(request=None, *args, **kwargs):
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        return HttpResponse(str(cursor.fetchone()[0]))
"""
)

# `stream/N`: N pieces, each with a query; `failing`: raises after the first.
STREAM = (
    APP
    + """
closed = []
def pieces(count):
    try:
        for n in range(count):
            query()
            yield f"{n}"
    finally:
        closed.append(count)
def stream(request, count): return StreamingHttpResponse(pieces(count))
def failing(request):
    def body():
        yield "a"
        raise ValueError("midway")
    return StreamingHttpResponse(body())
url("stream/<int:count>", stream)
url("failing", failing)
"""
)


def servers(result: Result) -> list[Span]:
    """Their spans in order."""
    return find(result.spans, kind="server", scope="remora.django")


def selects(result: Result, of: Span) -> list[Span]:
    """The queries below a span; not those that set up a thread's connection."""
    return [
        span for span in children(result.spans, of) if span.get("db.query.text") in ("select ?", "select 2")
    ]
