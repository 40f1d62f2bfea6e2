"""Unpacks a layer's tar into a folder, without ever leaving it.

Names, links and times come from strangers. Every path is resolved by openat2 with RESOLVE_IN_ROOT, so neither
`..` nor a symbolic link leads out; the last component is never followed. Whiteouts become what overlayfs
takes for them: a character device 0:0, and the attribute `trusted.overlay.opaque`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import InvalidInput, SystemFailure
from engine.images import tarstream
from engine.images.pipeline import Sink, ahead
from engine.images.tarstream import Entry, TarReader
from engine.kernel.paths import openat2

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
OPAQUE_XATTR = "trusted.overlay.opaque"
_MAX_DEPTH = 1024
_OPEN_FOLDERS = 64
_FOLDER_MODE = 0o755
_PATH_FLAGS = os.O_PATH | os.O_DIRECTORY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Limits:
    """What one layer may cost. `ratio` counts only from `ratio_floor` bytes on."""

    bytes: int = 64 << 30
    entries: int = 750_000
    ratio: int = 250
    ratio_floor: int = 1 << 30

    def most(self, compressed: int) -> int:
        """The bytes that so many compressed ones may become."""
        return min(self.bytes, max(self.ratio_floor, self.ratio * max(compressed, 1)))


@dataclass
class Unpacked:
    """What an unpacked tar turned out to be. `size` is the sum of the regular files' sizes.

    `implied` are folders that had to be made without an entry of their own; `absent_links` are hard links
    (name, target) to what is not in this layer: both need the layers below to be finished.
    """

    diff_id: str = ""
    tar_size: int = 0
    size: int = 0
    entries: int = 0
    implied: list[bytes] = field(default_factory=list)
    absent_links: list[tuple[Entry, bytes]] = field(default_factory=list)


def unpack(
    chunks: Iterable[bytes],
    destination: Path,
    *,
    whiteouts: bool = True,
    id_shift: int = 0,
    limits: Limits | None = None,
    compressed_size: int | None = None,
) -> Unpacked:
    """Unpacks the uncompressed tar in `chunks` into the existing folder `destination`.

    The chunks are produced, hashed and unpacked on three threads. With `whiteouts`, names that start with
    `.wh.` are layer instructions, otherwise plain names. Raises InvalidInput for a tar that is damaged,
    hostile or over the limits, SystemFailure when the disk refuses; what was unpacked until then stays.
    """
    sha = hashlib.sha256()
    result = Unpacked()
    limits = limits or Limits()
    hashing: Sink[bytes] = Sink(sha.update, "layer-hash")

    def counted() -> Generator[bytes, None, None]:
        with contextlib.closing(ahead(chunks, "layer-read")) as read:
            for chunk in read:
                result.tar_size += len(chunk)
                _check_limits(result, limits, compressed_size)
                hashing.put(chunk)
                yield chunk

    # Closed here, while what is read can still be had: the collector's time may be too late to wait for its thread.
    pieces = counted()
    try:
        with _Unpacker(destination, result, whiteouts, id_shift, limits) as unpacker:
            reader = TarReader(pieces)
            for entry in reader:
                unpacker.add(entry, reader)
            reader.drain()
            unpacker.finish()
        hashing.close()
    except OSError as error:
        raise _failure(error) from error
    finally:
        pieces.close()
        hashing.stop()
    result.diff_id = "sha256:" + sha.hexdigest()
    return result


class _Unpacker:
    """Holds the folders open that are being filled."""

    def __init__(self, root: Path, result: Unpacked, whiteouts: bool, id_shift: int, limits: Limits) -> None:
        self._result = result
        self._whiteouts = whiteouts
        self._shift = id_shift
        self._limits = limits
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._folders: OrderedDict[bytes, int] = OrderedDict()
        self._directories: dict[bytes, tuple[Entry, int]] = {}  # with the inode's number
        self._hidden: set[bytes] = set()

    def __enter__(self) -> _Unpacker:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_folders()
        os.close(self._root)

    def add(self, entry: Entry, reader: TarReader) -> None:
        self._result.entries += 1
        if self._result.entries > self._limits.entries:
            raise InvalidInput(f"layer with more than {self._limits.entries} entries")
        parts = _parts(entry.name)
        if not parts:
            if entry.type == tarstream.DIRECTORY:  # "./": the root's own mode and owner
                self._directories[b""] = (entry, os.fstat(self._root).st_ino)
            return
        name = parts[-1]
        folder = b"/".join(parts[:-1])
        if self._whiteouts:
            if any(part.startswith(WHITEOUT) for part in parts[:-1]):
                raise InvalidInput(f"layer has an entry below a whiteout: {_show(entry.name)}")
            if name.startswith(WHITEOUT):
                self._whiteout(folder, name)
                return
            if entry.type == tarstream.CHAR and entry.devmajor == entry.devminor == 0:
                self._whiteout(folder, WHITEOUT + name)
                return
        at = self._folder(folder)
        path = folder + b"/" + name if folder else name
        kind = entry.type
        if kind == tarstream.REGULAR:
            self._file(at, name, path, entry, reader)
        elif kind == tarstream.DIRECTORY:
            self._directory(at, name, path, entry)
        elif kind == tarstream.SYMLINK:
            if not entry.linkname or len(entry.linkname) >= 4096:
                raise InvalidInput(f"layer has a symbolic link to nowhere: {_show(entry.name)}")
            self._make(at, name, path, lambda: os.symlink(entry.linkname, name, dir_fd=at))
            self._attributes(at, name, entry)
        elif kind == tarstream.LINK:
            self._link(at, name, path, entry)
        elif kind in (tarstream.CHAR, tarstream.BLOCK_DEVICE, tarstream.FIFO):
            self._node(at, name, path, entry)
        else:
            raise InvalidInput(f"layer has an entry of unknown type {kind!r}: {_show(entry.name)}")

    def finish(self) -> None:
        """Gives folders their owners, modes and times, now that nothing in them changes any more."""
        if b"" not in self._directories:
            self._result.implied.append(b"")
        for path in reversed(self._directories):
            entry, inode = self._directories[path]
            try:
                fd = openat2(self._root, path or b".", os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced later in the same tar
            try:
                found = os.fstat(fd)
                if found.st_ino != inode:
                    continue
                self._own(fd, entry, found)
                _set_xattrs(fd, entry)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)

    # -- kinds of entries

    def _file(self, at: int, name: bytes, path: bytes, entry: Entry, reader: TarReader) -> None:
        self._result.size += entry.size
        if entry.size > self._limits.bytes:
            raise InvalidInput(f"layer has a file of {entry.size} bytes: {_show(entry.name)}")
        mode = entry.mode & 0o777
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=at)
        except FileExistsError:
            self._remove(at, name)
            fd = os.open(name, _CREATE, mode, dir_fd=at)
        try:
            end = 0
            for offset, piece in reader.content():
                if offset != end:
                    os.lseek(fd, offset, os.SEEK_SET)
                end = offset + len(piece)
                while piece:
                    piece = piece[os.write(fd, piece) :]
            if entry.sparse is not None:
                os.ftruncate(fd, entry.size)
            self._own(fd, entry, os.fstat(fd))
            if entry.xattrs:
                _set_xattrs(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _directory(self, at: int, name: bytes, path: bytes, entry: Entry) -> None:
        mode = 0o700 | entry.mode & 0o777
        try:
            os.mkdir(name, mode, dir_fd=at)
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
        except FileExistsError:
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                self._remove(at, name)
                os.mkdir(name, mode, dir_fd=at)
                found = os.stat(name, dir_fd=at, follow_symlinks=False)
        self._directories.pop(path, None)
        self._directories[path] = (entry, found.st_ino)
        if path in self._hidden:
            self._mark_opaque(path)

    def _link(self, at: int, name: bytes, path: bytes, entry: Entry) -> None:
        target = _parts(entry.linkname)
        if not target or (self._whiteouts and any(part.startswith(WHITEOUT) for part in target)):
            raise InvalidInput(f"layer has a hard link to what is no file: {_show(entry.name)}")
        if b"/".join(target) == path:
            return
        try:
            source = openat2(self._root, b"/".join(target[:-1]) or b".", _PATH_FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            self._result.absent_links.append((entry, path))
            return
        try:
            last = target[-1]
            found = os.stat(last, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                raise InvalidInput(f"layer has a hard link to a folder: {_show(entry.name)}")
            if is_whiteout(found):
                raise InvalidInput(f"layer has a hard link to a whiteout: {_show(entry.name)}")
            self._make(
                at,
                name,
                path,
                lambda: os.link(last, name, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False),
            )
        except FileNotFoundError:
            self._result.absent_links.append((entry, path))
        finally:
            os.close(source)

    def _node(self, at: int, name: bytes, path: bytes, entry: Entry) -> None:
        kinds = {
            tarstream.CHAR: stat.S_IFCHR,
            tarstream.BLOCK_DEVICE: stat.S_IFBLK,
            tarstream.FIFO: stat.S_IFIFO,
        }
        device = os.makedev(entry.devmajor, entry.devminor) if entry.type != tarstream.FIFO else 0
        self._make(at, name, path, lambda: os.mknod(name, kinds[entry.type] | 0o600, device, dir_fd=at))
        self._attributes(at, name, entry)

    def _own(self, fd: int, entry: Entry, found: os.stat_result) -> None:
        """Gives what is open its owner and mode where it has not got them already: each call costs the journal."""
        uid, gid = entry.uid + self._shift, entry.gid + self._shift
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.fchown(fd, uid, gid)
            os.fchmod(fd, entry.mode)  # chown takes the set-id bits away
        elif stat.S_IMODE(found.st_mode) != entry.mode:
            os.fchmod(fd, entry.mode)

    def _attributes(self, at: int, name: bytes, entry: Entry) -> None:
        """Of what can't be opened: links, devices, pipes."""
        uid, gid = entry.uid + self._shift, entry.gid + self._shift
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)
        here = b"/proc/self/fd/%d/%s" % (at, name)
        if entry.type != tarstream.SYMLINK:
            os.chmod(here, entry.mode)  # we have just made it, so it is no link
        for key, value in _allowed_xattrs(entry):
            os.setxattr(here, key, value, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=at, follow_symlinks=False)

    def _whiteout(self, folder: bytes, name: bytes) -> None:
        if name == OPAQUE:
            self._folder(folder)
            self._mark_opaque(folder)
            return
        if name.startswith(_AUFS):
            return  # bookkeeping of AUFS, which means nothing to others
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise InvalidInput(f"layer has an invalid whiteout: {_show(folder + b'/' + name)}")
        at = self._folder(folder)
        path = folder + b"/" + hidden if folder else hidden
        self._hidden.add(path)
        try:
            os.mknod(hidden, stat.S_IFCHR | 0o600, 0, dir_fd=at)
        except FileExistsError:
            # A whiteout hides what is below, never what this layer itself brings (OCI image-spec, layer.md).
            if stat.S_ISDIR(os.stat(hidden, dir_fd=at, follow_symlinks=False).st_mode):
                self._mark_opaque(path)

    # -- helpers

    def _mark_opaque(self, path: bytes) -> None:
        fd = openat2(self._root, path or b".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.setxattr(fd, OPAQUE_XATTR, b"y")
        finally:
            os.close(fd)

    def _make(self, at: int, name: bytes, path: bytes, make: object) -> None:
        assert callable(make)
        try:
            make()
        except FileExistsError:
            self._remove(at, name)
            make()

    def _remove(self, at: int, name: bytes) -> None:
        """Makes room for a later entry of the same name."""
        # What goes may be a folder that we hold open, or a link that we reached one through.
        self._forget_folders(but=at)
        if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            remove_tree(at, name)
        else:
            os.unlink(name, dir_fd=at)

    def _forget_folders(self, but: int = -1) -> None:
        kept = {path: fd for path, fd in self._folders.items() if fd == but}
        for fd in self._folders.values():
            if fd != but:
                os.close(fd)
        self._folders = OrderedDict(kept)

    def _folder(self, path: bytes) -> int:
        """A descriptor of the folder, made with its parents where it is not there."""
        fd = self._folders.get(path)
        if fd is not None:
            self._folders.move_to_end(path)
            return fd
        if not path:
            fd = os.open(b".", _PATH_FLAGS | os.O_CLOEXEC, dir_fd=self._root)
        else:
            try:
                fd = openat2(self._root, path, _PATH_FLAGS)
            except (FileNotFoundError, NotADirectoryError):
                fd = self._make_folder(path)
        self._folders[path] = fd
        if len(self._folders) > _OPEN_FOLDERS:
            os.close(self._folders.popitem(last=False)[1])
        return fd

    def _make_folder(self, path: bytes) -> int:
        parent, _, name = path.rpartition(b"/")
        at = self._folder(parent)
        try:
            os.mkdir(name, 0o755, dir_fd=at)
        except FileExistsError:
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                raise InvalidInput(f"layer has an entry below a link to nowhere: {_show(path)}") from None
            if path not in self._hidden:
                raise InvalidInput(f"layer has an entry below what is no folder: {_show(path)}") from None
            self._remove(at, name)
            at = self._folder(parent)
            os.mkdir(name, 0o755, dir_fd=at)
        os.chmod(b"/proc/self/fd/%d/%s" % (at, name), _FOLDER_MODE)  # whatever our umask is
        if self._shift:
            os.chown(name, self._shift, self._shift, dir_fd=at, follow_symlinks=False)
        self._result.implied.append(path)
        if path in self._hidden:
            self._mark_opaque(path)
        return openat2(self._root, path, _PATH_FLAGS)


def is_opaque(folder: Path) -> bool:
    """Whether a layer's folder hides what the layers below have in its place."""
    try:
        return os.getxattr(folder, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError:
        return False


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this stands in a layer for a file that is not there any more."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def remove_tree(at: int, name: bytes) -> None:
    """Removes a folder and all below it, never through a link."""
    stack: list[tuple[int, bytes, int, list[bytes]]] = []
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    parent, label, folders = at, name, _unlink_files(fd)
    while True:
        if folders:
            stack.append((parent, label, fd, folders))
            parent, label = fd, folders.pop()
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(label, flags, dir_fd=parent)
            folders = _unlink_files(fd)
            continue
        os.close(fd)
        os.rmdir(label, dir_fd=parent)
        if not stack:
            return
        parent, label, fd, folders = stack.pop()


def _unlink_files(fd: int) -> list[bytes]:
    folders = []
    with os.scandir(fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                folders.append(name)
            else:
                os.unlink(name, dir_fd=fd)
    return folders


def _parts(name: bytes) -> list[bytes]:
    """The components of an entry's name; absolute names and `.` are taken from the root, `..` is refused."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise InvalidInput(f"layer has an entry outside of its root: {_show(name)}")
    if len(parts) > _MAX_DEPTH or any(len(part) > 255 for part in parts):
        raise InvalidInput(f"layer has a name that no file system takes: {_show(name)}")
    return parts


def _allowed_xattrs(entry: Entry) -> Iterator[tuple[str, bytes]]:
    """What a layer may set: file capabilities, ACLs, and user attributes that overlayfs does not read."""
    for key, value in entry.xattrs.items():
        if (
            key == "security.capability"
            or key.startswith("system.posix_acl_")
            or (key.startswith("user.") and not key.startswith("user.overlay."))
        ):
            yield key, value


def _set_xattrs(fd: int, entry: Entry) -> None:
    for key, value in _allowed_xattrs(entry):
        try:
            os.setxattr(fd, key, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL) or key == "security.capability":
                raise


def _check_limits(result: Unpacked, limits: Limits, compressed_size: int | None) -> None:
    if result.tar_size > limits.bytes:
        raise InvalidInput(f"layer unpacks to more than {limits.bytes} bytes")
    if compressed_size is not None and result.tar_size > limits.most(compressed_size):
        raise InvalidInput(f"layer of {compressed_size} bytes grows more than {limits.ratio} times: refused as a bomb")


def _failure(error: OSError) -> SystemFailure | InvalidInput:
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV):
        return InvalidInput(f"layer has a path that can't be resolved: {_show(os.fsencode(error.filename or ''))}")
    reason = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror
    where = f" {error.filename!r}" if error.filename else ""
    return SystemFailure(f"cannot unpack layer{where}: {reason}", error.errno)


def _show(name: bytes) -> str:
    return repr(name[:200].decode("utf-8", "backslashreplace"))
