"""Attempts: claimed, held by a lease, ended."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import ValidationError
from sqlalchemy import Connection, select, update

from pipeline.errors import LeaseLost
from pipeline.plan.expressions import ExpressionError, Reference, Value, substitute, unescape
from pipeline.plan.models import PlannedStage
from pipeline.protocol import Claim, GitSource, LeaseState, Outcome, Renewal, Result, RunInfo
from pipeline.run.retries import tries_again
from pipeline.run.states import RUN_ENDED, STAGE_CLAIMABLE, AttemptState, RunState
from pipeline.run.transitions import AttemptEvent, StageEvent
from pipeline.secrets import MissingSecret, names_of
from pipeline.store import tables as t
from pipeline.store.context import (
    Context,
    held_attempt,
    move_attempt,
    move_stage,
    new_token,
    queue_attempt,
    stage_of,
)
from pipeline.store.rows import AnyRow, one, planned_of
from pipeline.store.runs import advance, first_failure, outputs_by_stage
from pipeline.triggers.event import Event
from pipeline.values import matches_labels

LABEL = "shipway."


def claim(connection: Connection, context: Context, attempt: str, worker: str) -> Claim | None:
    now = context.clock()
    row = connection.execute(select(t.attempts).where(t.attempts.c.id == attempt)).first()
    if row is None or row.state != AttemptState.QUEUED:
        return None
    stage = stage_of(connection, row)
    run = one(connection, t.runs, f"run {row.run_id}", t.runs.c.id == row.run_id)
    if stage.state not in STAGE_CLAIMABLE or stage.attempts != row.number or run.state in RUN_ENDED:
        return None
    planned = planned_of(stage)
    if run.cancelled or not _may_run(connection, context, planned, run.id, worker):
        return None
    try:
        resolved = resolve(planned, outputs_by_stage(connection, run.id))
        values = context.secrets.read(names_of(planned.secrets, planned.spec))
    except (ExpressionError, MissingSecret, ValidationError) as error:
        line = _line(error)
        move_attempt(connection, row, AttemptEvent.FAIL, error=line, started=now, finished=now)
        move_stage(connection, stage, StageEvent.FAIL, reason=line, started=now, finished=now)
        advance(connection, context, run.id)
        return None
    token = new_token()
    move_attempt(
        connection, row, AttemptEvent.CLAIM, worker=worker, token=token, started=now,
        lease_until=now + context.lease_seconds, deadline=now + planned.timeout,
        timings=json.dumps({"queue": max(0.0, now - row.created)}),
    )  # fmt: skip
    move_stage(connection, stage, StageEvent.CLAIM, worker=worker, started=stage.started or now, reason="")
    if run.started is None:
        connection.execute(update(t.runs).where(t.runs.c.id == run.id).values(started=now, state=RunState.RUNNING))
    return _claim(context, row, stage, run, resolved, token, values)


def _line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
    return str(error)


def _may_run(connection: Connection, context: Context, planned: PlannedStage, run: int, worker: str) -> bool:
    row = connection.execute(select(t.workers).where(t.workers.c.name == worker)).first()
    if row is None or not matches_labels(planned.runs_on, json.loads(row.labels)):
        return False
    near = near_worker(connection, planned, run)
    return near is None or near == worker


def near_worker(connection: Connection, planned: PlannedStage, run: int) -> str | None:
    """The worker whose engine has the image that this stage starts from."""
    if planned.near is None:
        return None
    query = select(t.stages.c.worker).where(t.stages.c.run_id == run, t.stages.c.name == planned.near)
    return connection.execute(query).scalar()


def resolve(planned: PlannedStage, outputs: Mapping[str, Mapping[str, object]]) -> PlannedStage:
    """The stage with `${stages.NAME.OUTPUT}` replaced. Raises ExpressionError for what is not there."""

    def lookup(reference: Reference) -> Value:
        _, name, output, *rest = (*reference.path, "", "")
        value = outputs.get(name, {}).get(output)
        if not isinstance(value, str) or any(rest):
            raise ExpressionError(f"the stage {name} gave no {output}: run it again")
        return value

    def walk(value: object) -> object:
        if isinstance(value, str):
            return unescape(substitute(value, lookup)) if "${" in value else value
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(item) for item in value]
        return value

    document = planned.model_dump()
    document |= {key: walk(document[key]) for key in ("spec", "env", "runs_on")}
    return PlannedStage.model_validate(document)


def _claim(
    context: Context,
    row: AnyRow,
    stage: AnyRow,
    run: AnyRow,
    planned: PlannedStage,
    token: str,
    secrets: dict[str, str],
) -> Claim:
    event = Event.model_validate_json(run.event)
    env = {
        "CI": "true",
        "CI_SYSTEM": "shipway",
        "CI_RUN": str(run.id),
        "CI_PIPELINE": run.pipeline,
        "CI_STAGE": stage.name,
        "CI_ATTEMPT": str(row.number),
        "CI_COMMIT": run.sha,
        "CI_BRANCH": run.branch,
        "CI_TAG": run.tag,
        "CI_REPOSITORY": run.repository,
        "CI_EVENT": run.event_kind,
    }
    source = None
    if event.url or event.local:
        source = GitSource(url=event.url, sha=event.sha, ref=event.ref, path=event.local)
    return Claim(
        attempt=row.id,
        number=row.number,
        fence=row.number,
        token=token,
        lease_seconds=context.lease_seconds,
        stage=stage.name,
        kind=planned.kind,
        spec=planned.spec,
        env=env | planned.env,
        secrets=secrets,
        timeout=planned.timeout,
        labels={
            LABEL + "run": str(run.id),
            LABEL + "pipeline": run.pipeline,
            LABEL + "stage": stage.name,
            LABEL + "attempt": row.id,
        },
        source=source,
        run=RunInfo(
            id=run.id,
            pipeline=run.pipeline,
            repository=run.repository,
            event=run.event_kind,
            branch=run.branch,
            tag=run.tag,
            sha=run.sha,
            message=run.message,
            author=run.author,
        ),
    )


def renew(connection: Connection, context: Context, attempt: str, token: str) -> Renewal:
    try:
        row = held_attempt(connection, attempt, token)
    except LeaseLost:
        return Renewal(state=LeaseState.LOST)
    until = context.clock() + context.lease_seconds
    connection.execute(update(t.attempts).where(t.attempts.c.id == attempt).values(lease_until=until))
    cancelled = connection.execute(select(t.runs.c.cancelled).where(t.runs.c.id == row.run_id)).scalar_one()
    return Renewal(state=LeaseState.CANCELLED if cancelled else LeaseState.OK, expires_in=context.lease_seconds)


def finish(connection: Connection, context: Context, attempt: str, token: str, outcome: Outcome) -> int:
    try:
        row = held_attempt(connection, attempt, token)
    except LeaseLost:
        known = connection.execute(select(t.attempts).where(t.attempts.c.id == attempt)).first()
        ended = (AttemptState.PASSED, AttemptState.FAILED, AttemptState.CANCELLED)
        if known is not None and known.token == token and known.state in ended and known.error is not None:
            return int(known.run_id)  # said twice
        raise
    now = context.clock()
    stage = stage_of(connection, row)
    cancelled = connection.execute(select(t.runs.c.cancelled).where(t.runs.c.id == row.run_id)).scalar_one()
    timings = {**json.loads(row.timings or "{}"), **outcome.timings}
    values = {
        "finished": now,
        "error": outcome.error,
        "exit_code": outcome.exit_code,
        "timings": json.dumps(timings),
    }
    kept = outcome.outputs.model_dump_json()
    planned = planned_of(stage)
    if outcome.result is Result.PASSED:
        move_attempt(connection, row, AttemptEvent.PASS, **values)
        move_stage(connection, stage, StageEvent.PASS, finished=now, reason="", outputs=kept)
    elif cancelled:
        move_attempt(connection, row, AttemptEvent.CANCEL, **values)
        move_stage(connection, stage, StageEvent.CANCEL, finished=now, reason=outcome.error, outputs=kept)
    elif outcome.result is Result.CANCELLED:
        # The worker is going down on its own account: somebody else, or itself later, takes the stage.
        move_attempt(connection, row, AttemptEvent.CANCEL, **values)
        again(connection, stage, now, reason="its worker gave it back")
    else:
        move_attempt(connection, row, AttemptEvent.FAIL, **values)
        reason = first_failure(stage, outcome.error, outcome.exit_code)
        failures = stage.failures + 1
        if tries_again(failures=failures, retries=planned.retries, retryable=outcome.retryable):
            again(connection, stage, now, reason=reason, failures=failures, epoch=stage.epoch + 1)
        else:
            move_stage(connection, stage, StageEvent.FAIL, finished=now, reason=reason, failures=failures, outputs=kept)
    return int(row.run_id)


def again(connection: Connection, stage: AnyRow, now: float, **values: object) -> None:
    """The stage is ready once more, with a new attempt."""
    move_stage(connection, stage, StageEvent.AGAIN, **values)
    queue_attempt(connection, stage, now)
