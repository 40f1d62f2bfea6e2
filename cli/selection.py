"""Which part of a plan `shipway run` runs, and how a plan for many hosts becomes one for this one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cli.errors import UsageError
from pipeline.plan.graph import ancestors, descendants
from pipeline.plan.models import Condition, DeploySpec, Plan, PlannedStage
from pipeline.values import did_you_mean


@dataclass(frozen=True)
class Selection:
    """What to run, and which of its stages are not run but taken from an earlier run."""

    plan: Plan
    earlier: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    """Those of `earlier` that need not have passed: nobody reads what they give."""


def select(plan: Plan, *, start: str | None = None, only: str | None = None) -> Selection:
    """All of the plan; from a stage on, with all that follows it; or one stage. Raises UsageError.

    A stage is named as in the file, which means all cells of its matrix, or as one cell.
    """
    if start is not None and only is not None:
        raise UsageError("--from and --only exclude each other: give one of them")
    wanted = start if start is not None else only
    if wanted is None:
        return Selection(plan)
    needs = {stage.name: stage.needs for stage in plan.stages}
    chosen = {stage.name for stage in plan.stages if wanted in (stage.name, stage.base)}
    if not chosen:
        known = {stage.base for stage in plan.stages}
        raise UsageError(f'the pipeline {plan.pipeline} has no stage "{wanted}": {did_you_mean(wanted, known)}')
    if start is not None:
        chosen |= set[str]().union(*(descendants(name, needs) for name in chosen))
    before = set[str]().union(*(ancestors(name, needs) for name in chosen)) - chosen
    stages = tuple(stage for stage in plan.stages if stage.name in chosen | before)
    earlier = frozenset(stage.name for stage in stages if stage.name in before and stage.skip is None)
    optional = frozenset(
        stage.name
        for stage in stages
        if stage.name in earlier and (stage.allow_failure or stage.condition is not Condition.SUCCESS)
    )
    return Selection(plan.model_copy(update={"stages": stages}), earlier, optional)


def here(plan: Plan) -> Plan:
    """The plan with every stage on this machine, whichever labels it asks for, and turns taken with nobody."""
    return plan.model_copy(update={"stages": tuple(_here(stage) for stage in plan.stages), "concurrency": None})


def _here(stage: PlannedStage) -> PlannedStage:
    change: dict[str, object] = {"runs_on": {}, "near": None}
    if isinstance(stage.spec, DeploySpec):
        service = stage.spec.service.model_copy(update={"hosts": {}})
        change["spec"] = stage.spec.model_copy(update={"service": service})
    return stage.model_copy(update=change)
