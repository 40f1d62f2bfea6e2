"""An image from a registry into the store: its manifest, its config, and those layers that are not here yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

from engine.errors import EngineError, InvalidInput
from engine.images import digest as digests
from engine.images import manifest as formats
from engine.images.config import MAX_CONFIG_BYTES, ImageConfig
from engine.images.descriptor import LAYER_TYPES, Descriptor, Platform
from engine.images.image import Image
from engine.images.manifest import Index, Manifest
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.registry.client import blobs, manifests
from engine.registry.client.arrivals import Arrivals
from engine.registry.client.auth import Auth
from engine.registry.client.endpoint import Endpoint
from engine.registry.client.manifests import Fetched
from engine.registry.client.progress import Progress, ProgressEvent, listening, silent
from engine.registry.client.remote import Remote, first_answer
from engine.registry.client.together import together
from engine.registry.client.transport import RegistryClient

_MOST_INDEXES = 3
"""An index may name further indexes; one that never comes to an image is somebody's joke."""


async def pull(
    client: RegistryClient,
    reference: Reference,
    store: ImageStore,
    *,
    platform: Platform | str | None = None,
    auth: Auth | None = None,
    progress: Progress = silent,
) -> Image:
    """Brings an image here, verified and unpacked, and names it as `reference` does.

    Layers come side by side; those that arrived stay, whatever ends the pull. Mirrors are asked first, without
    `auth`, which is the registry's own. Raises NotFound, Unauthorized, Forbidden, Unavailable; InvalidInput for
    an image that is not what it says or has nothing for this platform.
    """
    if isinstance(platform, str):
        platform = Platform.parse(platform)

    def ask(remote: Remote) -> Awaitable[Image]:
        return _Pull(remote, reference, store, progress).run(platform)

    def failed(mirror: Endpoint, error: EngineError) -> None:
        progress(ProgressEvent(None, f"Mirror {mirror.domain} can't help: {error}"))

    with listening(progress):
        return await first_answer(client, reference, auth, ask, failed)


class _Pull:
    """One pull from one place."""

    def __init__(self, remote: Remote, reference: Reference, store: ImageStore, progress: Progress) -> None:
        self._remote = remote
        self._reference = reference
        self._store = store
        self._progress = progress

    async def run(self, platform: Platform | None) -> Image:
        wanted = self._reference.digest or self._reference.tag or "latest"
        top = await manifests.get(self._remote, wanted)
        fetched, manifest = await self._choose(top, platform)
        with self._store.lease(
            fetched.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)
        ) as lease:
            config = await self._config(manifest, platform)
            lease.add(*config.chain_ids)
            await self._layers(manifest, config)
            # The name's own digest, be it an index's, is what people pin.
            name = Reference(self._reference.domain, self._reference.path, self._reference.tag, top.digest)
            register = partial(self._store.register_manifest, name, fetched.data, fetched.media_type)
            image = await asyncio.to_thread(register)
        for digest in (manifest.config.digest, *(layer.digest for layer in manifest.layers)):
            self._remote.client.saw(self._remote.endpoint.domain, self._remote.path, digest)
        return image

    async def _choose(self, fetched: Fetched, platform: Platform | None) -> tuple[Fetched, Manifest]:
        """Follows indexes to the manifest for the platform."""
        for _ in range(_MOST_INDEXES):
            parsed = formats.parse(fetched.data, fetched.media_type)
            if isinstance(parsed, Manifest):
                return fetched, parsed
            chosen = self._select(parsed, platform)
            fetched = await manifests.get(self._remote, chosen.digest)
            if len(fetched.data) != chosen.size:
                raise InvalidInput(f"manifest {chosen.digest} has {len(fetched.data)} bytes instead of {chosen.size}")
        raise InvalidInput(f"{self._reference.familiar} is an index of indexes of indexes: no image was found in it")

    def _select(self, index: Index, platform: Platform | None) -> Descriptor:
        try:
            return index.select(platform)
        except InvalidInput as error:
            raise InvalidInput(f"{self._reference.familiar}: {error}") from None

    async def _config(self, manifest: Manifest, platform: Platform | None) -> ImageConfig:
        described = manifest.config
        if not manifest.is_image:
            raise InvalidInput(f"{self._reference.familiar} is no container image but {described.media_type[:200]}")
        if described.size > MAX_CONFIG_BYTES:
            raise InvalidInput(f"image config of {described.size} bytes: the most allowed is {MAX_CONFIG_BYTES}")
        await blobs.download(self._remote, described, self._store.blobs)
        config = await asyncio.to_thread(self._store.config, described.digest)
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise InvalidInput(
                f"{self._reference.familiar} has {len(manifest.layers)} layers, "
                f"and its config names {len(config.rootfs.diff_ids)}"
            )
        offered = Platform(config.architecture, config.os, config.variant)
        # Configs of old leave their variant out: then only the index knew it.
        asked = platform if platform is None or config.variant else Platform(platform.architecture, platform.os)
        if asked is not None and not asked.runs(offered):
            raise InvalidInput(f"{self._reference.familiar} is for {offered}, not for {platform} as asked")
        return config

    async def _layers(self, manifest: Manifest, config: ImageConfig) -> None:
        """All layers side by side: the first failure ends the others."""
        for layer in manifest.layers:
            if layer.media_type not in LAYER_TYPES:
                raise InvalidInput(f"{self._reference.familiar}: layer of unknown type {layer.media_type[:200]}")
        arrivals = Arrivals(self._remote, self._store, self._progress)
        tasks: list[asyncio.Task[None]] = []
        parent: str | None = None
        for layer, diff_id, chain in zip(manifest.layers, config.rootfs.diff_ids, config.chain_ids, strict=True):
            if not self._store.layers.has(chain):
                self._progress(ProgressEvent(digests.short(layer.digest), "Pulling fs layer"))
            below = tasks[-1] if tasks else None
            tasks.append(asyncio.create_task(arrivals.bring(layer, diff_id, parent, below)))
            parent = chain
        await together(tasks)
