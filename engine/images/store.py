"""The image store: names, images, layers and blobs of one engine.

    store = ImageStore(Path("/var/lib/shipway/engine/images"))
    image = store.get("busybox")
    lower = store.lowerdirs(image.id)

Every method may be called from any thread, and blocks: asyncio code goes through a thread. What one call does
to the catalogue it does whole or not at all: killing the engine at any moment leaves a store that works.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from engine.errors import InvalidInput, NotFound
from engine.images import digest as digests
from engine.images.blobs import BlobStore
from engine.images.catalog import Catalog, ImageRow
from engine.images.collect import Collector
from engine.images.config import MAX_CONFIG_BYTES, ImageConfig, RootFS
from engine.images.descriptor import Descriptor
from engine.images.history import history
from engine.images.image import Deleted, Image, ImageUser, Layer
from engine.images.layers import LayerStore
from engine.images.layout import Layout
from engine.images.leases import Lease
from engine.images.loans import Loans
from engine.images.reference import Reference
from engine.images.registered import Registered, check_layer_type
from engine.images.removal import Remover
from engine.images.reserve import Reserve
from engine.images.unpack import Limits

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})\Z")


class ImageStore:
    """Everything about images below `root`. `blobs` is an ordinary OCI layout's folder of blobs."""

    def __init__(self, root: Path, *, limits: Limits | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root
        self.blobs = BlobStore(root)
        self.catalog = Catalog(root / "images.db")
        self.layers = LayerStore(root, self.blobs, self.catalog, limits)
        self.users: Callable[[str], Sequence[ImageUser]] = lambda image_id: ()
        """Tells which containers use an image: whoever keeps containers sets it."""
        self._config = lru_cache(maxsize=512)(self._read_config)
        self.loans = Loans(self.layers, self.catalog)
        self._layout = Layout(root, self.catalog, self.blobs)
        self._reserve = Reserve(root / "reserve")
        self._remover = Remover(self)
        self._collector = Collector(self)
        self._registered = Registered(self, self._layout)

    def close(self) -> None:
        """Lets go of the files. What is on disk stays."""
        self.layers.close()
        self.catalog.close()

    # -- finding images

    def get(self, name_or_id: str) -> Image:
        """By name, by ID, or by the unambiguous start of an ID. Raises NotFound."""
        image, _ = self.resolve(name_or_id)
        return image

    def resolve(self, name_or_id: str) -> tuple[Image, Reference | None]:
        """The image, and the reference if it was found by name. Raises NotFound or InvalidInput."""
        match = _ID.match(name_or_id)
        if match and (len(match[1]) == 64 or name_or_id.startswith("sha256:")):
            return self._by_id(match[1], name_or_id), None
        reference = Reference.parse(name_or_id)
        found = self._by_reference(reference)
        if found is not None:
            return self._image(found), reference
        if match:
            return self._by_id(match[1], reference.familiar), None
        raise NotFound(f"No such image: {reference.familiar}")

    def _by_id(self, prefix: str, shown: str) -> Image:
        rows = self.catalog.ids_from(f"sha256:{prefix}")
        if len(rows) != 1:
            raise NotFound(f"No such image: {shown}")
        return self._image(rows[0])

    def _by_reference(self, reference: Reference) -> str | None:
        if reference.digest is not None:
            found = self.catalog.origin(reference.repository, reference.digest)
            if found is None and self.catalog.image(reference.digest) is not None:
                tags = self.catalog.tags(reference.digest)
                if any(Reference.parse(tag).repository == reference.repository for tag in tags):
                    found = reference.digest
            return found
        return self.catalog.tagged(str(reference))

    def list(self, *, all: bool = False) -> builtins.list[Image]:  # noqa: A002 - Docker's word for it
        """The images, the youngest first. Without `all`, not those that only others are built on."""
        inner = set() if all else self.catalog.parents()
        images = (self._image(row.id) for row in self.catalog.images())
        return [image for image in images if image.tags or image.digests or image.id not in inner]

    def _image(self, image_id: str) -> Image:
        with self.catalog.transaction():
            row = self.catalog.image(image_id)
            if row is None:
                raise NotFound(f"No such image: {image_id}")
            tags = self.catalog.tags(image_id)
            origins = self.catalog.origins(image_id)
        return Image(
            id=image_id,
            config=self.config(image_id),
            manifest=row.manifest,
            tags=tuple(Reference.parse(tag).familiar for tag in tags),
            digests=tuple(_familiar_digest(repository, digest) for repository, digest in origins),
            size=self._size(row),
            parent=row.parent,
            comment=row.comment,
        )

    def _size(self, row: ImageRow) -> int:
        """Pulled layers tell their size only once unpacked."""
        layers = [self.catalog.layer(chain) for chain in self.config(row.id).chain_ids]
        known = sum(layer.size for layer in layers if layer is not None)
        return known if None not in layers else max(known, row.size)

    def config(self, image_id: str) -> ImageConfig:
        """An image's config, by the image's ID. Raises NotFound."""
        return self._config(image_id)

    def _read_config(self, image_id: str) -> ImageConfig:
        return ImageConfig.decode(self.blobs.read(image_id, MAX_CONFIG_BYTES))

    def history(self, image: Image) -> builtins.list[dict[str, Any]]:
        """Docker's answer to `docker history`, the youngest step first."""
        return history(self, image)

    # -- names

    def tags_of(self, repository: Reference) -> builtins.list[Reference]:
        """The names of a repository's images, in the order of their tags."""
        known = (Reference.parse(tag) for tag, _ in self.catalog.all_tags())
        return [each for each in known if each.repository == repository.repository]

    def tag(self, image_id: str, ref: Reference) -> None:
        """Gives an image a name, taking it from whichever image had it. Raises NotFound, InvalidInput."""
        self._tag(image_id, ref)
        self._layout.refresh()

    def _tag(self, image_id: str, ref: Reference) -> None:
        if ref.tag is None:
            raise InvalidInput(f"{ref.familiar} can't be a tag: refusing to create a tag with a digest reference")
        with self.catalog.transaction():
            if self.catalog.image(image_id) is None:
                raise NotFound(f"No such image: {image_id}")
            self.catalog.set_tag(str(ref.with_tag(ref.tag)), image_id)

    def untag(self, ref: Reference) -> None:
        """Takes a name away and leaves the image. Raises NotFound."""
        if not self.catalog.delete_tag(str(ref)):
            raise NotFound(f"No such image: {ref.familiar}")
        self._layout.refresh()

    def remove(self, name_or_id: str, force: bool = False, prune: bool = True) -> builtins.list[Deleted]:
        """`docker rmi`: unnames, and removes what has no name left; with `prune` its unnamed parents too.

        Raises NotFound, and Conflict as long as containers or child images need it.
        """
        try:
            return self._reserve.spend(lambda: self._remover.remove(name_or_id, force=force, prune=prune))
        finally:
            self._layout.refresh()

    def prune(
        self, *, dangling: bool = True, keep: Callable[[Image], bool] | None = None
    ) -> tuple[builtins.list[Deleted], int]:
        """`docker image prune`: removes unused images (with `dangling`: only nameless ones) and loose bytes.

        `keep` says which to spare. Returns what went and how many bytes that freed.
        """
        try:
            return self._reserve.spend(lambda: self._remover.prune(dangling=dangling, keep=keep))
        finally:
            self._layout.refresh()

    def collect(self, *, grace: float = 3600) -> int:
        """Removes blobs and layers that nothing needs and that are older than `grace` seconds.

        Can run beside pulls and builds. Returns the bytes freed.
        """
        return self._reserve.spend(lambda: self._collector.sweep(grace))

    def held_by(self, image_id: str) -> builtins.list[str]:
        """The blobs and chains that an image needs, the topmost layer first."""
        needed = self._collector.needed_by(image_id)
        chains = [chain for chain in reversed(self.config(image_id).chain_ids) if chain in needed]
        return [*chains, *(needed - set(chains))]

    def drop_loose(self, targets: Sequence[str]) -> int:
        """Removes those of the blobs and chains that nothing needs any more. Returns the bytes freed."""
        return self._reserve.spend(lambda: self._collector.drop(list(targets))) if targets else 0

    def lease(self, *targets: str, seconds: float = 86400) -> Lease:
        """Keeps blobs, chains and images (by digest) while the `with` block runs, there yet or not.

        A killed engine's leases run out after `seconds`, so that a pull that is tried again finds its layers.
        """
        return Lease(self.catalog, targets, seconds)

    # -- layers

    @property
    def layers_root(self) -> Path:
        """The one folder that holds every unpacked layer."""
        return self.layers.root

    def lowerdirs(self, image_id: str) -> tuple[Path, ...]:
        """An overlay's lower folders for an image, topmost first; unpacks what is not unpacked yet."""
        config = self.config(image_id)
        chains = config.chain_ids
        if not chains:
            return (self.layers.empty,)
        self._unpack(config, chains)
        return self.layers.lowerdirs(chains[-1])

    def unpacked(self, image_id: str) -> tuple[Path, ...] | None:
        """As `lowerdirs` and at once, if everything is unpacked."""
        chains = self.config(image_id).chain_ids
        try:
            return self.layers.lowerdirs(chains[-1]) if chains else (self.layers.empty,)
        except NotFound:
            return None

    def _unpack(self, config: ImageConfig, chains: Sequence[str]) -> None:
        parent: str | None = None
        for chain, diff_id in zip(chains, config.rootfs.diff_ids, strict=True):
            if not self.layers.has(chain) or self.catalog.layer(chain) is None:
                blob = self.layers.tars.known(diff_id)
                if blob is None and self.catalog.loan(chain) is not None:
                    blob = self.layers.pack(chain)
                if blob is None:
                    raise NotFound(f"layer {diff_id} is missing: pull the image again")
                self.layers.import_blob(blob.digest, diff_id, parent)
            parent = chain

    def layers_of(self, image_id: str) -> tuple[Layer, ...]:
        """An image's layers, the lowest first, as far as they are known here."""
        layers = (self.layer(chain) for chain in self.config(image_id).chain_ids)
        return tuple(layer for layer in layers if layer is not None)

    def layer(self, chain_id: str) -> Layer | None:
        """A layer that was unpacked or made here, if it can still be had."""
        row = self.catalog.layer(chain_id)
        if row is None:
            return None
        if not self.layers.can_be_had(chain_id, row.diff_id):
            return None
        return Layer(chain_id, row.diff_id, row.size, self.layers.tars.known(row.diff_id))

    def layer_folder(self, chain_id: str) -> Path:
        """Where a layer's files are. Raises NotFound while it is not unpacked."""
        if not self.layers.has(chain_id):
            raise NotFound(f"No such layer: {chain_id}")
        return self.layers.folder(chain_id)

    def import_layer(self, blob: Descriptor | str, diff_id: str, parent_chain: str | None = None) -> Layer:
        """Unpacks a blob that is in `blobs` on top of `parent_chain`; of a bad one nothing is kept."""
        if isinstance(blob, Descriptor):
            check_layer_type(blob)
        return self.layers.import_blob(blob, diff_id, parent_chain)

    def add_layer_from_dir(
        self,
        parent_chain: str | None,
        directory: Path,
        *,
        id_shift: int = 0,
        donate: bool = True,
        compress: bool = False,
        clamp: int | None = None,
    ) -> Layer:
        """A build step's or a container's upper folder becomes a layer; see `LayerStore.add_folder`."""
        return self.layers.add_folder(
            parent_chain, directory, id_shift=id_shift, donate=donate, compress=compress, clamp=clamp
        )

    def lend_layer(
        self, parent_chain: str | None, directory: Path, *, id_shift: int = 0, clamp: int | None = None
    ) -> Layer:
        """A finished container's upper folder is a layer and stays where it is; see `loans`."""
        row = self.layers.measure(parent_chain, directory, id_shift=id_shift, clamp=clamp)
        if not self.layers.has(row.chain):
            self.loans.lend(row, directory, id_shift)
        return Layer(row.chain, row.diff_id, row.size, self.layers.tars.known(row.diff_id))

    def add_layer_from_tar(self, parent_chain: str | None, stream: BinaryIO) -> Layer:
        """A tar, compressed in whichever way, becomes a layer and a gzip blob. Raises InvalidInput."""
        diff_id, blob = self.layers.tars.repack(stream)
        return self.layers.import_blob(blob.digest, diff_id, parent_chain)

    # -- making images

    def create_image(
        self,
        config: ImageConfig,
        layers: Sequence[Layer | Descriptor],
        ref: Reference | None,
        *,
        parent: str | None = None,
        comment: str = "",
    ) -> Image:
        """A new image out of layers that are here.

        `layers` are the topmost ones or all; a config without diff IDs gets theirs. Raises InvalidInput when
        config and layers disagree, NotFound when a layer is missing.
        """
        config = self._complete(config, layers)
        data = config.encode()
        if len(data) > MAX_CONFIG_BYTES:
            raise InvalidInput(f"image config of {len(data)} bytes: the most allowed is {MAX_CONFIG_BYTES}")
        image_id = digests.sha256(data)
        with self.lease(image_id, *config.chain_ids):
            self.blobs.put(data)
            with self.catalog.transaction():
                for chain, diff_id in zip(config.chain_ids, config.rootfs.diff_ids, strict=True):
                    if not self.layers.can_be_had(chain, diff_id):
                        raise NotFound(f"No such layer: {diff_id}")
                self.catalog.add_image(image_id, None, parent, 0, comment)
                if ref is not None:
                    self._tag(image_id, ref)
            if ref is not None:
                self._layout.refresh()
        return self._image(image_id)

    def create_loaded(self, config_digest: str) -> Image:
        """An image whose config is a blob already, byte for byte, and whose layers are here."""
        config = self.config(config_digest)
        with self.catalog.transaction():
            for chain in config.chain_ids:
                if self.layer(chain) is None:
                    raise NotFound(f"No such layer: {chain}")
            self.catalog.add_image(config_digest, None, None, 0, "")
        return self._image(config_digest)

    def _complete(self, config: ImageConfig, layers: Sequence[Layer | Descriptor]) -> ImageConfig:
        diff_ids = []
        for layer in layers:
            if isinstance(layer, Layer):
                diff_ids.append(layer.diff_id)
            elif known := self.catalog.diff_ids_of(layer.digest):
                diff_ids.append(known[0])
            else:
                raise NotFound(f"No such layer: {layer.digest}")
        if not config.rootfs.diff_ids:
            return msgspec.structs.replace(config, rootfs=RootFS(tuple(diff_ids)))
        if diff_ids and config.rootfs.diff_ids[-len(diff_ids) :] != tuple(diff_ids):
            raise InvalidInput("the image config's diff IDs are not those of its layers")
        return config

    def register_manifest(self, ref: Reference | None, manifest_bytes: bytes, media_type: str | None = None) -> Image:
        """Makes an image out of a manifest whose config is in `blobs` and whose layers are unpacked already.

        `ref` names it: by tag, by digest, or both. Raises InvalidInput for a manifest that is no image's or
        does not fit its config, NotFound for what is missing.
        """
        return self._image(self._registered.register(ref, manifest_bytes, media_type))

    def add_origin(self, image_id: str, ref: Reference, digest: str) -> None:
        """Notes that the repository of `ref` has this image as `digest`: after a push."""
        self.catalog.add_origin(ref.repository, digests.validate(digest), image_id)

    def manifest_of(self, image: Image | str) -> tuple[bytes, Descriptor]:
        """The manifest to push, and its descriptor; packs layers that exist only as folders."""
        return self._registered.manifest_of(image if isinstance(image, str) else image.id)

    def known_manifest(self, image_id: str) -> tuple[bytes, Descriptor] | None:
        """The manifest and its descriptor if all of its layers are packed already. Raises NotFound."""
        return self._registered.known(image_id)

    def packing(self, image_id: str) -> builtins.list[tuple[str, str, Descriptor | None]]:
        """(chain, diff ID, blob if there is one) of each of an image's layers, each diff ID once."""
        config = self.config(image_id)
        pairs = dict(zip(config.rootfs.diff_ids, config.chain_ids, strict=True))
        return [(chain, diff_id, self.layers.tars.known(diff_id)) for diff_id, chain in pairs.items()]


def _familiar_digest(repository: str, digest: str) -> str:
    domain, _, path = repository.partition("/")
    return f"{Reference(domain, path).familiar_repository}@{digest}"
