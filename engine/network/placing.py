"""Which subnets, gateways and ranges a new network gets: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from engine.config import DefaultBridge
from engine.errors import Conflict, InvalidInput
from engine.network import addresses
from engine.network.addresses import Subnet
from engine.network.model import Network

_SMALLEST = {4: 30, 6: 126}


@dataclass(frozen=True)
class Pool:
    """What a user wishes for one IP version of a network; empty is "as you like". `aux` are reserved by name."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    aux: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wishes:
    """Both versions. Without `ipv6` the network has none."""

    ipv4: Pool = Pool()
    ipv6: Pool | None = None


@dataclass(frozen=True)
class Surroundings:
    """What there is already: `assigned` to interfaces and networks, and `used` by routes as well."""

    pools: Sequence[tuple[IPv4Network, int]]
    used: Collection[Subnet]
    assigned: Collection[Subnet]


def wishes_of_default(bridge: DefaultBridge) -> Wishes:
    """Raises InvalidInput."""
    address, subnet = bridge.address.partition("/")[0], ""
    if bridge.address:
        addresses.parse_address(address)
        subnet = str(addresses.parse_subnet(bridge.address))
    return Wishes(Pool(subnet, address), Pool(bridge.subnet6) if bridge.ipv6 else None)


def fits(network: Network, wishes: Wishes) -> bool:
    """Whether a network that has its place already is as wished."""
    pool6 = wishes.ipv6 or Pool()
    return (
        bool(network.subnet)
        and wishes.ipv4.subnet in ("", network.subnet)
        and wishes.ipv4.gateway in ("", network.gateway)
        and bool(network.subnet6) == (wishes.ipv6 is not None)
        and (not pool6.subnet or str(addresses.parse_subnet(pool6.subnet, 6)) == network.subnet6)
    )


def place(network: Network, wishes: Wishes, around: Surroundings, instance: str) -> None:
    """Fill in the network's subnets, gateways and ranges. Raises Conflict or InvalidInput."""
    pool = wishes.ipv4
    chosen: Subnet = (
        _wished(pool.subnet, 4, around) if pool.subnet else addresses.choose_subnet(around.pools, around.used)
    )
    network.subnet, network.gateway, network.ip_range = _filled(chosen, pool)
    network.auxiliary = dict(pool.aux)
    if wishes.ipv6 is None:
        return
    pool = wishes.ipv6
    chosen = _wished(pool.subnet, 6, around) if pool.subnet else addresses.choose_subnet6(instance, around.used)
    network.subnet6, network.gateway6, network.ip_range6 = _filled(chosen, pool)
    network.auxiliary |= pool.aux


def _wished(text: str, version: int, around: Surroundings) -> Subnet:
    """A subnet that the user names may lie within a route that this host has, but not on an interface's network."""
    subnet = addresses.parse_subnet(text, version)
    if subnet.prefixlen > _SMALLEST[version]:
        raise InvalidInput(f"subnet {subnet} is too small for a network: use a /{_SMALLEST[version]} or larger")
    if subnet.is_loopback or subnet.is_multicast or subnet.is_link_local:
        raise InvalidInput(f"subnet {subnet} can't be a network's: choose a private one like 10.1.0.0/16 or fd01::/64")
    if not addresses.is_free(subnet, around.assigned):
        raise Conflict(f"Pool overlaps with other one on this address space: {subnet} is in use")
    return subnet


def _filled(subnet: Subnet, pool: Pool) -> tuple[str, str, str]:
    """Subnet, gateway and range in their usual spelling."""
    ip_range = addresses.parse_subnet(pool.ip_range, subnet.version) if pool.ip_range else None
    if ip_range and not _within(ip_range, subnet):
        raise InvalidInput(f"address range {ip_range} is not in the subnet {subnet}")
    gateway = subnet.network_address + 1
    if pool.gateway:
        gateway = addresses.parse_address(pool.gateway.partition("/")[0], subnet.version)
    if gateway not in subnet:
        raise InvalidInput(f"gateway {gateway} is not in the subnet {subnet}")
    for name, text in pool.aux.items():
        address = addresses.parse_address(text, subnet.version)
        if address not in subnet:
            raise InvalidInput(f"auxiliary address {name}={address} is not in the subnet {subnet}")
        if address == gateway:
            raise InvalidInput(f"auxiliary address {name}={address} is the gateway's")
    return str(subnet), str(gateway), str(ip_range or "")


def _within(inner: Subnet, outer: Subnet) -> bool:
    return inner.network_address in outer and inner.broadcast_address in outer
