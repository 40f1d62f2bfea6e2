"""A container's files as it sees them, through a descriptor: running or not, and nothing mounted anywhere.

A running container is entered through /proc/PID/root: paths resolved below it cross the container's own mounts.
For one that does not run, an overlay is mounted detached, which ends with its descriptor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import SystemFailure
from engine.kernel import libc


@contextmanager
def files(room: Room, container: Container) -> Iterator[int]:
    """The root as the container has it now, writable, as an O_PATH descriptor. Blocking; hold the lock."""
    if container.state.alive and container.state.pid:
        fd = _running(container)
    else:
        paths = room.registry.paths(container)
        lower = room.images.lowerdirs(container.image)
        fd = overlay(lower, paths.upper, paths.work)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def snapshot(room: Room, container: Container) -> Iterator[int]:
    """The root's own files, read-only and without what is mounted over them. Blocking."""
    paths = room.registry.paths(container)
    fd = overlay([paths.upper, *room.images.lowerdirs(container.image)])
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


def overlay(lower: Sequence[Path], upper: Path | None = None, work: Path | None = None) -> int:
    """A detached overlay mount, topmost layer first; read-only without `upper`. Raises SystemFailure."""
    if upper is None and len(lower) == 1:
        return os.open(lower[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        context = libc.fsopen("overlay")
        try:
            for layer in lower:
                libc.fsconfig(context, libc.FSCONFIG_SET_STRING, "lowerdir+", str(layer))
            if upper is not None:
                libc.fsconfig(context, libc.FSCONFIG_SET_STRING, "upperdir", str(upper))
                libc.fsconfig(context, libc.FSCONFIG_SET_STRING, "workdir", str(work))
            libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE)
            return libc.fsmount(context)
        finally:
            os.close(context)
    except OSError as error:
        raise SystemFailure(f"can't look into the container's layers: {error}", error.errno) from None
