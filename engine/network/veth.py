"""Plugging a container into a bridge."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.network import links
from engine.network.addresses import link_local_for
from engine.network.model import Endpoint
from engine.network.netlink import Netlink, NetlinkError, Request
from engine.network.netns import open_netlink, open_netns

_TURNED_OFF = frozenset({errno.EACCES, errno.EHOSTUNREACH})
"""What the kernel says to IPv6 addresses and routes where the container's user turned IPv6 off, by sysctl."""


@dataclass(frozen=True)
class Plug:
    """How an endpoint is plugged in, beside what it has."""

    bridge: int
    isolated: bool = False
    default_route: bool = False
    default_route6: bool = False
    mtu: int | None = None


def plug(netlink: Netlink, endpoint: Endpoint, how: Plug) -> None:
    """Make the endpoint's veth pair and configure its end in its namespace.

    Raises:
        SystemFailure: nothing is left behind then.
    """
    namespace = open_netns(Path(endpoint.netns))
    try:
        _make_pair(netlink, endpoint, how, namespace)
        try:
            with open_netlink(namespace) as container:
                index = links.find_link(container, endpoint.interface).index
                container.send(list(_inside(endpoint, how, index)))
                if endpoint.ip6:
                    container.send(list(_inside6(endpoint, how, index)), ignore=_TURNED_OFF)
        except BaseException:
            unplug(netlink, endpoint.host_interface)
            raise
    finally:
        os.close(namespace)


def _make_pair(netlink: Netlink, endpoint: Endpoint, how: Plug, namespace: int) -> None:
    making = [
        links.add_veth(
            endpoint.host_interface,
            bridge=how.bridge,
            peer=endpoint.interface,
            peer_mac=endpoint.mac,
            netns=namespace,
            mtu=how.mtu,
        )
    ]
    # With published ports the container may call itself by one of them.
    if endpoint.ports or how.isolated:
        making.append(links.set_port(endpoint.host_interface, hairpin=bool(endpoint.ports), isolated=how.isolated))
    try:
        netlink.send(making)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        # A leftover of the same name, from a container that the kernel has not wholly taken down yet.
        unplug(netlink, endpoint.host_interface)
        netlink.send(making)


def _inside(endpoint: Endpoint, how: Plug, index: int) -> Iterator[Request]:
    yield links.set_up(1)
    yield links.set_up(index, ipv6=False)
    yield links.add_address(index, endpoint.ip, endpoint.prefix)
    if how.default_route:
        yield links.add_default_route(endpoint.gateway, index)


def _inside6(endpoint: Endpoint, how: Plug, index: int) -> Iterator[Request]:
    yield links.add_address(index, link_local_for(endpoint.mac), 64)
    yield links.add_address(index, endpoint.ip6, endpoint.prefix6)
    if how.default_route6:
        yield links.add_default_route(endpoint.gateway6, index)


def route_by(netns: Path, endpoint: Endpoint) -> None:
    """Make `endpoint` the container's way out, as far as it has none."""
    namespace = open_netns(netns)
    try:
        with open_netlink(namespace) as container:
            index = links.find_link(container, endpoint.interface).index
            gateways = [gateway for gateway in (endpoint.gateway, endpoint.gateway6) if gateway]
            routes = [links.add_default_route(gateway, index) for gateway in gateways]
            container.send(routes, ignore=frozenset({errno.EEXIST}))
    finally:
        os.close(namespace)


def unplug(netlink: Netlink, host_interface: str) -> None:
    """Remove a veth pair by its end here; it being gone already is no error. Takes about 16 ms."""
    netlink.send([links.delete_link(host_interface)], ignore=frozenset({errno.ENODEV}))
