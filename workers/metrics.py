"""What a worker counts. Its processes share files in PROMETHEUS_MULTIPROC_DIR, the agent adds them up.

The variable must be set before this module is imported: prometheus-client reads it then. Without it, as in
`shipway run`, each process counts for itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from pipeline.protocol import Phase

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
_registry = CollectorRegistry()

_attempts = Counter(
    "shipway_worker_attempts_total", "Attempts that this worker ended.", ["kind", "result"], registry=_registry
)
_claims = Counter("shipway_worker_claims_total", "Attempts that this worker took.", registry=_registry)
_phases = Histogram(
    "shipway_worker_phase_duration_seconds",
    "Parts of an attempt.",
    ["kind", "phase"],
    buckets=_BUCKETS,
    registry=_registry,
)


def claimed() -> None:
    _claims.inc()


def attempt(kind: str, result: str, phases: Mapping[Phase, float]) -> None:
    """An attempt has ended."""
    _attempts.labels(kind, result).inc()
    for phase, seconds in phases.items():
        _phases.labels(kind, phase).observe(seconds)


def collected(folder: str) -> CollectorRegistry:
    """All processes' figures together, for one scrape."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return registry
