"""What the models can't see: names that refer to other places of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.definition.models import DeployDef, PipelineDef, PushDef, RunDef, StageDef, TestDef
from pipeline.definition.scope import Scope
from pipeline.plan.expressions import ExpressionError, names_in, parse_when, references
from pipeline.plan.graph import find_cycle
from pipeline.plan.models import CONDITIONS, Kind
from pipeline.plan.products import NoProduct, default_image
from pipeline.services import Service
from pipeline.values import did_you_mean

Path = tuple[str | int, ...]
Finding = tuple[Path, str, str]
Stages = Mapping[str, StageDef | None]
Pipelines = Mapping[str, tuple[PipelineDef | None, dict[str, StageDef | None]]]

_NOT_TEXT = ("when", "matrix", "needs")
"""Keys of a stage in which `${…}` means nothing."""
_SHELL = (("test", "run"), ("run", "run"), ("health", "cmd"))
"""Keys, with the one above them, whose texts a shell reads."""


def lint(plain: Any, services: Mapping[str, Service | None], pipelines: Pipelines) -> Iterator[Finding]:
    """Everything that is wrong between the parts, as (path, what, remedy). `plain` is the whole file."""
    for name, service in services.items():
        if service is not None:
            yield from _texts(("services", name), plain["services"][name], Scope(()))
    for name, (_, stages) in pipelines.items():
        if isinstance(plain["pipelines"][name], dict):
            yield from _pipeline(("pipelines", name), plain["pipelines"][name], stages, services)


def _pipeline(
    path: Path, plain: dict[str, Any], stages: Stages, services: Mapping[str, Service | None]
) -> Iterator[Finding]:
    params = plain["params"] if isinstance(plain.get("params"), dict) else ()
    yield from _texts((*path, "concurrency"), plain.get("concurrency"), Scope(params))
    yield from _needs(path, stages)
    good = {key: stage for key, stage in stages.items() if stage is not None}
    cycle = find_cycle({key: stage.needs for key, stage in good.items()})
    if len(cycle) > 1:
        shown = " → ".join((*cycle, cycle[0]))
        yield (*path, "stages", cycle[0], "needs"), f"stages need each other: {shown}", "remove one needs"
    for key, stage in good.items():
        at = (*path, "stages", key)
        scope = Scope(params, key, stage, stages)
        texts = {name: value for name, value in plain["stages"][key].items() if name not in _NOT_TEXT}
        yield from _texts(at, texts, scope)
        yield from _unread(at, stage)
        yield from _when(at, stage, scope)
        yield from _products(at, key, stage, good, services, whole=len(good) == len(stages) and not cycle)


def _needs(path: Path, stages: Stages) -> Iterator[Finding]:
    for key, stage in stages.items():
        for index, need in enumerate(stage.needs if stage else ()):
            at = (*path, "stages", key, "needs", index)
            if need == key:
                yield at, f'the stage "{key}" needs itself', "remove it"
            elif need not in stages:
                others = [name for name in stages if name != key]
                yield at, f'there is no stage "{need}"', did_you_mean(need, others)


def _texts(path: Path, value: Any, scope: Scope, *, shell: bool = False) -> Iterator[Finding]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _texts((*path, key), item, scope, shell=(path[-1], key) in _SHELL)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts((*path, index), item, scope, shell=shell)
    elif isinstance(value, str) and "${" in value:
        try:
            for reference in references(value):
                if found := scope.check(reference.path, shell=shell):
                    yield path, f"{reference}: {found[0]}", found[1]
        except ExpressionError as error:
            yield path, error.what, error.remedy


_INSTEAD = {
    Kind.BUILD: {"env": "write args: in build:, and ARG in the Dockerfile"},
    Kind.DEPLOY: {"env": "write env: in the service", "secrets": "write secrets: in the service"},
}


def _unread(path: Path, stage: StageDef) -> Iterator[Finding]:
    """Only stages with a container of their own have an environment."""
    if stage.kind in (Kind.TEST, Kind.RUN):
        return
    for key in ("env", "secrets"):
        if getattr(stage, key):
            remedy = _INSTEAD.get(stage.kind, {}).get(key, "remove it")
            yield (*path, key), f"a {stage.kind.value} stage has no {key}", remedy


def _when(path: Path, stage: StageDef, scope: Scope) -> Iterator[Finding]:
    if stage.when is None or stage.when in CONDITIONS:
        return
    at = (*path, "when")
    try:
        for name, _ in names_in(parse_when(stage.when)):
            if found := scope.check(name, when=True):
                yield at, *found
    except ExpressionError as error:
        yield at, error.what, error.remedy


def _products(
    path: Path,
    key: str,
    stage: StageDef,
    stages: Mapping[str, StageDef],
    services: Mapping[str, Service | None],
    *,
    whole: bool,
) -> Iterator[Finding]:
    body = stage.body
    at = (*path, stage.kind.value)
    if isinstance(body, DeployDef) and body.service not in services:
        remedy = did_you_mean(body.service, services) or "add it under services:"
        yield (*at, "service"), f'there is no service "{body.service}"', remedy
    if isinstance(body, DeployDef) and stage.matrix:
        yield (*path, "matrix"), "a deploy stage has no matrix", "write a stage for each"
    if isinstance(body, (TestDef, RunDef, PushDef, DeployDef)) and body.image is None and whole:
        try:
            default_image(key, stages)
        except NoProduct as error:
            yield at, error.what, error.remedy
