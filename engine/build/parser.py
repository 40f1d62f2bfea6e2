"""Logical lines → nodes: an instruction's word, its flags, its arguments and its heredocs.

Nothing is expanded here, nothing checked beyond what the syntax needs: `interpret` gives nodes a meaning.
https://docs.docker.com/reference/dockerfile/
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.build.expand import ExpansionError, Rules, split
from engine.build.lexer import SPACES, Directive, Lexer
from engine.build.problems import DockerfileError

_BLANKS = re.compile(r"[\t\v\f\r ]+")
_FLAG_ENDS = "\t\n\v\f\r "  # BuildKit reads flags byte by byte: no wider space ends one
_HEREDOC = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)\Z")
_TAKES_HEREDOC = frozenset({"add", "copy", "run"})


@dataclass(frozen=True)
class Heredoc:
    """`<<NAME`: quotes round the name turn expansion off, a dash strips leading tabs."""

    name: str
    expand: bool
    strip_tabs: bool
    descriptor: int = 0
    body: str = ""


@dataclass(frozen=True)
class Node:
    """One instruction as written. `keyword` keeps its case; `args` of ENV and LABEL come in threes."""

    keyword: str
    args: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    json: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    child: Node | None = None  # what ONBUILD holds
    original: str = ""
    start: int = 0
    end: int = 0
    comments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Syntax:
    """A whole Dockerfile as written."""

    nodes: tuple[Node, ...]
    escape: str
    directives: tuple[Directive, ...]
    warnings: tuple[str, ...]


def parse(source: bytes) -> Syntax:
    """Reads a Dockerfile. Raises DockerfileError."""
    lexer = Lexer(source)
    nodes: list[Node] = []
    warnings: list[str] = []
    for line in lexer:
        if line.empty_continuation:
            warnings.append(f"line {line.end}: empty continuation line in: {line.text}")
        try:
            node = parse_line(line.text, lexer.escape)
            heredocs: list[Heredoc] = []
            for opened in _heredocs_of(node, line.text):
                body = lexer.heredoc(opened.name, opened.strip_tabs)
                heredocs.append(replace(opened, body=body))
        except DockerfileError as error:
            raise error.at(line.start, line.text.split(maxsplit=1)[0].upper() if line.text.strip() else "") from None
        nodes.append(replace(node, heredocs=tuple(heredocs), start=line.start, end=lexer.line, comments=line.comments))
    if not nodes:
        raise DockerfileError("file with no instructions")
    return Syntax(tuple(nodes), lexer.escape, tuple(lexer.directives), tuple(warnings))


def parse_line(text: str, escape: str = "\\") -> Node:
    """One instruction on one line, without heredoc bodies. Raises DockerfileError without a line."""
    pieces = _BLANKS.split(text.strip(SPACES), maxsplit=1)
    keyword = pieces[0]
    flags, rest = _take_flags(pieces[1], escape) if len(pieces) == 2 else ((), "")
    node = Node(keyword, flags=flags, original=text)
    reader = _READERS.get(keyword.lower())
    return reader(node, rest.strip(SPACES), escape) if reader else node


def heredoc_of(word: str) -> Heredoc | None:
    """The heredoc that a word opens, if it does. Raises DockerfileError on unbalanced quotes."""
    match = _HEREDOC.match(word)
    if match is None or not match.group(3):
        return None
    rest = match.group(3)
    try:
        bare = split(rest, {}, Rules(keep_unset=True))
        quoted = split(rest, {}, Rules(keep_unset=True, raw_quotes=True))
    except ExpansionError as error:
        raise DockerfileError(str(error)) from None
    if len(bare) != 1 or len(quoted) != 1:
        return None
    return Heredoc(
        name=bare[0],
        expand=_quotes(bare[0]) == _quotes(quoted[0]),
        strip_tabs=match.group(2) == "-",
        descriptor=int(match.group(1)[:9] or 0),
    )


def _quotes(word: str) -> int:
    return word.count("'") + word.count('"')


def _heredocs_of(node: Node, text: str) -> list[Heredoc]:
    inner = node.child if node.keyword.lower() == "onbuild" and node.child else node
    if inner.keyword.lower() not in _TAKES_HEREDOC or inner.json or "<<" not in text:
        return []
    try:
        words = split(text, {}, Rules(raw_quotes=True, raw_escapes=True, keep_unset=True))
    except ExpansionError:
        return []  # a shell command with quotes of its own kind opens no heredoc
    return [found for word in words if (found := heredoc_of(word))]


def _take_flags(rest: str, escape: str) -> tuple[tuple[str, ...], str]:
    """Cuts `--name=value` words off the front, unquoted; `--` ends them."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(rest) and rest[at] in _FLAG_ENDS:
            at += 1
        if not rest.startswith("--", at):
            return tuple(flags), rest[at:]
        word: list[str] = []
        quote = ""
        while at < len(rest):
            char = rest[at]
            if not quote and char in _FLAG_ENDS:
                break
            at += 1
            if char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            elif char == escape:
                word.append(rest[at : at + 1])
                at += 1
            else:
                word.append(char)
        flag = "".join(word)
        if flag == "--":
            return tuple(flags), rest[at:]
        flags.append(flag)


def _words(rest: str, escape: str) -> list[str]:
    """Words as ENV, LABEL and ARG see them: quotes and escapes stay, spaces within them do not split."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    at = 0
    while at < len(rest):
        char = rest[at]
        at += 1
        if not quote and char in SPACES:
            if word:
                words.append("".join(word))
                word = []
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        if char == escape and quote != "'":
            if at == len(rest):
                break  # an escape token with nothing to escape
            word.append(char)
            char = rest[at]
            at += 1
        word.append(char)
    if word:
        words.append("".join(word))
    return words


def _pairs(node: Node, rest: str, escape: str) -> Node:
    """`name=value …` or the old `name value`; each pair is name, value and `=` or nothing."""
    words = _words(rest, escape)
    if not words:
        return node
    if "=" not in words[0]:
        pieces = _BLANKS.split(rest, maxsplit=1)
        if len(pieces) < 2:
            raise DockerfileError(f"{node.keyword.upper()} must have two arguments")
        return replace(node, args=(pieces[0], pieces[1], ""))
    args: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            shown = json.dumps(word, ensure_ascii=False)
            raise DockerfileError(f"Syntax error - can't find = in {shown}. Must be of the form: name=value")
        args += [name, value, "="]
    return replace(node, args=tuple(args))


def _arguments(node: Node, rest: str, escape: str) -> Node:
    return replace(node, args=tuple(_words(rest, escape)))


def _blank_separated(node: Node, rest: str, escape: str) -> Node:
    return replace(node, args=tuple(_BLANKS.split(rest))) if rest else node


def _whole(node: Node, rest: str, escape: str) -> Node:
    return replace(node, args=(rest,)) if rest else node


def _command(node: Node, rest: str, escape: str) -> Node:
    """A JSON list of strings is the exec form, all else the shell form."""
    words = _json_list(rest)
    if words is not None:
        return replace(node, args=words, json=True)
    return _whole(node, rest, escape)


def _paths(node: Node, rest: str, escape: str) -> Node:
    words = _json_list(rest)
    if words is not None:
        return replace(node, args=words, json=True)
    return _blank_separated(node, rest, escape)


def _health(node: Node, rest: str, escape: str) -> Node:
    if not rest:
        return node
    kind = re.split(f"[{SPACES}]", rest, maxsplit=1)[0]
    command = _command(node, rest[len(kind) :].lstrip(SPACES), escape)
    return replace(command, args=(kind, *command.args))


def _sub_instruction(node: Node, rest: str, escape: str) -> Node:
    return replace(node, child=parse_line(rest, escape)) if rest else node


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _json_list(rest: str) -> tuple[str, ...] | None:
    rest = rest.lstrip(SPACES)
    if not rest.startswith("["):
        return None
    try:
        value = json.loads(rest, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    words: list[str] = []
    for word in value:
        # Go reads null into a string list's interface element as nil, which is no string either.
        if not isinstance(word, str):
            raise DockerfileError("when using JSON array syntax, arrays must be comprised of strings only")
        words.append(_mend_surrogates(word))
    return tuple(words)


def _mend_surrogates(word: str) -> str:
    """A lone `\\ud800` in JSON becomes U+FFFD; bytes that were no UTF-8 (U+DC80 up) stay as they are."""
    if word.isascii():
        return word
    return "".join("\ufffd" if "\ud800" <= char <= "\udc7f" or "\udd00" <= char <= "\udfff" else char for char in word)


_READERS: dict[str, Callable[[Node, str, str], Node]] = {
    "add": _paths,
    "arg": _arguments,
    "cmd": _command,
    "copy": _paths,
    "entrypoint": _command,
    "env": _pairs,
    "expose": _blank_separated,
    "from": _blank_separated,
    "healthcheck": _health,
    "label": _pairs,
    "maintainer": _whole,
    "onbuild": _sub_instruction,
    "run": _command,
    "shell": _command,
    "stopsignal": _whole,
    "user": _whole,
    "volume": _paths,
    "workdir": _whole,
}
