"""Our ends of a process's pipes and terminals, on the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Collection

_CHUNK = 1 << 16
_LARGEST_PIPE = 1 << 20


class Reader:
    """Bytes from a descriptor, which it owns, until the other side has closed it."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[bool] | None = None

    def take(self) -> bytes | None:
        """What is there already: None for nothing yet, empty at the end."""
        if self._fd < 0:
            return b""
        try:
            return os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            # EIO: the last process on the terminal is gone.
            return b""

    def rest(self) -> bytes:
        """All that is there already: no more than a pipe can hold."""
        pieces = b""
        while len(pieces) < _LARGEST_PIPE and (data := self.take()):
            pieces += data
        return pieces

    def watch(self, ready: asyncio.Future[bool]) -> None:
        """Has `ready` become True once there is something to take, until `forget`."""
        self._waiting = ready
        if self._fd < 0:
            _settle(ready)
        else:
            self._loop.add_reader(self._fd, _settle, ready)

    def forget(self) -> None:
        self._waiting = None
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def drain(self) -> None:
        """Reads into nowhere until the end, then closes: whoever writes is neither stopped nor ended by it."""
        if self.take() == b"":
            self.close()
        else:
            self._loop.add_reader(self._fd, self.drain)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            if self._waiting is not None:
                _settle(self._waiting)


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
        ready: asyncio.Future[bool] = self._loop.create_future()
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


def _settle(ready: asyncio.Future[bool], value: bool = True) -> None:
    if not ready.done():
        ready.set_result(value)


async def merged(
    readers: dict[str, Reader], ended: asyncio.Future[int] | None = None, grace: float = 0.2
) -> AsyncGenerator[tuple[str, bytes]]:
    """What all of them give, as it comes, until all are at their end.

    A process that left a child behind with its pipes open would never end: once `ended` is done, `grace`
    seconds of silence close the conversation. All that the process itself had written has been given by then.
    """
    going = dict(readers)
    while going:
        came = False
        for name, reader in list(going.items()):
            data = reader.take()
            if data:
                came = True
                yield name, data
            elif data is not None:
                del going[name]
        if came:
            await asyncio.sleep(0)  # one that never stops talking must let others have their turn
        elif going and not await _more(going.values(), ended, grace):
            # Silence may also mean that this loop was busy: look once more at what is there.
            for name, reader in going.items():
                if rest := reader.rest():
                    yield name, rest
            return


async def _more(readers: Collection[Reader], ended: asyncio.Future[int] | None, grace: float) -> bool:
    """Waits until one of them has something; False once `ended` is done and `grace` seconds have brought nothing."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()
    silence: asyncio.TimerHandle | None = None

    def over(_: object) -> None:
        nonlocal silence
        silence = loop.call_later(grace, _settle, ready, False)

    for reader in readers:
        reader.watch(ready)
    if ended is not None:
        ended.add_done_callback(over)
    try:
        return await ready
    finally:
        for reader in readers:
            reader.forget()
        if ended is not None:
            ended.remove_done_callback(over)
        if silence is not None:
            silence.cancel()
