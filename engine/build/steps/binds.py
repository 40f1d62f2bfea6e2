"""`RUN --mount=type=bind`: what such a mount shows, without copying what lies on the disk already.

Layers are shown as they are: an overlay of that part of each of them. The build context has its files in one spool:
what is asked for of it is laid out once a build, however many steps show it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.build.copier import Copier, Look
from engine.build.selection import Picked, pick
from engine.build.trees import FOLDER, Tree
from engine.images.unpack import is_opaque, is_whiteout


@dataclass(frozen=True)
class Shown:
    """One file, or folders one over the other, topmost first. No step may write to them."""

    parts: tuple[Path, ...]
    is_folder: bool


def in_layers(lower: Sequence[Path], path: str) -> Shown:
    """The real `path` (through no links) in layers, topmost first; it is there."""
    folders: list[Path] = []
    for layer in lower:
        here, last = layer, is_opaque(layer)
        for part in path.split("/") if path else ():
            here = here / part
            try:
                status = here.lstat()
            except (FileNotFoundError, NotADirectoryError):
                break
            if not stat.S_ISDIR(status.st_mode):
                if not folders and here == layer / path and not is_whiteout(status):
                    return Shown((here,), is_folder=False)
                last = True  # a folder of the layers above hides it, or it hides what is below
                break
            last = last or is_opaque(here)
        else:
            folders.append(here)
        if last:
            break
    return Shown(tuple(folders), is_folder=True)


class LaidOut:
    """Parts of a build context as files on the disk, below `folder`. Safe for threads."""

    def __init__(self, tree: Tree, folder: Path) -> None:
        self._tree = tree
        self._folder = folder
        self._made: dict[str, Path] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def show(self, picked: Picked) -> Shown:
        """`picked` is what `pick` has found in the tree. Raises OSError."""
        with self._lock:
            # What a part of a larger part is shows in that.
            above = picked.path
            while above not in self._made and above:
                above = above.rpartition("/")[0]
            if above not in self._made:
                above = picked.path
                self._made[above] = self._lay_out(picked)
        rest = picked.path[len(above) :].strip("/")
        return Shown((self._made[above] / rest if rest else self._made[above],), picked.entry.kind == FOLDER)

    def _lay_out(self, picked: Picked) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        return copy_out(self._tree, picked, self._folder / str(next(self._numbers)))

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class Behind:
    """What a mount takes from: the build context, or the layers (`chain`, `lower`) of another stage or image."""

    tree: Tree
    laid_out: LaidOut
    chain: str = ""
    lower: tuple[Path, ...] | None = None

    def pick(self, source: str) -> Picked:
        """Raises DockerfileError where nothing is there."""
        (found,) = pick(self.tree, [source or "/"], what="source of the mount")
        return found

    def show(self, source: str) -> Shown:
        """Raises DockerfileError, OSError."""
        found = self.pick(source)
        return self.laid_out.show(found) if self.lower is None else in_layers(self.lower, found.path)


def copy_out(tree: Tree, picked: Picked, holder: Path) -> Path:
    """A copy of one file or folder, in the new folder `holder`, which is nobody's but ours whatever the copy's mode."""
    holder.mkdir(mode=0o711)
    root = os.open(holder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    copier = Copier(root, Look())
    try:
        is_folder = picked.entry.kind == FOLDER
        whole = Picked(picked.path, "", picked.entry, below="") if is_folder else picked
        copier.put(tree, whole, "/content", into=False)
        return holder / "content"
    finally:
        copier.close()
        os.close(root)
