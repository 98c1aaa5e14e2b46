import importlib
import importlib.machinery
import importlib.util
import pathlib
import sys
import tempfile
import threading
import types
import warnings
import zipfile

import remora
from remora import when_imported

FOLDER = pathlib.Path(tempfile.mkdtemp())
sys.path.insert(0, str(FOLDER))


def write(name, code):
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    importlib.invalidate_caches()


def watch(name):
    seen = []
    callback = when_imported(name)(seen.append)
    assert callback == seen.append
    return seen


def test_the_callback_gets_the_finished_module():
    write("m1.py", "x = 1\ny = 2")
    states = []

    @when_imported("m1")
    def callback(module):
        states.append((module.x, module.y, sys.modules["m1"] is module))

    assert states == []
    import m1  # noqa: F401

    assert states == [(1, 2, True)]
    assert callable(callback)


def test_an_imported_module_is_given_at_once():
    import json

    assert watch("json") == [json]


def test_callbacks_run_in_order_of_registration():
    write("m2.py", "")
    order = []
    for i in range(5):
        when_imported("m2")(lambda module, i=i: order.append(i))
    importlib.import_module("m2")
    assert order == [0, 1, 2, 3, 4]


def test_a_callback_may_register_and_import_more():
    write("m3.py", "")
    write("m4.py", "")
    seen = []

    @when_imported("m3")
    def first(module):
        when_imported("m3")(lambda module: seen.append("inner"))
        importlib.import_module("m4")

    when_imported("m4")(lambda module: seen.append("m4"))
    importlib.import_module("m3")
    assert sorted(seen) == ["inner", "m4"]
    importlib.reload(sys.modules["m4"])
    assert seen.count("m4") == 2


def test_loader_and_spec_are_as_without_us():
    write("m5.py", "spec = __spec__; loader = __loader__")
    write("m6.py", "spec = __spec__; loader = __loader__")
    watch("m5")
    hooked, bare = importlib.import_module("m5"), importlib.import_module("m6")
    for one in (hooked, bare):
        assert type(one.__loader__) is importlib.machinery.SourceFileLoader
        assert one.__spec__.loader is one.__loader__ is one.loader
        assert one.spec is one.__spec__
        assert vars(one.__loader__).keys() == vars(bare.__loader__).keys()
        assert one.__loader__.get_code(one.__name__) is not None
        assert one.__loader__.is_package(one.__name__) is False
        assert one.__spec__.origin == one.__file__
    assert hooked.__spec__.has_location == bare.__spec__.has_location
    assert bool(hooked.__cached__) == bool(bare.__cached__) if hasattr(bare, "__cached__") else True


def test_a_reload_calls_again():
    write("m7.py", "count = globals().get('count', 0) + 1")
    seen = watch("m7")
    module = importlib.import_module("m7")
    assert importlib.reload(module) is module
    assert module.count == 2
    assert seen == [module, module]


def test_an_import_after_removal_calls_again():
    write("m8.py", "")
    seen = watch("m8")
    first = importlib.import_module("m8")
    del sys.modules["m8"]
    second = importlib.import_module("m8")
    assert seen == [first, second]
    assert first is not second


def test_a_module_that_raises_has_the_same_traceback():
    import traceback

    def names(module):
        try:
            importlib.import_module(module)
        except ZeroDivisionError as error:
            return [(frame.name, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        raise AssertionError

    for name in ("m9", "m10"):
        write(f"{name}.py", "def f():\n  1 / 0\nf()")
    seen = watch("m9")
    hooked, bare = names("m9"), names("m10")
    assert hooked == bare
    assert seen == []
    assert "m9" not in sys.modules
    # The next try is watched as well.
    write("m9.py", "x = 1\n" + "#" * 50)
    module = importlib.import_module("m9")
    assert seen == [module]


def test_the_traceback_of_an_import_statement_is_trimmed_as_ever():
    import traceback

    write("m11.py", "1 / 0")
    watch("m11")
    try:
        import m11  # noqa: F401
    except ZeroDivisionError as error:
        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == [
            "test_the_traceback_of_an_import_statement_is_trimmed_as_ever",
            "<module>",
        ]


def test_a_missing_module_is_missing():
    watch("no_such_module_at_all")
    assert importlib.util.find_spec("no_such_module_at_all") is None
    try:
        import no_such_module_at_all  # noqa: F401
    except ModuleNotFoundError as error:
        assert error.name == "no_such_module_at_all"
    else:
        raise AssertionError


def test_packages_submodules_and_relative_imports():
    write("p1/__init__.py", "from . import sub; value = sub.value")
    write("p1/sub.py", "value = 5")
    write("p1/deep/__init__.py", "")
    write("p1/deep/er.py", "from ..sub import value")
    package, sub, deeper = watch("p1"), watch("p1.sub"), watch("p1.deep.er")
    import p1.deep.er

    assert package == [p1]
    assert sub == [p1.sub]
    assert deeper == [p1.deep.er]
    assert p1.value == 5
    assert list(p1.__path__) == [str(FOLDER / "p1")]
    assert p1.__spec__.submodule_search_locations == [str(FOLDER / "p1")]


def test_a_namespace_package_is_given():
    write("ns1/inner.py", "x = 1")
    seen = watch("ns1")
    import ns1.inner

    assert ns1.inner.x == 1
    assert list(ns1.__path__) == [str(FOLDER / "ns1")]
    assert seen in ([ns1], [])
    assert type(ns1.__spec__.loader).__name__ in ("NamespaceLoader", "_NamespaceLoader", "NoneType")


def test_a_module_in_a_zip_is_given():
    archive = FOLDER / "lib.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("z1.py", "x = 3")
        out.writestr("z2.py", "x = 4")
    sys.path.insert(0, str(archive))
    seen = watch("z1")
    import z1
    import z2

    assert seen == [z1]
    assert z1.x == 3
    assert type(z1.__loader__) is type(z2.__loader__)
    assert z1.__loader__.get_source("z1") == "x = 3"


def test_frozen_and_builtin_modules_are_given():
    seen = watch("__hello__"), watch("_lsprof") if "_lsprof" in sys.builtin_module_names else []
    import __hello__

    assert seen[0] == [__hello__]
    assert __hello__.__loader__ is importlib.machinery.FrozenImporter
    assert __hello__.__spec__.loader is importlib.machinery.FrozenImporter
    candidates = ("_xxsubinterpreters", "xxsubtype", "faulthandler", "_tracemalloc", "_interpreters")
    fresh = [name for name in candidates if name in sys.builtin_module_names and name not in sys.modules]
    builtin = fresh[0]
    found = watch(builtin)
    module = importlib.import_module(builtin)
    assert found == [module]
    assert module.__loader__ is importlib.machinery.BuiltinImporter
    assert module.__spec__.loader is importlib.machinery.BuiltinImporter


def test_an_extension_module_is_given():
    names = ("_crypt", "_lsprof", "audioop", "_uuid", "_queue", "_dbm", "termios", "_curses")
    fresh = [name for name in names if name not in sys.modules and name not in sys.builtin_module_names]
    name = next(name for name in fresh if importlib.util.find_spec(name))
    seen = watch(name)
    module = importlib.import_module(name)
    assert seen == [module]
    assert type(module.__loader__) is importlib.machinery.ExtensionFileLoader


def test_finding_a_spec_runs_nothing():
    write("m12.py", "raise SystemError")
    seen = watch("m12")
    spec = importlib.util.find_spec("m12")
    assert type(spec.loader) is importlib.machinery.SourceFileLoader
    assert spec.name == "m12"
    assert seen == []


def test_a_spec_is_executed_by_hand():
    write("m13.py", "x = 1")
    seen = watch("m13")
    spec = importlib.util.find_spec("m13")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.x == 1
    assert seen == [module]


def test_importlibs_own_lazy_loader_still_is_lazy():
    write("m14.py", "x = 1")
    seen = watch("m14")
    spec = importlib.util.find_spec("m14")
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["m14"] = module
    loader.exec_module(module)
    assert seen == []
    assert module.x == 1
    assert seen == [module]


def test_other_finders_are_asked_in_their_order():
    asked = []

    class Finder:
        def find_spec(self, name, path=None, target=None):
            asked.append((name, path))
            return

    write("m15.py", "")
    seen = watch("m15")
    finder = Finder()
    sys.meta_path.append(finder)
    sys.meta_path.insert(1, finder)
    try:
        module = importlib.import_module("m15")
    finally:
        sys.meta_path[:] = [one for one in sys.meta_path if one is not finder]
    assert seen == [module]
    assert asked == [("m15", None)]


def test_loaders_of_every_make_are_followed():
    class Slim:
        __slots__ = ()

        def create_module(self, spec):
            return None

        def exec_module(self, module):
            module.made_by = type(self).__name__

    class Static:
        @staticmethod
        def create_module(spec):
            return None

        @staticmethod
        def exec_module(module):
            module.made_by = "Static"

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            loaders = {"made_slim": Slim(), "made_static": Static}
            if name in loaders:
                return importlib.util.spec_from_loader(name, loaders[name])
            return None

    sys.meta_path.append(Finder)
    try:
        for name, kind in (("made_slim", "Slim"), ("made_static", "Static")):
            seen = watch(name)
            module = importlib.import_module(name)
            assert seen == [module]
            assert module.made_by == kind
            loader = module.__loader__
            assert (loader if isinstance(loader, type) else type(loader)).__name__ == kind
            assert module.__spec__.loader is loader
    finally:
        sys.meta_path.remove(Finder)


def test_a_module_that_replaces_itself_is_what_the_import_gives():
    write("m16.py", "import sys, types\nsys.modules[__name__] = types.SimpleNamespace(x=1)")
    watch("m16")
    import m16

    assert m16.x == 1


def test_circular_imports_are_given_finished():
    write("c1.py", "import c2\nx = 1")
    write("c2.py", "import c1\ny = 2")
    states = []
    when_imported("c1")(lambda module: states.append(("c1", module.x)))
    when_imported("c2")(lambda module: states.append(("c2", module.y)))
    import c1  # noqa: F401

    assert states == [("c2", 2), ("c1", 1)]


def test_two_threads_import_once():
    write("m17.py", "import time\ntime.sleep(0.2)\nx = 1")
    states = []
    when_imported("m17")(lambda module: states.append(module.x))
    values = []

    def take():
        import m17

        values.append(m17.x)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [1] * 4
    assert states == [1]


def test_registered_while_another_thread_imports_it_is_called_once_finished():
    write("m18.py", "import time\nstarted = True\ntime.sleep(0.3)\nx = 1")
    thread = threading.Thread(target=lambda: importlib.import_module("m18"))
    thread.start()
    while not hasattr(sys.modules.get("m18"), "started"):
        pass
    states = []
    when_imported("m18")(lambda module: states.append(getattr(module, "x", None)))
    thread.join()
    assert states in ([1], [])
    assert states != [None]


def test_only_callables_are_taken():
    try:
        when_imported("m1")(5)
    except TypeError:
        pass
    else:
        raise AssertionError
    try:
        when_imported(5)
    except TypeError:
        return
    raise AssertionError


class Replaced:
    """Another `sys.meta_path`, for a while."""

    def __init__(self, make):
        self.make = make

    def __enter__(self):
        self.before = sys.meta_path
        sys.meta_path = self.make(self.before)

    def __exit__(self, *error):
        sys.meta_path = self.before


class Around:
    """A finder around others."""

    def __init__(self, *finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec), None)


def test_finders_may_be_wrapped_together_or_one_by_one():
    ways = (
        lambda finders: [Around(finder) for finder in finders],
        lambda finders: [Around(*finders)],
        lambda finders: [Around(Around(*finders))],
    )
    for at, way in enumerate(ways):
        write(f"m20_{at}.py", "x = 1")
        seen = watch(f"m20_{at}")
        with Replaced(way):
            module = importlib.import_module(f"m20_{at}")
            # The finder may be put in front once more.
            write(f"m21_{at}.py", "x = 1")
            others = watch(f"m21_{at}")
            other = importlib.import_module(f"m21_{at}")
        assert seen == [module]
        assert others == [other]


def test_the_finders_may_be_any_iterable():
    write("m22.py", "x = 1")
    seen = watch("m22")
    with Replaced(tuple):
        module = importlib.import_module("m22")
    assert seen == [module]
    write("m23.py", "x = 1")
    with Replaced(lambda finders: tuple(finders[1:])):
        seen = watch("m23")
        assert type(sys.meta_path) is tuple
        module = importlib.import_module("m23")
    assert seen == [module]


class OnInstance:
    """A loader whose methods lie on the instance, around another one's."""

    def __init__(self, loader, ran):
        self.loader = loader
        self.ran = ran
        self.create_module = loader.create_module
        self.exec_module = self._exec

    def _exec(self, module):
        self.loader.exec_module(module)
        self.ran.append((module, "exec_module" in vars(self)))


def test_a_loader_keeps_what_lies_on_its_instance():
    ran = []
    busy = []

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name not in ("m24", "m25") or name in busy:
                return None
            busy.append(name)
            spec = importlib.util.find_spec(name)
            busy.remove(name)
            spec.loader = OnInstance(spec.loader, ran)
            return spec

    write("m24.py", "x = 1")
    write("m25.py", "x = 1")
    for name, at in (("m24", 0), ("m25", 1)):
        seen = watch(name)
        sys.meta_path.insert(at, Finder)
        try:
            module = importlib.import_module(name)
        finally:
            sys.meta_path.remove(Finder)
        assert seen == [module]
        assert ran.pop() == (module, True)
        assert module.__loader__.exec_module == module.__loader__._exec


def test_a_loader_of_the_old_kind_still_loads():
    if sys.version_info >= (3, 15):
        return

    class Old:
        def load_module(self, name):
            module = sys.modules.setdefault(name, types.ModuleType(name))
            module.__loader__ = self
            module.on_instance = dict(vars(self))
            return module

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return importlib.machinery.ModuleSpec(name, Old()) if name == "m26" else None

    seen = watch("m26")
    sys.meta_path.append(Finder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module("m26")
    finally:
        sys.meta_path.remove(Finder)
    assert seen == [module]
    assert module.on_instance == {}


def zipped(*names):
    archive = FOLDER / f"{names[0]}.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for name in names:
            out.writestr(name + ".py", f"name = {name!r}")
    sys.path.insert(0, str(archive))


def test_a_module_that_is_only_looked_for_gives_its_hooks_to_no_other():
    zipped("z3", "z4")
    seen = watch("z3")
    assert importlib.util.find_spec("z3")
    import z4

    assert seen == []
    import z3

    assert seen == [z3]
    assert z3.__loader__ is z4.__loader__
    assert "exec_module" not in vars(z3.__loader__)


def test_two_modules_of_one_loader_both_have_their_hooks():
    zipped("z5", "z6")
    seen = watch("z5"), watch("z6")
    assert importlib.util.find_spec("z5")
    assert importlib.util.find_spec("z6")
    import z5
    import z6

    assert seen == ([z5], [z6])
    assert "exec_module" not in vars(z5.__loader__)
    importlib.reload(z5)
    assert seen == ([z5, z5], [z6])


def test_two_threads_that_share_a_loader_get_their_own_modules():
    count = 40
    zipped(*(f"hooked{i}" for i in range(count)), *(f"plain{i}" for i in range(count)))
    seen = [watch(f"hooked{i}") for i in range(count)]

    def load(names):
        for name in names:
            importlib.import_module(name)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        kinds = ("hooked", "plain")
        threads = [
            threading.Thread(target=load, args=([f"{kind}{i}" for i in range(count)],)) for kind in kinds
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert seen == [[sys.modules[f"hooked{i}"]] for i in range(count)]


def lazily(name):
    spec = importlib.util.find_spec(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def is_lazy(module):
    return object.__getattribute__(module, "__class__") is importlib.util._LazyModule


def test_a_lazy_module_that_is_there_stays_lazy_and_is_given_once_it_has_run():
    write("m27.py", "x = 1")
    module = lazily("m27")
    seen = watch("m27")
    assert is_lazy(module)
    assert seen == []
    assert module.x == 1
    assert seen == [module]


def test_a_lazy_module_of_another_finder_stays_lazy_and_is_given_once_it_has_run():
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name != "m28":
                return None
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            spec.loader = importlib.util.LazyLoader(spec.loader)
            return spec

    write("m28.py", "x = 1")
    seen = watch("m28")
    sys.meta_path.insert(1, Finder)
    try:
        module = importlib.import_module("m28")
    finally:
        sys.meta_path.remove(Finder)
    assert is_lazy(module)
    assert seen == []
    assert module.x == 1
    assert seen == [module]
    assert type(module) is types.ModuleType
    assert "exec_module" not in vars(module.__loader__)


def test_the_state_of_the_agent_leaves_lazy_modules_lazy():
    (FOLDER / "flask").mkdir()
    write("flask/__init__.py", "__version__ = '9'")
    before = sys.modules.pop("flask", None)
    try:
        module = lazily("flask")
        remora.status()
        assert is_lazy(module)
    finally:
        del sys.modules["flask"]
        if before:
            sys.modules["flask"] = before
        (FOLDER / "flask" / "__init__.py").unlink()
        (FOLDER / "flask").rmdir()


def test_a_module_that_replaces_itself_is_given_as_the_application_gets_it():
    write("m29.py", "import sys, types\nsys.modules[__name__] = types.SimpleNamespace(x=1)")
    seen = watch("m29")
    import m29

    assert seen == [m29]
    assert m29.x == 1


def test_a_module_executed_by_hand_is_given_and_not_the_one_of_that_name():
    write("m30.py", "x = 1")
    spec = importlib.machinery.PathFinder.find_spec("m30")
    seen = watch("m30")
    found = sys.meta_path[0].find_spec("m30")
    module = importlib.util.module_from_spec(found)
    sys.modules["m30"] = importlib.util.module_from_spec(spec)
    found.loader.exec_module(module)
    assert seen == [module]


def test_registered_by_what_the_module_imports_is_called_once_finished():
    write(
        "m31.py",
        "import m31_helper\nx = 1",
    )
    write(
        "m31_helper.py",
        "from remora import when_imported\nstates = []\n"
        "@when_imported('m31')\ndef first(module): states.append(module.x)\n"
        "@when_imported('m31')\ndef second(module): states.append((module.x, is_initializing(module)))\n"
        "def is_initializing(module): return getattr(module.__spec__, '_initializing', False)\n",
    )
    import m31
    import m31_helper

    assert m31_helper.states == [1, (1, False)]
    assert m31.__spec__._initializing is False
    importlib.reload(m31)
    assert len(m31_helper.states) == 4


def test_registered_by_what_the_module_imports_it_is_not_called_where_the_import_fails():
    write("m32.py", "import m32_helper\nraise KeyError(1)")
    write(
        "m32_helper.py", "from remora import when_imported\nstates = []\nwhen_imported('m32')(states.append)"
    )
    try:
        import m32
    except KeyError:
        pass
    import m32_helper

    assert m32_helper.states == []
    write("m32.py", "x = 1" + " " * 50)
    import m32

    assert m32_helper.states == [m32]
