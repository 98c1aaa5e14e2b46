import functools
import inspect
import types

from remora import patch, traced

from _spans import names
from _targets import Base, function


class Traced:
    @traced
    def method(self, x=1):
        "A method."
        return self, x

    @traced
    @classmethod
    def outer_class(cls, x=1):
        return cls, x

    @traced
    @staticmethod
    def outer_static(x=1):
        return x

    @traced
    @property
    def outer_property(self):
        return self

    @property
    @traced
    def inner_property(self):
        return self


def test_a_method_binds_to_its_instance():
    one, two = Traced(), Traced()
    assert one.method() == (one, 1)
    assert two.method(2) == (two, 2)
    assert Traced.method(one, x=3) == (one, 3)
    assert names() == ["Traced.method"] * 3


def test_a_bound_method_is_a_method():
    one = Traced()
    bound = one.method
    assert type(bound) is types.MethodType
    assert bound.__self__ is one
    assert bound.__func__ is Traced.method
    assert bound.__func__ is Traced.__dict__["method"]
    assert bound.__name__ == "method"
    assert bound.__doc__ == "A method."
    assert bound == one.method
    assert hash(bound) == hash(one.method)
    assert repr(bound).startswith("<bound method Traced.method of ")
    assert inspect.ismethod(bound)


def test_access_gives_the_same_object_every_time():
    assert Traced.method is Traced.method

    class Sub(Traced):
        pass

    assert Sub.method is Traced.method
    assert Traced.method.__get__(None, Traced) is Traced.method


def test_the_descriptor_protocol_answers_as_a_function_does():
    one = Traced()
    bound = Traced.__dict__["method"].__get__(one, Traced)
    assert bound(5) == (one, 5)
    free = traced(lambda self: self)
    assert free.__get__(one)() is one
    assert not hasattr(free, "__set__")


def test_a_function_as_an_instance_attribute_does_not_bind():
    one = Traced()
    one.free = traced(lambda *args: args)
    assert one.free(1) == (1,)


def test_a_builtin_function_as_class_attribute_does_not_bind():
    class Holder:
        length = traced(len)

    assert Holder().length([1, 2]) == 2
    assert Holder.length([1]) == 1
    assert not hasattr(type(Holder.length), "__get__")


def test_a_partial_as_class_attribute_binds_as_without_the_wrapper():
    import functools

    part = functools.partial(function, 1)

    class Bare:
        call = part

    class Holder:
        call = traced(part)

    import warnings

    bare, ours = Bare(), Holder()
    with warnings.catch_warnings():
        # 3.13 says that partials will bind, which they do from 3.14 on.
        warnings.simplefilter("ignore")
        assert [value is ours for value in ours.call()] == [value is bare for value in bare.call()]


def test_a_callable_object_as_class_attribute_does_not_bind():
    class Work:
        def __call__(self, *args):
            return args

    class Holder:
        call = traced(Work())

    assert Holder().call(1) == (1,)


def test_own_binding_is_traced():
    class Binder:
        __qualname__ = "binder"

        def __call__(self, *args):
            return ("called", args)

        def __get__(self, instance, owner=None):
            return self if instance is None else lambda *args: ("bound", instance, args)

    class Holder:
        call = traced(name="own")(Binder())

    names()
    one = Holder()
    assert one.call(1) == ("bound", one, (1,))
    assert Holder.call(1) == ("called", (1,))
    assert names() == ["own", "own"]


def test_a_descriptor_is_told_its_name():
    class Named:
        def __init__(self, function):
            self.function = function
            self.name = None

        def __set_name__(self, owner, name):
            self.name = (owner.__name__, name)

        def __get__(self, instance, owner=None):
            return self if instance is None else functools.partial(self, instance)

        def __call__(self, *args):
            return self.name, self.function(*args)

    class Unbound:
        def __set_name__(self, owner, name):
            self.name = (owner.__name__, name)

        def __call__(self):
            return self.name

    class Holder:
        @traced(name="named")
        @Named
        def method(self):
            return 1

        call = traced(name="unbound")(Unbound())

    names()
    assert Holder().method() == (("Holder", "method"), 1)
    assert Holder().call() == ("Holder", "call")
    assert names() == ["named", "unbound"]
    assert hasattr(Holder.__dict__["method"], "__set_name__")
    assert not hasattr(traced(lambda: None), "__set_name__")


def test_what_a_class_makes_a_method_by_its_name_still_is_one():
    seen = []

    class Holder:
        @traced
        def __new__(cls, *args):
            return super().__new__(cls)

        @traced
        def __init_subclass__(cls, **kwargs):
            seen.append((cls.__name__, kwargs))

        @traced
        def __class_getitem__(cls, item):
            return cls, item

    class Derived(Holder, x=1):
        pass

    names()
    assert seen == [("Derived", {"x": 1})]
    assert Derived[int] == (Derived, int)
    assert type(Derived(1)) is Derived
    assert type(Derived(1).__new__(Holder, 3)) is Holder
    prefix = "test_what_a_class_makes_a_method_by_its_name_still_is_one.<locals>.Holder."
    assert names() == [prefix + name for name in ("__class_getitem__", "__new__", "__new__", "__new__")]
    kinds = {"__new__": staticmethod, "__init_subclass__": classmethod, "__class_getitem__": classmethod}
    assert {name: type(Holder.__dict__[name]) for name in kinds} == kinds


def test_what_a_class_makes_a_method_by_its_name_may_be_decorated_further():
    def twice(function):
        @functools.wraps(function)
        def call(*args):
            return function(*args), function(*args)

        return call

    class Holder:
        @twice
        @traced
        def __class_getitem__(cls, item):
            return item

    class Explicit:
        @classmethod
        @traced
        def __class_getitem__(cls, item):
            return cls, item

        @staticmethod
        @traced
        def __new__(cls):
            return object.__new__(cls)

    assert Holder[3] == (3, 3)
    assert Explicit[3] == (Explicit, 3)
    assert type(Explicit()) is Explicit


def test_class_and_static_methods_keep_their_attributes():
    class Holder:
        @staticmethod
        def still():
            return 1

        @classmethod
        def made(cls):
            return 2

        still.mark = 3
        made.mark = 4
        still = traced(still)
        made = traced(made)

    assert [Holder.__dict__[name].mark for name in ("still", "made")] == [3, 4]
    assert (Holder.still(), Holder.made()) == (1, 2)


def test_a_property_that_cannot_be_read_is_left():
    class Holder:
        value = traced(property(None, lambda self, value: self.__dict__.update(set=value)))

    one = Holder()
    assert not hasattr(one, "value")
    one.value = 3
    assert vars(one) == {"set": 3}


def test_properties_are_read_and_traced():
    one = Traced()
    assert one.outer_property is one
    assert one.inner_property is one
    assert isinstance(Traced.__dict__["outer_property"], property)
    assert names() == ["Traced.outer_property", "Traced.inner_property"]


def test_a_patched_property_keeps_setter_and_documentation():
    handle = patch("_targets", "Base.prop", lambda wrapped, instance, args, kwargs: wrapped() + 1)
    try:
        one = Base(1)
        assert one.prop == 2
        one.prop = 5
        assert one.prop == 6
        assert Base.prop.__doc__ == "A property."
    finally:
        handle.remove()
    assert Base(1).prop == 1


def test_a_patched_cached_property_still_caches():
    calls = []

    def wrapper(wrapped, instance, args, kwargs):
        calls.append(instance)
        return wrapped(*args, **kwargs)

    handle = patch("_targets", "Base.cached", wrapper)
    try:
        one = Base(3)
        assert one.cached is one.cached
        assert calls == [one]
    finally:
        handle.remove()
