"""Work that blocks, in threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(act: Callable[[], T], threads: Executor | None = None) -> T:
    """Like asyncio.to_thread, but the thread has ended when this returns, however often its caller was cancelled: it
    works on descriptors and folders that are the caller's. `threads`: in place of the loop's own."""
    work = asyncio.get_running_loop().run_in_executor(threads, contextvars.copy_context().run, act)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((work,))
        raise
