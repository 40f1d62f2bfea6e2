"""The tar of what changed in a tree, and what is done with it on the other side."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.containers import archive
from engine.containers.move.trees import Item, Tree
from engine.errors import InvalidInput, SystemFailure
from engine.images import tarstream, unpack
from engine.images.diff import portable_xattrs, unshift
from engine.images.tarwriter import TarWriter
from engine.kernel import paths

Write = Callable[[bytes | bytearray | memoryview], object]
LIMITS = unpack.Limits(bytes=1 << 60, entries=1 << 40, ratio=1 << 60)
"""It is no stranger's layer: whoever may move containers here is root here."""

_READ = 1 << 20
_STRICT = paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS | paths.RESOLVE_NO_MAGICLINKS
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL)
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_OTHERS = {stat.S_IFLNK: tarstream.SYMLINK, stat.S_IFCHR: tarstream.CHAR, stat.S_IFBLK: tarstream.BLOCK_DEVICE}


def pack(tree: Tree, items: Iterable[Item], write: Write) -> None:
    """Writes a layer's tar (OCI image-spec, layer.md) of the items; those that are gone meanwhile are left out: the
    next look finds them gone. Blocking. Raises SystemFailure."""
    packer = _Packer(tree, TarWriter(write))
    try:
        for item in items:
            packer.add(item)
        packer.close()
    except OSError as error:
        raise SystemFailure(f"can't read {tree.folder}: {error.strerror}", error.errno) from None
    finally:
        packer.release()


class _Packer:
    def __init__(self, tree: Tree, tar: TarWriter) -> None:
        self._tree = tree
        self._tar = tar
        self._root = os.open(tree.folder, _FOLDER | os.O_CLOEXEC)
        self._parent: tuple[bytes, int] = (b"", os.dup(self._root))

    def close(self) -> None:
        self._tar.close()

    def release(self) -> None:
        os.close(self._parent[1])
        os.close(self._root)

    def add(self, item: Item) -> None:
        folder, _, name = item.path.rpartition(b"/")
        try:
            at = self._folder(folder)
            status = os.stat(name or b".", dir_fd=at, follow_symlinks=False)
            if item.first:
                self._header(item.path, tarstream.LINK, status, {}, linkname=item.first)
            elif stat.S_ISREG(status.st_mode):
                self._file(at, name, item.path)
            elif stat.S_ISDIR(status.st_mode):
                self._subfolder(at, name, item.path)
            else:
                self._other(at, name, item.path, status)
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def _folder(self, path: bytes) -> int:
        if self._parent[0] != path:
            fd = paths.openat2(self._root, path or b".", os.O_PATH | os.O_DIRECTORY, resolve=_STRICT)
            os.close(self._parent[1])
            self._parent = (path, fd)
        return self._parent[1]

    def _subfolder(self, at: int, name: bytes, path: bytes) -> None:
        fd = os.open(name or b".", _FOLDER | os.O_CLOEXEC, dir_fd=at)
        try:
            found = archive.xattrs(fd)
            self._header(path + b"/" if path else b"./", tarstream.DIRECTORY, os.fstat(fd), found)
        finally:
            os.close(fd)
        if self._tree.overlay and any(found.get(key) == b"y" for key in _OPAQUE):
            mark = path + b"/" + unpack.OPAQUE if path else unpack.OPAQUE
            self._tar.add(mark, tarstream.REGULAR, mode=0)

    def _file(self, at: int, name: bytes, path: bytes) -> None:
        fd = os.open(name, _FILE | os.O_CLOEXEC, dir_fd=at)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            self._header(path, tarstream.REGULAR, status, archive.xattrs(fd), size=status.st_size)
            left = status.st_size
            while left:
                # As many bytes as its header says, whatever its writer does meanwhile.
                piece = os.read(fd, min(left, _READ)) or bytes(min(left, _READ))
                self._tar.data(piece)
                left -= len(piece)
            self._tar.pad(status.st_size)
        finally:
            os.close(fd)

    def _other(self, at: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        kind = _OTHERS.get(stat.S_IFMT(status.st_mode), tarstream.FIFO)
        if self._tree.overlay and kind == tarstream.CHAR and status.st_rdev == 0:
            folder, slash, last = path.rpartition(b"/")
            self._tar.add(folder + slash + unpack.WHITEOUT + last, tarstream.REGULAR, mode=0)
            return
        aim = os.readlink(name, dir_fd=at) if kind == tarstream.SYMLINK else b""
        device = (0, 0) if kind == tarstream.SYMLINK else (os.major(status.st_rdev), os.minor(status.st_rdev))
        self._header(path, kind, status, {}, linkname=aim, device=device)

    def _header(
        self,
        path: bytes,
        kind: bytes,
        status: os.stat_result,
        xattrs: dict[str, bytes],
        *,
        size: int = 0,
        linkname: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        shift = self._tree.shift
        seconds, rest = divmod(status.st_mtime_ns, 1_000_000_000)
        self._tar.add(
            path,
            kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=unshift(status.st_uid, shift),
            gid=unshift(status.st_gid, shift),
            size=size,
            mtime=seconds,
            nanoseconds=rest,
            linkname=linkname,
            device=device,
            xattrs=portable_xattrs(xattrs, shift) if xattrs else None,
        )


def remove(folder: Path, gone: Iterable[bytes]) -> None:
    """Removes what the other side no longer has. Blocking. Raises InvalidInput, SystemFailure."""
    root = os.open(folder, _FOLDER | os.O_CLOEXEC)
    try:
        for path in gone:
            if not path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
                raise InvalidInput(f"invalid path {path[:200]!r}")
            _remove(root, path)
    except OSError as error:
        raise SystemFailure(f"can't change {folder}: {error.strerror}", error.errno) from None
    finally:
        os.close(root)


def _remove(root: int, path: bytes) -> None:
    parent, _, name = path.rpartition(b"/")
    try:
        at = paths.openat2(root, parent or b".", os.O_PATH | os.O_DIRECTORY, resolve=_STRICT)
    except (FileNotFoundError, NotADirectoryError):
        return  # it went with its folder
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            unpack.remove_tree(at, name)
        else:
            os.unlink(name, dir_fd=at)
    except FileNotFoundError:
        return
    finally:
        os.close(at)
