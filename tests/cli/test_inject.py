"""`make inject`: the folder that is laid beside an application's Python, from wheels."""

import os
import sys
import zipfile

from support.paths import ROOT
from support.process import run

MEMBERS = {
    "remora/__init__.py": "",
    "remora/autoload/sitecustomize.py": "",
    "remora/_native.cpython-311-x86_64-linux-gnu.so": "",
    "remora-0.1.0.data/scripts/remora": "#!/bin/sh\n",
    "remora-0.1.0.data/platlib/remora.pth": "",
    "remora-0.1.0.dist-info/licenses/LICENSE": "",
    "remora-0.1.0.dist-info/RECORD": "",
}


def test_another_user_can_read_it_whoever_makes_it(tmp_path):
    wheels, out = tmp_path / "wheels", tmp_path / "out"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "remora-0.1.0-cp311-cp311-linux_x86_64.whl", "w") as wheel:
        for name, text in MEMBERS.items():
            wheel.writestr(name, text)
    inject = ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, ROOT / ".ci/inject", wheels, out]
    run(inject, env={"REMORA_CACHE": str(tmp_path)}).ok()
    modes = {path: path.stat().st_mode for path in [out, *out.rglob("*")]}
    assert len(modes) > 8
    wanted = {path: 0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644 for path in modes}
    assert {path: mode & 0o777 for path, mode in modes.items()} == wanted
