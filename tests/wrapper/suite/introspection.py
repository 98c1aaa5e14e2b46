import builtins
import collections.abc
import dataclasses
import inspect
import pydoc
import types
import typing

from remora import trace, traced

import _targets
from _targets import Base, async_generator, coroutine, function, generator

SAME = [
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
    inspect.isbuiltin,
    inspect.isfunction,
    inspect.ismethod,
    inspect.ismethoddescriptor,
    inspect.isdatadescriptor,
    inspect.isroutine,
    inspect.isclass,
    inspect.iscode,
    callable,
]


def test_inspect_says_of_every_kind_what_it_says_without_us():
    kinds = [
        function,
        coroutine,
        generator,
        async_generator,
        len,
        str.join,
        Base.method,
        Base().method,
        [].append,
        object.__init__,
        object().__str__,
        dict.fromkeys,
        _targets.partial,
        _targets.instance,
        lambda: 1,
    ]
    for original in kinds:
        wrapped = traced(name="x")(original)
        for check in SAME:
            assert check(wrapped) == check(original), (check, original)
        assert callable(wrapped)


def test_signatures_are_the_originals():
    for original in (function, coroutine, generator, Base.method, _targets.partial, _targets.instance):
        assert inspect.signature(traced(original)) == inspect.signature(original)
    for original in (len, str.join):
        assert str(inspect.signature(traced(original))) == str(inspect.signature(original))
    handle = trace("_targets", "Base.method")
    try:
        assert str(inspect.signature(Base().method)) == "(x: int = 1) -> tuple[object, ...]"
        assert str(inspect.signature(Base.method)) == "(self, x: int = 1) -> tuple[object, ...]"
    finally:
        handle.remove()


def test_source_file_and_code_are_the_originals():
    one = traced(function)
    assert inspect.getsource(one) == inspect.getsource(function)
    assert inspect.getsourcefile(one) == inspect.getsourcefile(function)
    assert inspect.getsourcelines(one) == inspect.getsourcelines(function)
    assert inspect.getmodule(one) is _targets
    assert one.__code__ is function.__code__
    assert one.__globals__ is function.__globals__
    assert one.__defaults__ == ("x",)
    assert one.__kwdefaults__ == {"c": 1.0}
    assert inspect.unwrap(one) is function
    free = 3
    closed = traced(lambda: free)
    assert inspect.getclosurevars(closed).nonlocals == {"free": 3}


def test_documentation_and_directory_are_the_originals():
    one = traced(function)
    assert inspect.getdoc(one) == "What it does."
    assert pydoc.render_doc(one) == pydoc.render_doc(function)
    assert dir(one) == dir(function)
    before = pydoc.render_doc(Base)
    members = [name for name, _ in inspect.getmembers(Base)]
    handles = [
        trace("_targets", f"Base.{name}") for name in ("method", "class_method", "static_method", "prop")
    ]
    try:
        assert pydoc.render_doc(Base) == before
        assert [name for name, _ in inspect.getmembers(Base)] == members
        assert [name for name, _ in inspect.getmembers(Base, inspect.isfunction)] == [
            "__call__",
            "__init__",
            "async_method",
            "method",
            "static_method",
        ]
        assert {a.name: a.kind for a in inspect.classify_class_attrs(Base)}["method"] == "method"
    finally:
        for handle in handles:
            handle.remove()


def test_static_lookup_finds_the_wrapper_in_the_class():
    handle = trace("_targets", "Base.method")
    try:
        assert inspect.getattr_static(Base, "method") is Base.method
        assert inspect.getattr_static(Base(), "method") is Base.method
    finally:
        handle.remove()


def test_type_hints_are_the_originals():
    one = traced(function)
    assert typing.get_type_hints(one) == typing.get_type_hints(function)
    assert one.__annotations__ == function.__annotations__
    assert inspect.get_annotations(one) == inspect.get_annotations(function)
    handle = trace("_targets", "Base.method")
    try:
        assert typing.get_type_hints(Base().method)["x"] is int
    finally:
        handle.remove()


def test_annotations_survive_runtime_protocols_and_autospec():
    # Up to 3.13 these leave an empty `__annotations__` in the wrapper's type.
    from unittest import mock

    @typing.runtime_checkable
    class HasCall(typing.Protocol):
        def __call__(self, a: int) -> int: ...

    one = traced(function)
    assert isinstance(one, HasCall)
    mock.create_autospec(one)
    type(one).__annotations__ if hasattr(type(one), "__annotations__") else None
    assert one.__annotations__ == function.__annotations__
    assert traced(generator).__annotations__ == generator.__annotations__


def test_annotations_can_be_set():
    def work(a: int): ...

    one = traced(work)
    one.__annotations__ = {"a": str}
    assert work.__annotations__ == {"a": str}


def test_type_parameters_and_annotate_are_the_originals_where_the_version_has_them():
    one = traced(function)
    for name in ("__type_params__", "__annotate__"):
        assert hasattr(one, name) == hasattr(function, name), name
        if hasattr(function, name):
            assert getattr(one, name) is getattr(function, name)


def test_abstract_types_recognise_it():
    assert isinstance(traced(function), collections.abc.Callable)
    assert isinstance(traced(len), types.BuiltinFunctionType)
    assert isinstance(traced(str.join), types.MethodDescriptorType)


def test_mock_specs_and_patches_work():
    from unittest import mock

    one = traced(function)
    spec = mock.create_autospec(one)
    spec(1)
    spec.assert_called_once_with(1)
    try:
        spec()
    except TypeError:
        pass
    else:
        raise AssertionError
    ours, bare = mock.create_autospec(traced(coroutine)), mock.create_autospec(coroutine)
    assert hasattr(ours, "assert_awaited")
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(bare)
    handle = trace("_targets", "Base.method")
    try:
        spec = mock.create_autospec(Base)
        spec(1).method.return_value = 5
        assert spec(1).method(2) == 5
        placed = Base.method
        with mock.patch("_targets.Base.method", autospec=True) as patched:
            Base().method(3)
            assert patched.call_count == 1
        assert Base.method is placed
        with mock.patch.object(Base, "method", return_value=1):
            assert Base().method() == 1
        assert Base.method is placed
        assert isinstance(mock.Mock(wraps=Base().method)(1), tuple)
    finally:
        handle.remove()


def test_dataclasses_take_it_as_a_default():
    work = traced(function)

    @dataclasses.dataclass
    class Config:
        hook: object = dataclasses.field(default=work)

    assert Config().hook is work or Config().hook.__func__ is work


def test_a_call_adds_no_frame():
    import sys
    import warnings

    def who():
        return sys._getframe(1).f_code.co_name

    assert traced(who)() == "test_a_call_adds_no_frame"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced(lambda: warnings.warn("x", stacklevel=2))()
        here = sys._getframe().f_lineno - 1
    assert caught[0].lineno == here
    assert caught[0].filename == __file__


def test_every_way_of_passing_arguments_arrives():
    one = traced(function)
    assert one(1) == function(1)
    assert one(1, "y", 2, 3, c=4.0, d=5) == function(1, "y", 2, 3, c=4.0, d=5)
    assert one(*range(20), **{f"k{i}": i for i in range(20)}) == function(
        *range(20), **{f"k{i}": i for i in range(20)}
    )
    assert one(b="z", a=1) == function(b="z", a=1)
    assert one.__call__(1) == function(1)
    assert type(one).__call__(one, 1) == function(1)
    assert list(map(one, [1])) == [function(1)]


def test_builtins_behind_wrappers_answer_as_they_did():
    handle = trace("builtins", "sorted")
    try:
        assert sorted([2, 1], key=lambda x: -x) == [2, 1]
        assert repr(builtins.sorted) == "<built-in function sorted>"
        assert builtins.sorted.__self__ is builtins
        assert builtins.sorted.__text_signature__ is not None
    finally:
        handle.remove()
