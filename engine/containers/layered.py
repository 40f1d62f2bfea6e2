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
            whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
            folder = stat.S_ISDIR(status.st_mode)
            if whiteout or (top is not None and not folder):
                os.close(fd)
                break
            if folder:
                visible.append(layer)
            opaque = folder and self._opaque(fd)
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

    @staticmethod
    def _opaque(fd: int) -> bool:
        for name in _OPAQUE:
            try:
                if os.getxattr(f"/proc/self/fd/{fd}", name) == b"y":
                    return True
            except OSError:
                continue
        return False
