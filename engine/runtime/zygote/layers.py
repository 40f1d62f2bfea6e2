"""Layers shown one over the other: a container's root, or what is bound into it. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import os

from engine.kernel import libc
from engine.kernel.overlay import overlay, overlay_at

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

_unattached = True
"""Until the kernel has shown that its overlayfs takes no folders of mounts that are attached nowhere."""


class Layers:
    """Looked up among the mounts in which this is made; what is opened ends with `stack`.

    `request`: `lower` (topmost first), `upper` and `work` (or none of them), `volatile`.
    """

    def __init__(self, request: dict[str, Any], stack: contextlib.ExitStack) -> None:
        self._lower = _Folders(request["lower"], stack)
        self._own = _Folders([request["upper"], request["work"]], stack) if request["upper"] else None
        self._options = ["volatile"] if request.get("volatile") else []

    def shown(self, users: int | None, scratch: str) -> int:
        """A mount that is attached nowhere; with the ids of the user namespace `users`, if there is one.

        One mapped mount over the folder that holds all layers serves them all. `scratch` has two folders, `lower` and
        `upper`, for kernels whose overlayfs wants to see attached what it is made of.
        """
        global _unattached
        if users is not None:
            libc.mount_setattr(self._lower.tree, attributes=libc.MOUNT_ATTR_IDMAP, userns=users, recursive=True)
        if _unattached:
            try:
                upper, work = self._own.opened() if self._own else (None, None)
                return overlay_at(self._lower.opened(), upper, work, options=self._options)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
        with contextlib.ExitStack() as places:
            place = f"{scratch}/lower"
            lower = self._lower.attached(place, places)
            shown, work_shown = self._own.attached(f"{scratch}/upper", places) if self._own else ("", "")
            tree = overlay(lower, shown, work_shown, options=self._options, place=place)
        # So nothing else was wrong with it.
        _unattached = False
        return tree


class _Folders:
    """Folders of the host, taken out of its mounts as one tree."""

    def __init__(self, paths: list[str], stack: contextlib.ExitStack) -> None:
        self._above = os.path.commonpath(paths)
        self._paths = paths
        self._stack = stack
        flags = libc.OPEN_TREE_CLONE | libc.OPEN_TREE_CLOEXEC | libc.AT_RECURSIVE
        self.tree = libc.open_tree(libc.AT_FDCWD, self._above, flags)
        """The mount of what is above all of them."""
        stack.callback(os.close, self.tree)

    def opened(self) -> list[int]:
        """A descriptor of each."""
        found = []
        for path in self._paths:
            inside = os.path.relpath(path, self._above)
            found.append(os.open(inside, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.tree))
            self._stack.callback(os.close, found[-1])
        return found

    def attached(self, place: str, places: contextlib.ExitStack) -> list[str]:
        """The path of each, with the tree attached to the folder `place` until the end of `places`."""
        libc.move_mount(self.tree, place)
        places.callback(libc.umount, place, libc.MNT_DETACH)
        return [os.path.normpath(f"{place}/{os.path.relpath(path, self._above)}") for path in self._paths]
