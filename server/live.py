"""Who waits for news: a counter that grows with each change, and those who wait for it to grow."""

from __future__ import annotations

import asyncio
import contextlib


class Feed:
    """Changes are told from any thread; waiting is for the event loop that `attach` was called on."""

    def __init__(self) -> None:
        self.version = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self.closed = False

    def attach(self) -> None:
        self._loop = asyncio.get_running_loop()

    def touch(self) -> None:
        """Something changed."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop closed between the question and the call
                loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """Nobody needs to wait any more: the server goes down."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, seen: int, timeout: float) -> int:
        """The version, as soon as it is not `seen` any more, or when `timeout` seconds are over."""
        if self.version == seen and not self.closed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout)
        return self.version
