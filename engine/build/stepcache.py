"""Results of build steps by their keys, kept in SQLite under the engine's data root."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    key TEXT PRIMARY KEY,
    chain_id TEXT NOT NULL,
    diff_id TEXT NOT NULL,
    created TEXT NOT NULL,
    used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS steps_chain ON steps (chain_id);
"""


@dataclass(frozen=True)
class Result:
    """What a step gave: its layer (both empty where it changed no file) and when it was made, RFC 3339."""

    chain_id: str
    diff_id: str
    created: str


class StepCache:
    """Safe for threads. Losing it costs time and nothing else, so writes are not waited for."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def get(self, key: str) -> Result | None:
        with (
            self._lock,
            closing(self._db.execute("SELECT chain_id, diff_id, created FROM steps WHERE key = ?", (key,))) as rows,
        ):
            row = rows.fetchone()
            if row is None:
                return None
            self._db.execute("UPDATE steps SET used = ? WHERE key = ?", (time.time(), key))
            return Result(*row)

    def put(self, keys: Iterator[str] | tuple[str, ...], result: Result) -> None:
        """The same result under each of `keys`; the newest holds."""
        rows = [(key, result.chain_id, result.diff_id, result.created, time.time()) for key in keys]
        with self._lock:
            self._db.executemany("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?)", rows)

    def forget(self, chain_id: str) -> None:
        """Drops what refers to a layer that is gone."""
        with self._lock:
            self._db.execute("DELETE FROM steps WHERE chain_id = ?", (chain_id,))

    def chains(self, used_since: float = 0) -> set[str]:
        """The layers that the cache would like to keep; `used_since` in unix seconds."""
        with (
            self._lock,
            closing(self._db.execute("SELECT DISTINCT chain_id FROM steps WHERE used >= ?", (used_since,))) as rows,
        ):
            return {chain for (chain,) in rows.fetchall() if chain}

    def prune(self, used_before: float) -> int:
        """Forgets what was not used since; the number of results dropped."""
        with self._lock:
            return self._db.execute("DELETE FROM steps WHERE used < ?", (used_before,)).rowcount
