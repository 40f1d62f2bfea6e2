"""Uploads under way: a file that grows, and the digest of what it holds so far."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from engine.images import digest as digests
from engine.registry.server import errors
from engine.registry.server.storage import files
from engine.registry.server.storage.layout import Layout

_READ = 1 << 20


class Upload:
    """One upload. `busy` is held by the request that is writing; a second one is refused, not queued."""

    def __init__(self, folder: Path, repository: str) -> None:
        self.id = folder.name
        self.folder = folder
        self.repository = repository
        self.data = folder / "data"
        self.busy = threading.Lock()
        self.size = 0
        self._hasher: digests.Hasher | None = None
        self._fd = -1
        # A descriptor must not be closed, and given to another file, while a thread still writes to it.
        self._using = threading.Lock()

    def open(self) -> None:
        """Makes ready to append. What an earlier process received is hashed again from the file."""
        if self._fd >= 0:
            return
        fd = os.open(self.data, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if self._hasher is not None:
            self._fd = fd
            return
        hasher = hashlib.sha256()
        size = 0
        while block := os.pread(fd, _READ, size):
            hasher.update(block)
            size += len(block)
        self._fd, self._hasher, self.size = fd, hasher, size

    def append(self, block: bytes | bytearray) -> None:
        """Writes and hashes one block. After a failure the upload must be opened anew."""
        try:
            with self._using:
                if self._hasher is None or self._fd < 0:
                    raise errors.upload_invalid("the upload was closed")
                view = memoryview(block)
                while view:
                    view = view[os.write(self._fd, view) :]
                self._hasher.update(block)
        except BaseException:
            self.close()
            raise
        self.size += len(block)

    def verify(self, digest: str) -> None:
        """Raises DIGEST_INVALID unless what was received has this digest. Makes the bytes durable."""
        with self._using:
            self._verify(digest)

    def _verify(self, digest: str) -> None:
        assert self._hasher is not None
        if digest.startswith("sha256:"):
            found = "sha256:" + self._hasher.hexdigest()
        else:
            hasher = digests.hasher(digest)
            position = 0
            while block := os.pread(self._fd, _READ, position):
                hasher.update(block)
                position += len(block)
            found = f"{digest.partition(':')[0]}:{hasher.hexdigest()}"
        if found != digest:
            raise errors.digest_invalid(f"what was uploaded is {found}, not {digest}")
        os.fsync(self._fd)

    def rest(self) -> None:
        """Lets go of the file until the next chunk: clients begin more uploads than there are descriptors."""
        with self._using:
            self._rest()

    def _rest(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def close(self) -> None:
        """Lets go of the file, and of what is known of it. The upload can go on later."""
        with self._using:
            self._rest()
            self._hasher = None


class Uploads:
    """All uploads under way. They outlive a restart; nobody's are removed after a while by collection."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._open: dict[str, Upload] = {}
        self._lock = threading.Lock()

    def begin(self, repository: str) -> Upload:
        folder = self._layout.uploads / secrets.token_hex(16)
        files.write_atomic(folder / "repository", repository.encode(), self._layout.uploads)
        upload = Upload(folder, repository)
        with self._lock:
            self._open[upload.id] = upload
        return upload

    def get(self, repository: str, upload_id: str) -> Upload:
        """The upload of this repository with this id, ready to append. Raises BLOB_UPLOAD_UNKNOWN."""
        with self._lock:
            upload = self._open.get(upload_id)
            if upload is None:
                folder = self._layout.uploads / upload_id
                owner = files.read_text(folder / "repository")
                if owner is None:
                    raise errors.upload_unknown()
                upload = self._open[upload_id] = Upload(folder, owner)
                if upload.data.exists():
                    upload.size = upload.data.stat().st_size
        if upload.repository != repository:
            raise errors.upload_unknown()
        return upload

    def forget(self, upload: Upload) -> None:
        """The upload is over, well or not: its folder goes."""
        upload.close()
        with self._lock:
            self._open.pop(upload.id, None)
        shutil.rmtree(upload.folder, ignore_errors=True)

    def idle(self, seconds: float) -> Iterator[Upload]:
        """Each upload that nobody touched for so long. The caller holds its `busy` and should `forget` it."""
        for name in os.listdir(self._layout.uploads):
            folder = self._layout.uploads / name
            data = folder / "data"
            try:
                touched = (data if data.exists() else folder).stat().st_mtime
            except FileNotFoundError:
                continue
            if time.time() - touched < seconds:
                continue
            with self._lock:
                upload = self._open.get(name) or Upload(folder, "")
            if upload.busy.acquire(blocking=False):
                try:
                    yield upload
                finally:
                    upload.busy.release()

    def close(self) -> None:
        with self._lock:
            for upload in self._open.values():
                upload.close()
            self._open.clear()

    def __len__(self) -> int:
        return len(self._open)
