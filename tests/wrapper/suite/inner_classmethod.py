"""`@classmethod` over `@traced`."""

import inspect

from remora import current_span_id, traced

from _spans import made, names


class Work:
    @classmethod
    @traced
    def run(cls, x=1):
        "Runs."
        return cls, x, current_span_id()

    @staticmethod
    @traced
    def apart(x=1):
        return x, current_span_id()


class Sub(Work):
    pass


def test_it_is_called_on_the_class():
    assert Work.run()[:2] == (Work, 1)
    assert Work().run(2)[:2] == (Work, 2)
    assert Sub.run(x=3)[:2] == (Sub, 3)
    assert Sub().run()[:2] == (Sub, 1)
    assert names() == ["Work.run"] * 4


def test_it_runs_in_its_span():
    within = Work.run()[2]
    assert [span.id for span in made()] == [within]


def test_it_looks_like_a_class_method():
    assert inspect.ismethod(Work.run)
    assert Work.run.__self__ is Work
    assert Work.run.__name__ == "run"
    assert Work.run.__doc__ == "Runs."
    assert str(inspect.signature(Work.run)) == "(x=1)"
    assert isinstance(inspect.getattr_static(Work, "run"), classmethod)


def test_a_static_method_takes_no_instance():
    assert Work.apart(2)[0] == 2
    assert Work().apart()[0] == 1
    assert Sub.apart(x=5)[0] == 5
    assert names() == ["Work.apart"] * 3
    assert isinstance(inspect.getattr_static(Work, "apart"), staticmethod)
