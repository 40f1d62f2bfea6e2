"""Patterns and paths exactly as Go's path/filepath has them: Clean and Match.

https://pkg.go.dev/path/filepath#Match. `*` and `?` never match a slash; a class is `[a-z]` or `[^a-z]`.
"""

from __future__ import annotations

import re
from functools import lru_cache


class PatternError(ValueError):
    """The pattern's syntax is wrong."""


def clean(path: str) -> str:
    """The shortest path that means the same, without touching the disk; `.` for nothing."""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if parts and parts[-1] != "..":
                parts.pop()
            elif not rooted:
                parts.append(part)
            continue
        parts.append(part)
    return ("/" if rooted else "") + "/".join(parts) or "."


def match(pattern: str, name: str) -> bool:
    """Whether the whole of `name` matches. Raises PatternError."""
    return compiled(pattern).fullmatch(name) is not None


def has_wildcards(path: str) -> bool:
    """Whether `path` is a pattern; an escaped sign is none."""
    at = 0
    while at < len(path):
        if path[at] == "\\":
            at += 1
        elif path[at] in "*?[":
            return True
        at += 1
    return False


def unescape(pattern: str) -> str:
    """A pattern without wildcards as the path that it names."""
    return re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression for fullmatch. Raises PatternError."""
    chunks: list[list[str]] = [[]]  # what stands between stars
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            chunks.append([])
        elif char == "?":
            chunks[-1].append("[^/]")
        elif char == "[":
            text, at = read_class(pattern, at)
            chunks[-1].append(text)
        elif char == "\\":
            if at == len(pattern):
                raise PatternError(f"syntax error in pattern: {pattern}")
            chunks[-1].append(re.escape(pattern[at]))
            at += 1
        else:
            chunks[-1].append(re.escape(char))
    first, *others = ["".join(chunk) for chunk in chunks]
    out = first
    # After a star the first place where the chunk fits is as good as any other, save for the last chunk: to
    # commit to it keeps hostile patterns from costing exponential time.
    out += "".join(f"(?>[^/]*?{chunk})" for chunk in others[:-1] if chunk)
    out += f"[^/]*{others[-1]}" if others else ""
    return re.compile(out, re.DOTALL)


def read_class(pattern: str, at: int) -> tuple[str, int]:
    """The class that begins after the bracket at `at`, as one of Python's, and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _class_member(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_member(pattern, at + 1)
        # An empty range matches nothing in Go; Python would refuse it.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    inner = "".join(ranges)
    if not inner:
        return ("." if negated else r"(?!)"), at + 1
    return f"[{'^' if negated else ''}{inner}]", at + 1


def _class_member(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise PatternError(f"syntax error in pattern: {pattern}")
    if pattern[at] == "\\":
        at += 1
    if at + 1 >= len(pattern):  # something must follow: at least the closing bracket
        raise PatternError(f"syntax error in pattern: {pattern}")
    return pattern[at], at + 1
