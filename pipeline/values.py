"""Small typed values that definitions, settings and messages share: durations, sizes, names, labels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, StringConstraints

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE | re.ASCII)
_SIZE_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Frozen(BaseModel):
    """A value: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse_duration(value: object) -> float:
    """Seconds of `90`, `1.5s`, `250ms`, `2m30s`, `1h`, `7d`. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("not a duration: write a number and its unit, such as 30s or 5m")
    if isinstance(value, (int, float)):
        seconds = float(value)
    else:
        text = str(value).strip()
        match = _DURATION.fullmatch(text)
        if match and any(match.groups()):
            days, hours, minutes, secs, millis = (float(group or 0) for group in match.groups())
            seconds = days * 86400 + hours * 3600 + minutes * 60 + secs + millis / 1000
        elif re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            seconds = float(text)
        else:
            raise ValueError(f'"{text[:60]}" is not a duration: write a number and its unit, such as 30s or 5m')
    if not 0 <= seconds <= 366 * 86400:
        raise ValueError("the duration is out of range: use 0s to 366d")
    return seconds


def format_duration(seconds: float) -> str:
    """The short form people read: `350 ms`, `4.2 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def parse_size(value: object) -> int:
    """Bytes of `1048576`, `64k`, `256M`, `1.5GiB` (powers of 1024, as Docker). Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("not a size: write a number and its unit, such as 256M or 1G")
    size: float
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            raise ValueError(f'"{str(value)[:60]}" is not a size: write a number and its unit, such as 256M or 1G')
        size = float(match[1]) * _SIZE_FACTOR[match[2].lower()]
    if not 0 <= size < 1 << 60:
        raise ValueError("the size is out of range: use less than 1024P")
    return int(size)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    PlainSerializer(float, return_type=float),
]
"""Seconds; written with a unit."""

Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=str | int)]
"""Bytes; written with a unit."""


def parse_flag(value: object) -> bool:
    """true and false only: no yes, no, on, off, 1, 0. Raises ValueError."""
    if isinstance(value, bool):
        return value
    if value == "true":
        return True
    if value == "false":
        return False
    raise ValueError(f'"{value}" is neither true nor false: write one of them')


Flag = Annotated[bool, BeforeValidator(parse_flag, json_schema_input_type=bool)]

NAME_PATTERN = r"^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Of a pipeline, stage, service, host: short, lower case, good in URLs, DNS and container names."""

LABEL_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$"
LabelText = Annotated[str, StringConstraints(pattern=LABEL_PATTERN)]
Labels = dict[LabelText, LabelText]
"""What a worker is (`role: web`), and what a stage or a service asks of one."""

EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


def matches_labels(wanted: dict[str, str], has: dict[str, str]) -> bool:
    return all(has.get(key) == value for key, value in wanted.items())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "needs"?` for a near miss, else the list of what there is, else ''."""
    options = sorted(set(known))
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    if not options:
        return ""
    return f"use one of: {', '.join(options[:24])}" if len(options) > 1 else f'use "{options[0]}"'


def as_tuple(value: Any) -> Any:
    """Lets a list of one be written as the bare item."""
    return [value] if isinstance(value, (str, dict)) else value
