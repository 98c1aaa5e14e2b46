"""What holds for each library alike."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.otlp import find
from support.pythons import Python, on, on_oldest_and_newest

from .conftest import Program

Run = Callable[..., Program]


@dataclass(frozen=True)
class Library:
    """`use` makes one span of `scope`, with names that `names` imports; `wrapped` are its attributes."""

    name: str
    names: str
    use: str
    wrapped: tuple[str, ...]

    @property
    def scope(self) -> str:
        return f"remora.{self.name}"

    @property
    def module(self) -> str:
        """What is imported: one package may be two libraries."""
        return self.name.partition("-")[0]

    def __str__(self) -> str:
        return self.name


ASGI_CALL = """
import asyncio
async def receive(): return {"type": "http.request", "body": b"", "more_body": False}
async def send(message):
    if "status" in message:
        show(message["status"])
scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "root_path": ""}
asyncio.run(app(scope, receive, send))
"""
AIOHTTP_CLIENT = Library(
    "aiohttp-client",
    "ClientSession",
    """
async def use():
    async with ClientSession() as session, session.get(URL) as response:
        show(response.status)
import asyncio
asyncio.run(use())
""",
    (
        "aiohttp.client:ClientSession._request",
        "aiohttp.client_reqrep:ClientRequest.send",
    ),
)
AIOHTTP_SERVER = Library(
    "aiohttp-server",
    "web",
    """
from aiohttp.test_utils import make_mocked_request
async def use():
    async def view(request):
        return web.Response(status=200)
    app = web.Application()
    app.router.add_get("/", view)
    app.freeze()
    response = await app._handle(make_mocked_request("GET", "/"))
    show(response.status)
import asyncio
asyncio.run(use())
""",
    (
        "aiohttp.web_app:Application._handle",
        "aiohttp.web_response:StreamResponse.prepare",
    ),
)
DJANGO = Library(
    "django",
    "setup",
    """
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
if not settings.configured:
    urls = (path("", lambda request: HttpResponse("x")),)
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=urls, MIDDLEWARE=[], LOGGING_CONFIG=None)
    setup()
from django.core.handlers.wsgi import WSGIHandler
from django.test import RequestFactory
show(WSGIHandler()(RequestFactory().get("/").environ, lambda *a: None).status_code)
""",
    (
        "django.core.handlers.wsgi:WSGIHandler.__call__",
        "django.core.handlers.asgi:ASGIHandler.__call__",
        "django.core.handlers.base:BaseHandler.get_response",
        "django.core.handlers.base:BaseHandler.get_response_async",
        "django.core.handlers.base:BaseHandler.resolve_request",
        "django.http.response:HttpResponseBase.close",
        "django.http.response:StreamingHttpResponse.__iter__",
        "django.db.backends.utils:CursorWrapper._execute",
        "django.db.backends.utils:CursorWrapper._executemany",
    ),
)
FASTAPI = Library(
    "fastapi",
    "FastAPI",
    'app = FastAPI()\napp.get("/")(lambda: "x")' + ASGI_CALL,
    ("fastapi.applications:Starlette.__call__", "fastapi.routing:APIRoute.handle"),
)
FLASK = Library(
    "flask",
    "Flask",
    """
app = Flask("x")
app.get("/")(lambda: "x")
show(app.test_client().get("/").status_code)
""",
    ("flask.app:Flask.wsgi_app", "flask.app:Flask.full_dispatch_request", "flask.app:Flask.handle_exception"),
)
HTTPX = Library(
    "httpx",
    "get",
    "show(get(URL).status_code)",
    tuple(
        f"httpx._client:{owner}.{name}"
        for owner in ("Client", "AsyncClient")
        for name in ("_send_handling_redirects", "_send_single_request")
    ),
)
KAFKA = Library(
    "kafka",
    "KafkaProducer",
    # Fails before it needs a broker.
    """
try:
    KafkaProducer.send(None, "topic", b"value")
except AttributeError:
    show(200)
""",
    (
        "kafka.producer.kafka:KafkaProducer.send",
        "kafka.consumer.group:KafkaConsumer.poll",
        "kafka.consumer.group:KafkaConsumer.__next__",
        "kafka.consumer.group:KafkaConsumer.close",
    ),
)
PYMONGO = Library(
    "pymongo",
    "monitoring",
    """
import datetime
told = monitoring._EventListeners([])
if told.enabled_for_commands:
    told.publish_command_start({"find": "users"}, "shop", 1, ("127.0.0.1", 27017), 1)
    told.publish_command_success(datetime.timedelta(0), {"ok": 1}, "find", 1, ("127.0.0.1", 27017), 1)
show(200)
""",
    (
        *(
            f"pymongo.monitoring:_EventListeners.publish_command_{event}"
            for event in ("start", "success", "failure")
        ),
        "pymongo.synchronous.pool:Connection._raise_connection_failure",
        "pymongo.asynchronous.pool:AsyncConnection._raise_connection_failure",
    ),
)


def redis_library(package: str, client: str, more: tuple[str, ...]) -> Library:
    """redis-py, or the fork of it, which differs by its names."""
    return Library(
        package,
        client,
        # Nobody listens there: the call is a span all the same.
        f"""
try:
    {client}(port=1).get("x")
except OSError:
    pass
except Exception as error:
    show(200 if type(error).__name__ == "ConnectionError" else repr(error))
""",
        (
            f"{package}.client:{client}.execute_command",
            f"{package}.client:Pipeline.execute",
            f"{package}.client:Pipeline.immediate_execute_command",
            f"{package}.asyncio.client:{client}.execute_command",
            f"{package}.asyncio.client:Pipeline.execute",
            f"{package}.asyncio.client:Pipeline.immediate_execute_command",
            f"{package}.cluster:{client}Cluster.execute_command",
            f"{package}.cluster:{client}Cluster._execute_command",
            f"{package}.cluster:ClusterPipeline.execute",
            f"{package}.cluster:NodeCommands.__init__",
            f"{package}.asyncio.cluster:{client}Cluster.execute_command",
            f"{package}.asyncio.cluster:{client}Cluster._execute_command",
            f"{package}.asyncio.cluster:ClusterNode.execute_pipeline",
            f"{package}.asyncio.cluster:ClusterPipeline.execute",
            *more,
        ),
    )


REDIS = redis_library(
    "redis",
    "Redis",
    (
        "redis.cluster:TransactionStrategy._immediate_execute_command",
        "redis.cluster:TransactionStrategy._get_client_and_connection_for_transaction",
        "redis.asyncio.cluster:TransactionStrategy._immediate_execute_command",
        "redis.asyncio.cluster:TransactionStrategy._get_client_and_connection_for_transaction",
        "redis.connection:CacheProxyConnection.send_command",
        "redis.cache:CacheEntry.__init__",
    ),
)
VALKEY = redis_library("valkey", "Valkey", ("valkey._cache:_LocalCache.get",))
REQUESTS = Library(
    "requests",
    "get",
    "show(get(URL).status_code)",
    (
        "requests.sessions:Session.send",
        "requests.adapters:HTTPAdapter.send",
    ),
)
SQLALCHEMY = Library(
    "sqlalchemy",
    "create_engine",
    'show(create_engine("sqlite://").connect().exec_driver_sql("select 200").scalar())',
    (
        *(
            f"sqlalchemy.engine.default:DefaultDialect.{name}"
            for name in ("do_execute", "do_executemany", "do_execute_no_params", "initialize", "do_ping")
        ),
        "sqlalchemy.sql.compiler:SQLCompiler.render_literal_value",
    ),
)
SQLITE3 = Library(
    "sqlite3",
    "connect",
    'show(connect(":memory:").execute("select 200").fetchone()[0])',
    (
        *(f"sqlite3:Cursor.{name}" for name in ("execute", "executemany", "executescript")),
        *(f"sqlite3:Connection.{name}" for name in ("__init__", "execute", "executemany")),
    ),
)
STARLETTE = Library(
    "starlette",
    "applications, responses, routing",
    'app = applications.Starlette(routes=[routing.Route("/", lambda request: responses.Response())])'
    + ASGI_CALL,
    (
        "starlette.applications:Starlette.__call__",
        "starlette.routing:Route.handle",
        "starlette.routing:WebSocketRoute.handle",
        "starlette.background:BackgroundTask.__call__",
    ),
)
URLLIB3 = Library(
    "urllib3",
    "PoolManager",
    "show(PoolManager().request('GET', URL).status)",
    ("urllib3.connectionpool:HTTPConnectionPool._make_request",),
)
LIBRARIES = [value for value in list(globals().values()) if isinstance(value, Library)]
each_library = pytest.mark.parametrize("library", LIBRARIES, ids=str)


@each_library
@on("3.15")
def test_a_lazy_import_stays_lazy_until_its_first_use_which_is_traced(
    program: Run, library: Library, python: Python
) -> None:
    code = f"""
lazy import {library.module}
lazy from {library.module} import {library.names}
show("{library.module}" in sys.modules)
{library.use}
show("{library.module}" in sys.modules)
"""
    result = program(code, python=python)
    assert result.shown == [False, 200, True]
    assert len(find(result.spans, scope=library.scope)) == 1


@each_library
@on_oldest_and_newest
def test_taken_out_again_the_identical_originals_are_there(
    program: Run, library: Library, python: Python
) -> None:
    code = f"""
import importlib, inspect
wrapped = {library.wrapped!r}
def parts():
    for path in wrapped:
        module, _, attribute = path.partition(":")
        owner, name = attribute.split(".")
        yield importlib.import_module(module).__dict__[owner].__dict__[name]
def described(one):
    try:
        signature = str(inspect.signature(one))
    except ValueError:
        signature = None
    return [signature, one.__name__, one.__qualname__, getattr(one, "__module__", None), one.__doc__,
            inspect.iscoroutinefunction(one), inspect.isfunction(one), inspect.isgeneratorfunction(one)]
before = list(parts())
import remora, remora._native
remora.init()
during = list(parts())
show([a is b for a, b in zip(before, during)])
show([described(a) == described(b) for a, b in zip(before, during)])
remora._native.deactivate()
show([a is b for a, b in zip(before, parts())])
"""
    result = program(code, env={"REMORA_ENABLED": None}, python=python)
    count = len(library.wrapped)
    assert result.shown == [[False] * count, [True] * count, [True] * count]


@each_library
def test_a_child_process_traces_before_and_after_first_use(program: Run, library: Library) -> None:
    code = f"""
import os
import {library.module}
from {library.module} import {library.names}
def child():
    if (pid := os.fork()) == 0:
        {library.use.strip().replace(chr(10), chr(10) + " " * 8)}
        sys.stdout.flush()
        sys.exit()
    os.waitpid(pid, 0)
child()
{library.use}
sys.stdout.flush()
child()
"""
    result = program(code)
    assert result.shown == [200] * 3
    spans = find(result.spans, scope=library.scope)
    assert len({span.span_id for span in spans}) == len({span.trace_id for span in spans}) == 3
    assert len({span.resource["process.pid"] for span in spans}) == 3


# FastAPI imports the whole API, which the folder below has only a part of; Starlette stands for it.
@pytest.mark.parametrize("library", [FLASK, REQUESTS, SQLITE3, STARLETTE], ids=str)
@pytest.mark.parametrize("key", ["suppress_instrumentation", "_SUPPRESS_INSTRUMENTATION_KEY"])
def test_nothing_is_made_in_a_context_that_suppresses_it(
    program: Run, tmp_path: Path, library: Library, key: str
) -> None:
    folder = tmp_path / "opentelemetry"
    (folder / "context").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    # The part of the API that is asked.
    (folder / "context" / "__init__.py").write_text(
        '_SUPPRESS_INSTRUMENTATION_KEY = "suppress_instrumentation-7"\n'
        "current = {}\n"
        "def get_current():\n"
        "    return current\n"
    )
    code = f"""
sys.path.insert(0, {str(tmp_path)!r})
from {library.module} import {library.names}
from opentelemetry import context
{library.use}
context.current[getattr(context, {key!r}, {key!r})] = True
{library.use}
context.current.clear()
{library.use}
"""
    result = program(code)
    assert result.shown == [200] * 3
    assert len(find(result.spans, scope=library.scope)) == 2
