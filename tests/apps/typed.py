"""The public API as an application's type checker sees it: `make lint` runs mypy --strict over this file."""

from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import remora
from remora import Config, Patch


@remora.traced
def price(item: str) -> float:
    return 12.5 + len(item)


@remora.traced(name="stock.reserve", kind="client")
async def reserve(item: str) -> bool:
    return bool(item)


@remora.traced
def steps(count: int) -> Iterator[int]:
    yield from range(count)


@remora.traced
async def later(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class Cart:
    @remora.traced
    def add(self, item: str) -> float:
        return price(item)

    @classmethod
    @remora.traced
    def load(cls) -> "Cart":
        return cls()


async def order() -> int:
    with remora.span("checkout", items=3, express=True, tags=["a", "b"], sizes=[1, 2], share=(0.5, 1)):
        Cart.load().add("rope")
        return sum(steps(2)) + sum([number async for number in later(2)]) + await reserve("rope")


@remora.patch("smtplib?", "SMTP.send_message")
def send_message(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    with remora.span("smtp.send", host=instance._host):
        return wrapped(*args, **kwargs)


@remora.when_imported("decimal")
def tune(module: ModuleType) -> None:
    module.getcontext().prec = 40


def start() -> tuple[Config, Patch, str | None]:
    """As docs/api.md shows it: settings by variable or flag, with values as Python has them."""
    config = remora.config(
        OTEL_SERVICE_NAME="shop",
        traces_exporter="none",
        disabled_instrumentations=["flask"],
        resource_attributes={"deployment.environment.name": "test"},
        sigterm_flush=True,
        traces_sampler_arg=0.5,
        exit_timeout=None,
    )
    remora.init(config)
    last_error = remora.status()["export"]["last_error"] if not remora.flush(timeout=2.0) else None
    send_message.remove()
    return config, remora.trace("json?", "dumps", name="serialise"), last_error


if __name__ == "__main__":
    import asyncio

    start()
    print(asyncio.run(order()))
