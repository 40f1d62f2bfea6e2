"""Tags, the catalogue and referrers, a page at a time (OCI distribution-spec, "Content Discovery")."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from engine.images.descriptor import OCI_INDEX
from engine.images.manifest import Index
from engine.registry.server import errors, names, state

_MOST = 10_000
_CATALOGUE_PAGE = 1000


async def tags(request: web.Request) -> web.Response:
    """`/v2/NAME/tags/list?n=&last=`."""
    registry, repository = state.of(request), state.repository(request)
    await registry.guard.require(request, repository, "pull")
    registry.storage.require(repository)
    found = await asyncio.to_thread(registry.storage.manifests.tags, repository)
    last = request.query.get("last")
    if last is not None:
        # Where `last` would stand, so that paging survives its deletion.
        found = [tag for tag in found if (tag.lower(), tag) > (last.lower(), last)]
    page, headers = _page(request, found, None)
    return _json({"name": repository, "tags": page}, headers)


async def catalogue(request: web.Request) -> web.Response:
    """`/v2/_catalog?n=&last=`: the repositories that this client may see."""
    registry = state.of(request)
    await registry.guard.login(request)
    found = await asyncio.to_thread(registry.storage.repositories)
    last = request.query.get("last")
    if last is not None:
        found = [name for name in found if name > last]
    found = await registry.guard.visible(request, found)
    page, headers = _page(request, found, _CATALOGUE_PAGE)
    return _json({"repositories": page}, headers)


async def referrers(request: web.Request) -> web.Response:
    """`/v2/NAME/referrers/DIGEST?artifactType=`: an index, empty when there are none."""
    registry, repository = state.of(request), state.repository(request)
    digest = names.digest(request.match_info["digest"])
    await registry.guard.require(request, repository, "pull")
    found = await asyncio.to_thread(registry.storage.manifests.referrers, repository, digest)
    headers = {}
    wanted = request.query.get("artifactType")
    if wanted:
        found = [entry for entry in found if entry.artifact_type == wanted]
        headers["OCI-Filters-Applied"] = "artifactType"
    return web.Response(body=Index(tuple(found)).encode(), content_type=OCI_INDEX, headers=headers)


def _page(request: web.Request, found: Sequence[str], default: int | None) -> tuple[Sequence[str], dict[str, str]]:
    text = request.query.get("n")
    if text is None:
        count = default if default is not None else len(found)
    elif text.isascii() and text.isdigit():
        count = min(int(text[:9]), _MOST)
    else:
        raise errors.RegistryError(400, "PAGINATION_NUMBER_INVALID", f"n must be a number, not {text[:50]!r}")
    page = found[:count]
    if not page or len(page) == len(found):
        return page, {}
    query = urlencode({"n": count, "last": page[-1]})
    return page, {"Link": f'<{request.path}?{query}>; rel="next"'}


def _json(value: object, headers: dict[str, str]) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", headers=headers)
