"""Names of containers, served on each network's gateway; anything else is asked of the host's resolvers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from engine.network import dns
from engine.network.firewall import Published

_log = logging.getLogger(__name__)
_HOST_FILE = Path("/etc/resolv.conf")
_TIMEOUT = 4.0
_MAX_FORWARDED = 512
_MAX_MESSAGE = 65535

Lookup = Callable[[str, str], list[str]]
"""The addresses of a name, for the address that asks."""
Reverse = Callable[[str], str | None]


def parse_nameservers(resolv_conf: str) -> list[str]:
    """The resolvers that a resolv.conf names."""
    found = [line.split() for line in resolv_conf.splitlines()]
    return [words[1] for words in found if len(words) > 1 and words[0] == "nameserver"]


@dataclass
class _Listener:
    address: str
    port: int
    udp: asyncio.DatagramTransport
    tcp: asyncio.Server


class Resolver:
    """One listener on each gateway. `servers` takes the place of the host's own resolvers."""

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self._servers = tuple(servers)
        self._listeners: dict[str, _Listener] = {}
        self._forwarding: set[asyncio.Task[None]] = set()

    async def serve(self, address: str, lookup: Lookup, reverse: Reverse) -> list[Published]:
        """Answer on `address`, port 53, or on a port of its own if a resolver of the host has that one.

        Returns:
            What has to be redirected for containers to get through.

        Raises:
            OSError: there is no listening on that address.
        """
        await self.withdraw(address)
        loop = asyncio.get_running_loop()
        names = _Names(lookup, reverse)

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._converse(names, reader, writer)

        for port in (53, 0):
            try:
                server = await asyncio.start_server(converse, address, port, reuse_address=True)
            except OSError:
                if port == 0:
                    raise
                continue
            bound = int(server.sockets[0].getsockname()[1])
            try:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self, names), local_addr=(address, bound)
                )
            except OSError:
                server.close()
                if port == 0:
                    raise
                continue
            break
        listener = _Listener(address, bound, transport, server)
        self._listeners[address] = listener
        return _redirections(listener)

    async def withdraw(self, address: str) -> None:
        listener = self._listeners.pop(address, None)
        if listener is not None:
            listener.udp.close()
            listener.tcp.close()

    async def close(self) -> None:
        for address in list(self._listeners):
            await self.withdraw(address)
        for task in list(self._forwarding):
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)

    def spawn_forward(self, query: bytes, reply: Callable[[bytes], None]) -> None:
        """Ask the host's resolvers over UDP and hand their answer to `reply`; drop it if too many wait."""
        if len(self._forwarding) >= _MAX_FORWARDED:
            return

        async def forward() -> None:
            reply(await self._forward(query, stream=False))

        task = asyncio.create_task(forward())
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    def _upstream(self) -> tuple[str, ...]:
        if self._servers:
            return self._servers
        try:
            return tuple(parse_nameservers(_HOST_FILE.read_text()))
        except OSError:
            return ()

    async def _forward(self, query: bytes, *, stream: bool) -> bytes:
        for server in self._upstream():
            try:
                async with asyncio.timeout(_TIMEOUT):
                    return await (_ask_stream(server, query) if stream else _ask_datagram(server, query))
            except (OSError, TimeoutError, EOFError) as error:
                _log.debug("resolver %s: %s", server, error)
        question = dns.parse_question(query)
        return dns.answer_failure(query, question, dns.SERVFAIL) if question else b""

    async def _converse(self, names: _Names, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asker = str(writer.get_extra_info("peername")[0])
        try:
            while True:
                async with asyncio.timeout(30):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    query = await reader.readexactly(length)
                answer = names.answer(query, asker)
                if answer is None:
                    answer = await self._forward(query, stream=True)
                if not answer:
                    return
                writer.write(struct.pack(">H", len(answer)) + answer)
                await writer.drain()
        except (EOFError, OSError, TimeoutError):
            pass
        finally:
            writer.close()


class _Names:
    """What one network knows itself."""

    def __init__(self, lookup: Lookup, reverse: Reverse) -> None:
        self._lookup = lookup
        self._reverse = reverse

    def answer(self, query: bytes, asker: str) -> bytes | None:
        """The answer, b"" for what is no query, None for what someone else has to answer."""
        question = dns.parse_question(query)
        if question is None:
            return b"" if len(query) < 12 else None
        if question.kind == dns.TYPE_PTR:
            address = dns.reverse_address(question.name)
            name = self._reverse(address) if address else None
            return dns.answer_name(query, question, name) if name else None
        found = self._lookup(asker, question.name)
        if not found:
            return None
        random.shuffle(found)
        return dns.answer_addresses(query, question, found if question.kind == dns.TYPE_A else ())


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver, names: _Names) -> None:
        self._resolver = resolver
        self._names = names
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._names.answer(data, addr[0])
        if answer is None:
            self._resolver.spawn_forward(data, lambda found: self._send(found, addr))
        else:
            self._send(answer, addr)

    def _send(self, answer: bytes, addr: tuple[str, int]) -> None:
        if answer and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, addr)


def _redirections(listener: _Listener) -> list[Published]:
    if listener.port == 53:
        return []
    return [Published(listener.address, 53, protocol, listener.address, listener.port) for protocol in ("udp", "tcp")]


async def _ask_datagram(server: str, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asked:
        asked.connect((server, 53))
        await loop.sock_sendall(asked, query)
        while True:
            answer = await loop.sock_recv(asked, _MAX_MESSAGE)
            if answer[:2] == query[:2]:
                return answer


async def _ask_stream(server: str, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, 53)
    try:
        writer.write(struct.pack(">H", len(query)) + query)
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
