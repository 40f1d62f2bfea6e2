"""Docker's `filters` parameter: JSON of {"name": ["value", ...]}, or the older {"name": {"value": true}}."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

import msgspec

from engine.errors import InvalidInput
from engine.images.descriptor import MALFORMED

Filters = dict[str, list[str]]


def parse(text: str) -> Filters:
    """Raises InvalidInput for what is neither of the two forms."""
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool] | None])
    except MALFORMED:
        raise InvalidInput(f"invalid filter {text[:100]!r}") from None
    found: Filters = {}
    for name, values in raw.items():
        if isinstance(values, dict):
            found[name] = [value for value, wanted in values.items() if wanted]
        else:
            found[name] = values or []
    return found


def check(filters: Mapping[str, Sequence[str]], known: Collection[str]) -> None:
    """Raise InvalidInput for a filter that means nothing here."""
    for name in filters:
        if name not in known:
            raise InvalidInput(f"invalid filter '{name}'")


def any_of(wanted: Sequence[str] | None, fits: Callable[[str], bool]) -> bool:
    """Whether one of `wanted` fits; nothing wanted, everything fits."""
    return not wanted or any(fits(want) for want in wanted)


def path_match(pattern: str, name: str) -> bool:
    """Go's path.Match, by which names of images are filtered: `*` and `?` stop at a slash."""
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        end = pattern.find("]", index + 1) if char == "[" else -1
        if char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif end > 0:
            inside = pattern[index + 1 : end].replace("\\", "\\\\")
            parts.append(f"[{inside}]")
            index = end
        else:
            parts.append(re.escape(char))
        index += 1
    try:
        return re.compile("".join(parts))
    except re.error:
        raise InvalidInput(f"invalid pattern {pattern!r}") from None
