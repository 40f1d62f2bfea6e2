"""A container's working directory: where its image has none, it is made, root's and all that lead there too."""

from __future__ import annotations

import asyncio
import functools
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.containers import idranges, inroot
from engine.containers.layered import Layered
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import InvalidInput
from engine.runtime.launcher import Overlay
from engine.threads import to_the_end

if TYPE_CHECKING:
    from engine.runtime.launcher import Launcher

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
    async with room.registry.live(container).lock:
        await ensure(room, container, lower)


async def ensure(room: Room, container: Container, lower: Sequence[Path]) -> None:
    """It is there afterwards. With the container's lock held. Raises InvalidInput where it can't be."""
    path, paths = container.config.working_dir or "/", room.registry.paths(container)
    # What is mounted right there brings a folder along.
    if path == "/" or any(point.destination == path for point in container.mounts):
        return
    if not _is_there((paths.upper, *lower), path):
        overlay = Overlay(tuple(lower), paths.upper, paths.work)
        await make_folder(room.launcher, overlay, path, container.id_shift)


def _is_there(layers: Sequence[Path], path: str) -> bool:
    found = Layered(layers).stat(path)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise InvalidInput(f"Cannot mkdir: {path} is not a directory")
    return found is not None


async def make_folder(launcher: Launcher, overlay: Overlay, path: str, shift: int) -> None:
    """A folder in a root that nobody uses yet, with those above it. Raises InvalidInput where it can't be."""
    root = await launcher.mount(overlay, idranges.mappings(shift))
    owner = (shift, shift) if shift else None
    try:
        make = functools.partial(inroot.make_dirs, root, os.path.normpath(path), owner=owner)
        os.close(await to_the_end(make))
    finally:
        os.close(root)
