"""`/v2/NAME/blobs/uploads/` (OCI distribution-spec, "Pushing Blobs"): whole, in chunks, resumed, mounted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from engine.registry.server import errors, names, state
from engine.registry.server.receive import receive
from engine.registry.server.storage.uploads import Upload

_MOST_SOURCES = 100
_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,19})-([0-9]{1,19})(?:/[0-9*]+)?\Z")


async def begin(request: web.Request) -> web.Response:
    """POST: a new upload; or, with `?mount=`, no upload at all; or, with `?digest=`, all of it at once."""
    registry, repository = state.of(request), state.repository(request)
    await registry.guard.require(request, repository, "pull", "push")
    if "mount" in request.query:
        digest = names.digest(request.query["mount"])
        if await _mount(request, repository, digest):
            return _created(repository, digest)
    upload = await asyncio.to_thread(registry.storage.uploads.begin, repository)
    if "digest" in request.query and "mount" not in request.query:
        async with _writing(upload):
            return await _finish(request, upload)
    return _accepted(upload)


async def _mount(request: web.Request, repository: str, digest: str) -> bool:
    """Links a blob of another repository, if the client may read that one. `from` may be left out."""
    registry = state.of(request)
    source = request.query.get("from")
    if source is None:
        sources = await asyncio.to_thread(registry.storage.blobs.owners, digest)
    else:
        sources = [source] if names.is_repository(source) else []
    for name in sources[:_MOST_SOURCES]:
        try:
            await registry.guard.require(request, name, "pull")
        except errors.RegistryError:
            continue  # as if it were not there
        if await asyncio.to_thread(_link, registry, name, repository, digest):
            return True
    return False


def _link(registry: state.State, source: str, repository: str, digest: str) -> bool:
    with registry.storage.lock:
        if not registry.storage.blobs.has(source, digest):
            return False
        registry.storage.blobs.link(repository, digest)
    return True


async def status(request: web.Request) -> web.Response:
    """GET: how much has arrived."""
    upload = await _find(request)
    return web.Response(status=204, headers=_progress(upload))


async def append(request: web.Request) -> web.Response:
    """PATCH: a chunk, with `Content-Range` in order, or a stream without."""
    upload = await _find(request)
    async with _writing(upload):
        await _take(request, upload)
    return _accepted(upload)


async def finish(request: web.Request) -> web.Response:
    """PUT with `?digest=`: perhaps a last chunk, then the blob."""
    upload = await _find(request)
    async with _writing(upload):
        return await _finish(request, upload)


async def cancel(request: web.Request) -> web.Response:
    """DELETE: forget it."""
    upload = await _find(request)
    async with _writing(upload):
        await asyncio.to_thread(state.of(request).storage.uploads.forget, upload)
    return web.Response(status=204)


async def _find(request: web.Request) -> Upload:
    registry, repository = state.of(request), state.repository(request)
    await registry.guard.require(request, repository, "pull", "push")
    return registry.storage.uploads.get(repository, names.upload(request.match_info["upload"]))


@asynccontextmanager
async def _writing(upload: Upload) -> AsyncIterator[None]:
    if not upload.busy.acquire(blocking=False):
        raise errors.RegistryError(409, "BLOB_UPLOAD_INVALID", "another request is writing to this upload")
    try:
        yield
    finally:
        upload.rest()
        upload.busy.release()


async def _take(request: web.Request, upload: Upload) -> None:
    registry = state.of(request)
    await asyncio.to_thread(upload.open)
    span = request.headers.get("Content-Range")
    if span is not None:
        match = _RANGE.match(span.strip())
        if match is None:
            raise errors.upload_invalid(f"Content-Range {span[:100]!r} is not START-END")
        start, end = int(match[1]), int(match[2])
        length = request.content_length
        if start != upload.size or (length is not None and end - start + 1 != length):
            raise errors.range_invalid(f"the next chunk begins at {upload.size}", _progress(upload))
    if request.body_exists:
        await receive(request.content, upload, registry.limits.blob, registry.metrics)


async def _finish(request: web.Request, upload: Upload) -> web.Response:
    registry = state.of(request)
    digest = names.digest(request.query.get("digest", ""))
    await _take(request, upload)
    try:
        await asyncio.to_thread(_commit, registry, upload, digest)
    finally:
        # What does not match its digest can't be mended by more bytes: it goes in either case.
        await asyncio.to_thread(registry.storage.uploads.forget, upload)
    return _created(upload.repository, digest)


def _commit(registry: state.State, upload: Upload, digest: str) -> None:
    upload.verify(digest)
    with registry.storage.lock:
        registry.storage.blobs.adopt(upload, digest)


def _created(repository: str, digest: str) -> web.Response:
    location = f"/v2/{repository}/blobs/{digest}"
    return web.Response(status=201, headers={"Location": location, "Docker-Content-Digest": digest})


def _accepted(upload: Upload) -> web.Response:
    return web.Response(status=202, headers=_progress(upload))


def _progress(upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(upload.size - 1, 0)}",
        "Docker-Upload-UUID": upload.id,
    }
