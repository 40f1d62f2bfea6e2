"""`docker load`: Docker archives (of every age) and OCI layouts, as a tar that may be compressed."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import msgspec

from engine.errors import EngineError, InvalidInput
from engine.images import digest as digests
from engine.images import manifest as manifests
from engine.images import tarstream
from engine.images.archive.save import IMAGE_NAME
from engine.images.compression import decompressed, sniff
from engine.images.config import MAX_CONFIG_BYTES, ImageConfig
from engine.images.descriptor import MALFORMED, REF_NAME, Descriptor, Platform
from engine.images.image import Image
from engine.images.leases import Lease
from engine.images.manifest import Index, Manifest
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.images.tarstream import TarReader

MAX_FILES = 20_000
_MAX_JSON = 4 << 20
_MAX_DEPTH = 4


class _DockerEntry(msgspec.Struct, rename="pascal"):
    """One line of a Docker archive's manifest.json."""

    config: str
    layers: list[str] | None = None
    repo_tags: list[str] | None = None


def load(store: ImageStore, stream: BinaryIO, *, platform: Platform | None = None) -> list[Image]:
    """Loads every image of an archive and its names: each has the `tags` that the archive gave it, and no others.

    Raises InvalidInput for what is no such archive.
    An image whose parts are damaged or missing is not added.
    """
    files: dict[str, str] = {}
    try:
        with store.lease() as lease:
            links = _read(store, stream, lease, files)
            archive = _Archive(store, files, links)
            if "manifest.json" in files:
                return list(archive.docker())
            if "index.json" in files:
                return list(archive.oci(platform))
    finally:
        store.drop_loose(list(files.values()))
    raise InvalidInput("archive has neither a manifest.json nor an index.json: it is no saved image")


def _read(store: ImageStore, stream: BinaryIO, lease: Lease, files: dict[str, str]) -> dict[str, str]:
    """Every file becomes a blob, noted in `files` by its name. Returns the target of each link by its name."""
    links: dict[str, str] = {}
    reader = TarReader(decompressed(stream))
    for entry in reader:
        name = posixpath.normpath("/" + entry.name.decode("utf-8", "replace"))[1:]
        if len(files) + len(links) > MAX_FILES:
            raise InvalidInput(f"archive with more than {MAX_FILES} files")
        if entry.type == tarstream.REGULAR and entry.sparse is None:
            parts = name.split("/")
            expected = None
            if len(parts) == 3 and parts[0] == "blobs" and digests.is_digest(f"{parts[1]}:{parts[2]}"):
                expected = f"{parts[1]}:{parts[2]}"
                lease.add(expected)
                if store.blobs.has(expected):
                    files[name] = expected
                    continue
            with store.blobs.writer(expected, entry.size) as writer:
                for _, piece in reader.content():
                    writer.write(piece)
                lease.add(writer.digest)
                files[name] = writer.commit()
        elif entry.type in (tarstream.SYMLINK, tarstream.LINK):
            target = entry.linkname.decode("utf-8", "replace")
            folder = posixpath.dirname(name) if entry.type == tarstream.SYMLINK else ""
            links[name] = posixpath.normpath(f"/{folder}/{target}")[1:]
    return links


class _Archive:
    def __init__(self, store: ImageStore, files: dict[str, str], links: dict[str, str]) -> None:
        self._store = store
        self._files = files
        self._links = links

    def docker(self) -> Iterator[Image]:
        """What manifest.json lists."""
        try:
            entries = msgspec.json.decode(self._json("manifest.json"), type=list[_DockerEntry])
        except MALFORMED as error:
            raise InvalidInput(f"archive's manifest.json is malformed: {error}") from None
        for entry in entries:
            config_digest = self._digest(entry.config)
            config = ImageConfig.decode(self._store.blobs.read(config_digest, MAX_CONFIG_BYTES))
            if len(entry.layers or ()) != len(config.rootfs.diff_ids):
                raise InvalidInput(f"archive's {entry.config} does not fit its layers")
            parent: str | None = None
            for name, diff_id in zip(entry.layers or (), config.rootfs.diff_ids, strict=True):
                parent = self._layer(self._digest(name), diff_id, parent)
            image = self._store.create_loaded(config_digest)
            tags = [Reference.parse(tag) for tag in entry.repo_tags or ()]
            for tag in tags:
                self._store.tag(image.id, tag)
            yield replace(self._store.get(image.id), tags=tuple(tag.familiar for tag in tags))

    def _layer(self, blob: str, diff_id: str, parent: str | None) -> str:
        """Plain tars are packed: an image that is pushed on should not grow."""
        with self._store.blobs.open(blob) as stream:
            plain = sniff(stream.read(16)) == "none"
        if plain:
            if blob != diff_id:
                raise InvalidInput(f"archive's layer {digests.short(diff_id)} is damaged: its digest differs")
            chain = digests.chain_id(parent, diff_id)
            if self._store.layers.tars.known(diff_id) is None:
                with self._store.blobs.open(blob) as stream:
                    self._store.layers.tars.repack(stream, diff_id)
            if not self._store.layers.has(chain):
                self._store.layers.import_blob(blob, diff_id, parent)
            return chain
        return self._store.import_layer(self._store.layers.tars.describe(blob), diff_id, parent).chain_id

    def oci(self, platform: Platform | None) -> Iterator[Image]:
        """What index.json lists: manifests, and for nested indexes the one for our platform."""
        index = manifests.parse(self._json("index.json"))
        if not isinstance(index, Index):
            raise InvalidInput("archive's index.json is no index")
        seen = False
        for entry in index.manifests:
            descriptor, data = self._manifest(entry, platform)
            manifest = manifests.parse(data, descriptor.media_type)
            if not isinstance(manifest, Manifest) or not manifest.is_image:
                continue
            seen = True
            name = _reference(entry)
            self._unpack(manifest)
            image = self._store.register_manifest(None, data, descriptor.media_type)
            if name is not None:
                self._store.tag(image.id, name)
            yield replace(self._store.get(image.id), tags=(name.familiar,) if name is not None else ())
        if not seen:
            raise InvalidInput("archive's index.json lists no container image")

    def _unpack(self, manifest: Manifest) -> None:
        config = ImageConfig.decode(self._store.blobs.read(manifest.config.digest, MAX_CONFIG_BYTES))
        if len(manifest.layers) != len(config.rootfs.diff_ids):
            raise InvalidInput(f"archive's manifest of {manifest.config.digest} does not fit its config")
        parent: str | None = None
        for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
            parent = self._store.import_layer(layer, diff_id, parent).chain_id

    def _manifest(self, entry: Descriptor, platform: Platform | None) -> tuple[Descriptor, bytes]:
        for _ in range(_MAX_DEPTH):
            data = self._store.blobs.read(entry.digest, manifests.MAX_MANIFEST_BYTES)
            parsed = manifests.parse(data, entry.media_type)
            if isinstance(parsed, Manifest):
                return entry, data
            entry = parsed.select(platform)
        raise InvalidInput("archive's indexes are nested too deeply")

    def _json(self, name: str) -> bytes:
        return self._store.blobs.read(self._digest(name), _MAX_JSON)

    def _digest(self, name: str) -> str:
        name = posixpath.normpath("/" + name)[1:]
        for _ in range(_MAX_DEPTH):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                break
            name = self._links[name]
        raise InvalidInput(f"archive has no {name[:200]!r}, which its manifest names")


def _reference(entry: Descriptor) -> Reference | None:
    """The name an index's entry has: containerd's annotation is a whole one, OCI's may be only a tag."""
    for key in (IMAGE_NAME, REF_NAME):
        value: Any = entry.annotations.get(key)
        if value and (key == IMAGE_NAME or "/" in value or ":" in value):
            try:
                return Reference.parse(value)
            except EngineError:
                continue
    return None
