"""Public Dockerfiles read as BuildKit reads them, and public expansions expanded as it expands them."""

from __future__ import annotations

import json

import pytest

from engine.build import interpret as interpret_module
from engine.build.expand import ExpansionError, expand
from engine.build.interpret import interpret
from engine.build.parser import Node, parse
from engine.build.problems import DockerfileError
from tests.engine.build.corpus import corpus_file

DOCKERFILES = [json.loads(line) for line in corpus_file("dockerfile-parses.jsonl").read_text().splitlines()]
EXPANSIONS = [
    line for line in corpus_file("variable-expansion.txt").read_text().splitlines() if line[:2] in ("A|", "U|")
]
KNOWN = frozenset(interpret_module._MEANINGS)
ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\v": "\\v", "\f": "\\f",
}  # fmt: skip


def quote(text: str) -> str:
    """Go's strconv.Quote, as far as Dockerfiles need it."""
    return '"' + "".join(ESCAPES.get(char) or _shown(char) for char in text) + '"'


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 0x80 else f"\\u{ord(char):04x}"


def printed(node: Node) -> str:
    """A node as BuildKit's parser prints its own."""
    out = node.keyword.lower()
    if node.flags:
        out += f" [{' '.join(map(quote, node.flags))}]"
    if node.child:
        out += f" ({printed(node.child)})"
    elif node.keyword.lower() not in KNOWN:
        out += ' ""'
    return "".join([out, *(" " + quote(arg) for arg in node.args)]).strip()


@pytest.mark.parametrize("case", DOCKERFILES, ids=lambda case: case["name"])
def test_public_dockerfile(case: dict[str, object]) -> None:
    source = str(case["dockerfile"]).encode()
    if "error" in case:
        with pytest.raises(DockerfileError) as refused:
            parse(source)
        assert refused.value.problem == case["error"]
        return
    syntax = parse(source)
    assert "\n".join(f"({printed(node)})" for node in syntax.nodes) == case["ast"]
    if "error2" in case:
        with pytest.raises(DockerfileError) as refused:
            interpret(syntax)
        error = refused.value
        assert case["error2"] in (
            f"dockerfile parse error on line {error.line}: {error.problem}",
            error.problem,
        )
        return
    stages = interpret(syntax).stages
    assert [{"base": stage.opening.base, "n": len(stage.steps), "name": stage.name} for stage in stages] == case[
        "stages"
    ]


@pytest.mark.parametrize("line", EXPANSIONS)
def test_public_expansion(line: str) -> None:
    _, word, wanted = (part.strip() for part in line.split("|"))
    variables = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}
    if wanted == "error":
        with pytest.raises(ExpansionError):
            expand(word, variables)
    else:
        assert expand(word, variables) == wanted
