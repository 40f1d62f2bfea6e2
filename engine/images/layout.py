"""index.json: what makes the store an ordinary OCI layout that other tools read (image-spec, image-layout.md).

    skopeo inspect oci:/var/lib/shipway/engine/images:docker.io/library/busybox:latest

It lists the images whose layers are packed: those that were pulled, loaded, pushed or saved. What a build or a commit
leaves as folders is packed when somebody asks for its bytes, and listed from then on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import msgspec

from engine.images import descriptor as types
from engine.images.blobs import BlobStore
from engine.images.catalog import Catalog, ImageRow


class Layout:
    """Written anew after each change of what it lists; the catalogue is what counts. Safe for threads."""

    def __init__(self, root: Path, catalog: Catalog, blobs: BlobStore) -> None:
        self._path = root / "index.json"
        self._catalog = catalog
        self._blobs = blobs
        self._written = b""
        self._lock = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """A disk that is full keeps nobody from anything else: the next change tries again.

        Never within a transaction of the catalogue: another thread that writes just now may wait for its end.
        """
        # Two threads' writings come in the order of what they have read.
        with self._lock, contextlib.suppress(OSError):
            data = msgspec.json.encode({"schemaVersion": 2, "mediaType": types.OCI_INDEX, "manifests": self._lines()})
            if data == self._written:
                return
            half = self._path.with_suffix(".new")
            half.write_bytes(data)
            os.replace(half, self._path)
            self._written = data

    def _lines(self) -> list[dict[str, Any]]:
        names: dict[str, list[str]] = {}
        for reference, image in self._catalog.all_tags():
            names.setdefault(image, []).append(reference)
        lines = []
        for row in self._catalog.images():
            for name in names.get(row.id, [""]):
                lines += self._line(row, name)
        return lines

    def _line(self, row: ImageRow, name: str) -> list[dict[str, Any]]:
        if row.manifest is None or not self._blobs.has(row.manifest.digest):
            return []
        line: dict[str, Any] = msgspec.to_builtins(row.manifest)
        return [{**line, "annotations": {types.REF_NAME: name}} if name else line]
