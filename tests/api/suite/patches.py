import importlib
import pathlib
import sys
import tempfile
import types

import remora
from _raising import fails
from _spans import made, names
from remora import Patch, patch, trace


def module(name, code):
    made_module = types.ModuleType(name)
    exec(code, vars(made_module))
    sys.modules[name] = made_module
    return made_module


def write(name, code):
    folder = tempfile.mkdtemp()
    (pathlib.Path(folder) / (name + ".py")).write_text(code)
    sys.path.insert(0, folder)


def passing(wrapped, instance, args, kwargs):
    return wrapped(*args, **kwargs)


def test_the_wrapper_stands_in_and_calls_the_original():
    target = module("t1", "def f(a, b=2): return a, b")
    original, seen = target.f, []

    def wrapper(wrapped, instance, args, kwargs):
        seen.append((wrapped, instance, args, kwargs))
        return ("wrapped", wrapped(*args, **kwargs))

    handle = patch("t1", "f", wrapper)
    assert isinstance(handle, Patch)
    assert handle.applied is True
    assert target.f(1, b=3) == ("wrapped", (1, 3))
    ((wrapped, instance, args, kwargs),) = seen
    assert wrapped is original
    assert (instance, args, kwargs) == (None, (1,), {"b": 3})
    assert handle.remove() is None
    assert target.f is original
    assert handle.applied is False
    handle.remove()


def test_the_wrapper_need_not_call_the_original():
    target = module("t2", "def f(): raise SystemError")
    handle = patch("t2", "f", lambda wrapped, instance, args, kwargs: "instead")
    assert target.f() == "instead"
    handle.remove()


def test_it_is_a_decorator_without_a_wrapper():
    target = module("t3", "class A:\n  def m(self, x): return x")

    @patch("t3", "A.m")
    def double(wrapped, instance, args, kwargs):
        assert isinstance(instance, target.A)
        return 2 * wrapped(*args, **kwargs)

    assert isinstance(double, Patch)
    assert target.A().m(4) == 8
    assert target.A.m(target.A(), x=5) == 10
    assert "wrong" in fails(TypeError, lambda: target.A().m(wrong=1))
    double.remove()
    assert target.A().m(4) == 4


def test_a_module_is_imported_as_asked():
    assert "colorsys" not in sys.modules
    handle = patch("colorsys", "rgb_to_hsv", passing)
    assert "colorsys" in sys.modules
    assert handle.applied
    handle.remove()


def test_errors_are_raised():
    module("t4", "x = 5")
    fails(ModuleNotFoundError, lambda: patch("no_such_module", "f", passing))
    fails(AttributeError, lambda: patch("t4", "f", passing))
    fails(AttributeError, lambda: patch("t4", "f.g", passing))
    fails(TypeError, lambda: patch("t4", "x", passing))
    fails(TypeError, lambda: patch("t4", "x", 5))
    fails(TypeError, lambda: patch("t4"))
    fails(ValueError, lambda: trace("t4", "x", kind="odd"))
    fails(AttributeError, lambda: trace("t4", "f"))


def test_a_deferred_module_is_patched_when_the_application_imports_it():
    assert "sndhdr_like" not in sys.modules
    assert "stringprep" not in sys.modules
    handle = patch("stringprep?", "in_table_a1", lambda wrapped, instance, args, kwargs: "patched")
    assert handle.applied is False
    assert "stringprep" not in sys.modules
    import stringprep

    assert handle.applied is True
    assert stringprep.in_table_a1("x") == "patched"
    handle.remove()
    assert stringprep.in_table_a1("x") is False


def test_a_deferred_module_that_is_there_is_patched_at_once():
    target = module("t5", "def f(): return 1")
    handle = trace("t5?", "f", name="five")
    assert handle.applied
    assert target.f() == 1
    assert names() == ["five"]
    handle.remove()


def test_removed_before_the_import_it_never_applies():
    handle = patch("quopri?", "encode", passing)
    handle.remove()
    import quopri

    assert handle.applied is False
    assert not hasattr(quopri.encode, "__wrapped__")


def test_a_reload_is_patched_again():
    import colorsys

    handle = patch("colorsys", "rgb_to_hsv", lambda wrapped, instance, args, kwargs: "patched")
    importlib.reload(colorsys)
    assert colorsys.rgb_to_hsv(1, 1, 1) == "patched"
    handle.remove()
    assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
    importlib.reload(colorsys)
    assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)


def test_two_patches_lie_over_each_other():
    target = module("t6", "def f(): return 'f'")
    original = target.f
    one = patch("t6", "f", lambda wrapped, instance, args, kwargs: "1" + wrapped())
    two = patch("t6", "f", lambda wrapped, instance, args, kwargs: "2" + wrapped())
    assert target.f() == "21f"
    two.remove()
    assert target.f() == "1f"
    one.remove()
    assert target.f is original


def test_removed_from_underneath_it_does_nothing_any_more():
    target = module("t7", "def f(): return 'f'")
    original = target.f
    one = patch("t7", "f", lambda wrapped, instance, args, kwargs: "1" + wrapped())
    held = target.f
    two = patch("t7", "f", lambda wrapped, instance, args, kwargs: "2" + wrapped())
    one.remove()
    assert target.f() == "2f"
    assert held() == "f"
    assert one.applied is False
    two.remove()
    assert target.f() == "f"
    assert target.f == original


def test_what_others_put_over_it_is_left():
    target = module("t8", "def f(): return 'f'")
    handle = patch("t8", "f", lambda wrapped, instance, args, kwargs: "1" + wrapped())
    inner = target.f

    def theirs():
        return "theirs " + inner()

    target.f = theirs
    handle.remove()
    assert target.f is theirs
    assert target.f() == "theirs f"


def test_a_lazy_name_stays_lazy():
    lazy = module("t9", "def __getattr__(name):\n  raise SystemError('resolved')")
    fails(AttributeError, lambda: patch("t9", "f", passing))
    assert "f" not in vars(lazy)


def test_a_lazy_import_stays_lazy():
    if sys.version_info < (3, 15):
        return
    sys.modules.pop("colorsys", None)
    module("t17", "lazy import colorsys")
    fails(AttributeError, lambda: patch("t17", "colorsys", passing))
    assert "colorsys" not in sys.modules


def test_an_object_may_be_called_lazy():
    target = module("t12", "class LazyHandler:\n  def __call__(self): return 1\nh = LazyHandler()")
    handle = patch("t12", "h", lambda wrapped, instance, args, kwargs: wrapped() + 1)
    assert target.h() == 2
    handle.remove()
    assert target.h() == 1


def test_what_a_module_puts_in_its_own_place_is_patched():
    write(
        "t13",
        "import sys, types\ndef f(): return 'outer'\n"
        "m = types.ModuleType(__name__)\nm.f = lambda: 'inner'\nsys.modules[__name__] = m",
    )
    handle = patch("t13?", "f", lambda wrapped, instance, args, kwargs: "patched " + wrapped())
    target = importlib.import_module("t13")
    assert handle.applied
    assert target.f() == "patched inner"


def test_behind_a_facade_that_a_module_puts_in_its_own_place_it_is_patched():
    write(
        "t14",
        "import sys\ndef f(): return 'inner'\nclass Facade:\n  def __init__(self, module): self.module = module\n"
        "  def __getattr__(self, name): return getattr(self.module, name)\n"
        "sys.modules[__name__] = Facade(sys.modules[__name__])",
    )
    handle = patch("t14?", "f", lambda wrapped, instance, args, kwargs: "patched " + wrapped())
    target = importlib.import_module("t14")
    assert handle.applied
    assert target.f() == "patched inner"


def test_a_property_that_cannot_be_read_is_refused_and_left():
    target = module("t15", "class A:\n  p = property(None, lambda self, value: None)")
    before = target.A.__dict__["p"]
    fails(TypeError, lambda: patch("t15", "A.p", passing))
    fails(TypeError, lambda: trace("t15", "A.p"))
    assert target.A.__dict__["p"] is before
    assert not hasattr(target.A(), "p")


def test_a_patched_class_or_static_method_keeps_its_attributes():
    target = module(
        "t16",
        "class A:\n  @staticmethod\n  def s(): return 1\n  s.mark = 2\n"
        "  @classmethod\n  def c(cls): return 3\n  c.mark = 4",
    )
    handles = [patch("t16", "A." + name, passing) for name in "sc"]
    found = [target.A.__dict__[name] for name in "sc"]
    assert [one.mark for one in found] == [2, 4]
    assert (target.A.s(), target.A.c()) == (1, 3)
    for handle in handles:
        handle.remove()


def test_trace_needs_no_hook_in_python():
    target = module(
        "t10", "class A:\n  def m(self): return 1\n  async def c(self): return 2\ndef g():\n  yield 3"
    )
    handles = [
        trace("t10", "A.m"),
        trace("t10", "A.c", name="coroutine", kind="client"),
        trace("t10", "g", kind="consumer"),
    ]
    assert target.A().m() == 1
    import asyncio

    assert asyncio.run(target.A().c()) == 2
    assert list(target.g()) == [3]
    assert [(one.name, one.kind) for one in made()] == [("A.m", 1), ("coroutine", 3), ("g", 5)]
    for handle in handles:
        handle.remove()
    assert target.A().m() == 1
    assert names() == []


def test_a_patch_says_what_it_is():
    module("t11", "def f(): return 1")
    handle = patch("t11", "f", passing)
    assert repr(handle) == "<Patch t11:f applied>"
    handle.remove()
    assert repr(handle) == "<Patch t11:f not applied>"
    fails(TypeError, lambda: Patch())


def test_sanitize_sql_gives_text_and_summary():
    from remora._native import sanitize_sql

    text, summary = sanitize_sql("SELECT a FROM t WHERE b = 'secret' AND c IN (1, 2)", "postgresql")
    assert text == "SELECT a FROM t WHERE b = ? AND c IN (?)"
    assert summary == "SELECT t"
    fails(TypeError, lambda: sanitize_sql(5, "x"))
    assert sanitize_sql("", "sqlite") == ("", "")


def test_everything_of_the_api_is_there():
    for name in remora.__all__:
        assert hasattr(remora, name), name
