"""What the spans of the libraries have in common."""

from typing import Any

from .conftest import Upstream


def of_server(path: str, route: str) -> dict[str, Any]:
    """Of the request `GET {path}?sig=secret&b=c` that the programs' `call` sends, answered with 200."""
    return {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": route,
        "url.path": path,
        "url.query": "sig=REDACTED&b=c",
        "url.scheme": "http",
        "server.address": "shop.test",
        "server.port": 8000,
        "client.address": "192.0.2.7",
        "network.peer.address": "192.0.2.7",
        "network.peer.port": 4711,
        "network.protocol.version": "1.1",
        "user_agent.original": "tests/1.0",
    }


def of_client(upstream: Upstream, path: str) -> dict[str, Any]:
    """Of a GET request that `upstream` has answered with 200."""
    return {
        "http.request.method": "GET",
        "url.full": f"{upstream.url}{path}",
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "network.peer.address": "127.0.0.1",
        "network.peer.port": upstream.port,
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }
