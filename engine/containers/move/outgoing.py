"""The side that a container leaves. It leads: at any moment its record says which of the two has the container.

copying    nothing has changed here: whatever happens, the container stays
stopped    it is down here, the other side has not been told to start it: it is started here again
starting   the other side may have started it: it is asked until it answers
done       the other side has it: what is here goes
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from engine.containers import names, stopping
from engine.containers.fileaccess import streamed
from engine.containers.model import Container, Move, TlsPems
from engine.containers.move import offer as offers
from engine.containers.move import packing
from engine.containers.move.offer import FILES, LOGS, VOLUME, Answer, Offer
from engine.containers.move.peer import Lost, Peer, check
from engine.containers.move.trees import Changes, Tree
from engine.containers.room import Room
from engine.errors import Conflict, EngineError, Unavailable

_log = logging.getLogger(__name__)
_PASSES = 4
_ENOUGH_BYTES = 32 << 20
"""What is left for the time when the container is down, at most, unless it writes faster than we copy."""

_STUBBORN_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_CHUNK = 1 << 20

Steps = Callable[[Container], Awaitable[None]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """Where a container is to go. `copy`: it stays here as well; `start`: it runs there if it ran here."""

    host: str
    tls: TlsPems | None = None
    copy: bool = False
    start: bool = True
    use_volumes: bool = False


class Outgoing:
    """All moves from this engine. `start` starts a container again; `remove` ends everything of it."""

    def __init__(self, room: Room, start: Steps, remove: Steps) -> None:
        self._room = room
        self._start = start
        self._remove = remove
        self._working: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    # What users ask for

    async def move(self, container: Container, wish: Wish, say: Say) -> str:
        """Returns the id that the container has there. Cancelled, it comes to nothing, unless the other side was told
        to start it: then it goes on.

        Raises Conflict, InvalidInput, Unavailable: then the container is here as it was.
        """
        check(wish.host, wish.tls)
        if container.move is not None:
            raise Conflict(f"container {container.name} is being moved already: wait, or `shipway move --abort` it")
        if container.state.status == "paused":
            raise Conflict(f"container {container.name} is paused: unpause it first")
        record = Move(
            id=secrets.token_hex(16),
            outgoing=True,
            host=wish.host,
            tls=wish.tls,
            copy=wish.copy,
            start=wish.start,
        )
        self._note(container, record)
        leaving = _Leaving(self._room, container, record, wish, say)
        task = asyncio.create_task(self._lead(container, record, leaving))
        self._working[container.id] = task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if record.phase in ("copying", "stopped"):
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        if task.cancelled():
            raise Conflict(f"the move of container {container.name} was called off")
        task.result()
        return leaving.id

    async def abort(self, container: Container, *, force: bool) -> None:
        """Raises Conflict where the other side may have it already, unless `force`: then it is here, come what may."""
        record, task = container.move, self._working.get(container.id)
        if record is None or not record.outgoing:
            raise Conflict(f"container {container.name} is not being moved")
        if record.phase in ("starting", "done") and not force:
            raise Conflict(
                f"container {container.name} may run at {record.host} already: "
                "with --force it runs here whatever is there"
            )
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if container.move is record and container.id in self._room.registry:
            await self._back(container, record)

    # The engine's life

    def restore(self) -> None:
        """After a start: what a former life of the engine left is settled, without keeping anyone waiting."""
        for container in self._room.registry:
            if container.move is not None and container.move.outgoing:
                self._settle_later(container, container.move)

    async def close(self) -> None:
        """Leaves things as they are: the next life goes on with them."""
        self._closing = True
        tasks = list(self._working.values())
        self._working.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The steps

    async def _lead(self, container: Container, record: Move, leaving: _Leaving) -> None:
        try:
            async with Peer(record.host, record.tls, record.id) as peer:
                try:
                    await leaving.prepare(peer)
                    if not record.copy:
                        await self._halt(container, record)
                    await leaving.finish(peer)
                    self._phase(container, record, "starting")
                except BaseException:
                    await self._give_up(container, record, peer)
                    raise
                # From here on what the other side says decides.
                await self._hand_over(container, record, peer, _STUBBORN_SECONDS)
        finally:
            if self._working.get(container.id) is asyncio.current_task():
                del self._working[container.id]

    async def _halt(self, container: Container, record: Move) -> None:
        """It is down, and nothing but this move brings it up again."""
        record.stopped_by_user = container.stopped_by_user
        record.ran = container.state.running
        self._phase(container, record, "stopped")
        await self._stop(container)

    async def _stop(self, container: Container) -> None:
        live = self._room.registry.live(container)
        await stopping.stop(self._room, container, live, None, None)
        # Its end is being recorded: its networks and its mount are gone once this is through.
        async with live.lock:
            pass

    async def _hand_over(self, container: Container, record: Move, peer: Peer, stubborn: float) -> None:
        """Raises Unavailable where that is open still; somebody goes on asking then."""
        end = time.monotonic() + stubborn
        pause = _FIRST_PAUSE
        start = record.start and (record.ran or (record.copy and container.state.running))
        while True:
            try:
                await peer.start(start=start, state=container.state)
                break
            except Lost as error:
                if time.monotonic() > end:
                    self._settle_later(container, record)
                    raise Unavailable(
                        f"{error}: whether {container.name} runs there is open, and will be settled once it answers;"
                        f" `shipway move --abort --force {container.name}` to run it here whatever is there"
                    ) from None
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except EngineError:
                # It says that it does not run there.
                self._phase(container, record, "stopped")
                await self._give_up(container, record, peer)
                raise
        self._phase(container, record, "done")
        await self._leave(container, record, peer)

    async def _leave(self, container: Container, record: Move, peer: Peer) -> None:
        await self._commit(container, peer)
        if record.copy:
            self._note(container, None)
            return
        self._room.tell(container, "move", {"host": record.host})
        await self._remove(container)
        for name in record.volumes:
            # One that others here have stays, of course.
            with contextlib.suppress(EngineError):
                await asyncio.to_thread(self._room.volumes.remove, name, force=True)

    async def _commit(self, container: Container, peer: Peer) -> None:
        """As long as it was not told, the other side lets nobody but us decide about the container."""
        end = time.monotonic() + _STUBBORN_SECONDS
        pause = _FIRST_PAUSE
        while True:
            try:
                return await peer.commit()
            except Lost as error:
                if time.monotonic() > end:
                    _log.warning("container %s: it is at %s, which could not be told", container.short_id, error)
                    return None
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except EngineError:
                # It was told before, and the answer got lost.
                return None

    async def _give_up(self, container: Container, record: Move, peer: Peer) -> None:
        """The container first: every moment that it is down counts."""
        if self._closing:
            return
        await asyncio.shield(self._back(container, record))
        with contextlib.suppress(EngineError):
            await asyncio.shield(peer.discard())

    async def _back(self, container: Container, record: Move) -> None:
        """All is here as it was before."""
        again = False
        if record.copy:
            await _thaw(self._room, container, record)
        elif record.phase != "copying":
            # It may have been told to end, and be about to: it begins anew either way.
            again = record.ran
            await self._stop(container)
            container.stopped_by_user = record.stopped_by_user
        self._note(container, None)
        try:
            if again:
                await self._start(container)
        except EngineError as error:
            _log.warning("container %s could not be started again: %s", container.short_id, error)
        if container.host_config.auto_remove and not container.state.running and container.state.status != "created":
            await self._remove(container)

    def _settle_later(self, container: Container, record: Move) -> None:
        task = asyncio.create_task(self._settle(container, record))
        self._working[container.id] = task

    async def _settle(self, container: Container, record: Move) -> None:
        """What was begun by a former life, or was left open."""
        try:
            async with Peer(record.host, record.tls, record.id) as peer:
                if record.phase in ("copying", "stopped"):
                    await self._give_up(container, record, peer)
                elif record.phase == "done":
                    await self._leave(container, record, peer)
                else:
                    _log.warning("container %s: asking %s whether it runs there", container.short_id, record.host)
                    await self._hand_over(container, record, peer, float("inf"))
        except EngineError as error:
            _log.warning("container %s was not moved to %s: %s", container.short_id, record.host, error)
        finally:
            if self._working.get(container.id) is asyncio.current_task():
                del self._working[container.id]

    def _phase(self, container: Container, record: Move, phase: str) -> None:
        record.phase = phase  # type: ignore[assignment]
        self._room.registry.save(container)

    def _note(self, container: Container, record: Move | None) -> None:
        container.move = record
        self._room.registry.save(container)


class _Leaving:
    """One container's way out, as far as it is about its files."""

    def __init__(self, room: Room, container: Container, record: Move, wish: Wish, say: Say) -> None:
        self._room = room
        self._container = container
        self._record = record
        self._wish = wish
        self._say = say
        self._trees: dict[str, Tree] = {}
        self.id = names.new_id() if wish.copy else container.id

    async def prepare(self, peer: Peer) -> None:
        """All that can be done while it runs."""
        self._say(f"Asking {self._record.host}")
        offer = await self._offer()
        answer = await peer.offer(offer)
        await self._send_image(peer, answer)
        await peer.create()
        self._find_trees(answer)
        before = float("inf")
        for turn in range(_PASSES):
            size = await self._send_changes(peer, quiet=False, what="Copying" if turn == 0 else "Copying what changed")
            if not self._container.state.running or size <= _ENOUGH_BYTES or size > before / 2:
                return
            before = size

    async def finish(self, peer: Peer) -> None:
        """The rest, while nobody writes."""
        if self._record.copy:
            await self._freeze()
        await self._send_changes(peer, quiet=True, what="Copying the rest")
        if self._record.copy:
            await _thaw(self._room, self._container, self._record)

    async def _freeze(self) -> None:
        async with self._room.registry.live(self._container).lock:
            if self._container.state.status == "running":
                # Noted first: should we die, the next life knows that no user wanted it.
                self._record.ran = True
                self._room.registry.save(self._container)
                await stopping.freeze(self._room, self._container)

    async def _offer(self) -> Offer:
        return await asyncio.to_thread(
            offers.of,
            self._room,
            self._container,
            move=self._record.id,
            container_id=self.id,
            use_volumes=self._wish.use_volumes,
        )

    async def _send_image(self, peer: Peer, answer: Answer) -> None:
        blobs = self._room.images.blobs
        for number, digest in enumerate(answer.blobs):
            size = blobs.size(digest)
            self._say(f"Sending layer {number + 1} of {len(answer.blobs)}: {size} bytes")
            await self._told(peer, peer.blob(digest, _chunks(self._room, digest), size))

    def _find_trees(self, answer: Answer) -> None:
        container = self._container
        paths = self._room.registry.paths(container)
        self._trees[FILES] = Tree(paths.upper, overlay=True, shift=container.id_shift)
        self._trees[LOGS] = Tree(paths.root, prefix=paths.log.name.encode())
        for name in offers.volume_names(container):
            if name not in answer.volumes:
                self._trees[f"{VOLUME}{name}"] = Tree(self._room.volumes.get(name).path)
                self._record.volumes.append(name)

    async def _send_changes(self, peer: Peer, *, quiet: bool, what: str) -> int:
        """Returns how many bytes of files."""
        total = 0
        for name, tree in self._trees.items():
            found = await asyncio.to_thread(functools.partial(tree.changes, quiet=quiet))
            total += found.size
            if found:
                self._say(f"{what}: {name}, {len(found.items)} files, {found.size} bytes")
            await self._send_tree(peer, name, tree, found)
        return total

    async def _send_tree(self, peer: Peer, name: str, tree: Tree, found: Changes) -> None:
        if found.gone:
            await self._told(peer, peer.remove(name, found.gone))
        if found.items:
            pieces = streamed(functools.partial(packing.pack, tree, found.items))
            async with contextlib.aclosing(pieces):
                await self._told(peer, peer.put(name, pieces))

    @staticmethod
    async def _told(peer: Peer, sending: Awaitable[None]) -> None:
        """The other side may say why it takes no more before it has all, when nobody listens yet: it is asked."""
        try:
            await sending
        except Lost:
            reason = ""
            with contextlib.suppress(EngineError):
                reason = await peer.failure()
            if reason:
                raise Conflict(f"{peer.host}: {reason}") from None
            raise


async def _thaw(room: Room, container: Container, record: Move) -> None:
    if record.ran and container.state.status == "paused":
        async with room.registry.live(container).lock:
            with contextlib.suppress(Conflict):
                await stopping.unfreeze(room, container)
    record.ran = False


async def _chunks(room: Room, digest: str) -> AsyncIterator[bytes]:
    with room.images.blobs.open(digest) as file:
        while piece := await asyncio.to_thread(file.read, _CHUNK):
            yield piece
