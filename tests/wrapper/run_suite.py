"""Runs every `test_*` function of one file in this interpreter, with the agent on.

The interpreters that the wrapper must hold on have no pytest: one process per interpreter and file.
"""

import importlib.util
import sys
import traceback
import warnings
from pathlib import Path


def main(path: Path) -> int:
    sys.path[:0] = [str(path.parent), str(Path(__file__).parent / "suite")]
    import remora._native

    assert remora._native.activate("init")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    import _spans

    tests = [(name, value) for name, value in vars(module).items() if name.startswith("test_")]
    assert tests, f"{path} has no tests"
    failed = 0
    for name, test in tests:
        _spans.made()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                test()
            assert remora.current_span_id() is None, "a span was left in force"
        except BaseException:
            failed += 1
            sys.stderr.write(f"FAILED {path.stem}.{name}\n")
            traceback.print_exc()
    sys.stdout.write(f"{len(tests) - failed} of {len(tests)} passed\n")
    return 1 if failed else 0


sys.exit(main(Path(sys.argv[1])))
