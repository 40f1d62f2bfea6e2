"""Manifests in and out, their digests checked."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import Forbidden, InvalidInput, NotFound, Unauthorized
from engine.images import digest as digests
from engine.images.descriptor import ACCEPTED_MANIFESTS
from engine.images.manifest import MAX_MANIFEST_BYTES
from engine.registry.client.remote import Remote

_ACCEPT = {"Accept": ", ".join(ACCEPTED_MANIFESTS)}


@dataclass(frozen=True)
class Fetched:
    """The bytes of a manifest or an index, as the registry has them."""

    data: bytes
    media_type: str | None
    digest: str


async def get(remote: Remote, reference: str) -> Fetched:
    """By tag or digest. Raises NotFound, Unauthorized, Forbidden, Unavailable; InvalidInput for wrong bytes."""
    what = f"manifest of {_shown(remote, reference)}"
    try:
        reply = await remote.fetch(
            "GET", remote.url(f"manifests/{reference}"), what=what, limit=MAX_MANIFEST_BYTES, headers=_ACCEPT
        )
    except (Unauthorized, Forbidden) as error:
        raise type(error)(
            f"pull access denied for {remote.name}, repository does not exist or may require 'docker login': {error}"
        ) from None
    except NotFound as error:
        raise NotFound(f"manifest for {_shown(remote, reference)} not found: {error}") from None
    announced = reply.header("Docker-Content-Digest")
    wanted = reference if ":" in reference else announced
    if not digests.is_digest(wanted):
        wanted = ""
    hasher = digests.hasher(wanted or "sha256")
    hasher.update(reply.data)
    found = f"{(wanted or 'sha256').partition(':')[0]}:{hasher.hexdigest()}"
    if wanted and found != wanted:
        raise InvalidInput(f"{what}: the registry sent bytes that hash to {found} instead of {wanted}")
    return Fetched(reply.data, reply.header("Content-Type") or None, found)


async def head(remote: Remote, reference: str) -> str | None:
    """The digest that a tag names now; None when there is none, or the registry does not tell."""
    what = f"manifest of {_shown(remote, reference)}"
    reply = await remote.fetch("HEAD", remote.url(f"manifests/{reference}"), what=what, headers=_ACCEPT, allow=(404,))
    digest = reply.header("Docker-Content-Digest")
    return digest if reply.status == 200 and digests.is_digest(digest) else None


async def put(remote: Remote, reference: str, data: bytes, media_type: str) -> str:
    """Publishes a manifest under a tag or its digest; returns the digest."""
    digest = digests.sha256(data)
    what = f"manifest of {_shown(remote, reference)}"
    reply = await remote.fetch(
        "PUT",
        remote.url(f"manifests/{reference}"),
        what=what,
        headers={"Content-Type": media_type},
        body=lambda: data,
    )
    announced = reply.header("Docker-Content-Digest")
    if digests.is_digest(announced) and announced.startswith("sha256:") and announced != digest:
        raise InvalidInput(f"{what}: the registry stored {announced} instead of {digest}")
    return digest


def _shown(remote: Remote, reference: str) -> str:
    return f"{remote.name}{'@' if ':' in reference else ':'}{reference}"
