"""A Django request with one sqlite query, by a direct call of the WSGI handler."""

import django
from django.conf import settings
from django.db import connection
from django.http import JsonResponse
from django.urls import path
from wsgi_request import send

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


def run(n):
    send(app, n)


if __name__ == "__main__":
    import loop

    loop.main(run)
