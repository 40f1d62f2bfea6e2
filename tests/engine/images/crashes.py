"""`python -m tests.engine.images.crashes OPERATION FOLDER`: kills the image store in the middle of an operation, often.

After each time the store must be whole: what it lists is there and right; nothing half-made is under a final name;
and the operation, done again, succeeds. Prints how often it was killed.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from engine.images.archive import load, save
from engine.images.config import ImageConfig
from engine.images.diff import DiffOptions, diff
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.snapshot import commit
from engine.images.store import ImageStore
from tests.engine.killing import at_points

POINTS = 120
EPOCH = 1_700_000_000


def verify(store: ImageStore) -> None:
    """Everything that the store claims to have, it has, byte for byte."""
    db = sqlite3.connect(store.root / "images.db")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
    for digest in store.blobs:
        found = hashlib.sha256(store.blobs.path(digest).read_bytes()).hexdigest()
        assert digest == f"sha256:{found}", f"half a blob: {digest}"
    known = {store.layers.folder(chain): store.catalog.layer(chain) for chain in store.catalog.layers()}
    for folder in store.layers.folders():
        row = known[folder]
        assert row is not None
        sha = hashlib.sha256()
        diff(folder, sha.update, DiffOptions(clamp=row.clamp))
        assert row.diff_id == f"sha256:{sha.hexdigest()}", f"half a layer: {folder}"
    for image in store.list(all=True):
        store.lowerdirs(image.id)
        store.manifest_of(image)
    scratch = list((store.root / "unpacking").glob("*/*"))
    assert scratch == [], f"remains: {scratch}"


class Case:
    """One operation over and over on one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ImageStore(folder / "images")
        self.base = self._base()
        self.store.close()
        buffer = io.BytesIO()
        other = ImageStore(folder / "other")
        layer = other.add_layer_from_dir(None, self._written("loaded"), clamp=EPOCH)
        other.create_image(ImageConfig(architecture="amd64"), [layer], Reference.parse("made"))
        save(other, ["made"], buffer.write)
        other.close()
        self.archive = buffer.getvalue()

    def _base(self) -> str:
        layer = self.store.add_layer_from_dir(None, self._written("base"), clamp=EPOCH)
        return self.store.create_image(ImageConfig(architecture="amd64"), [layer], Reference.parse("base")).id

    def _written(self, name: str) -> Path:
        folder = self.folder / name
        (folder / "etc").mkdir(parents=True)
        (folder / "etc/name").write_text(name)
        (folder / "etc/data").write_bytes(name.encode() * 50_000)
        os.symlink("name", folder / "etc/link")
        os.link(folder / "etc/name", folder / "etc/twin")
        for path in (folder / "etc/link", folder / "etc/name", folder / "etc/data", folder / "etc", folder):
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
        return folder

    # -- the operations: each makes the image `made`, in a store of its own

    def load(self, store: ImageStore) -> None:
        load(store, io.BytesIO(self.archive))

    def build(self, store: ImageStore) -> None:
        self._commit(store, self.folder / "upper", donate=True)

    def commit(self, store: ImageStore) -> None:
        self._commit(store, self.folder / "template", donate=False)

    def lend(self, store: ImageStore) -> None:
        """A finished container is committed, and then removed."""
        upper = self.folder / "upper"
        image = commit(store, upper=upper, parent=store.get("base"), lend=True, epoch=EPOCH)
        store.tag(image.id, Reference.parse("made"))
        store.loans.take(upper)
        store.manifest_of(image)

    def _commit(self, store: ImageStore, upper: Path, *, donate: bool) -> None:
        image = commit(store, upper=upper, parent=store.get("base"), donate=donate, epoch=EPOCH)
        store.tag(image.id, Reference.parse("made"))
        store.manifest_of(image)

    def collect(self, store: ImageStore) -> None:
        if not self._is(store, "made"):
            self.commit(store)
        store.remove("made")
        store.collect(grace=-1)

    def _lay_out(self) -> None:
        """What a step has written, once more, if it has become a layer."""
        if not (self.folder / "upper").exists():
            subprocess.run(["cp", "-a", str(self.folder / "template"), str(self.folder / "upper")], check=True)

    def _is(self, store: ImageStore, name: str) -> bool:
        return any(f"{name}:latest" in image.tags for image in store.list(all=True))

    def run(self, name: str) -> int:
        self._written("template")
        self._lay_out()
        operation: Callable[[ImageStore], None] = getattr(self, name)
        found: set[str] = set()

        def work() -> None:
            store = ImageStore(self.folder / "images")
            operation(store)
            store.close()

        def after() -> None:
            store = ImageStore(self.folder / "images")
            try:
                verify(store)
                assert store.get("base").id == self.base
                self._lay_out()
                operation(store)
                self._lay_out()
                verify(store)
                if name != "collect":
                    made: Image = store.get("made")
                    found.add(made.id)
                    store.remove("made")
                store.catalog._do("DELETE FROM leases")  # the dead one's, which only time ends
                store.collect(grace=-1)
                assert [image.id for image in store.list(all=True)] == [self.base]
                assert len(list(store.layers.folders())) == 1, "nothing is forgotten"
            finally:
                store.close()

        killed = at_points(POINTS, work, after)
        assert len(found) <= 1, "the same content is the same image, however often it was interrupted"
        return killed


if __name__ == "__main__":
    print(Case(Path(sys.argv[2])).run(sys.argv[1]))
