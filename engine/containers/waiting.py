"""`docker wait`."""

from __future__ import annotations

import asyncio
from typing import Literal

from engine.containers.live import Live
from engine.containers.model import Container
from engine.errors import InvalidInput
from engine.runtime.launcher import Exit

WaitCondition = Literal["not-running", "next-exit", "removed"]


async def wait(container: Container, live: Live, condition: WaitCondition) -> Exit:
    """Registers at the call's first step: an exit that comes after is never missed."""
    state = container.state
    if condition not in ("not-running", "next-exit", "removed"):
        raise InvalidInput(f"invalid condition: {condition!r}")
    if condition == "not-running" and not state.running:
        return Exit(state.exit_code, state.oom_killed, 0.0, 0.0)
    future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    waiters = live.removed if condition == "removed" else live.stopped
    waiters.append(future)
    try:
        return await future
    finally:
        if future in waiters:
            waiters.remove(future)
