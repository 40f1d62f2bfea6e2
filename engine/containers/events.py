"""What happens in the engine, told to whoever listens: `docker events`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.containers import times

if TYPE_CHECKING:
    from engine.images.image import Image

_REMEMBERED = 1024
_UNREAD = 8192


@dataclass(frozen=True)
class Event:
    """`kind` is Docker's Type: container, image, network, volume, builder or daemon."""

    kind: str
    action: str
    actor: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    at: int = 0

    def json(self) -> dict[str, Any]:
        """Docker's event, with the older fields that tools still read beside the newer ones."""
        shown: dict[str, Any] = {}
        if self.kind in ("container", "image"):
            shown["status"] = self.action
            shown["id"] = self.actor
            if self.kind == "container" and "image" in self.attributes:
                shown["from"] = self.attributes["image"]
        return shown | {
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.actor, "Attributes": dict(self.attributes)},
            "scope": "local",
            "time": self.at // 1_000_000_000,
            "timeNano": self.at,
        }


Wanted = Callable[[Event], bool]


class EventBus:
    """One loop's events. The last thousand are kept for those who ask `since`."""

    def __init__(self) -> None:
        self._past: deque[Event] = deque(maxlen=_REMEMBERED)
        self._listeners: set[asyncio.Queue[Event | None]] = set()

    @property
    def listeners(self) -> int:
        """How many are subscribed now."""
        return len(self._listeners)

    def publish(
        self, kind: str, action: str, actor: str, attributes: Mapping[str, str] | None = None, *, at: int = 0
    ) -> Event:
        """Never blocks. A listener that fell 8,192 events behind is cut off: its iteration ends."""
        event = Event(kind, action, actor, dict(attributes or {}), at or times.now())
        self._past.append(event)
        for queue in list(self._listeners):
            if queue.qsize() < _UNREAD:
                queue.put_nowait(event)
            else:
                self._listeners.discard(queue)
                queue.put_nowait(None)
        return event

    def of_image(self, action: str, image: Image, name: str = "", actor: str = "") -> None:
        """Publishes an event of the image, with its labels; `name` and `actor` are its id if not given."""
        attributes = {**image.config.config.labels, "name": name or image.id}
        self.publish("image", action, actor or image.id, attributes)

    def pruned(self, kind: str, freed: int) -> None:
        """Tells of a prune of all things of one kind, which gave back `freed` bytes."""
        self.publish(kind, "prune", "", {"reclaimed": str(freed)})

    def past(self, since: int, until: int = 0) -> list[Event]:
        return [event for event in self._past if event.at >= since and (not until or event.at <= until)]

    async def subscribe(self, *, since: int = 0, until: int = 0, wanted: Wanted | None = None) -> AsyncIterator[Event]:
        """Events as they come, those remembered from `since` first (0: none). Times in unix nanoseconds.

        Ends at `until` (0: never). Wrap it in `contextlib.aclosing` where the loop may be left early.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        backlog = self.past(since, until) if since else []
        self._listeners.add(queue)
        try:
            for event in backlog:
                if wanted is None or wanted(event):
                    yield event
            while True:
                try:
                    async with asyncio.timeout((until - times.now()) / 1e9 if until else None):
                        received = await queue.get()
                except TimeoutError:
                    return
                if received is None:
                    return
                if wanted is None or wanted(received):
                    yield received
        finally:
            self._listeners.discard(queue)

    async def next(self, wanted: Wanted) -> Event:
        """The next event that is wanted."""
        async with aclosing(self.subscribe(wanted=wanted)) as events:  # type: ignore[type-var]
            async for event in events:
                return event
        raise asyncio.CancelledError
