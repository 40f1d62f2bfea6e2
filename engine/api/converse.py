"""Between a client's connection and a process's streams: attach and exec."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import aclosing
from typing import Protocol, cast

from engine.api.detach import DetachKeys
from engine.api.frames import frame
from engine.containers.session import Session


class Duplex(Protocol):
    """A client's side of the conversation."""

    async def read(self) -> bytes:
        """What the client sent next; empty when it has no more to say."""

    async def write(self, data: bytes) -> None:
        """Send to the client, as fast as it reads. Raises ConnectionError when it is gone."""

    def when_lost(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when the client is gone: at once, if it is already."""

    def forget(self, callback: Callable[[], object]) -> None: ...


async def converse(duplex: Duplex, session: Session, *, tty: bool, stdin: bool, keys: DetachKeys, framed: bool) -> None:
    """Carry bytes both ways until the process closes its streams, or the client leaves.

    `framed` output tells stdout from stderr.
    """
    talking = asyncio.current_task()
    assert talking is not None
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        talking.cancel()

    async def listen() -> None:
        while data := await duplex.read():
            typed, detach = keys.feed(data) if tty else (data, False)
            if stdin and typed:
                await session.write(typed)
            if detach:
                leave()
                return
        if stdin:
            await session.close_stdin()

    listening = asyncio.create_task(listen())
    duplex.when_lost(leave)
    try:
        output = session.output()
        async with aclosing(output):  # type: ignore[type-var]
            async for stream, data in output:
                await duplex.write(frame(stream, data) if framed else data)
    except asyncio.CancelledError:
        if not left:
            raise
        cast("asyncio.Task[None]", talking).uncancel()
    except ConnectionError:
        pass
    finally:
        duplex.forget(leave)
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await listening
        await session.close()
