"""The container's side of `cp`, `export`, `diff` and `commit`: which root, which lock, which thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from engine.containers import archive, changes, inroot, rootview, users, volumes
from engine.containers.layered import Layered
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import Forbidden

T = TypeVar("T")
_QUEUED = 8


class FileAccess:
    """Blocking work goes to threads; the container's lock keeps a start from coming in between."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def stat(self, container: Container, path: str) -> dict[str, Any]:
        return await self._locked(container, functools.partial(self._stat, container, path))

    def _stat(self, container: Container, path: str) -> dict[str, Any]:
        with self._root(container, path) as (root, inside, _):
            shown = archive.path_stat(root, inside)
        # In a mount the name is the mount's own, not the "/" of what is mounted there.
        shown["name"] = os.path.basename(os.path.normpath("/" + path)) or "/"
        return shown

    async def get(self, container: Container, path: str) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """The stat comes first, so that what does not exist fails before the stream begins."""
        shown = await self.stat(container, path)
        name = shown["name"] if not path.endswith("/.") else None
        return shown, self._stream(container, functools.partial(self._get, container, path, name))

    def _get(self, container: Container, path: str, name: str | None, write: archive.Write) -> None:
        with self._root(container, path) as (root, inside, shift):
            archive.get(root, inside, write, shift, name)

    async def put(self, container: Container, path: str, tar: IO[bytes], *, no_overwrite: bool, copy_ids: bool) -> None:
        await self._locked(container, functools.partial(self._put, container, path, tar, no_overwrite, copy_ids))

    def _put(self, container: Container, path: str, tar: IO[bytes], no_overwrite: bool, copy_ids: bool) -> None:
        owner = None
        if copy_ids:
            paths = self._room.registry.paths(container)
            layers = Layered([paths.upper, *self._room.images.lowerdirs(container.image)])
            user = users.resolve(container.config.user, (), layers)
            owner = (user.uid, user.gid)
        with self._root(container, path, writing=True) as (root, inside, shift):
            archive.put(root, inside, tar, archive.PutOptions(shift, owner, no_overwrite))

    @contextlib.contextmanager
    def _root(self, container: Container, path: str, *, writing: bool = False) -> Iterator[tuple[int, str, int]]:
        """(root, path below it, id shift). What lies in a volume is reached there: its ids are the host's."""
        mounted = archive.mounted_at(container, path)
        if mounted is not None and os.path.isdir(mounted[0]):
            source, inside, rw = mounted
            if writing and not rw:
                raise Forbidden("mounted volume is marked read-only")
            root = inroot.root(Path(source))
            try:
                yield root, inside, 0
            finally:
                os.close(root)
            return
        if writing and container.host_config.readonly_rootfs:
            raise Forbidden("container rootfs is marked read-only")
        with rootview.files(self._room, container) as root:
            yield root, path, container.id_shift

    def export(self, container: Container) -> AsyncIterator[bytes]:
        return self._stream(container, functools.partial(self._export, container))

    def _export(self, container: Container, write: archive.Write) -> None:
        with rootview.snapshot(self._room, container) as root:
            archive.export(root, write, container.id_shift)

    async def changes(self, container: Container) -> list[dict[str, Any]]:
        lower = await asyncio.to_thread(self._room.images.lowerdirs, container.image)
        return await asyncio.to_thread(changes.changes, self._room.registry.paths(container).upper, lower)

    async def sizes(self, container: Container) -> tuple[int, int]:
        """(bytes changed, bytes in all)."""
        own = await asyncio.to_thread(volumes.disk_usage, self._room.registry.paths(container).upper)
        image = await asyncio.to_thread(self._room.images.get, container.image)
        return own, own + image.size

    async def _locked(self, container: Container, act: Callable[[], T]) -> T:
        async with self._room.registry.live(container).lock:
            return await asyncio.to_thread(act)

    async def _stream(self, container: Container, produce: Callable[[archive.Write], None]) -> AsyncIterator[bytes]:
        """What a blocking producer writes, as fast as it is taken."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(_QUEUED)
        gone = False

        def write(data: bytes | bytearray | memoryview) -> None:
            if gone:
                raise BrokenPipeError
            asyncio.run_coroutine_threadsafe(queue.put(bytes(data)), loop).result()

        def run() -> None:
            end: BaseException | None = None
            try:
                produce(write)
            except BaseException as error:
                end = error
            asyncio.run_coroutine_threadsafe(queue.put(end), loop).result()

        async with self._room.registry.live(container).lock:
            worker = asyncio.create_task(asyncio.to_thread(run))
            try:
                while isinstance(piece := await queue.get(), bytes):
                    yield piece
                if piece is not None:
                    raise piece
            finally:
                gone = True
                while not worker.done():
                    while not queue.empty():
                        queue.get_nowait()
                    await asyncio.wait((worker,), timeout=0.01)
