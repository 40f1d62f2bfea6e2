"""Which subnet a network gets and which address a container: pure choices, no effects."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from engine.errors import Conflict, InvalidInput

DEFAULT_SIZE = 22
"""A bridge has at most 1,024 ports: a /22 holds as many addresses."""


def parse_subnet(text: str) -> IPv4Network:
    """`text` as an IPv4 network. Raises InvalidInput."""
    try:
        return IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise InvalidInput(f'invalid subnet "{text}": give an IPv4 network like 10.1.0.0/16') from None


def parse_address(text: str) -> IPv4Address:
    """`text` as an IPv4 address. Raises InvalidInput."""
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise InvalidInput(f'invalid address "{text}": give an IPv4 address like 10.1.0.7') from None


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
            pools.append((network, min(max(size, network.prefixlen), 29)))
    return pools


def choose_subnet(pools: Iterable[tuple[IPv4Network, int]], used: Collection[IPv4Network]) -> IPv4Network:
    """The first subnet of the pools that overlaps nothing in `used`. Raises Conflict when there is none."""
    for pool, size in pools:
        for candidate in pool.subnets(new_prefix=size):
            if not any(candidate.overlaps(other) for other in used):
                return candidate
    raise Conflict(
        "all predefined address pools have been fully subnetted: remove unused networks or "
        "give the engine another --default-address-pool"
    )


class Addresses:
    """The addresses of one subnet.

    Goes round the range instead of reusing the lowest free address at once: an address that was just given
    back may still be in someone's connection tables.
    """

    def __init__(
        self,
        subnet: IPv4Network,
        gateway: IPv4Address,
        ip_range: IPv4Network | None = None,
        reserved: Iterable[IPv4Address] = (),
    ) -> None:
        self.subnet = subnet
        self._range = ip_range or subnet
        self._used = {gateway, subnet.network_address, subnet.broadcast_address, *reserved}
        self._cursor = int(self._range.network_address)

    def take(self, wanted: str | None = None) -> IPv4Address:
        """An address that no one has, or exactly `wanted`. Raises Conflict or InvalidInput."""
        if wanted:
            address = parse_address(wanted)
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
        raise Conflict(f"no available IPv4 addresses on this network's address pool {self._range}")

    def give_back(self, address: str) -> None:
        self._used.discard(IPv4Address(address))

    def _candidates(self) -> Iterator[IPv4Address]:
        first, last = int(self._range.network_address), int(self._range.broadcast_address)
        start = self._cursor if first <= self._cursor <= last else first
        for number in range(start, last + 1):
            yield IPv4Address(number)
        for number in range(first, start):
            yield IPv4Address(number)


def mac_for(address: IPv4Address) -> str:
    """A hardware address that follows from `address`, so that no neighbour's table goes stale."""
    return "02:42:" + address.packed.hex(":")
