"""What a pull or push reports while it runs, in Docker's own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """One line of news. `id` is a layer's twelve digits, a tag, or None when it concerns the whole."""

    id: str | None
    status: str
    current: int | None = None
    total: int | None = None


Progress = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """Reports to nobody."""


listener: ContextVar[Progress] = ContextVar("listener", default=silent)
"""Whom to tell about what is nobody's layer, such as a pause: tasks inherit it from the pull that began them."""


@contextmanager
def listening(progress: Progress) -> Iterator[None]:
    """Tells `progress` of the pauses in what is done within."""
    token = listener.set(progress)
    try:
        yield
    finally:
        listener.reset(token)


class Meter:
    """Reports bytes as they pass, at most once a step: a line for each packet would cost more than the packet."""

    def __init__(self, progress: Progress, layer: str, status: str, total: int | None) -> None:
        self._progress = progress
        self._layer = layer
        self._status = status
        self._total = total
        self._step = max((total or 0) // 50, 256 << 10)
        self._next = 0

    def at(self, current: int) -> None:
        if current >= self._next:
            self._next = current + self._step
            self._progress(ProgressEvent(self._layer, self._status, current, self._total))
