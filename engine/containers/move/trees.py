"""What changed in a tree of files since it was last looked at: so that most of it can be copied while it is in use.

A file counts as the same when its inode and the time of its last change (ctime, which no program can set) are. Its
writer may have it mapped: the kernel notes a write only at the first one after a page was written back. So before each
look all is written back, and what has changed since then counts as changed once more.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import SystemFailure
from engine.images.unpack import WHITEOUT
from engine.kernel import paths
from engine.kernel.sync import syncfs

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_STRICT = paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS | paths.RESOLVE_NO_MAGICLINKS
_COARSE_NS = 20_000_000
"""How far a file system's clock may be behind ours: two of the slowest kernel's ticks."""

_KINDS = frozenset(
    (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO)
)  # sockets mean nothing without their process


@dataclass(frozen=True)
class Item:
    """Something to be sent. `first` is the name under which the same file was sent before."""

    path: bytes
    first: bytes = b""


@dataclass
class Changes:
    """`gone` is to be removed before `items` are put there; folders come before what is in them."""

    items: list[Item] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.items or self.gone)


class Tree:
    """One folder, and what of it has been sent. With `overlay` it is a container's upper folder; `prefix` leaves out
    top-level names that begin otherwise."""

    def __init__(self, folder: Path, *, overlay: bool = False, shift: int = 0, prefix: bytes = b"") -> None:
        self.folder = folder
        self.overlay = overlay
        self.shift = shift
        self._prefix = prefix
        self._known: dict[bytes, tuple[int, int, int]] = {}

    def changes(self, *, quiet: bool = False) -> Changes:
        """What is to be sent now; the next call takes it for sent. `quiet`: nobody writes any more. Blocking.

        Raises SystemFailure.
        """
        try:
            return self._look(quiet)
        except OSError as error:
            raise SystemFailure(f"can't read {self.folder}: {error.strerror}", error.errno) from None

    def _look(self, quiet: bool) -> Changes:
        root = os.open(self.folder, _FOLDER | os.O_CLOEXEC)
        try:
            written_back = time.time_ns() - _COARSE_NS
            if not quiet:
                syncfs(root)
            return _Look(self._known, written_back, self.overlay, self._prefix).at(root)
        finally:
            os.close(root)


class _Look:
    def __init__(self, known: dict[bytes, tuple[int, int, int]], since: int, overlay: bool, prefix: bytes) -> None:
        self._known = known
        self._since = since
        self._overlay = overlay
        self._prefix = prefix
        self._found: dict[bytes, tuple[int, int, int]] = {}
        self._first: dict[tuple[int, int], bytes] = {}
        self._sent: set[bytes] = set()
        self._changes = Changes()

    def at(self, root: int) -> Changes:
        folders = [(b"", self._take(b"", os.fstat(root), parent=None, anew=False))]
        while folders:
            path, anew = folders.pop()
            for name, status in self._inside(root, path):
                inner = path + b"/" + name if path else name
                new = self._take(inner, status, parent=path, anew=anew)
                if stat.S_ISDIR(status.st_mode):
                    folders.append((inner, new))
        self._changes.gone += sorted(self._known.keys() - self._found.keys())
        self._known.clear()
        # What is not known will be taken for changed.
        self._known.update(self._found)
        return self._changes

    def _inside(self, root: int, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        try:
            fd = paths.openat2(root, path or b".", _FOLDER, resolve=_STRICT)
        except (FileNotFoundError, NotADirectoryError):
            return  # replaced since it was listed
        try:
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                if (not path and not name.startswith(self._prefix)) or (self._overlay and name.startswith(WHITEOUT)):
                    continue
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_IFMT(status.st_mode) in _KINDS:
                    yield name, status
        finally:
            os.close(fd)

    def _take(self, path: bytes, status: os.stat_result, *, parent: bytes | None, anew: bool) -> bool:
        """Whether all below it is to be sent whatever is known of it."""
        kind = stat.S_IFMT(status.st_mode)
        # Too fresh to be sure that nothing more comes at the same time: sent now, and looked at once more.
        changed_at = status.st_ctime_ns if status.st_ctime_ns < self._since else -1
        mark = (kind, status.st_ino, changed_at)
        before = self._known.get(path)
        self._found[path] = mark
        replaced = before is not None and (
            before[0] != kind or (kind == stat.S_IFDIR and before[1] != status.st_ino and path != b"")
        )
        if replaced and not anew:
            self._changes.gone.append(path)
        anew = anew or replaced
        if anew or before != mark or changed_at < 0:
            self._send(path, kind, status, parent)
        elif kind != stat.S_IFDIR and status.st_nlink > 1:
            # Another name of it may be new: that one becomes a link to this, or this one to that.
            key = (status.st_dev, status.st_ino)
            if self._first.setdefault(key, path) in self._sent:
                self._send(path, kind, status, parent)
        return anew

    def _send(self, path: bytes, kind: int, status: os.stat_result, parent: bytes | None) -> None:
        if parent is not None and parent not in self._sent:
            # Putting something into a folder changes its times: it is told again how it was.
            self._add(Item(parent))
        if path in self._sent:
            return
        first = b""
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            first = self._first.setdefault(key, path)
        self._add(Item(path, first if first != path else b""))
        if kind == stat.S_IFREG and first in (b"", path):
            self._changes.size += status.st_size

    def _add(self, item: Item) -> None:
        self._sent.add(item.path)
        self._changes.items.append(item)
