"""`docker cp`: files out of a container as a tar, and what a path of it is.

Everything is opened below the container's root by the kernel (`inroot`), relative to descriptors that are held:
a link swapped in while we look leads nowhere but into the same root.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable
from typing import Any

from engine.containers import inroot, times
from engine.errors import InvalidInput, NotFound, SystemFailure
from engine.images import tarstream
from engine.images.diff import portable_xattrs, unshift
from engine.images.tarwriter import TarWriter

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 18
GO_LINK = 1 << 27
_GO_MODES = (
    (stat.S_IFDIR, 1 << 31),
    (stat.S_IFLNK, GO_LINK),
    (stat.S_IFBLK, 1 << 26),
    (stat.S_IFCHR, 1 << 26 | 1 << 21),
    (stat.S_IFIFO, 1 << 25),
    (stat.S_IFSOCK, 1 << 24),
)
_KINDS = {
    stat.S_IFDIR: tarstream.DIRECTORY,
    stat.S_IFLNK: tarstream.SYMLINK,
    stat.S_IFCHR: tarstream.CHAR,
    stat.S_IFBLK: tarstream.BLOCK_DEVICE,
    stat.S_IFIFO: tarstream.FIFO,
    stat.S_IFREG: tarstream.REGULAR,
}
Write = Callable[[bytes | bytearray | memoryview], object]


def go_mode(mode: int) -> int:
    """A Unix mode as Go's os.FileMode, which the API speaks."""
    bits = mode & 0o777
    for kind, go in _GO_MODES:
        if stat.S_IFMT(mode) == kind:
            bits |= go
    for flag, go in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        bits |= go if mode & flag else 0
    return bits


def path_stat(root: int, path: str) -> dict[str, Any]:
    """Docker's X-Docker-Container-Path-Stat, all but the `linkTarget` of a link, which is told as the link it is."""
    clean = clean_path(path)
    status = inroot.stat_of(root, clean, follow=wants_folder(path))
    if wants_folder(path) and not stat.S_ISDIR(status.st_mode):
        raise InvalidInput(f"{path}: not a directory")
    return {
        "name": posixpath.basename(clean) or "/",
        "size": status.st_size,
        "mode": go_mode(status.st_mode),
        "mtime": times.rfc3339(status.st_mtime_ns),
        "linkTarget": "",
    }


def clean_path(path: str) -> str:
    """Absolute and shortest, as Docker takes it: `..` goes back by a name, whatever links there are."""
    if "\0" in path:
        raise InvalidInput("a path can't contain a NUL byte")
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def names_content(path: str) -> bool:
    """Whether the path ends in `.`: what is in the folder is meant, and its archive has no name before it."""
    return path.rstrip("/").rpartition("/")[2] == "."


def wants_folder(path: str) -> bool:
    """Whether a link at its end is followed."""
    return path.endswith("/") or names_content(path)


def get(root: int, path: str, write: Write, shift: int, name: str | None = None) -> None:
    """Writes the tar of a file or folder; its members' names begin with `name`. Blocking. Raises NotFound."""
    clean = clean_path(path)
    if name is None:
        name = "." if names_content(path) else posixpath.basename(clean)
    name = name.strip("/")
    flags = os.O_PATH | (0 if wants_folder(path) or clean == "/" else os.O_NOFOLLOW)
    try:
        with inroot.opened(root, clean, flags) as fd:
            tar = TarWriter(write)
            _Packer(tar, shift).add_opened(fd, os.fsencode(name))
            tar.close()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise NotFound(f"Could not find the file {path} in container") from None
        raise SystemFailure(f"can't read {path}: {error.strerror}", error.errno) from None


def export(root: int, write: Write, shift: int) -> None:
    """Writes the tar of everything below `root`. Blocking."""
    tar = TarWriter(write)
    packer = _Packer(tar, shift)
    reading = os.open(".", _FOLDER, dir_fd=root)
    try:
        packer.add_inside(reading, b"")
    except OSError as error:
        raise SystemFailure(f"can't read the container's files: {error.strerror}", error.errno) from None
    finally:
        os.close(reading)
    tar.close()


class _Packer:
    def __init__(self, tar: TarWriter, shift: int) -> None:
        self._tar = tar
        self._shift = shift
        self._linked: dict[tuple[int, int], bytes] = {}

    def add_opened(self, fd: int, name: bytes) -> None:
        """What is behind an O_PATH descriptor, with all below it."""
        status = os.fstat(fd)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return
        seen = (status.st_dev, status.st_ino)
        if kind == stat.S_IFREG and status.st_nlink > 1 and seen in self._linked:
            self._header(name, tarstream.LINK, status, linkname=self._linked[seen])
            return
        if kind == stat.S_IFREG:
            self._linked[seen] = name
            self._file(fd, name)
        elif kind == stat.S_IFLNK:
            self._header(name, tarstream.SYMLINK, status, linkname=os.fsencode(os.readlink("", dir_fd=fd)))
        elif kind == stat.S_IFDIR:
            self._header(name + b"/", tarstream.DIRECTORY, status)
            self._folder(fd, name)
        else:
            self._header(name, _KINDS[kind], status)

    def _folder(self, fd: int, name: bytes) -> None:
        # "." opened relative to the descriptor is the very folder that was looked at.
        reading = os.open(".", _FOLDER, dir_fd=fd)
        try:
            self.add_inside(reading, name.rstrip(b"/") + b"/")
        finally:
            os.close(reading)

    def add_inside(self, reading: int, prefix: bytes) -> None:
        """Everything in the folder that is open as `reading`."""
        for entry in sorted(os.listdir(reading)):
            try:
                inner = os.open(entry, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=reading)
            except FileNotFoundError:
                continue
            try:
                self.add_opened(inner, prefix + os.fsencode(entry))
            finally:
                os.close(inner)

    def _file(self, fd: int, name: bytes) -> None:
        """As many bytes as its header says, whatever its writer does meanwhile."""
        reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(reading)
            found = portable_xattrs(xattrs(reading), self._shift)
            self._header(name, tarstream.REGULAR, status, size=status.st_size, xattrs=found)
            left = status.st_size
            while left and (piece := os.read(reading, min(left, _CHUNK))):
                self._tar.data(piece)
                left -= len(piece)
            while left:
                self._tar.data(bytes(min(left, _CHUNK)))
                left -= min(left, _CHUNK)
            self._tar.pad(status.st_size)
        finally:
            os.close(reading)

    def _header(
        self,
        name: bytes,
        kind: bytes,
        status: os.stat_result,
        *,
        size: int = 0,
        linkname: bytes = b"",
        xattrs: dict[str, bytes] | None = None,
    ) -> None:
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        self._tar.add(
            name,
            kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=unshift(status.st_uid, self._shift),
            gid=unshift(status.st_gid, self._shift),
            size=size,
            mtime=int(status.st_mtime),
            linkname=linkname,
            device=device,
            xattrs=xattrs,
        )


def xattrs(fd: int) -> dict[str, bytes]:
    """All of an open file; none where its file system has none."""
    try:
        return {key: os.getxattr(fd, key) for key in os.listxattr(fd)}
    except OSError:
        return {}
