"""aiohttp client on a kept connection; BENCH_HEADER=1 sends one constant header as well."""

import asyncio

import aiohttp
import loop

URL = loop.UPSTREAM
HEADERS = loop.HEADERS


async def open_session():
    return aiohttp.ClientSession()


async def calls(n):
    for _ in range(n):
        async with session.get(URL, headers=HEADERS) as response:
            await response.read()


runner = asyncio.Runner()
session = runner.run(open_session())
loop.main(lambda n: runner.run(calls(n)))
runner.run(session.close())
