"""Where a path of a container leads: through links and into what is mounted, as its own processes would go.

A link in a volume is the container's as all others are: one to /etc leads to the container's /etc, not to one in the
volume. So the way is walked here, a name at a time. Nothing is opened by that: whoever opens what was found has the
kernel keep it below the root, or below the mount, that it lies in.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.containers import inroot
from engine.containers.model import MountPoint
from engine.errors import EngineError, NotFound

_MOST_LINKS = 40


class Places:
    """Blocking. `readlink` answers for the root: what the link at a path aims at, None where there is none."""

    def __init__(self, points: Iterable[MountPoint], readlink: Callable[[str], str | None]) -> None:
        self._readlink = readlink
        self._points: dict[str, MountPoint] = {}
        # Those above first: what is mounted may lie behind links of what is mounted before.
        for point in sorted(points, key=lambda point: point.destination.count("/")):
            self._points[self.real(point.destination)] = point

    def real(self, path: str, *, follow: bool = True) -> str:
        """The path without links, as far as there is anything; one at its end stays without `follow`."""
        here: list[str] = []
        todo = _names(path)
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                del here[-1:]
                continue
            here.append(name)
            aim = self._aim("/" + "/".join(here)) if todo or follow else None
            if aim is None:
                continue
            links += 1
            if links > _MOST_LINKS:
                raise NotFound(f"Could not find the file {path}: {os.strerror(errno.ELOOP)}")
            del here[0 if aim.startswith("/") else -1 :]
            todo += _names(aim)
        return "/" + "/".join(here)

    def mounted(self, real: str) -> tuple[MountPoint, str] | None:
        """The bind or volume in which it lies, and the path in there."""
        above = real
        while above not in self._points:
            if above == "/":
                return None
            above = os.path.dirname(above)
        point = self._points[above]
        return None if point.type == "tmpfs" else (point, real[len(above) :] or "/")

    def _aim(self, real: str) -> str | None:
        found = self.mounted(real)
        if found is None:
            return self._readlink(real)
        try:
            root, inside = opened(*found)
        except EngineError:
            return None
        try:
            return link(root, inside)
        finally:
            os.close(root)


def _names(path: str) -> list[str]:
    """The last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def link(root: int, path: str) -> str | None:
    """What the link there aims at. None where there is none, or where links lead to it."""
    try:
        resolve = inroot.BENEATH | inroot.NO_SYMLINKS
        fd = inroot.openat2(root, path.lstrip("/"), os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(fd)


def opened(point: MountPoint, inside: str) -> tuple[int, str]:
    """(descriptor of a folder, path below it) of what is in a mount.

    Others write in a volume, too: a link in the place of its subpath leads nowhere else. Raises NotFound.
    """
    source = Path(point.source)
    if not source.is_dir() and inside == "/":
        real = source.resolve()
        return inroot.root(real.parent), f"/{real.name}"
    whole = inroot.root(source)
    if not point.subpath:
        return whole, inside
    try:
        return inroot.openat2(whole, point.subpath, os.O_PATH, resolve=inroot.BENEATH), inside
    except OSError as error:
        raise NotFound(f"can't find {point.subpath} in volume {point.name}: {error.strerror}") from None
    finally:
        os.close(whole)
