"""The exporters without a Collector: `otlp_file` and `console`."""

import json

from support.otlp import read_files
from support.process import run_python
from support.programs import SPANS, labels

ON = {"REMORA_ENABLED": "true"}


def test_a_file_holds_one_request_per_line_and_is_appended_to(tmp_path):
    path = tmp_path / "spans.jsonl"
    env = {**ON, "OTEL_TRACES_EXPORTER": "otlp_file", "REMORA_OTLP_FILE": str(path)}
    for _ in range(2):
        run_python(SPANS + 'make("work", 3)', env=env).ok()
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert all("resourceSpans" in json.loads(line) for line in lines)
    assert labels(read_files([path])) == {"work": 6}


def test_processes_may_share_a_file(tmp_path):
    path = tmp_path / "spans.jsonl"
    code = """
for n in range(8):
    if os.fork() == 0:
        for _ in range(20):
            make("child", 50)
            flushed()
        os._exit(0)
for n in range(8):
    assert os.wait()[1] == 0
"""
    env = {**ON, "OTEL_TRACES_EXPORTER": "otlp_file", "REMORA_OTLP_FILE": str(path)}
    run_python(SPANS + code, env=env).ok()
    assert labels(read_files([path])) == {"child": 8000}


def test_an_unwritable_file_is_one_line_and_counted(tmp_path):
    env = {
        **ON,
        "OTEL_TRACES_EXPORTER": "otlp_file",
        "REMORA_OTLP_FILE": str(tmp_path / "no" / "spans.jsonl"),
    }
    code = """
import remora
for n in range(3):
    make("work", 5)
    remora.flush(5)
found = counts()
assert found["lost"]["file"] == found["made"] == 15, found
assert remora.status()["export"]["state"] == "failing"
"""
    result = run_python(SPANS + code, env=env).ok()
    why, lost = [line for line in result.agent_lines if "spans lost" not in line], result.agent_lines[-1]
    assert len(why) == 1, result.stderr
    assert "no/spans.jsonl" in why[0]
    assert lost == "remora: 15 spans lost (file=15), 0 sent"


def test_a_full_disk_is_the_same(tmp_path):
    env = {**ON, "OTEL_TRACES_EXPORTER": "otlp_file", "REMORA_OTLP_FILE": "/dev/full"}
    result = run_python(SPANS + 'make("work", 5)', env=env).ok()
    assert "/dev/full" in result.agent_lines[0]
    assert result.agent_lines[-1] == "remora: 5 spans lost (file=5), 0 sent"


def test_the_console_is_a_tree_with_durations_on_stderr():
    code = """
from flask import Flask
app = Flask("app")

@app.route("/cart")
def view():
    make("inner", 2)
    return "done"

app.test_client().get("/cart")
print("out")
"""
    env = {**ON, "OTEL_TRACES_EXPORTER": "console"}
    result = run_python(SPANS + code, env=env).ok()
    assert result.stdout == "out\n"
    lines = result.stderr.splitlines()
    server = next(n for n, line in enumerate(lines) if "GET /cart" in line)
    inner = [line for line in lines if "select" in line]
    assert len(inner) >= 2
    indent = len(lines[server]) - len(lines[server].lstrip())
    assert all(len(line) - len(line.lstrip()) > indent for line in inner)
    assert "ms" in lines[server] or "µs" in lines[server] or " s" in lines[server]


def test_without_being_chosen_nothing_is_written_to_the_streams(collector):
    result = run_python(SPANS + 'make("work")', env=collector.env(**ON)).ok()
    assert (result.stdout, result.stderr) == ("", "")


def test_the_console_with_stderr_closed_or_full_does_no_harm():
    env = {**ON, "OTEL_TRACES_EXPORTER": "console"}
    code = 'os.close(2)\nmake("work", 5)\nassert flushed(5)["pending"] == 0\nprint("ok")'
    assert run_python(SPANS + code, env=env).ok().stdout == "ok\n"
    code = 'os.dup2(os.open("/dev/full", os.O_WRONLY), 2)\nmake("work", 5)\nflushed(5)\nprint("ok")'
    assert run_python(SPANS + code, env=env).ok().stdout == "ok\n"


def test_a_collector_and_a_file_at_once(collector, tmp_path):
    path = tmp_path / "spans.jsonl"
    env = collector.env(**ON, REMORA_OTLP_FILE=str(path))
    env["OTEL_TRACES_EXPORTER"] = "otlp,otlp_file"
    run_python(SPANS + 'make("work", 7)\nassert flushed()["sent"] == 7', env=env).ok()
    assert labels(collector.spans) == labels(read_files([path])) == {"work": 7}
