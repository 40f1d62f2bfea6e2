"""The periodic look at all that time alone can change: leases, deadlines, hints, schedules."""

from __future__ import annotations

from sqlalchemy import Connection, and_, or_, select, update

from pipeline.protocol import StepState
from pipeline.run.retries import hint_delay
from pipeline.run.scheduler import MAX_LOSSES
from pipeline.run.states import STAGE_CLAIMABLE, AttemptState, RunState, StageState
from pipeline.run.transitions import AttemptEvent, StageEvent
from pipeline.store import tables as t
from pipeline.store.attempts import again, near_worker
from pipeline.store.context import Context, last_attempt, move_attempt, move_stage, same_stage, stage_of, values_of
from pipeline.store.rows import AnyRow, planned_of
from pipeline.store.runs import advance, describe_timeout
from pipeline.store.schedules import strike
from pipeline.store.stranded import strand
from pipeline.views import Ready, StepReady, Swept

_GRACE = 30.0
"""Seconds after a stage's timeout in which its worker may still say so itself."""


def fence(connection: Connection, context: Context) -> list[str]:
    """Takes attempts from workers that no longer renew, and tries their stages again."""
    now = context.clock()
    query = select(t.attempts).where(
        t.attempts.c.state == AttemptState.RUNNING,
        or_(t.attempts.c.lease_until < now, t.attempts.c.deadline < now - _GRACE),
    )
    lost = []
    for attempt in connection.execute(query).all():
        _fence_one(connection, attempt, now)
        lost.append(attempt.id)
    return lost


def _fence_one(connection: Connection, attempt: AnyRow, now: float) -> None:
    stage = stage_of(connection, attempt)
    cancelled = connection.execute(select(t.runs.c.cancelled).where(t.runs.c.id == attempt.run_id)).scalar_one()
    overdue = attempt.deadline < now - _GRACE
    error = describe_timeout(planned_of(stage).timeout) if overdue else f"lost its worker {attempt.worker}"
    event = AttemptEvent.FAIL if overdue else AttemptEvent.LOSE
    move_attempt(connection, attempt, event, finished=now, error=error, token=None)
    losses = stage.losses + 1
    if cancelled:
        move_stage(connection, stage, StageEvent.CANCEL, finished=now, losses=losses)
    elif overdue:
        move_stage(connection, stage, StageEvent.FAIL, finished=now, reason=error)
    elif losses > MAX_LOSSES:
        reason = f"lost its worker {losses} times, the last was {attempt.worker}"
        move_stage(connection, stage, StageEvent.FAIL, finished=now, reason=reason, losses=losses)
    else:
        again(connection, stage, now, reason=error, losses=losses)


def active_runs(connection: Connection) -> list[int]:
    query = select(t.runs.c.id).where(t.runs.c.state.in_([RunState.QUEUED, RunState.RUNNING])).order_by(t.runs.c.id)
    return [int(run) for run in connection.execute(query).scalars()]


def due_hints(connection: Connection, context: Context, run: int | None = None) -> list[Ready]:
    """Stages that wait for a claim and whose hint is due; marks them as hinted."""
    now = context.clock()
    query = select(t.stages).where(
        t.stages.c.state.in_(values_of(STAGE_CLAIMABLE)),
        or_(t.stages.c.hint_at.is_(None), t.stages.c.hint_at <= now),
    )
    if run is not None:
        query = query.where(t.stages.c.run_id == run)
    hints = []
    for stage in connection.execute(query.order_by(t.stages.c.run_id, t.stages.c.position)).all():
        attempt = last_attempt(connection, stage)
        if attempt is None or attempt.state != AttemptState.QUEUED:
            continue
        planned = planned_of(stage)
        near = near_worker(connection, planned, stage.run_id)
        hint = Ready(run=stage.run_id, stage=stage.name, attempt=attempt.id, near=near, labels=planned.runs_on)
        hints.append(hint)
        sent = stage.hints + 1
        values = {"hints": sent, "hint_at": now + hint_delay(sent)}
        if stage.state == StageState.READY:
            move_stage(connection, stage, StageEvent.DISPATCH, **values)
        else:
            connection.execute(update(t.stages).where(same_stage(stage)).values(**values))
    return hints


def sweep_steps(connection: Connection, context: Context) -> list[StepReady]:
    """Steps whose host went silent wait again, those past their deadline fail; gives those to hint at."""
    now = context.clock()
    connection.execute(
        update(t.steps)
        .where(t.steps.c.state.in_([StepState.PENDING, StepState.RUNNING]), t.steps.c.deadline < now)
        .values(state=StepState.FAILED, token=None, error="its host did not do it in time")
    )
    connection.execute(
        update(t.steps)
        .where(and_(t.steps.c.state == StepState.RUNNING, t.steps.c.lease_until < now))
        .values(state=StepState.PENDING, token=None, hint_at=now)
    )
    query = select(t.steps).where(t.steps.c.state == StepState.PENDING, t.steps.c.hint_at <= now)
    hints = []
    for step in connection.execute(query.order_by(t.steps.c.id)).all():
        sent = step.hints + 1
        connection.execute(
            update(t.steps).where(t.steps.c.id == step.id).values(hints=sent, hint_at=now + hint_delay(sent))
        )
        hints.append(StepReady(step=step.id, host=step.host))
    return hints


def sweep(connection: Connection, context: Context) -> Swept:
    lost = fence(connection, context)
    stranded = strand(connection, context)
    for run in active_runs(connection):
        advance(connection, context, run)
    return Swept(
        ready=tuple(due_hints(connection, context)),
        steps=tuple(sweep_steps(connection, context)),
        lost=tuple(lost),
        stranded=stranded,
        events=strike(connection, context),
    )
