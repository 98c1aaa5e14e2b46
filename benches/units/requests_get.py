"""`requests.get` on loopback; BENCH_HEADER=1 sends one constant header of traceparent's size as well."""

import loop
import requests

URL = loop.UPSTREAM
HEADERS = loop.HEADERS


def run(n):
    for _ in range(n):
        requests.get(URL, headers=HEADERS)


loop.main(run)
