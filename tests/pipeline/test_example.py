"""`pipelines.example.yaml` is the reference: it knows every key, and all of it is true."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.definition.load import load
from pipeline.definition.models import Definition
from pipeline.plan.compile import PlanContext, compile_plan
from pipeline.triggers.event import Event

FILE = Path(__file__).resolve().parents[2] / "pipelines.example.yaml"


@pytest.fixture(scope="module")
def definition() -> Definition:
    return load(FILE.read_text(), FILE.name)


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for argument in typing.get_args(annotation):
            yield from models_in(argument)


def keys_there_are(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[str]:
    if model in seen:
        return set()
    seen.add(model)
    found = {f"{model.__name__}.{name}" for name in model.model_fields}
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            found |= keys_there_are(inner, seen)
    return found


def keys_written(value: object) -> set[str]:
    if isinstance(value, BaseModel):
        found = {f"{type(value).__name__}.{name}" for name in value.model_fields_set}
        return found.union(*(keys_written(getattr(value, name)) for name in value.model_fields_set))
    if isinstance(value, dict):
        return set[str]().union(*(keys_written(item) for item in value.values()))
    if isinstance(value, tuple):
        return set[str]().union(*(keys_written(item) for item in value))
    return set()


def test_every_key_is_in_the_example(definition: Definition) -> None:
    known = keys_there_are(Definition, set())
    assert len(known) > 80
    # `test` and `run` share their keys: one of the two shows them.
    shared = {key.replace("TestDef.", "RunDef.") for key in keys_written(definition) if key.startswith("TestDef.")}
    assert known - keys_written(definition) - shared == set()


@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/tags/v1.2", "refs/heads/release/1"])
@pytest.mark.parametrize("kind", ["push", "manual", "schedule"])
def test_every_pipeline_plans(definition: Definition, ref: str, kind: typing.Any) -> None:
    event = Event(kind=kind, repository="r", ref=ref, sha="a" * 40, message="x")
    for name, pipeline in definition.pipelines.items():
        plan = compile_plan(definition, name, PlanContext(event=event, filename=FILE.name))
        assert {stage.base for stage in plan.stages} == set(pipeline.stages)


def test_every_key_is_explained() -> None:
    """At one place at least, on its own line."""
    explained = [line for line in FILE.read_text().splitlines() if "  #" in line]
    words = {key.partition(".")[2] for key in keys_there_are(Definition, set())}
    assert {word for word in words if not any(re.search(rf"\b{word}:.*  #", line) for line in explained)} == set()


def test_it_fits_on_a_screen() -> None:
    assert max(len(line) for line in FILE.read_text().splitlines()) <= 120
