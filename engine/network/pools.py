"""The addresses of all networks: who has which."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from engine.errors import Conflict
from engine.network.addresses import Addresses
from engine.network.model import Endpoint, Network


class AddressPools:
    """One pool for each subnet of each network."""

    def __init__(self) -> None:
        self._pools: dict[str, Addresses] = {}

    def open(self, network: Network) -> None:
        """Manage the network's subnets; endpoints that it has already keep what they have."""
        gateways = [ip_address(gateway) for gateway in (network.gateway, network.gateway6) if gateway]
        reserved = {*gateways, *map(ip_address, network.auxiliary.values())}
        for subnet, ip_range in ((network.subnet, network.ip_range), (network.subnet6, network.ip_range6)):
            if subnet:
                self._pools[_key(network, subnet)] = Addresses(
                    ip_network(subnet), reserved, ip_network(ip_range, strict=False) if ip_range else None
                )
        for endpoint in network.endpoints.values():
            for pool, address in self._used(network, endpoint):
                with contextlib.suppress(Conflict):
                    pool.take(address)

    def close(self, network: Network) -> None:
        for subnet in (network.subnet, network.subnet6):
            self._pools.pop(_key(network, subnet), None)

    def take(self, network: Network, address: str | None, address6: str | None) -> tuple[str, str]:
        """An IPv4 and, where the network has it, an IPv6 address. Raises Conflict or InvalidInput."""
        pool = self._pools[_key(network, network.subnet)]
        taken = str(pool.take(address))
        if not network.subnet6:
            return taken, ""
        try:
            return taken, str(self._pools[_key(network, network.subnet6)].take(address6))
        except BaseException:
            pool.give_back(taken)
            raise

    def give_back(self, network: Network, endpoint: Endpoint) -> None:
        for pool, address in self._used(network, endpoint):
            pool.give_back(address)

    def _used(self, network: Network, endpoint: Endpoint) -> Iterator[tuple[Addresses, str]]:
        for subnet, address in ((network.subnet, endpoint.ip), (network.subnet6, endpoint.ip6)):
            pool = self._pools.get(_key(network, subnet))
            if pool is not None and address:
                yield pool, address


def _key(network: Network, subnet: str) -> str:
    return f"{network.id} {subnet}"
