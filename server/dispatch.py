"""How hints leave the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol


class Dispatcher(Protocol):
    """What `workers.dispatch.Dispatcher` is. May raise anything: a hint that was not sent is sent again."""

    def attempt(self, attempt: str, labels: Mapping[str, str], near: str | None = None) -> object: ...

    def step(self, step: int, host: str) -> object: ...

    def depths(self, queues: Iterable[str]) -> dict[str, int]: ...

    def close(self) -> None: ...


class NoDispatcher:
    """Sends nothing: workers that ask by themselves, and tests."""

    def attempt(self, attempt: str, labels: Mapping[str, str], near: str | None = None) -> None: ...

    def step(self, step: int, host: str) -> None: ...

    def depths(self, queues: Iterable[str]) -> dict[str, int]:
        return {}

    def close(self) -> None: ...
