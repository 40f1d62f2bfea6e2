"""Patterns of branches, tags and paths. Matching takes pattern times name steps at most, whatever they hold.

A regular expression would backtrack: `*a*a*a*a*b` over a long name takes years. Here all positions of the
pattern that may be reached are followed at once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

_SET = re.compile(r"\[(!?)([^\]/\\\[]+)\]")


@dataclass(frozen=True)
class _Token:
    """What one place of the pattern takes."""

    kind: str
    """`char`, `set`, `?`: one character. `*`: any within a part. `**`: any. `**/`: whole parts."""
    chars: str = ""
    ranges: tuple[tuple[str, str], ...] = ()
    negative: bool = False

    def takes(self, char: str) -> bool:
        if self.kind == "char":
            return char == self.chars
        if self.kind == "set":
            return char != "/" and any(low <= char <= high for low, high in self.ranges) != self.negative
        return self.kind in ("**", "**/") or char != "/"


class Glob:
    """`*` and `?` stay within a part of the path, `**` goes over parts, `[a-z]` and `[!a-z]` are sets."""

    def __init__(self, pattern: str) -> None:
        self._tokens = tuple(_tokens(pattern))

    def fits(self, name: str) -> bool:
        """Whether the whole name fits."""
        reached = self._entered([0])
        for char in name:
            reached = self._after(reached, char)
            if not reached:
                return False
        return len(self._tokens) in reached

    def _after(self, reached: set[int], char: str) -> set[int]:
        stay, enter = set(), []
        for place in reached:
            if place == len(self._tokens) or not self._tokens[place].takes(char):
                continue
            kind = self._tokens[place].kind
            if kind in ("*", "**", "**/"):
                stay.add(place)
            if kind in ("char", "set", "?") or kind in ("*", "**") or (kind == "**/" and char == "/"):
                enter.append(place + 1)
        return stay | self._entered(enter)

    def _entered(self, places: Iterable[int]) -> set[int]:
        """With those behind, where a place may take nothing."""
        found = set()
        for place in places:
            found.add(place)
            while place < len(self._tokens) and self._tokens[place].kind in ("*", "**", "**/"):
                place += 1
                found.add(place)
        return found


@functools.lru_cache(maxsize=1024)
def glob(pattern: str) -> Glob:
    return Glob(pattern)


def _tokens(pattern: str) -> Iterable[_Token]:
    position = 0
    while position < len(pattern):
        stars = len(pattern) - position - len(pattern[position:].lstrip("*"))
        starts_part = position == 0 or pattern[position - 1] == "/"
        if stars >= 2 and starts_part and pattern.startswith("/", position + stars):
            yield _Token("**/")
            position += stars + 1
        elif stars:
            yield _Token("**" if stars >= 2 else "*")
            position += stars
        elif pattern[position] == "?":
            yield _Token("?")
            position += 1
        elif match := _SET.match(pattern, position):
            yield _Token("set", ranges=tuple(_ranges(match[2])), negative=bool(match[1]))
            position = match.end()
        else:
            yield _Token("char", pattern[position])
            position += 1


def _ranges(text: str) -> Iterable[tuple[str, str]]:
    position = 0
    while position < len(text):
        if text[position + 1 : position + 2] == "-" and position + 2 < len(text):
            yield text[position], text[position + 2]
            position += 3
        else:
            yield text[position], text[position]
            position += 1
