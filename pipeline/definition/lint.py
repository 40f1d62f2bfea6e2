"""What the models can't see: names that refer to other places of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.definition.models import DeployDef, PipelineDef, PushDef, RunDef, StageDef, TestDef
from pipeline.definition.scope import Needs, Scope
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
    written = {key: plain["stages"][key] for key in stages if isinstance(plain["stages"][key], dict)}
    needs = {key: _needs_of(written[key]) if key in written else None for key in stages}
    yield from _needs(path, needs)
    good = {key: stage for key, stage in stages.items() if stage is not None}
    whole = len(good) == len(stages) and not find_cycle({key: stage.needs for key, stage in good.items()})
    for key, stage in written.items():
        at = (*path, "stages", key)
        matrix = stage["matrix"] if isinstance(stage.get("matrix"), dict) else ()
        scope = Scope(params, key, matrix, stages, needs)
        yield from _texts(at, {name: value for name, value in stage.items() if name not in _NOT_TEXT}, scope)
        if key in good:
            yield from _unread(at, good[key])
            yield from _when(at, good[key], scope)
            yield from _products(at, key, good[key], good, services, whole=whole)


def _needs_of(stage: dict[str, Any]) -> tuple[str, ...] | None:
    """As the file has it, whatever else is wrong with the stage; None when it is no list of names."""
    needs = stage.get("needs", ())
    needs = (needs,) if isinstance(needs, str) else needs
    if not isinstance(needs, (list, tuple)) or not all(isinstance(need, str) for need in needs):
        return None
    return tuple(needs)


def _needs(path: Path, needs: Needs) -> Iterator[Finding]:
    for key, wanted in needs.items():
        for index, need in enumerate(wanted or ()):
            at = (*path, "stages", key, "needs", index)
            if need == key:
                yield at, f'the stage "{key}" needs itself', "remove it"
            elif need not in needs:
                yield at, f'there is no stage "{need}"', did_you_mean(need, [name for name in needs if name != key])
    cycle = find_cycle({key: wanted or () for key, wanted in needs.items()})
    if len(cycle) > 1:
        shown = " → ".join((*cycle, cycle[0]))
        yield (*path, "stages", cycle[0], "needs"), f"stages need each other: {shown}", "remove one needs"


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
