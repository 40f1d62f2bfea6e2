"""`RUN --mount=type=cache`: folders that outlive builds, one an id, with Docker's three ways of sharing.

https://docs.docker.com/reference/dockerfile/#run---mounttypecache
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path


class CacheMounts:
    """The folders below `root`. For one event loop."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._private: defaultdict[str, set[int]] = defaultdict(set)

    @asynccontextmanager
    async def use(self, name: str, sharing: str, fill: Callable[[Path], None]) -> AsyncIterator[Path]:
        """The folder of the cache `name` while a step runs; `fill` prepares a new one.

        `shared`: everyone at once; `locked`: one after the other; `private`: a further folder for each writer
        at the same time, used again by later ones.
        """
        key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        if sharing == "locked":
            async with self._locks[key]:
                yield self._folder(key, fill)
        elif sharing == "private":
            taken = self._private[key]
            number = next(number for number in range(len(taken) + 1) if number not in taken)
            taken.add(number)
            try:
                yield self._folder(f"{key}-{number}", fill)
            finally:
                taken.discard(number)
        else:
            yield self._folder(key, fill)

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

    def prune(self) -> int:
        """Removes the caches that no step uses now; how many."""
        busy = {key for key, lock in self._locks.items() if lock.locked()}
        busy |= {f"{key}-{number}" for key, taken in self._private.items() for number in taken}
        removed = 0
        for folder in self._root.iterdir() if self._root.exists() else ():
            if folder.name not in busy:
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed
