"""Faults of registries: put before a working one, each takes one request and spoils it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from engine.registry.server.state import STATE

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Fault = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


@dataclass
class Faults:
    """The rules, and the log of what came. Each fault is used once, in order; then all works again."""

    rules: list[tuple[str, str, list[Fault]]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    app: web.Application | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def on(self, method: str, fragment: str, *faults: Fault) -> None:
        """Spoils the next requests of `method` whose path and query contain `fragment`."""
        self.rules.append((method, fragment, list(faults)))

    def count(self, method: str, fragment: str) -> int:
        return sum(seen.method == method and fragment in f"{seen.path}?{seen.query}" for seen in self.seen)

    def ranges(self, fragment: str) -> list[str]:
        """The `Range` of each GET, in order; empty where there was none."""
        return [s.headers.get("Range", "") for s in self.seen if s.method == "GET" and fragment in s.path]

    def release(self) -> None:
        """Lets go of those that hang."""
        self.ended.set()

    @property
    def middleware(self) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
        @web.middleware
        async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.seen.append(Seen(request.method, request.path, request.query_string, request.headers.copy()))
            target = f"{request.path}?{request.query_string}"
            for method, fragment, faults in self.rules:
                if faults and method == request.method and fragment in target:
                    return await faults.pop(0)(request, handler)
            return await handler(request)

        return spoil

    def hang(self) -> Fault:
        """Takes the request and never answers."""

        async def fault(request: web.Request, handler: Handler) -> web.StreamResponse:
            await self.ended.wait()
            if request.transport is not None:
                request.transport.abort()
            raise web.HTTPServiceUnavailable

        return fault


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answers with this. `Retry_After="1"` is how a header is written."""

    async def fault(request: web.Request, handler: Handler) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, body=body, headers=named)

    return fault


def blob_of(request: web.Request) -> bytes:
    digest = request.path.rpartition("/")[2]
    return request.app[STATE].storage.layout.blob(digest).read_bytes()


def cut(after: int, faults: Faults | None = None) -> Fault:
    """Sends `after` bytes of the blob, from where it was asked to, and breaks the connection.

    With `faults`, it hangs there instead.
    """

    async def fault(request: web.Request, handler: Handler) -> web.StreamResponse:
        data = blob_of(request)
        wanted = request.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(data[start : start + after])
        if faults is not None:
            await faults.ended.wait()
        if request.transport is not None:
            request.transport.close()  # what was written goes out first
        return response

    return fault


def body(change: Callable[[bytes], bytes]) -> Fault:
    """Sends other bytes than the blob has, whatever range was asked for."""

    async def fault(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(body=change(blob_of(request)))

    return fault


def take(count: int) -> Fault:
    """Takes `count` bytes of an upload into the registry and breaks the connection."""

    async def fault(request: web.Request, handler: Handler) -> web.StreamResponse:
        upload = request.app[STATE].storage.uploads.get(
            request.match_info["name"], request.match_info["upload"].partition("?")[0]
        )
        upload.open()
        data = bytearray()
        while len(data) < count and (chunk := await request.content.readany()):
            data += chunk
        upload.append(bytes(data[:count]))
        assert request.transport is not None
        request.transport.abort()
        raise web.HTTPServiceUnavailable

    return fault
