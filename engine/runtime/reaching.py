"""Coming to a zygote: the one that serves, or a new one after clearing what a dead one left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.errors import SystemFailure
from engine.kernel.cgroup.host import cgroup, groups_below

_HOME = Path(__file__).resolve().parents[2]
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from engine.runtime.zygote.start import first; first(sys.argv[1:])"
)


async def reach(exec_root: Path, cgroup_parent: str) -> socket.socket:
    """A connection to the zygote that serves `exec_root`. Raises SystemFailure where none can be started."""
    path = str(exec_root / "zygote.sock")
    joined = _joined(path)
    if joined is None:
        await asyncio.to_thread(_reclaim, exec_root, cgroup_parent)
        joined = await asyncio.to_thread(_begun, exec_root, cgroup_parent, path)
    return joined


def _joined(path: str) -> socket.socket | None:
    joined = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        joined.connect(path)
    except OSError:
        joined.close()
        return None
    return joined


def _begun(exec_root: Path, cgroup_parent: str, path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(16)
    with (exec_root / "zygote.log").open("ab") as log:
        subprocess.run(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                _START,
                str(_HOME),
                str(exec_root),
                cgroup_parent,
                str(listener.fileno()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
            cwd="/",
            env={"LANG": "C.UTF-8"},
            check=True,
        )
    listener.close()
    joined = _joined(path)
    if joined is None:
        raise SystemFailure(f"the zygote did not start; see {exec_root / 'zygote.log'}")
    return joined


def _reclaim(exec_root: Path, cgroup_parent: str) -> None:
    """Ends what a zygote that died left: its containers' processes, their groups and records."""
    for path in {*groups_below(cgroup_parent), *_recorded_groups(exec_root)}:
        cgroup(path).end()
    shutil.rmtree(exec_root / "containers", ignore_errors=True)


def _recorded_groups(exec_root: Path) -> Iterator[str]:
    """Of the containers that the zygote had: not all need be below the engine's own group."""
    for note in (exec_root / "containers").glob("*"):
        with contextlib.suppress(OSError):
            if path := note.read_text():
                yield path
