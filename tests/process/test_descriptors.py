"""Descriptors: none of ours is in the application's table, and what it does with its own is not felt by us."""

import signal

import pytest
from support.bad_endpoint import Hang
from support.process import run_python
from support.programs import SPANS, labels
from support.pythons import Python, on_oldest_and_newest

# What the kernel says before Linux 5.9, or a filter such as a container's.
REFUSE_CLOSE_RANGE = """
import ctypes

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

def instruction(code, value, yes=0, no=0):
    return code.to_bytes(2, "little") + bytes([yes, no]) + value.to_bytes(4, "little")

# Load the call's number; is it 436? Then EPERM, else allow.
text = (
    instruction(0x20, 0)
    + instruction(0x15, 436, 0, 1)
    + instruction(0x06, 0x00050001)
    + instruction(0x06, 0x7FFF0000)
)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
assert libc.prctl(22, 2, ctypes.byref(Program(4, text))) == 0, ctypes.get_errno()
"""
# The journal's is one.
SOCKET_AS_STDERR = """
import socket
stderr, reads_it = socket.socketpair()
os.dup2(stderr.fileno(), 2)
"""
FILE_AS_STDERR = """
import tempfile
file = tempfile.TemporaryFile()
os.dup2(file.fileno(), 2)
"""
READ_SOCKET = "reads_it.recv(9999)"
READ_FILE = "os.pread(2, 9999, 0)"


@on_oldest_and_newest
def test_no_descriptor_of_ours_is_in_the_applications_table(collector, python: Python):
    code = """
def numbers():
    return sorted(os.listdir("/proc/self/fd"))

before = numbers()
make("first", 10)
flushed()
assert numbers() == before, (before, numbers())
"""
    env = collector.env(REMORA_ENABLED="true")
    run_python(SPANS + code, python=python, env=env).ok()
    assert labels(collector.spans) == {"first": 10}


@on_oldest_and_newest
def test_what_an_application_closes_by_number_is_its_own(collector, tmp_path, python: Python):
    code = f"""
make("before", 5)
flushed()
_db.close()
os.closerange(3, 4096)
files = [open(f"{tmp_path}/{{n}}", "wb+", buffering=0) for n in range(20)]
_db = sqlite3.connect(":memory:")
make("after", 5)
flushed()
for file in files:
    assert file.read() == b""
"""
    result = run_python(SPANS + code, python=python, env=collector.env(REMORA_ENABLED="true")).ok()
    assert result.stderr == ""
    assert labels(collector.spans) == {"before": 5, "after": 5}


def test_where_the_kernel_gives_no_table_the_spans_go_all_the_same(collector):
    code = (
        REFUSE_CLOSE_RANGE
        + """
make("first", 3)
flushed()
"""
    )
    assert run_python(SPANS + code, env=collector.env(REMORA_ENABLED="true")).ok().stderr == ""
    assert labels(collector.spans) == {"first": 3}


@pytest.mark.parametrize(
    ("stderr", "read"), [(SOCKET_AS_STDERR, READ_SOCKET), (FILE_AS_STDERR, READ_FILE)], ids=["socket", "file"]
)
def test_a_stderr_that_cannot_be_opened_by_name_gets_our_lines(bad_endpoint, stderr: str, read: str):
    endpoint = bad_endpoint()
    endpoint.close()
    code = f"""
signal.alarm(20)
make("lost", 3)
while b"cannot reach" not in {read}:
    pass
os.write(2, b"and the application's")
assert {read}.endswith(b"and the application's")
"""
    env = endpoint.env(REMORA_ENABLED="true", OTEL_BSP_SCHEDULE_DELAY="10")
    run_python(SPANS + stderr + code, env=env).ok()


def test_an_application_without_a_free_descriptor_is_traced(collector):
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
make("full", 5)
while held:
    os.close(held.pop())
flushed()
"""
    result = run_python(SPANS + code, env=collector.env(REMORA_ENABLED="true", OTEL_BSP_SCHEDULE_DELAY="10"))
    assert result.ok().stderr == ""
    assert labels(collector.spans) == {"full": 5}


def test_what_the_application_closes_is_closed_while_we_work(collector):
    # A daemon lets go of its standard streams: who reads them must see their end.
    code = """
reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(writer)
make("first", 5)
flushed()
os.close(1)
signal.alarm(20)
assert os.read(reader, 1) == b""
make("second", 5)
flushed()
"""
    run_python(SPANS + code, env=collector.env(REMORA_ENABLED="true")).ok()
    assert labels(collector.spans) == {"first": 5, "second": 5}


def test_our_lines_go_to_the_stderr_of_the_moment(bad_endpoint, tmp_path):
    endpoint = bad_endpoint()
    endpoint.close()
    code = f"""
import remora
def failed(times):
    until(lambda: remora.status()["export"]["failures"] >= times)
file = os.open("{tmp_path}/second", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
first = os.dup(2)
os.dup2(file, 2)
make("lost", 5)
failed(1)
os.dup2(first, 2)
os.close(file)
"""
    env = endpoint.env(REMORA_ENABLED="true", OTEL_BSP_SCHEDULE_DELAY="10")
    result = run_python(SPANS + code, env=env)
    assert "cannot reach" in (tmp_path / "second").read_text()
    assert result.agent_lines == ["remora: 5 spans lost (exit=5), 0 sent"]


def test_a_file_that_python_opened_as_descriptor_2_gets_no_line(bad_endpoint, tmp_path):
    endpoint = bad_endpoint()
    endpoint.close()
    code = f"""
import remora
os.close(2)
file = open("{tmp_path}/own", "w")
assert file.fileno() == 2
make("lost", 5)
until(lambda: remora.status()["export"]["failures"])
file.write("its own")
"""
    env = endpoint.env(REMORA_ENABLED="true", OTEL_BSP_SCHEDULE_DELAY="10")
    assert run_python(SPANS + code, env=env).returncode == 0
    assert (tmp_path / "own").read_text() == "its own"


def test_a_signal_while_the_exporter_waits_for_a_receiver_is_answered(traced, bad_endpoint):
    code = """
make("pending", 3)
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(30)
"""
    env = bad_endpoint(Hang()).env(OTEL_BSP_SCHEDULE_DELAY="10", REMORA_EXIT_TIMEOUT="200")
    result = traced(SPANS + code, env=env)
    assert result.returncode == -signal.SIGTERM
    assert result.agent_lines[-1] == "remora: 3 spans lost (exit=3), 0 sent"
