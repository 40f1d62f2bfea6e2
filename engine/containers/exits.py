"""What happens when a process of a container has ended, or the zygote with all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from engine.containers import plugging, restart, restoring, times, volumefill
from engine.containers.execs import Executions
from engine.containers.live import Live
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.runtime.launcher import Exit

_log = logging.getLogger(__name__)


class Exits:
    """Records an exit, tells those who wait, cleans up, and restarts or removes where that was asked for."""

    def __init__(
        self,
        room: Room,
        execs: Executions,
        start: Callable[[Container], Awaitable[None]],
        remove: Callable[[Container], Awaitable[None]],
    ) -> None:
        self._room = room
        self._execs = execs
        self._start = start
        self._remove = remove
        self._tasks: set[asyncio.Task[None]] = set()

    def heard(self, container_id: str, exec_id: str | None, end: Exit) -> None:
        """From the launcher."""
        if exec_id is not None:
            self._execs.ended(exec_id, end)
            return
        if container_id in self._room.registry:
            container = self._room.registry.get(container_id)
            self._execs.container_ended(container)
            self.follow(self.ended(container, end))

    def lost(self) -> None:
        """From the launcher: the zygote is gone."""
        _log.error("the process that holds the containers has died, and they with it: starting another")
        self.follow(self._revive())

    async def _revive(self) -> None:
        try:
            await self._room.launcher.revive()
        except (EngineError, OSError):
            _log.exception("no container can be started any more: restart the engine")
        await restoring.mourn(self._room, self.ended, self._execs.container_ended)

    def follow(self, work: Coroutine[Any, Any, None]) -> None:
        """Does it in a task of its own, until `close`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Containers run on: nobody looks after them any more."""
        tasks = list(self._tasks)
        for container in self._room.registry:
            live = self._room.registry.live(container)
            tasks += [task for task in (live.health, live.restarting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ended(self, container: Container, end: Exit) -> None:
        """Idempotent: an exit that is known already changes nothing."""
        live = self._room.registry.live(container)
        async with live.lock:
            if not container.state.alive:
                await self._room.launcher.delete(container.id)
                return
            again = self._record(container, live, end)
            live.tell(live.stopped, end)
            await self._clean_up(container)
            self._room.registry.save(container)
            if again and live.restarting is None:
                live.restarting = asyncio.create_task(self._restart_later(container, live))
        if container.host_config.auto_remove and not again and container.move is None:
            await self._remove(container)

    def _record(self, container: Container, live: Live, end: Exit) -> bool:
        state = container.state
        self._room.ooms.forget(container.id)
        live.cancel_health()
        if state.health is not None and state.health.status != "unhealthy":
            state.health.status = "unhealthy"
        ran = max(0.0, end.finished_at - end.started_at)
        live.restarts_in_a_row = restart.in_a_row(live.restarts_in_a_row, ran)
        again = restart.wanted(
            container.host_config.restart_policy,
            end.code,
            container.restart_count,
            stopped_by_user=container.stopped_by_user or live.stop_started,
        )
        state.status = "restarting" if again else "exited"
        told = state.oom_killed
        state.pid, state.exit_code, state.oom_killed = 0, end.code, end.oom_killed or told
        state.finished_at = times.rfc3339(times.from_unix(end.finished_at))
        if end.started_at:
            state.started_at = times.rfc3339(times.from_unix(end.started_at))
        # On disk before anyone is told: the answer must still be the same after a crash.
        self._room.registry.save(container)
        if end.oom_killed and not told:
            self._room.tell(container, "oom")
        self._room.tell(container, "die", {"exitCode": str(end.code), "execDuration": str(int(ran))})
        return again

    async def _clean_up(self, container: Container) -> None:
        await plugging.unplug(self._room, container)
        self._room.tell_of_volumes(container, "unmount")
        try:
            await self._room.launcher.delete(container.id)
        except EngineError:
            _log.exception("container %s: could not clean up after its end", container.short_id)
        await volumefill.release(self._room, container)

    async def _restart_later(self, container: Container, live: Live) -> None:
        try:
            await asyncio.sleep(restart.delay(live.restarts_in_a_row - 1 if live.restarts_in_a_row else 0))
            async with live.lock:
                if container.state.status != "restarting" or container.id not in self._room.registry:
                    return
                live.restarting = None
                container.restart_count += 1
                await self._start(container)
        except EngineError as error:
            _log.warning("container %s could not be restarted: %s", container.short_id, error)
            async with live.lock:
                container.state.status = "exited"
                self._room.registry.save(container)
