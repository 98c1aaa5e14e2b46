"""`remora run`: what it changes, and that it changes nothing else."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.process import clean_env, run

LAUNCHER = Path(sys.executable).parent / "remora"
# What a POSIX shell itself sets or corrects.
SHELL_OWN = {"PWD", "OLDPWD", "SHLVL", "_"}


def environment(text: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in text.split("\0") if item)


def test_only_one_variable_changes(way):
    before = clean_env({"PYTHONPATH": None, "REMORA_ENABLED": None})
    after = environment(way.run("env", "-0", env={"REMORA_ENABLED": None}).ok().stdout)
    changed = {
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    } - SHELL_OWN
    assert changed == {"PYTHONPATH"}
    assert after["PYTHONPATH"] == str(way.autoload)


@pytest.mark.parametrize("value", ["false", "true", "no"])
def test_run_leaves_the_variable_as_it_is(way, value):
    after = environment(way.run("env", "-0", env={"REMORA_ENABLED": value}).ok().stdout)
    assert after["REMORA_ENABLED"] == value
    assert after["PYTHONPATH"] == str(way.autoload)


def test_the_autoload_folder_holds_sitecustomize_only(way):
    names = {path.name for path in way.autoload.iterdir()} - {"__pycache__"}
    assert names == {"sitecustomize.py"}


def test_an_empty_environment_is_enough(way):
    done = subprocess.run(
        [way.launcher, "run", "/usr/bin/env", "-0"],
        env={},
        capture_output=True,
        check=True,
        timeout=30,
        text=True,
    )
    assert set(environment(done.stdout)) - SHELL_OWN == {"PYTHONPATH"}


@pytest.mark.parametrize("old", ["/somewhere", "/a:/b", "/a:", ":/a"])
def test_the_pythonpath_of_the_application_stays_behind_ours(way, old):
    after = environment(way.run("env", "-0", env={"PYTHONPATH": old}).ok().stdout)
    assert after["PYTHONPATH"] == f"{way.autoload}:{old}"


def test_run_inside_run_adds_nothing(way):
    inner = way.run(way.launcher, "run", "env", "-0", env={"PYTHONPATH": "/somewhere"}).ok()
    assert environment(inner.stdout)["PYTHONPATH"] == f"{way.autoload}:/somewhere"


def test_process_id_stays(way):
    result = way.run_python("import os; print(os.getpid())").ok()
    assert int(result.stdout) == result.pid


def test_exit_status_stays(way):
    assert way.run_python("raise SystemExit(37)").returncode == 37


def test_death_by_a_signal_stays(way):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert way.run_python(code).returncode == -signal.SIGKILL


def test_a_signal_reaches_the_command(way, tmp_path):
    script = tmp_path / "waits.py"
    script.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(41))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    process = subprocess.Popen(
        [way.launcher, "run", way.python, script], stdout=subprocess.PIPE, env=clean_env(), text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 41
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_standard_input_and_arguments_pass(way):
    code = "import sys; print(sys.argv[1:], sys.stdin.read())"
    result = way.run(way.python, "-c", code, "--a b", "", "*", "--traces_exporter", "x", stdin="given").ok()
    assert result.stdout == "['--a b', '', '*', '--traces_exporter', 'x'] given\n"


def test_a_command_that_is_not_there_is_127_and_one_line(way):
    result = way.run("no-such-command-at-all", "-x")
    assert (result.returncode, result.stdout) == (127, "")
    assert result.stderr == "remora: no-such-command-at-all: not found\n"


def test_a_builtin_of_the_shell_is_no_command(way, tmp_path):
    result = run([way.launcher, "run", "cd", "/"], env={"PATH": str(tmp_path)})
    assert result.returncode == 127
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("by", ["path", "name"])
def test_a_file_without_permission_is_126_and_one_line(way, tmp_path, by):
    (tmp_path / "no-permission").write_text("#!/bin/sh\n")
    command = tmp_path / "no-permission" if by == "path" else "no-permission"
    result = way.run(command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert result.returncode == 126
    assert result.stderr == f"remora: {command}: permission denied\n"


def test_a_folder_is_126_and_one_line(way, tmp_path):
    result = way.run(tmp_path)
    assert result.returncode == 126
    assert result.stderr == f"remora: {tmp_path}: is a directory\n"


def test_an_empty_entry_of_path_is_the_current_folder(way, tmp_path):
    script = tmp_path / "here"
    script.write_text("#!/bin/sh\necho found\n")
    script.chmod(0o755)
    assert way.run("here", env={"PATH": "/usr/bin:/bin:"}, cwd=tmp_path).ok().stdout == "found\n"


@pytest.mark.parametrize(
    "flags", [("--service_name", "a b=c"), ("--service_name=a b=c",), ("--service-name", "a b=c")]
)
def test_a_flag_sets_its_variable(way, flags):
    after = environment(way.run("env", "-0", flags=flags).ok().stdout)
    assert after["OTEL_SERVICE_NAME"] == "a b=c"


def test_flags_reach_all_three_families_of_variables(way):
    flags = (
        "--traces_exporter=console",
        "--disabled_instrumentations=flask",
        "--exit_timeout=5",
        "--exporter_otlp_traces_endpoint=http://h:1/v1/traces",
        "--flask_excluded_urls=/health",
    )
    after = environment(way.run("env", "-0", flags=flags).ok().stdout)
    assert after["OTEL_TRACES_EXPORTER"] == "console"
    assert after["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] == "flask"
    assert after["REMORA_EXIT_TIMEOUT"] == "5"
    assert after["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "http://h:1/v1/traces"
    assert after["OTEL_PYTHON_FLASK_EXCLUDED_URLS"] == "/health"


@pytest.mark.parametrize(
    ("flag", "variable"),
    [
        ("exporter_otlp_metrics_endpoint", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
        ("exporter-otlp-logs-headers", "OTEL_EXPORTER_OTLP_LOGS_HEADERS"),
        ("metric_export_interval", "OTEL_METRIC_EXPORT_INTERVAL"),
        ("blrp_schedule_delay", "OTEL_BLRP_SCHEDULE_DELAY"),
        ("meter_provider", "OTEL_PYTHON_METER_PROVIDER"),
        ("sdk_internal_metrics_enabled", "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"),
    ],
)
def test_a_flag_of_a_signal_that_there_is_not_yet_is_no_error(way, flag, variable):
    """`opentelemetry-instrument` takes it: a command that is swapped for `remora run` still starts."""
    result = way.run("env", "-0", flags=(f"--{flag}", "secret")).ok()
    assert environment(result.stdout)[variable] == "secret"
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"remora: --{flag} has no effect")
    assert "secret" not in result.stderr


@pytest.mark.parametrize("before", [None, "true", "false"])
@pytest.mark.parametrize("value", ["true", "false"])
def test_enabled_as_a_flag_wins(way, before, value):
    env = {"REMORA_ENABLED": before}
    after = environment(way.run("env", "-0", flags=("--enabled", value), env=env).ok().stdout)
    assert after["REMORA_ENABLED"] == value


def test_two_dashes_end_the_flags(way):
    assert way.run("--", "echo", "--service_name", "x").ok().stdout == "--service_name x\n"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--no_such_flag", "x", "true"], "--no_such_flag"),
        (["--exporter_otlp_logs_a b", "x", "true"], "--exporter_otlp_logs_a b"),
        (["-x", "true"], "-x"),
        (["--service_name"], "--service_name"),
        ([], "usage"),
        (["--service_name", "x"], "usage"),
    ],
)
def test_wrong_usage_is_2_and_one_line(arguments, names):
    result = run([LAUNCHER, "run", *arguments])
    assert (result.returncode, result.stdout) == (2, "")
    assert names in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_flags_are_those_of_the_settings_table():
    run([sys.executable, ROOT / ".ci" / "gen_flags.py", "--check"]).ok()


def test_the_installed_launcher_is_that_of_the_tree():
    assert LAUNCHER.read_bytes() == (ROOT / "agent-py/data/scripts/remora").read_bytes()


@pytest.mark.parametrize("by", ["relative", "here", "dots", "symlink", "chain", "path", "folder link"])
def test_the_launcher_finds_its_package_however_it_is_called(injection, tmp_path, by):
    bin_folder, env, cwd = injection / "bin", {}, tmp_path
    command = bin_folder / "remora"
    if by == "relative":
        cwd, command = injection, Path("bin/remora")
    elif by == "here":
        cwd, command = bin_folder, "./remora"
    elif by == "dots":
        command = f"{bin_folder}/../bin/./remora"
    elif by == "symlink":
        command = tmp_path / "linked"
        command.symlink_to(bin_folder / "remora")
    elif by == "chain":
        (tmp_path / "one").symlink_to(bin_folder / "remora")
        command = tmp_path / "two"
        command.symlink_to("one")
    elif by == "path":
        env, command = {"PATH": f"{bin_folder}:{os.environ['PATH']}"}, ["/bin/sh", "-c", 'remora "$@"', "sh"]
    elif by == "folder link":
        (tmp_path / "bin").symlink_to(bin_folder)
        command = tmp_path / "bin" / "remora"
    command = command if isinstance(command, list) else [command]
    result = run([*command, "run", "env", "-0"], env=env, cwd=cwd).ok()
    found = Path(environment(result.stdout)["PYTHONPATH"])
    assert found.is_absolute()
    assert found.samefile(injection / "remora" / "autoload")


def test_without_its_package_the_command_runs_and_one_line_says_so(injection, tmp_path):
    (tmp_path / "bin").mkdir()
    shutil.copy(injection / "bin" / "remora", tmp_path / "bin")
    result = run([tmp_path / "bin" / "remora", "run", "env", "-0"]).ok()
    assert not {"REMORA_ENABLED", "PYTHONPATH"} & set(environment(result.stdout))
    assert result.stderr.startswith("remora: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_launcher_is_plain_posix_shell(injection, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    arguments = {"bash": ["--posix"], "busybox": ["sh"]}.get(shell, [])
    launcher = injection / "bin" / "remora"
    result = run([shell, *arguments, launcher, "run", "--service-name", "x", "env", "-0"]).ok()
    assert environment(result.stdout)["OTEL_SERVICE_NAME"] == "x"
    assert result.stderr == ""
