"""The launcher's variable is for the Pythons below the application, not for the application to see."""

import pytest
from support.process import run
from support.pythons import on_every_python

from .conftest import package_of

# What a child says: the variable that it sees, and whether it is traced.
CHILD = """
import os, subprocess, sys
SAY = "import os, sys; print(os.environ.get('PYTHONPATH'), 'remora' in sys.modules)"
COMMAND = [sys.executable, "-c", SAY]
def ask(**options):
    said = subprocess.run(COMMAND, capture_output=True, text=True, check=True, **options).stdout
    print(said, end="", flush=True)
def wait(pid):
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.parametrize(("given", "seen"), [(None, None), ("/x", "/x"), ("/x:/y", "/x:/y"), ("/x:", "/x:")])
def test_the_application_sees_its_own_pythonpath(way, given, seen):
    code = "import os; print([os.environ.get('PYTHONPATH'), os.environb.get(b'PYTHONPATH')], len(os.environ))"
    env = {} if given is None else {"PYTHONPATH": given}
    result = way.run_python(code, env=env).ok()
    without = way.run_python(code, env={**env, "OTEL_SDK_DISABLED": "true"}).ok()
    expected = [seen, seen and seen.encode()]
    assert result.stdout.startswith(f"{expected} ")
    fewer = int(without.stdout.split()[-1]) - int(result.stdout.split()[-1])
    # Switched off, nothing of the process is touched; and it has the variable that switches it off.
    assert fewer == (2 if given is None else 1)


HANDED_ON = {
    "nothing": "ask()",
    "os.environ": "ask(env=os.environ)",
    "a copy": "ask(env=os.environ.copy())",
    "a copy with more": "ask(env={**os.environ, 'MORE': '1'})",
    "a copy with less": "ask(env={k: v for k, v in os.environ.items() if k != 'HOME'})",
    "bytes": "ask(env=dict(os.environb))",
    "the shell": "subprocess.run(COMMAND[0] + ' -c \"' + SAY + '\"', shell=True, check=True)",
    "os.system": "assert os.system(COMMAND[0] + ' -c \"' + SAY + '\"') == 0",
    "os.execve": "os.execve(COMMAND[0], COMMAND, os.environ)",
    "os.execve and a copy": "os.execve(COMMAND[0], COMMAND, dict(os.environ))",
    "os.execv": "os.execv(COMMAND[0], COMMAND)",
    "os.execvpe": "os.execvpe(COMMAND[0], COMMAND, os.environ.copy())",
    "os.posix_spawn": "wait(os.posix_spawn(COMMAND[0], COMMAND, os.environ))",
    "os.posix_spawnp": "wait(os.posix_spawnp(COMMAND[0], COMMAND, dict(os.environ)))",
    "os.spawnve": "assert os.spawnve(os.P_WAIT, COMMAND[0], COMMAND, dict(os.environ)) == 0",
    "asyncio": """
import asyncio
async def main():
    process = await asyncio.create_subprocess_exec(*COMMAND, env=dict(os.environ))
    assert await process.wait() == 0
asyncio.run(main())
""",
}


@pytest.mark.parametrize("how", HANDED_ON)
def test_a_child_that_gets_the_application_s_environment_is_traced(way, how):
    for given in (None, "/x"):
        env = {} if given is None else {"PYTHONPATH": given}
        result = way.run_python(CHILD + HANDED_ON[how], env=env).ok()
        assert (result.stdout, result.stderr) == (f"{given} True\n", "")


# An application that writes the variable itself, as one does that wants its children to find its modules.
@pytest.mark.parametrize(
    "how",
    [
        "ask()",
        "ask(env=os.environ)",
        "ask(env={**os.environ})",
        HANDED_ON["the shell"],
        HANDED_ON["os.system"],
        HANDED_ON["os.execv"],
    ],
)
def test_a_pythonpath_that_the_application_sets_stands_behind_ours(way, how):
    code = "os.environ['PYTHONPATH'] = ':'.join(filter(None, ['/mine', os.environ.get('PYTHONPATH')]))\n"
    assert way.run_python(CHILD + code + how).ok().stdout == "/mine True\n"
    result = way.run_python(CHILD + code + how, env={"PYTHONPATH": "/x"}).ok()
    assert result.stdout == "/mine:/x True\n"
    with_copy = CHILD + "ask(env={**os.environ, 'PYTHONPATH': '/mine'})"
    assert way.run_python(with_copy, env={"PYTHONPATH": "/x"}).ok().stdout == "/mine True\n"


@pytest.mark.parametrize("how", ["ask()", "ask(env=os.environ)", HANDED_ON["os.execv"]])
def test_a_pythonpath_that_the_application_deletes_leaves_ours(way, how):
    code = """
os.environ["PYTHONPATH"] = "/mine"
del os.environ["PYTHONPATH"]
os.putenv("REMORA_TEST_OTHER", "x")
os.unsetenv("REMORA_TEST_OTHER")
try:
    del os.environ["PYTHONPATH"]
except KeyError:
    pass
"""
    result = way.run_python(CHILD + code + how, env={"PYTHONPATH": "/x"}).ok()
    assert (result.stdout, result.stderr) == ("None True\n", "")


@pytest.mark.parametrize(
    "how",
    [
        "ask(env={})",
        "ask(env={'PATH': os.environ['PATH'], 'PYTHONPATH': '/clean'})",
        "os.execve(COMMAND[0], COMMAND, {'PYTHONPATH': '/clean'})",
        "wait(os.posix_spawn(COMMAND[0], COMMAND, {}))",
    ],
)
def test_a_child_that_starts_clean_stays_clean(way, how):
    many = {f"VARIABLE_{n}": "x" for n in range(8)}
    seen = "/clean" if "/clean" in how else None
    assert way.run_python(CHILD + how, env=many).ok().stdout == f"{seen} False\n"


def test_what_starts_processes_is_what_it_was(way):
    code = """
import inspect, os, posix, subprocess
for name in ("execve", "posix_spawn", "posix_spawnp", "putenv", "unsetenv"):
    ours, original = getattr(os, name), getattr(posix, name)
    assert ours == original and repr(ours) == repr(original) and hash(ours) == hash(original), name
    assert ours.__doc__ == original.__doc__ and inspect.isbuiltin(original), name
assert os.execve in os.supports_fd
for bad in ((), ("x",), ("x", [], {}, 1, 2), ("/nowhere", ["x"], {"A": "b"}), ("x", ["x"], 7), ("x", ["x"], {1: 2})):
    outcomes = []
    for execve in (os.execve, posix.execve):
        try:
            execve(*bad)
        except Exception as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1], outcomes
for name, all_bad in (
    ("putenv", [(), ("A",), ("A", 7), (7, "A"), ("A=B", "x"), ("A", "\\0"), ("PYTHONPATH", 7), ("PYTHONPATH", "\\0")]),
    ("unsetenv", [(), (7,), ("A=B",), ("PYTHONPATH\\0",), ("A", "B")]),
):
    for bad in all_bad:
        outcomes = []
        for function in (getattr(os, name), getattr(posix, name)):
            try:
                outcomes.append(function(*bad))
            except Exception as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1], (name, bad, outcomes)
class Odd(dict):
    def copy(self): raise RuntimeError
    def keys(self): raise KeyError("mine")
try:
    subprocess.run(["true"], env=Odd(os.environ))
except KeyError:
    pass
print("same")
"""
    assert way.run_python(code).ok().stdout == "same\n"


@on_every_python
@pytest.mark.parametrize("first", [False, True])
def test_on_every_interpreter_and_where_subprocess_was_there_first(python, tmp_path, first):
    code = """
getattr(os, "reload_environ", lambda: None)()
assert os.environ["PYTHONPATH"] == "/x"
ask(); ask(env={**os.environ, "MORE": "1"}); ask(env={})
os.execve(COMMAND[0], COMMAND, os.environ)
"""
    env = {
        "PYTHONPATH": f"{package_of(python.exe) / 'autoload'}:/x",
        **{f"VARIABLE_{n}": "x" for n in range(8)},
    }
    flags, code = [], CHILD + code
    if first:
        # As a `.pth` file of another package may do.
        flags, code = ["-S"], "import subprocess, site; site.main()\n" + code
    result = run([python, *flags, "-c", code], env=env).ok()
    assert result.stdout == "/x True\n/x True\nNone False\n/x True\n"


@on_every_python
def test_an_environment_that_is_read_anew_does_not_show_the_folder_either(python):
    code = "import os; getattr(os, 'reload_environ', lambda: None)(); print(os.environ.get('PYTHONPATH'))"
    result = run([python, "-c", code], env={"PYTHONPATH": str(package_of(python.exe) / "autoload")}).ok()
    assert (result.stdout, result.stderr) == ("None\n", "")


def test_an_environment_of_another_kind_is_left_as_it_is(way):
    code = """
import os, site
class Plain(dict): pass
os.environ = Plain(os.environ)
site.main()
import remora
print(remora.status()["active"], os.environ["PYTHONPATH"])
"""
    result = run([way.python, "-S", "-c", code], env={"PYTHONPATH": str(way.autoload)}).ok()
    assert (result.stdout, result.stderr) == (f"True {way.autoload}\n", "")
