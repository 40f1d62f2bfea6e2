"""A build cache in a registry: every step's result with its layer, under a name of its own.

A manifest whose config is the listing of results and whose layers are the steps' layers, so that any registry keeps
it, and mounts of blobs, garbage collection and rights work as for images.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from engine.build.sharedcache import SharedCache, extract, read_listing, write_listing
from engine.build.stepcache import Result
from engine.errors import EngineError, InvalidInput, NotFound
from engine.images import descriptor as types
from engine.images import digest as digests
from engine.images import manifest as formats
from engine.images.config import MAX_CONFIG_BYTES, ImageConfig
from engine.images.descriptor import Descriptor, Platform
from engine.images.manifest import Index, Manifest
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.client import Auth, RegistryClient, blobs, manifests
from engine.registry.client.remote import Remote
from engine.threads import to_the_end

LISTING = "application/vnd.shipway.buildcache.v1+json"
_MOST_LAYERS = 500  # what manifests may have


class RegistryCaches:
    """The caches in registries, as one client of the engine may use them. `auths` by the registry's domain."""

    def __init__(self, client: RegistryClient, images: ImageStore, auths: Mapping[str, Auth]) -> None:
        self._client = client
        self._images = images
        self._auths = auths
        self._fetched: dict[str, SharedCache] = {}

    async def fetch(self, name: str) -> SharedCache:
        """What `name` has: a cache, or an image that carries one. Layers come when they are needed.

        Raises NotFound, Unauthorized, Forbidden, Unavailable, InvalidInput.
        """
        reference = Reference.parse(name)
        remote = await self._remote(reference, "pull")
        manifest = await self._manifest(remote, reference)
        if manifest.config.size > MAX_CONFIG_BYTES:
            raise InvalidInput(f"{name}: a listing of {manifest.config.size} bytes is larger than {MAX_CONFIG_BYTES}")
        with self._images.lease(manifest.config.digest):
            await blobs.download(remote, manifest.config, self._images.blobs)
            data = await to_the_end(lambda: self._images.blobs.read(manifest.config.digest, MAX_CONFIG_BYTES))
        if manifest.config.media_type == LISTING:
            records, diff_ids = read_listing(data)
        elif manifest.is_image:
            config = ImageConfig.decode(data)
            records, diff_ids = extract(config), config.rootfs.diff_ids
        else:
            raise InvalidInput(f"{name} is neither a build cache nor an image but {manifest.config.media_type[:200]}")
        by_diff_id = dict(zip(diff_ids, manifest.layers, strict=False))
        cache = SharedCache(records, by_diff_id, partial(blobs.download, remote, store=self._images.blobs))
        self._fetched[str(reference)] = cache
        return cache

    async def publish(self, name: str, results: Mapping[str, Result]) -> None:
        """Puts the results under `name`, beside those that `fetch` found there. The manifest goes last.

        Raises Unauthorized, Forbidden, Unavailable, InvalidInput.
        """
        reference = Reference.parse(name)
        if reference.digest is not None:
            raise InvalidInput(f"cannot publish a build cache as {reference.familiar}: name a tag")
        earlier = self._fetched.get(str(reference))
        if earlier is None:
            try:
                earlier = await self.fetch(name)
            except EngineError:
                earlier = SharedCache({})  # nothing there, or nothing that is worth keeping
        layers = await self._layers(results, earlier)
        kept = {
            key: result
            for key, result in {**earlier.records, **results}.items()
            if not result.diff_id or result.diff_id in layers
        }
        listing = write_listing(kept, tuple(layers))
        config = Descriptor(LISTING, digests.sha256(listing), len(listing))
        manifest = Manifest(config, tuple(layers.values()), artifact_type=LISTING)
        remote = await self._remote(reference, "pull,push")
        with self._images.lease(config.digest, *(layer.digest for layer in layers.values())):
            await to_the_end(lambda: self._images.blobs.put(listing))
            gate = asyncio.Semaphore(self._client.parallel)
            wanted = {blob.digest: blob for blob in (*layers.values(), config)}
            tasks = [asyncio.create_task(self._send(remote, blob, gate)) for blob in wanted.values()]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await manifests.put(remote, reference.tag or "latest", manifest.encode(), types.OCI_MANIFEST)

    async def _layers(self, results: Mapping[str, Result], earlier: SharedCache) -> dict[str, Descriptor]:
        """The blob of each result's layer, by diff ID, this build's first; those that can't be had are left out."""
        found: dict[str, Descriptor] = {}
        for result in results.values():
            if result.chain_id and result.diff_id not in found and len(found) < _MOST_LAYERS:
                try:
                    chain = result.chain_id
                    found[result.diff_id] = await to_the_end(partial(self._images.layers.pack, chain))
                except NotFound:
                    known = earlier.blobs.get(result.diff_id)
                    if known is not None:
                        found[result.diff_id] = known
        for diff_id, blob in earlier.blobs.items():
            if len(found) < _MOST_LAYERS:
                found.setdefault(diff_id, blob)
        return found

    async def _send(self, remote: Remote, blob: Descriptor, gate: asyncio.Semaphore) -> None:
        async with gate:
            if await blobs.exists(remote, blob):
                return
            if not self._images.blobs.has(blob.digest):
                raise NotFound(f"blob {blob.digest} is in neither the store nor the cache")
            await blobs.upload(remote, blob, self._images.blobs.path(blob.digest))

    async def _remote(self, reference: Reference, actions: str) -> Remote:
        endpoint = await self._client.endpoint(reference.domain)
        return Remote(self._client, endpoint, reference.path, self._auths.get(reference.domain), actions)

    async def _manifest(self, remote: Remote, reference: Reference) -> Manifest:
        fetched = await manifests.get(remote, reference.digest or reference.tag or "latest")
        parsed = formats.parse(fetched.data, fetched.media_type)
        if isinstance(parsed, Index):
            chosen = parsed.select(Platform.host())
            fetched = await manifests.get(remote, chosen.digest)
            parsed = formats.parse(fetched.data, fetched.media_type)
        if not isinstance(parsed, Manifest):
            raise InvalidInput(f"{reference.familiar} is an index of indexes")
        return parsed
