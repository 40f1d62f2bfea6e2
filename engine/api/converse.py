"""Between a client's connection and a process's streams: attach and exec."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from typing import cast

from engine.api.connection import Duplex
from engine.api.detach import DetachKeys
from engine.api.frames import frame
from engine.containers.session import Session


async def converse(duplex: Duplex, session: Session, *, tty: bool, stdin: bool, keys: DetachKeys) -> None:
    """Carry bytes both ways until the process closes its streams, or the client leaves."""
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
                await duplex.write(data if tty else frame(stream, data))
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
