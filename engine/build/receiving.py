"""A build's context as it arrives from a client."""

from __future__ import annotations

import asyncio
import io
import queue
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, cast

from engine.build.spool import SpooledContext, spool
from engine.errors import InvalidInput, SystemFailure
from engine.images.compression import decompressed

_AHEAD = 4 << 20


async def receive(stream: AsyncIterator[bytes], folder: Path) -> SpooledContext:
    """Like `spool`, from a client's request as it arrives; gzip, xz, bzip2 and zstd are undone."""
    arriving = _Arriving(asyncio.get_running_loop())
    feeding = asyncio.ensure_future(arriving.feed(stream))
    try:
        return await asyncio.to_thread(lambda: spool(decompressed(cast(BinaryIO, arriving)), folder))
    except OSError as error:
        if error is arriving.failure:
            raise
        raise SystemFailure(f"the build context could not be kept: {error.strerror}", error.errno) from error
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


class _Arriving(io.RawIOBase):
    """An asynchronous stream read from a thread. The sender gets ahead of the reader by a few megabytes at most.

    Clients send an archive in a thousand pieces: the two sides wait for each other only when they must.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._left = memoryview(b"")
        self._lock = threading.Lock()
        self._waiting = 0  # bytes that were put and not yet read
        self._room = asyncio.Event()
        self._ended = False
        self.failure: BaseException | None = None

    async def feed(self, stream: AsyncIterator[bytes]) -> None:
        """Hands over the stream, to its end or to when nobody wants the rest: then the task is cancelled."""
        try:
            async for piece in stream:
                if not piece:
                    continue
                with self._lock:
                    self._waiting += len(piece)
                    full = self._waiting > _AHEAD
                    if full:
                        self._room.clear()
                self._pieces.put(piece)
                if full:
                    await self._room.wait()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self._pieces.put(None)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if not self._left and not self._ended:
            self._left = memoryview(self._next())
        taken = self._left if size < 0 else self._left[:size]
        self._left = self._left[len(taken) :]
        return bytes(taken)

    def _next(self) -> bytes:
        """As much as is there, or the next piece; empty at the end."""
        found: list[bytes] = []
        while not self._ended and (not found or not self._pieces.empty()):
            piece = self._pieces.get()
            if piece is None:
                self._ended = True
            else:
                found.append(piece)
        if self._ended and self.failure is not None:
            if isinstance(self.failure, asyncio.CancelledError):
                raise InvalidInput("the build context was cut off")
            raise self.failure
        together = b"".join(found) if len(found) != 1 else found[0]
        with self._lock:
            was_full = self._waiting > _AHEAD
            self._waiting -= len(together)
        if was_full:
            self._loop.call_soon_threadsafe(self._room.set)
        return together
