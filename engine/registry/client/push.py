"""An image from the store to a registry: only what is missing there travels."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from engine.errors import Forbidden, InvalidInput, NotFound, Unauthorized
from engine.images import digest as digests
from engine.images import manifest as formats
from engine.images.descriptor import OCI_CONFIG, Descriptor
from engine.images.image import Image
from engine.images.manifest import Manifest
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.client import blobs, manifests
from engine.registry.client.auth import Auth
from engine.registry.client.packing import pack_and_send
from engine.registry.client.progress import Meter, Progress, ProgressEvent, listening, silent
from engine.registry.client.remote import Remote
from engine.registry.client.together import together
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
    known = await asyncio.to_thread(store.known_manifest, image.id)
    endpoint = await client.endpoint(reference.domain)
    remote = Remote(client, endpoint, reference.path, auth, actions="pull,push")
    try:
        with listening(progress):
            if known is not None and await manifests.head(remote, known[1].digest) is not None:
                for diff_id in dict.fromkeys(image.config.rootfs.diff_ids):
                    progress(ProgressEvent(digests.short(diff_id), "Layer already exists"))
                data, described = known
            else:
                data, described = await _bring(remote, store, image, known, progress)
            await manifests.put(remote, reference.tag, data, described.media_type)
    except (Unauthorized, Forbidden) as error:
        raise type(error)(f"denied: requested access to the resource {remote.name} is denied: {error}") from None
    for digest in (image.id, *(layer.digest for layer in _layers(data, described))):
        client.saw(endpoint.domain, reference.path, digest)
    await asyncio.to_thread(store.add_origin, image.id, reference, described.digest)
    return Pushed(described.digest, described.size)


def _layers(manifest: bytes, described: Descriptor) -> tuple[Descriptor, ...]:
    parsed = formats.parse(manifest, described.media_type)
    assert isinstance(parsed, Manifest)
    return parsed.layers


async def _bring(
    remote: Remote,
    store: ImageStore,
    image: Image,
    known: tuple[bytes, Descriptor] | None,
    progress: Progress,
) -> tuple[bytes, Descriptor]:
    """Brings everything but the manifest there, packing what is not packed; returns the manifest to publish."""
    with store.lease(image.id):
        packed: dict[str, Descriptor] = {}  # by what people are shown
        loose: list[tuple[str, str]] = []
        if known is not None:
            for layer, diff_id in zip(_layers(*known), image.config.rootfs.diff_ids, strict=True):
                packed[digests.short(diff_id)] = layer
        else:
            for chain, diff_id, blob in await asyncio.to_thread(store.packing, image.id):
                if blob is None:
                    loose.append((chain, diff_id))
                else:
                    packed[digests.short(diff_id)] = blob
        config = Descriptor(OCI_CONFIG, image.id, await asyncio.to_thread(store.blobs.size, image.id))
        remote.sources = _sources(remote, [config, *packed.values()])
        await _Push(remote, store, progress).all(config, packed, loose)
        return known if known is not None else await asyncio.to_thread(store.manifest_of, image.id)


def _sources(remote: Remote, wanted: Sequence[Descriptor]) -> list[str]:
    """Repositories of the same registry that are known to have some of the blobs."""
    domain = remote.endpoint.domain
    found: dict[str, None] = {}
    for blob in wanted:
        for name in remote.client.seen.get(blob.digest, {}):
            if name.startswith(f"{domain}/") and name != remote.name:
                found[name.removeprefix(f"{domain}/")] = None
    return list(found)[:_MOST_SOURCES]


class _Push:
    """The blobs of one push."""

    def __init__(self, remote: Remote, store: ImageStore, progress: Progress) -> None:
        self._remote = remote
        self._store = store
        self._progress = progress

    async def all(self, config: Descriptor, packed: dict[str, Descriptor], loose: list[tuple[str, str]]) -> None:
        """Sees to it that the repository has everything. The first failure ends the others."""
        for name in (*packed, *(digests.short(diff_id) for _, diff_id in loose)):
            self._progress(ProgressEvent(name, "Preparing"))
        gate = asyncio.Semaphore(self._remote.client.parallel)
        tasks = [self._blob(blob, gate, name, self._progress) for name, blob in packed.items()]
        tasks += [self._loose(chain, diff_id, gate) for chain, diff_id in loose]
        tasks.append(self._blob(config, gate, "", silent))
        await together([asyncio.create_task(task) for task in tasks])

    async def _loose(self, chain: str, diff_id: str, gate: asyncio.Semaphore) -> None:
        name = digests.short(diff_id)
        async with gate, self._alone(diff_id):
            blob, sent = await pack_and_send(self._remote, self._store, chain, diff_id, self._progress)
        if sent:
            self._progress(ProgressEvent(name, "Pushed"))
        else:
            await self._blob(blob, gate, name, self._progress)

    def _alone(self, digest: str) -> asyncio.Lock:
        """Two pushes that bring a repository the same at once would both send it; and some registries then show a
        blob that is there as half-written."""
        return _locks.setdefault((self._remote.name, digest), asyncio.Lock())

    async def _blob(self, blob: Descriptor, gate: asyncio.Semaphore, name: str, say: Progress) -> None:
        async with gate, self._alone(blob.digest):
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
