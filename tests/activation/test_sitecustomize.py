"""The application's own `sitecustomize` and `usercustomize` are as without us."""

import os
from pathlib import Path

import pytest
from support.process import run

ACTIVE = "import sys; r = sys.modules.get('remora'); print(bool(r and r.status()['active']))"


def bare(way, *arguments, env):
    return run([way.python, *arguments], env=env)


def test_the_agent_is_active_before_the_first_line(way):
    assert way.run_python(ACTIVE).ok().stdout == "True\n"


def test_the_applications_own_runs_with_the_agent_active(way, site_folder):
    folder = site_folder(sitecustomize=f"print(__file__, __name__)\n{ACTIVE}\nvalue = 7\n")
    code = "import sitecustomize; print(sitecustomize.value, sitecustomize.__spec__.origin)"
    result = way.run_python(code, env={"PYTHONPATH": str(folder)}).ok()
    own = folder / "sitecustomize.py"
    assert result.stdout == f"{own} sitecustomize\nTrue\n7 {own}\n"


def test_without_one_of_its_own_none_is_loaded(way):
    code = "import sys; print('sitecustomize' in sys.modules)\nimport sitecustomize"
    result, expected = way.run_python(code), bare(way, "-c", code, env={})
    assert result.stdout == expected.stdout == "False\n"
    assert result.stderr.splitlines()[-1] == expected.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "text",
    [
        "raise RuntimeError('mine')",
        "import no_such_module_of_mine",
        "raise ImportError('mine', name='sitecustomize')",
        "this is no Python",
        "import sys; sys.modules.pop('sitecustomize')",
        "import sys; sys.modules['sitecustomize'] = sys",
        "import warnings; warnings.warn('mine')",
    ],
)
def test_its_faults_look_as_without_us(way, site_folder, text):
    env = {"PYTHONPATH": str(site_folder(sitecustomize=text))}
    result, expected = way.run_python("print(1)", env=env), bare(way, "-c", "print(1)", env=env)
    assert (result.returncode, result.stdout, result.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )


def test_its_exit_is_one_of_python_as_without_us(way, site_folder):
    # The traceback of this fatal error shows our file as well: it is what imports the application's.
    env = {"PYTHONPATH": str(site_folder(sitecustomize="raise SystemExit(5)"))}
    result, expected = way.run_python("print(1)", env=env), bare(way, "-c", "print(1)", env=env)
    assert (result.returncode, result.stdout) == (expected.returncode, expected.stdout)
    assert result.stderr.splitlines()[-1] == expected.stderr.splitlines()[-1]


def test_usercustomize_still_runs(bare_python, injection, tmp_path):
    folder = Path(
        run([bare_python, "-m", "site", "--user-site"], env={"PYTHONUSERBASE": str(tmp_path)}).stdout.strip()
    )
    folder.mkdir(parents=True)
    (folder / "usercustomize.py").write_text("print('mine')")
    launcher = injection / "bin" / "remora"
    result = run([launcher, "run", bare_python, "-c", ACTIVE], env={"PYTHONUSERBASE": str(tmp_path)}).ok()
    assert result.stdout == "mine\nTrue\n"


@pytest.mark.parametrize("form", ["{}", "{}/", "{}/.", "link", "twice"])
def test_our_folder_leaves_sys_path(way, tmp_path, form):
    autoload = str(way.autoload)
    if form == "link":
        (tmp_path / "autoload").symlink_to(autoload)
        entry = str(tmp_path / "autoload")
    else:
        entry = f"{autoload}:{autoload}/" if form == "twice" else form.format(autoload)
    env = {"PYTHONPATH": f"{entry}:/somewhere", "REMORA_ENABLED": "true"}
    code = "import sys; print([*sys.path, *(p for p in sys.path_importer_cache if 'autoload' in p)])"
    result = run([way.python, "-c", f"{ACTIVE}; {code}"], env=env).ok()
    expected = bare(way, "-c", code, env={"PYTHONPATH": "/somewhere"}).ok()
    assert result.stdout == "True\n" + expected.stdout


def test_the_folder_on_pythonpath_is_enough(way):
    for value in ("", "true", "True", None):
        env = {"PYTHONPATH": str(way.autoload), "REMORA_ENABLED": value}
        assert run([way.python, "-c", ACTIVE], env=env).ok().stdout == "True\n"


def test_a_folder_on_pythonpath_that_is_switched_off_does_nothing(way):
    for value in ("false", "FALSE", " False "):
        env = {"PYTHONPATH": str(way.autoload), "REMORA_ENABLED": value}
        result = run([way.python, "-c", "import sys; print('remora' in sys.modules)"], env=env).ok()
        assert (result.stdout, result.stderr) == ("False\n", "")


@pytest.mark.parametrize("value", ["false", "FALSE", " False "])
def test_remora_run_of_what_is_switched_off_does_nothing(way, value):
    code = "import sys; print('remora' in sys.modules, [p for p in sys.path if 'autoload' in p])"
    result = way.run_python(code, env={"REMORA_ENABLED": value}).ok()
    assert (result.stdout, result.stderr) == ("False []\n", "")


@pytest.mark.parametrize("value", ["0", "1", "no", "yes", "off"])
def test_what_is_neither_yes_nor_no_keeps_the_agent_out_and_is_one_line(way, value):
    line = f"remora: REMORA_ENABLED={value} is neither true nor false; using false\n"
    code = "import sys; print('remora' in sys.modules, [p for p in sys.path if 'autoload' in p])"
    on_path = run(
        [way.python, "-c", code], env={"PYTHONPATH": str(way.autoload), "REMORA_ENABLED": value}
    ).ok()
    launched = way.run_python(code, env={"REMORA_ENABLED": value}).ok()
    for result in (on_path, launched):
        assert (result.stdout, result.stderr) == ("False []\n", line)


def test_a_broken_extension_is_one_line_and_the_application_runs(injection, bare_python, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(injection, broken)
    for extension in broken.glob("remora/_native*"):
        extension.write_bytes(b"\x7fELF no library")
    code = "import sys; print('remora' in sys.modules, sys.path.count(''))"
    result = run([broken / "bin" / "remora", "run", bare_python, "-c", code]).ok()
    assert result.stdout == "False 1\n"
    assert len(result.agent_lines) == 1
    assert result.stderr.count("\n") == 1


def test_what_we_load_by_path_is_a_normal_package(injection, bare_python):
    code = (
        "import remora, importlib.util\n"
        "import remora._native, remora.tree\n"
        "print(remora.__name__, remora.__package__, remora.__spec__.name)\n"
        "print(remora.__file__, *remora.__path__)\n"
        "print(remora.status()['active'], importlib.util.find_spec('remora').name)"
    )
    result = run([injection / "bin" / "remora", "run", bare_python, "-c", code]).ok()
    folder = injection / "remora"
    assert result.stdout == f"remora remora remora\n{folder}/__init__.py {folder}\nTrue remora\n"


def test_the_file_can_be_read_by_old_pythons(way):
    text = (way.autoload / "sitecustomize.py").read_bytes()
    assert text.isascii()


def test_faulty_standard_error_does_no_harm(way):
    code = f"exec {way.launcher.as_posix()!r} run {str(way.python)!r} -c 'print(1)' 2>&-"
    assert run(["sh", "-c", code], env={"OTEL_BSP_SCHEDULE_DELAY": "nonsense"}).ok().stdout == "1\n"


def test_site_is_loaded_as_in_a_bare_python(way):
    code = "import site, sys; print(site.ENABLE_USER_SITE, sys.flags, sorted(sys.argv))"
    assert way.run_python(code).ok().stdout == bare(way, "-c", code, env={}).ok().stdout


def test_the_environment_of_this_test_has_no_agent():
    assert "REMORA_ENABLED" not in os.environ
