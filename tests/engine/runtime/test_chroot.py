"""An engine in a chroot: its containers are as shut as anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

_ROOT = Path(__file__).resolve().parents[3]
_CHROOT = 'mount --rbind / "$0" && mount --make-rslave "$0" && cd / && exec chroot "$0" "$@"'


def test_an_exec_sees_the_container_and_not_the_host(exec_root: Path, layer: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", _CHROOT, str(root)),
            *("env", f"PYTHONPATH={_ROOT}", sys.executable, "-m", "tests.engine.runtime.inchroot"),
            *(str(exec_root), str(layer)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {*(each.name for each in layer.iterdir()), "dev", "proc", "sys"}
