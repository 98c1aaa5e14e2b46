"""Programs that use aiohttp's client and server: an application on a free port of the program itself."""

from support.otlp import Span, find
from support.process import Result

# `serve(work)` runs `work(session, url)`, a coroutine, against `app`; `base` is a session's base URL.
APP = """
import asyncio, aiohttp, logging, remora
from aiohttp import web
logging.getLogger("aiohttp.server").addHandler(logging.NullHandler())
logging.getLogger("aiohttp.server").propagate = False
app = web.Application()
routes = web.RouteTableDef()

@routes.get("/echo")
async def echo(request):
    return web.json_response({name.lower(): value for name, value in request.headers.items()})

@routes.get("/hop/{left}")
async def hop(request):
    left = int(request.match_info["left"])
    if left:
        raise web.HTTPFound(f"/hop/{left - 1}")
    return web.Response(text="done")

@routes.get("/code/{code}")
async def code(request):
    return web.Response(status=int(request.match_info["code"]), text="x")

def serve(work, **options):
    async def main():
        app.router.add_routes(routes)
        runner = web.AppRunner(app, **options)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = "http://127.0.0.1:%d" % site._server.sockets[0].getsockname()[1]
        try:
            async with aiohttp.ClientSession() as session:
                return await work(session, url)
        finally:
            await runner.cleanup()
    return asyncio.run(main())
"""


def servers(result: Result) -> list[Span]:
    """Server spans in order."""
    return find(result.spans, kind="server", scope="remora.aiohttp-server")


def clients(result: Result) -> list[Span]:
    """Client spans in order."""
    return find(result.spans, kind="client", scope="remora.aiohttp-client")
