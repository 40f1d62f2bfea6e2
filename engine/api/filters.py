"""Docker's `filters` parameter: JSON of {"name": ["value", ...]}, or the older {"name": {"value": true}}."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from engine.errors import InvalidInput

Filters = dict[str, list[str]]


def parse(text: str) -> Filters:
    """Raises InvalidInput for what is neither of the two forms."""
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool] | None])
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise InvalidInput(f"invalid filter {text!r}") from None
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


def labels_match(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """Whether all of `wanted`, each `key` or `key=value`, are among `labels`."""
    for want in wanted:
        key, has_value, value = want.partition("=")
        if key not in labels or (has_value and labels[key] != value):
            return False
    return True


def any_of(wanted: Sequence[str] | None, fits: Callable[[str], bool]) -> bool:
    """Whether one of `wanted` fits; nothing wanted, everything fits."""
    return not wanted or any(fits(want) for want in wanted)
