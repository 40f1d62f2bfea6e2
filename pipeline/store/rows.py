"""Rows ↔ values."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from pipeline.errors import NotFound
from pipeline.plan.models import PlannedStage
from pipeline.protocol import (
    HostInfo,
    HostStep,
    Outputs,
    Release,
    Replica,
    Rollout,
    RolloutHost,
)
from pipeline.run.scheduler import MAX_LOSSES, StageFacts
from pipeline.run.states import AttemptState, RunState, StageState
from pipeline.services import NamedService
from pipeline.store import tables as t
from pipeline.views import AttemptView, RunView, StageView

AnyRow = Row[Any]


def one(connection: Connection, table: Any, what: str, *conditions: Any) -> AnyRow:
    """The row, or NotFound with `what` in its text."""
    row = connection.execute(select(table).where(*conditions)).first()
    if row is None:
        raise NotFound(f"there is no {what}")
    return row


@functools.lru_cache(maxsize=4096)
def _planned(document: str) -> PlannedStage:
    return PlannedStage.model_validate_json(document)


def planned_of(row: AnyRow) -> PlannedStage:
    """Parsed once: a run's stages are looked at again and again, and never change."""
    return _planned(row.planned)


def outputs_of(row: AnyRow) -> Outputs:
    return Outputs.model_validate_json(row.outputs) if row.outputs else Outputs()


def facts_of(row: AnyRow) -> StageFacts:
    planned = planned_of(row)
    return StageFacts(
        name=row.name,
        state=StageState(row.state),
        needs=planned.needs,
        condition=planned.condition,
        allow_failure=planned.allow_failure,
        approval=planned.approval,
        approved=row.approved,
        lock=planned.lock,
        skip=planned.skip,
        lost=row.state == StageState.FAILED and row.losses > MAX_LOSSES,
    )


def attempt_view(row: AnyRow) -> AttemptView:
    return AttemptView(
        id=row.id,
        number=row.number,
        state=AttemptState(row.state),
        worker=row.worker,
        created=row.created,
        started=row.started,
        finished=row.finished,
        error=row.error,
        exit_code=row.exit_code,
        timings=json.loads(row.timings) if row.timings else {},
    )


def _duration(started: float | None, finished: float | None, now: float) -> float | None:
    if started is None:
        return None
    return max(0.0, (finished if finished is not None else now) - started)


def stage_view(row: AnyRow, attempts: Sequence[AnyRow], now: float) -> StageView:
    planned = planned_of(row)
    return StageView(
        name=row.name,
        base=row.base,
        kind=planned.kind,
        position=row.position,
        state=StageState(row.state),
        needs=planned.needs,
        matrix=planned.matrix,
        allow_failure=planned.allow_failure,
        reason=row.reason,
        approved=row.approved,
        approver=row.approver,
        started=row.started,
        finished=row.finished,
        duration=_duration(row.started, row.finished, now),
        outputs=outputs_of(row),
        attempts=tuple(attempt_view(each) for each in attempts),
    )


def run_views(connection: Connection, rows: Iterable[AnyRow], now: float) -> list[RunView]:
    """The runs with their stages and attempts, in three queries whatever their number."""
    rows = list(rows)
    ids = [row.id for row in rows]
    stages: dict[int, list[AnyRow]] = {}
    attempts: dict[tuple[int, int], list[AnyRow]] = {}
    if ids:
        for stage in connection.execute(
            select(t.stages).where(t.stages.c.run_id.in_(ids)).order_by(t.stages.c.run_id, t.stages.c.position)
        ):
            stages.setdefault(stage.run_id, []).append(stage)
        for attempt in connection.execute(
            select(t.attempts).where(t.attempts.c.run_id.in_(ids)).order_by(t.attempts.c.number)
        ):
            attempts.setdefault((attempt.run_id, attempt.position), []).append(attempt)
    views = []
    for row in rows:
        parts = tuple(
            stage_view(stage, attempts.get((row.id, stage.position), []), now) for stage in stages.get(row.id, [])
        )
        views.append(
            RunView(
                id=row.id,
                pipeline=row.pipeline,
                state=RunState(row.state),
                reason=row.reason,
                repository=row.repository,
                event=row.event_kind,
                branch=row.branch,
                tag=row.tag,
                sha=row.sha,
                message=row.message,
                author=row.author,
                title=row.title,
                created=row.created,
                started=row.started,
                finished=row.finished,
                duration=_duration(row.started, row.finished, now),
                stages=parts,
            )
        )
    return views


def release_of(row: AnyRow) -> Release:
    return Release(
        id=row.id,
        service=row.service,
        number=row.number,
        state=row.state,
        spec=NamedService.model_validate_json(row.spec),
        image=row.image,
        digest=row.digest,
        environment=row.environment,
        rollback=row.rollback,
        run=row.run_id,
        repository=row.repository,
        commit=row.commit,
        tests=tuple(json.loads(row.tests)),
        created=row.created,
        live=row.live,
        error=row.error,
    )


def rollout_of(connection: Connection, row: AnyRow) -> Rollout:
    hosts = connection.execute(
        select(t.rollout_hosts).where(t.rollout_hosts.c.rollout_id == row.id).order_by(t.rollout_hosts.c.position)
    )
    return Rollout(
        id=row.id,
        service=row.service,
        release=row.release,
        previous=row.previous,
        state=row.state,
        reason=row.reason,
        hosts=tuple(
            RolloutHost(host=host.host, state=host.state, detail=host.detail, data=json.loads(host.data or "{}"))
            for host in hosts
        ),
        started=row.started,
        finished=row.finished,
    )


def step_of(row: AnyRow, service: str) -> HostStep:
    return HostStep(
        id=row.id,
        rollout=row.rollout_id,
        service=service,
        key=row.key,
        host=row.host,
        action=row.action,
        payload=json.loads(row.payload),
        state=row.state,
        error=row.error,
        result=json.loads(row.result or "{}"),
    )


def host_of(row: AnyRow, *, lost_before: float) -> HostInfo:
    return HostInfo(
        name=row.name,
        labels=json.loads(row.labels),
        address=row.address,
        state="lost" if row.seen < lost_before else "online",
        engine_ok=row.engine_ok,
        engine=row.engine,
        version=row.version,
        concurrency=row.concurrency,
        last_seen=row.seen,
        replicas=tuple(Replica.model_validate(each) for each in json.loads(row.replicas or "[]")),
        containers=json.loads(row.containers or "{}"),
    )
