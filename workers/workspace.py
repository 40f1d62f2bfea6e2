"""A stage's files: the commit of its run, in a folder that goes when the stage ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import SourceError
from pipeline.protocol import GitSource
from pipeline.source.git import checkout
from workers.process import owner, owner_lives

MAX_BYTES = 4 << 30


class Workspaces:
    """The folder that holds them all. Names say whose they are, so that those of the dead can be removed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def open(self, attempt: str, source: GitSource | None) -> Iterator[Path]:
        """The files of `source`. A local folder is given as it is: read it, don't write. Raises SourceError."""
        if source is None:
            raise SourceError("this run has no repository: there are no files to work on")
        if source.path is not None:
            yield inside(Path("/"), source.path)
            return
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(prefix=f"{owner()}-{attempt}-", dir=self._root))
        try:
            files = folder / "source"
            checkout(source.url, source.sha, files, ref=source.ref, token=source.token)
            _bounded(files)
            yield files
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Removes the folders of processes that are gone."""
        for folder in self._root.glob("*-*"):
            if not owner_lives(folder.name.partition("-")[0]):
                shutil.rmtree(folder, ignore_errors=True)


def inside(root: Path, relative: str) -> Path:
    """The path below `root`, links resolved. Raises SourceError when it leads out of it."""
    base = root.resolve()
    path = (base / relative).resolve()
    if path != base and base not in path.parents:
        raise SourceError(f"{relative}: this leads out of the checkout")
    return path


def _bounded(folder: Path) -> None:
    total = 0
    for path, _, files in os.walk(folder):
        total += sum(os.lstat(os.path.join(path, name)).st_size for name in files)
        if total > MAX_BYTES:
            raise SourceError(f"the checkout is larger than {MAX_BYTES >> 30} GiB")
