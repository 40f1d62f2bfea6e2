"""Leases: what is in use by work that has not yet made an image of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable

from engine.images.catalog import Catalog


class Lease:
    """Spares its targets from removal until the `with` block ends, or until its time is over."""

    def __init__(self, catalog: Catalog, targets: Iterable[str], seconds: float) -> None:
        self._catalog = catalog
        self.id = secrets.token_hex(16)
        """For the catalogue's `end_lease`, should this object be gone by then."""
        self._seconds = seconds
        self.add(*targets)

    def add(self, *targets: str) -> None:
        """Spares more; say so before looking whether they are there."""
        if targets:
            self._catalog.add_lease(self.id, targets, time.time() + self._seconds)

    def release(self) -> None:
        """Ends the lease. May be called twice."""
        self._catalog.end_lease(self.id)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
