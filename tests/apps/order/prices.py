"""The prices, Django under gunicorn: psycopg, SQLAlchemy over it, and urllib3 to what calculates."""

import os

import django
import psycopg
import sqlalchemy
import urllib3
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path


def price(request, item):
    with psycopg.connect(os.environ["DATABASE"]) as database:
        [net] = database.execute("select 40").fetchone()
    engine = sqlalchemy.create_engine(os.environ["DATABASE"].replace("postgresql", "postgresql+psycopg"))
    with engine.connect() as connection:
        currency = connection.execute(sqlalchemy.text("select 'EUR'")).scalar()
    engine.dispose()
    http = urllib3.PoolManager()
    tax = http.request("GET", f"{os.environ['TAXES']}/taxes").data
    rate = http.request("GET", f"{os.environ['RATES']}/rates").data
    return JsonResponse({"item": item, "price": net + int(tax) + int(rate), "currency": currency})


urlpatterns = [path("prices/<item>", price)]
settings.configure(SECRET_KEY="tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
django.setup()
app = get_wsgi_application()
