"""Images as registries have them: made out of manifests, and manifests of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import InvalidInput, NotFound
from engine.images import descriptor as types
from engine.images import digest as digests
from engine.images import manifest as manifests
from engine.images.descriptor import Descriptor
from engine.images.layout import Layout
from engine.images.manifest import Index, Manifest
from engine.images.reference import Reference

if TYPE_CHECKING:
    from engine.images.store import ImageStore

_AS_OCI = {
    types.DOCKER_LAYER: types.OCI_LAYER,
    types.DOCKER_LAYER_GZIP: types.OCI_LAYER_GZIP,
    types.DOCKER_LAYER_ZSTD: types.OCI_LAYER_ZSTD,
}


class Registered:
    def __init__(self, store: ImageStore, layout: Layout) -> None:
        self._store, self._layout = store, layout

    def register(self, ref: Reference | None, manifest_bytes: bytes, media_type: str | None) -> str:
        """See `ImageStore.register_manifest`. Returns the image's ID."""
        manifest = manifests.parse(manifest_bytes, media_type)
        if isinstance(manifest, Index):
            raise InvalidInput("an index is not an image: choose one of its manifests")
        self._check_image(manifest)
        digest = digests.sha256(manifest_bytes)
        image_id = manifest.config.digest
        with self._store.lease(digest, image_id, *(layer.digest for layer in manifest.layers)):
            self._store.blobs.put(manifest_bytes)
            size = sum(layer.size for layer in manifest.layers)
            with self._store.catalog.transaction():
                described = Descriptor(manifest.media_type, digest, len(manifest_bytes))
                self._store.catalog.add_image(image_id, described, None, size, "")
                if ref is not None:
                    self._name(ref, digest, image_id)
        self._layout.refresh()
        return image_id

    def _check_image(self, manifest: Manifest) -> None:
        if not manifest.is_image:
            raise InvalidInput(f"manifest of a {manifest.config.media_type}: it is no container image")
        config = self._store.config(manifest.config.digest)
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise InvalidInput(
                f"manifest has {len(manifest.layers)} layers, its config {len(config.rootfs.diff_ids)} diff IDs"
            )
        for layer, diff_id, chain in zip(manifest.layers, config.rootfs.diff_ids, config.chain_ids, strict=True):
            check_layer_type(layer)
            known = self._store.catalog.diff_ids_of(layer.digest)
            if known and diff_id not in known:
                raise InvalidInput(f"layer {layer.digest} unpacks to {known[0]}, its image's config says {diff_id}")
            if not self._store.layers.has(chain) and not (known and self._store.blobs.has(layer.digest)):
                raise NotFound(f"layer {layer.digest} is missing: pull the image again")

    def _name(self, ref: Reference, digest: str, image_id: str) -> None:
        self._store.catalog.add_origin(ref.repository, digest, image_id)
        if ref.digest is not None and ref.digest != digest:
            self._store.catalog.add_origin(ref.repository, ref.digest, image_id)  # the index it was chosen from
        if ref.tag is not None:
            self._store.catalog.set_tag(str(ref.with_tag(ref.tag)), image_id)

    def manifest_of(self, image_id: str) -> tuple[bytes, Descriptor]:
        """See `ImageStore.manifest_of`."""
        if (known := self.known(image_id)) is not None:
            return known
        config = self._store.config(image_id)
        pairs = zip(config.chain_ids, config.rootfs.diff_ids, strict=True)
        layers = tuple(self._packed(chain, diff_id) for chain, diff_id in pairs)
        manifest = Manifest(Descriptor(types.OCI_CONFIG, image_id, self._store.blobs.size(image_id)), layers)
        data = manifest.encode()
        described = Descriptor(manifest.media_type, self._store.blobs.put(data), len(data))
        self._store.catalog.set_manifest(image_id, described)
        self._layout.refresh()
        return data, described

    def known(self, image_id: str) -> tuple[bytes, Descriptor] | None:
        """See `ImageStore.known_manifest`."""
        row = self._store.catalog.image(image_id)
        if row is None:
            raise NotFound(f"No such image: {image_id}")
        if row.manifest is not None and self._store.blobs.has(row.manifest.digest):
            data = self._store.blobs.read(row.manifest.digest, manifests.MAX_MANIFEST_BYTES)
            parsed = manifests.parse(data, row.manifest.media_type)
            if isinstance(parsed, Manifest) and all(self._store.blobs.has(layer.digest) for layer in parsed.layers):
                return data, row.manifest
        return None

    def _packed(self, chain: str, diff_id: str) -> Descriptor:
        blob = self._store.layers.tars.known(diff_id) or self._store.layers.pack(chain)
        if blob.media_type in _AS_OCI:
            return Descriptor(_AS_OCI[blob.media_type], blob.digest, blob.size)
        return blob


def check_layer_type(layer: Descriptor) -> None:
    """Raises InvalidInput for what no image may be made of."""
    if layer.media_type not in types.LAYER_TYPES:
        foreign = "foreign" in layer.media_type or "nondistributable" in layer.media_type
        what = "a foreign layer, which must not be redistributed" if foreign else "a layer of unknown type"
        raise InvalidInput(f"image has {what}: {layer.media_type[:200]}")
