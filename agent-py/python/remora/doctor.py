"""`remora doctor`: would traces flow from this Python, and if not, what to do.

Nothing is guessed that can be tried: a child is started as `remora run` would start it, the libraries that
are installed are imported there and the agent is asked what it hooked; an empty request goes to the endpoint.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from remora import _terminal as terminal
from remora.settings import masked, shown

PROBE_TIMEOUT = 5.0  # seconds, for the export of an empty request
CHILD_TIMEOUT = 60.0  # seconds: a library may import much

# Agents for which ours stands down: distribution, what its launcher puts on PYTHONPATH, name.
_AGENTS = (
    ("ddtrace", "ddtrace/bootstrap", "ddtrace"),
    ("newrelic", "newrelic/bootstrap", "newrelic"),
    ("elastic-apm", "elasticapm/instrumentation/wrapper", "elasticapm"),
    (
        "opentelemetry-instrumentation",
        "opentelemetry/instrumentation/auto_instrumentation",
        "opentelemetry-instrument",
    ),
)

# What the child does: says whether it is active, imports what it is told to, and gives the agent's status.
_CHILD = """
import json, sys
remora, failed = sys.modules.get("remora"), {}
if remora is not None:
    for name in sys.argv[1:]:
        try:
            __import__(name)
        except BaseException as error:
            failed[name] = "%s: %s" % (type(error).__name__, error)
print("\\n" + json.dumps({"status": remora and remora._native.status(), "failed": failed}))
"""

Mark = Literal["ok", "bad", "look", "none"]


class Report:
    """Prints what was found; remembers whether anything keeps traces from flowing."""

    def __init__(self) -> None:
        self.healthy = True
        self.colour = terminal.coloured(sys.stdout)
        fancy = terminal.unicode_safe(sys.stdout, "✓✗–→")
        self.marks = {
            "ok": ("✓" if fancy else "+", terminal.GREEN),
            "bad": ("✗" if fancy else "x", terminal.RED),
            "look": ("!", terminal.YELLOW),
            "none": ("–" if fancy else "-", terminal.DIM),
        }
        self.arrow = "→" if fancy else "->"

    def section(self, title: str) -> None:
        print(f"\n{terminal.BOLD}{title}{terminal.RESET}" if self.colour else f"\n{title}")

    def line(self, mark: Mark, text: str, remedy: str = "") -> None:
        """One finding. "bad" means that no trace flows, "look" that some of it does not work as meant."""
        self.healthy = self.healthy and mark != "bad"
        sign, code = self.marks[mark]
        if self.colour:
            sign = f"{code}{sign}{terminal.RESET}"
        print(f"  {sign} {terminal.clean(text)}" + (f" {self.arrow} {remedy}" if remedy else ""))


def autoload() -> str:
    """The folder that the launcher puts on PYTHONPATH."""
    return str(Path(__file__).resolve().parent / "autoload")


def launched(environment: dict[str, str]) -> dict[str, str]:
    """The environment as `remora run` makes it; unchanged where REMORA_ENABLED already says yes or no."""
    if environment.get("REMORA_ENABLED", "").strip():
        return environment
    paths = [autoload(), *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {"PYTHONPATH": os.pathsep.join(paths)}


class Child:
    """A Python of this kind, started to see what the agent does in it."""

    def __init__(self, environment: dict[str, str], *options: str, modules: Iterable[str] = ()) -> None:
        self.status: dict[str, Any] | None = None
        self.failed: dict[str, str] = {}
        self.said: list[str] = []
        self.fault = ""
        try:
            done = subprocess.run(
                # -P: a file of the current folder must not be taken for the library of that name.
                [sys.executable, *options, "-P", "-c", _CHILD, *modules],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=CHILD_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.fault = f"a Python with the agent did not end within {CHILD_TIMEOUT:.0f} s"
            return
        errors = done.stderr.decode(errors="replace").splitlines()
        self.said = [line for line in errors if line.startswith("remora: ")]
        try:
            answer = json.loads(done.stdout.decode(errors="replace").strip().splitlines()[-1])
            self.status, self.failed = answer["status"], answer["failed"]
        except (ValueError, LookupError, TypeError):
            self.fault = (
                f"a Python with the agent ended with status {done.returncode}: {''.join(errors[-1:])}"
            )

    @property
    def active(self) -> bool:
        return bool(self.status and self.status.get("active"))


def python(report: Report) -> Any:
    """The extension, None where there is none for this interpreter."""
    report.section("Python")
    version = ".".join(map(str, sys.version_info[:3]))
    report.line("ok", f"{sys.implementation.name} {version}, {sys.executable}")
    try:
        import remora._native as native
    except ImportError as error:
        report.line("bad", f"the extension does not load: {error}", "install the wheel for this interpreter")
        there = sorted(path.name for path in Path(__file__).parent.glob("_native*.so"))
        report.line("none", f"extensions in {Path(__file__).parent}: {', '.join(there) or 'none'}")
        return None
    report.line("ok", f"remora {native.__version__}, {getattr(native, '__file__', '?')}")
    return native


def activation(report: Report, environment: dict[str, str]) -> Child:
    report.section("Activation")
    wanted = environment.get("REMORA_ENABLED", "").strip()
    child = Child(launched(environment))
    if child.active:
        how = (child.status or {}).get("origin")
        told = f"REMORA_ENABLED={wanted}" if wanted else "`remora run`"
        report.line("ok", f"active in a Python started with {told} (by {how})")
    elif wanted and wanted.lower() != "true":
        report.line(
            "bad",
            f"REMORA_ENABLED={wanted} keeps the agent out",
            "unset it and start with `remora run CMD…`, or set it to true",
        )
    elif child.fault:
        report.line("bad", child.fault, "please report it; REMORA_ENABLED=false starts without the agent")
    elif wanted and child.status is None and not child.said:
        report.line(
            "bad",
            "REMORA_ENABLED=true, but neither PYTHONPATH nor a remora.pth leads to the agent",
            "start with `remora run CMD…`",
        )
    else:
        report.line(
            "bad", "the agent stays out of a Python started with it", "see the line below and Settings"
        )
    for said in child.said:
        report.line("look", said.removeprefix("remora: "))
    isolated = Child(environment | {"REMORA_ENABLED": "true"}, "-I")
    if isolated.active:
        report.line("ok", "remora.pth is read: python -E and python -I are reached as well")
    else:
        report.line("none", "remora.pth is not read by this Python: python -E and python -I are not reached")
    report.line("none", "python -S is never reached: it loads neither sitecustomize nor .pth files")
    return child


def libraries(report: Report, environment: dict[str, str], known: dict[str, Any], active: bool) -> None:
    """Imports what is installed of the known libraries in a child, and tells what the agent did there."""
    report.section("Libraries")
    if not active:
        report.line("none", "not tried, since the agent is not active")
        return
    installed = {name: hook for name, hook in known.items() if _found(hook)}
    modules = [target["module"] for hook in installed.values() for target in hook["targets"]]
    child = Child(launched(environment), modules=dict.fromkeys(modules))
    hooks = child.status["hooks"] if child.status else known
    if child.fault:
        report.line("bad", child.fault, "leave out the library that it names")
    for name in sorted(known):
        if name not in installed:
            report.line("none", f"{name}: not installed")
            continue
        hook = hooks.get(name, known[name])
        _library(report, name, hook, child.failed)
    if not installed:
        report.line("look", "no library that remora knows is installed: only @traced and span() make spans")
    elif not any(
        hooks.get(name, known[name])["state"] == "applied" for name in installed if makes_spans(name)
    ):
        report.line("look", "no library that makes spans is hooked: only @traced and span() make some")


def _library(report: Report, name: str, hook: dict[str, Any], failed: dict[str, str]) -> None:
    title = f"{name} {_version(hook)}".rstrip()
    targets = [target for target in hook["targets"] if _is_wanted(target, failed.get(target["module"], ""))]
    # Deferred: there, and wrapped when there is something to do for it.
    applied = [target for target in targets if target["state"] in ("applied", "deferred")]
    missing = [target for target in targets if target["state"] == "missing"]
    broken = {target["module"]: failed[target["module"]] for target in targets if target["module"] in failed}
    if hook["state"] == "disabled" and name == "logging":
        report.line("none", f"{title}: off", "OTEL_PYTHON_LOG_CORRELATION=true puts trace ids on log records")
    elif hook["state"] == "disabled":
        report.line("none", f"{title}: disabled", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names it")
    elif hook["state"] == "tripped":
        report.line("look", f"{title}: switched off after {hook['faults']} faults", "please report it")
    elif applied and not missing and not broken:
        report.line("ok", f"{title}: {len(applied)} of {len(targets)} hooked")
    else:
        report.line("look", f"{title}: {len(applied)} of {len(targets)} hooked")
    for target in missing:
        why = target.get("why") or "this version has no such attribute"
        report.line("look", f"  {target['module']}.{target['attribute']}: {why}")
    for module, why in broken.items():
        report.line("look", f"  {module} cannot be imported: {why}")


def makes_spans(name: str) -> bool:
    """False for what only carries the span in force to where it is needed."""
    return name not in ("logging", "threading")


def _is_wanted(target: dict[str, Any], fault: str) -> bool:
    """False for what only other releases have, and for another package that is not there."""
    module = target["module"]
    absent = fault.removeprefix("ModuleNotFoundError: No module named ").strip("'")
    is_absent = f"{module}.".startswith(f"{absent}.")
    return target["state"] != "unneeded" and not (
        is_absent and (target["optional"] or absent == module.partition(".")[0])
    )


def _top(hook: dict[str, Any]) -> set[str]:
    return {target["module"].partition(".")[0] for target in hook["targets"]}


def _found(hook: dict[str, Any]) -> bool:
    for name in _top(hook):
        try:
            if name in sys.builtin_module_names or importlib.util.find_spec(name) is not None:
                return True
        except (ImportError, ValueError):
            continue
    return False


def _version(hook: dict[str, Any]) -> str:
    if not hook["distribution"]:
        first = hook["targets"][0]["module"].partition(".")[0]
        return "(standard library)" if first in sys.stdlib_module_names else ""
    if hook.get("version"):
        return str(hook["version"])
    owners = importlib.metadata.packages_distributions()
    for name in sorted(_top(hook)):
        for distribution in owners.get(name, ()):
            return importlib.metadata.version(distribution)
    return ""


def configuration(report: Report, rows: list[Any]) -> None:
    report.section("Settings that are not the default")
    values = {row["name"]: str(row["value"] or "") for row in rows}
    changed = [row for row in rows if row["origin"] != "default"]
    for row in changed:
        if row["origin"] == "fallback":
            # What is no URL may hold a password anywhere; what the agent said above shows the rest of it.
            hidden = row["secret"] or row["type"] == "url"
            given = "" if hidden else "=" + masked(os.environ.get(row["name"], ""))
            report.line("look", f"{row['name']}{given} cannot be used, {shown(row)} is", row["help"])
        else:
            report.line("ok", f"{row['name']} = {shown(row)} ({row['origin']})")
    if not changed:
        report.line("ok", "none: every setting has its default value (`remora config` lists them)")
    if values.get("OTEL_SDK_DISABLED", "").lower() == "true":
        report.line("bad", "OTEL_SDK_DISABLED=true installs nothing", "unset it")
    sampler, share = values.get("OTEL_TRACES_SAMPLER", ""), values.get("OTEL_TRACES_SAMPLER_ARG", "")
    if sampler.endswith("always_off"):
        what = "no trace that begins here" if sampler.startswith("parentbased") else "no trace"
        report.line("bad", f"OTEL_TRACES_SAMPLER={sampler} records {what}", "unset it")
    elif sampler.endswith("traceidratio") and not round(float(share or 1) * 2**64):
        what = "no trace that begins here" if sampler.startswith("parentbased") else "no trace"
        report.line("bad", f"OTEL_TRACES_SAMPLER_ARG={share} records {what}", "give a share above 0")
    if values.get("OTEL_SERVICE_NAME", "") == "" and "service.name" not in values.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        report.line("look", "the service has no name", "set OTEL_SERVICE_NAME")


def export(report: Report, native: Any) -> None:
    report.section("Export")
    results = native.probe(PROBE_TIMEOUT)
    for row in results:
        where = " ".join(filter(None, (row["exporter"], row["protocol"], row["endpoint"])))
        if row["ok"]:
            report.line("ok", f"{where}: {row['detail']}")
        else:
            report.line("bad", f"{where}: {row['detail']}", _remedy(row))
    if not results:
        report.line("bad", "no exporter is chosen", "unset OTEL_TRACES_EXPORTER, or name otlp")


# What a failure says, and what helps; the first that fits.
_REMEDIES = (
    ("the proxy", "correct http_proxy or https_proxy, or name the receiver in no_proxy"),
    ("OTEL_", "correct that setting"),
    ("is it the gRPC port?", "set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or name the HTTP port, usually 4318"),
    (
        "is it the HTTP port?",
        "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or name the gRPC port, usually 4317",
    ),
    (
        "is it an http: endpoint?",
        "write http:// in the endpoint; grpc without a scheme: OTEL_EXPORTER_OTLP_INSECURE=true",
    ),
    ("UnknownIssuer", "name its authority in OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ("status 401", "set OTEL_EXPORTER_OTLP_HEADERS"),
    ("status 403", "set OTEL_EXPORTER_OTLP_HEADERS"),
    ("UNAUTHENTICATED", "set OTEL_EXPORTER_OTLP_HEADERS"),
    ("PERMISSION_DENIED", "set OTEL_EXPORTER_OTLP_HEADERS"),
    (
        "status 404",
        "correct the path: OTEL_EXPORTER_OTLP_ENDPOINT gets /v1/traces added, the form for traces nothing",
    ),
)


def _remedy(row: dict[str, Any]) -> str:
    if row["exporter"] == "otlp_file":
        return "make that path writable, or set REMORA_OTLP_FILE"
    for sign, remedy in _REMEDIES:
        if sign in row["detail"]:
            return remedy
    return "start a Collector there, or set OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL"


def agents(report: Report, environment: dict[str, str]) -> None:
    report.section("Other agents")
    none = True
    for distribution, folder, name in _AGENTS:
        active = folder in environment.get("PYTHONPATH", "")
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if active:
            remedy = f"start without {name}, or set REMORA_FORCE=true"
            report.line("look", f"{name} {version} is on PYTHONPATH: remora stands down", remedy)
        elif version:
            report.line(
                "none", f"{name} {version} is installed and not active; remora stands down where it is"
            )
        none = none and not active and not version
    if none:
        report.line("ok", "none found")


def main(arguments: list[str]) -> int:
    """0: traces would flow; 1: they would not; 2: wrong usage."""
    if arguments:
        print("usage: remora doctor", file=sys.stdout if arguments[0] in ("-h", "--help") else sys.stderr)
        return 0 if arguments[0] in ("-h", "--help") else 2
    environment = dict(os.environ)
    report = Report()
    native = python(report)
    if native is None:
        return 1
    child = activation(report, environment)
    agents(report, environment)
    known: dict[str, Any] = dict((child.status or native.status())["hooks"])
    libraries(report, environment, known, child.active)
    configuration(report, native.settings())
    export(report, native)
    verdict = "traces would flow" if report.healthy else "traces would not flow"
    report.section("Verdict")
    report.line("ok" if report.healthy else "bad", verdict)
    return 0 if report.healthy else 1
