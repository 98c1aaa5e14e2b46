"""How a variable is spelt as a flag of `remora run`, as opentelemetry-instrument does it."""

from __future__ import annotations

_PREFIXES = ("OTEL_PYTHON_", "OTEL_", "REMORA_")


def flag_of(variable: str) -> str | None:
    """`OTEL_TRACES_EXPORTER` is `traces_exporter`; None for a name that is no variable of ours."""
    for prefix in _PREFIXES:
        if variable.startswith(prefix):
            return variable.removeprefix(prefix).lower()
    return None


def flag_table(variables: list[str]) -> dict[str, str]:
    """Flag to variable. Raises ValueError where two variables would share a flag."""
    table: dict[str, str] = {}
    for variable in variables:
        flag = flag_of(variable)
        if flag is None:
            continue
        if flag in table:
            raise ValueError(f"--{flag} would mean both {table[flag]} and {variable}")
        table[flag] = variable
    return table
