"""`urllib3` pool request on a kept connection; BENCH_HEADER=1 sends one constant header as well."""

import loop
import urllib3

URL = loop.UPSTREAM
HEADERS = loop.HEADERS
pool = urllib3.PoolManager()


def run(n):
    for _ in range(n):
        pool.request("GET", URL, headers=HEADERS)


loop.main(run)
