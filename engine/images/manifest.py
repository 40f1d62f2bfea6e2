"""Image manifests and indexes, in OCI's form and Docker's schema 2.

OCI image-spec, manifest.md and image-index.md; distribution's manifest-v2-2.md. Both have the same keys, only
the media types differ.
"""

from __future__ import annotations

import msgspec

from engine.errors import InvalidInput
from engine.images import descriptor as types
from engine.images.descriptor import Descriptor, Platform

MAX_MANIFEST_BYTES = 4 << 20
"""The least that registries must accept, and the most that we do."""
MAX_LAYERS = 512
MAX_INDEX_ENTRIES = 4096

_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)


class _Envelope(msgspec.Struct, rename="camel"):
    """The keys that tell manifests and indexes apart."""

    schema_version: int = 0
    media_type: str | None = None
    config: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()
    manifests: msgspec.Raw = msgspec.Raw()
    fs_layers: msgspec.Raw = msgspec.Raw()


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image: its config and its layers, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = types.OCI_MANIFEST
    annotations: dict[str, str] = {}
    subject: Descriptor | None = None
    artifact_type: str | None = None

    def encode(self) -> bytes:
        """The bytes to store: the same value always gives the same bytes."""
        keys: dict[str, object] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type is not None:
            keys["artifactType"] = self.artifact_type
        keys |= {"config": self.config, "layers": self.layers}
        if self.subject is not None:
            keys["subject"] = self.subject
        if self.annotations:
            keys["annotations"] = dict(sorted(self.annotations.items()))
        return msgspec.json.encode(keys)

    @property
    def is_image(self) -> bool:
        """False for other artifacts (signatures, charts, ...) that merely travel in a manifest."""
        return self.config.media_type in types.CONFIG_TYPES


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """Several manifests under one name, most often one a platform."""

    manifests: tuple[Descriptor, ...]
    media_type: str = types.OCI_INDEX
    annotations: dict[str, str] = {}
    subject: Descriptor | None = None
    artifact_type: str | None = None

    def encode(self) -> bytes:
        """The bytes to store: the same value always gives the same bytes."""
        keys: dict[str, object] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type is not None:
            keys["artifactType"] = self.artifact_type
        keys["manifests"] = self.manifests
        if self.subject is not None:
            keys["subject"] = self.subject
        if self.annotations:
            keys["annotations"] = dict(sorted(self.annotations.items()))
        return msgspec.json.encode(keys)

    def select(self, platform: Platform | None = None) -> Descriptor:
        """The entry to take for `platform` (ours when None), the most specific first. Raises InvalidInput.

        Entries without a platform are taken only when no other fits: they are old single images.
        """
        wanted = platform or Platform.host()
        fitting = [
            entry
            for entry in self.manifests
            if entry.platform is not None
            and entry.media_type in types.MANIFEST_TYPES | types.INDEX_TYPES
            and wanted.runs(entry.platform)
        ]
        if fitting:
            return max(fitting, key=lambda entry: (entry.platform and entry.platform.normal().variant) or "")
        bare = [e for e in self.manifests if e.platform is None and e.media_type in types.MANIFEST_TYPES]
        if bare:
            return bare[0]
        offered = sorted({str(entry.platform) for entry in self.manifests if entry.platform})
        raise InvalidInput(f"no matching manifest for {wanted}: the index offers {', '.join(offered) or 'nothing'}")


def parse(data: bytes, media_type: str | None = None) -> Manifest | Index:
    """Reads a manifest or an index. `media_type` is what a registry said it is, if anyone did.

    Raises InvalidInput for anything that is too big, malformed, of a type we don't know, or that claims to be
    of two types at once (CVE-2021-41190: a digest must mean one thing).
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidInput(f"manifest of {len(data)} bytes: the most allowed is {MAX_MANIFEST_BYTES}")
    media_type = media_type.partition(";")[0].strip().lower() if media_type else None
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except types.MALFORMED as error:
        raise InvalidInput(f"malformed manifest: {error}") from None
    if media_type in _SCHEMA1 or envelope.schema_version == 1 or bytes(envelope.fs_layers):
        raise InvalidInput(
            "manifest of schema 1, which is no longer supported: push the image again in schema 2 or OCI"
        )
    if envelope.schema_version != 2:
        raise InvalidInput(f"manifest of schema version {envelope.schema_version}: only 2 is known")
    if bytes(envelope.manifests) and (bytes(envelope.layers) or bytes(envelope.config)):
        raise InvalidInput("manifest has both layers and manifests: it is ambiguous")
    inner = envelope.media_type
    if media_type in (None, "", "application/json", "application/octet-stream", "text/plain"):
        media_type = inner or (types.OCI_INDEX if bytes(envelope.manifests) else types.OCI_MANIFEST)
    elif inner is not None and inner != media_type:
        raise InvalidInput(f"manifest says it is {inner!r}, and was sent as {media_type!r}")
    try:
        if media_type in types.INDEX_TYPES:
            return _parse_index(data, media_type)
        if media_type in types.MANIFEST_TYPES:
            return _parse_manifest(data, media_type)
    except types.MALFORMED as error:
        raise InvalidInput(f"malformed manifest: {error}") from None
    raise InvalidInput(f"unknown manifest type {media_type!r}")


def _parse_index(data: bytes, media_type: str) -> Index:
    index = msgspec.json.decode(data, type=Index)
    if len(index.manifests) > MAX_INDEX_ENTRIES:
        raise InvalidInput(f"index with {len(index.manifests)} entries: the most allowed is {MAX_INDEX_ENTRIES}")
    return msgspec.structs.replace(index, media_type=media_type)


def _parse_manifest(data: bytes, media_type: str) -> Manifest:
    manifest = msgspec.json.decode(data, type=Manifest)
    if len(manifest.layers) > MAX_LAYERS:
        raise InvalidInput(f"manifest with {len(manifest.layers)} layers: the most allowed is {MAX_LAYERS}")
    return msgspec.structs.replace(manifest, media_type=media_type)
