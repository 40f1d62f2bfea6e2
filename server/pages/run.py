"""A run's page: its stages, and of one of them everything, with its log as it comes."""

from __future__ import annotations

import functools

from pipeline.errors import NotFound
from pipeline.plan.models import DeploySpec, Kind
from pipeline.run.states import RUN_ENDED, StageState
from pipeline.views import RunView, StageView
from server.conductor import Conductor
from server.pages.graph import lay_out
from server.pages.timings import bars
from server.pages.view import Load, View

_FIRST = (StageState.FAILED, StageState.RUNNING, StageState.WAITING, StageState.DISPATCHED, StageState.READY)


def loads(number: int, wanted: str | None) -> Load:
    """`wanted`: the stage to show; None: the one that matters most now."""
    return functools.partial(load, number=number, wanted=wanted)


def load(conductor: Conductor, *, number: int, wanted: str | None) -> View:
    run = conductor.store.get_run(number)
    stage = chosen(run, wanted)
    values = {
        "run": run,
        "stage": stage,
        "pinned": wanted is not None,
        "graph": lay_out(run.stages),
        "bars": bars(stage) if stage else (),
        "commands": commands(run),
        "deploys": deployed_service(conductor, run, stage),
    }
    return View("run", ("head", "graph", "stage"), values, over=run.state in RUN_ENDED)


def deployed_service(conductor: Conductor, run: RunView, stage: StageView | None) -> str | None:
    """The service that the shown stage rolls out, if it does."""
    if stage is None or stage.kind is not Kind.DEPLOY:
        return None
    spec = conductor.store.plan_of(run.id).stage(stage.name).spec
    return spec.service.name if isinstance(spec, DeploySpec) else None


def chosen(run: RunView, wanted: str | None) -> StageView | None:
    """The stage that was asked for. Without one: what failed, else what goes on, else the last that was tried."""
    if wanted is not None:
        found = run.stage(wanted)
        if found is None:
            raise NotFound(f'there is no stage "{wanted}" in run {run.id}')
        return found
    for state in _FIRST:
        stopping = [stage for stage in run.stages if stage.state is state and not stage.allow_failure]
        if stopping:
            return stopping[0]
    tried = [stage for stage in run.stages if stage.attempts]
    return tried[-1] if tried else next(iter(run.stages), None)


def commands(run: RunView) -> list[tuple[str, str]]:
    """What can be done about it now: words, and what to type."""
    if run.state not in RUN_ENDED:
        waiting = [stage for stage in run.stages if stage.state is StageState.WAITING]
        return [
            *(("Let it go on", f"shipway approve {run.id}/{stage.name}") for stage in waiting),
            ("Stop it", f"shipway cancel {run.id}"),
        ]
    if run.state == "passed" or not run.stages:
        return []
    return [("Try again what did not pass", f"shipway retry {run.id}")]
