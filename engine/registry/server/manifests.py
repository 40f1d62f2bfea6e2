"""`/v2/NAME/manifests/REFERENCE` (OCI distribution-spec, "Pulling manifests", "Pushing Manifests")."""

from __future__ import annotations

import asyncio

from aiohttp import web

from engine.registry.server import errors, names, state
from engine.registry.server.receive import read_bounded


async def get(request: web.Request) -> web.StreamResponse:
    """GET and HEAD, by tag or digest."""
    registry, repository = state.of(request), state.repository(request)
    reference = _reference(request)
    await registry.guard.require(request, repository, "pull")
    stored = registry.storage.manifests.find(repository, reference)
    etag = f'"{stored.digest}"'
    headers = {"Docker-Content-Digest": stored.digest, "ETag": etag}
    if request.headers.get("If-None-Match") in (etag, stored.digest):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = stored.media_type
    registry.storage.manifests.touch(repository, stored.digest)
    try:
        if request.method == "HEAD":
            headers["Content-Length"] = str(stored.path.stat().st_size)
            return web.Response(headers=headers)
        return web.Response(body=stored.path.read_bytes(), headers=headers)
    except FileNotFoundError:
        raise errors.manifest_unknown(reference) from None


async def put(request: web.Request) -> web.Response:
    """PUT: everything that it refers to must be there; then it appears, whole, under digest and tag."""
    registry, repository = state.of(request), state.repository(request)
    reference = _reference(request)
    await registry.guard.require(request, repository, "pull", "push")
    limit = registry.limits.manifest
    data = await read_bounded(request, limit, errors.manifest_too_big(limit))
    media_type = request.headers.get("Content-Type")
    stored, subject = await asyncio.to_thread(registry.storage.manifests.put, repository, reference, data, media_type)
    headers = {
        "Location": f"/v2/{repository}/manifests/{stored.digest}",
        "Docker-Content-Digest": stored.digest,
    }
    if subject is not None:
        headers["OCI-Subject"] = subject
    return web.Response(status=201, headers=headers)


async def delete(request: web.Request) -> web.Response:
    """DELETE: a tag alone, or a manifest with all its tags, unless a release or a run holds it."""
    registry, repository = state.of(request), state.repository(request)
    reference = _reference(request)
    await registry.guard.require(request, repository, "delete")
    registry.storage.require(repository)
    await asyncio.to_thread(_delete, registry, repository, reference)
    return web.Response(status=202)


def _delete(registry: state.State, repository: str, reference: str) -> None:
    if ":" not in reference:
        registry.storage.manifests.untag(repository, reference)
        return
    holder = registry.storage.holds.holder_of(reference)
    if holder is not None:
        raise errors.denied(f"{reference} is held by {holder}: let it go there first")
    registry.storage.manifests.delete(repository, reference)


def _reference(request: web.Request) -> str:
    text = request.match_info["reference"]
    return names.digest(text) if ":" in text else names.tag(text)
