"""What a container's processes are and take: `docker top`, `docker stats`, and how its limits press it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

from engine.containers import rootview, stats, top
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import Conflict, NotFound


class Usage:
    """Looks at what runs; changes nothing."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def top(self, container: Container, ps_args: str = "-ef") -> dict[str, Any]:
        """{"Titles": [...], "Processes": [[...]]}."""
        if not container.state.alive:
            raise Conflict(f"container {container.id} is not running")
        pids = await self._room.launcher.processes(container.id)
        found = await asyncio.to_thread(
            lambda: top.top(container.state.pid, pids, ps_args, rootview.layered(self._room, container))
        )
        self._room.tell(container, "top")
        return found

    async def stats(self, container: Container, *, one_shot: bool = False) -> dict[str, Any]:
        """One sample as Docker's JSON; unless `one_shot` with the sample before it, a second earlier."""
        first = await self._sample(container, None)
        if one_shot or not container.state.alive:
            return first
        await asyncio.sleep(1)
        return await self._sample(container, first)

    async def stats_stream(self, container: Container) -> AsyncIterator[dict[str, Any]]:
        """A sample a second, until the container is removed."""
        before: dict[str, Any] | None = None
        for turn in itertools.count():
            if container.id not in self._room.registry:
                return
            shown = await self._sample(container, before)
            before = shown if container.state.alive else None
            # The first has nothing to compare with: a client would show 0 %.
            if turn or not container.state.alive:
                yield shown
            await asyncio.sleep(1)

    async def _sample(self, container: Container, before: dict[str, Any] | None) -> dict[str, Any]:
        if not container.state.alive:
            return stats.stopped(container)
        try:
            return stats.sample(container, await self._room.launcher.stats(container.id), before)
        except NotFound:
            return stats.stopped(container)

    async def strain(self, container: Container) -> tuple[int, dict[str, dict[str, int]]]:
        """How its limits press it: how many of its processes the kernel killed for want of memory, and its pressure."""
        try:
            return await self._room.launcher.strain(container.id)
        except NotFound:
            return 0, {}
