"""Starting costs few modules, happens once, and reaches every kind of child."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from support.process import run, run_python
from support.pythons import SUPPORTED, on, on_every_python

from .conftest import package_of

ACTIVE = "import sys; r = sys.modules.get('remora'); print(bool(r and r.status()['active']))"
MODULES = "import sys; print(*sorted(sys.modules))"
NATIVE = {"remora", "remora._native"}
OURS = NATIVE | {"atexit"}
# Never imported by us: dear, or harmful before the application (gevent) has patched them.
FOREIGN = {
    "ssl",
    "socket",
    "threading",
    "logging",
    "json",
    "importlib.metadata",
    "typing",
    "flask",
    "requests",
    "sqlite3",
}
# Whether a child is covered, as a program of its own.
REPORT = """
import sys
def report():
    r = sys.modules.get('remora')
    return bool(r and r.status()['active'])
"""


def added(result, expected):
    return set(result.ok().stdout.split()) - set(expected.ok().stdout.split())


@on_every_python
def test_sitecustomize_adds_its_own_modules_only(python, tmp_path):
    autoload = package_of(python.exe) / "autoload"
    # Without the .pth file, as in an injected folder.
    root = tmp_path / "folder"
    shutil.copytree(autoload.parent, root / "remora")
    env = {"PYTHONPATH": str(root / "remora" / "autoload"), "REMORA_ENABLED": "true"}
    base = run([python, "-c", "import sys; print(sys.base_prefix)"]).stdout.strip()
    bare = Path(base) / "bin" / f"python{python.version}"
    more = added(run([bare, "-c", MODULES], env=env), run([bare, "-c", MODULES]))
    assert NATIVE <= more <= OURS


@on_every_python
def test_the_pth_file_adds_its_own_modules_only(python):
    more = added(run([python, "-c", MODULES], env={"REMORA_ENABLED": "true"}), run([python, "-c", MODULES]))
    assert NATIVE <= more <= OURS


def test_with_every_way_in_at_most_six_modules_more(way):
    more = added(way.run(way.python, "-c", MODULES), run([way.python, "-c", MODULES]))
    assert more >= NATIVE
    assert len(more) <= 6
    assert not more & FOREIGN


@on_every_python
def test_import_remora_alone_activates_nothing(python):
    result = run(
        [
            python,
            "-c",
            f"import sys; old = set(sys.modules)\nimport remora\n{ACTIVE}\nprint(*set(sys.modules) - old)",
        ]
    )
    active, modules = result.ok().stdout.splitlines()
    assert active == "False"
    assert set(modules.split()) <= OURS


@on_every_python
def test_import_remora_auto_activates(python):
    assert (
        run([python, "-c", f"import remora.auto\n{ACTIVE}\nprint(r.status()['origin'])"]).ok().stdout
        == "True\nauto\n"
    )


@on(SUPPORTED[-1])
def test_init_activates_under_lazy_imports(python):
    result = run([python, "-X", "lazy_imports=all", "-c", f"import remora\nremora.init()\n{ACTIVE}"])
    assert result.ok().stdout == "True\n"


@on(SUPPORTED[-1])
def test_sitecustomize_and_pth_act_under_lazy_imports(python, injection):
    for env in ({}, {"PYTHONPATH": str(package_of(python.exe) / "autoload")}):
        result = run([python, "-X", "lazy_imports=all", "-c", ACTIVE], env={"REMORA_ENABLED": "true"} | env)
        assert result.ok().stdout == "True\n"


def test_the_public_names_are_those_of_the_design():
    code = "import remora; print(*sorted(remora.__all__)); [getattr(remora, name) for name in remora.__all__]"
    names = [
        "Config",
        "Patch",
        "__version__",
        "config",
        "config_from_env",
        "current_span_id",
        "current_trace_id",
    ]
    names += ["flush", "init", "patch", "span", "status", "trace", "traced", "when_imported"]
    assert run([sys.executable, "-c", code]).ok().stdout.split() == names


def test_typing_is_imported_only_for_who_asks_for_config():
    code = "import sys, remora; print('typing' in sys.modules); remora.Config; print('typing' in sys.modules)"
    assert run([sys.executable, "-c", code]).ok().stdout == "False\nTrue\n"


def test_an_unknown_name_imports_nothing():
    code = (
        "import sys, remora; old = set(sys.modules); print(hasattr(remora, 'nope'), set(sys.modules) - old)"
    )
    assert run([sys.executable, "-c", code]).ok().stdout == "False set()\n"


@pytest.mark.parametrize("flags", [("-E",), ("-I",), ("-s",), ("-P",), ("-B", "-O")])
def test_the_pth_file_reaches_what_pythonpath_does_not(flags):
    assert run([sys.executable, *flags, "-c", ACTIVE], env={"REMORA_ENABLED": "true"}).ok().stdout == "True\n"


@pytest.mark.parametrize("flags", [("-E",), ("-I",)])
def test_remora_run_reaches_a_python_that_does_not_heed_pythonpath(flags):
    launcher = str(Path(sys.executable).parent / "remora")
    command = [launcher, "run", sys.executable, *flags, "-c", ACTIVE]
    assert run(command, env={"REMORA_ENABLED": None}).ok().stdout == "True\n"
    assert run([*command[:2], "--enabled", "false", *command[2:]]).ok().stdout == "False\n"


def test_without_site_nothing_is_loaded_and_nothing_breaks(way):
    result = way.run_python(ACTIVE, "-S").ok()
    assert (result.stdout, result.stderr) == ("False\n", "")


@on_every_python
@pytest.mark.parametrize("value", [None, "", " ", "false", "False"])
def test_the_pth_file_is_inert_unless_enabled(python, value):
    import_time = run([python, "-X", "importtime", "-c", MODULES], env={"REMORA_ENABLED": value}).ok()
    assert "remora" not in import_time.stdout
    assert "remora" not in import_time.stderr


@pytest.mark.parametrize("value", ["0", "1", "no", "yes"])
def test_the_pth_file_says_in_one_line_what_is_neither_yes_nor_no(value):
    result = run([sys.executable, "-c", MODULES], env={"REMORA_ENABLED": value}).ok()
    assert "remora" not in result.stdout
    assert result.stderr == f"remora: REMORA_ENABLED={value} is neither true nor false; using false\n"


@pytest.mark.parametrize("value", ["1", "no"])
def test_what_is_neither_yes_nor_no_keeps_init_out_as_well(value):
    result = run([sys.executable, "-I", "-c", f"import remora.auto\n{ACTIVE}"], env={"REMORA_ENABLED": value})
    assert result.ok().stdout == "False\n"


@on_every_python
def test_the_pth_file_minds_no_path_object_on_sys_path(python):
    code = (
        "import pathlib, site, sys, sysconfig\nsys.path.insert(0, pathlib.Path('/somewhere'))\n"
        f"site.addsitedir(sysconfig.get_path('platlib'))\n{ACTIVE}"
    )
    for value, active in (("true", "True\n"), (None, "False\n")):
        result = run([python, "-c", code], env={"REMORA_ENABLED": value}).ok()
        assert (result.stdout, result.stderr) == (active, "")


def test_a_sitecustomize_in_front_of_ours_does_not_keep_the_agent_out(site_folder):
    folder = site_folder(sitecustomize="print('mine')")
    launcher = Path(sys.executable).parent / "remora"
    code = f"{ACTIVE}; print([p for p in (*sys.path, *sys.path_importer_cache) if 'autoload' in p])"
    script = f'PYTHONPATH="{folder}:$PYTHONPATH" exec "{sys.executable}" -c "$1"'
    result = run([launcher, "run", "sh", "-c", script, "sh", code], env={"REMORA_ENABLED": None}).ok()
    assert (result.stdout, result.stderr) == ("mine\nTrue\n[]\n", "")


@pytest.mark.parametrize("value", [None, "true"])
def test_once_activated_stays_so_where_the_pth_file_comes_second(injection, bare_python, value):
    """The folder is injected; a site folder with the wheel is added by the application."""
    installed = package_of(Path(sys.executable)).parent
    code = (
        f"import site\nsite.addsitedir({str(installed)!r})\n{ACTIVE}\n"
        "print(r.status()['origin'], len([f for f in sys.meta_path if 'emora' in repr(type(f))]) <= 1)"
    )
    launcher = injection / "bin" / "remora"
    result = run([launcher, "run", bare_python, "-c", code], env={"REMORA_ENABLED": value}).ok()
    assert (result.stdout, result.stderr) == ("True\nsitecustomize True\n", "")


def test_the_pth_file_is_one_import_line():
    text = (package_of(Path(sys.executable)).parent / "remora.pth").read_text()
    assert text.startswith("import ")
    assert text.count("\n") == 1


@pytest.fixture
def site_with_pth(tmp_path, bare_python):
    """A user site with the package and remora.pth, to break without harm."""
    env = {"PYTHONUSERBASE": str(tmp_path / "user"), "REMORA_ENABLED": "true"}
    folder = Path(
        run([bare_python, "-m", "site", "--user-site"], env=env | {"REMORA_ENABLED": None}).stdout.strip()
    )
    folder.mkdir(parents=True)
    installed = package_of(Path(sys.executable))
    shutil.copytree(installed, folder / "remora")
    shutil.copy(installed.parent / "remora.pth", folder)
    return folder, env


def test_a_user_site_is_reached(site_with_pth, bare_python):
    assert run([bare_python, "-c", ACTIVE], env=site_with_pth[1]).ok().stdout == "True\n"


def test_a_pth_file_left_behind_is_silent(site_with_pth, bare_python):
    folder, env = site_with_pth
    shutil.rmtree(folder / "remora")
    result = run([bare_python, "-c", ACTIVE], env=env).ok()
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_a_broken_package_is_one_line(site_with_pth, bare_python):
    folder, env = site_with_pth
    for extension in folder.glob("remora/_native*"):
        extension.unlink()
    result = run([bare_python, "-c", "print(1)"], env=env).ok()
    assert result.stdout == "1\n"
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("remora: not active")


def test_twice_activated_is_once_activated(way):
    code = f"import remora.auto\nimport remora\nremora.init()\n{ACTIVE}; print(r.status()['origin'])"
    result = way.run_python(code).ok()
    active, origin = result.stdout.splitlines()
    assert active == "True"
    assert origin in ("pth", "sitecustomize")
    assert result.stderr == ""


def test_one_hook_only(way):
    code = "import remora.auto, sys; print(sum('emora' in repr(type(finder)) for finder in sys.meta_path))"
    assert way.run_python(code).ok().stdout in ("0\n", "1\n")


@pytest.mark.parametrize("form", ["script", "shebang", "module", "sh", "env", "stdin", "folder"])
def test_every_form_of_command_is_covered(way, tmp_path, form):
    program = tmp_path / "program.py"
    program.write_text(f"#!{way.python}\n{ACTIVE}\n")
    program.chmod(0o755)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(ACTIVE)
    command, stdin = {
        "script": ([way.python, program], ""),
        "shebang": ([program], ""),
        "module": ([way.python, "-m", "program"], ""),
        "sh": (["sh", "-c", f'cd / && "{way.python}" "{program}"'], ""),
        "env": (["env", "X=1", way.python, program], ""),
        "stdin": ([way.python, "-"], ACTIVE),
        "folder": ([way.python, tmp_path / "folder"], ""),
    }[form]
    result = run([way.launcher, "run", *command], cwd=tmp_path, stdin=stdin).ok()
    assert (result.stdout, result.stderr) == ("True\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_children_of_multiprocessing_are_covered(way, tmp_path, method):
    (tmp_path / "child.py").write_text(REPORT)
    (tmp_path / "program.py").write_text(
        "import multiprocessing, child\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context({method!r}).Pool(1) as pool:\n"
        "        print(child.report(), pool.apply(child.report))\n"
    )
    result = way.run(way.python, tmp_path / "program.py", cwd=tmp_path, timeout=50).ok()
    assert result.stdout == "True True\n"


def test_children_of_subprocess_are_covered(way):
    code = (
        "import subprocess, sys\n"
        f"print(subprocess.check_output([sys.executable, '-c', {ACTIVE!r}]).decode(), end='')"
    )
    assert way.run_python(code).ok().stdout == "True\n"


def test_a_child_with_the_agent_disabled_stays_out(way):
    code = (
        "import os, subprocess, sys\n"
        f"print(subprocess.check_output([sys.executable, '-c', {ACTIVE!r}], "
        "env=os.environ | {'REMORA_ENABLED': 'false'}).decode(), end='')"
    )
    assert way.run_python(code).ok().stdout == "False\n"


INTERPRETERS = """
import sys
try:
    import _interpreters as i
except ImportError:
    import _xxsubinterpreters as i
CODE = '''
import sys, os
import remora, remora.auto
@remora.traced
def f(): return 1
with remora.span("x", a=1):
    assert f() == 1
remora.when_imported("json")(print)
assert remora.patch("json?", "dumps", print).applied is False
assert remora.trace("json?", "dumps").remove() is None
assert remora.current_trace_id() is None and remora.init() is False
os.write(1, str(remora.status()["active"]).encode() + bytes([10]))
'''
for _ in range(3):
    new = i.create()
    failed = i.run_string(new, CODE)
    assert failed is None, failed
    i.destroy(new)
"""


@on_every_python
def test_in_a_sub_interpreter_the_names_are_there_and_one_line_says_that_we_stay_out(python):
    result = run([python, "-c", INTERPRETERS], env={"REMORA_ENABLED": "true"}).ok()
    assert result.stdout == "False\n" * 3
    assert len(result.agent_lines) == 1, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


def test_import_time_is_ours_alone(way):
    """What `-X importtime` lists more than in a bare Python."""

    def listed(result):
        return {line.rsplit("|", 1)[1].strip() for line in result.stderr.splitlines() if "|" in line}

    with_agent = listed(way.run(way.python, "-X", "importtime", "-c", "pass").ok())
    bare = listed(run([way.python, "-X", "importtime", "-c", "pass"]).ok())
    assert with_agent - bare <= OURS | {"remora.auto", "sitecustomize"}


def test_status_can_be_written_as_json(way):
    result = way.run_python("import json, remora; print(json.dumps(remora.status()))").ok()
    assert json.loads(result.stdout)["pid"] > 1
    assert os.getpid() != json.loads(result.stdout)["pid"]


@pytest.mark.parametrize("module", ["ddtrace.bootstrap.sitecustomize", "newrelic.agent"])
def test_beside_another_agent_it_stays_out_unless_it_is_forced(module: str) -> None:
    code = f"""
import sys
import types
sys.modules[{module!r}] = types.ModuleType({module!r})
import remora
print(remora.init())
"""
    result = run_python(code).ok()
    assert result.stdout == "False\n"
    (line,) = result.agent_lines
    assert line.startswith(f"remora: {module.partition('.')[0]} is active in this process: remora stays out")
    forced = run_python(code, env={"REMORA_FORCE": "true", "OTEL_TRACES_EXPORTER": "none"}).ok()
    assert (forced.stdout, forced.agent_lines) == ("True\n", [])
