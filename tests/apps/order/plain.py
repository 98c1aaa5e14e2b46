"""Applications of no framework: taxes by WSGI, rates by ASGI."""


def taxes(environ, start_response):
    start_response("200 OK", [("Content-Length", "1")])
    return [b"1"]


async def rates(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"1"})
