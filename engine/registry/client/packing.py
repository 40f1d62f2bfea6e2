"""Layers that exist only as files: packed, hashed and sent in one pass over them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from yarl import URL

from engine.errors import EngineError
from engine.images import digest as digests
from engine.images.arrival import Arrival, Withdrawn
from engine.images.descriptor import Descriptor
from engine.images.store import ImageStore
from engine.registry.client import blobs
from engine.registry.client.progress import Meter, Progress
from engine.registry.client.remote import Remote


async def pack_and_send(
    remote: Remote, store: ImageStore, chain: str, diff_id: str, progress: Progress
) -> tuple[Descriptor, bool]:
    """Packs a layer and sends it on the way; (the blob, whether the registry has taken it).

    Where sending fails, packing goes on: the blob can be sent again as any other. Raises what packing raises.
    """
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[Arrival] = loop.create_future()

    def follow(arrival: Arrival) -> None:
        loop.call_soon_threadsafe(_settle, begun, arrival)

    pack = partial(store.layers.pack, chain, follow=follow)
    packing = asyncio.ensure_future(loop.run_in_executor(remote.client.unpackers, pack))
    try:
        either: list[asyncio.Future[Any]] = [packing, begun]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        upload = None
        if begun.done():
            with begun.result() as arrival:
                upload = await _send(remote, diff_id, arrival, progress)
        blob = await asyncio.shield(packing)
        return blob, upload is not None and await _complete(remote, blob, upload)
    except asyncio.CancelledError:
        # It can't be stopped, only waited for: its folder may be gone when we are.
        await asyncio.gather(packing, return_exceptions=True)
        raise


def _settle(begun: asyncio.Future[Arrival], arrival: Arrival) -> None:
    if begun.done():
        arrival.close()
    else:
        begun.set_result(arrival)


async def _send(remote: Remote, diff_id: str, arrival: Arrival, progress: Progress) -> URL | None:
    """Where the upload can be completed; None when it failed."""
    name = digests.short(diff_id)
    meter = Meter(progress, name, "Pushing", None)
    try:
        return await blobs.stream(remote, f"layer {name} of {remote.name}", arrival, meter)
    except (EngineError, Withdrawn):
        return None


async def _complete(remote: Remote, blob: Descriptor, upload: URL) -> bool:
    try:
        await blobs.complete(remote, blob, upload)
    except EngineError:
        return False
    return True
