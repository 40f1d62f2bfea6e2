"""Which subnet a network gets and which address a container: pure choices, no effects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from engine.errors import Conflict, InvalidInput

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network

DEFAULT_SIZE = 22
"""A bridge has at most 1,024 ports: a /22 holds as many addresses."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def parse_subnet(text: str, version: int = 4) -> Subnet:
    """`text` as a network of that IP version. Raises InvalidInput."""
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        found = None
    if found is None or found.version != version:
        example = "an IPv4 network like 10.1.0.0/16" if version == 4 else "an IPv6 network like fd01:2:3::/64"
        raise InvalidInput(f'invalid subnet "{text}": give {example}')
    return found


def parse_address(text: str, version: int = 4) -> Address:
    """`text` as an address of that IP version. Raises InvalidInput."""
    try:
        found = ip_address(text)
    except ValueError:
        found = None
    if found is None or found.version != version:
        example = "an IPv4 address like 10.1.0.7" if version == 4 else "an IPv6 address like fd01:2:3::7"
        raise InvalidInput(f'invalid address "{text}": give {example}')
    return found


def parse_mac(text: str) -> str:
    """`text` as the hardware address of one interface, in lower case. Raises InvalidInput."""
    mac = text.lower().replace("-", ":")
    if _MAC.fullmatch(mac) is None or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise InvalidInput(f'invalid MAC address "{text}": give a unicast one like 02:42:0a:01:00:07')
    return mac


def parse_pools(text: str) -> list[tuple[IPv4Network, int]]:
    """Address pools as (network, prefix length of each subnet taken from it).

    `text` is `NETWORK[,...]` or dockerd's `base=NETWORK,size=N`, several of them apart by `;`.
    """
    pools: list[tuple[IPv4Network, int]] = []
    for part in text.split(";"):
        base, size = part, DEFAULT_SIZE
        if "base=" in part:
            values = dict(item.split("=", 1) for item in part.split(",") if "=" in item)
            base = values.get("base", "")
            try:
                size = int(values.get("size", DEFAULT_SIZE))
            except ValueError:
                raise InvalidInput(f'invalid address pool "{part}": size must be a number') from None
        for item in base.split(","):
            network = parse_subnet(item.strip())
            assert isinstance(network, IPv4Network)
            pools.append((network, min(max(size, network.prefixlen), 29)))
    return pools


def choose_subnet(pools: Iterable[tuple[IPv4Network, int]], used: Collection[Subnet]) -> IPv4Network:
    """The first subnet of the pools that overlaps nothing in `used`. Raises Conflict when there is none."""
    for pool, size in pools:
        for candidate in pool.subnets(new_prefix=size):
            if is_free(candidate, used):
                return candidate
    raise Conflict(
        "all predefined address pools have been fully subnetted: remove unused networks or "
        "give the engine another --default-address-pool"
    )


def choose_subnet6(instance: str, used: Collection[Subnet]) -> IPv6Network:
    """A /64 that overlaps nothing in `used`, below a unique local /48 of the engine's own (RFC 4193)."""
    site = bytes([0xFD]) + hashlib.sha256(f"{instance} fd".encode()).digest()[:5]
    for number in range(1, 1 << 16):
        candidate = IPv6Network((site + number.to_bytes(2, "big") + bytes(8), 64))
        if is_free(candidate, used):
            return candidate
    raise Conflict("all IPv6 subnets of this engine are in use: remove unused networks, or give --subnet")


def is_free(subnet: Subnet, used: Iterable[Subnet]) -> bool:
    """Whether `subnet` overlaps none of those in `used` of its own IP version."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    return not any(
        first <= int(other.broadcast_address) and int(other.network_address) <= last
        for other in used
        if other.version == subnet.version
    )


class Addresses:
    """The addresses of one subnet. Those in `reserved` belong to something that is no container.

    Goes round the range instead of reusing the lowest free address at once: an address that was just given
    back may still be in someone's connection tables.
    """

    def __init__(self, subnet: Subnet, reserved: Iterable[Address], ip_range: Subnet | None = None) -> None:
        self.subnet = subnet
        self._range = ip_range or subnet
        self._used = {*reserved, subnet.network_address}
        if subnet.version == 4:
            self._used.add(subnet.broadcast_address)
        self._cursor = int(self._range.network_address)

    def take(self, wanted: str | None = None) -> Address:
        """An address that no one has, or exactly `wanted`. Raises Conflict or InvalidInput."""
        if wanted:
            address = parse_address(wanted, self.subnet.version)
            if address not in self.subnet:
                raise InvalidInput(f"address {address} is not in the network's subnet {self.subnet}")
            if address in self._used:
                raise Conflict(f"address {address} is already in use on this network")
            self._used.add(address)
            return address
        for address in self._candidates():
            if address not in self._used:
                self._used.add(address)
                self._cursor = int(address) + 1
                return address
        raise Conflict(f"no available IPv{self.subnet.version} addresses on this network's address pool {self._range}")

    def give_back(self, address: str) -> None:
        self._used.discard(ip_address(address))

    def _candidates(self) -> Iterator[Address]:
        kind = type(self.subnet.network_address)
        first, last = int(self._range.network_address), int(self._range.broadcast_address)
        start = self._cursor if first <= self._cursor <= last else first
        for number in range(start, last + 1):
            yield kind(number)
        for number in range(first, start):
            yield kind(number)


def mac_for(address: str) -> str:
    """A hardware address that follows from an IPv4 address, so that no neighbour's table goes stale."""
    return "02:42:" + IPv4Address(address).packed.hex(":")


def link_local_for(mac: str) -> str:
    """The IPv6 address that an interface makes itself from its hardware address (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]))
