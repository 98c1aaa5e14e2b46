"""Zero-code OpenTelemetry tracing with a native core.

`remora run CMD…`, `import remora.auto` or `remora.init()` activate the agent; `import remora` does not.
Everything here is native; nothing but `remora._native` is imported.
"""

try:
    import remora._native as _native  # noqa: F401
except ImportError:
    # No extension of this kind can be loaded in a sub-interpreter: names that do nothing take its place.
    # Anywhere else this raises the same error again.
    import remora._inert  # noqa: F401
from remora._native import (
    Patch,
    __version__,
    config,
    config_from_env,
    current_span_id,
    current_trace_id,
    flush,
    init,
    patch,
    span,
    status,
    trace,
    traced,
    when_imported,
)

# Known to type checkers as typing.TYPE_CHECKING; typing itself is not imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NewType

    Config = NewType("Config", object)
else:

    def __getattr__(name):
        # For annotations evaluated at run time; typing is imported only by who asks.
        if name == "Config":
            from typing import NewType

            config_type = NewType("Config", object)
            globals()["Config"] = config_type
            return config_type
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Config",
    "Patch",
    "__version__",
    "config",
    "config_from_env",
    "current_span_id",
    "current_trace_id",
    "flush",
    "init",
    "patch",
    "span",
    "status",
    "trace",
    "traced",
    "when_imported",
]
