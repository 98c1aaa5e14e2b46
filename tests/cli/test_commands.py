"""`remora config`, `doctor`, `version`, `--help`: what they say and with which status they end."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from support.paths import ROOT, free_port
from support.process import run

REMORA = Path(sys.executable).parent / "remora"


def remora(*arguments, **options):
    return run([REMORA, *arguments], **options)


def test_version_is_that_of_the_package():
    import remora as package

    assert remora("version").ok().stdout == f"{package.__version__}\n"
    assert run([sys.executable, "-m", "remora", "version"]).ok().stdout == f"{package.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["help"], ["-h"], ["run", "--help"]])
def test_help_lists_every_variable_as_a_flag(arguments):
    shown = remora(*arguments).ok().stdout
    for row in tomllib.loads((ROOT / "config/settings.toml").read_text())["setting"]:
        if "{" not in row["name"] and row["type"] != "ignored":
            assert f"[{row['name']}]" in shown


def test_a_tool_that_imports_every_module_leaves_the_extension_in_place():
    code = "import remora, remora._inert, remora._native as native; print(native.__name__, native.settings)"
    assert run([sys.executable, "-c", code]).ok().stdout.startswith("remora._native <built-in")


def test_no_command_is_wrong_usage():
    assert (remora().returncode, remora().stdout) == (2, "")


def test_an_unknown_command_is_wrong_usage_in_one_line():
    result = remora("dcotor")
    assert result.returncode == 2
    assert result.stderr == "remora: unknown command dcotor (remora --help lists them)\n"


@pytest.mark.parametrize("command", ["config", "doctor", "tree", "version"])
def test_a_folder_full_of_our_names_does_not_stand_in_the_way(tmp_path, command):
    for name in ("remora", "json", "settings", "tree", "_terminal"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadow')")
    result = remora(command, cwd=tmp_path)
    assert "shadow" not in result.stderr + result.stdout


def test_config_shows_value_and_origin():
    rows = remora("config", env={"OTEL_SERVICE_NAME": "shop"}).ok().stdout.splitlines()
    found = {row.split()[0]: row.split()[1:] for row in rows}
    assert found["OTEL_SERVICE_NAME"] == ["shop", "environment"]
    assert found["OTEL_BSP_SCHEDULE_DELAY"] == ["5000", "ms", "default"]


def test_config_shows_no_secret():
    env = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hidden",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:hidden@127.0.0.1:1",
    }
    result = remora("config", env=env).ok()
    assert "hidden" not in result.stdout + result.stderr
    assert "***" in result.stdout


def test_config_marks_what_could_not_be_used():
    result = remora("config", env={"OTEL_BSP_SCHEDULE_DELAY": "soon"})
    assert result.returncode == 1
    row = next(row for row in result.stdout.splitlines() if row.startswith("OTEL_BSP_SCHEDULE_DELAY"))
    assert row.split()[1:] == ["5000", "ms", "fallback"]


FILE = {"OTEL_TRACES_EXPORTER": "otlp_file", "OTEL_SERVICE_NAME": "shop"}


def doctor(tmp_path, **env):
    return remora("doctor", env=FILE | {"REMORA_OTLP_FILE": f"{tmp_path}/%p.jsonl"} | env, timeout=55)


def test_doctor_says_that_traces_would_flow(tmp_path):
    result = doctor(tmp_path)
    assert result.returncode == 0, result.stdout
    assert "✗" not in result.stdout
    assert "active in a Python started with `remora run`" in result.stdout
    assert "✓ traces would flow" in result.stdout


def test_doctor_names_library_and_version(tmp_path):
    import importlib.metadata

    shown = doctor(tmp_path).stdout
    for name in ("flask", "requests"):
        assert f"✓ {name} {importlib.metadata.version(name)}: " in shown
    assert "✓ sqlite3 (standard library): " in shown
    assert "✓ threading (standard library): " in shown
    assert "– logging (standard library): off → OTEL_PYTHON_LOG_CORRELATION=true" in shown


def test_doctor_does_not_miss_what_only_other_releases_have(tmp_path):
    """Of the newest release of each library, which are what the tests run with."""
    libraries = doctor(tmp_path).stdout.partition("\nLibraries\n")[2].partition("\n\n")[0].splitlines()
    hooked = [match for line in libraries if (match := re.search(r"(\d+) of (\d+) hooked$", line))]
    assert len(hooked) > 15
    assert [match.string for match in hooked if match[1] != match[2]] == []
    assert [line for line in libraries if line.lstrip().startswith("!")] == []


def test_doctor_tells_what_is_disabled(tmp_path):
    shown = doctor(tmp_path, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="flask").stdout
    assert "disabled" in next(line for line in shown.splitlines() if "flask" in line and "–" in line)


def test_doctor_tries_the_endpoint():
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_SERVICE_NAME": "shop"}
    result = remora("doctor", env=env, timeout=55)
    assert result.returncode == 1
    assert f"✗ otlp http/protobuf {env['OTEL_EXPORTER_OTLP_ENDPOINT']}" in result.stdout
    assert "→" in next(line for line in result.stdout.splitlines() if "✗ otlp" in line)


def test_doctor_finds_a_collector(collector):
    result = remora("doctor", env=collector.env(), timeout=55)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("env", "says", "remedy"),
    [
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "{http}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "HTTP port?",
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        ),
        # As `collector:4317` of opentelemetry-instrument, without OTEL_EXPORTER_OTLP_INSECURE.
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "{authority}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "answers without it",
            "OTEL_EXPORTER_OTLP_INSECURE=true",
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{http}"}, "HTTP status 404", "correct the path"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "{http}", "http_proxy": "http://u:hidden@127.0.0.1:{free}"},
            "the proxy 127.0.0.1:{free}: connection refused",
            "no_proxy",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://h", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such.pem"},
            "/no/such.pem",
            "correct that setting",
        ),
    ],
)
def test_doctor_tells_what_to_do_about_an_endpoint(collector, env, says, remedy):
    places = {
        "http": f"http://127.0.0.1:{collector.plain.http_port}",
        "authority": f"127.0.0.1:{collector.plain.grpc_port}",
        "free": str(free_port()),
    }
    env = {name: value.format_map(places) for name, value in env.items()} | {"OTEL_SERVICE_NAME": "shop"}
    result = remora("doctor", env=env, timeout=55)
    assert result.returncode == 1
    line = next(line for line in result.stdout.splitlines() if "✗ otlp" in line)
    assert says.format_map(places) in line
    assert remedy in line.partition("→")[2]
    assert "hidden" not in result.stdout + result.stderr


def test_doctor_tells_that_no_library_makes_spans(tmp_path):
    shown = doctor(tmp_path, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*").stdout
    assert "no library that makes spans is hooked" in shown
    assert "no library" not in doctor(tmp_path).stdout


def test_doctor_takes_a_blank_variable_for_none(tmp_path):
    result = doctor(tmp_path, REMORA_ENABLED=" ")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REMORA_ENABLED", "false"),
        ("REMORA_ENABLED", "yes"),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ],
)
def test_doctor_tells_which_setting_keeps_traces_away(tmp_path, variable, value):
    result = doctor(tmp_path, **{variable: value})
    assert result.returncode == 1
    assert any("✗" in line and variable in line for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("sampler", "share", "flow"),
    [
        ("traceidratio", "0", False),
        ("parentbased_traceidratio", "0.0", False),
        ("traceidratio", "1e-30", False),
        ("traceidratio", "x", True),
    ],
)
def test_doctor_tells_that_a_share_of_nothing_is_nothing(tmp_path, sampler, share, flow):
    env = {
        "OTEL_TRACES_SAMPLER": sampler,
        "OTEL_TRACES_SAMPLER_ARG": share,
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*",
    }
    result = doctor(tmp_path, **env)
    assert result.returncode == int(not flow), result.stdout
    assert any("✗ OTEL_TRACES_SAMPLER_ARG=" in line for line in result.stdout.splitlines()) is not flow


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://user:hid/den@127.0.0.1:1",
        "http://user:hid#den@127.0.0.1:1",
        "http://user:12345#den@127.0.0.1:1",
        "collector:4318/v1?api-key=hidden",
    ],
)
def test_no_form_of_an_endpoint_shows_its_secret(endpoint):
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*",
        "REMORA_ENABLED": "true",
    }
    code = "import remora\nwith remora.span('one'): pass\nremora.flush(1)\nprint(remora.status())"
    results = [
        remora("config", env=env),
        remora("doctor", env=env),
        run([sys.executable, "-c", code], env=env),
    ]
    for result in results:
        shown = result.stdout + result.stderr
        assert not any(part in shown for part in ("hid", "den@", "12345", "user:")), shown


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize("command", ["--help", "config", "doctor"])
def test_an_encoding_without_our_signs_is_no_fault(command, encoding):
    env = {
        "PYTHONIOENCODING": encoding,
        "OTEL_SERVICE_NAME": "łódka 中",
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*",
    }
    result = remora(command, env=env)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("command", ["--help", "config", "tree --help"])
@pytest.mark.parametrize(
    ("where", "status", "says"),
    [(">/dev/full", 1, "remora: No space left on device\n"), (">&-", 0, ""), (">/dev/full 2>&1", 1, "")],
)
def test_output_that_cannot_be_written_is_no_traceback(command, where, status, says):
    result = run(["sh", "-c", f"'{REMORA}' {command} {where}"])
    assert (result.returncode, result.stdout, result.stderr) == (status, "", says)


def test_doctor_shows_no_secret(tmp_path):
    shown = doctor(tmp_path, OTEL_EXPORTER_OTLP_HEADERS="authorization=hidden").stdout
    assert "hidden" not in shown


def test_doctor_sees_another_agent(tmp_path):
    other = tmp_path / "ddtrace" / "bootstrap"
    other.mkdir(parents=True)
    shown = doctor(tmp_path, PYTHONPATH=str(other)).stdout
    assert "ddtrace" in shown
    assert "REMORA_FORCE" in shown


def test_doctor_without_an_extension_says_so(tmp_path):
    import shutil

    import remora as package

    shutil.copytree(Path(package.__file__).parent, tmp_path / "remora")
    for extension in (tmp_path / "remora").glob("_native*"):
        extension.unlink()
    result = run([sys.executable, "-I", tmp_path / "remora" / "__main__.py", "doctor"])
    assert result.returncode == 1
    assert "✗ the extension does not load" in result.stdout
