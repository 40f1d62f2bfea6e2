"""Contents by digest, and which repository may see which."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from engine.kernel.sync import sync_folder
from engine.registry.server import errors
from engine.registry.server.storage import files
from engine.registry.server.storage.layout import Layout, digests_in, repositories_in
from engine.registry.server.storage.uploads import Upload


class Blobs:
    """Each blob is stored once. A repository has it when it holds an (empty) link of that digest.

    The mtime of a link is when somebody last relied on it: collection leaves fresh ones alone, so that a blob
    whose presence a client has just been told of is still there when its manifest arrives.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def find(self, repository: str, digest: str) -> Path:
        """The file of a blob that this repository has. Raises BLOB_UNKNOWN."""
        path = self._layout.blob(digest)
        if not self._layout.layer(repository, digest).exists() or not path.exists():
            raise errors.blob_unknown(digest)
        return path

    def has(self, repository: str, digest: str) -> bool:
        return self._layout.layer(repository, digest).exists() and self._layout.blob(digest).exists()

    def touch(self, repository: str, digest: str) -> None:
        """Says that somebody relies on this blob now."""
        for path in (self._layout.layer(repository, digest), self._layout.blob(digest)):
            try:
                os.utime(path)
            except FileNotFoundError:
                continue

    def adopt(self, upload: Upload, digest: str) -> None:
        """The verified upload becomes a blob of its repository."""
        path = self._layout.blob(digest)
        files.make_folder(path.parent, self._layout.root)
        if path.exists():
            os.utime(path)
        else:
            os.replace(upload.data, path)
            sync_folder(path.parent)
        self.link(upload.repository, digest)

    def put(self, digest: str, data: bytes) -> None:
        """Stores bytes whose digest the caller has checked."""
        path = self._layout.blob(digest)
        if path.exists():
            os.utime(path)
        else:
            files.write_atomic(path, data, self._layout.root)

    def link(self, repository: str, digest: str) -> None:
        """This repository now has this blob. Raises BLOB_UNKNOWN when it has gone."""
        try:
            os.utime(self._layout.blob(digest))
        except FileNotFoundError:
            raise errors.blob_unknown(digest) from None
        path = self._layout.layer(repository, digest)
        if path.exists():
            os.utime(path)
        else:
            files.write_atomic(path, b"", self._layout.repositories)

    def owners(self, digest: str) -> list[str]:
        """The repositories that have this blob."""
        if not self._layout.blob(digest).exists():
            return []
        names = repositories_in(self._layout.repositories)
        return sorted(name for name in names if self._layout.layer(name, digest).exists())

    def unlink(self, repository: str, digest: str) -> None:
        """This repository no longer has this blob. Raises BLOB_UNKNOWN."""
        if not files.remove(self._layout.layer(repository, digest)):
            raise errors.blob_unknown(digest)

    def discard(self, digest: str) -> int:
        """Removes a content for good. Returns the bytes that it took."""
        path = self._layout.blob(digest)
        # Renamed first: a reader that has it open reads on, nobody finds half a file.
        doomed = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            os.rename(path, doomed)
            size = doomed.stat().st_size
            doomed.unlink()
        except FileNotFoundError:
            return 0
        return size

    def size_of(self, repository: str) -> int:
        """The bytes of all blobs that a repository has; others may share them."""
        return sum(self._sizes(self._layout.repository(repository) / "_layers"))

    def totals(self) -> tuple[int, int]:
        """How many blobs there are, and their bytes."""
        sizes = list(self._sizes(self._layout.blobs))
        return len(sizes), sum(sizes)

    def _sizes(self, folder: Path) -> Iterator[int]:
        """Of the contents whose digests are in `folder`, as far as they are there."""
        for digest in digests_in(folder):
            try:
                yield self._layout.blob(digest).stat().st_size
            except FileNotFoundError:
                continue
