"""Garbage collection: what can be reached from images and leases stays, the rest goes.

It runs beside pulls and builds. Their new bytes are younger than the grace time, or leased; the check and the
removal happen under the catalogue's lock, which whoever makes an image needs too.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InvalidInput, NotFound
from engine.images import manifest as manifests
from engine.images.manifest import Manifest

if TYPE_CHECKING:
    from engine.images.store import ImageStore


class Collector:
    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def needed(self) -> set[str]:
        """The digest of every blob, chain and image that is in use."""
        store = self._store
        needed = set(store.catalog.leased())
        for row in store.catalog.images():
            needed |= self.needed_by(row.id)
        for image in [target for target in needed if store.catalog.image(target)]:
            needed |= self.needed_by(image)
        for chain in list(needed):  # a leased chain stands on its parents
            while (layer := store.catalog.layer(chain)) is not None:
                needed |= {chain, *(tar.digest for tar in store.catalog.tars(layer.diff_id))}
                if layer.parent is None or layer.parent in needed:
                    break
                chain = layer.parent
        return needed

    def needed_by(self, image_id: str) -> set[str]:
        """What one image holds on to."""
        store = self._store
        needed = {image_id}
        row = store.catalog.image(image_id)
        if row is None:
            return needed
        with contextlib.suppress(NotFound, InvalidInput):
            config = store.config(image_id)
            needed.update(config.chain_ids)
            for diff_id in config.rootfs.diff_ids:
                needed.update(tar.digest for tar in store.catalog.tars(diff_id))
        if row.manifest is not None:
            needed.add(row.manifest.digest)
            with contextlib.suppress(NotFound, InvalidInput):
                data = store.blobs.read(row.manifest.digest, manifests.MAX_MANIFEST_BYTES)
                manifest = manifests.parse(data, row.manifest.media_type)
                if isinstance(manifest, Manifest):
                    needed.update(layer.digest for layer in manifest.layers)
        return needed

    def sweep(self, grace: float) -> int:
        """Removes all that is not needed and older than `grace` seconds. Returns the bytes freed."""
        store = self._store
        before = time.time() - grace
        freed = store.blobs.clean(before)
        candidates = [blob for blob in store.blobs if _older(store.blobs.path(blob), before)]
        freed += self.drop([*candidates, *store.catalog.layers(before)])
        known = {store.layers.folder(chain) for chain in store.catalog.layers()}
        for folder in list(store.layers.folders()):
            if folder not in known and _older(folder, before):
                store.layers.discard_folder(folder)
        return freed

    def drop(self, targets: list[str]) -> int:
        """Removes those of the blobs and chains that are not needed. Returns the bytes freed."""
        store = self._store
        freed = 0
        chains: list[str] = []
        with store.catalog.transaction():
            needed = self.needed()
            for target in targets:
                if target in needed:
                    continue
                if store.catalog.layer(target) is not None:
                    chains.append(target)
                if size := store.blobs.delete(target):
                    freed += size
                    store.catalog.forget_tar(target)
            folders = [store.layers.detach(chain) for chain in chains]
        # The slow part needs no lock: the folders have left their places.
        for size, folder in folders:
            freed += size
            store.layers.discard(folder)
        return freed


def _older(path: Path, before: float) -> bool:
    """By the last change of any kind: modification times may come from a tar."""
    try:
        return path.stat().st_ctime < before
    except FileNotFoundError:
        return True
