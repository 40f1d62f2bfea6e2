"""Times as Docker writes them: RFC 3339 in UTC with nanoseconds. In memory a time is whole nanoseconds."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone

from engine.errors import InvalidInput

ZERO = "0001-01-01T00:00:00Z"
"""What Docker shows for "never"."""

_SECOND = 1_000_000_000
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9})\d*)?)?)?"
    r"(?:([Zz])|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)
_UNIX = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_UNITS = {"h": 3600 * _SECOND, "m": 60 * _SECOND, "s": _SECOND, "ms": 10**6, "us": 1000, "µs": 1000, "ns": 1}


def now() -> int:
    return time.time_ns()


def from_unix(seconds: float) -> int:
    """Nanoseconds of a unix time in seconds."""
    return int(seconds * _SECOND)


def rfc3339(nanoseconds: int) -> str:
    """`2024-05-01T10:00:00.000000001Z`; 0 is "never".

    The nine digits are always written, so that such strings sort as the times do.
    """
    if nanoseconds == 0:
        return ZERO
    seconds, rest = divmod(nanoseconds, _SECOND)
    moment = time.gmtime(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{rest:09d}Z"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch; 0 for Docker's "never" and for anything before 1970.

    Raises InvalidInput for what is not a date.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise InvalidInput(f"invalid time {text!r}: write it as 2024-05-01T10:00:00Z")
    year, month, day, hour, minute, second, fraction, _, sign, off_hour, off_minute = match.groups()
    zone: timezone = UTC
    try:
        if sign is not None:
            offset = timedelta(hours=int(off_hour), minutes=int(off_minute))
            zone = timezone(-offset if sign == "-" else offset)
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=zone
        )
        if moment.year <= 1:
            return 0
        seconds = round(moment.timestamp())
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"invalid time {text!r}: {error}") from None
    return max(0, seconds * _SECOND + int((fraction or "").ljust(9, "0")))


def parse_since(text: str | None, at: int | None = None) -> int:
    """What `since` and `until` accept: unix seconds with a fraction, RFC 3339, or a Go duration ago.

    Returns nanoseconds since the epoch, 0 where nothing was given.
    """
    if text is None or text in ("", "0"):
        return 0
    unix = _UNIX.fullmatch(text)
    if unix is not None:
        return int(unix[1]) * _SECOND + int((unix[2] or "").ljust(9, "0"))
    if text[0] != "-" and "".join(match[0] for match in _DURATION.finditer(text)) == text:
        return max(0, (now() if at is None else at) - duration(text))
    return parse_rfc3339(text)


def go_duration(nanoseconds: int) -> str:
    """`50ms`, `1.5s` or `1m30s`, as Go writes a duration."""
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < size * 1000 and nanoseconds < _SECOND:
            return f"{nanoseconds / size:.9g}{unit}"
    minutes, seconds = divmod(nanoseconds / _SECOND, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds:.9g}s"


def duration(text: str) -> int:
    """Nanoseconds of a Go duration such as `1h30m` or `500ms`. Raises InvalidInput."""
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise InvalidInput(f"invalid duration {text!r}: write it as 1m30s")
    return int(sum(float(part[1]) * _UNITS[part[2]] for part in parts))
