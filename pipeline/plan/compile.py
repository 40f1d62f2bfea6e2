"""Definition + event → plan: conditions decided, matrices opened, values put in. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pipeline.definition.models import (
    Definition,
    DeployDef,
    PipelineDef,
    PushDef,
    RunDef,
    StageDef,
    TestDef,
)
from pipeline.definition.problems import DefinitionErrors, Problem
from pipeline.errors import NotFound
from pipeline.plan.expressions import (
    ExpressionError,
    Reference,
    Value,
    escape,
    evaluate,
    parse_when,
    substitute,
    to_text,
    unescape,
)
from pipeline.plan.graph import ancestors, in_order
from pipeline.plan.models import (
    CONDITIONS,
    Concurrency,
    Condition,
    Kind,
    Plan,
    PlannedStage,
    Scalar,
    StageSpec,
)
from pipeline.plan.products import default_image
from pipeline.triggers.event import Event
from pipeline.values import Frozen, did_you_mean

MAX_STAGES = 500
"""Of one run, after its matrices are opened."""
_SPEC: TypeAdapter[StageSpec] = TypeAdapter(StageSpec)
_LOCAL = re.compile(r"\$\{stages\.([^.}]+)\.(image|image_id|snapshot)\}")


class PlanContext(Frozen):
    """What `${git.…}`, `${params.…}` and `when` can read."""

    event: Event
    params: dict[str, Scalar] = Field(default_factory=dict)
    """`--set k=v`: each must be a parameter of the pipeline."""
    filename: str = "pipelines.yaml"


def compile_plan(definition: Definition, pipeline: str, context: PlanContext) -> Plan:
    """The plan of a pipeline for an event.

    Raises NotFound for a pipeline that is not there, DefinitionErrors for what only the context can tell.
    """
    if pipeline not in definition.pipelines:
        remedy = did_you_mean(pipeline, definition.pipelines)
        raise NotFound(f'there is no pipeline "{pipeline}": {remedy}')
    return _Compiler(definition, pipeline, context).compile()


class _Compiler:
    def __init__(self, definition: Definition, name: str, context: PlanContext) -> None:
        self.services = definition.services
        self.name = name
        self.pipeline: PipelineDef = definition.pipelines[name]
        self.context = context
        self.problems: list[Problem] = []
        self.values: dict[str, Mapping[str, Value]] = {
            "git": git_values(context.event),
            "event": {"kind": context.event.kind},
            "params": self._params(),
        }

    def compile(self) -> Plan:
        cells = {name: _cells(stage.matrix) for name, stage in self.pipeline.stages.items()}
        if sum(len(each) for each in cells.values()) > MAX_STAGES:
            self._say(f"the matrices open to more than {MAX_STAGES} stages", "make them smaller")
            raise DefinitionErrors(self.problems)
        names = {base: [_cell_name(base, cell) for cell in cells[base]] for base in self.pipeline.stages}
        for base, all_of_it in names.items():
            for name in sorted({name for name in all_of_it if all_of_it.count(name) > 1}):
                self._say(f'the matrix of stage {base} gives "{name}" twice', "make its values differ as text")
        stages: list[PlannedStage] = []
        for base in in_order({name: stage.needs for name, stage in self.pipeline.stages.items()}):
            stage = self.pipeline.stages[base]
            needs = tuple(name for need in stage.needs for name in names[need])
            for cell, name in zip(cells[base], names[base], strict=True):
                try:
                    stages.append(self._stage(base, name, stage, needs, cell))
                except ExpressionError as error:
                    self._say(f"stage {name}: {error.what}", error.remedy)
                except ValidationError as error:
                    for problem in error.errors():
                        at = ".".join(str(part) for part in problem["loc"][1:])
                        what, _, remedy = problem["msg"].removeprefix("Value error, ").partition(": ")
                        self._say(f"stage {name}: {at}: {what}", remedy or "check the values put in there")
        concurrency = self._concurrency()
        if self.problems:
            raise DefinitionErrors(self.problems)
        return Plan(pipeline=self.name, stages=tuple(stages), concurrency=concurrency)

    def _stage(
        self, base: str, name: str, stage: StageDef, needs: tuple[str, ...], cell: dict[str, Scalar]
    ) -> PlannedStage:
        values = {**self.values, "matrix": cell}
        condition, skip = self._condition(stage, values)
        # What does not run may hold values that make no sense here, such as a tag's name in a push of a branch.
        spec = self._spec(base, stage, None if skip else values)
        deploy = stage.deploy
        return PlannedStage(
            name=name,
            base=base,
            needs=needs,
            spec=spec,
            condition=condition,
            runs_on={key: _fill(text, values) for key, text in stage.runs_on.items()},
            near=self._near(base, spec),
            timeout=stage.timeout,
            retries=stage.retries,
            allow_failure=stage.allow_failure,
            approval=deploy is not None and deploy.approval == "required",
            lock=f"deploy:{deploy.service}" if deploy is not None else None,
            env={key: _fill(text, values) for key, text in stage.env.items()},
            secrets=stage.secrets,
            matrix=cell,
            skip=skip,
        )

    def _spec(self, base: str, stage: StageDef, values: Mapping[str, Mapping[str, Value]] | None) -> StageSpec:
        """The stage's work with its values put in; with None for values, as it is written."""
        body = stage.body
        raw: dict[str, Any] = body.model_dump()
        if isinstance(body, (TestDef, RunDef, PushDef, DeployDef)) and body.image is None:
            raw["image"] = default_image(base, self.pipeline.stages)
        if isinstance(body, DeployDef):
            del raw["approval"]
            raw["service"] = {**self.services[body.service].model_dump(), "name": body.service}
        filled = raw if values is None else _fill_all(raw, values)
        if isinstance(body, PushDef):
            filled["tags"] = [tag for tag in filled["tags"] if tag]
        return _SPEC.validate_python({"kind": stage.kind, **filled})

    def _condition(self, stage: StageDef, values: Mapping[str, Mapping[str, Value]]) -> tuple[Condition, str | None]:
        if stage.when is None:
            return Condition.SUCCESS, None
        if stage.when in CONDITIONS:
            return Condition(stage.when), None

        def lookup(path: tuple[str, ...], offset: int) -> Value:
            return _value(Reference(path, offset, offset), values)

        holds = evaluate(parse_when(stage.when), lookup)
        return Condition.SUCCESS, None if holds else f"its condition is false: {stage.when}"

    def _near(self, base: str, spec: StageSpec) -> str | None:
        """The stage whose worker has the image that this one starts from."""
        if spec.kind is Kind.BUILD:
            return None
        match = _LOCAL.search(spec.image)
        if match is None or self.pipeline.stages[match[1]].kind is Kind.PUSH:
            return None
        before = ancestors(base, {key: stage.needs for key, stage in self.pipeline.stages.items()})
        return match[1] if match[1] in before else None

    def _params(self) -> dict[str, Value]:
        params: dict[str, Value] = dict(self.pipeline.params)
        for key, value in self.context.params.items():
            if key not in params:
                remedy = did_you_mean(key, params) or f'add it under params: of the pipeline "{self.name}"'
                self._say(f'there is no parameter "{key}"', remedy)
                continue
            try:
                params[key] = _like(params[key], value)
            except ValueError:
                self._say(f'the parameter "{key}" can\'t be "{value}"', f"its default is {params[key]!r}")
        return params

    def _concurrency(self) -> Concurrency | None:
        given = self.pipeline.concurrency
        if given is None:
            return None
        try:
            return Concurrency(group=unescape(_fill(given.group, self.values)), cancel=given.cancel)
        except ExpressionError as error:
            self._say(f"concurrency: {error.what}", error.remedy)
            return None

    def _say(self, what: str, remedy: str) -> None:
        self.problems.append(Problem(self.context.filename, 1, 1, f"pipeline {self.name}: {what}", remedy))


def git_values(event: Event) -> dict[str, Value]:
    return {
        "sha": event.sha,
        "short_sha": event.sha[:8],
        "branch": event.branch,
        "tag": event.tag,
        "ref": event.ref,
        "before": event.before,
        "message": event.message,
        "author": event.author,
        "repository": event.repository,
        "url": event.url,
        "pusher": event.pusher,
    }


def _lookup(reference: Reference, values: Mapping[str, Mapping[str, Value]]) -> Value:
    """The value to put into a text; of an output, which is known only later, the reference itself."""
    if reference.path[0] == "stages":
        return str(reference)
    value = _value(reference, values)
    return escape(value) if isinstance(value, str) else value


def _value(reference: Reference, values: Mapping[str, Mapping[str, Value]]) -> Value:
    space, *rest = reference.path
    if space not in values or len(rest) != 1 or rest[0] not in values[space]:
        raise ExpressionError(f"{reference}: nothing is called that", "see pipelines.example.yaml")
    return values[space][rest[0]]


def _fill(text: str, values: Mapping[str, Mapping[str, Value]]) -> str:
    return substitute(text, lambda reference: _lookup(reference, values)) if "${" in text else text


def _fill_all(value: Any, values: Mapping[str, Mapping[str, Value]]) -> Any:
    if isinstance(value, str):
        return _fill(value, values)
    if isinstance(value, Mapping):
        return {key: _fill_all(item, values) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_fill_all(item, values) for item in value]
    return value.model_dump() if isinstance(value, BaseModel) else value


def _cells(matrix: Mapping[str, tuple[Scalar, ...]]) -> list[dict[str, Scalar]]:
    size = 1
    for values in matrix.values():
        size *= len(values)
    if size > MAX_STAGES:
        return [{} for _ in range(MAX_STAGES + 1)]
    return [dict(zip(matrix, combination, strict=True)) for combination in itertools.product(*matrix.values())]


def _cell_name(base: str, cell: Mapping[str, Scalar]) -> str:
    if not cell:
        return base
    return f"{base} ({', '.join(f'{key}={to_text(value)}' for key, value in cell.items())})"


def _like(default: Value, given: Scalar) -> Scalar:
    """A parameter given as text, in the type of its default."""
    text = to_text(given)
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if isinstance(default, int):
        return int(text)
    if isinstance(default, float):
        return float(text)
    return text
