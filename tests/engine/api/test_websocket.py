"""A container's streams in a WebSocket."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp
import docker
import pytest

from tests.engine.api.wire import Wire

pytestmark = pytest.mark.kernel
ALL = "stream=1&stdin=1&stdout=1&stderr=1&logs=1"


@contextlib.asynccontextmanager
async def socket(
    engine: str, path: str, headers: dict[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    connector = aiohttp.UnixConnector(engine.removeprefix("unix://"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(
            f"http://engine{path}", headers=headers, timeout=aiohttp.ClientWSTimeout(ws_close=10)
        ) as one,
    ):
        yield one


@pytest.mark.parametrize(("version", "kind"), [("v1.47", aiohttp.WSMsgType.BINARY), ("v1.27", aiohttp.WSMsgType.TEXT)])
async def test_words_both_ways(
    engine: str, wire: Wire, client: docker.DockerClient, version: str, kind: aiohttp.WSMsgType
) -> None:
    made = wire.start("talks", "sh", "-c", "echo ready; read a; echo $a; read b; echo $b >&2", OpenStdin=True)
    async with socket(engine, f"/{version}/containers/{made}/attach/ws?{ALL}") as one:
        assert (await one.receive()).data in ("ready\n", b"ready\n")
        await one.send_bytes(b"uno\n")
        said = await one.receive()
        assert (said.type, said.data) in ((kind, "uno\n"), (kind, b"uno\n"))
        await one.send_str("due\n")
        assert (await one.receive()).data in ("due\n", b"due\n")
        assert (await one.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_who_closes_or_detaches_leaves_the_container_alone(
    engine: str, wire: Wire, client: docker.DockerClient
) -> None:
    made = wire.start("screen", "sh", "-c", "echo ready; cat", Tty=True, OpenStdin=True)
    path = f"/containers/{made}/attach/ws?{ALL}&detachKeys=ctrl-a,x"
    begun = time.time()
    async with socket(engine, path) as one:
        assert (await one.receive()).data == b"ready\r\n"
    async with socket(engine, path) as one:
        assert (await one.receive()).data == b"ready\r\n"
        await one.send_bytes(b"\x01x")
        assert (await one.receive()).type is aiohttp.WSMsgType.CLOSE
    assert client.containers.get(made).status == "running"
    wanted = {"container": made, "event": "detach"}
    told = client.events(since=begun, until=time.time(), filters=wanted, decode=True)
    with contextlib.closing(told):
        assert len(list(told)) == 1


async def test_what_is_refused(engine: str, wire: Wire, client: docker.DockerClient) -> None:
    made = wire.start("one")
    path = f"/containers/{made}/attach/ws?{ALL}"
    answer = wire.ask("GET", path)
    assert (answer.status, answer.message) == (400, "bad request: this is no WebSocket handshake")
    for at, headers, status in (
        (path, {"Origin": "https://elsewhere.example"}, 403),
        (path, {"Origin": "null"}, 403),
        ("/containers/missing/attach/ws", None, 404),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with socket(engine, at, headers):
                pass
        assert refused.value.status == status
    async with socket(engine, path, {"Origin": "http://engine"}):
        pass
