"""`.dockerignore`: which files of a build context count as not there.

https://docs.docker.com/build/concepts/context/#dockerignore-files. The last pattern that matches a path, or
any of its parents, decides; `!` makes an exception; `**` stands for any number of folders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.build.filematch import PatternError, clean, compiled, read_class
from engine.build.lexer import SPACES
from engine.build.problems import DockerfileError


def read_patterns(source: bytes) -> tuple[str, ...]:
    """The patterns of a `.dockerignore`, cleaned, in order; exceptions begin with `!`."""
    patterns: list[str] = []
    for line in source.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n"):
        if line.startswith("#"):
            continue
        pattern = line.strip(SPACES)
        if not pattern:
            continue
        exception = pattern.startswith("!")
        if exception:
            pattern = pattern[1:].strip(SPACES)
        if pattern:
            pattern = clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        patterns.append("!" + pattern if exception else pattern)
    return tuple(patterns)


@dataclass(frozen=True)
class _Rule:
    exception: bool
    matches: Callable[[str], bool]


class IgnoreRules:
    """Decides for one path after another. Raises DockerfileError on a pattern that makes no sense."""

    def __init__(self, patterns: Iterable[str]) -> None:
        rules: list[_Rule] = []
        for given in patterns:
            pattern = given.strip(SPACES)
            if not pattern:
                continue
            pattern = clean(pattern)
            exception = pattern.startswith("!")
            pattern = pattern.removeprefix("!") if exception else pattern
            if not pattern:
                raise DockerfileError('.dockerignore: illegal exclusion pattern: "!"')
            try:
                compiled(pattern)  # Go checks every pattern as if it had no `**`
                rules.append(_Rule(exception, _matcher(pattern)))
            except (PatternError, re.error):
                raise DockerfileError(f".dockerignore: syntax error in pattern: {given}") from None
        self._rules = tuple(rules)
        self.has_exceptions = any(rule.exception for rule in rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def matches(self, path: str) -> bool:
        """Whether `path` (relative, clean, with slashes) is to be ignored, its parents considered."""
        parts = path.split("/")
        candidates = [path, *("/".join(parts[:depth]) for depth in range(1, len(parts)))]
        ignored = False
        for rule in self._rules:
            # A rule can only turn the verdict: one that agrees with it need not be asked.
            if rule.exception == ignored and any(map(rule.matches, candidates)):
                ignored = not rule.exception
        return ignored

    def verdict(self, name: str, parent: Sequence[bool]) -> tuple[bool, tuple[bool, ...]]:
        """Like `matches`, given the parent folder's second result; () for a top-level name.

        The second result says for each rule whether it matched the path or one of its parents.
        """
        ignored = False
        matched: list[bool] = []
        for at, rule in enumerate(self._rules):
            hit = bool(parent) and parent[at]
            if not hit and rule.exception == ignored:
                hit = rule.matches(name)
            matched.append(hit)
            if hit:
                ignored = not rule.exception
        return ignored, tuple(matched)


_ANY_FOLDERS, _ANYTHING, _STAR = "(?:.*/)?", ".*", "[^/]*"
_MOST_STARS = 3  # beyond it, backtracking could cost more than a path and a pattern are worth


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Moby's pattern language, anchored at both ends; a trailing `**` leaves the end open."""
    if not re.search(r"[*?\[\]\\]", pattern):
        return pattern.__eq__
    if pattern.startswith("**") and not re.search(r"[*?\[\]\\]", pattern[2:]):
        suffix = pattern[2:]  # with or without the slash: `**foo` is any path that ends so
        return lambda path: path.endswith(suffix) or (suffix[:1] == "/" and path == suffix[1:])
    tokens = _tokens(pattern)
    if sum(token in (_ANY_FOLDERS, _ANYTHING, _STAR) for token in tokens) > _MOST_STARS:
        return _Automaton(tokens)
    whole = re.compile("".join(tokens), re.DOTALL).fullmatch
    return lambda path: whole(path) is not None


def _tokens(pattern: str) -> list[str]:
    """The pattern as pieces of a regular expression: each one character, or one of the three stars."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern.startswith("*", at):
            at += 1
            at += pattern.startswith("/", at)
            out.append(_ANY_FOLDERS if at < len(pattern) else _ANYTHING)
        elif char == "*":
            out.append(_STAR)
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            text, at = read_class(pattern, at)
            out.append(text)
        elif char == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return out


class _Automaton:
    """Follows all readings of a path at once: time grows with path times pattern, never faster."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._single = [re.compile(token, re.DOTALL) for token in tokens]

    def __call__(self, path: str) -> bool:
        places = self._skip({0})
        for char in path:
            onward: set[int] = set()
            for at in places:
                if at < 0:
                    onward.add(at)
                    continue
                if at == len(self._tokens):
                    continue
                token = self._tokens[at]
                if token == _ANYTHING:
                    onward.add(at)
                elif token == _ANY_FOLDERS:
                    onward.add(~at)  # inside of it, and not free to leave before a slash
                elif token == _STAR:
                    if char != "/":
                        onward.add(at)
                elif self._single[at].fullmatch(char):
                    onward.add(at + 1)
            if char == "/":
                onward |= {~at + 1 for at in onward if at < 0}
            places = self._skip(onward)
        return len(self._tokens) in places

    def _skip(self, places: set[int]) -> set[int]:
        """Adds the places behind stars, each of which may stand for nothing."""
        reached = set(places)
        for start in places:
            at = start
            while 0 <= at < len(self._tokens) and self._tokens[at] in (_ANY_FOLDERS, _ANYTHING, _STAR):
                at += 1
                reached.add(at)
        return reached
