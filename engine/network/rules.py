"""What nf_tables' rules are made of: each function returns one or more expressions, encoded.

An expression is a list element with its name and its data; registers carry values from one to the next. Constants
are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import ipaddress
import struct

from engine.network.netlink import attribute, be32, nested, text
from engine.network.nft import SIZES, TYPE_IPV4, TYPE_IPV6, Map, pack_protocol

_IPV4, _IPV6 = 2, 10  # NFPROTO_*
_REG_VERDICT, _REG_1 = 0, 1
_REG32 = 8  # the first of sixteen registers of four bytes, over the same memory as _REG_1

STATE_ESTABLISHED, STATE_RELATED = 2, 4
STATUS_DNAT = 0x20


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parts))


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(1, value))


def _compare(value: bytes, *, equal: bool = True) -> bytes:
    return _expression("cmp", be32(1, _REG_1), be32(2, 0 if equal else 1), _value(3, value))


def _mask(mask: bytes) -> bytes:
    return _expression(
        "bitwise",
        be32(1, _REG_1),
        be32(2, _REG_1),
        be32(3, len(mask)),
        _value(4, mask),
        _value(5, bytes(len(mask))),
    )


def _interface(key: int, name: str, *, equal: bool) -> bytes:
    return _expression("meta", be32(2, key), be32(1, _REG_1)) + _compare(name.encode().ljust(16, b"\0"), equal=equal)


def iifname(name: str, *, equal: bool = True) -> bytes:
    """The packet came in by interface `name`, or by another one."""
    return _interface(6, name, equal=equal)


def oifname(name: str, *, equal: bool = True) -> bytes:
    """The packet goes out by interface `name`, or by another one."""
    return _interface(7, name, equal=equal)


def _version(ipv6: bool) -> bytes:
    """The packet is of that IP version. A table for both must know before it looks for addresses."""
    return _expression("meta", be32(2, 15), be32(1, _REG_1)) + _compare(bytes([_IPV6 if ipv6 else _IPV4]))


def _load(base: int, offset: int, size: int, register: int = _REG_1) -> bytes:
    """Put bytes of the network (1) or transport (2) header into a register."""
    return _expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, size))


def _network_match(network: str, *, source: bool) -> bytes:
    subnet = ipaddress.ip_network(network)
    ipv6 = subnet.version == 6
    offset, size = _address_at(ipv6=ipv6, source=source)
    match = _mask(subnet.netmask.packed) + _compare(subnet.network_address.packed)
    return _version(ipv6) + _load(1, offset, size) + match


def _address_at(*, ipv6: bool, source: bool) -> tuple[int, int]:
    """Offset and size of an address in its header."""
    if ipv6:
        return (8 if source else 24), 16
    return (12 if source else 16), 4


def saddr(network: str) -> bytes:
    """The packet's source is in `network`."""
    return _network_match(network, source=True)


def daddr(network: str) -> bytes:
    """The packet's destination is in `network`."""
    return _network_match(network, source=False)


def daddr_is_local() -> bytes:
    """The packet's destination is an address of this host."""
    return _expression("fib", be32(1, _REG_1), be32(2, 3), be32(3, 2)) + _compare(struct.pack("=I", 2))


def _conntrack(key: int, mask: int, *, present: bool) -> bytes:
    return (
        _expression("ct", be32(2, key), be32(1, _REG_1))
        + _mask(struct.pack("=I", mask))
        + _compare(bytes(4), equal=not present)
    )


def ct_state(mask: int) -> bytes:
    """The connection is in one of the states of `mask`."""
    return _conntrack(0, mask, present=True)


def ct_status(mask: int, *, present: bool = True) -> bytes:
    """The connection has one of the status bits of `mask`, or has none of them."""
    return _conntrack(2, mask, present=present)


def dnat_by(described: Map) -> bytes:
    """Look destination (where the map asks for it), protocol and port up, and redirect to what is found there."""
    version, loads, register = _version(described.ipv6), b"", _REG32
    if described.key[0] in {TYPE_IPV4, TYPE_IPV6}:
        offset, size = _address_at(ipv6=described.ipv6, source=False)
        loads += _load(1, offset, size, register)
        register += size // 4
    loads += _expression("meta", be32(2, 16), be32(1, register)) + _load(2, 2, 2, register + 1)
    found = _expression("lookup", text(1, described.name), be32(2, _REG32), be32(3, _REG32))
    port = _REG32 + SIZES[described.value[0]] // 4
    family = _IPV6 if described.ipv6 else _IPV4
    return version + loads + found + _expression("nat", be32(1, 1), be32(2, family), be32(3, _REG32), be32(5, port))


def masquerade() -> bytes:
    return _expression("masq")


def verdict(code: int) -> bytes:
    return _expression("immediate", be32(1, _REG_VERDICT), nested(2, nested(2, be32(1, code))))


def protocol(name: str) -> bytes:
    """The packet's transport protocol is tcp or udp."""
    return _expression("meta", be32(2, 16), be32(1, _REG_1)) + _compare(pack_protocol(name)[:1])


def sport(port: int) -> bytes:
    """The packet comes from that port."""
    return _load(2, 0, 2) + _compare(struct.pack(">H", port))


def dport(port: int) -> bytes:
    """The packet goes to that port."""
    return _load(2, 2, 2) + _compare(struct.pack(">H", port))


def set_port(port: int, protocol_name: str, *, source: bool) -> bytes:
    """Write another port into the packet's header, checksum included."""
    value = _expression("immediate", be32(1, _REG_1), nested(2, attribute(1, struct.pack(">H", port))))
    udp = protocol_name == "udp"
    return value + _expression(
        "payload",
        be32(5, _REG_1),
        be32(2, 2),
        be32(3, 0 if source else 2),
        be32(4, 2),
        be32(6, 1),  # an internet checksum
        be32(7, 6 if udp else 16),
    )
