"""/containers/{ref}/attach, logs and resize: a container's standard streams."""

from __future__ import annotations

import re
from contextlib import aclosing

from aiohttp import web

from engine.api import answer
from engine.api.call import Call
from engine.api.connection import Duplex, Taken
from engine.api.converse import converse
from engine.api.detach import DetachKeys, parse
from engine.api.frames import frame, media_type
from engine.api.router import Routes
from engine.containers import times
from engine.errors import Conflict, InvalidInput

routes = Routes()
_COUNT = re.compile(r"[0-9]{1,18}")


@routes.add("POST", "/containers/{ref:link}/resize")
async def resize(call: Call) -> web.StreamResponse:
    rows, columns = call.number("h") or 0, call.number("w") or 0
    await call.rooms.containers.streams.resize(call.container(), rows, columns)
    return answer.empty(200)


@routes.add("POST", "/containers/{ref:link}/attach")
async def attach(call: Call) -> web.StreamResponse:
    container, streams = call.container(), call.rooms.containers.streams
    stdin = call.flag("stdin")
    keys = DetachKeys(parse(call.text("detachKeys")))
    if container.state.status == "paused":
        raise Conflict(f"Container {call.params['ref']} is paused, unpause the container before attach.")
    logs = call.flag("logs")
    tty = container.config.tty
    session = await streams.attach(
        container,
        stdin=stdin and call.flag("stream"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        logs=logs,
        stream=call.flag("stream"),
    )
    duplex = Duplex.take(call.request, media_type(tty=tty, version=call.version))
    await converse(duplex, session, tty=tty, stdin=stdin, keys=keys, framed=not tty)
    if keys.pressed:
        streams.detached(container)
    return Taken()


@routes.add("GET", "/containers/{ref:link}/logs", streaming=True)
async def logs(call: Call) -> web.StreamResponse:
    stdout, stderr = call.flag("stdout"), call.flag("stderr")
    if not stdout and not stderr:
        raise InvalidInput("Bad parameters: you must choose at least one stream")
    container = call.container()
    lines = call.rooms.containers.streams.logs(
        container,
        follow=call.flag("follow"),
        since=times.parse_since(call.text("since")),
        until=times.parse_since(call.text("until")),
        tail=_count(call.text("tail")),
        stdout=stdout,
        stderr=stderr,
    )
    tty, timestamps = container.config.tty, call.flag("timestamps")
    # What a log driver adds to a line comes before it; json-file adds nothing.
    head = b" " if call.flag("details") else b""
    # Begun before the answer is: its reader may remove the container at once.
    async with lines, aclosing(aiter(lines)) as found:
        response = await answer.begin(call, media_type(tty=tty, version=call.version))
        async for stream, at, data in found:
            shown = head + (f"{times.rfc3339(at)} ".encode() if timestamps else b"") + data
            await response.write(shown if tty else frame(stream, shown))
    await response.write_eof()
    return response


def _count(tail: str) -> int | None:
    """How many lines; None for all, which whatever is no number means, as in Docker."""
    return int(tail) if _COUNT.fullmatch(tail) else None
