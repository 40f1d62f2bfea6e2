"""`docker cp` into a container: a tar is unpacked there.

Everything is opened below the container's root by the kernel (`inroot`): a link swapped in meanwhile leads nowhere but
into the same root.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from engine.containers import inroot
from engine.containers.archive import clean_path
from engine.errors import Forbidden, InvalidInput, SystemFailure
from engine.images import tarstream
from engine.images.compression import decompressed

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class PutOptions:
    """`shift` is added to the archive's owners; `owner` replaces them."""

    shift: int = 0
    owner: tuple[int, int] | None = None
    no_overwrite_dir_non_dir: bool = False


def put(root: int, path: str, source: IO[bytes], options: PutOptions) -> None:
    """Unpacks a tar, compressed or not, into the folder `path`. Blocking.

    Raises NotFound or InvalidInput for a bad target, an archive that is none, or one that would step out.
    """
    clean = clean_path(path)
    status = inroot.stat_of(root, clean)
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidInput("extraction point is not a directory")
    chunks = cast("Iterator[bytes | memoryview]", decompressed(cast("Any", source)))
    unpacker = _Unpacker(root, clean, options)
    try:
        reader = tarstream.TarReader(chunks)
        for entry in reader:
            unpacker.add(entry, reader)
        unpacker.finish()
    except OSError as error:
        if error.errno == errno.EROFS:
            raise Forbidden("container rootfs is marked read-only") from None
        raise SystemFailure(f"can't write below {path}: {error.strerror}", error.errno) from None


class _Unpacker:
    def __init__(self, root: int, base: str, options: PutOptions) -> None:
        self._root = root
        self._base = base
        self._options = options
        self._times: list[tuple[str, int]] = []

    def add(self, entry: tarstream.Entry, reader: tarstream.TarReader) -> None:
        name = os.fsdecode(entry.name)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InvalidInput(f"invalid archive: {name!r} points outside of the target")
        if not parts:
            return
        full = posixpath.join(self._base, *parts)
        parent, last = posixpath.split(full)
        at = self._parent(parent)
        try:
            self._make(entry, reader, at, last, full)
        finally:
            os.close(at)

    def _parent(self, parent: str) -> int:
        try:
            return inroot.openat2(self._root, parent, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return inroot.make_dirs(self._root, parent, owner=self._owner(0, 0))

    def _make(self, entry: tarstream.Entry, reader: tarstream.TarReader, at: int, name: str, full: str) -> None:
        if not self._clear(entry, at, name):
            return
        mode = stat.S_IMODE(entry.mode)
        if entry.type == tarstream.DIRECTORY:
            self._make_folder(entry, at, name, full)
            return
        if entry.type == tarstream.REGULAR:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=at)
            try:
                for offset, piece in reader.content():
                    while piece:
                        written = os.pwrite(fd, piece, offset)
                        offset, piece = offset + written, piece[written:]
                os.ftruncate(fd, entry.size)
                os.fchown(fd, *self._owner(entry.uid, entry.gid))
                os.fchmod(fd, mode)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)
            return
        if entry.type == tarstream.LINK:
            self._hard_link(entry, at, name)
            return
        if entry.type == tarstream.SYMLINK:
            os.symlink(entry.linkname, name, dir_fd=at)
        elif entry.type in (tarstream.CHAR, tarstream.BLOCK_DEVICE, tarstream.FIFO):
            kinds = {tarstream.CHAR: stat.S_IFCHR, tarstream.BLOCK_DEVICE: stat.S_IFBLK}
            device = os.makedev(entry.devmajor, entry.devminor)
            os.mknod(name, kinds.get(entry.type, stat.S_IFIFO) | mode, device, dir_fd=at)
        else:
            return
        os.chown(name, *self._owner(entry.uid, entry.gid), dir_fd=at, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=at, follow_symlinks=False)

    def _make_folder(self, entry: tarstream.Entry, at: int, name: str, full: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=at)
        except FileExistsError:
            return
        fd = os.open(name, _FOLDER, dir_fd=at)
        try:
            os.fchown(fd, *self._owner(entry.uid, entry.gid))
            os.fchmod(fd, stat.S_IMODE(entry.mode))
        finally:
            os.close(fd)
        self._times.append((full, entry.mtime_ns))

    def _hard_link(self, entry: tarstream.Entry, at: int, name: str) -> None:
        """To a file that is below the target folder; links on the way to it stay in the root."""
        aim = [part for part in os.fsdecode(entry.linkname).split("/") if part not in ("", ".")]
        if ".." in aim or not aim:
            raise InvalidInput(f"invalid archive: hard link to {os.fsdecode(entry.linkname)!r}")
        folder = inroot.openat2(self._root, posixpath.join(self._base, *aim[:-1]), os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(aim[-1], name, src_dir_fd=folder, dst_dir_fd=at, follow_symlinks=False)
        finally:
            os.close(folder)

    def _clear(self, entry: tarstream.Entry, at: int, name: str) -> bool:
        """Makes way for the entry. Never by following a link, and a folder only if it is empty."""
        try:
            there = os.stat(name, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return True
        is_folder = stat.S_ISDIR(there.st_mode)
        if is_folder != (entry.type == tarstream.DIRECTORY) and self._options.no_overwrite_dir_non_dir:
            kinds = ("directory", "non-directory") if is_folder else ("non-directory", "directory")
            raise InvalidInput(f"cannot overwrite {kinds[0]} {name!r} with {kinds[1]}")
        if is_folder and entry.type == tarstream.DIRECTORY:
            return True
        try:
            if is_folder:
                os.rmdir(name, dir_fd=at)
            else:
                os.unlink(name, dir_fd=at)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EBUSY, errno.EEXIST):
                raise InvalidInput(f"cannot overwrite {name!r}: {error.strerror}") from None
            raise
        return True

    def _owner(self, uid: int, gid: int) -> tuple[int, int]:
        if self._options.owner is not None:
            uid, gid = self._options.owner
        shift = self._options.shift
        return (uid + shift, gid + shift) if shift else (uid, gid)

    def finish(self) -> None:
        """Times of folders last: filling them has changed them."""
        for path, mtime in reversed(self._times):
            try:
                with inroot.opened(self._root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as fd:
                    os.utime(fd, ns=(mtime, mtime))
            except OSError:
                continue
