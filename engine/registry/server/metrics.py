"""The registry's own figures, in Prometheus' text format."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from engine.registry.server.storage.store import Storage

_TOTALS_SECONDS = 30.0


class Metrics:
    """A registry of its own for each application, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "shipway_registry_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "shipway_registry_request_seconds",
            "From a request's first line to the end of its answer.",
            ["method", "route"],
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60),
            registry=self.registry,
        )
        self.bytes = Counter(
            "shipway_registry_bytes", "Bytes of blobs, in and out.", ["direction"], registry=self.registry
        )
        self.collected = Counter(
            "shipway_registry_collected_bytes", "Bytes freed by collection.", registry=self.registry
        )
        self.uploads = Gauge("shipway_registry_uploads", "Uploads under way.", registry=self.registry)
        self.blobs = Gauge("shipway_registry_blobs", "Contents stored.", registry=self.registry)
        self.stored = Gauge("shipway_registry_stored_bytes", "Bytes stored.", registry=self.registry)
        self.repositories = Gauge("shipway_registry_repositories", "Repositories.", registry=self.registry)
        self._counted_at = float("-inf")

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(method, route).observe(seconds)

    def render(self, storage: Storage) -> bytes:
        """The page. Walks the store at most twice a minute; call it in a thread."""
        now = time.monotonic()
        if now - self._counted_at > _TOTALS_SECONDS:
            self._counted_at = now
            count, size = storage.blobs.totals()
            self.blobs.set(count)
            self.stored.set(size)
            self.repositories.set(len(storage.repositories()))
        self.uploads.set(len(storage.uploads))
        return generate_latest(self.registry)
