"""`RUN --mount=type=cache`: folders that outlive builds, one an id, with Docker's three ways of sharing.

https://docs.docker.com/reference/dockerfile/#run---mounttypecache
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

_STAMP = ".used"
"""Beside each cache a file whose time says when it was last used: its folder's own time is what steps make it."""


class CacheMounts:
    """The folders below `root`. For one event loop."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._private: defaultdict[str, set[int]] = defaultdict(set)
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def use(self, name: str, sharing: str, fill: Callable[[Path], None]) -> AsyncIterator[Path]:
        """The folder of the cache `name` while a step runs; `fill` prepares a new one.

        `shared`: everyone at once; `locked`: one after the other; `private`: a further folder for each writer
        at the same time, used again by later ones.
        """
        key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        if sharing == "locked":
            async with self._locks[key]:
                with self._used(key):
                    yield self._folder(key, fill)
        elif sharing == "private":
            taken = self._private[key]
            number = next(number for number in range(len(taken) + 1) if number not in taken)
            taken.add(number)
            try:
                with self._used(f"{key}-{number}"):
                    yield self._folder(f"{key}-{number}", fill)
            finally:
                taken.discard(number)
        else:
            with self._used(key):
                yield self._folder(key, fill)

    @contextmanager
    def _used(self, name: str) -> Iterator[None]:
        self._users[name] += 1
        try:
            yield
        finally:
            self._users[name] -= 1
            with contextlib.suppress(FileNotFoundError):
                (self._root / f"{name}{_STAMP}").touch()

    def _folder(self, key: str, fill: Callable[[Path], None]) -> Path:
        folder = self._root / key
        if not folder.exists():
            self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
            half = self._root / f"{key}.new"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            fill(half)
            half.rename(folder)
        return folder

    def prune(self, unused_for: float) -> int:
        """Removes the caches that no step uses now or has used for so many seconds. Returns the bytes freed."""
        before = time.time() - unused_for
        freed = 0
        for folder in self._root.iterdir() if self._root.exists() else ():
            stamp = self._root / f"{folder.name}{_STAMP}"
            if folder.name.endswith(_STAMP) or self._users[folder.name]:
                continue
            if (stamp if stamp.exists() else folder).stat().st_mtime > before:
                continue
            # Out of the way first: whoever asks for it now gets a new one.
            gone = folder.rename(self._root / f"{secrets.token_hex(8)}.gone")
            stamp.unlink(missing_ok=True)
            freed += _size(gone)
            shutil.rmtree(gone, ignore_errors=True)
        return freed


def _size(folder: Path) -> int:
    return sum(
        status.st_blocks * 512
        for parent, _, names in os.walk(folder)
        for name in names
        if (status := os.lstat(os.path.join(parent, name))).st_nlink == 1
    )
