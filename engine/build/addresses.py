"""Which addresses a build's own downloads may reach.

A Dockerfile is anybody's: its ADD must not become a way into the network that the engine lives in. The check is
made on the address that is connected to, after name resolution and again after each redirect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from engine.errors import Forbidden

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressPolicy:
    """Public addresses, and those of the networks that were allowed by name (`10.1.0.0/16`)."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = tuple(ipaddress.ip_network(network) for network in allowed)

    def check(self, host: str, address: str) -> None:
        """Raises Forbidden for what must not be reached."""
        found = ipaddress.ip_address(address.partition("%")[0])
        if not self.permits(found):
            raise Forbidden(
                f"{host} is at {address}, which is no public address: builds may only download from public "
                "ones and from networks that the engine's settings allow"
            )

    def permits(self, address: Address) -> bool:
        plain = _unwrapped(address)
        if any(plain.version == network.version and plain in network for network in self._allowed):
            return True
        # is_global alone lets multicast through.
        return plain.is_global and not plain.is_multicast

    async def resolve(self, host: str, port: int) -> list[str]:
        """The host's addresses, all of them checked. Raises Forbidden, OSError."""
        literal = host.strip("[]")
        try:
            ipaddress.ip_address(literal)
        except ValueError:
            pass
        else:
            self.check(host, literal)
            return [literal]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        for address in addresses:
            self.check(host, address)
        return addresses


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one carries leads to the same place."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address.sixtofour:
            return address.sixtofour
        if address in ipaddress.IPv6Network("64:ff9b::/96"):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class CheckedResolver(AbstractResolver):
    """For aiohttp: connects only to addresses that were checked."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results: list[ResolveResult] = []
        for address in await self._policy.resolve(host, port):
            version: Any = socket.AF_INET6 if ":" in address else socket.AF_INET
            results.append(ResolveResult(hostname=host, host=address, port=port, family=version, proto=0, flags=0))
        return results

    async def close(self) -> None:
        """Nothing is held."""
