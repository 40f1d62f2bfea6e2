"""A page that stays true while somebody looks: its sections as server-sent events, each sent when it changed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from server.conductor import Conductor
from server.live import Feed
from server.pages.templates import render
from server.pages.view import Load, View

_OLDEST = 5.0
"""Seconds after which a page is made anew without news too: that a host has gone silent is none."""
_CALM = 0.25
"""Seconds between two looks of one reader, however much goes on."""
_KEPT = 64
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Made:
    """A page's sections at one version of the feed."""

    view: View
    sections: Mapping[str, str]
    version: int
    at: float


@dataclass
class _Slot:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    made: Made | None = None


class Maker:
    """Makes the sections of a page once for all who look at it."""

    def __init__(self, conductor: Conductor, feed: Feed) -> None:
        self._conductor = conductor
        self._feed = feed
        self._slots: dict[str, _Slot] = {}

    async def make(self, key: str, load: Load) -> Made:
        """The page as it is now. `key` names it. Raises what `load` raises."""
        slot = self._slots.pop(key, None) or _Slot()
        self._slots[key] = slot
        while len(self._slots) > _KEPT:
            del self._slots[next(iter(self._slots))]
        async with slot.lock:
            made = slot.made
            if made is None or made.version != self._feed.version or time.monotonic() - made.at > _OLDEST / 2:
                made = slot.made = await self._anew(load)
            return made

    async def _anew(self, load: Load) -> Made:
        version, at = self._feed.version, time.monotonic()

        def work() -> Made:
            view = load(self._conductor)
            sections = {name: render(f"{view.name}/{name}.html", view.values) for name in view.sections}
            return Made(view, sections, version, at)

        return await run_in_threadpool(work)


def event(name: str, data: str, *, number: str = "") -> str:
    """One server-sent event; `number` is what a browser that was cut off says it has."""
    # Not splitlines: that also breaks at characters that are no line's end here.
    lines = "".join(f"data: {line}\n" for line in _LINE_END.split(data))
    return (f"id: {number}\n" if number else "") + f"event: {name}\n{lines}\n"


async def follow(maker: Maker, feed: Feed, key: str, load: Load) -> AsyncIterator[tuple[str, Made]]:
    """(events to send, the page) at each look: all sections first, then those that changed; ends with the page."""
    sent: dict[str, str] = {}
    while not feed.closed:
        made = await maker.make(key, load)
        fresh = {name: html for name, html in made.sections.items() if sent.get(name) != html}
        sent |= fresh
        yield "".join(event(name, html) for name, html in fresh.items()) or ": still here\n\n", made
        if made.view.over:
            return
        await asyncio.sleep(_CALM)
        await feed.wait(made.version, _OLDEST)
