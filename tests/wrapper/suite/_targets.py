"""Callables of every kind, as a library would define them."""

import functools
from collections.abc import AsyncIterator, Iterator


def function(a: int, b: str = "x", *args: object, c: float = 1.0, **more: object) -> tuple[object, ...]:
    """What it does."""
    return (a, b, args, c, more)


async def coroutine(a: int) -> int:
    return a


def generator(n: int) -> Iterator[int]:
    yield from range(n)


async def async_generator(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


partial = functools.partial(function, 1)


class Base:
    """A class."""

    kind = "base"

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def method(self, x: int = 1) -> tuple[object, ...]:
        """A method."""
        return ("method", self, x)

    async def async_method(self) -> object:
        return self

    @classmethod
    def class_method(cls, x: int = 1) -> tuple[object, ...]:
        """A class method."""
        return ("class_method", cls, x)

    @staticmethod
    def static_method(x: int = 1) -> tuple[object, ...]:
        """A static method."""
        return ("static_method", x)

    @property
    def prop(self) -> int:
        """A property."""
        return self.value

    @prop.setter
    def prop(self, value: int) -> None:
        self.value = value

    @functools.cached_property
    def cached(self) -> list[int]:
        return [self.value]

    def __call__(self, x: int) -> int:
        return x + 1


class Derived(Base):
    kind = "derived"

    def method(self, x: int = 1) -> tuple[object, ...]:
        return ("derived", super().method(x))

    @classmethod
    def class_method(cls, x: int = 1) -> tuple[object, ...]:
        return ("derived", super().class_method(x))


class Callable:
    def __call__(self, x: int) -> int:
        return x


instance = Callable()
