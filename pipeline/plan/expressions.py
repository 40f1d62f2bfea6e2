"""`${git.branch}` in text, and the small language of `when`. Pure, typed, bounded; nothing is executed."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Value = str | int | float | bool | None

_OPEN = re.compile(r"\$\$\{|\$\{")
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
_TOKEN = re.compile(
    r"\s*(?:(?P<op>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)|(?P<text>\"[^\"]*\"|'[^']*')"
    r"|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])|(?P<name>[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*))"
)
MAX_EXPRESSION = 2000
MAX_NESTING = 30


class ExpressionError(ValueError):
    """What is wrong, what to do, and how far into the text (characters)."""

    def __init__(self, what: str, remedy: str = "", offset: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.offset = offset


@dataclass(frozen=True)
class Reference:
    """A `${a.b}` in a text."""

    path: tuple[str, ...]
    start: int
    end: int

    def __str__(self) -> str:
        return "${" + ".".join(self.path) + "}"


def references(text: str) -> Iterator[Reference]:
    """All of a text's references. Raises ExpressionError at the first that is malformed."""
    position = 0
    while match := _OPEN.search(text, position):
        if match[0] == "$${":
            position = match.end()
            continue
        close = text.find("}", match.end())
        if close < 0:
            raise ExpressionError("this ${ has no }", "close it, or write $${ for the two characters ${", match.start())
        inner = text[match.end() : close].strip()
        if not _PATH.fullmatch(inner):
            shown = inner[:40]
            raise ExpressionError(
                f'"${{{shown}}}" is not a value\'s name',
                "write a dotted name such as ${git.sha}, or $${ for the two characters ${",
                match.start(),
            )
        position = close + 1
        yield Reference(tuple(inner.split(".")), match.start(), position)


def substitute(text: str, lookup: Callable[[Reference], Value]) -> str:
    """The text with each reference replaced by its value. `lookup` raises ExpressionError when unknown.

    A reference whose lookup gives itself back as text stays for a later pass; `$${` is undone only by
    `unescape`, after the last.
    """
    parts: list[str] = []

    def add(part: str) -> None:
        # A value's last $ and the { of what follows must not become a reference either.
        if part.startswith("{") and parts and parts[-1].endswith("$"):
            parts.append("$")
        if part:
            parts.append(part)

    position = 0
    for reference in references(text):
        add(text[position : reference.start])
        add(to_text(lookup(reference)))
        position = reference.end
    add(text[position:])
    return "".join(parts)


def unescape(text: str) -> str:
    return text.replace("$${", "${")


def escape(text: str) -> str:
    """A value that itself holds `${` must not be read as a reference by a later pass."""
    return text.replace("${", "$${")


def to_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


# when


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    offset: int


Node = tuple[Any, ...]
"""(value, v), (name, path, offset), (not, n), (and, a, b, …), (or, a, b, …), (op, a, b, offset), (list, …)."""


def parse_when(text: str) -> Node:
    """The syntax tree of a `when`. Raises ExpressionError."""
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError("the condition is too long", "make it shorter")
    return _Parser(text).parse()


def names_in(node: Node) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each dotted name of a condition and its offset."""
    if node[0] == "name":
        yield node[1], node[2]
    elif node[0] != "value":
        for part in node[1:]:
            if isinstance(part, tuple):
                yield from names_in(part)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._scan())
        self.position = 0
        self.depth = 0

    def _scan(self) -> Iterator[_Token]:
        position = 0
        while self.text[position:].strip():
            match = _TOKEN.match(self.text, position)
            if match is None:
                start = position + len(self.text[position:]) - len(self.text[position:].lstrip())
                raise ExpressionError(
                    f'"{self.text[start : start + 12]}" makes no sense here',
                    'write it like: git.branch == "main" and not git.tag',
                    start,
                )
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind))
            position = match.end()
        yield _Token("end", "", len(self.text))

    @property
    def here(self) -> _Token:
        return self.tokens[self.position]

    def take(self, *texts: str) -> _Token | None:
        token = self.here
        if token.kind in ("op", "name") and token.text in texts:
            self.position += 1
            return token
        return None

    def parse(self) -> Node:
        node = self.either()
        if self.here.kind != "end":
            raise ExpressionError(f'"{self.here.text}" is one too many', "join with and, or", self.here.offset)
        return node

    def either(self) -> Node:
        nodes = [self.both()]
        while self.take("or"):
            nodes.append(self.both())
        return nodes[0] if len(nodes) == 1 else ("or", *nodes)

    def both(self) -> Node:
        nodes = [self.inverted()]
        while self.take("and"):
            nodes.append(self.inverted())
        return nodes[0] if len(nodes) == 1 else ("and", *nodes)

    def inverted(self) -> Node:
        with self.deeper():
            if self.take("not"):
                return ("not", self.inverted())
            return self.compared()

    @contextmanager
    def deeper(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise ExpressionError("the condition is nested too deeply", "make it simpler", self.here.offset)
        yield
        self.depth -= 1

    def compared(self) -> Node:
        left = self.operand()
        if token := self.take("==", "!=", "<", "<=", ">", ">=", "in", "matches"):
            return (token.text, left, self.operand(), token.offset)
        return left

    def operand(self) -> Node:
        token = self.here
        if self.take("("):
            node = self.either()
            self.expect(")")
            return node
        if self.take("["):
            items = []
            while not self.take("]"):
                with self.deeper():
                    items.append(self.operand())
                if not self.take(",") and self.here.text != "]":
                    self.expect("]")
            return ("list", *items)
        self.position += 1
        if token.kind == "text":
            return ("value", token.text[1:-1])
        if token.kind == "number":
            return ("value", float(token.text) if "." in token.text else int(token.text))
        if token.kind == "name" and token.text in ("true", "false"):
            return ("value", token.text == "true")
        if token.kind == "name" and token.text not in ("and", "or", "not", "in", "matches"):
            return ("name", tuple(token.text.split(".")), token.offset)
        what = f'"{token.text}" can\'t stand here' if token.text else "the condition ends too early"
        raise ExpressionError(what, 'compare a value: git.branch == "main"', token.offset)

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise ExpressionError(f'"{text}" is missing', f'put a "{text}" here', self.here.offset)


def evaluate(node: Node, lookup: Callable[[tuple[str, ...], int], Value]) -> Any:
    """The value of a condition. Raises ExpressionError for what can't be compared."""
    kind = node[0]
    if kind == "value":
        return node[1]
    if kind == "name":
        return lookup(node[1], node[2])
    if kind == "list":
        return [evaluate(item, lookup) for item in node[1:]]
    if kind == "not":
        return not evaluate(node[1], lookup)
    if kind == "and":
        return all(evaluate(part, lookup) for part in node[1:])
    if kind == "or":
        return any(evaluate(part, lookup) for part in node[1:])
    return _compare(kind, evaluate(node[1], lookup), evaluate(node[2], lookup), node[3])


def _compare(sign: str, left: Any, right: Any, offset: int) -> bool:
    if sign == "in":
        if not isinstance(right, list):
            raise ExpressionError("in needs a list", 'write git.branch in ["main", "next"]', offset)
        return left in right
    left, right = ("" if value is None else value for value in (left, right))
    if sign == "matches":
        if isinstance(left, list) or not isinstance(right, str):
            raise ExpressionError("matches needs a pattern", 'write git.branch matches "release-*"', offset)
        return fnmatch.fnmatchcase(to_text(left), right)
    if _type(left) != _type(right):
        remedy = "put quotes around both, or around none"
        raise ExpressionError(f"{_told(left)} and {_told(right)} are of different types", remedy, offset)
    if isinstance(left, list) and sign not in ("==", "!="):
        raise ExpressionError("a list is neither smaller nor larger", "compare with == or in", offset)
    return bool(_OPERATORS[sign](left, right))


def _type(value: Any) -> type:
    return float if type(value) is int else type(value)


def _told(value: Any) -> str:
    return "a list" if isinstance(value, list) else f'"{to_text(value)[:60]}"'


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
