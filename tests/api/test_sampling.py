"""What is not sampled is not recorded, and each trace that would have begun is counted."""

from collections.abc import Callable

import pytest
from support.process import Result
from support.pythons import Python, on_oldest_and_newest

CODE = """
import asyncio
import remora
@remora.traced
def work():
    return remora.current_span_id()
@remora.traced
async def run():
    return work()
@remora.traced
def steps():
    yield work()
def all_of_them():
    with remora.span("block", a=1):
        return [work(), asyncio.run(run()), *steps()]
all_of_them()
print(remora.status()["spans"]["made"], remora.status()["spans"]["sampled_out"])
"""


@on_oldest_and_newest
@pytest.mark.parametrize(
    ("sampler", "counted"),
    [
        # Nothing can be sampled: no span is in force, so that each call would have been a trace of its own.
        ("always_off", "6"),
        ("parentbased_always_off", "6"),
        # The decision for the outermost span holds for all within.
        ("parentbased_traceidratio", "1"),
    ],
)
def test_nothing_is_recorded_and_all_is_counted(
    python: Python, sampler: str, counted: str, traced: Callable[..., Result]
) -> None:
    env = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0"}
    result = traced(CODE, python=python.exe, env=env).ok()
    assert result.spans == []
    assert result.stdout.split() == ["0", counted]


@on_oldest_and_newest
def test_children_of_a_sampled_span_are_all_recorded(python: Python, traced: Callable[..., Result]) -> None:
    env = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"}
    result = traced(CODE, python=python.exe, env=env).ok()
    assert len(result.spans) == 6
    assert len({span.trace_id for span in result.spans}) == 1
    assert result.stdout.split() == ["6", "0"]
