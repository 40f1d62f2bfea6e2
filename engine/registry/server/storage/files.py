"""Files that are either wholly there, and still there after a power cut, or not there at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from engine.kernel.sync import sync_folder


def make_folder(folder: Path, top: Path) -> None:
    """Makes `folder` and what is missing above it, durably, up to `top`, which must exist."""
    missing: list[Path] = []
    while folder != top and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def write_atomic(path: Path, data: bytes, top: Path) -> None:
    """`path` now holds `data`, or after a crash still what it held before. Folders up to `top` are made."""
    while True:
        make_folder(path.parent, top)
        temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue  # the folder was empty, and collected, between the two lines above
        break
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_text(path: Path) -> str | None:
    """The stripped text of a small file, None when there is none."""
    try:
        return path.read_text("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def remove(path: Path) -> bool:
    """Unlinks `path` durably; says whether it was there."""
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    sync_folder(path.parent)
    return True


def prune_upwards(folder: Path, top: Path) -> None:
    """Removes `folder` and its parents below `top` for as long as they are empty."""
    while folder != top:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
