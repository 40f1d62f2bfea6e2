"""The short forms, written out: the tree keeps the places where the words really stand."""

from __future__ import annotations

from pipeline.definition.tree import Leaf, Mapping, Mark, Plain, Sequence, Tree
from pipeline.plan.models import Kind

_FIRST_KEY = {"build": "context", "test": "run", "push": "to", "deploy": "service", "run": "run"}
"""What the bare word after a kind means: `build: .` is `build: {context: .}`."""
_KINDS = tuple(kind.value for kind in Kind)


def write_out(tree: Tree) -> Tree:
    """The same file in its long form. What does not fit a short form is left for the models to refuse."""
    pipelines = tree.items.get("pipelines") if isinstance(tree, Mapping) else None
    if isinstance(pipelines, Mapping):
        for name, pipeline in pipelines.items.items():
            if isinstance(pipeline, Sequence):
                pipelines.items[name] = _stages_of_list(pipeline)
            stages = pipelines.items[name]
            stages = stages.items.get("stages", stages) if isinstance(stages, Mapping) else stages
            if isinstance(stages, Sequence) and isinstance(pipeline, Mapping):
                pipeline.items["stages"] = stages = _stages_of_list(stages).items["stages"]
            if isinstance(stages, Mapping):
                for key, stage in stages.items.items():
                    stages.items[key] = _stage(stage)
    return tree


def _stages_of_list(steps: Sequence) -> Mapping:
    """Stages in order: each needs the one before it. A step is named by `name`, else by its kind."""
    stages = Mapping(steps.mark)
    previous: str | None = None
    for step in steps.items:
        if not isinstance(step, Mapping):
            stages.put(f"{len(stages.items) + 1}", step.mark, step)
            continue
        kind = next((key for key in step.items if key in _KINDS), "stage")
        given = step.items.get("name")
        name = given.value if isinstance(given, Leaf) and given.value else kind
        number = 2
        while name in stages.items:
            name = f"{kind}-{number}"
            number += 1
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


def _stage(stage: Tree) -> Tree:
    """A copy with `kind: word` and `kind: [words]` as `kind: {key: …}`; anchors may share the original."""
    if not isinstance(stage, Mapping):
        return stage
    copy = Mapping(stage.mark)
    for key, value in stage.items.items():
        at = stage.keys[key]
        copy.put(key, at, _body(key, value, at) if key in _KINDS else value)
    return copy


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
    if colon and "/" not in tag and "/" in repository and "}" not in tag:
        body.items["to"] = Leaf(value.mark, Plain(repository))
        body.put("tags", value.mark, Leaf(value.mark, tag))
