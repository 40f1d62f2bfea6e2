"""The five fields of a schedule: checked, and the next time that fits them. All times are UTC."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMES = {
    "month": {name: number for number, name in enumerate(_MONTHS, 1)},
    "weekday": {name: number for number, name in enumerate(_WEEKDAYS)},
}
_ITEM = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d{1,4}))?")
_HORIZON = timedelta(days=366 * 8 + 1)
"""29 February may be eight years away (2096 to 2104)."""


@dataclass(frozen=True)
class Schedule:
    """The values that each field allows."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either_day: bool
    """Day and weekday are both named: one of them is enough, as cron(8) has it."""

    def on(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_day or by_weekday if self.either_day else by_day and by_weekday


def check_cron(text: str) -> str:
    """The text. Raises ValueError, with the remedy after a colon, when it is not a cron expression of five fields."""
    if next_time(text, 0.0) is None:
        raise ValueError(f'"{text}" never comes: no month has such a day')
    return text


def next_time(text: str, after: float) -> float | None:
    """The first moment later than `after` (Unix seconds) that fits; None when there is none. Raises ValueError."""
    schedule = parse(text)
    moment = datetime.fromtimestamp(after, UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    ends = moment + _HORIZON
    while moment < ends:
        if not schedule.on(moment):
            moment = moment.replace(hour=0, minute=0) + timedelta(days=1)
        elif moment.hour not in schedule.hours:
            moment = moment.replace(minute=0) + timedelta(hours=1)
        elif moment.minute not in schedule.minutes:
            moment += timedelta(minutes=1)
        else:
            return moment.timestamp()
    return None


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Schedule:
    """Raises ValueError."""
    fields = text.lower().split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f'"{text}" is not five fields: write minute hour day month weekday, as 0 3 * * *')
    minutes, hours, days, months, weekdays = (
        frozenset().union(*(_values(item, *field) for item in value.split(",")))
        for value, field in zip(fields, _FIELDS, strict=True)
    )
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    return Schedule(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either)


def _values(item: str, name: str, low: int, high: int) -> frozenset[int]:
    if match := _ITEM.fullmatch(item):
        first: int | None = low
        last: int | None = high
        if match[1]:
            first = _number(match[1], name)
            # `5/15` counts on from 5, as `5-59/15`.
            last = _number(match[2], name) if match[2] else (high if match[3] else first)
        step = int(match[3] or 1)
        if first is not None and last is not None and step and low <= first <= last <= high:
            return frozenset(range(first, last + 1, step))
    raise ValueError(f'"{item}" does not fit as {name}: use {low} to {high}, *, a-b, */n')


def _number(text: str, name: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else _NAMES.get(name, {}).get(text)
