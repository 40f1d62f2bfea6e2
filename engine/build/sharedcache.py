"""Step results that travel inside an image: what one host built, another need not build again.

Asked for with the build argument BUILDKIT_INLINE_CACHE=1, used with `--cache-from`. What such an image claims is
believed for the build that names it and for no other: it is never written to the engine's own cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.build.stepcache import Result
from engine.images.config import ImageConfig

ASKED_BY = "BUILDKIT_INLINE_CACHE"
_KEY = "dev.shipway.cache.v1"
_MAX_RECORDS = 10_000


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
