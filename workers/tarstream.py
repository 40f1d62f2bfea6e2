"""A folder as a tar archive, made while it is sent: no more of it in memory than one piece of one file."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

_PIECE = 256 * 1024


def stream(
    root: Path, target: str, change: Callable[[tarfile.TarInfo], tarfile.TarInfo | None], check: Callable[[], None]
) -> Iterator[bytes]:
    """The archive of `root` under the name `target`, in pieces; `change` may alter a member or leave it out.

    What is left out is not entered. `check` is called before each piece and may raise. Sockets are no files.
    """
    # The archive object only describes members and knows hard links; nothing is written to it.
    with tarfile.open(fileobj=io.BytesIO(), mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, name in _walk(root, target, change, tar):
            check()
            yield name.tobuf(tarfile.PAX_FORMAT, tarfile.ENCODING, "surrogateescape")
            if name.isreg():
                yield from _content(path, name.size, check)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(
    path: Path, name: str, change: Callable[[tarfile.TarInfo], tarfile.TarInfo | None], tar: tarfile.TarFile
) -> Iterator[tuple[Path, tarfile.TarInfo]]:
    found: tarfile.TarInfo | None = tar.gettarinfo(str(path), name)  # None for a socket
    member = None if found is None else change(found)
    if member is None:
        return
    yield path, member
    if member.isdir():
        for child in sorted(os.listdir(path)):
            yield from _walk(path / child, f"{name}/{child}", change, tar)


def _content(path: Path, size: int, check: Callable[[], None]) -> Iterator[bytes]:
    """Exactly `size` bytes and what fills the last block, though the file may change meanwhile."""
    left = size
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            check()
            left -= len(piece)
            yield piece
    while left > 0:
        yield bytes(min(left, _PIECE))
        left -= min(left, _PIECE)
    yield bytes(-size % tarfile.BLOCKSIZE)
