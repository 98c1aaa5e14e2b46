"""The table's rows, with their limits (shares of bare; issue 3 for `core`, issue 4 for `more`)."""

from .kinds import Burst, Encode, Exit, Loop, Served, Startup
from .variants import LEFT_OUT, OFF, UNSAMPLED

GUNICORN = (
    "gunicorn", "--workers=1", "--worker-class=sync", "--bind=127.0.0.1:{port}", "--chdir={units}",
    "flask_sqlite:app",
)  # fmt: skip
UVICORN = (
    "uvicorn", "--port={port}", "--app-dir={units}", "--no-access-log", "--log-level=warning",
    "fastapi_sqlite:app",
)  # fmt: skip
LIBRARIES_OFF = {
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask,wsgi,sqlite3,fastapi,asgi,starlette",
    "DD_TRACE_FLASK_ENABLED": "false",
    "DD_TRACE_WSGI_ENABLED": "false",
    "DD_TRACE_SQLITE3_ENABLED": "false",
}
UPSTREAM = ("upstream",)

CORE = (
    Startup("startup", "`python -c pass`"),
    Loop("traced", "`@traced` no-op, whole span", "traced", 8, 6, calls=True, rounds=10, pairs=10),
    Loop(
        "traced-unsampled", "the same, not sampled", "traced",
        environment=UNSAMPLED, calls=True, traces=False, rounds=10, pairs=10,
    ),
    Loop(
        "traced-off", "the same, agent disabled", "traced",
        environment=OFF, calls=True, traces=False, rounds=10, pairs=10,
    ),
    Loop(
        "flask", "Flask request + sqlite query, export included", "flask_sqlite", 0.08, 0.05,
        rounds=15, counted=True,
    ),
    Loop(
        "flask-unsampled", "the same, not sampled", "flask_sqlite", 0.02, 0.01,
        environment=UNSAMPLED, traces=False, rounds=20, counted=True,
    ),
    Loop(
        "flask-left-out", "the same, left out by a ratio of traces", "flask_sqlite",
        environment=LEFT_OUT, traces=False, rounds=20, counted=True,
    ),
    Loop(
        "flask-off", "the same, libraries disabled", "flask_sqlite",
        environment=LIBRARIES_OFF, traces=False, rounds=10, counted=True,
    ),
    Loop("sqlite-cursor", "sqlite3 `select 1`, cursor", "sqlite_cursor", 0.70, 0.50),
    Loop("sqlite-connection", "sqlite3 `select 1`, connection", "sqlite_connection", 0.70, 0.50),
    Loop(
        "requests", "requests.get on loopback", "requests_get", 0.012, 0.008,
        needs=UPSTREAM, header=True, rounds=20, counted=True,
    ),
    Encode("encode", "encode + gzip level 1, off the GIL"),
    Served("gunicorn", "gunicorn under wrk: CPU a request", GUNICORN, 0.04, 0.025),
    Burst("burst", "300,000 no-op spans, then exit: arrive"),
    Exit("exit", "exit with the Collector down"),
)  # fmt: skip

MORE = (
    Loop(
        "django", "Django request + sqlite query, export included", "django_sqlite", 0.08, 0.05,
        libraries="more", rounds=15, counted=True,
    ),
    Loop(
        "django-unsampled", "the same, not sampled", "django_sqlite", 0.02, 0.01,
        libraries="more", environment=UNSAMPLED, traces=False, rounds=20, counted=True,
    ),
    Loop(
        "fastapi", "FastAPI request + sqlite query, export included", "fastapi_sqlite", 0.08, 0.05,
        libraries="more", rounds=15,
    ),
    Loop(
        "fastapi-unsampled", "the same, not sampled", "fastapi_sqlite", 0.02, 0.01,
        libraries="more", environment=UNSAMPLED, traces=False, rounds=20, counted=True,
    ),
    Loop(
        "fastapi-left-out", "the same, left out by a ratio of traces", "fastapi_sqlite",
        libraries="more", environment=LEFT_OUT, traces=False, rounds=20, counted=True,
    ),
    Loop(
        "httpx", "httpx.Client.get on loopback", "httpx_get", 0.015, 0.01,
        libraries="more", needs=UPSTREAM, header=True, rounds=20, counted=True,
    ),
    Loop(
        "urllib3", "urllib3 GET on loopback", "urllib3_get", 0.02, 0.012,
        libraries="more", needs=UPSTREAM, header=True, rounds=20, counted=True,
    ),
    Loop(
        "aiohttp", "aiohttp client GET on loopback", "aiohttp_get", 0.02, 0.012,
        libraries="more", needs=UPSTREAM, header=True, rounds=20, counted=True,
    ),
    Loop(
        "aiohttp-server", "aiohttp server request on loopback, one process", "aiohttp_server", 0.08, 0.05,
        libraries="more", rounds=15, counted=True,
    ),
    Loop(
        "aiohttp-server-unsampled", "the same, not sampled", "aiohttp_server", 0.02, 0.01,
        libraries="more", environment=UNSAMPLED, traces=False, rounds=20, counted=True,
    ),
    Loop("redis", "redis GET", "redis_get", 0.02, 0.01, libraries="more", needs=("redis",), rounds=20),
    Loop("sqlalchemy", "SQLAlchemy core `select 1`", "sqlalchemy_select", 0.10, 0.06, libraries="more"),
    Loop(
        "psycopg", "psycopg `select 1` on loopback", "psycopg_select", 0.03, 0.015,
        libraries="more", needs=("postgres",), rounds=20,
    ),
    Served("uvicorn", "uvicorn under wrk: CPU a request", UVICORN, 0.05, 0.03, libraries="more"),
)  # fmt: skip
