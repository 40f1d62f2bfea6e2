"""The part of the DNS message format that the resolver needs (RFC 1035)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

TYPE_A, TYPE_PTR, TYPE_AAAA = 1, 12, 28
_CLASS_IN = 1
_TTL = 0  # containers come and go: nobody should remember

NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


@dataclass(frozen=True)
class Question:
    """The one question of a query. `end` is the offset behind it."""

    name: str
    kind: int
    end: int


def parse_question(message: bytes) -> Question | None:
    """The question of a standard query, or None if `message` is anything else."""
    if len(message) < 17:
        return None
    flags, questions = struct.unpack_from(">2xHH", message)
    if flags & 0xF800 or questions != 1:
        return None
    labels: list[str] = []
    offset = 12
    while offset < len(message) and message[offset]:
        length = message[offset]
        if length > 63 or offset + 1 + length > len(message):
            return None
        labels.append(message[offset + 1 : offset + 1 + length].decode("ascii", "replace"))
        offset += 1 + length
    if offset + 5 > len(message):
        return None
    kind, family = struct.unpack_from(">HH", message, offset + 1)
    if family != _CLASS_IN:
        return None
    return Question(".".join(labels).lower(), kind, offset + 5)


def answer_addresses(query: bytes, question: Question, addresses: Sequence[str]) -> bytes:
    """An answer with one A record for each address. Without any it says: the name has no such record."""
    records = b"".join(
        struct.pack(">HHHIH", 0xC00C, TYPE_A, _CLASS_IN, _TTL, 4) + ipaddress.IPv4Address(address).packed
        for address in addresses
    )
    return _answer(query, question, NOERROR, len(addresses), records)


def answer_name(query: bytes, question: Question, name: str) -> bytes:
    """An answer with one PTR record."""
    encoded = b"".join(bytes([len(part)]) + part for part in name.encode().split(b".")) + b"\0"
    record = struct.pack(">HHHIH", 0xC00C, TYPE_PTR, _CLASS_IN, _TTL, len(encoded)) + encoded
    return _answer(query, question, NOERROR, 1, record)


def answer_failure(query: bytes, question: Question, code: int) -> bytes:
    return _answer(query, question, code, 0, b"")


def _answer(query: bytes, question: Question, code: int, count: int, records: bytes) -> bytes:
    # A response, recursion available, recursion desired as asked.
    flags = 0x8080 | (query[2] & 1) << 8 | code
    header = query[:2] + struct.pack(">HHHHH", flags, 1, count, 0, 0)
    return header + query[12 : question.end] + records


def reverse_address(name: str) -> str | None:
    """The IPv4 address that a name below in-addr.arpa stands for."""
    suffix = ".in-addr.arpa"
    if not name.endswith(suffix):
        return None
    parts = name.removesuffix(suffix).split(".")
    try:
        return str(ipaddress.IPv4Address(".".join(reversed(parts))))
    except ValueError:
        return None
