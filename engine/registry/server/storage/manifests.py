"""Manifests, the tags that name them, and the referrers of each subject."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.errors import InvalidInput
from engine.images import descriptor as types
from engine.images import digest as digests
from engine.images import manifest as manifests
from engine.images.descriptor import Descriptor
from engine.images.manifest import Index, Manifest
from engine.registry.server import errors
from engine.registry.server.storage import files
from engine.registry.server.storage.blobs import Blobs
from engine.registry.server.storage.layout import Layout, digests_in

_TOUCH_SECONDS = 60.0


@dataclass(frozen=True)
class StoredManifest:
    """A manifest on disk."""

    digest: str
    media_type: str
    path: Path


class Manifests:
    """`lock` is held while links appear or go, so that what a manifest refers to can't vanish under it."""

    def __init__(self, layout: Layout, blobs: Blobs, lock: threading.RLock) -> None:
        self._layout = layout
        self._blobs = blobs
        self._lock = lock

    def find(self, repository: str, reference: str) -> StoredManifest:
        """By tag or digest. Raises NAME_UNKNOWN or MANIFEST_UNKNOWN."""
        digest: str | None = reference
        if ":" not in reference:
            digest = files.read_text(self._layout.tags(repository) / reference)
        media_type = files.read_text(self._layout.manifest(repository, digest)) if digest else None
        if digest is None or media_type is None:
            if not (self._layout.repository(repository) / "_manifests").is_dir():
                raise errors.name_unknown(repository)
            raise errors.manifest_unknown(reference)
        return StoredManifest(digest, media_type, self._layout.blob(digest))

    def put(
        self, repository: str, reference: str, data: bytes, media_type: str | None
    ) -> tuple[StoredManifest, str | None]:
        """Stores a manifest, under its digest and, when `reference` is one, a tag. Returns its subject too.

        Everything that it refers to must be there already, except its subject (spec, "Pushing Manifests").
        """
        try:
            manifest = manifests.parse(data, media_type)
        except InvalidInput as error:
            raise errors.manifest_invalid(str(error)) from None
        digest = digests.sha256(data)
        if ":" in reference and reference != digest:
            hasher = digests.hasher(reference)
            hasher.update(data)
            digest = f"{reference.partition(':')[0]}:{hasher.hexdigest()}"
            if reference != digest:
                raise errors.digest_invalid(f"the manifest is {digest}, not {reference}")
        with self._lock:
            self._check_parts(repository, manifest)
            self._blobs.put(digest, data)
            if manifest.subject is not None:
                self._add_referrer(repository, digest, len(data), manifest)
            link = self._layout.manifest(repository, digest)
            if files.read_text(link) != manifest.media_type:
                files.write_atomic(link, manifest.media_type.encode(), self._layout.repositories)
            else:
                self.touch(repository, digest)
            if ":" not in reference:
                self._leave(repository, reference)
                files.write_atomic(
                    self._layout.tags(repository) / reference, digest.encode(), self._layout.repositories
                )
        subject = manifest.subject.digest if manifest.subject is not None else None
        return StoredManifest(digest, manifest.media_type, self._layout.blob(digest)), subject

    def touch(self, repository: str, digest: str) -> None:
        """Says that somebody relies on this manifest now: collection leaves it for a while. Cheap when repeated."""
        link = self._layout.manifest(repository, digest)
        with contextlib.suppress(FileNotFoundError):
            if time.time() - link.stat().st_mtime > _TOUCH_SECONDS:
                os.utime(link)

    def _leave(self, repository: str, tag: str) -> None:
        """What a tag has named until now may be in somebody's hands still."""
        digest = self.tagged(repository, tag)
        if digest is not None and digests.is_digest(digest):
            self.touch(repository, digest)

    def _check_parts(self, repository: str, manifest: Manifest | Index) -> None:
        if isinstance(manifest, Index):
            for entry in manifest.manifests:
                if not self._layout.manifest(repository, entry.digest).exists():
                    raise errors.manifest_blob_unknown(entry.digest)
            return
        for part in (manifest.config, *manifest.layers):
            if part.urls:
                continue  # kept elsewhere by its owner's wish
            if not self._blobs.has(repository, part.digest):
                raise errors.manifest_blob_unknown(part.digest)
            if self._layout.blob(part.digest).stat().st_size != part.size:
                raise errors.manifest_invalid(f"{part.digest} has another size than the manifest says")

    def _add_referrer(self, repository: str, digest: str, size: int, manifest: Manifest | Index) -> None:
        assert manifest.subject is not None
        kind = manifest.artifact_type
        if kind is None and isinstance(manifest, Manifest):
            kind = manifest.config.media_type
        entry = Descriptor(manifest.media_type, digest, size, annotations=manifest.annotations, artifact_type=kind)
        path = self._layout.referrers(repository, manifest.subject.digest) / digest.replace(":", "-")
        files.write_atomic(path, msgspec.json.encode(entry), self._layout.repositories)

    def referrers(self, repository: str, subject: str) -> list[Descriptor]:
        """What names `subject` as its subject, sorted by digest; the subject itself need not exist."""
        folder = self._layout.referrers(repository, subject)
        found: list[Descriptor] = []
        for name in sorted(_visible(folder)):
            text = files.read_text(folder / name)
            if text is None:
                continue
            entry = msgspec.json.decode(text, type=Descriptor)
            if self._layout.manifest(repository, entry.digest).exists():
                found.append(entry)
        return found

    def delete(self, repository: str, digest: str) -> None:
        """Removes a manifest and every tag that names it. Raises MANIFEST_UNKNOWN."""
        with self._lock:
            stored = self.find(repository, digest)
            for tag in self.tags(repository):
                if self.tagged(repository, tag) == digest:
                    self.untag(repository, tag)
            manifest = self.read(stored)
            if manifest is not None and manifest.subject is not None:
                folder = self._layout.referrers(repository, manifest.subject.digest)
                files.remove(folder / digest.replace(":", "-"))
                files.prune_upwards(folder, self._layout.repository(repository))
            files.remove(self._layout.manifest(repository, digest))

    def read(self, stored: StoredManifest) -> Manifest | Index | None:
        """What it says; None when its bytes are gone or no longer readable."""
        try:
            return manifests.parse(stored.path.read_bytes(), stored.media_type)
        except (FileNotFoundError, InvalidInput):
            return None

    def digests(self, repository: str) -> Iterator[str]:
        return digests_in(self._layout.repository(repository) / "_manifests")

    def tags(self, repository: str) -> list[str]:
        """All tags in lexical order, without regard to case first (spec, "Listing Tags")."""
        return sorted(_visible(self._layout.tags(repository)), key=lambda tag: (tag.lower(), tag))

    def tagged(self, repository: str, tag: str) -> str | None:
        """The digest that a tag names."""
        return files.read_text(self._layout.tags(repository) / tag)

    def pushed_at(self, repository: str, tag: str) -> float:
        """When the tag was last pushed, Unix seconds; 0 when it is gone."""
        try:
            return (self._layout.tags(repository) / tag).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def untag(self, repository: str, tag: str) -> None:
        """Raises MANIFEST_UNKNOWN."""
        with self._lock:
            self._leave(repository, tag)
            if not files.remove(self._layout.tags(repository) / tag):
                raise errors.manifest_unknown(tag)


def platforms(manifest: Manifest | Index) -> list[str]:
    """The platforms that an index offers."""
    if isinstance(manifest, Manifest):
        return []
    return [str(entry.platform) for entry in manifest.manifests if entry.platform is not None]


def is_image(manifest: Manifest | Index) -> bool:
    return isinstance(manifest, Index) or manifest.config.media_type in types.CONFIG_TYPES


def _visible(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
