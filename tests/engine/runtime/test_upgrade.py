"""A daemon of a newer version meets the zygote of an older one: what it can't take over it does not touch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import engine
from engine.errors import Conflict
from engine.runtime.launcher import Launcher
from engine.runtime.zygote import protocol
from tests.engine.runtime.boxes import Box, make_spec

pytestmark = pytest.mark.kernel
PARENT = "/shipway/upgrade"
_JOIN = """
import asyncio, sys
from pathlib import Path
from engine.runtime.launcher import Launcher

async def main():
    launcher = await Launcher.connect(Path(sys.argv[1]), sys.argv[2])
    await launcher.close()

asyncio.run(main())
"""


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The engine as it was before."""
    packages = tmp_path / "older"
    shutil.copytree(
        Path(str(engine.__file__)).parent, packages / "engine", ignore=shutil.ignore_patterns("__pycache__")
    )
    spoken = packages / "engine/runtime/zygote/protocol.py"
    text = spoken.read_text()
    assert f"\nVERSION = {protocol.VERSION}\n" in text
    spoken.write_text(text.replace(f"\nVERSION = {protocol.VERSION}\n", "\nVERSION = 1\n"))
    return packages


def _start(packages: Path, exec_root: Path) -> psutil.Process:
    """Its zygote."""
    subprocess.run([sys.executable, "-c", _JOIN, str(exec_root), PARENT], cwd=packages, check=True)
    found = [each for each in psutil.process_iter(["cmdline"]) if str(packages) in (each.info["cmdline"] or ())]
    return min(found, key=lambda each: each.create_time())


async def test_one_without_containers_is_replaced(older: Path, exec_root: Path) -> None:
    old = _start(older, exec_root)
    launcher = await Launcher.connect(exec_root, PARENT)
    assert not old.is_running() or old.status() == psutil.STATUS_ZOMBIE
    assert await launcher.list() == []
    await launcher.shutdown()


async def test_one_with_containers_is_left_alone(
    older: Path, layer: Path, tmp_path: Path, exec_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _start(older, exec_root)
    monkeypatch.setattr(protocol, "VERSION", 1)
    launcher = await Launcher.connect(exec_root, PARENT)
    pid = await Box(launcher, layer, tmp_path).create("kept", make_spec("sleep", "1000"))
    await launcher.start("kept")
    monkeypatch.undo()
    with pytest.raises(Conflict, match=r"1 containers \(kept.*start that version again"):
        await Launcher.connect(exec_root, PARENT)
    os.kill(pid, 0)
    await launcher.shutdown()
