"""What the store knows about its images, in one sqlite file. The bytes themselves are blobs and folders."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EIO, ENOSPC
from pathlib import Path

import msgspec

from engine.errors import SystemFailure
from engine.images.descriptor import Descriptor

VERSION = 4
_LOANS = """
CREATE TABLE loans (               -- layers whose files are still a finished container's
    chain TEXT PRIMARY KEY,
    folder TEXT NOT NULL,
    shift INTEGER NOT NULL         -- what the owners' ids there have too much
) WITHOUT ROWID"""
_SCHEMA = f"""
CREATE TABLE images (
    id TEXT PRIMARY KEY,           -- digest of the config
    manifest TEXT,                 -- descriptor as JSON, once there is one
    parent TEXT,                   -- the image it was built or committed from
    size INTEGER NOT NULL,
    comment TEXT NOT NULL DEFAULT '',
    added REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE tags (
    reference TEXT PRIMARY KEY,    -- canonical, with tag
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    given REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX tags_image ON tags(image);
CREATE TABLE origins (             -- where a registry knows the image: repository@digest
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX origins_image ON origins(image);
CREATE TABLE layers (              -- may be unpacked or not: the folder's presence tells
    chain TEXT PRIMARY KEY,
    parent TEXT,
    diff_id TEXT NOT NULL,
    size INTEGER NOT NULL,
    clamp INTEGER,                 -- latest time in its tar, where that was limited
    added REAL NOT NULL,
    crc INTEGER                    -- CRC-32 of its tar, where it was made here
) WITHOUT ROWID;
CREATE TABLE tars (                -- the blobs that unpack to a diff ID
    diff_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (diff_id, digest)
) WITHOUT ROWID;{_LOANS};
CREATE TABLE leases (
    lease TEXT NOT NULL,
    target TEXT NOT NULL,          -- blob, chain or image
    expires REAL NOT NULL,
    PRIMARY KEY (lease, target)
) WITHOUT ROWID;
"""

_UPGRADES = {
    1: ("ALTER TABLE layers ADD COLUMN crc INTEGER",),
    2: (_LOANS,),
    3: ("ALTER TABLE tags ADD COLUMN given REAL NOT NULL DEFAULT 0",),
}
"""What makes the next format of each older one."""


class LayerRow(msgspec.Struct, frozen=True):
    """A layer that was unpacked, or made, here at some time."""

    chain: str
    parent: str | None
    diff_id: str
    size: int
    clamp: int | None
    crc: int | None = None


class Loan(msgspec.Struct, frozen=True):
    """A layer's files, in a folder that is not the store's."""

    chain: str
    folder: str
    shift: int


class ImageRow(msgspec.Struct, frozen=True):
    """An image without what hangs on it."""

    id: str
    manifest: Descriptor | None
    parent: str | None
    size: int
    comment: str
    added: float


class Catalog:
    """One connection behind a lock: every query takes microseconds."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        with self.transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise SystemFailure(f"{path} has format {version}, this engine knows {VERSION}: use a newer one")
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
            for old in range(version or VERSION, VERSION):
                for statement in _UPGRADES[old]:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. May be nested; the outermost one counts. Others wait meanwhile."""
        with self._lock:
            if self._depth:
                yield
                return
            self._run("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def _hint(self) -> Iterator[None]:
        """For what a power cut may take along, as it takes along whoever needed it: nothing waits for the disk.

        A killed process loses nothing by it.
        """
        with self._lock:
            if self._depth:
                yield
                return
            self._db.execute("PRAGMA synchronous = NORMAL")
            try:
                with self.transaction():
                    yield
            finally:
                self._db.execute("PRAGMA synchronous = FULL")

    def _all(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self._lock:
            return self._run(query, *values).fetchall()

    def _column(self, query: str, *values: object) -> list[str]:
        return [str(row[0]) for row in self._all(query, *values)]

    def _do(self, query: str, *values: object) -> int:
        with self._lock:
            return self._run(query, *values).rowcount

    def _run(self, query: str, *values: object) -> sqlite3.Cursor:
        try:
            return self._db.execute(query, values)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise SystemFailure("cannot write the image catalogue: no space left on the disk", ENOSPC) from error
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
                raise SystemFailure(f"cannot write the image catalogue: {error}", EIO) from error
            raise

    # -- images

    def add_image(self, image: str, manifest: Descriptor | None, parent: str | None, size: int, comment: str) -> None:
        """Adds an image, or completes one that is there."""
        self._do(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "manifest = coalesce(excluded.manifest, manifest), parent = coalesce(parent, excluded.parent)",
            image,
            _json(manifest),
            parent,
            size,
            comment,
            time.time(),
        )

    def set_manifest(self, image: str, manifest: Descriptor) -> None:
        self._do("UPDATE images SET manifest = ? WHERE id = ?", _json(manifest), image)

    def image(self, image: str) -> ImageRow | None:
        rows = self._all("SELECT id, manifest, parent, size, comment, added FROM images WHERE id = ?", image)
        return _image(rows[0]) if rows else None

    def images(self) -> list[ImageRow]:
        rows = self._all("SELECT id, manifest, parent, size, comment, added FROM images ORDER BY added DESC, id")
        return [_image(row) for row in rows]

    def ids_from(self, prefix: str) -> list[str]:
        """At most two IDs that start with `prefix`, which is safe hexadecimal."""
        return self._column("SELECT id FROM images WHERE id GLOB ? LIMIT 2", f"{prefix}*")

    def children(self, image: str) -> list[str]:
        return self._column("SELECT id FROM images WHERE parent = ?", image)

    def parents(self) -> set[str]:
        return set(self._column("SELECT DISTINCT parent FROM images WHERE parent IS NOT NULL"))

    def delete_image(self, image: str) -> None:
        self._do("DELETE FROM images WHERE id = ?", image)

    # -- names

    def set_tag(self, reference: str, image: str) -> None:
        self._do("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", reference, image, time.time())

    def delete_tag(self, reference: str) -> bool:
        return self._do("DELETE FROM tags WHERE reference = ?", reference) > 0

    def tagged(self, reference: str) -> str | None:
        found = self._column("SELECT image FROM tags WHERE reference = ?", reference)
        return found[0] if found else None

    def tags(self, image: str) -> list[str]:
        return self._column("SELECT reference FROM tags WHERE image = ? ORDER BY reference", image)

    def last_tagged(self, image: str) -> float:
        """When it got the youngest of its tags; 0 for never."""
        ((given,),) = self._all("SELECT coalesce(max(given), 0) FROM tags WHERE image = ?", image)
        return msgspec.convert(given, float)

    def all_tags(self) -> list[tuple[str, str]]:
        """(reference, image) of each tag."""
        return [(str(a), str(b)) for a, b in self._all("SELECT reference, image FROM tags ORDER BY reference")]

    def add_origin(self, repository: str, digest: str, image: str) -> None:
        if self.origin(repository, digest) != image:
            self._do("INSERT OR REPLACE INTO origins VALUES (?, ?, ?)", repository, digest, image)

    def delete_origin(self, repository: str, digest: str) -> bool:
        query = "DELETE FROM origins WHERE repository = ? AND digest = ?"
        return self._do(query, repository, digest) > 0

    def origin(self, repository: str, digest: str) -> str | None:
        query = "SELECT image FROM origins WHERE repository = ? AND digest = ?"
        found = self._column(query, repository, digest)
        return found[0] if found else None

    def origins(self, image: str) -> list[tuple[str, str]]:
        """(repository, digest) of each registry's name for the image."""
        query = "SELECT repository, digest FROM origins WHERE image = ? ORDER BY repository, digest"
        return [(str(a), str(b)) for a, b in self._all(query, image)]

    # -- layers

    def add_layer(self, row: LayerRow) -> None:
        self._do(
            "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?, ?, ?)",
            row.chain,
            row.parent,
            row.diff_id,
            row.size,
            row.clamp,
            time.time(),
            row.crc,
        )

    def layer(self, chain: str) -> LayerRow | None:
        rows = self._all("SELECT chain, parent, diff_id, size, clamp, crc FROM layers WHERE chain = ?", chain)
        return LayerRow(*rows[0]) if rows else None  # type: ignore[arg-type] # sqlite keeps the types

    def layers(self, before: float = float("inf")) -> list[str]:
        """The chains that nobody added or asked for again since `before` (unix seconds)."""
        return self._column("SELECT chain FROM layers WHERE added < ?", before)

    def touch_layer(self, chain: str) -> None:
        """Makes a layer young again: someone is about to use it."""
        with self._hint():
            self._do("UPDATE layers SET added = ? WHERE chain = ?", time.time(), chain)

    def delete_layer(self, chain: str) -> None:
        with self.transaction():
            self._do("DELETE FROM layers WHERE chain = ?", chain)
            self.end_loan(chain)

    def add_tar(self, diff_id: str, blob: Descriptor) -> None:
        query = "INSERT OR REPLACE INTO tars VALUES (?, ?, ?, ?)"
        self._do(query, diff_id, blob.digest, blob.media_type, blob.size)

    def tars(self, diff_id: str) -> list[Descriptor]:
        query = "SELECT media_type, digest, size FROM tars WHERE diff_id = ? ORDER BY digest"
        return [Descriptor(str(a), str(b), int(str(c))) for a, b, c in self._all(query, diff_id)]

    def diff_ids_of(self, digest: str) -> list[str]:
        """The diff IDs that a blob is known to unpack to: one, or none."""
        return self._column("SELECT diff_id FROM tars WHERE digest = ?", digest)

    def forget_tar(self, digest: str) -> None:
        self._do("DELETE FROM tars WHERE digest = ?", digest)

    # -- loans

    def add_loan(self, loan: Loan) -> None:
        self._do("INSERT OR REPLACE INTO loans VALUES (?, ?, ?)", loan.chain, loan.folder, loan.shift)

    def loan(self, chain: str) -> Loan | None:
        rows = self._all("SELECT chain, folder, shift FROM loans WHERE chain = ?", chain)
        return Loan(*rows[0]) if rows else None  # type: ignore[arg-type] # sqlite keeps the types

    def loans(self, folder: str | None = None) -> list[Loan]:
        """All of them, or those of one folder."""
        rows = self._all("SELECT chain, folder, shift FROM loans WHERE ?1 IS NULL OR folder = ?1", folder)
        return [Loan(*row) for row in rows]  # type: ignore[arg-type]

    def end_loan(self, chain: str) -> None:
        self._do("DELETE FROM loans WHERE chain = ?", chain)

    # -- leases

    def add_lease(self, lease: str, targets: Iterable[str], expires: float) -> None:
        with self._hint():
            for target in targets:
                self._do("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", lease, target, expires)

    def end_lease(self, lease: str) -> None:
        with self._hint():
            self._do("DELETE FROM leases WHERE lease = ?", lease)

    def leased(self) -> set[str]:
        """What no one may remove at the moment."""
        with self._hint():
            self._do("DELETE FROM leases WHERE expires < ?", time.time())
        return set(self._column("SELECT DISTINCT target FROM leases"))


def _json(descriptor: Descriptor | None) -> str | None:
    return None if descriptor is None else msgspec.json.encode(descriptor).decode()


def _image(row: tuple[object, ...]) -> ImageRow:
    image, manifest, parent, size, comment, added = row
    return ImageRow(
        str(image),
        None if manifest is None else msgspec.json.decode(str(manifest), type=Descriptor),
        None if parent is None else str(parent),
        int(str(size)),
        str(comment),
        float(str(added)),
    )
