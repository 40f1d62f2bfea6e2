"""`docker search` against a registry that offers it."""

from __future__ import annotations

import msgspec

from engine.errors import InvalidInput, NotFound, Unavailable
from engine.images.descriptor import MALFORMED
from engine.registry.client.auth import Auth
from engine.registry.client.transport import RegistryClient

_MOST_BYTES = 4 << 20
_HUB_INDEX = "index.docker.io"


class Found(msgspec.Struct, frozen=True):
    """A repository that was found; `name` is without the registry's domain."""

    name: str
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Answer(msgspec.Struct):
    results: list[Found] = []


async def search(
    client: RegistryClient, domain: str, term: str, *, limit: int = 25, auth: Auth | None = None
) -> list[Found]:
    """Repositories at `domain` whose names have to do with `term`, at most `limit` (1 to 100).

    Raises InvalidInput, Unauthorized, Unavailable; Unavailable too for a registry that can't be searched.
    """
    if not 1 <= limit <= 100:
        raise InvalidInput(f"limit {limit} is outside the range of [1, 100]")
    endpoint = await client.endpoint(_HUB_INDEX if domain == "docker.io" else domain)
    url = (endpoint.base / "v1/search").with_query({"q": term, "n": str(limit)})
    what = f"search at {domain}"
    try:
        reply = await client.fetch(endpoint, "GET", url, what=what, limit=_MOST_BYTES, auth=auth)
    except NotFound:
        raise Unavailable(f"{what}: this registry can't be searched") from None
    try:
        return msgspec.json.decode(reply.data, type=_Answer).results[:limit]
    except MALFORMED:
        raise Unavailable(f"{what}: the registry's answer makes no sense") from None
