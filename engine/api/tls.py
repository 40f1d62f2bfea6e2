"""TLS towards clients, plain HTTP towards the server.

asyncio's own TLS ends a connection as a whole when the client closes its half, as `docker run -i` does at the end
of its input, and the output that follows would be lost. So each connection is decrypted here and handed to the
server over a socket pair, which can be half open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl

from engine.api.connection import Server

_log = logging.getLogger(__name__)
_CHUNK = 256 * 1024
_HANDSHAKE_SECONDS = 15.0


class Gateway:
    """Serves TLS connections: `serve` is for `asyncio.start_server`."""

    def __init__(self, context: ssl.SSLContext, server: Server) -> None:
        self._context = context
        self._server = server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                session = await _Session.open(self._context, reader, writer)
            ours, theirs = socket.socketpair()
            await asyncio.get_running_loop().connect_accepted_socket(self._server, theirs)
            await session.relay(*await asyncio.open_connection(sock=ours, limit=_CHUNK))
        except (OSError, ssl.SSLError, TimeoutError) as error:
            _log.debug("TLS connection: %s", error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Session:
    """One client's connection."""

    def __init__(
        self,
        tls: ssl.SSLObject,
        bios: tuple[ssl.MemoryBIO, ssl.MemoryBIO],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._tls = tls
        self._incoming, self._outgoing = bios
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(
        cls, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> _Session:
        """Shakes hands. Raises ssl.SSLError, or ConnectionError when the client left."""
        bios = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = cls(context.wrap_bio(*bios, server_side=True), bios, reader, writer)
        while True:
            try:
                session._tls.do_handshake()
                return session
            except ssl.SSLWantReadError:
                pass
            finally:
                # An alert, too: it tells the client why.
                await session._flush()
            if not await session._receive():
                raise ConnectionResetError("the client left in the handshake")

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries bytes until the server has closed its end; the client may close its half before."""
        listening = asyncio.create_task(self._listen(writer))
        try:
            while data := await reader.read(_CHUNK):
                self._tls.write(data)
                await self._flush()
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            await self._flush()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            writer.close()

    async def _listen(self, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await self._read():
                writer.write(data)
                await writer.drain()
            writer.write_eof()
            while await self._reader.read(_CHUNK):
                continue
        finally:
            # Without a farewell the client is gone altogether, and the server is to know.
            writer.close()

    async def _read(self) -> bytes:
        """What the client sent next; empty when it has no more to say. Raises ConnectionError when it is gone."""
        while True:
            try:
                return self._tls.read(_CHUNK)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._receive():
                    raise ConnectionResetError("the client is gone") from None

    async def _receive(self) -> bool:
        data = await self._reader.read(_CHUNK)
        self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        if waiting := self._outgoing.read():
            self._writer.write(waiting)
            await self._writer.drain()
