"""What the models can't see: names that refer to other places of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.definition.models import DeployDef, PipelineDef, PushDef, RunDef, StageDef, TestDef
from pipeline.plan.expressions import ExpressionError, names_in, parse_when, references
from pipeline.plan.graph import ancestors, find_cycle
from pipeline.plan.models import CONDITIONS, Kind
from pipeline.plan.products import NoProduct, default_image
from pipeline.services import Service
from pipeline.values import did_you_mean

GIT = (
    "sha", "short_sha", "branch", "tag", "ref", "before", "message", "author", "repository", "url", "pusher",
)  # fmt: skip
EVENT = ("kind",)
OUTPUTS = {
    Kind.BUILD: ("image", "image_id"),
    Kind.TEST: ("snapshot",),
    Kind.RUN: ("snapshot",),
    Kind.PUSH: ("image", "digest"),
    Kind.DEPLOY: ("image", "digest", "release"),
}

Finding = tuple[tuple[str | int, ...], str, str]
Pipelines = Mapping[str, tuple[PipelineDef | None, dict[str, StageDef | None]]]


def lint(plain: Any, services: Mapping[str, Service | None], pipelines: Pipelines) -> Iterator[Finding]:
    """Everything that is wrong between the parts, as (path, what, remedy). `plain` is the whole file."""
    for name, service in services.items():
        if service is not None:
            yield from _texts(("services", name), plain["services"][name], _Scope({}))
    for name, (pipeline, stages) in pipelines.items():
        path = ("pipelines", name)
        params = dict(pipeline.params) if pipeline else {}
        if pipeline and pipeline.concurrency:
            yield from _texts((*path, "concurrency"), plain["pipelines"][name]["concurrency"], _Scope(params))
        good = {key: stage for key, stage in stages.items() if stage is not None}
        yield from _needs(path, stages)
        cycle = find_cycle({key: stage.needs for key, stage in good.items()})
        if cycle:
            shown = " → ".join((*cycle, cycle[0]))
            yield (*path, "stages", cycle[0], "needs"), f"stages need each other: {shown}", "remove one needs"
        for key, stage in good.items():
            at = (*path, "stages", key)
            scope = _Scope(params, key, stage, good)
            yield from _texts(at, plain["pipelines"][name]["stages"][key], scope)
            yield from _when(at, stage, scope)
            yield from _products(at, key, stage, good, services, whole=len(good) == len(stages) and not cycle)


class _Scope:
    """What a text at one place of the file may refer to."""

    def __init__(
        self,
        params: Mapping[str, Any],
        name: str = "",
        stage: StageDef | None = None,
        stages: Mapping[str, StageDef] | None = None,
    ) -> None:
        self.params = params
        self.name = name
        self.stage = stage
        self.stages = stages or {}

    def check(self, path: tuple[str, ...], *, when: bool = False) -> tuple[str, str] | None:
        """What is wrong with a reference, and the remedy; None when it is fine."""
        shown = ".".join(path)
        spaces: dict[str, tuple[str, ...]] = {"git": GIT, "event": EVENT, "params": tuple(self.params)}
        if self.stage is not None and self.stage.matrix:
            spaces["matrix"] = tuple(self.stage.matrix)
        if self.stage is not None and not when:
            spaces["stages"] = ()
        if path[0] not in spaces:
            return f'nothing is called "{shown}"', did_you_mean(path[0], spaces)
        if path[0] == "stages":
            return self._stage_output(path)
        if len(path) != 2 or path[1] not in spaces[path[0]]:
            known = [f"{path[0]}.{name}" for name in spaces[path[0]]]
            remedy = did_you_mean(shown, known) or f"this pipeline has no {path[0]}"
            return f'nothing is called "{shown}"', remedy
        return None

    def _stage_output(self, path: tuple[str, ...]) -> tuple[str, str] | None:
        if len(path) != 3:
            return f'"{".".join(path)}" is not complete', "write stages.NAME.image"
        _, name, output = path
        if name not in self.stages:
            return f'there is no stage "{name}"', did_you_mean(name, self.stages)
        other = self.stages[name]
        if output not in OUTPUTS[other.kind]:
            known = [f"stages.{name}.{each}" for each in OUTPUTS[other.kind]]
            what = f'a {other.kind.value} stage has no "{output}"'
            return what, did_you_mean(".".join(path), known)
        needs = {key: stage.needs for key, stage in self.stages.items()}
        if name not in ancestors(self.name, needs):
            return f'the stage "{name}" may not have ended by then', f"add it to needs: [{name}]"
        if other.matrix:
            return f'"{name}" runs once for each cell of its matrix, so it has no single {output}', ""
        if output == "snapshot" and not getattr(other.body, "snapshot", False):
            return f'the stage "{name}" takes no snapshot', "set snapshot: true in it"
        return None


def _needs(path: tuple[str, ...], stages: Mapping[str, StageDef | None]) -> Iterator[Finding]:
    for key, stage in stages.items():
        for need in stage.needs if stage else ():
            at = (*path, "stages", key, "needs")
            if need == key:
                yield at, f'the stage "{key}" needs itself', "remove it"
            elif need not in stages:
                others = [name for name in stages if name != key]
                yield at, f'there is no stage "{need}"', did_you_mean(need, others)


def _texts(path: tuple[str | int, ...], value: Any, scope: _Scope) -> Iterator[Finding]:
    if isinstance(value, dict):
        for key, item in value.items():
            if path[-1] != "when" and key not in ("when", "matrix", "needs"):
                yield from _texts((*path, key), item, scope)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts((*path, index), item, scope)
    elif isinstance(value, str) and "${" in value:
        try:
            for reference in references(value):
                if found := scope.check(reference.path):
                    yield path, f"{reference}: {found[0]}", found[1]
        except ExpressionError as error:
            yield path, error.what, error.remedy


def _when(path: tuple[str | int, ...], stage: StageDef, scope: _Scope) -> Iterator[Finding]:
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
    path: tuple[str | int, ...],
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
