"""Work that blocks, in threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(act: Callable[[], T]) -> T:
    """Like asyncio.to_thread, but the thread has ended when this returns, however often its caller was cancelled: it
    works on descriptors and folders that are the caller's."""
    work = asyncio.ensure_future(asyncio.to_thread(act))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((work,))
        raise
