"""The side that a container leaves. It leads: at any moment its record says which of the two has the container.

copying    nothing has changed here: whatever happens, the container stays
stopped    it is down here, the other side has not been told to start it: it is started here again
starting   the other side may have started it: it is asked until it answers
done       the other side has it: what is here goes
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable

from engine.containers import stopping
from engine.containers.model import Container, Move
from engine.containers.move.leaving import Leaving, Say, Wish, thaw
from engine.containers.move.peer import Lost, Peer, check
from engine.containers.room import Room
from engine.errors import Conflict, EngineError, Unavailable

_log = logging.getLogger(__name__)
_STUBBORN_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0

Steps = Callable[[Container], Awaitable[None]]


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
        leaving = Leaving(self._room, container, record, wish, say)
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

    async def _lead(self, container: Container, record: Move, leaving: Leaving) -> None:
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
            await thaw(self._room, container, record)
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
