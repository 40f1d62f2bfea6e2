"""Opening paths that someone else chose: openat2(2), which never leaves the given root; reading those of mountinfo."""

from __future__ import annotations

import ctypes
import os

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_SYS_OPENAT2 = 437  # the same on every architecture


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def openat2(root: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Opens `path` below the folder `root` (a descriptor). Raises OSError.

    With RESOLVE_IN_ROOT, `/` and what symbolic links and `..` lead to are taken relative to `root`, as after a
    chroot. The descriptor is closed on exec.
    """
    name = os.fsencode(path)
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        fd = _syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(name),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        error = ctypes.get_errno()
        # EAGAIN: something was renamed while ".." was resolved, so the kernel could not be sure.
        if error not in (4, 11):
            raise OSError(error, os.strerror(error), os.fsdecode(name))


def unescaped(written: bytes) -> str:
    """A path as /proc/self/mountinfo writes it: spaces and the like are backslashes and three octal digits there."""
    first, *rest = written.split(b"\\")
    return os.fsdecode(first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest))
