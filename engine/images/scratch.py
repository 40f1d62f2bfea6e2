"""Where layers are filled before the store has them. What a killed engine left half-filled is removed by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from pathlib import Path

from engine.images.spread import spread
from engine.images.unpack import remove_tree


class Scratch:
    """A folder of this engine's own below `root`, which several share."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sweep(root)
        self._folder = root / secrets.token_hex(8)
        self._folder.mkdir(mode=0o700)
        spread(self._folder)
        # As long as this descriptor lives, so do we: whoever can lock the folder may remove it.
        self._alive = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        if self._alive >= 0:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._alive)
            self._alive = -1

    def new(self) -> Path:
        """An empty folder; whoever asked moves it away or discards it."""
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(mode=0o755)
        return folder


def _sweep(root: Path) -> None:
    for entry in os.scandir(root):
        with contextlib.suppress(OSError):
            fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                discard(Path(entry.path))
            finally:
                os.close(fd)


def discard(folder: Path) -> None:
    """Removes it, however deep it is, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(fd, os.fsencode(folder.name))
        finally:
            os.close(fd)
