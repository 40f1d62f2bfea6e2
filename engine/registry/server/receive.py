"""Request bodies → disk, in few large steps and bounded memory."""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader, web

from engine.registry.server import errors
from engine.registry.server.metrics import Metrics
from engine.registry.server.storage.uploads import Upload

_STEP = 1 << 20


async def receive(body: StreamReader, upload: Upload, limit: int, metrics: Metrics) -> None:
    """Appends the whole body to an open upload. One block is written and hashed while the next arrives.

    When the client goes away, what arrived stays, and the client can resume. Raises SIZE_INVALID.
    """
    writing: asyncio.Future[None] | None = None
    buffer = bytearray()
    total = upload.size
    try:
        while True:
            chunk = await body.readany()
            buffer += chunk
            if total + len(buffer) > limit:
                raise errors.blob_too_big(limit)
            if len(buffer) >= _STEP or (not chunk and buffer):
                if writing is not None:
                    await writing
                block, buffer = buffer, bytearray()
                total += len(block)
                writing = asyncio.ensure_future(asyncio.to_thread(upload.append, block))
                metrics.bytes.labels("in").inc(len(block))
            if not chunk and body.at_eof():
                break
    except ConnectionError:
        raise web.HTTPBadRequest(text="the body broke off") from None
    finally:
        if writing is not None:
            await asyncio.shield(writing)


async def read_bounded(request: web.Request, limit: int, error: errors.RegistryError) -> bytes:
    """The body when it has at most `limit` bytes, `error` otherwise; never holds more than that."""
    if request.content_length is not None and request.content_length > limit:
        raise error
    data = bytearray()
    while chunk := await request.content.readany():
        data += chunk
        if len(data) > limit:
            raise error
    return bytes(data)
