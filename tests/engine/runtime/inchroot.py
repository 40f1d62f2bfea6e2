"""An exec in a container of a launcher that lives in a chroot: prints what it sees at `/`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from engine.runtime.launcher import Launcher
from engine.runtime.spec import Process
from tests.engine.runtime.boxes import Box, make_spec


async def _main(exec_root: Path, layer: Path) -> None:
    launcher = await Launcher.connect(exec_root / "x", f"/shipway/test-{exec_root.name}")
    box = Box(launcher, layer, exec_root / "boxes")
    await box.create("one", make_spec("sleep", "100"))
    await launcher.start("one")
    await launcher.exec("one", "e", Process(["ls", "/"], env=["PATH=/bin"]), stdout=1, stderr=2)
    await launcher.wait("one", "e")
    await launcher.kill("one", signal.SIGKILL)
    await launcher.wait("one")
    await launcher.delete("one")
    await launcher.shutdown()


if __name__ == "__main__":
    os.umask(0o022)
    asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2])))
