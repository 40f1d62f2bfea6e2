"""`WWW-Authenticate` as registries send it (RFC 9110 section 11.6.1, RFC 6750)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_PART = re.compile(
    r"""\s*,?\s*(?:
        (?P<key>[a-zA-Z0-9_.-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))
        |(?P<scheme>[a-zA-Z][a-zA-Z0-9_.-]*)(?=\s|,|\Z)
    )""",
    re.VERBOSE,
)
_MOST = 8192


@dataclass(frozen=True)
class Challenge:
    """One way in. `scheme` is in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of an answer, in their order. What can't be read ends its header quietly."""
    found: list[Challenge] = []
    for text in headers:
        if len(text) > _MOST:
            continue
        position = 0
        while match := _PART.match(text, position):
            position = match.end()
            if match["scheme"] is not None:
                found.append(Challenge(match["scheme"].lower()))
            elif found:
                value = match["plain"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
                found[-1].parameters.setdefault(match["key"].lower(), value)
    return found
