"""`/v2/NAME/blobs/DIGEST` (OCI distribution-spec, "Pulling blobs", "Deleting Blobs")."""

from __future__ import annotations

import asyncio

from aiohttp import web

from engine.registry.server import contents, names, state

_FOREVER = "max-age=31536000"


async def get(request: web.Request) -> web.StreamResponse:
    """GET and HEAD, whole or in part."""
    registry, repository = state.of(request), state.repository(request)
    digest = names.digest(request.match_info["digest"])
    await registry.guard.require(request, repository, "pull")
    path = registry.storage.blobs.find(repository, digest)
    if request.method == "HEAD":
        # A client that learns that a blob is here won't send it: it must outlive the push.
        registry.storage.blobs.touch(repository, digest)
    headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest, "Cache-Control": _FOREVER}
    return await contents.send(request, path, digest, headers, registry.metrics.bytes.labels("out"))


async def delete(request: web.Request) -> web.Response:
    """This repository lets the blob go; its bytes go when nobody refers to them (collection)."""
    registry, repository = state.of(request), state.repository(request)
    digest = names.digest(request.match_info["digest"])
    await registry.guard.require(request, repository, "delete")
    registry.storage.require(repository)
    await asyncio.to_thread(registry.storage.blobs.unlink, repository, digest)
    return web.Response(status=202)
