from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from engine.containers.store import ContainerStore
from engine.containers.upkeep import Upkeep


class Slow(ContainerStore):
    """Deletes nothing while `gate` is closed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun, self.gate = threading.Event(), threading.Event()
        self.inside = self.most = 0

    def sweep(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.begun.set()
        self.gate.wait(20)
        self.inside -= 1


class Failing(ContainerStore):
    """Fails the first time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: list[str] = []

    def sweep(self) -> None:
        self.calls.append("sweep")
        if len(self.calls) == 1:
            raise ValueError("what nobody thought of")


async def test_the_end_waits_for_what_is_being_done(tmp_path: Path) -> None:
    store = Slow(tmp_path)
    upkeep = Upkeep(store)
    upkeep.begin()
    await asyncio.to_thread(store.begun.wait, 20)
    store.begun.clear()
    ending = asyncio.create_task(upkeep.end())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not store.begun.is_set()
    store.gate.set()
    await ending
    assert (store.inside, store.most) == (0, 1)


async def test_whatever_fails_is_tried_again(tmp_path: Path) -> None:
    store = Failing(tmp_path)
    upkeep = Upkeep(store)
    upkeep.begin()
    for _ in range(200):
        # After 64 each waits until what was removed is deleted.
        async with asyncio.timeout(20):
            await upkeep.removed()
    await upkeep.end()
    assert len(store.calls) > 2
