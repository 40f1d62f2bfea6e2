"""The files of a log that is rotated while it is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


def among(path: Path, file: IO[bytes]) -> bool:
    here = os.fstat(file.fileno()).st_ino
    return any(inode == here for _, inode in _files(path))


def _files(path: Path) -> list[tuple[Path, int]]:
    """The log's files and their inodes, the newest first: looked at until two looks agree, for a rotation moves every
    name by one."""
    while True:
        found = _look(path)
        if found is not None and found == _look(path):
            return found


def _look(path: Path) -> list[tuple[Path, int]] | None:
    prefix = f"{path.name}."
    try:
        there = os.listdir(path.parent)
    except FileNotFoundError:
        return []  # removed with its container
    numbers = [int(name[len(prefix) :]) for name in there if _is_number(name, prefix)]
    names = [path, *(path.with_name(f"{prefix}{number}") for number in sorted(numbers))]
    found = []
    for name in names:
        try:
            found.append((name, os.stat(name).st_ino))
        except FileNotFoundError:
            if name != path:
                return None
    return found


def _is_number(name: str, prefix: str) -> bool:
    rest = name.removeprefix(prefix)
    return rest != name and rest.isascii() and rest.isdigit()


def _opened(path: Path, inode: int) -> IO[bytes] | None:
    """None where there is no such file, or another than was seen."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    if inode == os.fstat(file.fileno()).st_ino:
        return file
    file.close()
    return None


def newest(path: Path) -> IO[bytes] | None:
    """Also while a rotation has moved the last one away and not yet begun the next."""
    while files := _files(path):
        if (file := _opened(*files[0])) is not None:
            return file
    return None


def oldest(path: Path) -> IO[bytes] | None:
    while files := _files(path):
        if (file := _opened(*files[-1])) is not None:
            return file
    return None


def following(path: Path, file: IO[bytes]) -> IO[bytes] | None:
    """The file that was begun when `file` was full; None while that is the newest."""
    here = os.fstat(file.fileno()).st_ino
    while True:
        files = _files(path)
        # One that is no longer among them has been dropped: all there are came after it.
        at = next((number for number, (_, inode) in enumerate(files) if inode == here), len(files))
        if at == 0:
            return None
        if (found := _opened(*files[at - 1])) is not None:
            return found
