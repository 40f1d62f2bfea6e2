"""nf_tables by netlink: tables, chains, rules and maps; what rules are made of is in `rules`.

Every function returns a request for `Netlink.batch`; nothing here has an effect. Constants are those of
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from engine.network.netlink import CREATE, EXCL, Request, attribute, be32, nested, text

_INET = 1  # NFPROTO_INET: both versions of IP in one table
SUBSYSTEM = 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWELEMENTS, _DELELEMENTS = 0, 2, 3, 6, 9, 12, 14

PREROUTING, FORWARD, OUTPUT, POSTROUTING = 0, 2, 3, 4
"""Hooks."""

DROP, ACCEPT, RETURN = 0, 1, -5
"""Verdicts."""

TYPE_IPV4, TYPE_IPV6, TYPE_PROTOCOL, TYPE_SERVICE = 7, 8, 12, 13
SIZES = {TYPE_IPV4: 4, TYPE_IPV6: 16, TYPE_PROTOCOL: 4, TYPE_SERVICE: 4}
"""What keys and values of maps are made of, and how many bytes each takes."""


def _request(kind: int, flags: int, *parts: bytes) -> Request:
    return (SUBSYSTEM << 8 | kind, flags, struct.pack(">BBH", _INET, 0, 0) + b"".join(parts))


BEGIN: Request = (0x10, 0, struct.pack(">BBH", 0, 0, SUBSYSTEM))
END: Request = (0x11, 0, struct.pack(">BBH", 0, 0, SUBSYSTEM))


def add_table(table: str, *, new: bool = False) -> Request:
    """Make a table; one that is there already fails the batch (EEXIST) where it has to be `new`."""
    return _request(_NEWTABLE, CREATE | EXCL if new else CREATE, text(1, table), be32(2, 0))


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


@dataclass(frozen=True)
class Map:
    """A map from a concatenation of `key` types to an address and a port. `number` is unique in its table."""

    name: str
    number: int
    key: tuple[int, ...]
    ipv6: bool = False

    @property
    def value(self) -> tuple[int, ...]:
        return (TYPE_IPV6 if self.ipv6 else TYPE_IPV4, TYPE_SERVICE)


_PORT = (TYPE_PROTOCOL, TYPE_SERVICE)
ANYWHERE = Map("published", 1, _PORT)
ADDRESSED = Map("published_on", 2, (TYPE_IPV4, *_PORT))
ANYWHERE6 = Map("published6", 3, _PORT, ipv6=True)
ADDRESSED6 = Map("published6_on", 4, (TYPE_IPV6, *_PORT), ipv6=True)


def _concatenation(types: Sequence[int]) -> tuple[int, int]:
    """How nf_tables names a concatenation, and its size in bytes."""
    kind = 0
    for part in types:
        kind = kind << 6 | part
    return kind, sum(SIZES[part] for part in types)


def add_map(table: str, described: Map) -> Request:
    key, key_size = _concatenation(described.key)
    value, value_size = _concatenation(described.value)
    return _request(
        _NEWSET,
        CREATE,
        text(1, table),
        text(2, described.name),
        be32(3, 0x8),  # NFT_SET_MAP
        be32(4, key),
        be32(5, key_size),
        be32(6, value),
        be32(7, value_size),
        be32(10, described.number),
    )


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
    return ipaddress.ip_address(address).packed


def pack_protocol(protocol: str) -> bytes:
    return struct.pack("=Bxxx", socket.IPPROTO_UDP if protocol == "udp" else socket.IPPROTO_TCP)


def pack_port(port: int) -> bytes:
    return struct.pack(">Hxx", port)
