"""At the engine's start: the records on disk meet what the runtime says is there."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from engine.containers import plugging, restart, times
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import EngineError
from engine.runtime.launcher import Exit, RuntimeState

_log = logging.getLogger(__name__)
_LOST = 255
"""The exit code of a container whose end nobody saw, as in Docker."""
_KILLED = 137


async def reconcile(
    room: Room,
    ended: Callable[[Container, Exit], Awaitable[None]],
    running: Callable[[Container], None],
) -> list[Container]:
    """Brings every record up to date and removes what belongs to none. Returns those to be started."""
    found = {state.id: state for state in await room.launcher.list()}
    for container_id, state in found.items():
        if container_id not in room.registry:
            await _destroy(room, state)
    containers = list(room.registry)
    runs = await asyncio.gather(*(_one(room, one, found.get(one.id), ended, running) for one in containers))
    await room.networks.reconcile({one.id for one, alive in zip(containers, runs, strict=True) if alive})
    again = []
    for container in room.registry:
        if container.state.alive or on_the_way(container):
            continue
        if container.host_config.auto_remove and container.state.status != "created":
            continue
        state_now = container.state
        policy = container.host_config.restart_policy
        if state_now.status != "created" and restart.wanted_at_boot(
            policy, state_now.exit_code, container.restart_count, stopped_by_user=container.stopped_by_user
        ):
            again.append(container)
    return again


def on_the_way(container: Container) -> bool:
    """Whether a move decides about it: it is leaving, or has not quite come."""
    move = container.move
    return move is not None and (move.outgoing or move.phase == "copying")


async def mourn(
    room: Room,
    ended: Callable[[Container, Exit], Awaitable[None]],
    executions_end: Callable[[Container], None],
) -> None:
    """A zygote has died, and has taken its containers along; another one has none of them."""
    await asyncio.gather(*(_mourn(room, container, ended, executions_end) for container in room.registry))


async def _mourn(
    room: Room,
    container: Container,
    ended: Callable[[Container, Exit], Awaitable[None]],
    executions_end: Callable[[Container], None],
) -> None:
    # Whoever was starting it has done so, or has failed, once we have the lock: with this zygote or with the dead one.
    async with room.registry.live(container).lock:
        lost = container.state.alive and not room.launcher.has(container.id)
    if lost:
        executions_end(container)
        started = times.parse_rfc3339(container.state.started_at) / 1e9
        await ended(container, Exit(_KILLED, False, started, times.now() / 1e9))


async def _one(
    room: Room,
    container: Container,
    there: RuntimeState | None,
    ended: Callable[[Container, Exit], Awaitable[None]],
    running: Callable[[Container], None],
) -> bool:
    """Returns whether it runs."""
    state = container.state
    if there is not None and there.status in ("running", "paused"):
        # It may have been started just before the crash, without its record saying so.
        state.status = "paused" if there.status == "paused" else "running"
        state.pid = there.pid
        if there.started_at:
            state.started_at = times.rfc3339(times.from_unix(there.started_at))
        state.finished_at = times.ZERO
        plugging.recall(room, container)
        room.registry.save(container)
        room.watch_memory(container, there.cgroup)
        running(container)
        return True
    if there is not None and there.exit is not None:
        if not state.alive:
            state.status = "running"
        await ended(container, there.exit)
        return False
    if there is not None:
        # Still at the gate: its start was never finished.
        await _forget(room, there.id)
    if state.alive:
        now = times.now() / 1e9
        started = times.parse_rfc3339(state.started_at) / 1e9
        await ended(container, Exit(_LOST, False, started, now))
    elif state.status in ("restarting", "removing"):
        state.status = "exited"
        room.registry.save(container)
    if container.network_settings.sandbox_key:
        await plugging.unplug(room, container)
        room.registry.save(container)
    return False


async def _destroy(room: Room, state: RuntimeState) -> None:
    """A container that no record knows: a build's step, or one that was being removed."""
    _log.info("container %s belongs to no one, removing it", state.id[:12])
    try:
        if state.status in ("running", "paused"):
            await room.launcher.kill(state.id, signal.SIGKILL, all=True)
            if state.status == "paused":
                await room.launcher.resume(state.id)
            async with asyncio.timeout(10):
                await room.launcher.wait(state.id)
        await room.launcher.delete(state.id)
    except (EngineError, TimeoutError):
        _log.exception("container %s could not be removed", state.id[:12])


async def _forget(room: Room, container_id: str) -> None:
    try:
        await room.launcher.delete(container_id)
    except EngineError:
        _log.exception("container %s could not be cleaned up", container_id[:12])
