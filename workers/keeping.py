"""How long a worker keeps the artifacts that its stages collected: a folder an attempt, the oldest go first."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Keeping:
    """What may stay. Whatever is over one of the three goes."""

    seconds: float = 14 * 86400.0
    attempts: int = 500
    size: int = 20 << 30
    """Bytes of all artifacts together."""


@dataclass(frozen=True)
class _Kept:
    folder: Path
    changed: float
    size: int


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """The folder, made if need be; no sweep takes it until the block ends. It goes when nothing was put in it."""
    descriptor = _locked(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """The folder that is there, made if need be: a sweep may take away what it had locked before."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError), ExitStack() as opened:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            # The kernel lets go of it when the process dies, however it dies.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                opened.pop_all()
                return descriptor


def sweep(root: Path, keeping: Keeping, *, now: float | None = None) -> int:
    """Removes what is too old, too many or too large, never what is `held`; gives how many folders went."""
    now = time.time() if now is None else now
    left = keeping.size
    removed = 0
    for place, kept in enumerate(sorted(_folders(root), key=lambda kept: -kept.changed)):
        left -= kept.size
        if now - kept.changed <= keeping.seconds and place < keeping.attempts and left >= 0:
            continue
        removed += _remove(kept.folder)
    return removed


def _folders(root: Path) -> Iterator[_Kept]:
    with suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folder = Path(entry.path)
                    size = sum(file.lstat().st_size for file in folder.iterdir())
                    yield _Kept(folder, entry.stat(follow_symlinks=False).st_mtime, size)


def _remove(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(descriptor)
