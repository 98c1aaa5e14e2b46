"""`remora.config(…)`: values as Python has them."""

import json

import pytest
from support.process import run_python

ODD = {
    "a": "x,y=z",
    "b": "100%25",
    "c": " padded ",
    "d=e": "p=q",
    "f": "\u00a0\t",
    "g": "50%41",
    "h": "caf\xe9",
}


def test_a_dict_arrives_as_it_is(tmp_path):
    path = tmp_path / "spans.jsonl"
    code = f"""
import remora
remora.init(remora.config(
    traces_exporter="otlp_file", otlp_file={str(path)!r}, resource_attributes={ODD!r},
    service_name="shop, inc", disabled_instrumentations=["flask", "requests"],
))
with remora.span("one"):
    pass
"""
    assert run_python(code).ok().stderr == ""
    attributes = json.loads(path.read_text())["resourceSpans"][0]["resource"]["attributes"]
    found = {pair["key"]: pair["value"].get("stringValue") for pair in attributes}
    assert {key: found.get(key) for key in ODD} == ODD
    assert found["service.name"] == "shop, inc"


def test_headers_are_sent_as_they_are(bad_endpoint):
    endpoint = bad_endpoint()
    headers = {"authorization": "Basic YWJj,ZGVm", "x-key": "50%41"}
    code = f"""
import remora
remora.init(remora.config(exporter_otlp_headers={headers!r}))
with remora.span("one"):
    pass
"""
    assert run_python(code, env=endpoint.env()).ok().stderr == ""
    sent = endpoint.requests[0].headers
    assert {name: sent.get(name) for name in headers} == headers


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ("excluded_urls=['a{1,2}']", "ValueError: OTEL_PYTHON_EXCLUDED_URLS: an item with a comma in it"),
        ("service_name={'a': 'b'}", "TypeError: OTEL_SERVICE_NAME cannot be a dict"),
        ("resource_attributes={'a': {}}", "TypeError: a setting cannot be a dict"),
        ("no_such=1", "TypeError: 'no_such' is no setting of remora"),
    ],
)
def test_what_cannot_be_written_is_refused(settings, error):
    result = run_python(f"import remora\nremora.config({settings})")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == error


def test_what_is_switched_off_in_code_stays_out():
    code = "import remora\nprint(remora.init(remora.config(enabled=False)), remora.status()['active'])"
    assert run_python(code).ok().stdout == "False False\n"
