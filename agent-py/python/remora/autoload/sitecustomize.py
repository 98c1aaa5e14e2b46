"""Activates remora in a Python that has this folder on PYTHONPATH, then makes way for the application's own.

PYTHONPATH reaches every Python of a process tree, so this file must be readable by all of them, from 2.7 on.
Only what `site` has already imported is used, and imports stand in functions, where they are never lazy.
"""
# What ruff would modernise, Python 2.7 could not read.
# ruff: noqa: UP031, UP036

import sys


def _say(here, why):
    # type: (str, str) -> None
    """One line, from the process that was launched: its parent's environment does not name our folder."""
    import os

    try:
        with open("/proc/%d/environ" % os.getppid(), "rb") as parent:
            if here.encode() in parent.read():
                return
    except Exception:
        pass  # No /proc, or another user's process: better one line too many than none.
    if sys.stderr is not None:
        sys.stderr.write("remora: not active in %s: %s\n" % (sys.executable, why))


def _load(package):
    # type: (str) -> object
    """`import remora` from the given folder, with nothing added to sys.path."""
    import _frozen_importlib
    import _frozen_importlib_external

    spec = _frozen_importlib_external.spec_from_file_location(
        "remora", package + "/__init__.py", submodule_search_locations=[package]
    )
    assert spec is not None
    assert spec.loader is not None
    module = _frozen_importlib.module_from_spec(spec)
    sys.modules["remora"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for name in ("remora", "remora._native", "remora._inert"):
            sys.modules.pop(name, None)
        raise
    return module


def _activate(here):
    # type: (str) -> None
    import os

    enabled = os.environ.get("REMORA_ENABLED", "").strip()
    if enabled.lower() not in ("", "true"):
        # `site` may read remora.pth twice, and this file after it.
        if enabled.lower() != "false" and sys.stderr is not None and not hasattr(sys, "_remora_said"):
            shown = repr(enabled)[1:-1][:80]
            sys.stderr.write("remora: REMORA_ENABLED=%s is neither true nor false; using false\n" % shown)
        return
    version = "%d.%d" % sys.version_info[:2]
    package = os.path.dirname(os.path.realpath(here))
    try:
        if sys.version_info < (3, 11):
            _say(here, "Python %s is older than 3.11" % version)
            return
        remora = sys.modules.get("remora") or _load(package)  # remora.pth may have been first
        remora._native.activate("sitecustomize")  # type: ignore[attr-defined]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic is no Exception
        if isinstance(error, ImportError) and error.name == "remora._native" and not error.path:
            _say(here, "no extension for Python %s in %s" % (version, package))
        else:
            _say(here, "%s: %s" % (type(error).__name__, error))


def _is(entry, here, real):
    # type: (object, str, str) -> bool
    import os

    if not isinstance(entry, str):
        return False
    entry = entry.rstrip("/")
    return entry == here or (
        os.path.basename(entry) == os.path.basename(here) and os.path.realpath(entry) == real
    )


def _boot():
    # type: () -> None
    import os

    # Python 2 empties the globals of a module that nobody holds: kept until the end.
    this = sys.modules.pop("sitecustomize", None)
    here = os.path.dirname(os.path.abspath(__file__))
    real = os.path.realpath(here)
    sys.path[:] = [entry for entry in sys.path if not _is(entry, here, real)]
    for entry in [entry for entry in sys.path_importer_cache if _is(entry, here, real)]:
        del sys.path_importer_cache[entry]
    _activate(here)
    # The application's own. What it raises, or that there is none, goes on to `site` as without us.
    import sitecustomize  # type: ignore[import-not-found, unused-ignore]  # noqa: F401

    del this


_boot()
