"""The part of the DNS message format that the resolver needs (RFC 1035, RFC 3596, RFC 6891)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

TYPE_A, TYPE_PTR, TYPE_AAAA = 1, 12, 28
_CLASS_IN = 1
_TTL = 0  # containers come and go: nobody should remember

NOERROR, SERVFAIL, REFUSED = 0, 2, 5

_PLAIN_LIMIT = 512
_LONGEST_NAME = 253
_OPT = b"\0\0\x29"
_TRUNCATED = 0x02


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


def udp_limit(query: bytes, question: Question) -> int:
    """How many bytes of answer whoever asks can take in one datagram."""
    options = query[question.end : question.end + 5]
    if options[:3] == _OPT and len(options) == 5:
        return max(_PLAIN_LIMIT, int.from_bytes(options[3:], "big"))
    return _PLAIN_LIMIT


def truncated(answer: bytes, question: Question) -> bytes:
    """What is sent where the answer does not fit: ask again over TCP."""
    flags = bytes([answer[2] | _TRUNCATED, answer[3]])
    return answer[:2] + flags + answer[4:6] + bytes(6) + answer[12 : question.end]


def answer_addresses(query: bytes, question: Question, addresses: Sequence[str]) -> bytes:
    """An answer with one A or AAAA record for each address. Without any it says: the name has no such record."""
    records = []
    for address in addresses:
        packed = ipaddress.ip_address(address).packed
        kind = TYPE_A if len(packed) == 4 else TYPE_AAAA
        records.append(struct.pack(">HHHIH", 0xC00C, kind, _CLASS_IN, _TTL, len(packed)) + packed)
    return _answer(query, question, NOERROR, len(addresses), b"".join(records))


def answer_name(query: bytes, question: Question, name: str) -> bytes | None:
    """An answer with one PTR record; None for a name that can't be written in a message."""
    parts = name.encode().split(b".")
    if not all(0 < len(part) < 64 for part in parts) or len(name) > _LONGEST_NAME:
        return None
    encoded = b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    record = struct.pack(">HHHIH", 0xC00C, TYPE_PTR, _CLASS_IN, _TTL, len(encoded)) + encoded
    return _answer(query, question, NOERROR, 1, record)


def answer_failure(query: bytes, question: Question, code: int) -> bytes:
    return _answer(query, question, code, 0, b"")


def _answer(query: bytes, question: Question, code: int, count: int, records: bytes) -> bytes:
    # A response, recursion available, recursion desired as asked.
    flags = 0x8080 | (query[2] & 1) << 8 | code
    header = query[:2] + struct.pack(">HHHHH", flags, 1, count, 0, 0)
    return header + query[12 : question.end] + records


def response_code(answer: bytes) -> int:
    return answer[3] & 15 if len(answer) > 3 else SERVFAIL


def reverse_address(name: str) -> str | None:
    """The address that a name below in-addr.arpa or ip6.arpa stands for, in its usual spelling."""
    parts = name.split(".")[::-1]
    try:
        if name.endswith(".in-addr.arpa"):
            return str(ipaddress.IPv4Address(".".join(parts[2:])))
        if name.endswith(".ip6.arpa") and len(parts) == 34:
            return str(ipaddress.IPv6Address(bytes.fromhex("".join(parts[2:]))))
    except ValueError:
        pass
    return None
