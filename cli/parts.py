"""`shipway engine`, `server`, `worker`: each part alone, for systems of many hosts."""

from __future__ import annotations

from engine.__main__ import engine
from server.__main__ import server
from workers.__main__ import worker

__all__ = ["engine", "server", "worker"]
