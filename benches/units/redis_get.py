"""redis-py `GET` on loopback."""

import os

import loop
import redis

client = redis.Redis(host="127.0.0.1", port=int(os.environ["BENCH_REDIS"]))
client.set("key", "value")


def run(n):
    for _ in range(n):
        client.get("key")


loop.main(run)
