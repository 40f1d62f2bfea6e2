"""A container's files as it sees them, through a descriptor: running or not, and nothing mounted anywhere.

A running container is entered through /proc/PID/root: paths resolved below it cross the container's own mounts.
For one that does not run, an overlay is mounted detached, which ends with its descriptor.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from engine.containers import idranges
from engine.containers.layered import Layered
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import SystemFailure
from engine.kernel.overlay import overlay
from engine.runtime.launcher import Overlay


@asynccontextmanager
async def files(room: Room, container: Container) -> AsyncIterator[int]:
    """The root as the container has it now, writable, as an O_PATH descriptor. Hold the lock."""
    if container.state.alive and container.state.pid:
        fd = _running(container)
    else:
        paths = room.registry.paths(container)
        await asyncio.to_thread(room.images.loans.recall, paths.upper)
        lower = await asyncio.to_thread(room.images.lowerdirs, container.image)
        overlay = Overlay(tuple(lower), paths.upper, paths.work)
        fd = await room.launcher.mount(overlay, idranges.mappings(container.id_shift))
    try:
        yield fd
    finally:
        os.close(fd)


def layered(room: Room, container: Container) -> Layered:
    """The root's own files, without a mount: for a look at a few. Blocking."""
    lower = room.registry.live(container).lower or room.images.lowerdirs(container.image)
    return Layered([room.registry.paths(container).upper, *lower])


@contextmanager
def snapshot(room: Room, container: Container) -> Iterator[int]:
    """The root's own files, read-only and without what is mounted over them. Blocking.

    Files of the image have the image's ids, the container's own are shifted.
    """
    paths = room.registry.paths(container)
    fd = read_only([paths.upper, *room.images.lowerdirs(container.image)])
    try:
        yield fd
    finally:
        os.close(fd)


def _running(container: Container) -> int:
    path = f"/proc/{container.state.pid}/root"
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure(
            f"container {container.short_id}: can't enter its root: {error.strerror}", error.errno
        ) from None


def read_only(layers: Sequence[Path]) -> int:
    """A detached overlay mount of them, topmost first, with the ids on disk. Raises SystemFailure."""
    if len(layers) == 1:
        return os.open(layers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return overlay([str(layer) for layer in layers])
    except OSError as error:
        raise SystemFailure(f"can't look into the container's layers: {error}", error.errno) from None
