from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import cast

from aiohttp import web

from engine.api.connection import Connection, Duplex, Server, Taken

UPGRADE = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}"


async def _echo_after_the_end(request: web.BaseRequest) -> web.StreamResponse:
    assert await request.content.read() in {b"{}", b""}
    duplex = Duplex.take(request, "application/vnd.docker.raw-stream")
    said = b""
    while data := await duplex.read():
        said += data
    await duplex.write(said.upper())
    return Taken()


async def test_output_goes_on_when_the_client_has_no_more_input(tmp_path: Path) -> None:
    server = Server(_echo_after_the_end, access_log=None)
    listener = await asyncio.get_running_loop().create_unix_server(server, str(tmp_path / "s"))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(UPGRADE)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n")
    for piece in (b"hello ", b"world"):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
    assert await reader.read() == b"HELLO WORLD"
    writer.close()
    await writer.wait_closed()
    listener.close()
    await server.shutdown(1)


async def test_a_client_that_leaves(tmp_path: Path) -> None:
    lost = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        Duplex.take(request, "x").when_lost(lost.set)
        await lost.wait()
        return Taken()

    server = Server(handler, access_log=None)
    listener = await asyncio.get_running_loop().create_unix_server(server, str(tmp_path / "s"))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    async with asyncio.timeout(5):
        await lost.wait()
    listener.close()
    await server.shutdown(1)


async def test_a_client_that_is_gone_already(tmp_path: Path) -> None:
    """Whoever began something for it is told, and can put it away."""
    told: list[object] = []

    async def work(request: web.BaseRequest, gone: asyncio.Event) -> None:
        await gone.wait()
        duplex = Duplex.take(request, "x")
        duplex.when_lost(lambda: told.append("gone"))
        told.append(await duplex.read())
        try:
            await duplex.write(b"late")
        except ConnectionError as error:
            told.append(str(error))

    working: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        gone = asyncio.Event()
        cast(Connection, request.protocol).when_lost(gone.set)
        working.set_result(asyncio.create_task(work(request, gone)))
        await asyncio.shield(working.result())
        return Taken()

    server = Server(handler, access_log=None)
    listener = await asyncio.get_running_loop().create_unix_server(server, str(tmp_path / "s"))
    _, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(UPGRADE)
    async with asyncio.timeout(5):
        task = await working
        writer.transport.abort()
        await task
    assert told == ["gone", b"", "the client is gone"]
    listener.close()
    await server.shutdown(1)
