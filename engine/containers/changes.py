"""`docker diff`: what a container has changed against its image."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.containers.layered import Layered, is_opaque

CHANGED, ADDED, DELETED = 0, 1, 2
_OURS = frozenset(("/.dockerenv", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"))
_MOUNTED = frozenset(("/dev", "/proc", "/sys"))


def changes(upper: Path, lower: Sequence[Path]) -> list[dict[str, Any]]:
    """[{"Path", "Kind"}], sorted by path. The mount points that every start makes are not told. Blocking."""
    found: dict[str, int] = {}
    _walk(upper, "", Layered(lower), found)
    return [{"Path": path, "Kind": found[path]} for path in sorted(found)]


def _walk(folder: Path, inside: str, below: Layered, found: dict[str, int]) -> None:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        # Removed meanwhile by the container.
        return
    for entry in entries:
        path = f"{inside}/{entry.name}"
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            found[path] = DELETED
            continue
        old = below.lstat(path)
        if old is None and (path in _OURS or path in _MOUNTED):
            continue
        if not stat.S_ISDIR(status.st_mode):
            if not (path in _OURS and status.st_size == 0):
                found[path] = ADDED if old is None else CHANGED
            continue
        before = len(found)
        _walk(Path(entry.path), path, below, found)
        if old is not None and is_opaque(entry.path):
            gone = below.names(path) - set(os.listdir(entry.path))
            found.update({f"{path}/{name}": DELETED for name in gone})
        if old is None:
            found[path] = ADDED
        elif len(found) > before or old.st_mode != status.st_mode:
            found[path] = CHANGED
