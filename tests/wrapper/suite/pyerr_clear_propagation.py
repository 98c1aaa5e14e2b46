"""No exception is lost, replaced or left pending."""

import sys
import traceback

from remora import patch, span, traced

from _spans import made, names


class Special(Exception):
    pass


@traced
def fail(error):
    raise error


def frames(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_the_same_exception_arrives_with_the_same_traceback():
    error = Special("x")
    try:
        fail(error)
    except Special as caught:
        assert caught is error
        assert frames(caught) == ["test_the_same_exception_arrives_with_the_same_traceback", "fail"]
        assert caught.__context__ is None
        assert caught.__cause__ is None
    else:
        raise AssertionError
    (one,) = made()
    assert one.failed
    assert one.message == "x"
    assert one.attributes["error.type"].endswith("Special")
    ((name, event),) = one.events
    assert name == "exception"
    assert event["exception.message"] == "x"
    assert "in fail" in event["exception.stacktrace"]


def test_cause_and_context_are_kept():
    @traced
    def chained():
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise Special("outer") from error

    try:
        chained()
    except Special as error:
        assert isinstance(error.__cause__, KeyError)
        assert isinstance(error.__context__, KeyError)
    made()


def test_the_exception_being_handled_stays_so():
    @traced
    def look():
        return sys.exc_info()[0]

    try:
        raise Special
    except Special:
        assert look() is Special
        assert sys.exc_info()[0] is Special
    assert sys.exc_info()[0] is None
    made()


def test_an_attribute_that_is_not_there_leaves_nothing_pending():
    assert getattr(fail, "missing", 5) == 5
    assert not hasattr(fail, "missing")
    assert [x for x in (1, 2)] == [1, 2]  # noqa: C416


def test_a_getattr_that_raises_something_else_is_heard():
    class Odd:
        def __getattr__(self, name):
            raise Special(name)

        def __call__(self):
            return 1

    try:
        odd = traced(name="odd")(Odd())
    except Special:
        return
    try:
        odd.anything  # noqa: B018
    except Special:
        return
    raise AssertionError


def test_an_exception_whose_text_cannot_be_made_passes():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    try:
        fail(Mute())
    except Mute:
        pass
    (one,) = made()
    assert one.failed
    assert one.events[0][1]["exception.message"] == ""


def test_an_exception_whose_text_comes_back_to_us_passes():
    class Chatty(Exception):
        def __str__(self):
            with span("within"):
                return "text"

    try:
        fail(Chatty())
    except Chatty:
        pass
    assert sorted(names()) == ["fail", "within"]


def test_ends_in_good_order_are_no_errors():
    import asyncio

    good = (
        StopIteration(),
        GeneratorExit(),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(0),
        SystemExit(),
    )
    for error in good:
        try:
            fail(error)
        except BaseException as caught:
            assert caught is error
        (one,) = made()
        assert not one.failed, error
        assert not one.events
    try:
        fail(SystemExit(1))
    except SystemExit:
        pass
    (one,) = made()
    assert one.failed


def test_what_a_wrapper_of_the_application_raises_is_the_applications():
    def wrapper(wrapped, instance, args, kwargs):
        raise Special("mine")

    handle = patch("_targets", "function", wrapper)
    try:
        import _targets

        for _ in range(20):
            try:
                _targets.function(1)
            except Special as error:
                assert frames(error)[-1] == "wrapper"
            else:
                raise AssertionError("the breaker took the application's own wrapper out")
    finally:
        handle.remove()


def test_a_wrong_call_raises_as_without_us():
    @traced
    def work(a, *, b):
        return a

    for call in (lambda: work(), lambda: work(1), lambda: work(1, c=2), lambda: work(1, 2, b=3)):
        try:
            call()
        except TypeError as error:
            assert "work()" in str(error)
        else:
            raise AssertionError
    made()


def test_recursion_ends_in_a_recursion_error():
    @traced
    def deep(n):
        return deep(n + 1)

    try:
        deep(0)
    except RecursionError:
        pass
    made()
    assert traced(lambda: 5)() == 5
    made()
