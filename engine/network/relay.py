"""`::1`, from which the kernel leads nothing to a container: the engine carries those connections itself.

For IPv4 there is route_localnet; for IPv6 an answer to `::1` is only taken from `lo`, whatever rules say. Everything
else goes by rules. While the daemon is down, such a connection is refused, and clients go on to 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

from engine.network.model import LOOPBACK6, Endpoint, PortBinding
from engine.network.ports import HostPorts

_log = logging.getLogger(__name__)
_PATIENCE = 10.0
_PIECE = 1 << 16

_Carrier = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class LoopbackRelays:
    """One for each TCP port that is published on all IPv6 addresses, or on `::1`."""

    def __init__(self, ports: HostPorts) -> None:
        self._ports = ports
        self._servers: dict[PortBinding, asyncio.Server] = {}
        self._carrying: set[asyncio.Task[None]] = set()

    async def open(self, endpoint: Endpoint) -> None:
        """Carry what comes to `::1` for the endpoint's ports."""
        for binding in _carried(endpoint):
            target = (endpoint.ip6 or endpoint.ip, binding.container_port)
            listener = self._ports.listen(binding)
            if listener is not None:
                self._servers[binding] = await asyncio.start_server(self._carrier(target), sock=listener)

    def close(self, endpoint: Endpoint) -> None:
        """Take no more connections for the endpoint; those that there are end with their container."""
        for binding in endpoint.ports:
            server = self._servers.pop(binding, None)
            if server is not None:
                server.close()

    def close_all(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        for task in self._carrying:
            task.cancel()

    def _carrier(self, target: tuple[str, int]) -> _Carrier:
        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._carrying.add(task)
            try:
                if writer.get_extra_info("peername")[0] == LOOPBACK6:
                    await _carry(reader, writer, target)
            finally:
                self._carrying.discard(task)
                writer.transport.abort()

        return carry


def _carried(endpoint: Endpoint) -> Iterator[PortBinding]:
    return (one for one in endpoint.ports if one.protocol == "tcp" and one.host_ip in {"::", LOOPBACK6})


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int]) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            answers, questions = await asyncio.open_connection(*target)
    except (OSError, TimeoutError) as error:
        _log.debug("[::1] to %s port %d: %s", *target, error)
        return
    try:
        await asyncio.gather(_pump(reader, questions), _pump(answers, writer))
    except OSError:
        pass
    finally:
        questions.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
