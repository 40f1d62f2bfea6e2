"""Garbage collection beside pushes and pulls: what no tag, no hold and no recent interest keeps alive, goes.

Kept are, in each repository: the tags that the rule spares; the manifests that these and the holds name; what those
are made of; what refers to them as its subject; and whatever somebody pushed, fetched or asked for lately. Links are
only removed under the storage's lock, and bytes only once they are old and without links: a push that has been told
that a blob is there finds it there when its manifest arrives.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.images.manifest import Index, Manifest
from engine.registry.server.errors import RegistryError
from engine.registry.server.storage import files
from engine.registry.server.storage.layout import digests_in
from engine.registry.server.storage.manifests import StoredManifest
from engine.registry.server.storage.store import Storage

GRACE = 3600.0
_IDLE_UPLOAD = 86400.0


@dataclass(frozen=True)
class Rule:
    """What may go. `keep` newest tags of each repository stay, all of them when None; so do tags younger than `age`.

    What is not tagged stays for `grace` after somebody last pushed or fetched it. Times are in seconds.
    """

    keep: int | None = None
    age: float = 0.0
    grace: float = GRACE


@dataclass
class Collected:
    """What went: `tags` as `repository:tag`, `manifests` as `repository@digest`, the number of `blobs`, their bytes."""

    tags: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    blobs: int = 0
    bytes: int = 0


class Collection:
    """One run. Slow, and safe in a thread. With `dry_run` it only tells which tags and manifests would go."""

    def __init__(self, storage: Storage, rule: Rule, *, dry_run: bool = False) -> None:
        self._storage = storage
        self._rule = rule
        self._dry = dry_run
        self._now = time.time()
        self._held = {digest for held in storage.holds.all().values() for digest in held}
        self._parsed: dict[str, Manifest | Index | None] = {}

    def run(self) -> Collected:
        done = Collected()
        for repository in self._storage.repositories():
            self._repository(repository, done)
        if not self._dry:
            self._blobs(done)
            for upload in self._storage.uploads.idle(max(self._rule.grace, _IDLE_UPLOAD)):
                self._storage.uploads.forget(upload)
            self._remains()
        return done

    def _repository(self, repository: str, done: Collected) -> None:
        for digest in self._storage.manifests.digests(repository):
            self._manifest(repository, digest)  # reads before the lock, so that it is not held for long
        with self._storage.lock:
            dropped = self._old_tags(repository)
            done.tags += [f"{repository}:{tag}" for tag in sorted(dropped)]
            alive = self._alive(repository, dropped)
            dead = [digest for digest in self._storage.manifests.digests(repository) if digest not in alive]
            done.manifests += [f"{repository}@{digest}" for digest in sorted(dead)]
            if self._dry:
                return
            with contextlib.suppress(RegistryError):
                for tag in dropped:
                    self._storage.manifests.untag(repository, tag)
            for digest in dead:
                with contextlib.suppress(RegistryError):
                    self._storage.manifests.delete(repository, digest)
            self._links(repository, alive)
            self._storage.prune(repository)

    def _old_tags(self, repository: str) -> set[str]:
        if self._rule.keep is None:
            return set()
        manifests = self._storage.manifests
        pushed = {tag: manifests.pushed_at(repository, tag) for tag in manifests.tags(repository)}
        newest = sorted(pushed, key=lambda tag: (-pushed[tag], tag))
        spared = {tag for tag in newest if pushed[tag] > self._now - self._rule.age}
        spared |= {tag for tag in newest if manifests.tagged(repository, tag) in self._held}
        return set(newest[self._rule.keep :]) - spared

    def _alive(self, repository: str, dropped: set[str]) -> set[str]:
        """The digests of the manifests that stay."""
        storage, present = self._storage, set(self._storage.manifests.digests(repository))
        tags = set(storage.manifests.tags(repository)) - dropped
        tagged = {storage.manifests.tagged(repository, tag) for tag in tags}
        pending = [
            digest
            for digest in present
            if digest in tagged or digest in self._held or self._is_young(storage.layout.manifest(repository, digest))
        ]
        referring: dict[str, list[str]] = {}
        for digest in present:
            manifest = self._manifest(repository, digest)
            if manifest is not None and manifest.subject is not None:
                referring.setdefault(manifest.subject.digest, []).append(digest)
        alive: set[str] = set()
        while pending:
            digest = pending.pop()
            if digest in alive or digest not in present:
                continue
            alive.add(digest)
            manifest = self._manifest(repository, digest)
            if isinstance(manifest, Index):
                pending += [entry.digest for entry in manifest.manifests]
            pending += referring.get(digest, [])
        return alive

    def _links(self, repository: str, alive: set[str]) -> None:
        """Lets go of the blobs that none of the repository's manifests needs."""
        needed: set[str] = set()
        for digest in alive:
            manifest = self._manifest(repository, digest)
            if isinstance(manifest, Manifest):
                needed |= {manifest.config.digest, *(layer.digest for layer in manifest.layers)}
        for digest in list(digests_in(self._storage.layout.repository(repository) / "_layers")):
            if digest not in needed and not self._is_young(self._storage.layout.layer(repository, digest)):
                with contextlib.suppress(RegistryError):
                    self._storage.blobs.unlink(repository, digest)

    def _blobs(self, done: Collected) -> None:
        linked: set[str] = set()
        for repository in self._storage.repositories():
            folder = self._storage.layout.repository(repository)
            linked |= {*digests_in(folder / "_layers"), *digests_in(folder / "_manifests")}
        for digest in list(digests_in(self._storage.layout.blobs)):
            if digest in linked:
                continue
            with self._storage.lock:
                # Whoever links a blob touches it too: an old one has got no link since we looked.
                if not self._is_young(self._storage.layout.blob(digest)):
                    done.blobs += 1
                    done.bytes += self._storage.blobs.discard(digest)

    def _remains(self) -> None:
        """What a crash has left of files that were being written or removed."""
        layout = self._storage.layout
        for top in (layout.blobs, layout.repositories, layout.holds):
            for path in _hidden(top):
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < self._now - max(self._rule.grace, GRACE):
                        files.remove(path)

    def _manifest(self, repository: str, digest: str) -> Manifest | Index | None:
        if digest not in self._parsed:
            media_type = files.read_text(self._storage.layout.manifest(repository, digest))
            stored = StoredManifest(digest, media_type or "", self._storage.layout.blob(digest))
            self._parsed[digest] = self._storage.manifests.read(stored) if media_type else None
        return self._parsed[digest]

    def _is_young(self, path: Path) -> bool:
        try:
            return path.stat().st_mtime > self._now - self._rule.grace
        except FileNotFoundError:
            return False


def _hidden(top: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(top):
        for name in names:
            if name.startswith("."):
                yield Path(folder) / name
