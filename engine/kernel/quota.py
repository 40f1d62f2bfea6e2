"""Project quotas (ext4, xfs): how much a tree of files may take. Linux 5.14 or later, for quotactl_fd."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from engine.kernel import libc

_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_INHERIT = 0x200
_PROJECTS = 2
_GET_STATE, _SET_LIMIT = 0x5808, 0x5804
_ENFORCED = 0x20
_BLOCK = 512
# struct fsxattr, fs_quota_statv, fs_disk_quota (linux/fs.h, linux/dqblk_xfs.h)
_ATTRIBUTES = struct.Struct("=IIIII8x")
_DISK_QUOTA = struct.Struct("=bbHI6QiiHHiQQQiHH8x")
_HARD, _SOFT = 1 << 3, 1 << 2


def offered(folder: str) -> bool:
    """Whether the file system of the folder keeps accounts of projects and holds them to their limits."""
    state = ctypes.create_string_buffer(256)
    state[0] = b"\x01"  # the version of the answer that is asked for
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.quotactl_fd(fd, _GET_STATE << 8 | _PROJECTS, 0, state)
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(int.from_bytes(state.raw[2:4], "little") & _ENFORCED)


def limit(folders: list[str], project: int, most: int) -> None:
    """Puts the folders, which must be empty or in it already, into the project, that may take `most` bytes in all.

    Raises OSError.
    """
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            attributes = bytearray(_ATTRIBUTES.size)
            fcntl.ioctl(fd, _GET_ATTRIBUTES, attributes)
            flags, extent, extents, _, cow = _ATTRIBUTES.unpack(attributes)
            fcntl.ioctl(fd, _SET_ATTRIBUTES, _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, project, cow))
            blocks = most // _BLOCK
            wanted = _DISK_QUOTA.pack(1, 2, _HARD | _SOFT, project, blocks, blocks, *[0] * 15)
            libc.quotactl_fd(fd, _SET_LIMIT << 8 | _PROJECTS, project, ctypes.create_string_buffer(wanted))
        finally:
            os.close(fd)
