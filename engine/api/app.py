"""The HTTP server: each request finds its handler here, and each error its answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from importlib.metadata import version as package_version
from typing import cast

import msgspec
from aiohttp import web

from engine.api import (
    answer,
    archive,
    build,
    containers,
    errors,
    events,
    execs,
    images,
    info,
    metrics,
    moves,
    negotiate,
    networks,
    streams,
    system,
    transfers,
    volumes,
    websocket,
)
from engine.api.call import Call
from engine.api.connection import Connection, Server, Taken
from engine.api.rooms import Rooms
from engine.api.router import Route, Routes

_log = logging.getLogger(__name__)
_READ_BUFFER = 1 << 20
_LONGEST_HEAD = 1 << 20
_SWALLOWED = 256 << 10
_SWALLOW_SECONDS = 0.5


class Api:
    """Answers requests with what the rooms do."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._routes = Routes()
        for module in (
            system,
            info,
            events,
            containers,
            streams,
            websocket,
            execs,
            archive,
            moves,
            images,
            transfers,
            build,
            networks,
            volumes,
            metrics,
        ):
            self._routes.include(module.routes)
        self._headers = {
            "Api-Version": negotiate.text(negotiate.NEWEST),
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"Shipway/{package_version('shipway')} (linux)",
        }
        self._working: set[asyncio.Task[web.StreamResponse]] = set()

    def server(self) -> Server:
        """The protocol factory for a listening socket. Call `shutdown` on it at the end."""
        return Server(
            self._answer,
            access_log=None,
            read_bufsize=_READ_BUFFER,
            keepalive_timeout=600,
            # As in Go: a build's arguments are in its address, and the credentials of all registries in a header.
            max_line_size=_LONGEST_HEAD,
            max_field_size=_LONGEST_HEAD,
        )

    async def finish(self, timeout: float) -> None:
        """Give requests that change something `timeout` seconds to end, then cancel them."""
        if self._working:
            await asyncio.wait(self._working, timeout=timeout)
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(Connection, request.protocol)
        connection.begun = False
        try:
            version, path = negotiate.split(request.path)
            route, params = self._routes.find(request.method, path)
            call = Call(request, self._rooms, version, params)
            if request.headers.get("Expect", "").lower() == "100-continue":
                # curl waits a second for it before it sends an archive.
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # what follows is the answer
            response = await (self._stream(route, call) if route.streaming else self._finish(route, call))
        except ConnectionError as error:
            # The client is gone: nobody is there to be told.
            _log.debug("%s %s: %s", request.method, request.path, error)
            _break_off(request)
            return Taken()
        except Exception as error:
            if connection.begun:
                # Headers are out: all that is left is to break off, so that no client takes it for the end.
                _log.warning("%s %s broke off: %s", request.method, request.path, errors.message_of(error))
                _break_off(request)
                return Taken()
            response = self._failure(error)
            await _swallow(request)
        if not response.prepared:
            response.headers.update(self._headers)
        return response

    async def _stream(self, route: Route, call: Call) -> web.StreamResponse:
        """Run a handler that ends when its client goes away."""
        connection = cast(Connection, call.request.protocol)
        task = asyncio.current_task()
        assert task is not None
        connection.when_lost(task.cancel)
        try:
            return await route.handler(call)
        finally:
            connection.forget(task.cancel)

    async def _finish(self, route: Route, call: Call) -> web.StreamResponse:
        """Run a handler that changes something: to its end, whether its client waits for it or not."""
        task = asyncio.ensure_future(route.handler(call))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)

    @staticmethod
    def _failure(error: Exception) -> web.Response:
        status = errors.status_of(error)
        if status == 304:
            return answer.empty(304)
        body = msgspec.json.encode({"message": errors.message_of(error)}) + b"\n"
        return web.Response(body=body, status=status, content_type="application/json")


def _break_off(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()


async def _swallow(request: web.BaseRequest) -> None:
    """Take what is left of a small body: a client told of an error while it sends may see but a broken pipe."""
    left = _SWALLOWED
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_SWALLOW_SECONDS):
            while left > 0 and (chunk := await request.content.readany()):
                left -= len(chunk)
