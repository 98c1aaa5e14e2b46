"""Signals: SIGTERM at its default flushes and kills; what application or host have set up stays."""

import os
import signal

import pytest
from support.bad_endpoint import Hang
from support.process import run_python
from support.programs import SPANS, UNREAD_STDERR, labels
from support.pythons import Python, on_every_python, on_oldest_and_newest

TERM = "\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(30)\n"


@on_every_python
def test_sigterm_at_its_default_sends_what_is_pending_and_kills(traced, python: Python):
    code = 'make("pending", 5)\nassert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL'
    result = traced(SPANS + code + TERM, python=python)
    assert result.returncode == -signal.SIGTERM
    assert result.stderr == ""
    assert labels(result.spans) == {"pending": 5}
    # The schedule (5 s) was not waited for, nor the sleep.
    assert result.seconds < 5


def test_sigterm_before_the_first_span_kills_at_once(traced):
    result = traced(SPANS + TERM)
    assert result.returncode == -signal.SIGTERM
    assert result.stderr == ""


def test_sigterm_during_a_long_computation_and_with_threads(traced):
    code = """
threading.Thread(target=time.sleep, args=(30,)).start()
make("pending")
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
while True:
    sum(range(1000))
"""
    result = traced(SPANS + code)
    assert result.returncode == -signal.SIGTERM
    assert labels(result.spans) == {"pending": 1}


def test_sigterm_flush_can_be_switched_off(traced):
    result = traced(SPANS + 'make("pending")' + TERM, env={"REMORA_SIGTERM_FLUSH": "false"})
    assert result.returncode == -signal.SIGTERM
    assert result.spans == []
    assert result.seconds < 5


@on_oldest_and_newest
def test_a_handler_of_the_application_is_the_only_one(traced, python: Python):
    code = """
def handler(number, frame):
    make("handler")
    print("handled", number)
    sys.exit(7)
assert signal.signal(signal.SIGTERM, handler) is signal.SIG_DFL
make("pending")
"""
    result = traced(SPANS + code + TERM, python=python)
    assert (result.returncode, result.stdout) == (7, "handled 15\n")
    assert labels(result.spans) == {"pending": 1, "handler": 1}


@on_oldest_and_newest
def test_a_handler_set_before_the_agent_comes_stays(traced, python: Python):
    code = """
import signal, sys
def handler(number, frame):
    sys.exit(7)
signal.signal(signal.SIGTERM, handler)
import remora._native
assert remora._native.activate("init")
assert signal.getsignal(signal.SIGTERM) is handler
"""
    result = traced(code + SPANS + 'make("pending")' + TERM, python=python, env={"REMORA_ENABLED": None})
    assert result.returncode == 7
    assert labels(result.spans) == {"pending": 1}


def test_an_ignored_sigterm_stays_ignored(traced):
    code = """
import subprocess, sys
inner = "import signal, os; os.kill(os.getpid(), 15); print(signal.getsignal(15) is signal.SIG_IGN)"
ignore = lambda: __import__("signal").signal(15, __import__("signal").SIG_IGN)
print(subprocess.run([sys.executable, "-c", inner], preexec_fn=ignore, capture_output=True, text=True))
"""
    result = traced(code).ok()
    assert "returncode=0" in result.stdout
    assert "True" in result.stdout


PUT_BACK = {
    "signal.signal": "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
    "a name of before": "put(signal.SIGTERM, signal.SIG_DFL)",
    "numbers": "signal.signal(15, 0)",
    "_signal": "import _signal; _signal.signal(15, _signal.SIG_DFL)",
}


@on_oldest_and_newest
@pytest.mark.parametrize("put_back", PUT_BACK.values(), ids=PUT_BACK)
def test_sigterm_put_back_to_its_default_flushes_and_kills(traced, python: Python, put_back: str):
    code = f"""
from signal import signal as put
handler = lambda *_: None
signal.signal(signal.SIGTERM, handler)
os.kill(os.getpid(), signal.SIGTERM)
{put_back}
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
make("pending", 3)
"""
    result = traced(SPANS + code + TERM, python=python)
    assert result.returncode == -signal.SIGTERM
    assert result.stderr == ""
    assert labels(result.spans) == {"pending": 3}
    assert result.seconds < 5


@on_oldest_and_newest
def test_nothing_of_the_application_runs_after_a_signal_that_it_raises_itself(traced, python: Python):
    code = """
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
make("pending")
atexit.register(print, "at exit")
try:
    signal.raise_signal(signal.SIGTERM)
finally:
    print("afterwards")
"""
    result = traced(SPANS + code, python=python)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGTERM, "", "")
    assert labels(result.spans) == {"pending": 1}


def test_a_raised_sigterm_kills_in_time_with_a_silent_collector(traced, bad_endpoint):
    code = 'make("pending", 3)\nsignal.raise_signal(signal.SIGTERM)\nprint("afterwards")'
    env = bad_endpoint(Hang()).env(OTEL_BSP_SCHEDULE_DELAY="60000", REMORA_EXIT_TIMEOUT="200")
    result = traced(SPANS + code, env=env)
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, "")
    assert result.agent_lines[-1] == "remora: 3 spans lost (exit=3), 0 sent"


def test_sigterm_put_back_before_the_agent_comes_or_with_the_flush_off_is_not_ours(traced):
    code = """
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
make("pending")
"""
    result = traced(SPANS + code + TERM, env={"REMORA_SIGTERM_FLUSH": "false"})
    assert (result.returncode, result.spans) == (-signal.SIGTERM, [])


@on_oldest_and_newest
def test_signal_signal_answers_and_refuses_as_without_us(traced, python: Python):
    code = """
import inspect, _signal
handler = lambda *_: None
class Number(int):
    def __index__(self):
        raise AssertionError
print(signal.signal(15, handler), signal.signal(Number(15), signal.SIG_IGN) is handler)
print(repr(signal.signal(signalnum=signal.SIGTERM, handler=signal.SIG_DFL)), repr(signal.getsignal(15)))
for arguments in [(), (15,), (15, 7), ("15", handler), (1000, handler), (9, signal.SIG_DFL), (15, 0, 1)]:
    for function in (signal.signal, _signal.signal):
        try:
            print(repr(function(*arguments)))
        except Exception as error:
            print(type(error), error)
thread = threading.Thread(target=lambda: signal.signal(15, 0))
threading.excepthook = lambda args: print(args.exc_value)
thread.start()
thread.join()
print(inspect.signature(signal.signal), vars(signal.signal).keys())
print(_signal.signal.__class__, _signal.signal, inspect.isbuiltin(_signal.signal))
"""
    with_us = traced(SPANS + code, python=python).ok()
    bare = run_python(SPANS + code, python=python).ok()
    assert with_us.stdout == bare.stdout
    assert "signal only works in main thread" in bare.stdout


def test_a_blocked_sigterm_can_be_waited_for(traced):
    code = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
make("pending")
os.kill(os.getpid(), signal.SIGTERM)
print(signal.sigwait({signal.SIGTERM}))
"""
    result = traced(SPANS + code).ok()
    assert "SIGTERM" in result.stdout or "15" in result.stdout
    assert labels(result.spans) == {"pending": 1}


def test_asyncio_handles_sigterm_as_without_us(traced):
    code = """
import asyncio
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    make("pending")
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    print("stopped")
asyncio.run(main())
"""
    result = traced(SPANS + code).ok()
    assert result.stdout == "stopped\n"
    assert labels(result.spans) == {"pending": 1}


@on_oldest_and_newest
def test_a_forked_child_and_its_parent_both_flush_at_sigterm(traced, python: Python):
    code = """
make("parent")
pid = os.fork()
make("parent" if pid else "child")
if pid:
    until(lambda: open(f"/proc/{pid}/stat").read().split()[2] == "S")
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == signal.SIGTERM
    os.kill(os.getpid(), signal.SIGTERM)
time.sleep(30)
"""
    result = traced(SPANS + code, python=python)
    assert result.returncode == -signal.SIGTERM
    assert labels(result.spans) == {"parent": 2, "child": 1}


@on_oldest_and_newest
def test_keyboard_interrupt_is_as_without_us(traced, python: Python):
    code = 'make("pending")\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n'
    with_us, bare = traced(SPANS + code, python=python), run_python(SPANS + code, python=python)
    assert with_us.returncode == bare.returncode == -signal.SIGINT
    assert with_us.stderr == bare.stderr
    assert "KeyboardInterrupt" in bare.stderr
    assert labels(with_us.spans) == {"pending": 1}


def test_no_signal_is_ever_delivered_to_our_thread_and_no_other_thread_blocks_any(traced):
    code = """
make("pending")
flushed()
blocked = {}
for task in os.listdir("/proc/self/task"):
    name = open(f"/proc/self/task/{task}/comm").read().strip()
    lines = open(f"/proc/self/task/{task}/status").read().splitlines()
    blocked[name == "remora-export"] = next(line.split()[1] for line in lines if line.startswith("SigBlk"))
assert blocked[False] == "0" * 16, blocked
# SIGKILL, SIGSTOP and two of the C library's own cannot be blocked.
assert int(blocked[True], 16) | 1 << 8 | 1 << 18 | 3 << 31 == (1 << 64) - 1, blocked
"""
    traced(SPANS + code).ok()


def test_every_other_disposition_is_as_without_us(traced):
    code = """
make("pending")
fields = [line for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
# But for SIGTERM, and what the C library keeps for its threads.
print([hex(int(field.split()[1], 16) & ~(1 << 14 | 3 << 31)) for field in fields])
print([str(signal.getsignal(number)) for number in sorted(signal.valid_signals())])
"""
    assert traced(SPANS + code).ok().stdout == run_python(SPANS + code).ok().stdout


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_sigterm_with_the_collector_down_still_kills_in_time(traced, bad_endpoint, silent: bool):
    endpoint = bad_endpoint(Hang())
    if not silent:
        endpoint.close()
    result = traced(SPANS + 'make("pending", 3)' + TERM, env=endpoint.env(OTEL_BSP_SCHEDULE_DELAY="60000"))
    assert result.returncode == -signal.SIGTERM
    assert result.agent_lines[-1] == "remora: 3 spans lost (exit=3), 0 sent"
    # 2 s or 0.3 s, and a slow machine.
    assert result.seconds < (5 if silent else 3)


@pytest.mark.parametrize("exporter", ["console", "otlp"])
def test_sigterm_kills_where_nobody_reads_stderr(traced, bad_endpoint, exporter: str):
    endpoint = bad_endpoint()
    endpoint.close()
    code = """
import remora
make("pending", 5)
until(lambda: remora.status()["export"]["failures"])
"""
    env = endpoint.env(OTEL_TRACES_EXPORTER=exporter)
    result = traced(SPANS + UNREAD_STDERR + code + TERM, env=env)
    assert result.returncode == -signal.SIGTERM


def test_sigterm_kills_parent_and_child_where_the_exporter_hangs(traced, tmp_path):
    # To read a certificate out of a FIFO is to wait for somebody who writes one.
    os.mkfifo(tmp_path / "ca.pem")
    code = """
make("parent")
child = os.fork()
make("either")
if child:
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
    os.kill(os.getpid(), signal.SIGTERM)
time.sleep(30)
"""
    env = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem"),
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "REMORA_EXIT_TIMEOUT": "100",
    }
    assert traced(SPANS + code, env=env).returncode == -signal.SIGTERM
