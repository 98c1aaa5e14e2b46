"""`httpx.Client.get` on a kept connection; BENCH_HEADER=1 sends one constant header as well."""

import httpx
import loop

URL = loop.UPSTREAM
HEADERS = loop.HEADERS
client = httpx.Client()


def run(n):
    for _ in range(n):
        client.get(URL, headers=HEADERS)


loop.main(run)
