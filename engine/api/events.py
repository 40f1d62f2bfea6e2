"""/events: what happens, as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from engine.api import answer
from engine.api.call import Call
from engine.api.negotiate import Version
from engine.api.router import Routes
from engine.containers import times
from engine.containers.events import Event
from engine.errors import InvalidInput

routes = Routes()
_IMAGES_MADE = (1, 46)
"""The version since when clients are told of images that were built."""


@routes.add("GET", "/events", streaming=True)
async def events(call: Call) -> web.StreamResponse:
    wanted = call.filters()
    since, until = times.parse_since(call.text("since")), times.parse_since(call.text("until"))
    if since and until and since > until:
        raise InvalidInput("`since` time cannot be after `until` time")
    # From now on, whatever happens before the first event is asked for: headers go out in between.
    found = call.rooms.events.subscribe(
        # Until a time alone: all that is remembered.
        since=since or (1 if until else times.now()),
        until=until,
        wanted=lambda event: _is_known(event, call.version) and _event_fits(event, wanted),
    )

    async def shown() -> AsyncIterator[dict[str, Any]]:
        async with aclosing(found) as source:  # type: ignore[type-var]
            async for event in source:
                yield event.json()

    return await answer.json_lines(call, shown())


def _is_known(event: Event, version: Version) -> bool:
    return version >= _IMAGES_MADE or (event.kind, event.action) != ("image", "create")


_KINDS = frozenset(
    ("container", "image", "network", "volume", "daemon", "builder", "node", "service", "secret", "config", "plugin")
)


def _event_fits(event: Event, wanted: dict[str, list[str]]) -> bool:
    def named(kind: str, values: list[str]) -> bool:
        """Whether the event is about one of the named things."""
        if kind == "image":
            image = event.attributes.get("name" if event.kind == "image" else "image", "")
            return any(value in {event.actor, image, image.rpartition(":")[0]} for value in values)
        return event.kind == kind and any(
            event.actor.startswith(value) or event.attributes.get("name") == value for value in values
        )

    for name, values in wanted.items():
        if not values:
            continue
        if name == "type":
            fits = event.kind in values
        elif name == "event":
            fits = any(event.action == value or event.action.startswith(f"{value}:") for value in values)
        elif name == "label":
            pairs = {f"{key}={value}" for key, value in event.attributes.items()} | set(event.attributes)
            fits = all(value in pairs for value in values)
        elif name == "scope":
            fits = "local" in values
        else:
            # Docker passes over what it does not know, too.
            fits = named(name, values) if name in _KINDS else True
        if not fits:
            return False
    return True
