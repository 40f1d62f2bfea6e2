"""A Dockerfile's bytes → logical lines: parser directives, comments, continuation, heredoc bodies.

https://docs.docker.com/reference/dockerfile/#parser-directives and #format
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.build.problems import DockerfileError

# What Go's unicode.IsSpace knows; Python's str.isspace also counts the four separators 0x1c to 0x1f.
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

MAX_LINE = 65_536  # bytes with the newline: what BuildKit's scanner holds
MAX_FILE = 16 << 20

_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+?)[\t\n\f\r ]*\Z")
_DIRECTIVE_NAMES = frozenset({"syntax", "escape", "check"})
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_TOO_LONG = f"dockerfile line greater than max allowed size of {MAX_LINE - 1}"


@dataclass(frozen=True)
class Directive:
    """`# name=value` at the top of the file."""

    name: str
    value: str
    line: int


@dataclass(frozen=True)
class LogicalLine:
    """One instruction's text, its continuation lines joined. Lines count from 1, both ends inclusive."""

    text: str
    start: int
    end: int
    comments: tuple[str, ...]
    empty_continuation: bool


class Lexer:
    """Reads logical lines one by one; between two of them the caller may take heredoc bodies."""

    def __init__(self, source: bytes) -> None:
        if len(source) > MAX_FILE:
            raise DockerfileError(f"the file has {len(source)} bytes, more than the {MAX_FILE} allowed")
        if source.startswith(b"\xef\xbb\xbf"):
            source = source[3:]
        # Bytes that are no UTF-8 survive the round trip to the image's configuration and to commands.
        self._lines = source.decode("utf-8", "surrogateescape").split("\n")
        self._ends_open = bool(self._lines[-1])
        if not self._ends_open:
            self._lines.pop()
        self._next = 0
        self._directives_over = False
        self.directives: list[Directive] = []
        self.escape = "\\"
        self._set_escape("\\")

    @property
    def line(self) -> int:
        """The number of the line that was read last."""
        return self._next

    def __iter__(self) -> Iterator[LogicalLine]:
        comments: list[str] = []
        while (raw := self._read()) is not None:
            stripped = raw.rstrip("\r\n").lstrip(SPACES)
            if stripped.startswith("#"):
                if not self._directive(stripped):
                    comment = stripped[1:].strip(SPACES)
                    comments = [*comments, comment] if comment else []
                continue
            self._directives_over = True
            start = self._next
            piece, goes_on = self._cut_continuation(stripped)
            if not goes_on and not piece:
                continue
            pieces, empty = [piece], False
            while goes_on and (raw := self._read()) is not None:
                following = raw.rstrip("\r\n")
                bare = following.lstrip(SPACES)
                if bare.startswith("#"):
                    continue
                if not bare:
                    empty = True
                    continue
                piece, goes_on = self._cut_continuation(following)
                pieces.append(piece)
            yield LogicalLine("".join(pieces), start, self._next, tuple(comments), empty)
            comments = []

    def heredoc(self, name: str, strip_tabs: bool) -> str:
        """The body that ends with a line `name`, as written, newlines and leading tabs included.

        Raises DockerfileError, without a line, when the file ends first.
        """
        body: list[str] = []
        while (raw := self._read()) is not None:
            candidate = raw.rstrip("\r\n")
            if (candidate.lstrip("\t") if strip_tabs else candidate) == name:
                return "".join(body)
            last_open = self._ends_open and self._next == len(self._lines)
            body.append(raw if last_open else raw + "\n")
        raise DockerfileError(f"unterminated heredoc: no line {name} ends it")

    def _read(self) -> str | None:
        if self._next >= len(self._lines):
            return None
        raw = self._lines[self._next]
        if len(raw) * 4 >= MAX_LINE and len(raw.encode("utf-8", "surrogateescape")) >= MAX_LINE:
            raise DockerfileError(_TOO_LONG, self._next + 1)
        self._next += 1
        return raw

    def _cut_continuation(self, line: str) -> tuple[str, bool]:
        match = self._continuation.search(line)
        if match is None:
            return line, False
        return line[: match.start()] + (match.group(1) or ""), True

    def _directive(self, line: str) -> bool:
        if self._directives_over:
            return False
        match = _DIRECTIVE.match(line[1:].lstrip(SPACES))
        if match is None or match.group(1).lower() not in _DIRECTIVE_NAMES:
            self._directives_over = True
            return False
        name, value = match.group(1).lower(), match.group(2)
        if any(known.name == name for known in self.directives):
            raise DockerfileError(f"only one {name} parser directive can be used", self._next)
        if name == "escape":
            self._set_escape(value)
        self.directives.append(Directive(name, value, self._next))
        return True

    def _set_escape(self, token: str) -> None:
        if token not in ("\\", "`"):
            raise DockerfileError(f"invalid escape token '{token}' does not match ` or \\", self._next)
        self.escape = token
        quoted = re.escape(token)
        # A token before the token takes its meaning away; a line may also be nothing but the token.
        self._continuation = re.compile(rf"([^{quoted}]){quoted}[ \t]*\Z|\A{quoted}[ \t]*\Z")


def strip_leading_tabs(body: str) -> str:
    """What `<<-` does to a heredoc's body."""
    return _LEADING_TABS.sub("", body)
