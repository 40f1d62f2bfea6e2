"""Where on the disk the files of a tree go.

ext4 puts a folder near its parent, and will not use an inode again for some minutes after it was freed: it walks past
each of them, for every single file. Where trees come and go, making the next one is then ten times slower. Trees
that begin in a part of the disk of their own do not meet each other's remains.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
from pathlib import Path

_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h
_TOPDIR = 0x00020000


def spread(folder: Path) -> None:
    """Has each tree that begins in `folder` put elsewhere, by its name: `chattr +T`. Elsewhere than ext4: nothing."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = array.array("L", [0])
            fcntl.ioctl(fd, _GETFLAGS, flags)
            if not flags[0] & _TOPDIR:
                flags[0] |= _TOPDIR
                fcntl.ioctl(fd, _SETFLAGS, flags)
        finally:
            os.close(fd)
