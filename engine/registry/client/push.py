"""An image from the store to a registry: only what is missing there travels."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from weakref import WeakValueDictionary

from engine.errors import Forbidden, InvalidInput, NotFound, Unauthorized
from engine.images import digest as digests
from engine.images import manifest as formats
from engine.images.descriptor import Descriptor
from engine.images.image import Image
from engine.images.manifest import Manifest
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.client import blobs, manifests
from engine.registry.client.auth import Auth
from engine.registry.client.progress import Meter, Progress, ProgressEvent, silent
from engine.registry.client.remote import Remote
from engine.registry.client.transport import RegistryClient

_MOST_SOURCES = 4
"""Repositories to ask a mount from: each one more widens what the token must allow."""
_locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()


@dataclass(frozen=True)
class Pushed:
    """The manifest that the registry has now; `size` in bytes."""

    digest: str
    size: int


async def push(
    client: RegistryClient,
    store: ImageStore,
    image: Image,
    reference: Reference,
    *,
    auth: Auth | None = None,
    progress: Progress = silent,
) -> Pushed:
    """Publishes an image under a tag. The manifest goes last, so that nobody ever sees half an image.

    Blobs that the repository has are left out, those of its neighbours are mounted, the others are uploaded side
    by side. Raises InvalidInput, NotFound, Unauthorized, Forbidden, Unavailable.
    """
    if reference.tag is None:
        raise InvalidInput(f"cannot push {reference.familiar} by digest: name a tag")
    data, described = await asyncio.to_thread(store.manifest_of, image)
    endpoint = await client.endpoint(reference.domain)
    remote = Remote(client, endpoint, reference.path, auth, actions="pull,push")
    parsed = formats.parse(data, described.media_type)
    assert isinstance(parsed, Manifest)
    wanted = {blob.digest: blob for blob in (*parsed.layers, parsed.config)}
    try:
        if await manifests.head(remote, described.digest) is None:
            remote.sources = _sources(client, remote, wanted)
            await _Push(remote, store, progress).blobs(list(wanted.values()), parsed.config.digest)
        else:
            for layer in parsed.layers:
                progress(ProgressEvent(digests.short(layer.digest), "Layer already exists"))
        await manifests.put(remote, reference.tag, data, described.media_type)
    except (Unauthorized, Forbidden) as error:
        raise type(error)(f"denied: requested access to the resource {remote.name} is denied: {error}") from None
    for digest in wanted:
        client.saw(endpoint.domain, reference.path, digest)
    await asyncio.to_thread(store.add_origin, image.id, reference, described.digest)
    return Pushed(described.digest, described.size)


def _sources(client: RegistryClient, remote: Remote, wanted: dict[str, Descriptor]) -> list[str]:
    """Repositories of the same registry that are known to have some of the blobs."""
    domain = remote.endpoint.domain
    found: dict[str, None] = {}
    for digest in wanted:
        for name in client.seen.get(digest, {}):
            if name.startswith(f"{domain}/") and name != remote.name:
                found[name.removeprefix(f"{domain}/")] = None
    return list(found)[:_MOST_SOURCES]


class _Push:
    """The blobs of one push."""

    def __init__(self, remote: Remote, store: ImageStore, progress: Progress) -> None:
        self._remote = remote
        self._store = store
        self._progress = progress

    async def blobs(self, wanted: list[Descriptor], config: str) -> None:
        """Sees to it that the repository has all of them. The first failure ends the others."""
        gate = asyncio.Semaphore(self._remote.client.parallel)
        for blob in wanted:
            if blob.digest != config:
                self._say(blob, "Preparing")
        tasks = [asyncio.create_task(self._blob(blob, gate, blob.digest == config)) for blob in wanted]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _blob(self, blob: Descriptor, gate: asyncio.Semaphore, quiet: bool) -> None:
        say: Progress = silent if quiet else self._progress
        name = digests.short(blob.digest)
        # Two pushes that bring a repository the same blob at once would both send it; and some registries then
        # show the first one's link half-written.
        lock = _locks.setdefault((self._remote.name, blob.digest), asyncio.Lock())
        async with gate, lock:
            if await blobs.exists(self._remote, blob):
                say(ProgressEvent(name, "Layer already exists"))
                return
            source = self._source(blob)
            begun = None
            if source is not None:
                begun = await blobs.mount(self._remote, blob, source)
                if begun is None:
                    say(ProgressEvent(name, f"Mounted from {source}"))
                    return
            if not self._store.blobs.has(blob.digest):
                raise NotFound(f"blob {blob.digest} is gone from the store: build or pull the image again")
            meter = Meter(say, name, "Pushing", blob.size)
            await blobs.upload(self._remote, blob, self._store.blobs.path(blob.digest), meter, begun)
            say(ProgressEvent(name, "Pushed"))

    def _source(self, blob: Descriptor) -> str | None:
        known = self._remote.client.seen.get(blob.digest, {})
        for source in self._remote.sources:
            if f"{self._remote.endpoint.domain}/{source}" in known:
                return source
        return None

    def _say(self, blob: Descriptor, status: str) -> None:
        self._progress(ProgressEvent(digests.short(blob.digest), status))
