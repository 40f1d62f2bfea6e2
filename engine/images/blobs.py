"""Content-addressed blobs, kept as an ordinary OCI layout (OCI image-spec, image-layout.md).

A blob exists under its name only when all of its bytes are on disk and hash to it: writers fill a file apart,
sync it, and rename it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from engine.errors import Conflict, InvalidInput, NotFound, SystemFailure
from engine.images import digest as digests
from engine.images.arrival import Arrival
from engine.kernel.sync import sync_folder

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_REHASH = 1 << 20


class BlobStore:
    """Blobs below `root/blobs/ALGORITHM/HEX`. Safe for threads and for several processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._ingest = root / "ingest"
        for folder in (self._blobs / "sha256", self._blobs / "sha512", self._ingest):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        layout = root / "oci-layout"
        if not layout.exists():
            layout.write_bytes(_LAYOUT)

    def path(self, digest: str) -> Path:
        """Where the blob is when it is there."""
        digests.validate(digest)
        return self._blobs / digest.replace(":", "/")

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """In bytes. Raises NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"No such blob: {digest}") from None

    def open(self, digest: str) -> BinaryIO:
        """The blob's bytes, unbuffered. Raises NotFound."""
        try:
            return self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"No such blob: {digest}") from None

    def stream(self, digest: str) -> Arrival:
        """The blob's bytes as a stream that somebody else can end. Raises NotFound."""
        with self.open(digest) as blob:
            return Arrival(blob.fileno(), os.fstat(blob.fileno()).st_size, whole=True)

    def read(self, digest: str, limit: int) -> bytes:
        """A small blob whole. Raises NotFound, and InvalidInput above `limit` bytes."""
        with self.open(digest) as blob:
            if os.fstat(blob.fileno()).st_size > limit:
                raise InvalidInput(f"blob {digest} has more than {limit} bytes")
            return blob.read()

    def put(self, data: bytes) -> str:
        """Stores `data` and returns its digest."""
        digest = digests.sha256(data)
        if not self.has(digest):
            with self.writer(digest, len(data)) as writer:
                writer.write(data)
                writer.commit()
        return digest

    def writer(self, expected: str | None = None, size: int | None = None, *, resume: bool = False) -> BlobWriter:
        """A new blob. `expected` and `size`, where known, are verified.

        With `resume` (needs `expected`) what an interrupted writer of the same blob left behind is taken up:
        go on at `writer.offset`. Raises Conflict while another writer is at the same resumable blob.
        """
        if expected is not None:
            digests.validate(expected)
        return BlobWriter(self, self._ingest, expected, size, resume)

    def delete(self, digest: str) -> int:
        """Removes a blob and returns how many bytes that freed; 0 when it was not there."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def __iter__(self) -> Iterator[str]:
        """The digest of every blob."""
        for folder in sorted(self._blobs.iterdir()):
            for name in os.listdir(folder):
                digest = f"{folder.name}:{name}"
                if digests.is_digest(digest):
                    yield digest

    def clean(self, older_than: float) -> int:
        """Removes what abandoned writers left before `older_than` (unix seconds). Returns the bytes freed."""
        freed = 0
        for entry in os.scandir(self._ingest):
            with contextlib.suppress(FileNotFoundError), open(entry.path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                # A writer's lock outlives its writing, and goes with its process: this one is nobody's.
                stat = os.fstat(file.fileno())
                if not entry.name.endswith(".partial") or stat.st_mtime < older_than:
                    os.unlink(entry.path)
                    freed += stat.st_size
        return freed


class BlobWriter:
    """One blob in the making. Leave the `with` block without `commit` and nothing is kept,
    except with `resume`: then the bytes so far wait for the next writer."""

    def __init__(self, store: BlobStore, ingest: Path, expected: str | None, size: int | None, resume: bool) -> None:
        if resume and expected is None:
            raise InvalidInput("only a blob whose digest is known can be resumed")
        self._store = store
        self._expected = expected
        self._size = size
        self._resume = resume
        self.offset = 0
        self._followers: list[Arrival] = []
        self._hash = digests.hasher(expected or "sha256")
        if not resume or expected is None:
            while True:
                self._path = ingest / secrets.token_hex(16)
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_EXCL, 0o600)
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                if self._is_ours():
                    return
                os.close(self._fd)  # cleaning came between the two lines above
        self._path = ingest / f"{digests.encoded(expected)}.partial"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            self._take_up()
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"blob {self._expected} is being written by someone else") from None
        if not self._is_ours():
            raise Conflict(f"blob {self._expected} was finished by someone else")

    def _is_ours(self) -> bool:
        """Whether the name still leads to the file that we hold."""
        try:
            return self._path.stat().st_ino == os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False

    def _take_up(self) -> None:
        buffer = memoryview(bytearray(_REHASH))
        while count := os.readv(self._fd, [buffer]):
            self._hash.update(buffer[:count])
            self.offset += count
        if self._size is not None and self.offset > self._size:
            self.restart()

    def follow(self) -> Arrival:
        """The bytes as they come, those that are there already first.

        They end in `commit`, once the digest is right and before they are durable; else they are withdrawn.
        """
        arrival = Arrival(self._fd, self.offset)
        self._followers.append(arrival)
        return arrival

    def restart(self) -> None:
        """Forgets what was taken up: the sender can't go on in the middle."""
        self._withdraw()
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = digests.hasher(self._expected or "sha256")
        self.offset = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Appends. Raises InvalidInput beyond the announced size, SystemFailure when the disk refuses."""
        view = memoryview(data)
        if self._size is not None and self.offset + len(view) > self._size:
            raise InvalidInput(f"blob {self._expected or ''}: more than the {self._size} bytes announced")
        self._hash.update(view)
        total = len(view)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _failure(error, "write", self._expected) from error
        self.offset += total
        for arrival in self._followers:
            arrival.grew(self.offset)
        return total

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return f"{(self._expected or 'sha256').partition(':')[0]}:{self._hash.hexdigest()}"

    def commit(self) -> str:
        """Verifies, makes the blob visible and returns its digest.

        Raises InvalidInput if it is not what was expected, SystemFailure when the disk refuses.
        """
        digest = self.digest
        if self._size is not None and self.offset != self._size:
            self.abort(keep=self._resume)
            raise InvalidInput(f"blob {self._expected or digest}: {self.offset} bytes instead of {self._size}")
        if self._expected is not None and digest != self._expected:
            self.abort()
            raise InvalidInput(f"blob {self._expected}: the bytes hash to {digest}")
        for arrival in self._followers:
            arrival.end()
        self._followers.clear()
        target = self._store.path(digest)
        try:
            os.fsync(self._fd)
            os.fchmod(self._fd, 0o400)
            os.rename(self._path, target)
            sync_folder(target.parent)
        except OSError as error:
            self.abort()
            raise _failure(error, "store", digest) from error
        os.close(self._fd)
        self._fd = -1
        return digest

    def abort(self, *, keep: bool = False) -> None:
        """Ends without a blob; with `keep` the bytes stay for a later `resume`. May be called twice."""
        if self._fd < 0:
            return
        self._withdraw()
        if not keep:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        os.close(self._fd)
        self._fd = -1

    def _withdraw(self) -> None:
        for arrival in self._followers:
            arrival.withdraw()
        self._followers.clear()

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort(keep=self._resume)


def _failure(error: OSError, verb: str, digest: str | None) -> SystemFailure:
    reason = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror
    return SystemFailure(f"cannot {verb} {f'blob {digest}' if digest else 'a new blob'}: {reason}", error.errno)
