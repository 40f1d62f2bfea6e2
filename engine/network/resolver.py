"""Names of containers, answered in each container's own network; anything else is asked of other resolvers."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable, Sequence
from typing import cast

from engine.network import dns, upstream
from engine.network.names import Names
from engine.network.nameserver import NameSockets

_IDLE_SECONDS = 30.0
_MAX_FORWARDED = 128
"""Questions of one container that wait for other resolvers: more are dropped, and asked again."""


class Resolver:
    """One listener a container. `servers` takes the place of the host's own resolvers."""

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self._servers = tuple(servers)
        self._listeners: dict[str, _Listener] = {}

    def serves(self, container_id: str) -> bool:
        return container_id in self._listeners

    async def serve(self, container_id: str, sockets: NameSockets, names: Names) -> None:
        """Answer on `sockets`, which are closed when this ends."""
        self.withdraw(container_id)
        listener = _Listener(names, self._servers)
        self._listeners[container_id] = listener
        await listener.open(sockets)

    def withdraw(self, container_id: str) -> None:
        """Stop answering; the container's namespace is not held up by anything of ours then."""
        listener = self._listeners.pop(container_id, None)
        if listener is not None:
            listener.close()

    def close(self) -> None:
        for container_id in list(self._listeners):
            self.withdraw(container_id)


class _Listener(asyncio.DatagramProtocol):
    """What one container asks."""

    def __init__(self, names: Names, servers: tuple[str, ...]) -> None:
        self._names = names
        self._servers = servers
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._conversations: set[asyncio.StreamWriter] = set()
        self._forwarding: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, sockets: NameSockets) -> None:
        loop = asyncio.get_running_loop()
        sockets.udp.setblocking(False)
        sockets.tcp.setblocking(False)
        await loop.create_datagram_endpoint(lambda: self, sock=sockets.udp)
        self._tcp = await asyncio.start_server(self._converse, sock=sockets.tcp)
        if self._closed:
            self.close()

    def close(self) -> None:
        self._closed = True
        for task in self._forwarding:
            task.cancel()
        for writer in self._conversations:
            writer.transport.abort()
        if self._udp is not None:
            self._udp.abort()
        if self._tcp is not None:
            self._tcp.close()

    # Datagrams

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._udp = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._answer(data)
        if answer is None:
            self._forward_later(data, lambda found: self._send(found, addr))
            return
        question = dns.parse_question(data)
        if question is not None and len(answer) > dns.udp_limit(data, question):
            self._send(dns.truncated(answer, question), addr)
        else:
            self._send(answer, addr)

    def _send(self, answer: bytes, addr: tuple[str, int]) -> None:
        if answer and self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(answer, addr)

    def _forward_later(self, query: bytes, reply: Callable[[bytes], None]) -> None:
        if len(self._forwarding) >= _MAX_FORWARDED:
            return

        async def forward() -> None:
            reply(await self._forward(query, stream=False))

        task = asyncio.create_task(forward())
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    # Connections

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._conversations.add(writer)
        try:
            while True:
                async with asyncio.timeout(_IDLE_SECONDS):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    query = await reader.readexactly(length)
                answer = self._answer(query)
                if answer is None:
                    answer = await self._forward(query, stream=True)
                if not answer:
                    return
                writer.write(struct.pack(">H", len(answer)) + answer)
                await writer.drain()
        except (EOFError, OSError, TimeoutError):
            pass
        finally:
            self._conversations.discard(writer)
            writer.close()

    # Answers

    def _answer(self, query: bytes) -> bytes | None:
        """The answer, b"" for what is no query, None for what someone else has to answer."""
        question = dns.parse_question(query)
        if question is None:
            return None if len(query) >= 12 and self._names.leads_outside else b""
        if question.kind == dns.TYPE_PTR:
            address = dns.reverse_address(question.name)
            name = self._names.reverse(address) if address else None
            if name and (answer := dns.answer_name(query, question, name)):
                return answer
        elif found := self._names.lookup(question.name):
            wanted = {dns.TYPE_A: "ip", dns.TYPE_AAAA: "ip6"}.get(question.kind, "")
            addresses = [address for one in found if wanted and (address := getattr(one, wanted))]
            random.shuffle(addresses)
            return dns.answer_addresses(query, question, addresses)
        return None if self._names.leads_outside else dns.answer_failure(query, question, dns.SERVFAIL)

    async def _forward(self, query: bytes, *, stream: bool) -> bytes:
        servers = self._names.servers or self._servers or upstream.host_servers()
        answer = await upstream.ask(servers, query, stream=stream)
        if answer is not None:
            return answer
        question = dns.parse_question(query)
        return dns.answer_failure(query, question, dns.SERVFAIL) if question else b""
