"""The JSON Schema says about a file what `load` says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.definition.load import load
from pipeline.definition.problems import DefinitionErrors
from pipeline.definition.schema import json_schema

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json_schema()
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    "number": (int, float),
}  # fmt: skip
BOUNDS = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "minLength": lambda value, bound: len(value) >= bound,
    "maxLength": lambda value, bound: len(value) <= bound,
    "minItems": lambda value, bound: len(value) >= bound,
    "maxItems": lambda value, bound: len(value) <= bound,
    "minProperties": lambda value, bound: len(value) >= bound,
    "maxProperties": lambda value, bound: len(value) <= bound,
}
SAID = {"title", "description", "default", "$defs", "$schema"}


def valid(value: Any, node: Any) -> bool:
    """As much of draft 2020-12 as our schema uses; an unknown word is an error of this function."""
    if isinstance(node, bool):
        return node
    for word, rule in node.items():
        match word:
            case "$ref":
                good = valid(value, SCHEMA["$defs"][rule.removeprefix("#/$defs/")])
            case "anyOf":
                good = any(valid(value, option) for option in rule)
            case "oneOf":
                good = sum(valid(value, option) for option in rule) == 1
            case "type":
                kinds = [rule] if isinstance(rule, str) else rule
                good = any(
                    isinstance(value, TYPES[kind]) and (kind == "boolean" or type(value) is not bool) for kind in kinds
                )
            case "const":
                good = value == rule
            case "enum":
                good = value in rule
            case "pattern":
                good = not isinstance(value, str) or re.search(rule, value) is not None
            case "required":
                good = not isinstance(value, dict) or set(rule) <= set(value)
            case "items":
                good = not isinstance(value, list) or all(valid(item, rule) for item in value)
            case "properties" | "patternProperties" | "additionalProperties":
                good = not isinstance(value, dict) or all(valid(value[key], _rule(node, key)) for key in value)
            case _ if word in BOUNDS:
                sized = (
                    isinstance(value, (str, list, dict))
                    if word[3:] in ("Length", "Items", "Properties")
                    else (isinstance(value, (int, float)))
                )
                good = not sized or BOUNDS[word](value, rule)
            case _:
                assert word in SAID, word
                good = True
        if not good:
            return False
    return True


def _rule(node: Any, key: str) -> Any:
    if key in node.get("properties", {}):
        return node["properties"][key]
    for pattern, rule in node.get("patternProperties", {}).items():
        if re.search(pattern, key):
            return rule
    return node.get("additionalProperties", True)


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as editors read it: true and false alone are flags."""


_Loader.yaml_implicit_resolvers = {
    first: [each for each in found if each[0] not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def agrees(text: str) -> bool:
    """Whether the schema takes it."""
    return valid(yaml.load(text, _Loader), SCHEMA)  # noqa: S506  a SafeLoader


FILES = sorted([ROOT / "pipelines.example.yaml", *ROOT.glob("examples/*/pipelines.yaml")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_our_own_files_fit(file: Path) -> None:
    assert agrees(file.read_text())


GOOD = [
    "pipelines: {a: [{build: }, {test: [a, b]}, {push: {to: localhost:1/a, tags: [1.2, latest]}}]}",
    "pipelines: {a: {on: {push: }, stages: [{name: x, build: ., matrix: {v: [1, 2.5, true, x]}}]}}",
    "pipelines: {a: {stages: {a: {run: {image: x, run: y, matrix: {v: [1]}}, env: {A: 1, B: true}, timeout: 90}}}}",
    "pipelines: {a: {concurrency: {group: g}, params: {p: 1.5}, stages: {a: {build: {cache: false}}}}}",
]
BAD = [
    "pipelines: {}",
    "pipeline: {a: [{build: .}]}",
    "pipelines: {A: [{build: .}]}",
    "pipelines: {a: []}",
    "pipelines: {a: [{build: ., test: x}]}",
    "pipelines: {a: [{biuld: .}]}",
    "pipelines: {a: [{build: {cach: true}}]}",
    "pipelines: {a: [{build: {cache: yes}}]}",
    "pipelines: {a: [{build: .}]}\nservices: {w: {port: many}}",
    "pipelines: {a: [{build: .}]}\nservices: {w: {port: 70000}}",
    "pipelines: {a: [{build: .}]}\nservices: {w: {rollout: {strategy: blue}}}",
    "pipelines: {a: {stages: {a: {run: {image: x}}}}}",
    "pipelines: {a: {on: {pull: {}}, stages: {a: {build: .}}}}",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_right_fits(text: str) -> None:
    load(text, "p.yaml")
    assert agrees(text)


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_does_not(text: str) -> None:
    with pytest.raises(DefinitionErrors):
        load(text, "p.yaml")
    assert not agrees(text)
