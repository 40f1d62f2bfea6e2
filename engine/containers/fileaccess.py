"""The container's side of `cp`, `export`, `diff` and `commit`: which root, which lock, which thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Any

from engine.containers import archive, changes, commit, inroot, places, putting, rootview, users, volumes
from engine.containers.model import Container, ContainerConfig, MountPoint
from engine.containers.places import Places
from engine.containers.room import Room
from engine.errors import Forbidden, NotFound
from engine.images.image import Image
from engine.threads import to_the_end

_QUEUED = 8


class FileAccess:
    """Blocking work goes to threads; the container's lock keeps a start from coming in between."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def stat(self, container: Container, path: str) -> dict[str, Any]:
        """Docker's X-Docker-Container-Path-Stat, as a dictionary."""
        async with self._locked(container), self._root(container, path) as (root, inside, _):
            shown = await to_the_end(functools.partial(archive.path_stat, root, inside))
        # In a mount the name is the mount's own, not the "/" of what is mounted there.
        shown["name"] = os.path.basename(os.path.normpath("/" + path)) or "/"
        if shown["mode"] & archive.GO_LINK:
            shown["linkTarget"] = await to_the_end(lambda: self._places(container).real(archive.clean_path(path)))
        return shown

    async def get(self, container: Container, path: str) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """(stat, tar stream) of a file or folder. What does not exist fails before the stream begins."""
        shown = await self.stat(container, path)
        name = None if archive.names_content(path) else shown["name"]
        self._room.tell(container, "archive-path")
        return shown, self._get(container, path, name)

    async def _get(self, container: Container, path: str, name: str | None) -> AsyncIterator[bytes]:
        async with self._locked(container), self._root(container, path) as (root, inside, shift):
            produce = functools.partial(archive.get, root, inside, shift=shift, name=name)
            async with contextlib.aclosing(streamed(produce)) as pieces:
                async for piece in pieces:
                    yield piece

    async def put(
        self,
        container: Container,
        path: str,
        tar: IO[bytes],
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_ids: bool = False,
    ) -> None:
        """Unpacks a tar (gzip and zstd as well) into the folder `path`. `tar.read` is called in a thread."""
        async with self._locked(container):
            owner = await asyncio.to_thread(self._user, container) if copy_ids and container.config.user else None
            async with self._root(container, path, writing=True) as (root, inside, shift):
                options = putting.PutOptions(shift, owner, no_overwrite_dir_non_dir)
                await to_the_end(functools.partial(putting.put, root, inside, tar, options))
        self._room.tell(container, "extract-to-dir")

    def _user(self, container: Container) -> tuple[int, int]:
        user = users.resolve(container.config.user, (), rootview.layered(self._room, container))
        return user.uid, user.gid

    @contextlib.asynccontextmanager
    async def _root(
        self, container: Container, path: str, *, writing: bool = False
    ) -> AsyncIterator[tuple[int, str, int]]:
        """(root, path below it, id shift). What lies in a volume is reached there: its ids are the host's."""
        try:
            find = functools.partial(self._find, container, path, follow=writing or archive.wants_folder(path))
            point, inside = await to_the_end(find)
            ending = "/." if archive.names_content(path) else "/" if archive.wants_folder(path) else ""
            if point is not None:
                if writing and not point.rw:
                    raise Forbidden("mounted volume is marked read-only")
                root, inside = places.opened(point, inside)
                own = point.source.startswith(str(self._room.registry.paths(container).root))
                try:
                    yield root, inside + ending, container.id_shift if own else 0
                finally:
                    os.close(root)
                return
            if writing and container.host_config.readonly_rootfs:
                raise Forbidden("container rootfs is marked read-only")
            async with rootview.files(self._room, container) as root:
                yield root, inside + ending, container.id_shift
        except NotFound:
            # As its user called it, not as the path below some root.
            raise NotFound(f"Could not find the file {path} in container {container.id}") from None

    def _find(self, container: Container, path: str, *, follow: bool) -> tuple[MountPoint | None, str]:
        """The bind or volume where it lies and the path in there, or None and the path in the root. Blocking."""
        found = self._places(container)
        real = found.real(archive.clean_path(path), follow=follow)
        point, inside = found.mounted(real) or (None, real)
        if point is None or os.path.isdir(point.source):
            return point, inside
        # A file: whoever runs has it mounted.
        there = not container.state.alive and os.path.exists(point.source)
        return (point, inside) if there else (None, real)

    def _places(self, container: Container) -> Places:
        """Blocking."""
        points = {one: MountPoint(type="tmpfs", destination=one) for one in container.host_config.tmpfs}
        points |= {point.destination: point for point in container.mounts}
        if container.state.alive and container.state.pid:
            return Places(points.values(), functools.partial(_link_of_running, container.state.pid))
        paths = self._room.registry.paths(container)
        for name in ("hosts", "hostname", "resolv.conf"):
            source = paths.root / name
            if source.exists():
                points.setdefault(f"/etc/{name}", MountPoint(destination=f"/etc/{name}", source=str(source)))
        return Places(points.values(), rootview.layered(self._room, container).readlink)

    def export(self, container: Container) -> AsyncIterator[bytes]:
        """The whole file system as a tar."""
        self._room.tell(container, "export")
        return self._exported(container)

    async def _exported(self, container: Container) -> AsyncIterator[bytes]:
        async with self._locked(container):
            produce = functools.partial(self._export, container)
            async with contextlib.aclosing(streamed(produce)) as pieces:
                async for piece in pieces:
                    yield piece

    def _export(self, container: Container, write: archive.Write) -> None:
        with rootview.snapshot(self._room, container) as root:
            archive.export(root, write, container.id_shift)

    async def commit(
        self,
        container: Container,
        *,
        reference: str | None = None,
        changes: Sequence[str] = (),
        author: str = "",
        comment: str = "",
        pause: bool = True,
        config: ContainerConfig | None = None,
    ) -> Image:
        """A new image of the container's files. `changes` are Dockerfile lines; `reference` is name:tag."""
        return await commit.commit(
            self._room,
            container,
            reference=reference,
            changes=changes,
            author=author,
            comment=comment,
            pause=pause,
            config=config,
        )

    async def changes(self, container: Container) -> Sequence[dict[str, Any]]:
        """[{"Path": "/x", "Kind": 0 changed | 1 added | 2 deleted}]."""
        lower = await asyncio.to_thread(self._room.images.lowerdirs, container.image)
        return await asyncio.to_thread(changes.changes, self._room.registry.paths(container).upper, lower)

    async def sizes(self, container: Container) -> tuple[int, int]:
        """(bytes changed, bytes in all)."""
        own = await asyncio.to_thread(volumes.disk_usage, self._room.registry.paths(container).upper)
        image = await asyncio.to_thread(self._room.images.get, container.image)
        return own, own + image.size

    def _locked(self, container: Container) -> asyncio.Lock:
        return self._room.registry.live(container).lock


def _link_of_running(pid: int, path: str) -> str | None:
    root = inroot.root(Path(f"/proc/{pid}/root"))
    try:
        return places.link(root, path)
    finally:
        os.close(root)


async def streamed(produce: Callable[[archive.Write], None]) -> AsyncGenerator[bytes]:
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

    worker = asyncio.create_task(to_the_end(run))
    try:
        while isinstance(piece := await queue.get(), bytes):
            yield piece
        if piece is not None:
            raise piece
    finally:
        gone = True
        # There is room now for all that may still come: a piece or two, and the end.
        while not queue.empty():
            queue.get_nowait()
        await worker
