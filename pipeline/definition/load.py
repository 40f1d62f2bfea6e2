"""Text → Definition, or all that is wrong with it at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.definition.explain import explain
from pipeline.definition.lint import lint
from pipeline.definition.models import MAX_PIPELINES, BuildDef, Definition, PipelineDef, StageDef
from pipeline.definition.problems import DefinitionErrors, Problem
from pipeline.definition.shorthand import write_out
from pipeline.definition.tree import Leaf, Mapping, Path, Sequence, Tree, locate, plain_value, read_tree
from pipeline.services import Service
from pipeline.values import NAME_PATTERN, did_you_mean

Model = TypeVar("Model", bound=BaseModel)

MAX_PROBLEMS = 500
"""Nobody reads on, and a hostile file should not cost more."""
_TOP = ("services", "pipelines")
_EXAMPLE = "begin with: pipelines: {web: [{build: .}]}"
_STAGES = "write them below it: stages: {image: {build: .}}, or as a list: - build: ."


def load(text: str, filename: str) -> Definition:
    """Reads a pipeline file. Raises DefinitionErrors with every problem, in the order of the lines."""
    problems: list[Problem] = []
    tree = read_tree(text, filename, problems)
    reader = _Reader(tree, filename, problems)
    reader.tree = write_out(tree, lambda mark, what, remedy: reader.note(mark.line, mark.column, what, remedy))
    return reader.read()


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
        for path in _empty((), self.tree):
            what = f'"{path[-1]}" has no value' if isinstance(path[-1], str) else "this item has no value"
            self.say(path, what, "write one after it, or remove it")
        services = self._services()
        pipelines = {name: self._pipeline(name) for name in self._children(("pipelines",), required=True)}
        if len(pipelines) > MAX_PIPELINES:
            self.say(("pipelines",), f"there are more than {MAX_PIPELINES} pipelines", "split the file", key=True)
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
            if not _is_empty(tree):
                self.say(path, "a pipeline is a list of stages, or a mapping with stages", "write - build: .")
            return None, {}
        stages = {
            stage: self._validate(StageDef, (*path, "stages", stage)) for stage in self._children((*path, "stages"))
        }
        if not stages and isinstance(tree.items.get("stages"), (Mapping, NoneType)):
            self.say(path, f'the pipeline "{name}" has no stages', _STAGES, key=True)
        rest = {key: plain_value(value) for key, value in tree.items.items() if key != "stages"}
        good = {key: value for key, value in stages.items() if value is not None and _is_name(key, stage=True)}
        # The stages were checked one by one: a stand-in keeps the rest checkable without them.
        stand_in = good or {"stand-in": StageDef(build=BuildDef())}
        pipeline = self._validate(PipelineDef, path, rest | {"stages": stand_in})
        return pipeline, stages

    def _children(self, path: Path, *, required: bool = False) -> list[str]:
        tree = self._at(path)
        if tree is None:
            if required:
                self.say(path[:-1], f'the key "{path[-1]}" is missing', _EXAMPLE)
            return []
        if not isinstance(tree, Mapping):
            if not _is_empty(tree):
                self.say(path, f"{path[-1]} is a mapping of names", "write name: and below it, indented, its keys")
            return []
        if required and not tree.items:
            self.say(path, "there is no pipeline", _EXAMPLE)
        for name in tree.items:
            if not _is_name(name, stage=path[-1] == "stages"):
                remedy = "use lower case letters, digits, - and _, at most 63"
                self.say((*path, name), f'"{name}" is not a good name', remedy, key=True)
        return list(tree.items)

    def _at(self, path: Path) -> Tree | None:
        tree: Tree | None = self.tree
        for part in path:
            if not isinstance(tree, Mapping):
                return None
            tree = tree.items.get(str(part))
        return tree

    def _validate(self, model: type[Model], path: Path, value: Any = None) -> Model | None:
        tree = self._at(path)
        if value is None:
            if not isinstance(tree, Mapping):
                if not _is_empty(tree):
                    what = "a stage is a mapping" if model is StageDef else "a service is a mapping"
                    remedy = "write build:, test:, push:, deploy: or run:" if model is StageDef else "write port: 8000"
                    self.say(path, what, remedy)
                return None
            value = plain_value(tree)
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for problem in error.errors():
                if problem["input"] is None and problem["type"] != "missing":
                    continue  # an empty value was told already
                what, remedy = explain(model, problem)
                at = (*path, *_clean(problem["loc"], self.tree, path))
                at_key = problem["type"] in ("extra_forbidden", "missing") or problem["loc"][-1:] == ("[key]",)
                self.say(at, what, remedy, key=at_key)
            return None

    def say(self, path: Path, what: str, remedy: str = "", *, key: bool = False) -> None:
        mark = locate(self.tree, path, key=key)
        self.note(mark.line, mark.column, what, remedy)

    def note(self, line: int, column: int, what: str, remedy: str) -> None:
        """Adds a problem. Raises DefinitionErrors when there are too many."""
        self.problems.append(Problem(self.filename, line, column, what, remedy))
        if len(self.problems) > MAX_PROBLEMS:
            raise DefinitionErrors(self.problems)


def _is_name(name: str, *, stage: bool) -> bool:
    return re.fullmatch(NAME_PATTERN.strip("^$"), name) is not None and not (stage and "." in name)


def _is_empty(tree: Tree | None) -> bool:
    return isinstance(tree, Leaf) and tree.value is None


def _empty(path: Path, tree: Tree) -> Iterator[Path]:
    """Where a key or an item has nothing behind it: hardly what anybody means."""
    if isinstance(tree, Leaf):
        if tree.value is None:
            yield path
        return
    for key, child in enumerate(tree.items) if isinstance(tree, Sequence) else tree.items.items():
        yield from _empty((*path, key), child)


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
