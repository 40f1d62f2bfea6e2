"""The resolvers behind ours: those that a container brought, the engine was given, or the host uses."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from engine.network import dns

_log = logging.getLogger(__name__)
_HOST_FILE = Path("/etc/resolv.conf")
_PATIENCE = 4.0
_PATIENCE_EACH = 2.0
_MAX_MESSAGE = 65535


def host_servers() -> tuple[str, ...]:
    """The resolvers of the host, as they are now."""
    try:
        return tuple(parse_nameservers(_HOST_FILE.read_text()))
    except OSError:
        return ()


def parse_nameservers(resolv_conf: str) -> list[str]:
    """The resolvers that a resolv.conf names."""
    found = [line.split() for line in resolv_conf.splitlines()]
    return [words[1] for words in found if len(words) > 1 and words[0] == "nameserver"]


async def ask(servers: Sequence[str], query: bytes, *, stream: bool) -> bytes | None:
    """The first good answer to `query`, over TCP with `stream`; a bad one when there is no better, or None."""
    best: bytes | None = None
    patience = _PATIENCE if len(servers) == 1 else _PATIENCE_EACH
    for server in servers:
        try:
            async with asyncio.timeout(patience):
                best = await (_ask_stream(server, query) if stream else _ask_datagram(server, query))
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            _log.debug("resolver %s: %s", server, error)
            continue
        if dns.response_code(best) not in {dns.SERVFAIL, dns.REFUSED}:
            return best
    return best


def _family(server: str) -> int:
    """Raises ValueError for what is no address: to look a name up here would block."""
    version = ipaddress.ip_address(server.partition("%")[0]).version
    return socket.AF_INET6 if version == 6 else socket.AF_INET


async def _ask_datagram(server: str, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = _family(server)
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asked:
        asked.connect((server, 53))
        await loop.sock_sendall(asked, query)
        while True:
            answer = await loop.sock_recv(asked, _MAX_MESSAGE)
            if answer[:2] == query[:2]:
                return answer


async def _ask_stream(server: str, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, 53, family=_family(server))
    try:
        writer.write(struct.pack(">H", len(query)) + query)
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
