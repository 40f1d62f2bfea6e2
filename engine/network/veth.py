"""Plugging a container into a bridge."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from engine.network import links
from engine.network.model import Endpoint
from engine.network.netlink import Netlink, NetlinkError
from engine.network.netns import open_netlink, open_netns


def plug(
    netlink: Netlink, endpoint: Endpoint, netns: Path, *, bridge: int, default_route: bool, mtu: int | None
) -> None:
    """Make the endpoint's veth pair and configure its end in `netns`.

    Raises:
        SystemFailure: nothing is left behind then.
    """
    namespace = open_netns(netns)
    try:
        request = links.add_veth(
            endpoint.host_interface,
            bridge=bridge,
            peer=endpoint.interface,
            peer_mac=endpoint.mac,
            netns=namespace,
            mtu=mtu,
        )
        making = [request]
        if endpoint.ports:  # the container may call itself by its published port
            making.append(links.set_hairpin(endpoint.host_interface))
        try:
            netlink.send(making)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            # A leftover of the same name, from a container that the kernel has not wholly taken down yet.
            unplug(netlink, endpoint.host_interface)
            netlink.send(making)
        try:
            with open_netlink(namespace) as container:
                index = links.find_link(container, endpoint.interface).index
                inside = [
                    links.set_up(1),
                    links.set_up(index, ipv6=False),
                    links.add_address(index, endpoint.ip, endpoint.prefix),
                ]
                if default_route:
                    inside.append(links.add_default_route(endpoint.gateway, index))
                container.send(inside)
        except BaseException:
            unplug(netlink, endpoint.host_interface)
            raise
    finally:
        os.close(namespace)


def loopback_up(netns: Path) -> None:
    """Bring `lo` up in a namespace that gets no other interface."""
    namespace = open_netns(netns)
    try:
        with open_netlink(namespace) as container:
            container.send([links.set_up(1)])
    finally:
        os.close(namespace)


def route_by(netns: Path, endpoint: Endpoint) -> None:
    """Make `endpoint` the container's way out."""
    namespace = open_netns(netns)
    try:
        with open_netlink(namespace) as container:
            index = links.find_link(container, endpoint.interface).index
            container.send([links.add_default_route(endpoint.gateway, index)], ignore=frozenset({errno.EEXIST}))
    finally:
        os.close(namespace)


def unplug(netlink: Netlink, host_interface: str) -> None:
    """Remove a veth pair by its end here; it being gone already is no error. Takes about 16 ms."""
    netlink.send([links.delete_link(host_interface)], ignore=frozenset({errno.ENODEV}))
