"""The registry's files as one thing."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from engine.errors import Conflict
from engine.registry.server import errors
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
        return self.layout.repository(repository).is_dir()

    def require(self, repository: str) -> None:
        """Raises NAME_UNKNOWN when there is no such repository."""
        if not self.exists(repository):
            raise errors.name_unknown(repository)

    def close(self) -> None:
        self.uploads.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
