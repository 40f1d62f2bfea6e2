"""`docker save`: one tar that is an OCI layout and a Docker archive at the same time, as Docker's is since 25."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from engine.errors import InvalidInput
from engine.images import descriptor as types
from engine.images import manifest as manifests
from engine.images import tarstream
from engine.images.config import MAX_CONFIG_BYTES
from engine.images.descriptor import Descriptor
from engine.images.image import Image
from engine.images.manifest import Manifest
from engine.images.reference import Reference, names_one
from engine.images.store import ImageStore
from engine.images.tarwriter import TarWriter

IMAGE_NAME = "io.containerd.image.name"
_CHUNK = 1 << 20
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def save(
    store: ImageStore,
    names: Sequence[str],
    write: Callable[[bytes | bytearray | memoryview], object],
) -> list[Image]:
    """Writes the archive of the images that `names` name, and tells them. Raises NotFound before anything is written.

    The same images give the same bytes.
    """
    wanted: dict[str, tuple[Image, list[Reference]]] = {}
    for name in itertools.chain.from_iterable(_tagged(store, name) for name in names):
        image, reference = store.resolve(name)
        _, references = wanted.setdefault(image.id, (image, []))
        if reference is not None and reference.tag is not None and reference.digest is None:
            references.append(reference)
    with store.lease(*wanted) as lease:
        manifested = []
        for image, references in wanted.values():
            data, described = store.manifest_of(image)
            manifest = manifests.parse(data, described.media_type)
            assert isinstance(manifest, Manifest)
            lease.add(described.digest, *(layer.digest for layer in manifest.layers))
            manifested.append((references, data, described, manifest))
        _write(store, manifested, TarWriter(write))
    return [image for image, _ in wanted.values()]


def _tagged(store: ImageStore, name: str) -> list[str]:
    """All names of a repository that is given without a tag, as Docker saves them; else the name itself."""
    if names_one(name):
        return [name]
    try:
        repository = Reference.parse_repository(name)
    except InvalidInput:
        return [name]
    return [str(each) for each in store.tags_of(repository)] or [name]


def _write(
    store: ImageStore, images: list[tuple[list[Reference], bytes, Descriptor, Manifest]], tar: TarWriter
) -> None:
    for folder in (b"blobs/", b"blobs/sha256/"):
        tar.add(folder, tarstream.DIRECTORY, mode=0o755)
    written: set[str] = set()
    entries: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    for references, data, described, manifest in images:
        for blob in (manifest.config, *manifest.layers):
            if blob.digest not in written:
                written.add(blob.digest)
                _blob(store, tar, blob)
        if described.digest not in written:
            written.add(described.digest)
            tar.file(_name(described.digest), data)
        config = store.blobs.read(manifest.config.digest, MAX_CONFIG_BYTES)
        platform = msgspec.json.decode(config, type=dict[str, Any])
        line = msgspec.to_builtins(described)
        line["platform"] = {key: platform[key] for key in ("architecture", "os", "variant") if platform.get(key)}
        listed += [
            {**line, "annotations": {IMAGE_NAME: str(reference), types.REF_NAME: reference.tag}}
            for reference in references
        ] or [line]
        entries.append(
            {
                "Config": _name(manifest.config.digest).decode(),
                "RepoTags": [reference.familiar for reference in references] or None,
                "Layers": [_name(layer.digest).decode() for layer in manifest.layers],
            }
        )
    index = {"schemaVersion": 2, "mediaType": types.OCI_INDEX, "manifests": listed}
    tar.file(b"index.json", msgspec.json.encode(index))
    tar.file(b"manifest.json", msgspec.json.encode(entries))
    tar.file(b"oci-layout", _LAYOUT)
    tar.close()


def _blob(store: ImageStore, tar: TarWriter, blob: Descriptor) -> None:
    with store.blobs.open(blob.digest) as source:
        tar.add(_name(blob.digest), tarstream.REGULAR, mode=0o644, size=blob.size)
        left = blob.size
        while left and (data := source.read(min(left, _CHUNK))):
            tar.data(data)
            left -= len(data)
        tar.pad(blob.size)


def _name(digest: str) -> bytes:
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded}".encode()
