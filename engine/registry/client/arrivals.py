"""Layers on their way into the store: each is unpacked while it is still being downloaded.

The bytes' digest and the files' digest are both verified before anything becomes part of the store; the layers
below a layer need not be there while it is unpacked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from engine.images import digest as digests
from engine.images.arrival import Arrival, Withdrawn
from engine.images.descriptor import Descriptor
from engine.images.layers import UnpackedLayer
from engine.images.store import ImageStore
from engine.registry.client import blobs
from engine.registry.client.progress import Meter, Progress, ProgressEvent
from engine.registry.client.remote import Remote

T = TypeVar("T")
_locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()


class Arrivals:
    """The layers of one pull."""

    def __init__(self, remote: Remote, store: ImageStore, progress: Progress) -> None:
        self._remote = remote
        self._store = store
        self._progress = progress
        self._downloads = asyncio.Semaphore(remote.client.parallel)
        self._unpacks = asyncio.Semaphore(remote.client.parallel)

    async def bring(
        self, layer: Descriptor, diff_id: str, parent: str | None, below: asyncio.Task[None] | None
    ) -> None:
        """Makes the layer on top of `parent` part of the store; `below` ends when `parent` is.

        Two pulls that want the same layer share the work. Raises what `below` raises.
        """
        chain = digests.chain_id(parent, diff_id)
        # Whoever holds this lock waits at most for layers further down, and those for others still further down.
        async with _locks.setdefault(self._store.layers.folder(chain), asyncio.Lock()):
            if await asyncio.to_thread(self._store.layers.here, chain) is not None:
                self._say(layer, "Already exists")
                return
            unpacked = await self._fetch(layer, diff_id)
            try:
                if below is not None:
                    await asyncio.shield(below)
            except BaseException:
                await asyncio.to_thread(self._store.layers.drop, unpacked)
                raise
            await self._whole(partial(self._store.layers.adopt, unpacked, parent, layer))
            self._say(layer, "Pull complete")

    async def _fetch(self, layer: Descriptor, diff_id: str) -> UnpackedLayer:
        early: asyncio.Task[UnpackedLayer] | None = None
        source: Arrival | None = None

        def follow(arrival: Arrival) -> None:
            nonlocal early, source
            source = arrival
            early = asyncio.create_task(self._unpack(layer, diff_id, arrival))

        meter = Meter(self._progress, digests.short(layer.digest), "Downloading", layer.size)
        try:
            async with self._downloads:
                await blobs.download(self._remote, layer, self._store.blobs, meter, follow)
            self._say(layer, "Download complete")
            self._say(layer, "Extracting")
            if early is not None:
                await asyncio.wait({early})
        except BaseException:
            if early is not None and source is not None:
                await self._undo(early)
                source.close()  # it may not even have begun
            raise
        if early is not None:
            try:
                return early.result()
            except Withdrawn:
                pass  # the download had to begin anew
        return await self._unpack(layer, diff_id, self._store.blobs.stream(layer.digest))

    async def _unpack(self, layer: Descriptor, diff_id: str, source: Arrival) -> UnpackedLayer:
        try:
            async with self._unpacks:
                unpack = partial(self._store.layers.unpack, source, layer.digest, diff_id, layer.size)
                return await self._whole(unpack, source.withdraw, self._store.layers.drop)
        finally:
            source.close()

    async def _undo(self, early: asyncio.Task[UnpackedLayer]) -> None:
        early.cancel()
        (result,) = await asyncio.gather(early, return_exceptions=True)
        if isinstance(result, UnpackedLayer):
            await asyncio.to_thread(self._store.layers.drop, result)

    def _say(self, layer: Descriptor, status: str) -> None:
        self._progress(ProgressEvent(digests.short(layer.digest), status))

    async def _whole(
        self,
        work: Callable[[], T],
        hurry: Callable[[], object] = lambda: None,
        undo: Callable[[T], object] = lambda result: None,
    ) -> T:
        """Does `work` in a thread and stays until it has ended, even when cancelled: then `hurry` may end it sooner,
        and its result is undone."""
        # Not the loop's own threads: unpacking waits for bytes, and the loop's write them.
        running = asyncio.get_running_loop().run_in_executor(self._remote.client.unpackers, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            hurry()
            with contextlib.suppress(Exception):
                await asyncio.to_thread(undo, await running)
            raise
