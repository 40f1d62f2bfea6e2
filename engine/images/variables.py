"""The variables of a `--change` line, out of the environment that the image has by then."""

from __future__ import annotations

import re
from collections.abc import Mapping

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
_IN_QUOTES, _OUTSIDE = re.compile(r"[\\\"]"), re.compile(r"[^\w/:.,=+@%-]", re.ASCII)


def expanded(text: str, env: Mapping[str, str], *, quoting: bool) -> str:
    r"""`$name` and `${name}` replaced, as in a Dockerfile: not in single quotes, nor after a backslash.

    With `quoting` the text is split into words later, which a value must not change.
    """
    result, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        match = _VARIABLE.match(text, at) if char == "$" and quote != "'" else None
        if match is not None:
            value = env.get(match[1] or match[2], "")
            special = _IN_QUOTES if quote else _OUTSIDE
            result += special.sub(r"\\\g<0>", value) if quoting else value
            at = match.end()
            continue
        if char == "\\" and quote != "'" and at + 1 < len(text):
            escaped = text[at + 1]
            # Outside of quotes the words' own reader takes the backslash away; in them it would keep one before a $.
            result += escaped if escaped == "$" and (quote or not quoting) else text[at : at + 2]
            at += 2
            continue
        if char in "\"'":
            quote = "" if char == quote else quote or char
        result += char
        at += 1
    return result
