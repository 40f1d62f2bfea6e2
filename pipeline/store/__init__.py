"""The rows that are the truth about events, runs, logs, workers, services and their releases."""

from __future__ import annotations

from pipeline.store.store import Store, open_store

__all__ = ["Store", "open_store"]
