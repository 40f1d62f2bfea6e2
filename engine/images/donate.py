"""Turns a container's upper folder into one that can be a lower folder for anyone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from engine.images.diff import portable_xattrs, unshift
from engine.images.unpack import OPAQUE_XATTR

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_USER_OPAQUE = "user.overlay.opaque"


def make_real(folder: Path, id_shift: int) -> None:
    """Gives everything in `folder` its real owner back, ids minus `id_shift`. Can be repeated.

    Also makes opaque marks that an unprivileged overlay left ones that a privileged overlay heeds.
    """
    if not id_shift:
        return  # only overlays inside of a user namespace write user.overlay.*
    fd = os.open(folder, _FOLDER_FLAGS)
    try:
        _own(fd, b".", id_shift)
        _folder(fd, id_shift)
    finally:
        os.close(fd)


def _folder(fd: int, shift: int) -> None:
    for name in map(os.fsencode, os.listdir(fd)):
        if stat.S_ISDIR(_own(fd, name, shift)):
            inner = os.open(name, _FOLDER_FLAGS, dir_fd=fd)
            try:
                if _USER_OPAQUE in os.listxattr(inner):
                    os.setxattr(inner, OPAQUE_XATTR, os.getxattr(inner, _USER_OPAQUE))
                    os.removexattr(inner, _USER_OPAQUE)
                _folder(inner, shift)
            finally:
                os.close(inner)


def _own(at: int, name: bytes, shift: int) -> int:
    found = os.stat(name, dir_fd=at, follow_symlinks=False)
    uid, gid = unshift(found.st_uid, shift), unshift(found.st_gid, shift)
    if (uid, gid) == (found.st_uid, found.st_gid):
        return found.st_mode
    here = b"/proc/self/fd/%d/%s" % (at, name)
    attributes = {key: os.getxattr(here, key, follow_symlinks=False) for key in _attributes(here)}
    os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o7000:
        os.chmod(here, stat.S_IMODE(found.st_mode))  # chown takes the set-id bits away
    for key, value in portable_xattrs(attributes, shift).items():
        os.setxattr(here, key, value, follow_symlinks=False)  # and the capabilities too
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=at, follow_symlinks=False)
    return found.st_mode


def _attributes(path: bytes) -> list[str]:
    names = os.listxattr(path, follow_symlinks=False)
    return [name for name in names if name == "security.capability" or name.startswith("system.posix_acl_")]
