"""Just before a start: what is to be mounted is there, and a fresh volume has the image's files."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from engine.containers import archive, inroot, rootview, times
from engine.containers.layered import Layered
from engine.containers.model import Container, MountPoint
from engine.containers.room import Room
from engine.errors import InvalidInput, NotFound
from engine.images.diff import portable_xattrs, unshift

_log = logging.getLogger(__name__)
_LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


async def prepare(room: Room, container: Container, lower: Sequence[Path]) -> None:
    """Raises InvalidInput for a bind's source that is not there, NotFound for a volume that is gone."""
    for point in container.mounts:
        if point.type == "bind":
            _source(point)
        elif point.type == "volume":
            await _volume(room, container, point, lower)


async def release(room: Room, container: Container) -> None:
    """Nothing of the container runs any more. Idempotent. Waits for a mount that is being made."""
    for point in container.mounts:
        if point.type != "volume":
            continue
        try:
            volume = room.volumes.get(point.name)
            if volume.options:
                others = (one for one in room.registry if one.id != container.id and one.state.alive)
                used = any(point.name == another.name for one in others for another in one.mounts)
                await asyncio.to_thread(room.volumes.release, volume, container.id, used=used)
        except NotFound:
            continue
        except OSError:
            _log.exception("volume %s: could not unmount it", point.name)


def _source(point: MountPoint) -> None:
    if os.path.lexists(point.source):
        return
    if "create" not in point.options:
        raise InvalidInput(f"invalid mount config for type 'bind': bind source path does not exist: {point.source}")
    os.makedirs(point.source, mode=0o755, exist_ok=True)


async def _volume(room: Room, container: Container, point: MountPoint, lower: Sequence[Path]) -> None:
    volume = room.volumes.get(point.name)
    if volume.options:
        await asyncio.to_thread(room.volumes.hold, volume, container.id)
    if point.subpath:
        _check_subpath(volume.path, point)
        return
    # As in Docker, a new container fills an empty volume again, whoever has had it before.
    if not volume.fresh and container.state.started_at != times.ZERO:
        return
    with os.scandir(volume.path) as entries:
        empty = next(entries, None) is None
    if point.copy_up and empty:
        layers = [room.registry.paths(container).upper, *lower]
        found = Layered(layers).stat(point.destination)
        if found is not None and stat.S_ISDIR(found.st_mode):
            await asyncio.to_thread(copy_up, layers, point.destination, volume.path, container.id_shift)
    room.volumes.used(volume)


def _check_subpath(volume: Path, point: MountPoint) -> None:
    """The subpath must lie in the volume, wherever the links lead that its users have put there.

    Looked up again when it is mounted, beneath the volume as well.
    """
    root = inroot.root(volume)
    try:
        os.close(inroot.openat2(root, point.subpath, os.O_PATH, resolve=inroot.BENEATH))
    except OSError as error:
        raise InvalidInput(f"can't mount subpath {point.subpath!r} of volume {point.name}: {error.strerror}") from None
    finally:
        os.close(root)


def copy_up(layers: Sequence[Path], folder: str, target: Path, shift: int = 0) -> None:
    """The image's files below `folder`, with modes, times and owners (less `shift`), into `target`. Blocking."""
    root = rootview.read_only(layers)
    try:
        source = inroot.openat2(root, folder, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(root)
    try:
        destination = os.open(target, _LIST_FLAGS)
        try:
            _copy_folder(source, destination, shift)
            _like(os.fstat(source), destination, shift)
        finally:
            os.close(destination)
    finally:
        os.close(source)


def _copy_folder(source: int, target: int, shift: int) -> None:
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            inner_source = os.open(name, _LIST_FLAGS, dir_fd=source)
            inner_target = os.open(name, _LIST_FLAGS, dir_fd=target)
            try:
                _copy_folder(inner_source, inner_target, shift)
                _like(status, inner_target, shift)
            finally:
                os.close(inner_source)
                os.close(inner_target)
        elif kind == stat.S_IFREG:
            _copy_file(source, target, name, status, shift)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, *_owner(status, shift), dir_fd=target, follow_symlinks=False)
        elif kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK):
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.chown(name, *_owner(status, shift), dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str, status: os.stat_result, shift: int) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    with open(reading, "rb") as file:
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        with open(writing, "wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            _like(status, writing, shift)
            # After the owner: changing it takes capabilities away.
            for key, value in portable_xattrs(archive.xattrs(reading), shift).items():
                os.setxattr(writing, key, value)


def _owner(status: os.stat_result, shift: int) -> tuple[int, int]:
    return unshift(status.st_uid, shift), unshift(status.st_gid, shift)


def _like(status: os.stat_result, fd: int, shift: int) -> None:
    os.fchown(fd, *_owner(status, shift))
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
