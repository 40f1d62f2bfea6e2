"""Trees of files that COPY, ADD and bind mounts take from: a build context, an image, a stage.

Paths are relative to the tree's root, clean, with `/`; the root itself is the empty path. A path never leads
out of its tree: links are followed as after a chroot.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import NamedTuple

from engine.build.ignore import IgnoreRules
from engine.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

FILE, FOLDER, LINK, FIFO, CHAR, BLOCK = "file", "folder", "link", "fifo", "char", "block"
_KINDS = {
    stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK, stat.S_IFIFO: FIFO, stat.S_IFCHR: CHAR,
    stat.S_IFBLK: BLOCK,
}  # fmt: skip
_SAFE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
MAX_LINKS = 40
_COPY_CHUNK = 1 << 30
_KEPT_XATTRS = ("user.", "security.capability", "system.posix_acl_")


class Entry(NamedTuple):
    """One file. `same` is equal for the names of one hard-linked file, None where it has one name only."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: str = ""
    device: int = 0
    same: Hashable = None


class Tree(ABC):
    """What can be read from. Safe for threads."""

    @abstractmethod
    def entry(self, path: str) -> Entry | None:
        """What is at `path`, links not followed; None where nothing is."""

    @abstractmethod
    def children(self, path: str) -> Iterator[tuple[str, Entry]]:
        """The names in a folder, sorted, and what they are."""

    @abstractmethod
    def digest(self, path: str) -> str:
        """SHA-256 of a file's content, in hexadecimal."""

    @abstractmethod
    def copy_to(self, path: str, target: int) -> None:
        """Writes a file's content to the empty file `target` (a descriptor)."""

    @abstractmethod
    def read(self, path: str, limit: int) -> bytes:
        """At most `limit` bytes of a file's beginning."""

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The extended attributes that belong to an image."""
        return {}

    def close(self) -> None:  # noqa: B027 - most trees hold nothing
        """Gives back what the tree holds open."""

    def resolve(self, path: str) -> str | None:
        """Where `path` leads when every link is followed; None where nothing is."""
        return followed(path, self.entry)


class FolderTree(Tree):
    """A folder on disk, which nobody changes meanwhile.

    `own_root` makes every file root's, as files of a build context are. `rules` hide what they ignore.
    """

    def __init__(self, root: int, *, own_root: bool = False, rules: IgnoreRules | None = None) -> None:
        """Takes over the descriptor `root`."""
        self._root = root
        self._own_root = own_root
        self._rules = rules or None
        self._verdicts: dict[str, tuple[bool, tuple[bool, ...]]] = {"": (False, ())}

    @classmethod
    def at(cls, path: Path, *, own_root: bool = False, rules: IgnoreRules | None = None) -> FolderTree:
        """The tree below `path`. Raises OSError."""
        return cls(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), own_root=own_root, rules=rules)

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def entry(self, path: str) -> Entry | None:
        if not self._shown(path):
            return None
        return self._entry(path)

    def _entry(self, path: str) -> Entry | None:
        try:
            fd = openat2(self._root, path or ".", os.O_PATH | os.O_NOFOLLOW, resolve=_SAFE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise
        try:
            status = os.fstat(fd)
            target = os.readlink("", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
            return self._made(status, target)
        finally:
            os.close(fd)

    def children(self, path: str) -> Iterator[tuple[str, Entry]]:
        fd = openat2(self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=_SAFE)
        found: list[tuple[str, Entry]] = []
        try:
            with os.scandir(fd) as names:
                for name in names:
                    whole = f"{path}/{name.name}" if path else name.name
                    if not self._shown(whole, name.is_dir(follow_symlinks=False)):
                        continue
                    status = name.stat(follow_symlinks=False)
                    if stat.S_ISSOCK(status.st_mode):
                        continue  # a socket without its process is of no use to anyone
                    target = os.readlink(name.name, dir_fd=fd) if name.is_symlink() else ""
                    found.append((name.name, self._made(status, target)))
        finally:
            os.close(fd)
        found.sort()
        return iter(found)

    def digest(self, path: str) -> str:
        fd = self._open(path)
        with os.fdopen(fd, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def copy_to(self, path: str, target: int) -> None:
        fd = self._open(path)
        try:
            copy_bytes(fd, target)
        finally:
            os.close(fd)

    def read(self, path: str, limit: int) -> bytes:
        with os.fdopen(self._open(path), "rb") as file:
            return file.read(limit)

    def xattrs(self, path: str) -> dict[str, bytes]:
        fd = openat2(self._root, path or ".", os.O_PATH | os.O_NOFOLLOW, resolve=_SAFE)
        try:
            name = f"/proc/self/fd/{fd}"
            return {
                attribute: os.getxattr(name, attribute)
                for attribute in sorted(os.listxattr(name))
                if attribute.startswith(_KEPT_XATTRS)
            }
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return {}
            raise
        finally:
            os.close(fd)

    def _open(self, path: str) -> int:
        return openat2(self._root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, resolve=_SAFE)

    def _made(self, status: os.stat_result, target: str) -> Entry:
        shared = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
        return Entry(
            _KINDS.get(stat.S_IFMT(status.st_mode), FIFO),
            stat.S_IMODE(status.st_mode),
            0 if self._own_root else status.st_uid,
            0 if self._own_root else status.st_gid,
            status.st_size,
            status.st_mtime_ns,
            target,
            status.st_rdev,
            (status.st_dev, status.st_ino) if shared else None,
        )

    def _shown(self, path: str, folder: bool | None = None) -> bool:
        if self._rules is None or not path:
            return True
        ignored, _ = self._verdict(path)
        if not ignored:
            return True
        if not self._rules.has_exceptions:
            return False
        if folder is None:
            entry = self._entry(path)
            folder = entry is not None and entry.kind == FOLDER
        # A folder that is ignored still holds what an exception brings back.
        return folder and any(True for _ in self.children(path))

    def _verdict(self, path: str) -> tuple[bool, tuple[bool, ...]]:
        known = self._verdicts.get(path)
        if known is None:
            assert self._rules is not None
            parent = self._verdict(path.rpartition("/")[0])[1]
            known = self._verdicts[path] = self._rules.verdict(path, parent)
        return known


class EmptyTree(Tree):
    """Nothing but a root: what `from=scratch` gives."""

    def entry(self, path: str) -> Entry | None:
        return None if path else Entry(FOLDER, 0o755, 0, 0, 0, 0)

    def children(self, path: str) -> Iterator[tuple[str, Entry]]:
        return iter(())

    def digest(self, path: str) -> str:
        raise FileNotFoundError(errno.ENOENT, "no such file", path)

    def copy_to(self, path: str, target: int) -> None:
        raise FileNotFoundError(errno.ENOENT, "no such file", path)

    def read(self, path: str, limit: int) -> bytes:
        raise FileNotFoundError(errno.ENOENT, "no such file", path)


def followed(path: str, entry_of: Callable[[str], Entry | None], *, missing_ok: bool = False) -> str | None:
    """Where `path` leads when every link is followed; None where there are too many.

    None too where nothing is, unless `missing_ok`: then the rest of the path is taken as it is.
    """
    done: list[str] = []
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            if done:
                done.pop()
            continue
        entry = entry_of("/".join([*done, part]))
        if entry is None and not missing_ok:
            return None
        if entry is None or entry.kind != LINK:
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        if entry.target.startswith("/"):
            done = []
        todo += [step for step in reversed(entry.target.split("/")) if step not in ("", ".")]
    return "/".join(done)


def copy_bytes(source: int, target: int, offset: int = 0, count: int | None = None) -> None:
    """Copies within the kernel: shares blocks where the file system can, else through the page cache."""
    left = os.fstat(source).st_size - offset if count is None else count
    shared = True
    while left > 0:
        step = min(left, _COPY_CHUNK)
        try:
            done = (
                os.copy_file_range(source, target, step, offset_src=offset)
                if shared
                else os.sendfile(target, source, offset, step)
            )
        except OSError as error:
            if not shared or error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            shared = False
            continue
        if done == 0:
            if not shared:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            shared = False  # some file systems answer 0 for what they cannot do
            continue
        offset += done
        left -= done


def with_parents(path: str) -> Iterator[str]:
    """`a/b/c` → `a`, `a/b`, `a/b/c`."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)
    yield path
