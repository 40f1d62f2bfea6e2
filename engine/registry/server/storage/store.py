"""The registry's files as one thing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path

from engine.errors import Conflict
from engine.registry.server import errors
from engine.registry.server.storage import files
from engine.registry.server.storage.blobs import Blobs
from engine.registry.server.storage.holds import Holds
from engine.registry.server.storage.layout import Layout, repositories_in
from engine.registry.server.storage.manifests import Manifests
from engine.registry.server.storage.uploads import Uploads


class Storage:
    """Opens the folder for itself alone: two registries over one folder would collect each other's pushes."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._lock_fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            raise Conflict(f"{root} is in use by another registry: stop that one, or give another folder") from None
        self.layout = Layout(root)
        self.lock = threading.RLock()
        self.blobs = Blobs(self.layout)
        self.uploads = Uploads(self.layout)
        self.manifests = Manifests(self.layout, self.blobs, self.lock)
        self.holds = Holds(self.layout)

    def repositories(self) -> list[str]:
        """The names of all repositories with something in them, sorted."""
        return sorted(repositories_in(self.layout.repositories))

    def exists(self, repository: str) -> bool:
        folder = self.layout.repository(repository)
        return (folder / "_manifests").is_dir() or (folder / "_layers").is_dir()

    def prune(self, repository: str) -> None:
        """Removes what is empty of a repository; with its last manifest and blob the repository itself."""
        folder = self.layout.repository(repository)
        with self.lock:
            for part in ("_tags", "_referrers", "_layers", "_manifests"):
                for inner, _, _ in os.walk(folder / part, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(inner)
            if not self.exists(repository):
                files.remove(self.layout.public(repository))
                files.prune_upwards(folder, self.layout.repositories)

    def require(self, repository: str) -> None:
        """Raises NAME_UNKNOWN when there is no such repository."""
        if not self.exists(repository):
            raise errors.name_unknown(repository)

    def is_public(self, repository: str) -> bool:
        """Whether everyone may see it."""
        return self.layout.public(repository).exists()

    def publish(self, repository: str, public: bool) -> None:
        """Shows a repository to everyone, or to its group alone. Raises NAME_UNKNOWN."""
        with self.lock:
            self.require(repository)
            if public:
                files.write_atomic(self.layout.public(repository), b"", self.layout.repositories)
            else:
                files.remove(self.layout.public(repository))

    def close(self) -> None:
        self.uploads.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
