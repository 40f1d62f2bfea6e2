"""/containers/{ref}/attach/ws: a container's streams in a browser's WebSocket, unframed (RFC 6455)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from aiohttp import WSMsgType, web

from engine.api.call import Call
from engine.api.connection import Connection
from engine.api.converse import converse
from engine.api.detach import DetachKeys, parse
from engine.api.router import Routes
from engine.errors import Forbidden, InvalidInput

routes = Routes()
_BINARY_SINCE = (1, 28)
_STREAMS_CHOSEN_SINCE = (1, 42)


class WebSocketDuplex:
    """What `converse` talks to: each message that comes in is input, each piece of output is a message."""

    def __init__(self, socket: web.WebSocketResponse, connection: Connection, *, binary: bool) -> None:
        self._socket = socket
        self._connection = connection
        self._binary = binary
        self._when_left: set[Callable[[], object]] = set()

    async def read(self) -> bytes:
        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            return cast(bytes, message.data)
        if message.type is WSMsgType.TEXT:
            return cast(str, message.data).encode()
        # A WebSocket has no half that could be closed: the end of input is the end.
        for callback in list(self._when_left):
            callback()
        return b""

    async def write(self, data: bytes) -> None:
        if self._binary:
            await self._socket.send_bytes(data)
        else:
            await self._socket.send_str(data.decode(errors="replace"))

    def when_lost(self, callback: Callable[[], object]) -> None:
        self._when_left.add(callback)
        self._connection.when_lost(callback)

    def forget(self, callback: Callable[[], object]) -> None:
        self._when_left.discard(callback)
        self._connection.forget(callback)


@routes.add("GET", "/containers/{ref:link}/attach/ws")
async def attach(call: Call) -> web.StreamResponse:
    container, streams = call.container(), call.rooms.containers.streams
    keys = DetachKeys(parse(call.text("detachKeys")))
    socket = web.WebSocketResponse(compress=False)
    _check(call, socket)
    every = call.version < _STREAMS_CHOSEN_SINCE
    stdin = every or call.flag("stdin")
    session = await streams.attach(
        container,
        stdin=stdin and call.flag("stream"),
        stdout=every or call.flag("stdout"),
        stderr=every or call.flag("stderr"),
        logs=call.flag("logs"),
        stream=call.flag("stream"),
    )
    connection = cast(Connection, call.request.protocol)
    connection.begun = True
    try:
        await socket.prepare(call.request)
    except BaseException:
        await session.close()
        raise
    duplex = WebSocketDuplex(socket, connection, binary=call.version >= _BINARY_SINCE)
    await converse(duplex, session, tty=container.config.tty, stdin=stdin, keys=keys, framed=False)
    if keys.pressed:
        streams.detached(container)
    await socket.close()
    return socket


def _check(call: Call, socket: web.WebSocketResponse) -> None:
    """Browsers let every page open WebSockets to everywhere: only pages of this very host may come here."""
    origin = call.request.headers.get("Origin", "")
    if origin and origin.partition("://")[2] != call.request.headers.get("Host"):
        raise Forbidden(f"origin {origin} is not allowed")
    try:
        possible = socket.can_prepare(call.request).ok
    except web.HTTPException:
        possible = False
    if not possible:
        raise InvalidInput("bad request: this is no WebSocket handshake")
