"""The tags of a repository."""

from __future__ import annotations

import contextlib

import msgspec

from engine.errors import InvalidInput, NotFound, Unavailable
from engine.images.descriptor import MALFORMED
from engine.images.reference import Reference
from engine.registry.client.auth import Auth
from engine.registry.client.remote import Remote
from engine.registry.client.transport import RegistryClient

_PAGE = 1000
_MOST = 100_000


class _Page(msgspec.Struct):
    tags: list[str] | None = None


async def list_tags(client: RegistryClient, reference: Reference, *, auth: Auth | None = None) -> list[str]:
    """All of them, page by page. Raises NotFound, Unauthorized, Forbidden, Unavailable; InvalidInput for nonsense."""
    *mirrors, origin = await client.endpoints_for(reference.domain, mirrored=True)
    for mirror in mirrors:
        with contextlib.suppress(NotFound, Unavailable):
            return await _list(Remote(client, mirror, reference.path))
    return await _list(Remote(client, origin, reference.path, auth))


async def _list(remote: Remote) -> list[str]:
    found: list[str] = []
    while len(found) < _MOST:
        url = remote.url("tags/list").update_query({"n": str(_PAGE), **({"last": found[-1]} if found else {})})
        reply = await remote.fetch("GET", url, what=f"tags of {remote.name}", limit=8 << 20)
        try:
            page = msgspec.json.decode(reply.data, type=_Page).tags or []
        except MALFORMED as error:
            raise InvalidInput(f"tags of {remote.name}: the registry sent no list: {error}") from None
        known = set(found)
        fresh = [tag for tag in page if tag not in known]
        found += fresh
        if not fresh or not reply.header("Link"):
            break
    return found
