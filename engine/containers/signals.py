"""Signals by name or number."""

from __future__ import annotations

import signal

from engine.errors import InvalidInput

_BY_NAME = {entry.name.removeprefix("SIG"): int(entry) for entry in signal.Signals}
_FIRST_REALTIME, _LAST_REALTIME = 34, 64


def number(text: str) -> int:
    """15 of `TERM`, `SIGTERM` or `15`; real-time ones as `RTMIN+3`. Raises InvalidInput."""
    name = text.strip().upper()
    if name.isdecimal() and 0 < int(name) <= _LAST_REALTIME:
        return int(name)
    name = name.removeprefix("SIG")
    if name in _BY_NAME:
        return _BY_NAME[name]
    base, sign, offset = name[:5], name[5:6], name[6:]
    if base in ("RTMIN", "RTMAX") and sign in ("+", "-") and offset.isdecimal():
        start = _FIRST_REALTIME if base == "RTMIN" else _LAST_REALTIME
        value = start + int(offset) * (1 if sign == "+" else -1)
        if _FIRST_REALTIME <= value <= _LAST_REALTIME:
            return value
    raise InvalidInput(f"invalid signal: {text}")
