"""Text → Definition, or all that is wrong with it at once."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.definition.lint import lint
from pipeline.definition.models import Definition, PipelineDef, StageDef
from pipeline.definition.problems import DefinitionErrors, Problem
from pipeline.definition.shorthand import write_out
from pipeline.definition.tree import Mapping, Path, Sequence, Tree, locate, plain_value, read_tree
from pipeline.services import Service
from pipeline.values import NAME_PATTERN, did_you_mean

_TOP = ("services", "pipelines")
_TYPES = {
    "string_type": ("this is not text", "write text, with quotes if it looks like something else"),
    "int_parsing": ("this is not a whole number", "write a whole number"),
    "int_type": ("this is not a whole number", "write a whole number"),
    "float_parsing": ("this is not a number", "write a number"),
    "tuple_type": ("this is not a list", "write a list: [a, b]"),
    "dict_type": ("this is not a mapping", "write a mapping: {key: value}"),
    "model_type": ("this is not a mapping", "write a mapping: {key: value}"),
    "too_short": ("this is empty", "write at least one"),
}
_EXAMPLE = "begin with: pipelines: {web: [{build: .}]}"


def load(text: str, filename: str) -> Definition:
    """Reads a pipeline file. Raises DefinitionErrors with every problem, in the order of the lines."""
    problems: list[Problem] = []
    tree = write_out(read_tree(text, filename, problems))
    return _Reader(tree, filename, problems).read()


class _Reader:
    """Validates piece by piece, so that one wrong stage does not hide what is wrong with the others."""

    def __init__(self, tree: Tree, filename: str, problems: list[Problem]) -> None:
        self.tree = tree
        self.filename = filename
        self.problems = problems

    def read(self) -> Definition:
        if not isinstance(self.tree, Mapping):
            self.say((), "a pipeline file is a mapping", _EXAMPLE)
            raise DefinitionErrors(self.problems)
        for key in self.tree.items:
            if key not in _TOP:
                self.say((key,), f'unknown key "{key}"', did_you_mean(key, _TOP), key=True)
        services = self._services()
        pipelines = {name: self._pipeline(name) for name in self._children(("pipelines",), required=True)}
        if not pipelines and not self.problems:
            self.say(("pipelines",), "there is no pipeline", _EXAMPLE)
        for path, what, remedy in lint(plain_value(self.tree), services, pipelines):
            self.say(path, what, remedy)
        if self.problems:
            raise DefinitionErrors(self.problems)
        return Definition.model_validate(
            {
                "services": {name: service for name, service in services.items() if service},
                "pipelines": {name: pipeline[0] for name, pipeline in pipelines.items()},
            }
        )

    def _services(self) -> dict[str, Service | None]:
        return {name: self._validate(Service, ("services", name)) for name in self._children(("services",))}

    def _pipeline(self, name: str) -> tuple[PipelineDef | None, dict[str, StageDef | None]]:
        path: Path = ("pipelines", name)
        tree = self._at(path)
        if not isinstance(tree, Mapping):
            self.say(path, "a pipeline is a list of stages, or a mapping with stages", "write - build: .")
            return None, {}
        if "stages" not in tree.items:
            self.say(path, f'the pipeline "{name}" has no stages', "add stages:", key=True)
        stages = {
            stage: self._validate(StageDef, (*path, "stages", stage))
            for stage in self._children((*path, "stages"), pattern=True)
        }
        rest = {key: plain_value(value) for key, value in tree.items.items() if key != "stages"}
        good = {key: value for key, value in stages.items() if value is not None}
        # The stages were checked one by one: a stand-in keeps the rest checkable without them.
        stand_in = good or {"stand-in": {"build": {}}}
        pipeline = self._validate(PipelineDef, path, rest | {"stages": stand_in})
        return pipeline, stages

    def _children(self, path: Path, *, required: bool = False, pattern: bool = True) -> list[str]:
        tree = self._at(path)
        if tree is None:
            if required:
                self.say(path[:-1], f'the key "{path[-1]}" is missing', _EXAMPLE)
            return []
        if not isinstance(tree, Mapping):
            self.say(path, f"{path[-1]} is a mapping of names", "write name: and below it, indented, its keys")
            return []
        names = list(tree.items)
        for name in names:
            if pattern and not _is_name(name, stage=path[-1] == "stages"):
                remedy = "use lower case letters, digits, - and _, at most 63"
                self.say((*path, name), f'"{name}" is not a good name', remedy, key=True)
        return names

    def _at(self, path: Path) -> Tree | None:
        tree: Tree | None = self.tree
        for part in path:
            if not isinstance(tree, Mapping):
                return None
            tree = tree.items.get(str(part))
        return tree

    def _validate(self, model: type[Any], path: Path, value: Any = None) -> Any:
        tree = self._at(path)
        if value is None:
            if not isinstance(tree, Mapping):
                self.say(path, f'"{path[-1]}" has no keys', "write its keys below it, indented", key=True)
                return None
            value = plain_value(tree)
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for problem in error.errors():
                self._explain(model, path, problem)
            return None

    def _explain(self, model: type[BaseModel], path: Path, problem: Any) -> None:
        at = (*path, *_clean(problem["loc"], self.tree, path))
        kind, message = problem["type"], str(problem["msg"])
        if kind == "extra_forbidden":
            known = _keys_of(model, problem["loc"][:-1])
            self.say(at, f'unknown key "{at[-1]}"', did_you_mean(str(at[-1]), known), key=True)
        elif kind == "missing":
            key = problem["loc"][-1]
            self.say(at, f'the key "{key}" is missing', f"add {key}:", key=True)
        elif kind == "value_error":
            what, _, remedy = message.removeprefix("Value error, ").partition(": ")
            self.say(at, what, remedy)
        elif kind == "literal_error":
            expected = problem["ctx"]["expected"].replace("'", '"')
            self.say(at, f"{_shown(problem['input'])} is not known here", f"use {expected}")
        elif kind == "string_pattern_mismatch":
            self.say(at, f"{_shown(problem['input'])} does not fit", _pattern_remedy(problem["ctx"]["pattern"]))
        else:
            wrong, remedy = _TYPES.get(kind, (message.replace("Input", "it"), ""))
            self.say(at, f"{_shown(problem['input'])}: {wrong}", remedy)

    def say(self, path: Path, what: str, remedy: str = "", *, key: bool = False) -> None:
        mark = locate(self.tree, path, key=key)
        self.problems.append(Problem(self.filename, mark.line, mark.column, what, remedy))


def _is_name(name: str, *, stage: bool) -> bool:
    import re

    return re.match(NAME_PATTERN, name) is not None and not (stage and "." in name)


def _clean(loc: tuple[str | int, ...], tree: Tree, base: Path) -> Path:
    """pydantic's location without the parts that are not in the file (`[key]`, names of union members)."""
    node: Tree | None = tree
    for part in base:
        node = node.items.get(str(part)) if isinstance(node, Mapping) else None
    path: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(node, Mapping) and str(part) in node.items:
            node = node.items[str(part)]
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        elif index != len(loc) - 1 or part == "[key]":
            continue
        path.append(part)
    return tuple(path)


def _keys_of(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that the model has at a location."""
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    for part in loc:
        node = _resolve(schema, node)
        if isinstance(part, int):
            node = node.get("items", {})
        elif str(part) in node.get("properties", {}):
            node = node["properties"][str(part)]
        elif isinstance(node.get("additionalProperties"), dict):
            node = node["additionalProperties"]
    return list(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in node.get("anyOf", ()):
        if "$ref" in option:
            node = option
    if "$ref" in node:
        found: dict[str, Any] = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        return found
    return node


def _shown(value: Any) -> str:
    if isinstance(value, (dict, BaseModel)):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "nothing" if value is None else f'"{str(value)[:60]}"'


def _pattern_remedy(pattern: str) -> str:
    if pattern == NAME_PATTERN or pattern.startswith("^[a-z0-9]"):
        return "use lower case letters, digits, - and _"
    if pattern.startswith("^[A-Za-z_]"):
        return "use letters, digits and _, not a digit first"
    if pattern.startswith("^/"):
        return "begin it with /"
    return "use letters, digits, dots and dashes"
