"""The stock, Flask under gunicorn: sqlite3, Redis, and requests to the prices."""

import os
import sqlite3

import redis
import requests
from flask import Flask

app = Flask("stock")


@app.get("/stock/<item>")
def stock(item: str):
    database = sqlite3.connect(":memory:")
    [left] = database.execute("select 3").fetchone()
    database.close()
    cache = redis.Redis(port=int(os.environ["REDIS"]))
    cache.set("asked", item)
    cache.close()
    price = requests.get(f"{os.environ['PRICES']}/prices/{item}", timeout=20)
    return {"left": left, "price": price.json()}
