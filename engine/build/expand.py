"""Shell-like words of a Dockerfile: quotes, escapes, `$name` and every `${name…}` form.

https://docs.docker.com/reference/dockerfile/#environment-replacement. The forms: `${v}`, `:-` `-` `:+` `+`
`:?` `?`, `#` `##` `%` `%%` (shortest and longest prefix and suffix), `/` and `//` (first and each match).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.build.lexer import SPACES

_SPECIAL_PARAMETERS = frozenset("@*#?-$!")  # and 0, read as a number
_REGEX_SIGNS = frozenset("[]{}.+()|^$")
_TEMPLATE = re.compile(r"\$(?:\$|\w+|\{\w+\})")
_MAX_DEPTH = 100


class ExpansionError(ValueError):
    """The word cannot be expanded; the message says what stands in the way."""


@dataclass(frozen=True)
class Rules:
    """How a word is read. The defaults are those of instructions."""

    escape: str = "\\"
    raw_quotes: bool = False  # quotes stay in the result
    raw_escapes: bool = False  # escape tokens stay in the result
    plain_quotes: bool = False  # quotes are ordinary characters (heredoc bodies)
    keep_unset: bool = False  # `$name` of an unknown name stays as written


INSTRUCTION = Rules()


@dataclass(frozen=True)
class Expanded:
    """A word after expansion, and the names that it asked for."""

    text: str
    words: tuple[str, ...]
    used: frozenset[str]
    unknown: frozenset[str]


def expand(word: str, variables: Mapping[str, str], rules: Rules = INSTRUCTION) -> str:
    """`word` as one word, spaces kept. Raises ExpansionError."""
    return read(word, variables, rules).text


def split(word: str, variables: Mapping[str, str], rules: Rules = INSTRUCTION) -> tuple[str, ...]:
    """`word` expanded first and then split at spaces that are not quoted. Raises ExpansionError."""
    return read(word, variables, rules).words


def read(word: str, variables: Mapping[str, str], rules: Rules = INSTRUCTION) -> Expanded:
    """`word` in both shapes, with the names it used and those it asked for in vain. Raises ExpansionError."""
    reader = _Reader(word, variables, rules)
    try:
        text, words = reader.until("", rules.raw_escapes)
    except ExpansionError as error:
        raise ExpansionError(f'failed to process "{word}": {error}') from None
    return Expanded(text, words, frozenset(reader.used), frozenset(reader.unknown))


class _Words:
    """Gathers characters into words; unquoted spaces end one."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._open: list[str] = []

    def loose(self, text: str) -> None:
        for char in text:
            if char not in SPACES:
                self._open.append(char)
            else:
                self._close()

    def fixed(self, text: str) -> None:
        self._open.append(text)

    def _close(self) -> None:
        if word := "".join(self._open):
            self.done.append(word)
            self._open = []

    def finish(self) -> tuple[str, ...]:
        self._close()
        return tuple(self.done)


class _Reader:
    """A cursor over one word."""

    def __init__(self, source: str, variables: Mapping[str, str], rules: Rules) -> None:
        self._source = source
        self._at = 0
        self._variables = variables
        self._rules = rules
        self._raw_escapes = rules.raw_escapes
        self._depth = 0
        self.used: set[str] = set()
        self.unknown: set[str] = set()

    def _peek(self) -> str:
        return self._source[self._at] if self._at < len(self._source) else ""

    def _take(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def until(self, stop: str, raw_escapes: bool) -> tuple[str, tuple[str, ...]]:
        """Reads up to `stop` and takes it too; the empty `stop` is the end of the source."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ExpansionError(f"substitutions are nested more than {_MAX_DEPTH} deep")
        outer, self._raw_escapes = self._raw_escapes, raw_escapes
        try:
            return self._until(stop)
        finally:
            self._raw_escapes = outer
            self._depth -= 1

    def _until(self, stop: str) -> tuple[str, tuple[str, ...]]:
        result: list[str] = []
        words = _Words()
        while char := self._peek():
            if char == stop:
                self._take()
                return "".join(result), words.finish()
            if char == "$":
                value = self._dollar()
                words.loose(value)
                result.append(value)
            elif special := self._special(char):
                value = special()
                words.fixed(value)
                result.append(value)
            elif char == self._rules.escape:
                self._take()
                if self._raw_escapes:
                    words.fixed(char)
                    result.append(char)
                if not (following := self._take()):
                    break
                words.fixed(following)
                result.append(following)
            else:
                self._take()
                words.loose(char)
                result.append(char)
        if stop:
            raise ExpansionError(f"unexpected end of statement while looking for matching {stop}")
        return "".join(result), words.finish()

    def _special(self, char: str) -> Callable[[], str] | None:
        if char == "<":
            return self._heredoc_sign
        if self._rules.plain_quotes:
            return None
        return {"'": self._single_quoted, '"': self._double_quoted}.get(char)

    def _heredoc_sign(self) -> str:
        """`<<` keeps the blanks that follow it, so that `<< EOF` stays one word."""
        self._take()
        if self._peek() != "<":
            return "<"
        start = self._at
        self._take()
        while self._peek() in ("\t", "\r", " "):
            self._take()
        return "<" + self._source[start : self._at]

    def _single_quoted(self) -> str:
        end = self._source.find("'", self._at + 1)
        if end < 0:
            raise ExpansionError("unexpected end of statement while looking for matching single-quote")
        inner = self._source[self._at + 1 : end]
        self._at = end + 1
        return f"'{inner}'" if self._rules.raw_quotes else inner

    def _double_quoted(self) -> str:
        quote = self._take()
        kept = quote if self._rules.raw_quotes else ""
        result = [kept]
        escape = self._rules.escape
        while char := self._peek():
            if char == '"':
                self._take()
                return "".join([*result, kept])
            if char == "$":
                result.append(self._dollar())
                continue
            self._take()
            if char == escape:
                if self._raw_escapes:
                    result.append(char)
                following = self._peek()
                if not following:
                    continue
                if following in ('"', "$", escape):
                    char = self._take()
            result.append(char)
        raise ExpansionError("unexpected end of statement while looking for matching double-quote")

    def _lookup(self, name: str) -> str | None:
        value = self._variables.get(name)
        (self.unknown if value is None else self.used).add(name)
        return value

    def _name(self) -> str:
        """A name, a number or one special parameter; empty where none begins here."""
        start = self._at
        first = self._peek()
        if first in _SPECIAL_PARAMETERS:
            return self._take()
        if first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
            return self._source[start : self._at]
        while (char := self._peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
            self._at += 1
        return self._source[start : self._at]

    def _dollar(self) -> str:
        self._take()
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._lookup(name)
            if value is None:
                return f"${name}" if self._rules.keep_unset else ""
            return value
        self._take()
        if not self._peek():
            raise ExpansionError("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise ExpansionError("syntax error: bad substitution")
        name = self._name()
        sign = self._take()
        if sign == "}":
            value = self._lookup(name)
            if value is None:
                return f"${{{name}}}" if self._rules.keep_unset else ""
            return value
        if not sign:
            raise ExpansionError("syntax error: missing '}'")
        if sign == "/":
            return self._replace(name)
        modifier = self._take() if sign == ":" else sign
        if modifier not in ("+", "-", "?", "#", "%") or (sign == ":" and modifier in "#%"):
            shown = sign + modifier if sign == ":" else sign
            raise ExpansionError(f"unsupported modifier ({shown}) in substitution")
        word = self._operand("}", raw_escapes=modifier in "#%")
        value = self._lookup(name)
        if value is None and self._rules.keep_unset:
            return f"${{{name}{':' if sign == ':' else ''}{modifier}{word}}}"
        return _modify(name, value, modifier, word, null_is_unset=sign == ":")

    def _operand(self, stop: str, *, raw_escapes: bool) -> str:
        try:
            return self.until(stop, raw_escapes)[0]
        except ExpansionError as error:
            if not self._peek() and "nested" not in str(error):
                where = " in ${}" if stop == "/" else ""
                raise ExpansionError(f"syntax error: missing '{stop}'{where}") from None
            raise

    def _replace(self, name: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._take()
        pattern = self._operand("/", raw_escapes=True)
        replacement = self._operand("}", raw_escapes=True)
        value = self._lookup(name)
        if value is None:
            if self._rules.keep_unset:
                return f"${{{name}/{pattern}/{replacement}}}"
            value = ""
        return _substitute(_pattern(pattern, greedy=True), replacement, value, everywhere=everywhere)


def _modify(name: str, value: str | None, modifier: str, word: str, *, null_is_unset: bool) -> str:
    missing = value is None or (null_is_unset and value == "")
    if modifier == "-":
        return word if missing else value or ""
    if modifier == "+":
        return "" if missing else word
    if modifier == "?":
        if value is None:
            raise ExpansionError(f"{name}: {word or 'is not allowed to be unset'}")
        if missing:
            raise ExpansionError(f"{name}: {word or 'is not allowed to be empty'}")
        return value
    greedy = word.startswith(modifier)
    pattern = word[1:] if greedy else word
    text = value or ""
    if modifier == "#":
        match = _pattern(pattern, greedy=greedy).match(text)
        return text[match.end() :] if match else text
    # The shortest suffix is a leftmost search in the mirror only.
    mirrored = text[::-1]
    match = _pattern(_mirror(pattern), greedy=greedy).match(mirrored)
    return mirrored[match.end() :][::-1] if match else text


def _substitute(pattern: re.Pattern[str], replacement: str, value: str, *, everywhere: bool) -> str:
    """Like re.sub, but an empty match right after another match counts for nothing, as in Go."""
    pieces: list[str] = []
    done = 0
    for match in pattern.finditer(value):
        if pieces and match.start() == match.end() == done:
            continue
        pieces += [value[done : match.start()], _filled(replacement) if everywhere else replacement]
        done = match.end()
        if not everywhere:
            break
    return "".join([*pieces, value[done:]])


def _filled(template: str) -> str:
    """What Go makes of a template for each match: `$name` is a group, and there are none; `$$` is a dollar."""
    return _TEMPLATE.sub(lambda found: "$" if found[0] == "$$" else "", template)


def _mirror(pattern: str) -> str:
    """The pattern backwards, each escape still before its character."""
    pieces: list[str] = []
    at = 0
    while at < len(pattern):
        width = 2 if pattern[at] == "\\" and at + 1 < len(pattern) else 1
        pieces.append(pattern[at : at + width])
        at += width
    return "".join(reversed(pieces))


def _pattern(pattern: str, *, greedy: bool) -> re.Pattern[str]:
    """`*` and `?` as in a shell, without bracket expressions."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out.append(".*" if greedy else ".*?")
        elif char == "?":
            out.append(".")
        elif char == "\\":
            following = pattern[at : at + 1]
            if following in ("}", "/"):
                continue  # escaped for ${} alone, and plain in the pattern
            if following not in ("*", "?", "\\"):
                raise ExpansionError(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{following}'")
            out.append(re.escape(following))
            at += 1
        else:
            out.append(re.escape(char) if char in _REGEX_SIGNS or char in "#&~- \t" else char)
    return re.compile("".join(out))
