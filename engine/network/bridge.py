"""Bridges: one for each network."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from engine.network import ipv6, links, sysctl
from engine.network.addresses import mac_for
from engine.network.model import Network
from engine.network.netlink import Netlink, NetlinkError

_LOCK = Path("/run/lock/shipway-subnets.lock")


@contextlib.contextmanager
def subnet_lock() -> Iterator[None]:
    """Hold while choosing a subnet and until its bridge is there.

    Several engines on one machine would otherwise see the same subnet free.
    """
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def ensure(netlink: Netlink, network: Network) -> int:
    """Make the network's bridge with its addresses, or complete one that is there; returns its interface index."""
    name, has_ipv6 = network.bridge, ipv6.available()
    with contextlib.suppress(NetlinkError):
        netlink.send([links.add_bridge(name, mac_for(network.gateway))])
    index = links.find_link(netlink, name).index
    if has_ipv6:
        # A container with a raw socket could otherwise advertise itself as this host's way to IPv6.
        sysctl.write(f"ipv6/conf/{name}/accept_ra", "0")
        # To look for duplicates takes a second or two, in which the bridge finds no container.
        sysctl.write(f"ipv6/conf/{name}/accept_dad", "0")
        sysctl.write(f"ipv6/conf/{name}/disable_ipv6", "0" if network.subnet6 else "1")
    making = [
        links.set_up(index),
        links.add_address(index, network.gateway, IPv4Network(network.subnet).prefixlen),
    ]
    if network.subnet6 and has_ipv6:
        making.append(links.add_address(index, network.gateway6, IPv6Network(network.subnet6).prefixlen))
    netlink.send(making, ignore=frozenset({errno.EEXIST}))
    # 127.0.0.1:PORT of the host leads to containers; what they send to 127/8 is dropped by rule.
    sysctl.write(f"ipv4/conf/{name}/route_localnet", "1")
    return index


def remove(netlink: Netlink, name: str) -> None:
    """Remove a bridge; it being gone already is no error."""
    netlink.send([links.delete_link(name)], ignore=frozenset({errno.ENODEV}))


def enable_forwarding() -> None:
    """Let this host forward packets. Raises SystemFailure when it may not be told to."""
    if sysctl.read("ipv4/ip_forward") != "1":
        sysctl.write("ipv4/ip_forward", "1")
