"""Makes a layer's tar out of an overlay's upper folder.

The order is that of the names' bytes, folders before what is in them, times are whole seconds: the same
content gives the same bytes. Whatever lives in the folder may be hostile and may change while it is read:
nothing is opened through a link, and a file that shrinks or grows keeps the size of its header.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidInput, SystemFailure
from engine.images import tarstream
from engine.images.tarwriter import TarWriter
from engine.images.unpack import OPAQUE, WHITEOUT

READ = 1 << 20
ID_RANGE = 65536
NOBODY = 65534
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_REDIRECTS = (
    "trusted.overlay.redirect",
    "user.overlay.redirect",
    "trusted.overlay.metacopy",
    "user.overlay.metacopy",
)
_CAPABILITY = "security.capability"


@dataclass(frozen=True)
class DiffOptions:
    """How to write a tar of a folder.

    `id_shift` is what the ids on disk have too much (a user namespace's offset). Times later than `clamp`
    (unix seconds) become `clamp`. `overlay` turns overlayfs' marks into whiteouts; without it the folder is
    taken as it is, for an export. `exclude` names top-level entries to leave out.
    """

    id_shift: int = 0
    clamp: int | None = None
    overlay: bool = True
    root_entry: bool = False
    exclude: frozenset[bytes] = frozenset()


def diff(folder: Path, write: Callable[[bytes | bytearray | memoryview], object], options: DiffOptions) -> int:
    """Writes the tar of `folder` and returns the sum of the regular files' sizes.

    Raises SystemFailure when the disk refuses, InvalidInput for what a layer can't hold.
    """
    try:
        walk = _Walk(TarWriter(write), options)
        fd = os.open(folder, _FOLDER_FLAGS)
        try:
            walk.root(fd)
        finally:
            os.close(fd)
        walk.tar.close()
    except OSError as error:
        raise SystemFailure(f"cannot read {folder}: {error.strerror}", error.errno) from error
    return walk.size


class _Walk:
    def __init__(self, tar: TarWriter, options: DiffOptions) -> None:
        self.tar = tar
        self.size = 0
        self._options = options
        self._shift = options.id_shift
        self._links: dict[tuple[int, int], bytes] = {}

    def root(self, fd: int) -> None:
        xattrs = _xattrs(fd)
        if self._options.root_entry:
            self._header(b"./", tarstream.DIRECTORY, os.fstat(fd), xattrs)
        if self._options.overlay and _is_opaque(xattrs):
            self._mark(OPAQUE)
        self._folder(fd, b"")

    def _folder(self, fd: int, prefix: bytes) -> None:
        for name in self._names(fd, prefix):
            if prefix == b"" and name in self._options.exclude:
                continue
            path = prefix + name
            try:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFREG:
                self._file(fd, name, path)
            elif kind == stat.S_IFDIR:
                self._subfolder(fd, name, path)
            elif kind == stat.S_IFLNK:
                self._other(fd, name, path, tarstream.SYMLINK, found)
            elif kind == stat.S_IFCHR and found.st_rdev == 0 and self._options.overlay:
                self._mark(prefix + WHITEOUT + name)
            elif kind == stat.S_IFCHR:
                self._other(fd, name, path, tarstream.CHAR, found)
            elif kind == stat.S_IFBLK:
                self._other(fd, name, path, tarstream.BLOCK_DEVICE, found)
            elif kind == stat.S_IFIFO:
                self._other(fd, name, path, tarstream.FIFO, found)
            # Sockets mean nothing without their process, and tar can't hold them: Docker skips them too

    def _names(self, fd: int, prefix: bytes) -> Iterator[bytes]:
        names = sorted(os.fsencode(name) for name in os.listdir(fd))
        if not self._options.overlay:
            return iter(names)
        # A file that is really called so could only come back as a whiteout.
        return iter([name for name in names if not name.startswith(WHITEOUT)])

    def _subfolder(self, at: int, name: bytes, path: bytes) -> None:
        try:
            fd = os.open(name, _FOLDER_FLAGS, dir_fd=at)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            xattrs = _xattrs(fd)
            self._header(path + b"/", tarstream.DIRECTORY, os.fstat(fd), xattrs)
            if self._options.overlay and _is_opaque(xattrs):
                self._mark(path + b"/" + OPAQUE)
            self._folder(fd, path + b"/")
        finally:
            os.close(fd)

    def _file(self, at: int, name: bytes, path: bytes) -> None:
        try:
            fd = os.open(name, _FILE_FLAGS, dir_fd=at)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return  # replaced since it was listed
            raise
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return
            if found.st_nlink > 1 and self._linked(path, found):
                return
            size = found.st_size
            self._header(path, tarstream.REGULAR, found, _xattrs(fd), size)
            self.size += size
            left = size
            while left:
                data = os.read(fd, min(left, READ))
                if not data:
                    data = bytes(min(left, READ))  # it shrank
                self.tar.data(data)
                left -= len(data)
            self.tar.pad(size)
        finally:
            os.close(fd)

    def _other(self, at: int, name: bytes, path: bytes, kind: bytes, found: os.stat_result) -> None:
        try:
            target = os.readlink(name, dir_fd=at) if kind == tarstream.SYMLINK else b""
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return  # replaced since it was listed
            raise
        if found.st_nlink > 1 and self._linked(path, found):
            return
        here = b"/proc/self/fd/%d/%s" % (at, name)
        device = (os.major(found.st_rdev), os.minor(found.st_rdev)) if kind != tarstream.SYMLINK else (0, 0)
        self._header(path, kind, found, _xattrs(here), linkname=target, device=device)

    def _linked(self, path: bytes, found: os.stat_result) -> bool:
        """Writes a hard link when the same file was written before under another name."""
        key = (found.st_dev, found.st_ino)
        first = self._links.setdefault(key, path)
        if first is path:
            return False
        self._header(path, tarstream.LINK, found, {}, linkname=first)
        return True

    def _mark(self, path: bytes) -> None:
        self.tar.add(path, tarstream.REGULAR, mode=0, mtime=0)

    def _header(
        self,
        path: bytes,
        kind: bytes,
        found: os.stat_result,
        xattrs: dict[str, bytes],
        size: int = 0,
        linkname: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        mtime = int(found.st_mtime_ns // 1_000_000_000)
        clamp = self._options.clamp
        if clamp is not None and mtime > clamp:
            mtime = clamp
        self.tar.add(
            path,
            kind,
            mode=found.st_mode & 0o7777,
            uid=unshift(found.st_uid, self._shift),
            gid=unshift(found.st_gid, self._shift),
            size=size,
            mtime=mtime,
            linkname=linkname,
            device=device,
            xattrs=portable_xattrs(xattrs, self._shift) if xattrs else None,
        )


def unshift(number: int, shift: int) -> int:
    """An id as it is inside of the namespace.

    Real ids below the namespace's are kept: overlayfs itself makes some, build steps have those that a
    namespace's range has no place for, and a folder whose unshifting was cut short can be taken up again. All
    others are nobody there, and so here.
    """
    if not shift or number < shift:
        return number
    return number - shift if number < shift + ID_RANGE else NOBODY


def portable_xattrs(xattrs: dict[str, bytes], shift: int) -> dict[str, bytes]:
    """What of a file's attributes belongs into a layer; ids inside of the values are unshifted."""
    kept = {}
    for key, value in xattrs.items():
        if key in _REDIRECTS:
            raise InvalidInput(f"folder uses overlayfs' {key}: mount it with redirect_dir=off,metacopy=off")
        if key == _CAPABILITY:
            kept[key] = _capability(value, shift)
        elif key.startswith("system.posix_acl_"):
            kept[key] = _acl(value, shift) if shift else value
        elif key.startswith("user.") and not key.startswith("user.overlay."):
            kept[key] = value
    return kept


def _capability(value: bytes, shift: int) -> bytes:
    """File capabilities set inside of a user namespace name its root (revision 3): as revision 2 they hold
    for whichever namespace the layer is used in (linux/capability.h)."""
    if len(value) == 24 and shift:
        magic, *words, root = struct.unpack("<6I", value)
        if magic & 0xFF000000 == 0x03000000 and root == shift:
            return struct.pack("<5I", 0x02000000 | (magic & 0xFFFFFF), *words)
    return value


def _acl(value: bytes, shift: int) -> bytes:
    """POSIX ACLs: a version, then (tag, permissions, id) of eight bytes each."""
    if len(value) % 8 != 4:
        return value
    parts = [value[:4]]
    for tag, permissions, number in struct.iter_unpack("<HHI", value[4:]):
        named = tag in (0x02, 0x08)
        parts.append(struct.pack("<HHI", tag, permissions, unshift(number, shift) if named else number))
    return b"".join(parts)


def _is_opaque(xattrs: dict[str, bytes]) -> bool:
    return any(xattrs.get(key) == b"y" for key in _OPAQUE)


def _xattrs(target: int | bytes) -> dict[str, bytes]:
    try:
        follow = isinstance(target, int)
        names = os.listxattr(target, follow_symlinks=follow)
        return {name: os.getxattr(target, name, follow_symlinks=follow) for name in names} if names else {}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA, errno.ENOENT, errno.EPERM):
            return {}
        raise
