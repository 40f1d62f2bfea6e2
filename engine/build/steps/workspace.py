"""A step's own folders on the disk of the layers: its upper layer, overlayfs' work folder, and scratch space."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from engine.images.spread import spread


class Workspace:
    """Made for one step and removed after it; what became a layer has moved away by then.

    `id_shift` is what the ids on disk have too much: where the step's user namespace begins.
    """

    def __init__(self, root: Path, lower: Sequence[Path]) -> None:
        self.id_shift = 0
        self.path = root / secrets.token_hex(8)
        self.upper = self.path / "upper"
        self.work = self.path / "work"
        self.scratch = self.path / "scratch"
        spread(root)
        self.path.mkdir(parents=True, mode=0o711)
        self.upper.mkdir()
        # The overlay's root looks like its topmost layer's: without this a step would change the root's mode.
        mode = lower[0].stat().st_mode & 0o7777 if lower else 0o755
        self.upper.chmod(mode)
        self.work.mkdir(mode=0o700)

    def scratch_folder(self, name: str) -> Path:
        """A new private folder."""
        folder = self.scratch / name
        folder.mkdir(parents=True, mode=0o711)
        return folder

    @property
    def untouched(self) -> bool:
        """Whether the step changed no file."""
        with os.scandir(self.upper) as names:
            return next(names, None) is None

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.remove()
