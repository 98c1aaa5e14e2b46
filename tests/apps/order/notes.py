"""The notes, aiohttp's own server: pymongo."""

import os
from collections.abc import AsyncIterator

import pymongo
from aiohttp import web

CLIENT = web.AppKey("client", pymongo.AsyncMongoClient)


async def client(app: web.Application) -> AsyncIterator[None]:
    app[CLIENT] = pymongo.AsyncMongoClient(os.environ["MONGODB"])
    yield
    # It is not closed: that would be a command more.


async def note(request: web.Request) -> web.Response:
    found = await request.app[CLIENT].shop.notes.find_one({"item": request.match_info["item"]})
    return web.Response(text=str(found))


if __name__ == "__main__":
    app = web.Application()
    app.cleanup_ctx.append(client)
    app.router.add_get("/notes/{item}", note)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]))
