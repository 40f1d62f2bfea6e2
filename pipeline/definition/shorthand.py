"""The short forms, written out: the tree keeps the places where the words really stand."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.definition.tree import Leaf, Mapping, Mark, Plain, Sequence, Tree
from pipeline.plan.models import Kind

Say = Callable[[Mark, str, str], None]
"""Told of what is wrong with a short form: where, what, remedy."""

_FIRST_KEY = {"build": "context", "test": "run", "push": "to", "deploy": "service", "run": "run"}
"""What the bare word after a kind means: `build: .` is `build: {context: .}`."""
_KINDS = tuple(kind.value for kind in Kind)
_LIFTED = ("matrix",)
"""Keys of the stage that may also be written in `test:` and `run:`."""


def write_out(tree: Tree, say: Say) -> Tree:
    """The same file in its long form. What does not fit a short form is left for the models to refuse."""
    pipelines = tree.items.get("pipelines") if isinstance(tree, Mapping) else None
    if isinstance(pipelines, Mapping):
        for name, pipeline in pipelines.items.items():
            if isinstance(pipeline, Sequence):
                pipelines.items[name] = _stages_of_list(pipeline, say)
            if isinstance(pipeline, Mapping):
                _triggers(pipeline)
            stages = pipelines.items[name]
            stages = stages.items.get("stages", stages) if isinstance(stages, Mapping) else stages
            if isinstance(stages, Sequence) and isinstance(pipeline, Mapping):
                pipeline.items["stages"] = stages = _stages_of_list(stages, say).items["stages"]
            if isinstance(stages, Mapping):
                for key, stage in stages.items.items():
                    stages.items[key] = _stage(stage)
    return tree


def _triggers(pipeline: Mapping) -> None:
    """`on: {push: }`, with nothing behind it, is every push."""
    on = pipeline.items.get("on")
    if isinstance(on, Mapping) and "push" in on.items:
        push = on.items["push"]
        if isinstance(push, Leaf) and push.value is None:
            on.items["push"] = Mapping(on.keys["push"])


def _stages_of_list(steps: Sequence, say: Say) -> Mapping:
    """Stages in order: each needs the one before it. A step is named by `name`, else by its kind."""
    stages = Mapping(steps.mark)
    previous: str | None = None
    given = {name for step in steps.items if (name := _given_name(step))}
    for step in steps.items:
        if not isinstance(step, Mapping):
            say(step.mark, "a step is a mapping", "write - build: . or - test: pytest")
            continue
        kind = next((key for key in step.items if key in _KINDS), "stage")
        name = _given_name(step) or _free_name(kind, given.union(stages.items))
        if name in stages.items:
            line = stages.keys[name].line
            say(step.keys["name"], f'the name "{name}" is here twice', f"the first is on line {line}")
            continue
        body = Mapping(step.mark)
        for key, value in step.items.items():
            if key != "name":
                body.put(key, step.keys[key], value)
        if previous is not None and "needs" not in body.items:
            body.put("needs", step.mark, Leaf(step.mark, previous))
        stages.put(name, step.mark, body)
        previous = name
    whole = Mapping(steps.mark)
    whole.put("stages", steps.mark, stages)
    return whole


def _given_name(step: Tree) -> str | None:
    name = step.items.get("name") if isinstance(step, Mapping) else None
    return name.value if isinstance(name, Leaf) else None


def _free_name(kind: str, taken: set[str]) -> str:
    name, number = kind, 2
    while name in taken:
        name = f"{kind}-{number}"
        number += 1
    return name


def _stage(stage: Tree) -> Tree:
    """A copy with `kind: word` and `kind: [words]` as `kind: {key: …}`; anchors may share the original."""
    if not isinstance(stage, Mapping):
        return stage
    copy = Mapping(stage.mark)
    for key, value in stage.items.items():
        at = stage.keys[key]
        copy.put(key, at, _body(key, value, at) if key in _KINDS else value)
    for kind in ("test", "run"):
        _lift(copy, kind)
    return copy


def _lift(stage: Mapping, kind: str) -> None:
    body = stage.items.get(kind)
    if not isinstance(body, Mapping) or not any(key in body.items and key not in stage.items for key in _LIFTED):
        return
    rest = Mapping(body.mark)
    for key, value in body.items.items():
        target = stage if key in _LIFTED and key not in stage.items else rest
        target.put(key, body.keys[key], value)
    stage.items[kind] = rest


def _body(kind: str, value: Tree, at: Mark) -> Tree:
    if isinstance(value, Leaf) and value.value is None:
        return Mapping(at)
    if isinstance(value, Leaf) or (isinstance(value, Sequence) and kind in ("test", "run")):
        body = Mapping(value.mark)
        body.put(_FIRST_KEY[kind], value.mark, value)
        if kind == "push" and isinstance(value, Leaf):
            _split_tag(body, value)
        return body
    return value


def _split_tag(body: Mapping, value: Leaf) -> None:
    """`push: localhost:7750/web:v1`: the tag after the last colon, if that is not the registry's port."""
    text = value.value or ""
    repository, colon, tag = text.rpartition(":")
    if colon and "/" not in tag and "/" in repository:
        body.items["to"] = Leaf(value.mark, Plain(repository))
        body.put("tags", value.mark, Leaf(value.mark, tag))
