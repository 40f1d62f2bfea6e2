"""A model's refusal in our own words: what is wrong, and what to do."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.definition.models import StageDef
from pipeline.plan.models import Kind
from pipeline.values import NAME_PATTERN, did_you_mean

Loc = tuple[str | int, ...]

_TYPES = {
    "string_type": ("this is not text", "write text, with quotes if it looks like something else"),
    "int_parsing": ("this is not a whole number", "write a whole number"),
    "int_parsing_size": ("this is not a whole number", "write a smaller one"),
    "int_type": ("this is not a whole number", "write a whole number"),
    "float_parsing": ("this is not a number", "write a number"),
    "float_type": ("this is not a number", "write a number"),
    "tuple_type": ("this is not a list", "write a list: [a, b]"),
    "dict_type": ("this is not a mapping", "write a mapping: {key: value}"),
    "model_type": ("this is not a mapping", "write a mapping: {key: value}"),
}
_BOUNDS = {
    "greater_than": ("is too small", "use more than {gt}"),
    "greater_than_equal": ("is too small", "use {ge} or more"),
    "less_than": ("is too large", "use less than {lt}"),
    "less_than_equal": ("is too large", "use {le} or less"),
    "too_short": ("is empty", "write at least one"),
    "too_long": ("has too many items", "use {max_length} or fewer"),
    "string_too_short": ("is empty", "write something"),
    "string_too_long": ("is too long", "use {max_length} characters or fewer"),
}


def explain(model: type[BaseModel], problem: Mapping[str, Any]) -> tuple[str, str]:
    """What and remedy of one of a ValidationError's errors."""
    kind, message, given = problem["type"], str(problem["msg"]), problem["input"]
    context = problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f'unknown key "{problem["loc"][-1]}"', _other_key(model, problem["loc"])
    if kind == "missing":
        key = problem["loc"][-1]
        return f'the key "{key}" is missing', f"add {key}:"
    if kind == "value_error":
        what, _, remedy = message.removeprefix("Value error, ").partition(": ")
        return what, remedy
    if kind == "literal_error":
        return f"{shown(given)} is not known here", "use " + context["expected"].replace("'", '"')
    if kind == "string_pattern_mismatch":
        return f"{shown(given)} does not fit", _pattern_remedy(context["pattern"])
    if kind in _BOUNDS:
        what, remedy = _BOUNDS[kind]
        subject = "this" if given in ("", (), [], {}) else shown(given)
        return f"{subject} {what}", remedy.format(**{key: _number(bound) for key, bound in context.items()})
    what, remedy = _TYPES.get(kind, (message.replace("Input", "it"), ""))
    return f"{shown(given)}: {what}", remedy


def shown(value: Any) -> str:
    if isinstance(value, (dict, BaseModel)):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "nothing" if value is None else f'"{str(_number(value))[:60]}"'


def _number(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value


def _other_key(model: type[BaseModel], loc: Loc) -> str:
    """Where an unknown key belongs, or what it was meant to be."""
    *parents, key = (str(part) for part in loc)
    if model is StageDef and len(parents) == 1 and key in StageDef.model_fields:
        return f"write it beside {parents[0]}:, not in it"
    if model is StageDef and not parents:
        bodies = [kind.value for kind in Kind if key in _keys_of(model, (kind.value,))]
        if bodies:
            return f"write it in {' or '.join(f'{body}:' for body in bodies)}, not beside it"
    return did_you_mean(key, _keys_of(model, tuple(loc[:-1])))


@functools.lru_cache(maxsize=64)
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _keys_of(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that the model has at a location."""
    schema = _schema(model)
    node: dict[str, Any] = schema
    for part in loc:
        node = _resolve(schema, node)
        if isinstance(part, int):
            node = node.get("items", {})
        elif str(part) in node.get("properties", {}):
            node = node["properties"][str(part)]
        else:
            # A mapping of names: what follows the name is the same for all.
            named = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
            node = named[0] if isinstance(named[0], dict) else {}
    return list(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in node.get("anyOf", ()):
        if "$ref" in option:
            node = option
    if "$ref" in node:
        found: dict[str, Any] = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        return found
    return node


def _pattern_remedy(pattern: str) -> str:
    if pattern == NAME_PATTERN or pattern.startswith("^[a-z0-9]"):
        return "use lower case letters, digits, - and _, at most 63"
    if pattern.startswith("^[A-Za-z_]"):
        return "use letters, digits and _, not a digit first"
    if pattern.startswith("^/"):
        return "begin it with /"
    return "use letters, digits, dots and dashes"
