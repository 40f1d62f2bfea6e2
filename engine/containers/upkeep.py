"""What is better done a little after it was asked for: making records durable, deleting the files of the removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from engine.containers.store import ContainerStore
from engine.threads import to_the_end

_log = logging.getLogger(__name__)
_SECONDS = 1.0
_MOST_WAITING = 64


class Upkeep:
    """One at a time, in a thread, beside all else."""

    def __init__(self, store: ContainerStore) -> None:
        self._store = store
        self._task: asyncio.Task[None] | None = None
        self._removed = asyncio.Event()
        self._waiting = 0
        self._swept = asyncio.Event()

    def begin(self) -> None:
        """Also deletes what an engine left that ended before it could."""
        self._removed.set()
        self._task = asyncio.create_task(self._go_on())

    async def end(self) -> None:
        """When it returns, nothing is left to do."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._store.sweep)
        await asyncio.to_thread(self._store.settle, now=True)

    async def removed(self) -> None:
        """Something was removed. Returns at once, unless whoever removes is far ahead of whoever deletes."""
        self._waiting += 1
        self._removed.set()
        if self._waiting > _MOST_WAITING and self._task is not None:
            await self._swept.wait()

    async def _go_on(self) -> None:
        settled = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    await self._removed.wait()
            if self._removed.is_set():
                self._removed.clear()
                self._waiting = 0
                await self._do(self._store.sweep)
                self._swept.set()
                self._swept.clear()
            if time.monotonic() - settled >= _SECONDS and self._store.unsettled:
                await self._do(self._store.settle)
                settled = time.monotonic()

    @staticmethod
    async def _do(work: Callable[[], None]) -> None:
        try:
            await to_the_end(work)
        except Exception:
            # Whatever it was: without upkeep nothing becomes durable, and removals wait for ever.
            _log.exception("it is tried again")
