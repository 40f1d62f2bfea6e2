"""Looking into an overlay without mounting it: before a start a handful of small files is all we need."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from engine.containers import inroot

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_MOST_LINKS = 40


class Layered:
    """A stack of folders, the topmost first, read as overlayfs would show them.

    A container may be writing to the topmost while we look: the kernel is never asked to follow a link.
    """

    def __init__(self, layers: Sequence[Path]) -> None:
        self._layers = layers

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        """A regular file's first `limit` bytes; None where there is none."""
        found = self._find(path)
        if found is None:
            return None
        try:
            return inroot.read_small(found, limit)
        except OSError:
            return None
        finally:
            os.close(found)

    def stat(self, path: str) -> os.stat_result | None:
        """What is there, links followed; None for nothing."""
        found = self._find(path)
        if found is None:
            return None
        try:
            return os.fstat(found)
        finally:
            os.close(found)

    def lstat(self, path: str) -> os.stat_result | None:
        """What is there, a link at its end not followed."""
        found = self._find(path, follow=False)
        if found is None:
            return None
        try:
            return os.fstat(found)
        finally:
            os.close(found)

    def readlink(self, path: str) -> str | None:
        """What the link at `path` aims at; None for anything else."""
        found = self._find(path, follow=False)
        if found is None:
            return None
        try:
            return os.readlink("", dir_fd=found) if stat.S_ISLNK(os.fstat(found).st_mode) else None
        finally:
            os.close(found)

    def names(self, path: str) -> set[str]:
        """What is in the folder at `path`, which is reached without links."""
        found: set[str] = set()
        hidden: set[str] = set()
        for layer in self._layers:
            fd = self._open(layer, path.lstrip("/"))
            if fd is None:
                continue
            try:
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    break
                whiteouts, here = self._listed(fd)
                found |= here - hidden
                hidden |= whiteouts
                if is_opaque(f"/proc/self/fd/{fd}/."):
                    break
            finally:
                os.close(fd)
        return found

    @staticmethod
    def _listed(fd: int) -> tuple[set[str], set[str]]:
        """(names that hide what is below, names of what is there)."""
        whiteouts: set[str] = set()
        here: set[str] = set()
        with os.scandir(f"/proc/self/fd/{fd}") as entries:
            for entry in entries:
                try:
                    whiteout = _is_whiteout(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                (whiteouts if whiteout else here).add(entry.name)
        return whiteouts, here

    def _find(self, path: str, *, follow: bool = True) -> int | None:
        """An O_PATH descriptor."""
        todo = [part for part in path.split("/") if part not in ("", ".")]
        here: list[str] = []
        stack = [list(self._layers)]
        links = 0
        while todo:
            name = todo.pop(0)
            if name == "..":
                if here:
                    here.pop()
                    stack.pop()
                continue
            found, visible = self._step(stack[-1], "/".join([*here, name]))
            if found is None:
                return None
            kind = os.fstat(found).st_mode
            if stat.S_ISLNK(kind) and (todo or follow):
                links += 1
                aim = os.readlink("", dir_fd=found)
                os.close(found)
                if links > _MOST_LINKS:
                    return None
                if aim.startswith("/"):
                    here, stack = [], [list(self._layers)]
                todo = [part for part in aim.split("/") if part not in ("", ".")] + todo
                continue
            if not todo:
                return found
            os.close(found)
            if not stat.S_ISDIR(kind):
                return None
            here.append(name)
            stack.append(visible)
        layer = stack[-1][0] if stack[-1] else None
        return None if layer is None else self._open(layer, "/".join(here))

    def _step(self, layers: list[Path], path: str) -> tuple[int | None, list[Path]]:
        """The topmost entry at `path`, and for a folder the layers that show through it."""
        top: int | None = None
        visible: list[Path] = []
        for layer in layers:
            fd = self._open(layer, path)
            if fd is None:
                continue
            status = os.fstat(fd)
            whiteout = _is_whiteout(status)
            folder = stat.S_ISDIR(status.st_mode)
            if whiteout or (top is not None and not folder):
                os.close(fd)
                break
            if folder:
                visible.append(layer)
            opaque = folder and is_opaque(f"/proc/self/fd/{fd}/.")
            if top is None:
                top = fd
                if not folder:
                    break
            else:
                os.close(fd)
            if opaque:
                break
        return top, visible

    @staticmethod
    def _open(layer: Path, path: str) -> int | None:
        try:
            root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return inroot.openat2(root, path, os.O_PATH | os.O_NOFOLLOW, resolve=inroot.BENEATH | inroot.NO_SYMLINKS)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        finally:
            os.close(root)


def is_opaque(path: str) -> bool:
    """Whether a folder of a layer hides all that is below it."""
    for name in _OPAQUE:
        try:
            if os.getxattr(path, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
