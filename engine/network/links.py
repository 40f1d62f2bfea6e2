"""Interfaces, addresses and routes by rtnetlink: the requests, and reading what is there."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from engine.network.addresses import Subnet
from engine.network.netlink import CREATE, EXCL, Netlink, Request, attribute, attributes, nested, text, u32

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_AF_SPEC, _IFLA_NET_NS_FD = 26, 28
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER = 1
_BRIDGE_FORWARD_DELAY = 1
_PORT_HAIRPIN, _PORT_ISOLATED = 4, 33
_IFA_F_NODAD = 2
_LINK_SCOPE = 253
_INET6_ADDR_GEN_MODE, _GEN_MODE_NONE = 8, 1
_IFF_UP = 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5

_FAMILIES = (socket.AF_INET, socket.AF_INET6)

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True)
class Link:
    """An interface of this network namespace."""

    index: int
    name: str
    up: bool
    master: int
    mac: str


def _mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def add_bridge(name: str, mac: str) -> Request:
    """Make a bridge, still down. A fixed address keeps it from changing with the ports that come and go."""
    return (
        _NEWLINK,
        CREATE | EXCL,
        _IFINFO.pack(0, 0, 0, 0, 0)
        + text(_IFLA_IFNAME, name)
        + attribute(_IFLA_ADDRESS, _mac(mac))
        + nested(
            _IFLA_LINKINFO,
            text(_INFO_KIND, "bridge"),
            nested(_INFO_DATA, u32(_BRIDGE_FORWARD_DELAY, 0)),
        ),
    )


def add_veth(name: str, *, bridge: int, peer: str, peer_mac: str, netns: int, mtu: int | None) -> Request:
    """Make a veth pair: `name` here, up and a port of `bridge`; `peer` in `netns`, still down.

    A peer that is asked to be up before its other half exists fails with ENOTCONN.
    """
    size = u32(_IFLA_MTU, mtu) if mtu else b""
    return (
        _NEWLINK,
        CREATE | EXCL,
        _IFINFO.pack(0, 0, 0, _IFF_UP, _IFF_UP)
        + text(_IFLA_IFNAME, name)
        + size
        + u32(_IFLA_MASTER, bridge)
        + nested(
            _IFLA_LINKINFO,
            text(_INFO_KIND, "veth"),
            nested(
                _INFO_DATA,
                nested(
                    _VETH_PEER,
                    _IFINFO.pack(0, 0, 0, 0, 0)
                    + text(_IFLA_IFNAME, peer)
                    + attribute(_IFLA_ADDRESS, _mac(peer_mac))
                    + size
                    + u32(_IFLA_NET_NS_FD, netns),
                ),
            ),
        ),
    )


def set_up(index: int, *, ipv6: bool = True) -> Request:
    """Bring an interface up. Without `ipv6` it makes itself no link-local address, so nothing is probed."""
    quiet = b""
    if not ipv6:
        quiet = nested(
            _IFLA_AF_SPEC,
            nested(socket.AF_INET6, attribute(_INET6_ADDR_GEN_MODE, bytes([_GEN_MODE_NONE]))),
        )
    return (_NEWLINK, 0, _IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP) + quiet)


def set_port(name: str, *, hairpin: bool = False, isolated: bool = False) -> Request:
    """Settings of a bridge's port.

    With `hairpin` the bridge may send a packet back through the port it came from; `isolated` ports never hear
    each other, only the bridge itself.
    """
    settings = [attribute(_PORT_HAIRPIN, b"\1")] if hairpin else []
    settings += [attribute(_PORT_ISOLATED, b"\1")] if isolated else []
    return (
        _NEWLINK,
        0,
        _IFINFO.pack(0, 0, 0, 0, 0)
        + text(_IFLA_IFNAME, name)
        + nested(_IFLA_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), nested(_INFO_SLAVE_DATA, *settings)),
    )


def delete_link(name: str) -> Request:
    return (_DELLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name))


def add_address(index: int, address: str, prefix: int) -> Request:
    """IPv6 addresses are usable at once: who else has one is known here, and need not be asked of the network."""
    chosen = ipaddress.ip_address(address)
    packed = chosen.packed
    if chosen.version == 6:
        scope = _LINK_SCOPE if chosen.is_link_local else 0
        body = _IFADDR.pack(socket.AF_INET6, prefix, _IFA_F_NODAD, scope, index)
        return (_NEWADDR, CREATE | EXCL, body + attribute(2, packed) + attribute(1, packed))
    network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    body = _IFADDR.pack(socket.AF_INET, prefix, 0, 0, index) + attribute(2, packed) + attribute(1, packed)
    return (_NEWADDR, CREATE | EXCL, body + attribute(4, network.broadcast_address.packed))


def add_default_route(gateway: str, index: int) -> Request:
    packed = ipaddress.ip_address(gateway).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return (
        _NEWROUTE,
        CREATE | EXCL,
        _RTMSG.pack(family, 0, 0, 0, 254, 4, 0, 1, 0) + attribute(_RTA_GATEWAY, packed) + u32(_RTA_OIF, index),
    )


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(payload)
    found = dict(attributes(payload[16:]))
    return Link(
        index=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        up=bool(flags & _IFF_UP),
        master=struct.unpack("=I", found[_IFLA_MASTER])[0] if _IFLA_MASTER in found else 0,
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
    )


def find_link(netlink: Netlink, name: str) -> Link:
    """The interface called `name`. Raises NetlinkError (ENODEV) when there is none."""
    return _link(netlink.get(_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)))


def list_links(netlink: Netlink) -> list[Link]:
    return [_link(payload) for _, payload in netlink.dump(_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0))]


def interface_subnets(netlink: Netlink) -> set[Subnet]:
    """Every network that this namespace has an address in."""
    found: set[Subnet] = set()
    for _, payload in netlink.dump(_GETADDR, _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, prefix, _, _, _ = _IFADDR.unpack_from(payload)
        values = dict(attributes(payload[8:]))
        if family in _FAMILIES and 1 in values:
            found.add(ipaddress.ip_network((values[1], prefix), strict=False))
    return found


def used_subnets(netlink: Netlink) -> set[Subnet]:
    """Every network that this namespace has an address in or a route to, without default routes."""
    found = interface_subnets(netlink)
    for _, payload in netlink.dump(_GETROUTE, _RTMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)):
        family, prefix = payload[0], payload[1]
        values = dict(attributes(payload[12:]))
        if family in _FAMILIES and prefix and _RTA_DST in values:
            found.add(ipaddress.ip_network((values[_RTA_DST], prefix), strict=False))
    return found
