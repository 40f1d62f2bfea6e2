"""Named volumes of the local driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.containers.events import EventBus


class Volume(Struct, rename="pascal", kw_only=True):
    """`mountpoint` is where its files are on the host. `created` in RFC 3339."""

    name: str
    driver: str = "local"
    mountpoint: str
    created: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False


class Volumes:
    """All volumes of one engine. Sync: each call is a few small files."""

    def __init__(self, root: Path, events: EventBus, users: Callable[[str], Sequence[str]]) -> None:
        """`users(name)` gives the ids of the containers that refer to a volume."""

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume: ...
    def get(self, name: str) -> Volume: ...
    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[Volume]: ...
    def remove(self, name: str, *, force: bool = False) -> None: ...
    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[list[str], int]: ...
    def json(self, volume: Volume) -> dict[str, Any]:
        """Docker's volume JSON."""
