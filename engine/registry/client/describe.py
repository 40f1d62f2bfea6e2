"""What a registry has under a name, without bringing it here."""

from __future__ import annotations

from dataclasses import dataclass

from engine.images import manifest as formats
from engine.images.config import MAX_CONFIG_BYTES, ImageConfig
from engine.images.descriptor import Descriptor, Platform
from engine.images.manifest import Index
from engine.images.reference import Reference
from engine.registry.client import manifests
from engine.registry.client.auth import Auth
from engine.registry.client.remote import Remote, first_answer
from engine.registry.client.transport import RegistryClient


@dataclass(frozen=True)
class Described:
    """The manifest or index that the name stands for, and the platforms it is for."""

    descriptor: Descriptor
    platforms: tuple[Platform, ...]


async def describe(client: RegistryClient, reference: Reference, *, auth: Auth | None = None) -> Described:
    """Raises NotFound, Unauthorized, Forbidden, Unavailable; InvalidInput for bytes that are no manifest."""
    return await first_answer(client, reference, auth, lambda remote: _describe(remote, reference))


async def _describe(remote: Remote, reference: Reference) -> Described:
    fetched = await manifests.get(remote, reference.digest or reference.tag or "latest")
    parsed = formats.parse(fetched.data, fetched.media_type)
    descriptor = Descriptor(parsed.media_type, fetched.digest, len(fetched.data))
    if isinstance(parsed, Index):
        found = [entry.platform for entry in parsed.manifests if entry.platform is not None]
        return Described(descriptor, tuple(one for one in found if one.os != "unknown"))
    url = remote.url(f"blobs/{parsed.config.digest}")
    reply = await remote.fetch("GET", url, what=f"config of {remote.name}", limit=MAX_CONFIG_BYTES)
    return Described(descriptor, (ImageConfig.decode(reply.data).platform,))
