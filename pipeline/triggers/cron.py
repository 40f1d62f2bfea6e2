"""The five fields of a schedule, checked and stored."""

from __future__ import annotations

import re

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMES = {
    name: number
    for names in (("jan feb mar apr may jun jul aug sep oct nov dec", 1), ("sun mon tue wed thu fri sat", 0))
    for number, name in enumerate(names[0].split(), names[1])
}
_ITEM = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")


def check_cron(text: str) -> None:
    """Raises ValueError, with the remedy after a colon, when it is not a cron expression of five fields."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f'"{text}" has {len(fields)} fields: write minute hour day month weekday, as 0 3 * * *')
    for value, (name, low, high) in zip(fields, _FIELDS, strict=True):
        for item in value.split(","):
            if not _fits(item.lower(), low, high):
                raise ValueError(f'"{item}" is not a {name}: use {low} to {high}, *, a-b, */n')


def _fits(item: str, low: int, high: int) -> bool:
    match = _ITEM.fullmatch(item)
    if match is None:
        return False
    bounds = [_number(part) for part in match.group(1, 2) if part is not None]
    return match[3] != "0" and all(number is not None and low <= number <= high for number in bounds)


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else _NAMES.get(text)
