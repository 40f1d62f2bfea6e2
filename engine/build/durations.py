"""Durations and sizes as Go writes them."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKmMgGtTpP]?)(?:i?[bB])?\Z")
_MOST = (1 << 63) - 1


def parse_duration(text: str) -> int:
    """`1h30m`, `1.5s`, `-2ms`, `0` → nanoseconds. Raises ValueError."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    total = Fraction(0)
    at = 0
    while at < len(rest):
        match = _PART.match(rest, at)
        if match is None or len(match.group(1)) > 40:
            break
        total += Fraction(match.group(1) if match.group(1) != "." else "0") * _UNITS[match.group(2)]
        at = match.end()
    if not rest or at < len(rest):
        raise ValueError(f'invalid duration "{text}": write a number and a unit, such as 30s or 1m30s')
    if total > _MOST:
        raise ValueError(f'invalid duration "{text}": more than 292 years')
    return sign * int(total)


def parse_size(text: str) -> int:
    """`64m`, `1.5GiB`, `512` → bytes, units of 1024. Raises ValueError."""
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(f"invalid size: {text}")
    power = " kmgtp".index(match.group(2).lower() or " ")
    return int(Fraction(match.group(1)) * 1024**power)
