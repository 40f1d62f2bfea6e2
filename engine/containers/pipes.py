"""Our ends of a process's pipes and terminals, on the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator

_CHUNK = 1 << 16
_LARGEST_PIPE = 1 << 20


class Reader:
    """Bytes from a descriptor, which it owns, until the other side has closed it."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None

    async def chunks(self) -> AsyncGenerator[bytes]:
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                await self._readable()
                continue
            except OSError:
                # EIO: the last process on the terminal is gone.
                return
            if not data:
                return
            yield data

    def rest(self) -> bytes:
        """What is there already, without waiting: no more than a pipe can hold."""
        pieces = b""
        with contextlib.suppress(OSError):
            while self._fd >= 0 and len(pieces) < _LARGEST_PIPE and (data := os.read(self._fd, _CHUNK)):
                pieces += data
        return pieces

    async def _readable(self) -> None:
        self._waiting = self._loop.create_future()
        self._loop.add_reader(self._fd, self._wake)
        try:
            await self._waiting
        finally:
            if self._fd >= 0:
                self._loop.remove_reader(self._fd)
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._wake()


class Writer:
    """Bytes to a descriptor, which it owns, as fast as the other side reads."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()

    async def write(self, data: bytes) -> None:
        """Drops what no one will ever read."""
        view = memoryview(data)
        while view and self._fd >= 0:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._writable()
            except OSError:
                self.close()

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        fd = self._fd
        self._loop.add_writer(fd, _settle, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(fd)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def merged(
    readers: dict[str, Reader], ended: asyncio.Future[int] | None = None, grace: float = 0.2
) -> AsyncGenerator[tuple[str, bytes]]:
    """What all of them give, as it comes, until all are at their end.

    A process that left a child behind with its pipes open would never end: once `ended` is done, `grace`
    seconds of silence close the conversation. All that the process itself had written has been given by then.
    """
    queue: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(16)
    whole = False

    async def pump(name: str, reader: Reader) -> None:
        async for data in reader.chunks():
            await queue.put((name, data))

    async def pump_all() -> None:
        nonlocal whole
        await asyncio.gather(*(pump(name, reader) for name, reader in readers.items()))
        whole = True
        await queue.put(None)

    task = asyncio.create_task(pump_all())
    try:
        while (item := await _next(queue, ended, grace)) is not None:
            yield item
        if not whole:
            # Silence may also mean that this loop was busy: look once more at what is there.
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            while not queue.empty():
                if (item := queue.get_nowait()) is not None:
                    yield item
            for name, reader in readers.items():
                if rest := reader.rest():
                    yield name, rest
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _next(
    queue: asyncio.Queue[tuple[str, bytes] | None], ended: asyncio.Future[int] | None, grace: float
) -> tuple[str, bytes] | None:
    if not queue.empty():
        return queue.get_nowait()
    if ended is None:
        return await queue.get()
    getter = asyncio.create_task(queue.get())
    try:
        done, _ = await asyncio.wait((getter, ended), return_when=asyncio.FIRST_COMPLETED)
        if getter not in done:
            await asyncio.wait((getter,), timeout=grace)
        return getter.result() if getter.done() else None
    finally:
        getter.cancel()
