"""The compiled part of remora: import hook, native wrapper, instrumented libraries, export.

Nothing here raises because of a fault of the agent; the errors named below are those of a wrong call.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar, final, overload, type_check_only

from remora import Config

__all__ = [
    "Config",
    "Patch",
    "Span",
    "__version__",
    "activate",
    "config",
    "config_from_env",
    "current_span_id",
    "current_trace_id",
    "deactivate",
    "flush",
    "init",
    "patch",
    "probe",
    "sanitize_sql",
    "settings",
    "span",
    "status",
    "trace",
    "traced",
    "when_imported",
]

__version__: str
"""The version of the extension, which is that of the distribution."""

_F = TypeVar("_F", bound=Callable[..., Any])
_M = TypeVar("_M", bound=Callable[[Any], object])
_Kind: TypeAlias = Literal["internal", "server", "client", "producer", "consumer"]
_Scalar: TypeAlias = str | bool | int | float
_Value: TypeAlias = _Scalar | list[str] | list[bool] | list[int] | list[float] | tuple[_Scalar, ...]

@type_check_only
class _Wrapper(Protocol):
    """What stands in for a patched callable; it calls `wrapped(*args, **kwargs)` itself, or does not."""

    def __call__(
        self, wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any], /
    ) -> Any: ...

@type_check_only
class _Spans(TypedDict):
    made: int
    sent: int
    pending: int
    lost: dict[str, int]
    sampled_out: int

@type_check_only
class _Queue(TypedDict):
    bytes: int
    max_bytes: int

@type_check_only
class _Export(TypedDict):
    requests: int
    failures: int
    last_error: str | None
    state: str

@type_check_only
class _Target(TypedDict):
    module: str
    attribute: str
    state: Literal["waiting", "applied", "unneeded", "deferred", "disabled", "missing"]
    optional: bool
    why: str | None

@type_check_only
class _Hook(TypedDict):
    state: Literal["waiting", "applied", "disabled", "missing", "tripped"]
    faults: int
    targets: list[_Target]
    distribution: str
    version: str | None

@type_check_only
class _Context(TypedDict):
    reset_failed: int

@type_check_only
class _Status(TypedDict):
    active: bool
    origin: str
    version: str
    pid: int
    spans: _Spans
    queue: _Queue
    export: _Export
    hooks: dict[str, _Hook]
    context: _Context

@type_check_only
class _Setting(TypedDict):
    name: str
    value: str | None
    default: str | None
    origin: Literal["default", "environment", "fallback", "config"]
    type: str
    unit: str
    help: str
    since: str
    secret: bool

@type_check_only
class _Probe(TypedDict):
    exporter: str
    endpoint: str
    protocol: str
    ok: bool
    detail: str

@final
class Patch:
    """One replaced attribute; made by `patch` and `trace`."""

    @property
    def applied(self) -> bool:
        """Whether the attribute is replaced now; False while a deferred module is not imported."""

    def remove(self) -> None:
        """Puts the identical original object back. A second call does nothing."""

@final
class Span:
    """A span made by `span`; a context manager. It is current between entry and exit."""

    def __enter__(self) -> Span:
        """Starts the span as a child of the current one."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Ends the span; an exception that passes is recorded, sets the status and goes on."""

def activate(origin: str) -> bool:
    """Reads the settings from the environment and installs import and life-cycle hooks, once per process.

    `origin` is one of "sitecustomize", "pth", "auto", "init". False: remora stays out (disabled by a setting,
    another agent is active, a sub-interpreter).
    """

def deactivate() -> None:
    """Takes every wrapper of a library out; identical originals are back. Pending spans are still sent."""

def init(config: Config | None = None) -> bool:
    """Activates from code, with `config` or with the settings of the environment; see `activate`."""

def config(**settings: _Value | dict[str, Any] | None) -> Config:
    """Settings for `init`, by variable name (`OTEL_SERVICE_NAME="shop"`) or flag (`service_name="shop"`).

    What is not named, or None, comes from the environment. Lists, and dicts for pairs, as Python has them.
    Raises TypeError for an unknown name or type, ValueError for an item of a list with a comma in it.
    """

def config_from_env() -> Config:
    """The settings that the environment gives now."""

def when_imported(module: str) -> Callable[[_M], _M]:
    """Decorator: the callback is called with the module once it is imported, at once if it already is.

    Called again after `importlib.reload`. Its exceptions are reported on stderr, never raised.
    """

@overload
def patch(module: str, attribute: str, wrapper: _Wrapper) -> Patch: ...
@overload
def patch(module: str, attribute: str, wrapper: None = None) -> Callable[[_Wrapper], Patch]:
    """Replaces `module`'s `attribute` ("Session.send" for a method) by a wrapper; without one, a decorator.

    "module?" waits until the application imports the module; without the sign it is imported now, and its
    ImportError is raised. AttributeError: an imported module has no such attribute.
    """

def trace(module: str, attribute: str, *, name: str | None = None, kind: _Kind = "internal") -> Patch:
    """Every call of that attribute becomes a native span; `module` and errors as for `patch`."""

@overload
def traced(function: _F, /) -> _F: ...
@overload
def traced(
    function: None = None, /, *, name: str | None = None, kind: _Kind = "internal"
) -> Callable[[_F], _F]:
    """Decorator: every call is a native span, for sync and async functions, generators and methods."""

def span(name: str, /, **attributes: _Value) -> Span:
    """`with span("checkout", items=3): …`. Attribute values as OpenTelemetry allows, others by `str`."""

def current_trace_id() -> str | None:
    """The trace id as 32 lower-case hexadecimal digits (W3C Trace Context), None where no span is current."""

def current_span_id() -> str | None:
    """The span id as 16 lower-case hexadecimal digits (W3C Trace Context), None where no span is current."""

def flush(timeout: float | None = None) -> bool:
    """Sends what is finished. `timeout` in seconds, None for the export timeout. True: nothing is left."""

def status() -> _Status:
    """Counters and the state of every hook. Always: spans made = sent + pending + the sum of lost."""

def settings() -> list[_Setting]:
    """Every setting with its value and where that came from, in the order of config/settings.toml."""

def probe(timeout: float) -> list[_Probe]:
    """Sends an empty request to each configured exporter; `timeout` in seconds for all of them together."""

def sanitize_sql(text: str, dialect: str) -> tuple[str, str]:
    """The statement with its literals replaced by `?`, and its summary (db.query.text, db.query.summary)."""
