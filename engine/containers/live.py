"""What is known of a container only while this engine process lives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.containers.attach import AttachSession
    from engine.runtime.launcher import Exit


class Live:
    """One container's lock, those who wait for it, and the tasks that look after it.

    The lock is held over every change of state, so what the kernel reports meanwhile is dealt with after it.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.stopped: list[asyncio.Future[Exit]] = []
        self.removed: list[asyncio.Future[Exit]] = []
        self.pending: list[AttachSession] = []
        self.restarting: asyncio.Task[None] | None = None
        self.health: asyncio.Task[None] | None = None
        # Someone is stopping it right now: whatever its policy, it stays down.
        self.stop_started = False
        # Someone restarts it right now: it ends, and is not removed for that.
        self.restart_started = False
        self.restarts_in_a_row = 0
        # The layers that its root is shown from, topmost first, once it was started: none of them goes before it does.
        self.lower: tuple[Path, ...] = ()

    def tell(self, waiters: list[asyncio.Future[Exit]], end: Exit) -> None:
        """Gives all of them the exit, once."""
        told, waiters[:] = waiters[:], []
        for waiter in told:
            if not waiter.done():
                waiter.set_result(end)

    def cancel_restart(self) -> None:
        if self.restarting is not None and self.restarting is not asyncio.current_task():
            self.restarting.cancel()
        self.restarting = None

    def cancel_health(self) -> None:
        if self.health is not None:
            self.health.cancel()
        self.health = None
