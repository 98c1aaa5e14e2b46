"""`exception.stacktrace` is what the interpreter prints, without the lines of the sources and bounded."""

import traceback

from remora import traced

from _spans import made

MOST_FRAMES = 64
MOST_CAUSES = 8
CAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT = "\n\nDuring handling of the above exception, another exception occurred:\n\n"


def one(error, skip=0):
    """One exception as it is printed, without the first `skip` frames."""
    frames = traceback.extract_tb(error.__traceback__)[skip:][-MOST_FRAMES:]
    lines = [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n' for frame in frames]
    (text,) = traceback.format_exception_only(error)
    return "Traceback (most recent call last):\n" + "".join(lines) + text.rstrip("\n")


def recorded(function):
    """What a traced function failed with, and what its span says of that."""
    try:
        traced(function)()
    except Exception as error:
        (span,) = made()
        ((name, event),) = span.events
        assert name == "exception"
        return error, event["exception.stacktrace"]
    raise AssertionError("nothing was raised")


def first():
    raise KeyError("first")


def test_a_cause_is_shown_before_what_it_led_to():
    def work():
        try:
            first()
        except KeyError as error:
            raise ValueError("second") from error

    error, stack = recorded(work)
    assert stack == one(error.__cause__) + CAUSE + one(error, 1)


def test_so_is_what_was_being_handled():
    def work():
        try:
            first()
        except KeyError:
            raise ValueError("second") from ZeroDivisionError("shown instead")

    error, stack = recorded(work)
    assert stack == one(error.__cause__) + CAUSE + one(error, 1)

    def without_cause():
        try:
            first()
        except KeyError:
            raise ValueError("second")  # noqa: B904  that is what is tested

    error, stack = recorded(without_cause)
    assert stack == one(error.__context__) + CONTEXT + one(error, 1)


def test_from_none_hides_what_was_being_handled():
    def work():
        try:
            first()
        except KeyError:
            raise ValueError("second") from None

    error, stack = recorded(work)
    assert error.__context__ is not None
    assert stack == one(error, 1)


def test_of_a_long_chain_the_last_are_shown():
    def work():
        error = ValueError(0)
        for number in range(1, 20):
            later = ValueError(number)
            later.__cause__ = error
            error = later
        raise error

    error, stack = recorded(work)
    expected, at = one(error, 1), error
    for _ in range(MOST_CAUSES):
        at = at.__cause__
        expected = one(at) + CAUSE + expected
    assert stack == expected


def test_a_chain_that_bites_its_tail_ends():
    def work():
        one, other = ValueError("one"), KeyError("other")
        one.__cause__, other.__cause__ = other, one
        raise one

    error, stack = recorded(work)
    assert stack == one(error.__cause__) + CAUSE + one(error, 1)


def test_of_a_deep_stack_the_innermost_frames_are_shown():
    def down(levels):
        if levels == 1:
            raise ValueError("deep")
        down(levels - 1)

    for levels in (1, MOST_FRAMES - 1, MOST_FRAMES, MOST_FRAMES + 1, 500):
        error, stack = recorded(lambda levels=levels: down(levels))
        assert stack == one(error, 1), levels
        assert stack.count("  File ") == min(levels + 1, MOST_FRAMES)


def test_each_level_of_a_recursion_records_its_own():
    @traced
    def down(levels):
        if levels == 1:
            raise ValueError("deep")
        down(levels - 1)

    try:
        down(100)
    except ValueError as error:
        whole = traceback.extract_tb(error.__traceback__)[1:]
    spans = made()
    # The innermost span is the first to end.
    counts = [span.events[0][1]["exception.stacktrace"].count("  File ") for span in spans]
    assert counts == [min(depth, MOST_FRAMES) for depth in range(1, len(whole) + 1)]
