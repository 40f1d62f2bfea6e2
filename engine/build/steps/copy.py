"""COPY, ADD and WORKDIR: files written over the layers so far, into a fresh upper layer."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.build.actions import CopyFiles, MakeFolder
from engine.build.copier import Copier, Look
from engine.build.modes import parse_mode
from engine.build.overlayroot import merged
from engine.build.owners import find_owner
from engine.build.problems import DockerfileError
from engine.build.selection import Picked
from engine.build.steps.workspace import Workspace
from engine.build.trees import FolderTree, Tree


@dataclass(frozen=True)
class Source:
    """One thing to copy. What came `unpacked` goes into the destination in any case.

    An archive has a set of the folders that it only implies: where there are some already, they stay as they are.
    """

    tree: Tree
    picked: Picked
    unpacked: bool = False
    implied: frozenset[str] | None = None


def copy_files(
    lower: Sequence[Path], space: Workspace, copy: CopyFiles, sources: Sequence[Source], epoch: int | None
) -> bool:
    """Writes the files; whether anything changed. Raises DockerfileError for what cannot be copied there.

    `epoch` (unix seconds) is the latest time that a file may have.
    """
    below = () if copy.link else lower
    latest = None if epoch is None else epoch * 1_000_000_000
    now = latest if latest is not None else time.time_ns()
    with merged(below, space.upper, space.work) as root:
        owner = None
        if copy.owner:
            with _names(lower, root, copy.link) as names:
                owner = find_owner(names, copy.owner)
        look = Look(owner, parse_mode(copy.mode) if copy.mode else None, latest)
        alone = len(sources) == 1 and not copy.inline
        upper = os.open(space.upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if alone else -1
        copier = Copier(root, look, upper)
        try:
            into = copy.into or len(sources) + len(copy.inline) > 1
            for source in sources:
                # Of an archive --chown changes the owners, and --chmod nothing: so BuildKit has it.
                copier.look = replace(look, mode=None) if source.implied is not None else look
                copier.put(
                    source.tree,
                    source.picked,
                    copy.destination,
                    into=into or source.unpacked,
                    excludes=copy.excludes,
                    implied=source.implied,
                )
            copier.look = look
            for file in copy.inline:
                copier.write_file(file.content, file.name, copy.destination, into=into, mode=0o644, mtime_ns=now)
            return copier.changed
        finally:
            copier.close()
            if upper >= 0:
                os.close(upper)


def make_folder(lower: Sequence[Path], space: Workspace, make: MakeFolder) -> bool:
    """WORKDIR; whether there was anything to make."""
    with merged(lower, space.upper, space.work) as root:
        owner = (0, 0)
        if make.user:
            # That there is no such user is for RUN to say.
            with _Names(FolderTree(os.dup(root))) as names, contextlib.suppress(DockerfileError):
                owner = find_owner(names, make.user)
        copier = Copier(root, Look())
        try:
            copier.make_folder(make.path, owner)
            return copier.changed
        finally:
            copier.close()


class _Names:
    """A tree that is closed at the end."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def __enter__(self) -> Tree:
        return self._tree

    def __exit__(self, *_: object) -> None:
        self._tree.close()


class _LowerNames(_Names):
    """Names come from the layers below even where --link copies without them."""

    def __init__(self, lower: Sequence[Path]) -> None:
        self._mounted = merged(lower)
        super().__init__(FolderTree(os.dup(self._mounted.__enter__())))

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._mounted.__exit__(None, None, None)


def _names(lower: Sequence[Path], root: int, link: bool) -> _Names:
    return _LowerNames(lower) if link and lower else _Names(FolderTree(os.dup(root)))
