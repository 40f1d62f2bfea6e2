from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.kernel.cgroup.host import groups_below
from engine.runtime.launcher import Launcher
from tests.engine.runtime.boxes import Box


@pytest.fixture
def exec_root() -> Iterator[Path]:
    # A socket's path has at most 107 bytes: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="shipway-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def launcher(exec_root: Path) -> AsyncIterator[Launcher]:
    parent = f"/shipway/test-{exec_root.name}"
    launcher = await Launcher.connect(exec_root, parent)
    yield launcher
    await launcher.shutdown()
    assert groups_below(parent) == []


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layer")
    (root / "bin").mkdir()
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    applets = "sh true cat id ps sleep echo hostname stty mkdir ls grep stat touch head wc tty test mount mknod"
    for applet in applets.split():
        (root / "bin" / applet).hardlink_to(root / "bin" / "busybox")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    return root


@pytest.fixture
def box(launcher: Launcher, layer: Path, tmp_path: Path) -> Box:
    return Box(launcher, layer, tmp_path)
