"""Several pieces of work side by side, of which none outlives the others' failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


async def together(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Waits for all; raises the first failure once the others, cancelled, have ended too."""
    # Not `gather`, which cancels its tasks when it is cancelled itself: a second time would interrupt their end.
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
