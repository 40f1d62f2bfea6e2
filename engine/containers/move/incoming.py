"""The side to which a container comes. It decides nothing: it makes, starts and takes away what it is told to.

As long as it was not told to start the container it takes everything away by itself when the other side is silent for
long, and after a crash. From then on only the other side's word does, or a user's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.containers import stopping
from engine.containers.model import Container, Move, State
from engine.containers.move import arrival, packing
from engine.containers.move.journal import Journal, Note
from engine.containers.move.offer import FILES, LOGS, VOLUME, Answer, Offer
from engine.containers.move.settled import settled
from engine.containers.room import Room
from engine.errors import Conflict, EngineError, InvalidInput, NotFound, SystemFailure
from engine.images.unpack import unpack
from engine.kernel.sync import syncfs
from engine.threads import to_the_end

if TYPE_CHECKING:
    from engine.images.leases import Lease

_log = logging.getLogger(__name__)
_MOVE = re.compile(r"[0-9a-f]{32}")
_ID = re.compile(r"[0-9a-f]{64}")
_LOG_NAME = re.compile(r"[0-9a-f]{64}-json\.log(\.[0-9]{1,4})?")
_PATIENCE_SECONDS = 5.0
_SILENT_SECONDS = 180.0
_READ = 1 << 20

Steps = Callable[[Container], Awaitable[None]]


class _Coming:
    """One move, while this process lives."""

    def __init__(self, offer: Offer, image: arrival.Image, lease: Lease) -> None:
        self.offer = offer
        self.image = image
        self.lease = lease
        self.lock = asyncio.Lock()
        self.absent: list[str] = []
        self.failure = ""
        self.heard = asyncio.get_running_loop().time()
        self.busy = 0


class Incoming:
    """All moves to this engine. `start` begins a container's life with its lock held, `remove` takes it away whole."""

    def __init__(self, room: Room, start: Steps, remove: Steps, user_namespaces: Callable[[], bool]) -> None:
        self._room = room
        self._user_namespaces = user_namespaces
        self._start = start
        self._remove = remove
        self._coming: dict[str, _Coming] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._journal = Journal(room.config.data_root)
        self._watching: asyncio.Task[None] | None = None

    # What the other side asks for

    async def offer(self, offer: Offer) -> Answer:
        """May it come? Raises Conflict and InvalidInput with what is in the way."""
        if not _MOVE.fullmatch(offer.move) or not _ID.fullmatch(offer.id) or offer.move in self._coming:
            raise InvalidInput("invalid move")
        arrival.check(self._room, offer)
        image = arrival.Image(self._room, offer)
        self._room.registry.free_name(offer.name, offer.id)
        try:
            lease = await asyncio.to_thread(self._room.images.lease, *image.targets)
            coming = self._coming[offer.move] = _Coming(offer, image, lease)
            lacking = await asyncio.to_thread(image.lacking)
            coming.absent = await asyncio.to_thread(image.absent)
            self._journal.write(offer.move, Note(layers=coming.absent, lease=lease.id))
        except BaseException:
            self._forget(offer.move)
            self._room.registry.give_up_name(offer.name, offer.id)
            raise
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        new = arrival.lacking_volumes(self._room, offer)
        return Answer(blobs=lacking, volumes=[one.name for one in offer.volumes if one.name not in new])

    async def blob(self, move: str, digest: str, body: Any) -> None:
        """A layer's bytes; `body.read` is called in a thread."""
        coming = self._get(move)
        if digest not in coming.image.targets:
            raise InvalidInput(f"{digest} is none of the image's layers")
        async with self._working(coming):
            await to_the_end(partial(self._write_blob, digest, body))

    def _write_blob(self, digest: str, body: Any) -> None:
        with self._room.images.blobs.writer(digest) as writer:
            for piece in _pieces(body):
                writer.write(piece)
            writer.commit()

    async def create(self, move: str) -> None:
        """The image, networks, volumes and the container's record."""
        coming = self._get(move)
        offer = coming.offer
        async with self._working(coming):
            await to_the_end(coming.image.finish)
            networks = arrival.lacking_networks(self._room, offer)
            volumes = arrival.lacking_volumes(self._room, offer)
            note = Note(volumes=volumes, networks=networks, layers=coming.absent, lease=coming.lease.id)
            self._journal.write(move, note)
            addressed = {name for name, endpoint in offer.endpoints.items() if endpoint.ipam_config}
            try:
                await arrival.make_networks(self._room, offer.networks, networks, addressed)
                record = Move(id=move, outgoing=False, volumes=volumes, networks=networks, layers=coming.absent)
                container = arrival.make(self._room, offer, record, user_namespaces=self._user_namespaces())
            except BaseException:
                await arrival.remove_networks(self._room, networks)
                raise
            # The container itself keeps its image from here on.
            coming.lease.release()
            self._journal.drop(move)
        self._room.tell(container, "create")

    async def gone(self, move: str, tree: str, names: bytes) -> None:
        """What the other side's tree no longer has; NUL between two names."""
        coming = self._get(move)
        async with self._working(coming):
            folder, _ = self._tree(move, tree)
            await to_the_end(partial(packing.remove, folder, names.split(b"\0") if names else ()))

    async def put(self, move: str, tree: str, body: Any) -> None:
        """A tar onto what a tree has already; `body.read` is called in a thread."""
        coming = self._get(move)
        async with self._working(coming):
            folder, shift = self._tree(move, tree)
            await to_the_end(
                lambda: unpack(_pieces(body), folder, whiteouts=tree == FILES, id_shift=shift, limits=packing.LIMITS)
            )

    async def start(self, move: str, state: State, *, start: bool) -> bool:
        """Whether it does well by now; it is to be asked again otherwise. Its failure leaves it as it was before."""
        container = self._container(move)
        record = container.move
        assert record is not None
        async with self._working(self._coming.get(move)), self._starting.setdefault(move, asyncio.Lock()):
            live = self._room.registry.live(container)
            if record.phase == "copying":
                await asyncio.to_thread(self._place, container)
                record.phase, record.start = "starting", start
                if not start:
                    container.state = _ended(state)
                self._room.registry.save(container)
            if not record.start:
                return True
            try:
                if not container.state.running:
                    container.restart_count = live.restarts_in_a_row = 0
                    async with live.lock:
                        if not container.state.alive:
                            await self._start(container)
                return await settled(container, _PATIENCE_SECONDS)
            except EngineError:
                await self._take_down(container)
                record.phase = "copying"
                self._room.registry.save(container)
                raise

    async def _take_down(self, container: Container) -> None:
        live = self._room.registry.live(container)
        container.stopped_by_user = True
        with contextlib.suppress(Conflict, NotFound):
            await stopping.stop(self._room, container, live, 0, None)

    async def commit(self, move: str) -> None:
        """It is this engine's, as if it had been made here."""
        container = self._container(move)
        await asyncio.to_thread(self._sync)
        container.move = None
        self._room.registry.save(container)
        self._forget(move)
        self._room.tell(container, "move")

    async def discard(self, move: str) -> None:
        """Nothing of it stays here. Raises NotFound where nothing is known of it."""
        coming = self._coming.get(move)
        container = self._find(move)
        if coming is None and container is None:
            raise NotFound(f"No such move: {move[:40]}")
        async with coming.lock if coming is not None else contextlib.nullcontext():
            if container is None:
                container = self._find(move)
            if container is not None:
                await self._undo(container)
            if coming is not None:
                self._room.registry.give_up_name(coming.offer.name, coming.offer.id)
                self._forget(move)
                if container is None:
                    await self._take_away(Note(layers=coming.absent))
                    self._journal.drop(move)

    def state(self, move: str) -> dict[str, str]:
        """Raises NotFound."""
        coming, container = self._coming.get(move), self._find(move)
        if coming is None and container is None:
            raise NotFound(f"No such move: {move[:40]}")
        phase = container.move.phase if container is not None and container.move is not None else "copying"
        return {
            "Phase": phase,
            "Container": container.id if container is not None else "",
            "Error": coming.failure if coming is not None else "",
        }

    # The engine's life

    async def restore(self) -> None:
        """After a start: what had not got as far as its start goes."""
        for container in self._room.registry:
            if container.move is not None and not container.move.outgoing and container.move.phase == "copying":
                _log.info("container %s was on its way here when the engine ended: removing it", container.short_id)
                await self._undo(container)
        for move, note in self._journal.left().items():
            await self._take_away(note)
            self._journal.drop(move)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for coming in self._coming.values():
            coming.lease.release()

    async def _watch(self) -> None:
        """Whoever sends nothing any more has died, or has lost the way."""
        while self._coming:
            await asyncio.sleep(_SILENT_SECONDS / 6)
            now = asyncio.get_running_loop().time()
            for move, coming in list(self._coming.items()):
                if coming.busy or now - coming.heard < _SILENT_SECONDS:
                    continue
                container = self._find(move)
                if container is not None and container.move is not None and container.move.phase != "copying":
                    continue
                _log.warning("nothing more came of container %s: taking away what did", coming.offer.name)
                with contextlib.suppress(EngineError):
                    await self.discard(move)
        self._watching = None

    # Small things

    def _get(self, move: str) -> _Coming:
        coming = self._coming.get(move)
        if coming is None:
            raise NotFound(f"No such move: {move[:40]}: it was given up")
        return coming

    def _find(self, move: str) -> Container | None:
        return next(
            (one for one in self._room.registry if one.move and not one.move.outgoing and one.move.id == move), None
        )

    def _container(self, move: str) -> Container:
        container = self._find(move)
        if container is None:
            raise NotFound(f"No such move: {move[:40]}: it was given up")
        return container

    @contextlib.asynccontextmanager
    async def _working(self, coming: _Coming | None) -> AsyncIterator[None]:
        """One step at a time. Notes when the other side was heard last, and what failed: all that it sees may be a
        connection that broke. Raises NotFound where the move was given up meanwhile."""
        if coming is None:
            yield
            return
        coming.busy += 1
        try:
            async with coming.lock:
                self._get(coming.offer.move)
                yield
        except (EngineError, OSError) as error:
            coming.failure = str(error)
            raise
        finally:
            coming.busy -= 1
            coming.heard = asyncio.get_running_loop().time()

    def _tree(self, move: str, tree: str) -> tuple[Path, int]:
        """(folder, what is added to ids)."""
        container = self._container(move)
        assert container.move is not None
        if container.move.phase != "copying":
            raise Conflict("its files are complete already")
        paths = self._room.registry.paths(container)
        if tree == FILES:
            return paths.upper, container.id_shift
        if tree == LOGS:
            folder = paths.root / "logs"
            folder.mkdir(mode=0o700, exist_ok=True)
            return folder, 0
        name = tree.removeprefix(VOLUME)
        if name == tree or name not in container.move.volumes:
            raise NotFound(f"No such tree: {tree[:200]}")
        return self._room.volumes.get(name).path, 0

    def _place(self, container: Container) -> None:
        """What came is put where the engine looks for it."""
        paths = self._room.registry.paths(container)
        came = paths.root / "logs"
        if came.is_dir():
            for file in came.iterdir():
                if _LOG_NAME.fullmatch(file.name) and container.log_path:
                    file.rename(paths.root / f"{container.id}{file.name[64:]}")
            shutil.rmtree(came, ignore_errors=True)
        assert container.move is not None
        coming = self._coming.get(container.move.id)
        fresh = {volume.name for volume in coming.offer.volumes if volume.fresh} if coming is not None else set()
        for name in container.move.volumes:
            if name not in fresh:
                self._room.volumes.used(self._room.volumes.get(name))

    def _sync(self) -> None:
        """The other side is about to delete what it has."""
        with open(self._room.config.data_root / "engine.lock", "rb") as file:
            try:
                syncfs(file.fileno())
            except OSError as error:
                raise SystemFailure(f"can't write to the disk: {error.strerror}", error.errno) from None

    async def _undo(self, container: Container) -> None:
        assert container.move is not None
        move = container.move
        note = Note(volumes=move.volumes, networks=move.networks, layers=move.layers)
        # On a full disk it goes all the same.
        with contextlib.suppress(OSError):
            self._journal.write(move.id, note)
        await self._remove(container)
        await self._take_away(note)
        self._journal.drop(move.id)

    async def _take_away(self, note: Note) -> None:
        for name in note.volumes:
            with contextlib.suppress(Conflict):
                await asyncio.to_thread(self._room.volumes.remove, name, force=True)
        await arrival.remove_networks(self._room, note.networks)
        if note.lease:
            self._room.images.catalog.end_lease(note.lease)
        await asyncio.to_thread(self._drop_image, note.layers)

    def _drop_image(self, came: list[str]) -> None:
        """What came for it and nobody has used meanwhile."""
        images = self._room.images
        for target in came:
            with contextlib.suppress(EngineError):
                if images.catalog.image(target) is not None and not images.users(target):
                    images.remove(target, force=True)
        images.drop_loose(came)

    def _forget(self, move: str) -> None:
        self._starting.pop(move, None)
        coming = self._coming.pop(move, None)
        if coming is not None:
            coming.lease.release()


def _pieces(body: Any) -> Iterator[bytes]:
    while piece := body.read(_READ):
        yield piece


def _ended(state: State) -> State:
    """How a container that does not run was when it left."""
    if state.status == "created":
        return State()
    return State(
        status="exited",
        exit_code=state.exit_code,
        error=state.error,
        oom_killed=state.oom_killed,
        started_at=state.started_at,
        finished_at=state.finished_at,
    )
