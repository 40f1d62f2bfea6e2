"""What the handlers share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

from engine.registry.server import names
from engine.registry.server.guard import Guard
from engine.registry.server.metrics import Metrics
from engine.registry.server.storage.store import Storage


@dataclass(frozen=True)
class Limits:
    """The most that one client may send, in bytes."""

    manifest: int = 4 << 20
    blob: int = 64 << 30


@dataclass(frozen=True)
class State:
    """One registry. Storage is synchronous: what may wait for the disk goes through a thread."""

    storage: Storage
    guard: Guard
    metrics: Metrics
    limits: Limits
    collecting: asyncio.Lock = field(default_factory=asyncio.Lock)


STATE = web.AppKey("state", State)


def of(request: web.Request) -> State:
    return request.app[STATE]


def repository(request: web.Request) -> str:
    """The repository that the path names. Raises NAME_INVALID."""
    return names.repository(request.match_info["name"])
