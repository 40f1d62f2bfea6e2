"""Client connections, and taking one over for raw bytes in both directions.

Docker's clients ask for `Upgrade: tcp`, get `101 UPGRADED`, and then the connection is a terminal's or a
program's standard streams. When the client has no more input it closes its half only: output must go on. A
stock aiohttp connection closes as a whole then, so ours says at the end of input that it stays open.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import termios
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

_READ_LIMIT = 256 * 1024
_HEAD_TRIES, _HEAD_PAUSE, _HEAD_TCP_PAUSE = 100, 0.0005, 0.04


def _unread(fd: int) -> bool:
    return any(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))


class Connection(RequestHandler):
    """One client's connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._raw: asyncio.StreamReader | None = None
        self._when_lost: set[Callable[[], object]] = set()
        self._lost = False
        self.begun = False
        """Whether the headers of the answer to the request at hand are out."""

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.feed_data(data)
        else:
            super().data_received(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        if self._raw is None:
            super().eof_received()
            return None
        self._raw.feed_eof()
        return not self._hung_up()

    def _hung_up(self) -> bool:
        """Whether the client has closed both halves. Only a unix socket tells; TCP does when we write."""
        if self.transport is None:
            return True
        poller = select.poll()
        poller.register(self.transport.get_extra_info("socket").fileno(), 0)
        return any(events & select.POLLHUP for _, events in poller.poll(0))

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost = True
        if self._raw is not None:
            self._raw.feed_eof()
        for callback in list(self._when_lost):
            callback()
        super().connection_lost(exc)

    def when_lost(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when the client is gone: at once, if it is already."""
        if self._lost:
            callback()
        else:
            self._when_lost.add(callback)

    def forget(self, callback: Callable[[], object]) -> None:
        self._when_lost.discard(callback)

    def take_over(self) -> asyncio.StreamReader:
        """From now on bytes that come in are the reader's, not HTTP.

        Clients wait for the answer to their request before they send any; one that is gone already has sent all.
        """
        self._raw = asyncio.StreamReader(limit=_READ_LIMIT)
        if self.transport is None:
            self._raw.feed_eof()
        else:
            self._raw.set_transport(self.transport)
        return self._raw

    async def drain(self) -> None:
        """Wait until the client has read enough. Raises ConnectionError when it is gone."""
        if self._lost:
            raise ConnectionResetError("the client is gone")
        await self._drain_helper()


class Server(web.Server):
    """aiohttp's low-level server, with our kind of connection."""

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Taken(web.StreamResponse):
    """The answer of a connection that was taken over: all has been said."""

    async def prepare(self, request: web.BaseRequest) -> Any:
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return None

    @property
    def prepared(self) -> bool:
        return True

    @property
    def keep_alive(self) -> bool | None:
        return False


class Duplex:
    """A connection that was taken over."""

    def __init__(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        self._connection = connection
        self._reader = reader
        self._begun = False

    @classmethod
    def take(cls, request: web.BaseRequest, media_type: str) -> Duplex:
        """Answer `request` with a raw stream: 101 when the client asked for the upgrade, else 200.

        Also where the client is gone: it is for `when_lost` to say so, to whoever has something to put away.
        """
        connection = cast(Connection, request.protocol)
        connection.begun = True
        reader = connection.take_over()
        if request.headers.get("Upgrade", "").lower() == "tcp":
            head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        else:
            head = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
        if connection.transport is not None:
            connection.transport.write(f"{head}Content-Type: {media_type}\r\n\r\n".encode())
        return cls(connection, reader)

    async def read(self) -> bytes:
        """What the client sent next; empty when it has no more to say."""
        return await self._reader.read(_READ_LIMIT)

    async def write(self, data: bytes) -> None:
        """Send to the client, as fast as it reads. Raises ConnectionError when it is gone."""
        if not self._begun:
            self._begun = True
            await self._head_is_read()
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)
        await self._connection.drain()

    async def _head_is_read(self) -> None:
        """Wait a moment for the client to read the head of the answer.

        docker-py's buffered reader would take what follows along with it and lose it: it goes on with the bare
        socket. Only a unix socket tells what its other end has not read yet; of others we can but hope that the
        client is as quick as with dockerd, whose processes have never begun by then.
        """
        transport = self._connection.transport
        one = transport.get_extra_info("socket") if transport is not None else None
        if one is None:
            return
        if one.family != socket.AF_UNIX:
            await asyncio.sleep(_HEAD_TCP_PAUSE)
            return
        for _ in range(_HEAD_TRIES):
            if self._connection.transport is None or not _unread(one.fileno()):
                return
            await asyncio.sleep(_HEAD_PAUSE)

    def when_lost(self, callback: Callable[[], object]) -> None:
        self._connection.when_lost(callback)

    def forget(self, callback: Callable[[], object]) -> None:
        self._connection.forget(callback)
