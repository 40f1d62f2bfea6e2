"""Ways to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

import msgspec
from aiohttp import web

from engine.api.call import Call
from engine.api.connection import Connection

_encode = msgspec.json.encode


def json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=_encode(value) + b"\n", status=status, content_type="application/json")


def empty(status: int = 204) -> web.Response:
    return web.Response(status=status)


def plain(text: str) -> web.Response:
    return web.Response(body=text.encode(), content_type="text/plain", charset="utf-8")


async def begin(call: Call, media_type: str, headers: dict[str, str] | None = None) -> web.StreamResponse:
    """Send status 200 and the headers now; the body follows in pieces."""
    response = web.StreamResponse(headers={"Content-Type": media_type, **(headers or {})})
    cast(Connection, call.request.protocol).begun = True
    await response.prepare(call.request)
    return response


async def stream(
    call: Call, media_type: str, pieces: AsyncIterator[bytes], headers: dict[str, str] | None = None
) -> web.StreamResponse:
    """A body that comes in pieces; headers go out with, and not before, the first of them.

    An error before the first piece can so still be told by the status.
    """
    async with aclosing(pieces) as source:  # type: ignore[type-var]
        first = await anext(source, None)
        response = await begin(call, media_type, headers)
        if first is not None:
            await response.write(first)
            async for piece in source:
                await response.write(piece)
        await response.write_eof()
    return response


async def json_lines(call: Call, values: AsyncIterator[Any]) -> web.StreamResponse:
    """One JSON value a line, each sent as it comes; headers go out at once."""
    response = await begin(call, "application/json")
    async with aclosing(values) as source:  # type: ignore[type-var]
        async for value in source:
            await response.write(_encode(value) + b"\r\n")
    await response.write_eof()
    return response


Written = Callable[[bytes | bytearray | memoryview], object]
_PIECE = 256 * 1024


async def written(call: Call, media_type: str, work: Callable[[Written], object]) -> web.StreamResponse:
    """A body that `work` writes, in a thread. Headers go out with its first bytes, so it may fail before."""
    loop = asyncio.get_running_loop()
    response: web.StreamResponse | None = None
    waiting = bytearray()

    async def send(piece: bytes) -> None:
        nonlocal response
        if response is None:
            response = await begin(call, media_type)
        await response.write(piece)

    def flush() -> None:
        asyncio.run_coroutine_threadsafe(send(bytes(waiting)), loop).result()
        waiting.clear()

    def write(data: bytes | bytearray | memoryview) -> None:
        waiting.extend(data)
        if len(waiting) >= _PIECE:
            flush()

    await asyncio.to_thread(work, write)
    await send(bytes(waiting))
    assert response is not None
    await response.write_eof()
    return response
