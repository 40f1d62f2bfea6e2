"""Stages whose image is only in the engine of a worker that has gone silent: they wait a while, then fail.

They are not given to another worker, nor is the image made again by itself: what passed was tested with the
image that is gone, so all that came after it must run again too, and that is for somebody to say.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from pipeline.run.states import STAGE_CLAIMABLE
from pipeline.run.transitions import AttemptEvent, StageEvent
from pipeline.store import tables as t
from pipeline.store.attempts import near_worker
from pipeline.store.context import Context, last_attempt, move_attempt, move_stage, same_stage, values_of
from pipeline.store.rows import AnyRow, planned_of
from pipeline.values import format_duration


def strand(connection: Connection, context: Context) -> int:
    """Says of each such stage what it waits for; fails it when the worker is forgotten, or silent for too long.

    Gives of how many there is something new to say.
    """
    now = context.clock()
    seen = {row.name: row.seen for row in connection.execute(select(t.workers.c.name, t.workers.c.seen))}
    # Counted from when this process noticed: while it was away itself, it heard of nobody.
    silent = {name for name, moment in seen.items() if moment < context.lost_before}
    for name in set(context.silences) - silent:
        del context.silences[name]
    for name in silent:
        context.silences.setdefault(name, now)
    claimable = select(t.stages).where(t.stages.c.state.in_(values_of(STAGE_CLAIMABLE)))
    changed = 0
    for stage in connection.execute(claimable).all():
        worker = near_worker(connection, planned_of(stage), stage.run_id)
        if worker is None:
            continue
        waits = f"waits for worker {worker}, which is silent and alone has its image"
        if worker not in seen:
            changed += _fail(connection, stage, worker, "is gone", now)
        elif worker not in silent:
            changed += _say(connection, stage, "" if stage.reason == waits else stage.reason)
        elif now - context.silences[worker] < context.worker_patience:
            changed += _say(connection, stage, waits)
        else:
            changed += _fail(
                connection, stage, worker, f"was silent for {format_duration(context.worker_patience)}", now
            )
    return changed


def _say(connection: Connection, stage: AnyRow, reason: str) -> bool:
    if reason == stage.reason:
        return False
    connection.execute(update(t.stages).where(same_stage(stage)).values(reason=reason))
    return True


def _fail(connection: Connection, stage: AnyRow, worker: str, what: str, now: float) -> bool:
    maker = planned_of(stage).near
    reason = (
        f"its image is only on worker {worker}, which {what}:"
        f' make it again with `shipway retry {stage.run_id} --from "{maker}"`, or bring the worker back and retry'
    )
    attempt = last_attempt(connection, stage)
    if attempt is not None:
        move_attempt(connection, attempt, AttemptEvent.FAIL, error=reason, finished=now)
    move_stage(connection, stage, StageEvent.FAIL, reason=reason, finished=now)
    return True
