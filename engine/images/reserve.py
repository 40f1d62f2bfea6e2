"""Room that is kept for removing things: on a disk that is full even that takes a little."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.errors import SystemFailure

_BYTES = 1 << 20
_T = TypeVar("_T")


class Reserve:
    """A file of nothing, which is given up when the disk is full and something has to be removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hold()

    def spend(self, work: Callable[[], _T]) -> _T:
        """Does `work`, which frees space and can be done again, by all means there are."""
        try:
            return work()
        except (SystemFailure, OSError) as error:
            if error.errno != errno.ENOSPC or not self._path.exists():
                raise
            self._path.unlink()
        try:
            return work()
        finally:
            self._hold()

    def _hold(self) -> None:
        """A disk without room for it has none to keep: then the next time."""
        with contextlib.suppress(OSError):
            if self._path.exists() and self._path.stat().st_size == _BYTES:
                return
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, _BYTES)
            except OSError:
                self._path.unlink()
                raise
            finally:
                os.close(fd)
