"""Writing a file system's changes to the disk."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# CDLL lets go of the GIL: this may take seconds.
_libc = ctypes.CDLL(None, use_errno=True)


def syncfs(fd: int) -> None:
    """Returns when all that was written to the file system of `fd` is on its disk. Raises OSError."""
    if _libc.syncfs(ctypes.c_int(fd)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable: a rename is on disk only once its folder is. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
