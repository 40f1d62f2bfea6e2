"""What one build knows of earlier work: the engine's own results, and those that were shared with it."""

from __future__ import annotations

from collections.abc import Sequence

from engine.build.sharedcache import SharedCache
from engine.build.stepcache import Result, StepCache
from engine.errors import EngineError
from engine.images import digest as digests
from engine.images.image import Layer
from engine.images.leases import Lease
from engine.images.store import ImageStore
from engine.threads import to_the_end


class Recall:
    """Results by their keys, and the layers that belong to them. With `fresh` it remembers and never recalls."""

    def __init__(
        self, cache: StepCache, images: ImageStore, lease: Lease, shared: Sequence[SharedCache], *, fresh: bool
    ) -> None:
        self._cache = cache
        self._images = images
        self._lease = lease
        self._shared = () if fresh else shared
        self._fresh = fresh
        self._foreign: set[str] = set()
        self.results: dict[str, Result] = {}
        """What was found or made in this build."""

    def look_up(self, key: str) -> Result | None:
        if self._fresh:
            return None
        found = self._cache.get(key)
        if found is None:
            found = next((one.records[key] for one in self._shared if key in one.records), None)
            if found is not None:
                self._foreign.add(key)
        if found is not None:
            self.results[key] = found
        return found

    def keep(self, keys: tuple[str, ...], result: Result) -> None:
        """A result of this engine's own making."""
        self._cache.put(keys, result)
        self.results.update(dict.fromkeys(keys, result))

    def is_own(self, key: str) -> bool:
        """False for what only others claim: it holds for this build and is written down nowhere."""
        return key not in self._foreign

    async def layer(self, found: Result, parent: str) -> Layer | None:
        """The result's layer on top of the chain `parent`, safe from removal; None where it can't be had."""
        chain = digests.chain_id(parent or None, found.diff_id)
        self._lease.add(chain)
        layer = await to_the_end(lambda: self._here(chain))
        if layer is not None:
            return layer
        for cache in self._shared:
            try:
                layer = await cache.bring(self._images, found.diff_id, parent or None)
            except EngineError:
                continue  # to build it is always possible
            if layer is not None:
                return layer
        if chain == found.chain_id:
            self._cache.forget(chain)
        return None

    def _here(self, chain: str) -> Layer | None:
        return self._images.layer(chain) if self._images.layers.has(chain) else None
