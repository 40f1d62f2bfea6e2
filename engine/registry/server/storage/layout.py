"""Where things are below the registry's root.

    blobs/ALGORITHM/HEX                              contents, manifests too: an OCI layout's blobs
    uploads/ID/{data,repository}                     uploads under way
    repositories/NAME/_layers/ALGORITHM/HEX          this repository has this blob
    repositories/NAME/_manifests/ALGORITHM/HEX       this repository has this manifest; holds its media type
    repositories/NAME/_tags/TAG                      holds a digest; its mtime is the time of the push
    repositories/NAME/_referrers/ALGORITHM/HEX/...   holds the descriptor of a manifest with that subject
    repositories/NAME/_public                        everyone may pull from this repository
    holds/HOLDER                                     digests that collection must keep, one a line

No component of a repository's name can begin with `_`, so names and our own folders never meet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from engine.images import digest as digests


class Layout:
    """The paths below one root. Names and digests must have been validated before they come here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.uploads = root / "uploads"
        self.repositories = root / "repositories"
        self.holds = root / "holds"
        for folder in (self.blobs, self.uploads, self.repositories, self.holds):
            folder.mkdir(parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        return self._digest(self.blobs, digest)

    def repository(self, name: str) -> Path:
        return self.repositories / name

    def layer(self, name: str, digest: str) -> Path:
        return self._digest(self.repositories / name / "_layers", digest)

    def manifest(self, name: str, digest: str) -> Path:
        return self._digest(self.repositories / name / "_manifests", digest)

    def tags(self, name: str) -> Path:
        return self.repositories / name / "_tags"

    def referrers(self, name: str, subject: str) -> Path:
        return self._digest(self.repositories / name / "_referrers", subject)

    def public(self, name: str) -> Path:
        return self.repositories / name / "_public"

    @staticmethod
    def _digest(folder: Path, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return folder / algorithm / encoded


def digests_in(folder: Path) -> Iterator[str]:
    """Each digest that has an entry `ALGORITHM/HEX` in `folder`."""
    for algorithm in _names(folder):
        for encoded in _names(folder / algorithm):
            if digests.is_digest(f"{algorithm}:{encoded}"):
                yield f"{algorithm}:{encoded}"


def repositories_in(folder: Path) -> Iterator[str]:
    """The names of all repositories below `folder` that hold something, in no order."""
    pending = [""]
    while pending:
        name = pending.pop()
        inner = _names(folder / name)
        if "_manifests" in inner or "_layers" in inner:
            yield name
        pending += [f"{name}/{part}".lstrip("/") for part in inner if not part.startswith(("_", "."))]


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
