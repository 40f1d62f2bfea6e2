"""The folders that one overlay writes to."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.images.unpack import remove_tree


@dataclass(frozen=True)
class Writable:
    """An overlay's upper and work folder, side by side as overlayfs wants them."""

    upper: Path
    work: Path


def prepare(base: Path, lower: Sequence[Path], *, id_shift: int = 0) -> Writable:
    """Makes `base/upper` and `base/work`, fresh.

    The merged root looks as the upper folder does, so that one takes its mode and owner from the topmost lower
    folder; `id_shift` is added to the owner where a user namespace will use it.
    """
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    discard(base)
    upper, work = base / "upper", base / "work"
    upper.mkdir(mode=0o755)
    work.mkdir(mode=0o700)
    if lower:
        model = lower[0].stat()
        os.chown(upper, model.st_uid + id_shift, model.st_gid + id_shift)
        upper.chmod(stat.S_IMODE(model.st_mode))
        os.utime(upper, ns=(model.st_atime_ns, model.st_mtime_ns))
    return Writable(upper, work)


def discard(base: Path) -> None:
    """Removes what `prepare` made and what was written there since. `base` itself stays."""
    try:
        fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for name in (b"upper", b"work"):
            with contextlib.suppress(FileNotFoundError):
                remove_tree(fd, name)
    finally:
        os.close(fd)
