"""Step results that travel: what one host built, another need not build again.

They come inside of an image (asked for with the build argument BUILDKIT_INLINE_CACHE=1: the steps of its own
layers), or as a cache of their own in a registry (`registrycache`: the steps of all stages). What either claims is
believed for the build that names it and for no other: it is never written to the engine's own cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.build.stepcache import Result
from engine.images import digest as digests
from engine.images.config import ImageConfig
from engine.images.descriptor import MALFORMED, Descriptor
from engine.images.image import Layer
from engine.images.store import ImageStore
from engine.threads import to_the_end

ASKED_BY = "BUILDKIT_INLINE_CACHE"
_KEY = "dev.shipway.cache.v1"
_MAX_RECORDS = 10_000


@dataclass(frozen=True)
class SharedCache:
    """Results by their keys; `blobs` (by diff ID) that `download` brings into the store when one is needed."""

    records: Mapping[str, Result]
    blobs: Mapping[str, Descriptor] = field(default_factory=dict)
    download: Callable[[Descriptor], Awaitable[object]] | None = None

    async def bring(self, images: ImageStore, diff_id: str, parent: str | None) -> Layer | None:
        """The layer unpacked on top of `parent`; None where this cache does not have it. Raises EngineError."""
        blob = await to_the_end(lambda: images.layers.tars.known(diff_id))
        if blob is None:
            blob = self.blobs.get(diff_id)
            if blob is None or self.download is None:
                return None
            with images.lease(blob.digest):
                await self.download(blob)
                return await to_the_end(lambda: images.import_layer(blob, diff_id, parent))
        known = blob
        return await to_the_end(lambda: images.import_layer(known, diff_id, parent))


class _Record(msgspec.Struct, frozen=True, array_like=True):
    key: str
    layer: int  # how many of the image's layers lie up to and with the step's; -1 where it made none
    created: str


def embed(config: ImageConfig, results: Mapping[str, Result]) -> ImageConfig:
    """`config` with the results whose layers are the image's own."""
    heights = {chain: number for number, chain in enumerate(config.chain_ids)}
    records = [
        _Record(key, heights[result.chain_id] if result.chain_id else -1, result.created)
        for key, result in sorted(results.items())
        if not result.chain_id or result.chain_id in heights
    ]
    unknown: dict[str, Any] = {**config.unknown, _KEY: msgspec.to_builtins(records)}
    return msgspec.structs.replace(config, unknown=unknown)


def strip(config: ImageConfig) -> ImageConfig:
    """`config` without what its base's build has left in it."""
    if _KEY not in config.unknown:
        return config
    unknown = {key: value for key, value in config.unknown.items() if key != _KEY}
    return msgspec.structs.replace(config, unknown=unknown)


def extract(config: ImageConfig) -> dict[str, Result]:
    """The results that an image brings along; none where it brings nothing, or nothing that makes sense."""
    try:
        records = msgspec.convert(config.unknown.get(_KEY, []), list[_Record])
    except msgspec.ValidationError:
        return {}
    chains, diff_ids = config.chain_ids, config.rootfs.diff_ids
    found: dict[str, Result] = {}
    for record in records[:_MAX_RECORDS]:
        if record.layer == -1:
            found[record.key] = Result("", "", record.created)
        elif 0 <= record.layer < len(chains):
            found[record.key] = Result(chains[record.layer], diff_ids[record.layer], record.created)
    return found


class _Listed(msgspec.Struct, frozen=True, array_like=True):
    key: str
    chain_id: str
    diff_id: str
    created: str


class _Listing(msgspec.Struct, frozen=True):
    """A registry cache's config blob. `diff_ids` are those of the manifest's layers, in their order."""

    diff_ids: tuple[str, ...]
    records: tuple[_Listed, ...]
    version: int = 1


def write_listing(results: Mapping[str, Result], diff_ids: tuple[str, ...]) -> bytes:
    """The results as JSON: the same results give the same bytes."""
    records = tuple(
        _Listed(key, result.chain_id, result.diff_id, result.created) for key, result in sorted(results.items())
    )
    return msgspec.json.encode(_Listing(diff_ids, records))


def read_listing(data: bytes) -> tuple[dict[str, Result], tuple[str, ...]]:
    """What `write_listing` wrote: the results, and the layers' diff IDs; nothing where it makes no sense."""
    try:
        listing = msgspec.json.decode(data, type=_Listing)
    except MALFORMED:
        return {}, ()
    if listing.version != 1 or not all(map(digests.is_digest, listing.diff_ids)):
        return {}, ()
    known = set(listing.diff_ids)
    found = {
        record.key: Result(record.chain_id, record.diff_id, record.created)
        for record in listing.records[:_MAX_RECORDS]
        if (not record.chain_id and not record.diff_id) or (record.diff_id in known and record.chain_id)
    }
    return found, listing.diff_ids
