"""Folders of the host, taken out of its mounts: as one tree that is attached nowhere. Standard library only."""

from __future__ import annotations

import os

from engine.kernel import libc

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    import contextlib


class Folders:
    """Made among the mounts in which the paths are to be looked up; what is opened ends with `stack`."""

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

    def attached(self, place: str) -> list[str]:
        """The path of each, with the tree attached to the folder `place` until the end."""
        libc.move_mount(self.tree, place)
        self._stack.callback(libc.umount, place, libc.MNT_DETACH)
        return [os.path.normpath(f"{place}/{os.path.relpath(path, self._above)}") for path in self._paths]
