"""A container's working directory: where its image has none, it is made at once. What is mounted is looked into only
at the start, by who starts there."""

from __future__ import annotations

import asyncio
import functools
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from engine.containers import idranges, inroot
from engine.containers.layered import Layered
from engine.containers.model import Container
from engine.containers.places import Places
from engine.containers.room import Room
from engine.errors import InvalidInput, NotFound
from engine.runtime.launcher import Overlay
from engine.threads import to_the_end

_REMEMBERED = 1000


async def at_creation(room: Room, container: Container) -> None:
    """As in Docker it is there from now on: files are copied into it before the first start. Raises InvalidInput."""
    path = container.config.working_dir
    wanted = (container.image, path)
    if path == "/" or wanted in room.working_dirs:
        return
    lower = room.images.unpacked(container.image)
    if lower is None:
        lower = await asyncio.to_thread(room.images.lowerdirs, container.image)
    if _is_there(lower, path):
        if len(room.working_dirs) >= _REMEMBERED:
            room.working_dirs.clear()
        room.working_dirs.add(wanted)
        return
    # What is mounted right there brings a folder along.
    if not any(point.destination == path for point in container.mounts):
        async with room.registry.live(container).lock:
            await _make(room, container, lower, await asyncio.to_thread(_aim, lower, path))


def _is_there(layers: Sequence[Path], path: str) -> bool:
    found = Layered(layers).stat(path)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise InvalidInput(f"Cannot mkdir: {path} is not a directory")
    return found is not None


def _aim(layers: Sequence[Path], path: str) -> str:
    try:
        return Places((), Layered(layers).readlink).real(path)
    except NotFound as error:
        # Told that something is not found, clients would pull the image and ask again.
        raise InvalidInput(f"Cannot mkdir: {error}") from None


async def _make(room: Room, container: Container, lower: Sequence[Path], path: str) -> None:
    """With those above it, in the root that nobody uses yet. Raises InvalidInput where it can't be."""
    paths, shift = room.registry.paths(container), container.id_shift
    root = await room.launcher.mount(Overlay(tuple(lower), paths.upper, paths.work), idranges.mappings(shift))
    owner = (shift, shift) if shift else None
    try:
        os.close(await to_the_end(functools.partial(inroot.make_dirs, root, path, owner=owner)))
    finally:
        os.close(root)
