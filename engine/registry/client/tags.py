"""The tags of a repository."""

from __future__ import annotations

import msgspec

from engine.errors import InvalidInput
from engine.images.descriptor import MALFORMED
from engine.images.reference import Reference
from engine.registry.client.auth import Auth
from engine.registry.client.remote import Remote, first_answer
from engine.registry.client.transport import RegistryClient

_PAGE = 1000
_MOST = 100_000


class _Page(msgspec.Struct):
    tags: list[str] | None = None


async def list_tags(client: RegistryClient, reference: Reference, *, auth: Auth | None = None) -> list[str]:
    """All of them, page by page. Raises NotFound, Unauthorized, Forbidden, Unavailable; InvalidInput for nonsense."""
    return await first_answer(client, reference, auth, _list)


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
