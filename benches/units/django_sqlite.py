"""A Django request with one sqlite query, by a direct call of the WSGI handler."""

import io
import sys

import django
from django.conf import settings
from django.db import connection
from django.http import JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="bench",
)
django.setup()

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402  wants the settings

with connection.cursor() as cursor:
    cursor.execute("create table item (id integer primary key, name text)")
    cursor.executemany("insert into item values (%s, %s)", [(i, f"item {i}") for i in range(100)])


def item(request, item):
    with connection.cursor() as cursor:
        cursor.execute("select name from item where id = %s", (item,))
        return JsonResponse({"id": item, "name": cursor.fetchone()[0]})


urlpatterns = [path("items/<int:item>", item)]
app = WSGIHandler()


def environ():
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/items/7",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "HTTP_HOST": "127.0.0.1:8000",
        "HTTP_USER_AGENT": "bench/1.0",
        "HTTP_ACCEPT": "*/*",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def start_response(status, headers, exc_info=None):
    if status != "200 OK":
        raise RuntimeError(status)


def run(n):
    for _ in range(n):
        body = app(environ(), start_response)
        for _ in body:
            pass
        body.close()


if __name__ == "__main__":
    import loop

    loop.main(run)
