"""Docker's progress streams: JSON messages that a client draws as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import Counter

from engine.api import answer, errors
from engine.api.call import Call
from engine.registry.client import ProgressEvent

_LAYER_STATUS_SECONDS = 0.1

Say = Callable[[dict[str, Any]], None]


async def stream(call: Call, work: Callable[[Say], Coroutine[Any, Any, None]]) -> web.StreamResponse:
    """Do `work` and send each message it says.

    Headers go out with the first message. An error before it becomes the answer's status, as the clients
    expect of, say, an invalid reference; one after it becomes the last message.
    """
    messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(messages.put_nowait)
        finally:
            messages.put_nowait(None)

    working = asyncio.create_task(run())
    response: web.StreamResponse | None = None
    try:
        async for batch in _batches(messages):
            if response is None:
                response = await answer.begin(call, "application/json")
            await response.write(b"".join(msgspec.json.encode(message) + b"\r\n" for message in batch))
        try:
            await working
        except Exception as error:
            if response is None:
                raise
            await response.write(msgspec.json.encode(error_message(error)) + b"\r\n")
    finally:
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    if response is None:
        response = await answer.begin(call, "application/json")
    await response.write_eof()
    return response


async def _batches(messages: asyncio.Queue[dict[str, Any] | None]) -> AsyncIterator[list[dict[str, Any]]]:
    """What has been said since, each time something has; ends at None."""
    while (first := await messages.get()) is not None:
        batch = [first]
        while not messages.empty():
            following = messages.get_nowait()
            if following is None:
                yield batch
                return
            batch.append(following)
        yield batch


def error_message(error: BaseException, code: int | None = None) -> dict[str, Any]:
    """The last message of work that failed. `code` is a build step's exit code."""
    message = errors.message_of(error)
    detail: dict[str, Any] = {"message": message}
    if code is not None:
        detail["code"] = code
    return {"errorDetail": detail, "error": message}


class Layers:
    """Turns a transfer's progress into messages, at most ten a second for each layer."""

    def __init__(self, say: Say, moved: Counter) -> None:
        self._say = say
        self._moved = moved
        self._counted: dict[str, int] = {}
        self._shown: dict[str, tuple[str, float]] = {}

    def __call__(self, event: ProgressEvent) -> None:
        self._count(event)
        now = asyncio.get_running_loop().time()
        status, at = self._shown.get(event.id or "", ("", 0.0))
        if event.status == status and now - at < _LAYER_STATUS_SECONDS and event.current != event.total:
            return
        self._shown[event.id or ""] = (event.status, now)
        message: dict[str, Any] = {"status": event.status}
        if event.id:
            message["id"] = event.id
        message["progressDetail"] = {}
        if event.current is not None and event.total:
            message["progressDetail"] = {"current": event.current, "total": event.total}
            message["progress"] = _bar(event.current, event.total)
        self._say(message)

    def _count(self, event: ProgressEvent) -> None:
        """Add the bytes that went over the wire since the layer's last report."""
        if event.id and event.current is not None and event.status in {"Downloading", "Pushing"}:
            before = self._counted.get(event.id, 0)
            self._moved.inc(max(0, event.current - before))
            self._counted[event.id] = max(before, event.current)


def _bar(current: int, total: int) -> str:
    filled = min(50, current * 50 // total)
    arrow = "=" * filled + (">" if filled < 50 else "")
    return f"[{arrow:<50}] {_size(current):>7}/{_size(total)}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.4g}TB"
