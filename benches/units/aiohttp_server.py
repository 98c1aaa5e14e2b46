"""An aiohttp server's request on a kept loopback connection; the other end is a few lines of asyncio."""

import asyncio

import loop
from aiohttp import web

REQUEST = b"GET /items/7 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n"


async def item(request):
    return web.json_response({"id": request.match_info["item"]})


async def connect():
    app = web.Application()
    app.router.add_get("/items/{item}", item)
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    return server, await asyncio.open_connection(*site._server.sockets[0].getsockname())


async def calls(n):
    for _ in range(n):
        writer.write(REQUEST)
        head = await reader.readuntil(b'"}')
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head)


runner = asyncio.Runner()
server, (reader, writer) = runner.run(connect())
loop.main(lambda n: runner.run(calls(n)))
writer.close()
runner.run(server.cleanup())
