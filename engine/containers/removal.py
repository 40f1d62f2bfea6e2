"""`docker rm` and what it takes along."""

from __future__ import annotations

import asyncio
import logging

from engine.containers import stopping
from engine.containers.live import Live
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import Conflict, EngineError
from engine.runtime.launcher import Exit

_log = logging.getLogger(__name__)


async def remove(room: Room, container: Container, *, force: bool, volumes: bool) -> None:
    """Raises Conflict for one that runs, unless `force`."""
    live = room.registry.live(container)
    if container.state.running and not force:
        status = container.state.status
        remedy = ": stop the container before removing or force remove"
        if status == "paused":
            remedy = " and must be unpaused first"
        raise Conflict(f'cannot remove container "/{container.name}": container is {status}{remedy}')
    if container.state.running:
        container.stopped_by_user = True
        await stopping.kill(room, container, live, "KILL")
    async with live.lock:
        if container.id not in room.registry:
            return
        live.cancel_restart()
        live.cancel_health()
        room.registry.hide(container)
    try:
        await room.launcher.delete(container.id)
        await room.networks.detach(container.id)
    except EngineError:
        _log.exception("container %s: something of it could not be released", container.short_id)
    await _give_files(room, container)
    room.registry.discard(container)
    await room.upkeep.removed()
    room.ranges.give_back(container.id_shift)
    for session in live.pending:
        session.abandon()
    if volumes or container.host_config.auto_remove:
        _remove_volumes(room, container)
    room.tell(container, "destroy")
    _tell_waiters(container, live)


async def _give_files(room: Room, container: Container) -> None:
    """To the images that were made of them."""
    upper = room.registry.paths(container).upper
    if not room.images.loans.has(upper):
        return
    try:
        await asyncio.to_thread(room.images.loans.take, upper)
    except (EngineError, OSError):
        _log.exception("container %s: an image of it has lost its layer", container.short_id)


def _tell_waiters(container: Container, live: Live) -> None:
    end = Exit(container.state.exit_code, container.state.oom_killed, 0.0, 0.0)
    live.tell(live.stopped, end)
    live.tell(live.removed, end)


def _remove_volumes(room: Room, container: Container) -> None:
    """The anonymous ones, if no one else has them by now."""
    for point in container.mounts:
        if point.type == "volume" and point.anonymous:
            try:
                room.volumes.remove(point.name, force=True)
            except Conflict:
                continue
