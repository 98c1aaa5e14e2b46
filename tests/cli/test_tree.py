"""`remora tree FILE…`: several files, one waterfall per trace, whatever is in them."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from support.process import clean_env, run

REMORA = Path(sys.executable).parent / "remora"
BEGIN = 1_764_009_547_000_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def attributes(values):
    kinds = {bool: "boolValue", int: "intValue", str: "stringValue"}
    return [
        {"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}
        for key, value in values.items()
    ]


def span(
    number, name, *, parent=0, start=0.0, ms=1.0, kind=1, trace=TRACE, error=None, exception=None, **values
):
    raw = {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(BEGIN + int(start * 1e6)),
        "endTimeUnixNano": str(BEGIN + int((start + ms) * 1e6)),
        "attributes": attributes({key.replace("__", "."): value for key, value in values.items()}),
    }
    if parent:
        raw["parentSpanId"] = f"{parent:016x}"
    if error is not None or exception:
        raw["status"] = {"code": 2, "message": error or ""}
    if exception:
        about = attributes({"exception.type": exception[0], "exception.message": exception[1]})
        raw["events"] = [{"name": "exception", "attributes": about}]
    return raw


def line(service, *spans):
    resource = {"attributes": attributes({"service.name": service, "service.instance.id": service})}
    scopes = [{"scope": {"name": "remora.flask"}, "spans": list(spans)}]
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]}) + "\n"


@pytest.fixture
def tree(tmp_path):
    def show(*texts, columns=110, env=None):
        files = []
        for number, text in enumerate(texts):
            files.append(tmp_path / f"{number}.jsonl")
            files[-1].write_bytes(text if isinstance(text, bytes) else text.encode())
        return run([REMORA, "tree", *files], env={"COLUMNS": str(columns), **(env or {})})

    return show


SHOP = line(
    "shop",
    span(1, "POST /checkout", ms=48.3, kind=2, error="", http__response__status_code=502),
    span(
        2,
        "SELECT orders",
        parent=1,
        start=2,
        ms=0.41,
        kind=3,
        db__query__text="SELECT *\n FROM orders WHERE id = ?",
    ),
    span(
        3,
        "POST",
        parent=1,
        start=12,
        ms=30,
        kind=3,
        http__request__method="POST",
        url__full="http://h:1/reserve",
    ),
)
STOCK = line(
    "stock",
    span(4, "POST /reserve", parent=3, start=13, ms=27.9, kind=2, exception=("OutOfStock", "item 7 is gone")),
    span(5, "料理 一覧", parent=4, start=20, ms=0.03),
)


WATERFALL = f"""\
trace {TRACE} · 2025-11-24 18:39:07 UTC · 5 spans · 2 services · 48.3 ms · 2 errors
shop   POST /checkout        502 ✗  48.3 ms  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
shop   ├─ SELECT orders              410 µs   ╺
       │     SELECT * FROM orders WHERE id = ?
shop   └─ POST h:1/reserve          30.0 ms           ╺━━━━━━━━━━━━━━━━━━━━━━━━━
stock     └─ POST /reserve       ✗  27.9 ms            ╺━━━━━━━━━━━━━━━━━━━━━━━
             │  ✗ OutOfStock: item 7 is gone
stock        └─ 料理 一覧           30.0 µs                  ╺
"""


def test_files_of_two_services_make_one_waterfall(tree):
    result = tree(SHOP, STOCK, columns=85).ok()
    assert result.stderr == ""
    assert result.stdout.splitlines() == [*WATERFALL.splitlines(), ""]


def test_no_line_is_wider_than_the_terminal(tree):
    import unicodedata

    deep = [
        span(n, "名前" * 20 + str(n), parent=n - 1, ms=100 - n, db__query__text="x" * 500)
        for n in range(1, 60)
    ]
    for columns in (60, 80, 200):
        for shown in (
            tree(line("a service with a rather long name", *deep), columns=columns).ok().stdout.splitlines()
        ):
            width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown)
            assert width <= max(columns, 110 if shown.startswith("trace ") else 0)


def test_each_trace_is_one_waterfall_in_order_of_time(tree):
    late, early = span(1, "late", trace="a" * 32, start=50), span(2, "early", trace="b" * 32, start=1)
    shown = tree(line("s", late, early)).ok().stdout
    assert shown.count("trace ") == 2
    assert shown.index("early") < shown.index("late")


def test_a_span_met_twice_counts_once(tree):
    assert "3 spans" in tree(SHOP, SHOP).ok().stdout


def test_an_orphan_is_shown_and_says_so(tree):
    shown = tree(STOCK).ok().stdout
    assert "POST /reserve" in shown
    assert "its parent 0000000000000003 is not in these files" in shown


def test_a_ring_of_parents_is_cut(tree):
    ring = line("s", span(1, "one", parent=2), span(2, "two", parent=1), span(3, "self", parent=3))
    shown = tree(ring).ok().stdout
    assert {name for name in ("one", "two", "self") if name in shown} == {"one", "two", "self"}


def test_a_trace_deeper_than_the_stack(tree):
    deep = [span(n, f"n{n}", parent=n - 1) for n in range(1, 3001)]
    assert "n3000" in tree(line("s", *deep)).ok().stdout


def test_the_clock_of_another_service_may_be_wrong(tree):
    late = line(
        "stock",
        span(4, "POST /reserve", parent=3, start=5000, ms=20, kind=2),
        span(5, "x", parent=4, start=5001),
    )
    shown = tree(SHOP, late).ok().stdout
    assert "48.3 ms · 1 error" in shown
    assert "the clock of stock was moved by 4.98 s" in shown


def test_a_consumer_may_start_long_after_its_producer(tree):
    files = (
        line("a", span(1, "send", kind=4, ms=1)),
        line("b", span(2, "process", parent=1, start=500, ms=1, kind=5)),
    )
    shown = tree(*files).ok().stdout
    assert "501 ms" in shown
    assert "moved" not in shown


def test_a_line_cut_short_is_said_once_and_the_rest_is_shown(tree):
    result = tree(SHOP + STOCK[:60])
    assert result.returncode == 0
    assert "POST /checkout" in result.stdout
    assert result.stderr.count("\n") == 1
    assert "0.jsonl: skipped 1 line (line 2: cut short)" in result.stderr


REQUEST = b'{"resourceSpans": [{"scopeSpans": [{"spans": [{%s}]}]}]}\n'


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xfe\x00\n" * 3,
        b"hello\n",
        b"[1]\n",
        b"7\n",
        b"[" * 100_000 + b"\n",
        b'{"resourceSpans": 3}\n',
        REQUEST % b'"name": 5',
        REQUEST % b'"traceId": "a", "spanId": "b", "startTimeUnixNano": "x"',
    ],
)
def test_garbage_is_one_line_per_file(tree, garbage):
    result = tree(garbage, SHOP).ok()
    assert "POST /checkout" in result.stdout
    assert result.stderr.count("\n") == 1
    assert "0.jsonl: skipped" in result.stderr


def test_metrics_and_logs_and_empty_lines_are_passed_over(tree):
    result = tree('{"resourceMetrics": []}\n\n{"resourceLogs": []}\n{}\n' + SHOP).ok()
    assert result.stderr == ""


def test_missing_fields_are_no_fault(tree):
    bare = REQUEST % b'"traceId": "A1", "spanId": "B2", "kind": "SPAN_KIND_SERVER"'
    assert "(no name)" in tree(bare).ok().stdout


def test_control_characters_do_not_reach_the_terminal(tree):
    shown = tree(line("s", span(1, "a\x1b[31mb\r\n\x07c", db__query__text="x\x1b]0;title\x07y"))).ok().stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "a [31mb c" in shown


def test_a_missing_file_is_one_line_and_status_1(tree, tmp_path):
    (tmp_path / "shop.jsonl").write_text(SHOP)
    result = run([REMORA, "tree", tmp_path / "none.jsonl", tmp_path / "shop.jsonl"])
    assert result.returncode == 1
    assert "POST /checkout" in result.stdout
    assert result.stderr == f"remora: {tmp_path}/none.jsonl: No such file or directory\n"


def test_nothing_to_show_is_status_1(tree):
    result = tree("")
    assert (result.returncode, result.stdout) == (1, "")
    assert "no spans in" in result.stderr


def test_no_file_named_is_wrong_usage():
    assert run([REMORA, "tree"]).returncode == 2


def test_standard_input_can_be_read():
    assert "POST /checkout" in run([REMORA, "tree", "-"], stdin=SHOP).ok().stdout


def test_standard_input_may_be_named_twice_and_hold_anything():
    result = subprocess.run(
        [REMORA, "tree", "-", "-"],
        input=SHOP.encode() + b"\xff\xfe\n",
        capture_output=True,
        env=clean_env({"PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}),
        timeout=30,
        check=True,
    )
    assert b"POST /checkout" in result.stdout
    assert result.stderr == b"remora: -: skipped 1 line (line 2: not JSON)\n"


def test_standard_input_that_is_closed_is_one_line():
    result = run(["sh", "-c", f"'{REMORA}' tree - <&-"])
    assert result.returncode == 1
    assert result.stderr == "remora: -: standard input is closed\nremora: no spans in -\n"


@pytest.mark.parametrize("field", ["startTimeUnixNano", "endTimeUnixNano", "kind", "attributes", "links"])
def test_a_value_that_none_should_have_is_no_traceback(tree, field):
    lines = []
    for value in (float("inf"), float("nan"), [[]], {"a": 1}, "9" * 5000, 10**30, -1, True):
        wrong = span(1, "GET /", trace=f"{len(lines) + 1:032x}")
        wrong[field] = value
        lines.append(line("other", wrong))
    result = tree("".join(lines), SHOP)
    assert "Traceback" not in result.stderr
    assert "POST /checkout" in result.stdout


def test_a_reader_that_stops_early_is_no_fault(tree, tmp_path):
    (tmp_path / "big.jsonl").write_text(
        "".join(line("s", span(n, "x", trace=f"{n:032x}")) for n in range(1, 3000))
    )
    result = run(["sh", "-c", f"'{REMORA}' tree '{tmp_path}/big.jsonl' | head -n 1"])
    assert result.stdout.startswith("trace ")
    assert result.stderr == ""


def test_an_ascii_terminal_gets_ascii(tree):
    shown = tree(SHOP, STOCK, env={"PYTHONIOENCODING": "ascii"}).ok().stdout
    assert shown.isascii()
    assert "`- POST h:1/reserve" in shown


def test_colour_only_on_a_terminal(tree, tmp_path):
    (tmp_path / "shop.jsonl").write_text(SHOP)
    assert "\x1b" not in tree(SHOP).ok().stdout
    for variables, expected in (({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)):
        leader, follower = pty.openpty()
        command = [REMORA, "tree", tmp_path / "shop.jsonl"]
        subprocess.run(command, stdout=follower, env=clean_env(variables), check=True, timeout=30)
        os.close(follower)
        text = b""
        try:
            while part := os.read(leader, 65536):
                text += part
        except OSError:
            pass
        os.close(leader)
        assert (b"\x1b[" in text) is expected


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0.00 µs"),
        (830, "0.83 µs"),
        (41_000, "41.0 µs"),
        (999_499, "999 µs"),
        (999_600, "1.00 ms"),
        (48_300_000, "48.3 ms"),
        (1_240_000_000, "1.24 s"),
        (123_000_000_000, "2:03 min"),
        (7_260_000_000_000, "2:01 h"),
        (-1, "?"),
    ],
)
def test_durations_are_short_and_have_a_unit(nanoseconds, text):
    from remora._terminal import duration

    assert duration(nanoseconds) == text
    assert len(text) <= 8
