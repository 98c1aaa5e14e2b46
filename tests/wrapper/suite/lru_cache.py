import functools

from remora import traced

from _spans import names


def test_a_cache_over_a_traced_function_is_hit_without_a_span():
    @functools.lru_cache
    @traced(name="square")
    def square(x):
        return x * x

    assert [square(2), square(2), square(3)] == [4, 4, 9]
    assert square.cache_info().hits == 1
    assert names() == ["square", "square"]


def test_a_traced_cache_keeps_its_methods():
    @traced(name="square")
    @functools.cache
    def square(x):
        return x * x

    assert [square(2), square(2)] == [4, 4]
    assert square.cache_info().hits == 1
    square.cache_clear()
    assert square.cache_info().currsize == 0
    assert names() == ["square", "square"]
    assert square.__wrapped__.__wrapped__(4) == 16


def test_a_cached_method_binds():
    class Work:
        @traced
        @functools.lru_cache
        def outer(self, x):
            return (self, x)

        @functools.lru_cache
        @traced
        def inner(self, x):
            return (self, x)

    one, two = Work(), Work()
    assert one.outer(1) == (one, 1)
    assert two.outer(1) == (two, 1)
    assert one.inner(1) == (one, 1)
    assert one.inner(1) == (one, 1)
    assert len(names()) == 3


def test_functools_goes_over_it():
    @traced
    def work(a, b=2):
        "Docs."
        return a, b

    @functools.wraps(work)
    def outer(*args, **kwargs):
        return work(*args, **kwargs)

    assert outer.__name__ == "work"
    assert outer.__doc__ == "Docs."
    assert outer.__wrapped__ is work
    assert functools.partial(work, 1)(b=3) == (1, 3)
    assert functools.reduce(traced(lambda a, b: a + b), [1, 2, 3]) == 6


def test_single_dispatch_dispatches():
    @functools.singledispatch
    @traced
    def show(value):
        return "any"

    @show.register
    @traced
    def _(value: int):
        return "int"

    class Shower:
        @functools.singledispatchmethod
        @traced
        def show(self, value):
            return "any"

        @show.register
        @traced
        def _(self, value: int):
            return "int"

    assert (show("x"), show(1)) == ("any", "int")
    assert (Shower().show("x"), Shower().show(1)) == ("any", "int")
