"""The rows that are the truth about events, runs, stages, attempts, logs, services, releases, rollouts, workers."""

from __future__ import annotations

from pipeline.store.store import Store, open_store

__all__ = ["Store", "open_store"]
