"""The exporters without a Collector: `otlp_file` and `console`."""

import json
import os

import pytest
from support.otlp import read_files
from support.process import run_python
from support.programs import SPANS, UNREAD_STDERR, labels

ON = {"REMORA_ENABLED": "true"}

FLUSH = """
def flush():
    import remora
    remora.flush(20)
"""


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
    code = 'os.close(2)\nmake("work", 5)\nflush()\nprint(counts()["lost"]["file"])'
    assert run_python(SPANS + FLUSH + code, env=env).ok().stdout == "5\n"
    code = 'os.dup2(os.open("/dev/full", os.O_WRONLY), 2)\nmake("work", 5)\nflush()\nprint(counts()["lost"]["file"])'
    assert run_python(SPANS + FLUSH + code, env=env).ok().stdout == "5\n"


def test_a_collector_and_a_file_at_once(collector, tmp_path):
    path = tmp_path / "spans.jsonl"
    env = collector.env(**ON, REMORA_OTLP_FILE=str(path))
    env["OTEL_TRACES_EXPORTER"] = "otlp,otlp_file"
    run_python(SPANS + 'make("work", 7)\nassert flushed()["sent"] == 7', env=env).ok()
    assert labels(collector.spans) == labels(read_files([path])) == {"work": 7}


def test_the_console_gives_up_spans_where_nobody_reads_stderr():
    code = 'make("work", 5)\nflush()\nprint(counts()["lost"]["file"])'
    env = {**ON, "OTEL_TRACES_EXPORTER": "console"}
    assert run_python(SPANS + FLUSH + UNREAD_STDERR + code, env=env).ok().stdout == "5\n"


@pytest.mark.parametrize("exporter", ["console", "otlp"])
def test_a_file_of_the_application_that_took_the_number_of_stderr_holds_nothing_of_ours(
    tmp_path, bad_endpoint, exporter: str
):
    endpoint = bad_endpoint()
    endpoint.close()
    code = f"""
os.close(2)
file = open({str(tmp_path / "data")!r}, "wb", buffering=0)
assert file.fileno() == 2
make("work", 5)
flush()
file.write(b"data")
"""
    env = endpoint.env(**ON, OTEL_TRACES_EXPORTER=exporter)
    run_python(SPANS + FLUSH.replace("20", "1") + code, env=env).ok()
    assert (tmp_path / "data").read_bytes() == b"data"


def test_a_file_that_was_renamed_or_deleted_is_made_again(tmp_path):
    path, old = tmp_path / "spans.jsonl", tmp_path / "spans.jsonl.1"
    code = f"""
make("first")
flushed()
os.rename({str(path)!r}, {str(old)!r})
make("second")
flushed()
assert os.path.exists({str(path)!r})
os.rename({str(path)!r}, {str(tmp_path / "spans.jsonl.2")!r})
open({str(path)!r}, "w").close()
make("third")
flushed()
os.unlink({str(path)!r})
make("fourth")
"""
    env = {**ON, "OTEL_TRACES_EXPORTER": "otlp_file", "REMORA_OTLP_FILE": str(path)}
    assert run_python(SPANS + code, env=env).ok().stderr == ""
    assert labels(read_files([old])) == {"first": 1}
    assert labels(read_files([tmp_path / "spans.jsonl.2"])) == {"second": 1}
    assert labels(read_files([path])) == {"fourth": 1}


def test_a_relative_file_stays_where_it_is_when_the_application_goes_elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    code = 'make("first")\nflushed()\nos.chdir("elsewhere")\nmake("second")'
    env = {**ON, "OTEL_TRACES_EXPORTER": "otlp_file", "REMORA_OTLP_FILE": "spans.jsonl"}
    run_python(SPANS + code, env=env, cwd=tmp_path).ok()
    assert labels(read_files([tmp_path / "spans.jsonl"])) == {"first": 1, "second": 1}


def test_a_fifo_that_nobody_reads_is_one_line_and_counted(tmp_path):
    os.mkfifo(tmp_path / "spans")
    env = {**ON, "OTEL_TRACES_EXPORTER": "otlp_file", "REMORA_OTLP_FILE": str(tmp_path / "spans")}
    result = run_python(SPANS + FLUSH + 'make("work", 5)\nflush()\nmake("work", 5)', env=env).ok()
    why, lost = [line for line in result.agent_lines if "spans lost" not in line], result.agent_lines[-1]
    assert len(why) == 1, result.stderr
    assert lost == "remora: 10 spans lost (file=10), 0 sent"


def test_a_fifo_that_is_read_gets_whole_lines(tmp_path):
    os.mkfifo(tmp_path / "spans")
    code = f"""
lines = []
def read():
    with open({str(tmp_path / "spans")!r}) as file:
        lines.extend(file)
threading.Thread(target=read, daemon=True).start()
# A reader before the first line is written.
holder = os.open({str(tmp_path / "spans")!r}, os.O_WRONLY)
make("work", 2000)
flushed()
os.close(holder)
make("more")
flushed()
print(counts()["sent"])
import json
def spans():
    found = 0
    for line in list(lines):
        for resource in json.loads(line)["resourceSpans"]:
            found += sum(len(scope["spans"]) for scope in resource["scopeSpans"])
    return found
until(lambda: spans() == 2001)
"""
    env = {**ON, "OTEL_TRACES_EXPORTER": "otlp_file", "REMORA_OTLP_FILE": str(tmp_path / "spans")}
    assert run_python(SPANS + code, env=env).ok().stdout == "2001\n"
