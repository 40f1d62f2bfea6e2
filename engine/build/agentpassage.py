"""An ssh agent for one step: a socket of the step's own that leads to the agent.

Agents ask the kernel who has connected, and the step's users are strangers to them: so it is the engine that
connects, and the socket can have any owner and mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

_CHUNK = 1 << 16


@contextlib.asynccontextmanager
async def passage(door: Path, agent: Path, owner: tuple[int, int], mode: int) -> AsyncIterator[None]:
    """While the block lasts, whoever connects to the new socket `door` talks to `agent`. Raises OSError."""
    opened = _Passage(door, agent)
    try:
        os.chown(door, *owner)
        door.chmod(mode)
        yield
    finally:
        await opened.close()


class _Passage:
    def __init__(self, door: Path, agent: Path) -> None:
        self._agent = agent
        self._door = _bound(door)
        self._sockets: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Not sock_accept: what it has accepted when it is cancelled is lost.
        asyncio.get_running_loop().add_reader(self._door, self._accept)

    async def close(self) -> None:
        """Ends all connections."""
        asyncio.get_running_loop().remove_reader(self._door)
        self._door.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        try:
            near, _ = self._door.accept()
        except OSError:
            return  # it went away again
        near.setblocking(False)
        self._sockets.add(near)
        task = asyncio.get_running_loop().create_task(self._join(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, near: socket.socket) -> None:
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._sockets.add(far)
        try:
            await asyncio.get_running_loop().sock_connect(far, str(self._agent))
            both = [asyncio.ensure_future(_pump(near, far)), asyncio.ensure_future(_pump(far, near))]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        except OSError:
            pass  # the agent is gone: so is the connection
        finally:
            for one in (near, far):
                self._sockets.discard(one)
                one.close()


def _bound(door: Path) -> socket.socket:
    """A socket's name has 107 bytes at most; by way of its folder's descriptor it is always short enough."""
    folder = os.open(door.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.bind(f"/proc/self/fd/{folder}/{door.name}")
        made.listen()
    except OSError:
        made.close()
        raise
    finally:
        os.close(folder)
    return made


async def _pump(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(target, data)
