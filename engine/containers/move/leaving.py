"""One container's way out, as far as it is about its files: sent while it runs, and the rest while nobody writes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from engine.containers import names, stopping
from engine.containers.fileaccess import streamed
from engine.containers.model import Container, Move, TlsPems
from engine.containers.move import offer as offers
from engine.containers.move import packing
from engine.containers.move.offer import FILES, LOGS, VOLUME, Answer, Offer
from engine.containers.move.peer import Lost, Peer
from engine.containers.move.trees import Changes, Tree
from engine.containers.room import Room
from engine.errors import Conflict, EngineError

_PASSES = 4
_ENOUGH_BYTES = 32 << 20
"""What is left for the time when the container is down, at most, unless it writes faster than we copy."""

_CHUNK = 1 << 20
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """Where a container is to go. `copy`: it stays here as well; `start`: it runs there if it ran here."""

    host: str
    tls: TlsPems | None = None
    copy: bool = False
    start: bool = True
    use_volumes: bool = False


class Leaving:
    """One container's files on their way; `id` is what it is called there."""

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
            await thaw(self._room, self._container, self._record)

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


async def thaw(room: Room, container: Container, record: Move) -> None:
    if record.ran and container.state.status == "paused":
        async with room.registry.live(container).lock:
            with contextlib.suppress(Conflict):
                await stopping.unfreeze(room, container)
    record.ran = False


async def _chunks(room: Room, digest: str) -> AsyncIterator[bytes]:
    with room.images.blobs.open(digest) as file:
        while piece := await asyncio.to_thread(file.read, _CHUNK):
            yield piece
