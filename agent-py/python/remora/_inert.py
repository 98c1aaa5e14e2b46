"""The public names where the extension cannot be: in a sub-interpreter. Each does nothing, none raises.

A WSGI server may run an application in a sub-interpreter; `import remora` there must not end it.
In a main interpreter the import of this module raises the extension's own ImportError again.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _interpreter() -> int:
    """This interpreter's number; the main one is 0, the first that is made later 1."""
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found, unused-ignore, no-redef]
    current = interpreters.get_current()
    return int(current[0] if isinstance(current, tuple) else current)


_number = _interpreter()
if _number == 0:
    # Raises as the first time. Where it does not, a tool walks through the package: the extension stays.
    import remora._native  # noqa: F401
else:
    sys.modules["remora._native"] = sys.modules["remora"]._native = sys.modules[__name__]  # type: ignore[attr-defined]

__version__ = ""


# No state is shared with the other interpreters but their numbering: the first one speaks for all.
_silent = _number != 1


def activate(origin: str) -> bool:
    global _silent
    if not _silent and sys.stderr is not None:
        sys.stderr.write(
            "remora: stays out of sub-interpreters (mod_wsgi: WSGIApplicationGroup %{GLOBAL} avoids them)\n"
        )
    _silent = True
    return False


class Patch:
    applied = False

    def remove(self) -> None:
        pass


class Span:
    def __enter__(self) -> Span:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def init(config: object = None) -> bool:
    return activate("init")


def config(**settings: object) -> object:
    return object()


def config_from_env() -> object:
    return object()


def when_imported(module: str) -> Callable[[Any], Any]:
    return lambda callback: callback


def patch(module: str, attribute: str, wrapper: object = None) -> Any:
    return Patch() if wrapper is not None else lambda wrapper: Patch()


def trace(module: str, attribute: str, *, name: str | None = None, kind: str = "internal") -> Patch:
    return Patch()


def traced(function: Any = None, /, *, name: str | None = None, kind: str = "internal") -> Any:
    return function if function is not None else lambda function: function


def span(name: str, /, **attributes: object) -> Span:
    return Span()


def current_trace_id() -> str | None:
    return None


def current_span_id() -> str | None:
    return None


def flush(timeout: float | None = None) -> bool:
    return True


def status() -> dict[str, object]:
    return {"active": False, "origin": "", "version": __version__, "hooks": {}}
