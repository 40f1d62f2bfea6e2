"""Events and runs: made, advanced, cancelled, tried again, approved, listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from sqlalchemy import Connection, and_, insert, or_, select, update

from pipeline.errors import Conflict, NotFound
from pipeline.plan.graph import descendants
from pipeline.plan.models import Plan, PlannedStage
from pipeline.protocol import Outputs
from pipeline.run.scheduler import StageFacts, conclude, decide
from pipeline.run.states import RUN_ENDED, STAGE_CLAIMABLE, STAGE_ENDED, AttemptState, RunState, StageState
from pipeline.run.transitions import AttemptEvent, StageEvent, next_stage_state
from pipeline.store import tables as t
from pipeline.store.context import Context, last_attempt, move_attempt, move_stage, queue_attempt, values_of
from pipeline.store.rows import AnyRow, facts_of, one, outputs_of, planned_of, run_views
from pipeline.triggers.event import Event
from pipeline.values import did_you_mean, format_duration
from pipeline.views import RunView

_ACTIVE = (RunState.QUEUED, RunState.RUNNING)
_HOLDING = values_of((*STAGE_CLAIMABLE, StageState.RUNNING))


def record_event(connection: Connection, context: Context, event: Event, hook: str, delivery: str | None) -> int | None:
    now = context.clock()
    if delivery is not None:
        known = connection.execute(
            select(t.deliveries.c.event_id).where(t.deliveries.c.hook == hook, t.deliveries.c.delivery == delivery)
        ).first()
        if known is not None:
            return None
    made_id = connection.execute(
        insert(t.events)
        .values(
            hook=hook,
            kind=event.kind,
            repository=event.repository,
            ref=event.ref,
            sha=event.sha,
            document=event.model_dump_json(),
            state="new",
            error="",
            created=now,
        )
        .returning(t.events.c.id)
    ).scalar_one()
    number = int(made_id)
    if delivery is not None:
        connection.execute(insert(t.deliveries).values(hook=hook, delivery=delivery, event_id=number, created=now))
    return number


def pending_events(connection: Connection) -> list[tuple[int, Event]]:
    query = select(t.events.c.id, t.events.c.document).where(t.events.c.state == "new").order_by(t.events.c.id)
    return [(row.id, Event.model_validate_json(row.document)) for row in connection.execute(query)]


def finish_event(connection: Connection, event: int, state: str, error: str) -> None:
    connection.execute(update(t.events).where(t.events.c.id == event).values(state=state, error=error[:4096]))


def refuse_run(
    connection: Connection, context: Context, event: Event, event_id: int | None, pipeline: str, reason: str
) -> RunView:
    """A run that failed before it had stages: its pipeline file is wrong, or could not be read."""
    view = create_run(connection, context, Plan(pipeline=pipeline, stages=()), event, event_id, "")
    now = context.clock()
    connection.execute(
        update(t.runs)
        .where(t.runs.c.id == view.id)
        .values(state=RunState.FAILED, reason=reason[:4096], started=now, finished=now)
    )
    return get_run(connection, context, view.id)


def create_run(
    connection: Connection,
    context: Context,
    plan: Plan,
    event: Event,
    event_id: int | None,
    title: str,
    done: Mapping[str, Outputs] = MappingProxyType({}),
) -> RunView:
    now = context.clock()
    if event_id is not None:
        made = connection.execute(
            select(t.runs).where(t.runs.c.event_id == event_id, t.runs.c.pipeline == plan.pipeline)
        ).first()
        if made is not None:
            return run_views(connection, [made], now)[0]
    triggered = now
    if event_id is not None:
        triggered = one(connection, t.events, f"event {event_id}", t.events.c.id == event_id).created
    group = f"{event.repository}\n{plan.concurrency.group}" if plan.concurrency else None
    made_id = connection.execute(
        insert(t.runs)
        .values(
            event_id=event_id,
            pipeline=plan.pipeline,
            state=RunState.QUEUED,
            reason="",
            title=title,
            repository=event.repository,
            event_kind=event.kind,
            branch=event.branch,
            tag=event.tag,
            sha=event.sha,
            message=event.message.split("\n", 1)[0][:500],
            author=event.author,
            event=event.model_dump_json(),
            plan=plan.model_dump_json(),
            grouping=group,
            cancelled=False,
            triggered=triggered,
            created=now,
        )
        .returning(t.runs.c.id)
    ).scalar_one()
    run = int(made_id)
    rows = [
        _stage_values(run, position, stage) | _done_values(done.get(stage.name), now)
        for position, stage in enumerate(plan.stages)
    ]
    if rows:
        connection.execute(insert(t.stages), rows)
    if group is not None and plan.concurrency and plan.concurrency.cancel == "superseded":
        older = connection.execute(
            select(t.runs).where(t.runs.c.grouping == group, t.runs.c.state.in_(_ACTIVE), t.runs.c.id < run)
        )
        for each in older.all():
            cancel(connection, context, each.id, f"superseded by run {run}")
    return get_run(connection, context, run)


def _stage_values(run: int, position: int, stage: PlannedStage) -> dict[str, object]:
    return {
        "run_id": run,
        "position": position,
        "name": stage.name,
        "base": stage.base,
        "kind": stage.kind,
        "state": StageState.PENDING,
        "reason": "",
        "planned": stage.model_dump_json(),
        "outputs": "",
        "lock": stage.lock,
    }


def _done_values(outputs: Outputs | None, now: float) -> dict[str, object]:
    if outputs is None:
        return {"finished": None}
    reason = "in an earlier run"
    return {"state": StageState.PASSED, "outputs": outputs.model_dump_json(), "reason": reason, "finished": now}


def get_run(connection: Connection, context: Context, run: int) -> RunView:
    return run_views(connection, [_row(connection, run)], context.clock())[0]


def _row(connection: Connection, run: int) -> AnyRow:
    return one(connection, t.runs, f"run {run}", t.runs.c.id == run)


def list_runs(
    connection: Connection,
    context: Context,
    *,
    limit: int,
    before: int | None,
    pipeline: str | None,
    branch: str | None,
    states: Iterable[str],
    repository: str | None,
) -> list[RunView]:
    query = select(t.runs).order_by(t.runs.c.id.desc()).limit(min(limit, 500))
    if before is not None:
        query = query.where(t.runs.c.id < before)
    for column, value in ((t.runs.c.pipeline, pipeline), (t.runs.c.branch, branch)):
        if value is not None:
            query = query.where(column == value)
    if repository is not None:
        query = query.where(t.runs.c.repository == repository)
    wanted = values_of(states)
    if wanted:
        query = query.where(t.runs.c.state.in_(wanted))
    return run_views(connection, connection.execute(query), context.clock())


def stage_rows(connection: Connection, run: int) -> list[AnyRow]:
    query = select(t.stages).where(t.stages.c.run_id == run).order_by(t.stages.c.position)
    return list(connection.execute(query))


def advance(connection: Connection, context: Context, run: int) -> None:
    """Does all that can be decided about a run now, and about those that waited for it."""
    queue, seen = [run], set[int]()
    while queue:
        each = queue.pop(0)
        if each in seen:
            continue
        seen.add(each)
        queue += _advance(connection, context, each)


def _advance(connection: Connection, context: Context, run: int) -> list[int]:
    """Gives the runs that may go on because of what changed here."""
    now = context.clock()
    row = _row(connection, run)
    if row.state in RUN_ENDED:
        return []
    if not row.cancelled and _waits_for_group(connection, row):
        return []
    rows = {stage.name: stage for stage in stage_rows(connection, run)}
    facts = {name: facts_of(stage) for name, stage in rows.items()}
    held = _held_locks(connection, facts.values())
    while decisions := decide(list(facts.values()), cancelled=row.cancelled, held=held):
        for decision in decisions:
            stage = rows[decision.stage]
            ended = next_stage_state(StageState(stage.state), decision.event) in STAGE_ENDED
            state = move_stage(
                connection, stage, decision.event, reason=decision.reason, **({"finished": now} if ended else {})
            )
            facts[decision.stage] = replace(facts[decision.stage], state=state)
            if decision.event is StageEvent.UNBLOCK:
                queue_attempt(connection, stage, now)
                if stage.lock:
                    held.add(stage.lock)
    return _conclude(connection, context, row, list(facts.values()), now)


def _held_locks(connection: Connection, facts: Iterable[StageFacts]) -> set[str]:
    wanted = {fact.lock for fact in facts if fact.lock and fact.state is StageState.PENDING}
    if not wanted:
        return set()
    query = select(t.stages.c.lock).where(t.stages.c.lock.in_(wanted), t.stages.c.state.in_(_HOLDING))
    return {str(lock) for lock in connection.execute(query).scalars()}


def _waits_for_group(connection: Connection, row: AnyRow) -> bool:
    if row.grouping is None or row.state != RunState.QUEUED:
        return False
    # A newer one runs before an older one that is tried again.
    first = or_(t.runs.c.state == RunState.RUNNING, and_(t.runs.c.state == RunState.QUEUED, t.runs.c.id < row.id))
    others = select(t.runs.c.id).where(t.runs.c.grouping == row.grouping, t.runs.c.id != row.id, first)
    return connection.execute(others.limit(1)).first() is not None


def _conclude(connection: Connection, context: Context, row: AnyRow, facts: list[StageFacts], now: float) -> list[int]:
    ended = conclude(facts, cancelled=row.cancelled)
    if ended is not None:
        reason = row.reason
        if ended in (RunState.FAILED, RunState.LOST):
            failed = next(
                stage for stage in stage_rows(connection, row.id)
                if stage.state == StageState.FAILED and not planned_of(stage).allow_failure
            )  # fmt: skip
            reason = f"{failed.name}: {failed.reason}" if failed.reason else f"{failed.name} failed"
        connection.execute(update(t.runs).where(t.runs.c.id == row.id).values(state=ended, finished=now, reason=reason))
    elif row.state == RunState.QUEUED and any(fact.state is not StageState.PENDING for fact in facts):
        connection.execute(update(t.runs).where(t.runs.c.id == row.id).values(state=RunState.RUNNING))
    return _waiting_for(connection, row, facts, over=ended is not None)


def _waiting_for(connection: Connection, row: AnyRow, facts: list[StageFacts], *, over: bool) -> list[int]:
    """Other runs that a lock or the group of this one may have held up."""
    locks = {fact.lock for fact in facts if fact.lock and fact.state in STAGE_ENDED}
    found: list[int] = []
    if locks:
        query = (
            select(t.stages.c.run_id)
            .join(t.runs, t.runs.c.id == t.stages.c.run_id)
            .where(t.stages.c.lock.in_(locks), t.stages.c.state == StageState.PENDING, t.runs.c.state.in_(_ACTIVE))
            .order_by(t.stages.c.run_id)
        )
        found += [int(run) for run in connection.execute(query).scalars() if run != row.id]
    if over and row.grouping is not None:
        query = (
            select(t.runs.c.id)
            .where(t.runs.c.grouping == row.grouping, t.runs.c.state == RunState.QUEUED)
            .order_by(t.runs.c.id)
            .limit(1)
        )
        found += [int(run) for run in connection.execute(query).scalars()]
    return found


def cancel(connection: Connection, context: Context, run: int, reason: str) -> None:
    row = _row(connection, run)
    if row.state in RUN_ENDED:
        raise Conflict(f"run {run} has ended: {row.state}")
    connection.execute(update(t.runs).where(t.runs.c.id == run).values(cancelled=True, reason=reason or "cancelled"))
    now = context.clock()
    for stage in stage_rows(connection, run):
        if stage.state in STAGE_CLAIMABLE:
            attempt = last_attempt(connection, stage)
            if attempt is not None and attempt.state == AttemptState.QUEUED:
                move_attempt(connection, attempt, AttemptEvent.CANCEL, finished=now)
            move_stage(connection, stage, StageEvent.CANCEL, finished=now, reason=reason)
    advance(connection, context, run)


def retry(connection: Connection, context: Context, run: int, from_stage: str | None) -> None:
    """Reopens an ended run: a stage and what comes after it, or without one what did not pass."""
    row = _row(connection, run)
    if row.state not in RUN_ENDED:
        raise Conflict(f"run {run} has not ended: cancel it first, or wait")
    stages = stage_rows(connection, run)
    if not stages:
        raise Conflict(f"run {run} never had stages: mend what it says, and push again")
    needs = {stage.name: planned_of(stage).needs for stage in stages}
    if from_stage is not None:
        start = {stage.name for stage in stages if from_stage in (stage.name, stage.base)}
        if not start:
            raise NotFound(f'run {run} has no stage "{from_stage}": {did_you_mean(from_stage, needs)}')
    else:
        start = {stage.name for stage in stages if stage.state != StageState.PASSED and not planned_of(stage).skip}
        if not start:
            raise Conflict(f"run {run} passed: say from which stage to run it again")
    reopened = start.union(*(descendants(name, needs) for name in start))
    for stage in stages:
        if stage.name in reopened:
            move_stage(
                connection, stage, StageEvent.REOPEN, reason="", outputs="", worker=None, approved=False, approver="",
                failures=0, losses=0, epoch=stage.epoch + 1, started=None, finished=None,
            )  # fmt: skip
    connection.execute(
        update(t.runs)
        .where(t.runs.c.id == run)
        .values(state=RunState.QUEUED, reason="", cancelled=False, finished=None)
    )
    advance(connection, context, run)


def approve(connection: Connection, context: Context, run: int, name: str, who: str) -> None:
    stages = {stage.name: stage for stage in stage_rows(connection, run)}
    if name not in stages:
        _row(connection, run)
        raise NotFound(f'run {run} has no stage "{name}": {did_you_mean(name, stages)}')
    stage = stages[name]
    if stage.state != StageState.WAITING:
        raise Conflict(f"stage {name} of run {run} does not wait for approval: it is {stage.state}")
    who = who[:200]
    reason = f"approved by {who}" if who else "approved"
    move_stage(connection, stage, StageEvent.APPROVE, approved=True, approver=who, reason=reason)
    advance(connection, context, run)


def first_failure(stage: AnyRow, error: str, exit_code: int | None) -> str:
    """The one line that says why a stage failed."""
    if error:
        return error.split("\n", 1)[0]
    return f"exit code {exit_code}" if exit_code is not None else f"{stage.name} failed"


def describe_timeout(seconds: float) -> str:
    return f"it took longer than its timeout of {format_duration(seconds)}"


def outputs_by_stage(connection: Connection, run: int) -> dict[str, dict[str, object]]:
    return {stage.name: outputs_of(stage).model_dump() for stage in stage_rows(connection, run)}
