"""nf_tables by netlink: tables, chains, rules, maps and the few expressions that our rules are made of.

Every function returns a request for `Netlink.batch`; nothing here has an effect. Constants are those of
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence

from engine.network.netlink import CREATE, Request, attribute, be32, nested, text

FAMILY = 2  # NFPROTO_IPV4
_SUBSYSTEM = 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWELEMENTS, _DELELEMENTS = 0, 2, 3, 6, 9, 12, 14

PREROUTING, FORWARD, OUTPUT, POSTROUTING = 0, 2, 3, 4
DROP, ACCEPT, RETURN = 0, 1, -5

_REG_VERDICT, _REG_1 = 0, 1
_REG32 = 8  # the first of sixteen registers of four bytes, over the same memory as _REG_1
_TYPE_ADDRESS, _TYPE_PROTOCOL, _TYPE_SERVICE = 7, 12, 13

STATE_ESTABLISHED, STATE_RELATED = 2, 4
STATUS_DNAT = 0x20


def _request(kind: int, flags: int, *parts: bytes) -> Request:
    return (_SUBSYSTEM << 8 | kind, flags, struct.pack(">BBH", FAMILY, 0, 0) + b"".join(parts))


BEGIN: Request = (0x10, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))
END: Request = (0x11, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))


def add_table(table: str) -> Request:
    return _request(_NEWTABLE, CREATE, text(1, table), be32(2, 0))


def delete_table(table: str) -> Request:
    return _request(_DELTABLE, 0, text(1, table))


def add_chain(table: str, chain: str, kind: str, hook: int, priority: int) -> Request:
    """A base chain of type `kind` (filter, nat) that accepts what no rule of it decides."""
    return _request(
        _NEWCHAIN,
        CREATE,
        text(1, table),
        text(3, chain),
        nested(4, be32(1, hook), be32(2, priority)),
        be32(5, ACCEPT),
        text(7, kind),
    )


def add_rule(table: str, chain: str, *expressions: bytes) -> Request:
    """Append a rule."""
    return _request(_NEWRULE, CREATE | 0x800, text(1, table), text(2, chain), nested(4, *expressions))


def flush_chain(table: str, chain: str) -> Request:
    """Remove all rules of a chain."""
    return _request(8, 0, text(1, table), text(2, chain))


def add_map(table: str, name: str, number: int, key: Sequence[int]) -> Request:
    """A map from a concatenation of `key` types to an address and a port. `number` is unique in the batch."""
    kind = 0
    for part in key:
        kind = kind << 6 | part
    return _request(
        _NEWSET,
        CREATE,
        text(1, table),
        text(2, name),
        be32(3, 0x8),  # NFT_SET_MAP
        be32(4, kind),
        be32(5, 4 * len(key)),
        be32(6, _TYPE_ADDRESS << 6 | _TYPE_SERVICE),
        be32(7, 8),
        be32(10, number),
    )


ANY_KEY = (_TYPE_PROTOCOL, _TYPE_SERVICE)
ADDRESSED_KEY = (_TYPE_ADDRESS, _TYPE_PROTOCOL, _TYPE_SERVICE)


def _elements(kind: int, flags: int, table: str, name: str, items: Sequence[bytes]) -> Request:
    return _request(kind, flags, text(1, table), text(2, name), nested(3, *items))


def add_elements(table: str, name: str, entries: Sequence[tuple[bytes, bytes]]) -> Request:
    """Add (key, value) pairs to a map. A key that is there with another value fails the batch (EEXIST)."""
    items = [nested(1, nested(1, attribute(1, key)), nested(2, attribute(1, value))) for key, value in entries]
    return _elements(_NEWELEMENTS, CREATE, table, name, items)


def delete_elements(table: str, name: str, entries: Sequence[tuple[bytes, bytes]]) -> Request:
    """Remove keys from a map. A key that is not there fails the batch (ENOENT)."""
    items = [nested(1, nested(1, attribute(1, key))) for key, _ in entries]
    return _elements(_DELELEMENTS, 0, table, name, items)


def pack_address(address: str) -> bytes:
    return ipaddress.IPv4Address(address).packed


def pack_protocol(protocol: str) -> bytes:
    return struct.pack("=Bxxx", socket.IPPROTO_UDP if protocol == "udp" else socket.IPPROTO_TCP)


def pack_port(port: int) -> bytes:
    return struct.pack(">Hxx", port)


# Expressions. Each is one list element with its name and its data.


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


def _network_match(offset: int, network: str) -> bytes:
    subnet = ipaddress.IPv4Network(network)
    load = _expression("payload", be32(1, _REG_1), be32(2, 1), be32(3, offset), be32(4, 4))
    return load + _mask(subnet.netmask.packed) + _compare(subnet.network_address.packed)


def saddr(network: str) -> bytes:
    """The packet's source is in `network`."""
    return _network_match(12, network)


def daddr(network: str) -> bytes:
    """The packet's destination is in `network`."""
    return _network_match(16, network)


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


def load_address(register: int) -> bytes:
    """Put the packet's destination address into register `register`."""
    return _expression("payload", be32(1, _REG32 + register), be32(2, 1), be32(3, 16), be32(4, 4))


def load_protocol(register: int) -> bytes:
    """Put the transport protocol's number into register `register`."""
    return _expression("meta", be32(2, 16), be32(1, _REG32 + register))


def load_port(register: int) -> bytes:
    """Put the packet's destination port into register `register`."""
    return _expression("payload", be32(1, _REG32 + register), be32(2, 2), be32(3, 2), be32(4, 2))


def dnat_by(name: str) -> bytes:
    """Look registers 0 and following up in map `name`, and redirect to the address and port it holds."""
    return _expression("lookup", text(1, name), be32(2, _REG32), be32(3, _REG32)) + _expression(
        "nat", be32(1, 1), be32(2, FAMILY), be32(3, _REG32), be32(5, _REG32 + 1)
    )


def masquerade() -> bytes:
    return _expression("masq")


def verdict(code: int) -> bytes:
    return _expression("immediate", be32(1, _REG_VERDICT), nested(2, nested(2, be32(1, code))))
