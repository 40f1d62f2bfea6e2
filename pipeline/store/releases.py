"""Releases of services, and their rollouts over hosts."""

from __future__ import annotations

import json

from sqlalchemy import Connection, and_, insert, select, update

from pipeline.errors import Conflict, LeaseLost, NotFound
from pipeline.plan.graph import ancestors
from pipeline.plan.models import Kind
from pipeline.protocol import (
    ROLLOUT_ENDED,
    HostState,
    NewRelease,
    NewRollout,
    Release,
    ReleaseState,
    Rollout,
    RolloutState,
    RolloutUpdate,
    StepState,
)
from pipeline.run.states import STAGE_ENDED, AttemptState, StageState
from pipeline.services import NamedService
from pipeline.store import tables as t
from pipeline.store.context import Context, held_attempt, stage_of
from pipeline.store.rows import AnyRow, one, planned_of, release_of, rollout_of
from pipeline.store.runs import stage_rows
from pipeline.triggers.event import Event

_UNDER_WAY = [RolloutState.RUNNING, RolloutState.BAKING, RolloutState.REVERTING]
_OPEN_STEPS = [StepState.PENDING, StepState.RUNNING]


def record_release(connection: Connection, context: Context, attempt: str, token: str, new: NewRelease) -> Release:
    row = held_attempt(connection, attempt, token)
    stage = stage_of(connection, row)
    mine = (
        t.releases.c.run_id == row.run_id,
        t.releases.c.position == row.position,
        t.releases.c.epoch == stage.epoch,
    )
    known = connection.execute(select(t.releases).where(*mine)).first()
    if known is not None:
        return release_of(known)
    now = context.clock()
    run = one(connection, t.runs, f"run {row.run_id}", t.runs.c.id == row.run_id)
    service = _service(connection, new.service, run.repository, now)
    number = service.releases + 1
    release = f"{new.service.name}-{number}"
    event = Event.model_validate_json(run.event)
    connection.execute(
        update(t.services).where(t.services.c.name == new.service.name).values(releases=number, updated=now)
    )
    connection.execute(
        insert(t.releases).values(
            id=release,
            service=new.service.name,
            number=number,
            state=ReleaseState.ROLLING,
            spec=new.service.model_dump_json(),
            image=new.image,
            digest=new.digest,
            environment=new.environment,
            rollback=new.rollback,
            run_id=run.id,
            position=stage.position,
            epoch=stage.epoch,
            repository=run.repository,
            commit=run.sha,
            committed=event.committed,
            tests=json.dumps(_tests_before(connection, stage)),
            error="",
            created=now,
        )
    )
    return get_release(connection, release)


def _service(connection: Connection, spec: NamedService, repository: str, now: float) -> AnyRow:
    """The service's row, made if it is new. A name belongs to the repository that deployed it first."""
    row = connection.execute(select(t.services).where(t.services.c.name == spec.name)).first()
    if row is None:
        connection.execute(
            insert(t.services).values(
                name=spec.name, repository=repository, spec=spec.model_dump_json(), releases=0, updated=now
            )
        )
        return one(connection, t.services, f"service {spec.name}", t.services.c.name == spec.name)
    if repository and row.repository and repository != row.repository:
        raise Conflict(f"the service {spec.name} belongs to the repository {row.repository}: choose another name")
    return row


def _tests_before(connection: Connection, stage: AnyRow) -> list[str]:
    """The attempts of the tests that passed on the way to this stage."""
    stages = {each.name: each for each in stage_rows(connection, stage.run_id)}
    before = ancestors(stage.name, {name: planned_of(each).needs for name, each in stages.items()})
    positions = [
        stages[name].position
        for name in before
        if stages[name].kind == Kind.TEST and stages[name].state == StageState.PASSED
    ]
    query = (
        select(t.attempts.c.id)
        .where(
            t.attempts.c.run_id == stage.run_id,
            t.attempts.c.position.in_(positions),
            t.attempts.c.state == AttemptState.PASSED,
        )
        .order_by(t.attempts.c.position, t.attempts.c.number)
    )
    return [str(attempt) for attempt in connection.execute(query).scalars()]


def get_release(connection: Connection, release: str) -> Release:
    return release_of(one(connection, t.releases, f"release {release}", t.releases.c.id == release))


def current_release(connection: Connection, service: str) -> Release | None:
    live = connection.execute(select(t.services.c.live).where(t.services.c.name == service)).scalar()
    return get_release(connection, live) if live else None


def list_releases(connection: Connection, service: str, limit: int) -> list[Release]:
    one(connection, t.services, f"service {service}", t.services.c.name == service)
    query = select(t.releases).where(t.releases.c.service == service).order_by(t.releases.c.number.desc()).limit(limit)
    return [release_of(row) for row in connection.execute(query)]


def begin_rollout(connection: Connection, context: Context, attempt: str, token: str, new: NewRollout) -> Rollout:
    held_attempt(connection, attempt, token)
    release = one(connection, t.releases, f"release {new.release}", t.releases.c.id == new.release)
    known = connection.execute(select(t.rollouts).where(t.rollouts.c.release == release.id)).first()
    if known is not None:
        connection.execute(update(t.rollouts).where(t.rollouts.c.id == known.id).values(attempt=attempt))
        return rollout_of(connection, known)
    other = connection.execute(
        select(t.rollouts).where(t.rollouts.c.service == release.service, t.rollouts.c.state.in_(_UNDER_WAY))
    ).first()
    if other is not None:
        if _coordinator_may_return(connection, other):
            raise Conflict(f"{release.service} is being rolled out to {other.release}: wait for it to end")
        _give_up(connection, context, other)
    service = one(connection, t.services, f"service {release.service}", t.services.c.name == release.service)
    made_id = connection.execute(
        insert(t.rollouts)
        .values(
            service=release.service,
            release=release.id,
            previous=service.live,
            state=RolloutState.RUNNING,
            reason="",
            attempt=attempt,
            started=context.clock(),
        )
        .returning(t.rollouts.c.id)
    ).scalar_one()
    rollout = int(made_id)
    connection.execute(
        insert(t.rollout_hosts),
        [
            {"rollout_id": rollout, "host": host, "position": position, "state": HostState.PENDING,
             "detail": "", "data": "{}"}
            for position, host in enumerate(dict.fromkeys(new.hosts))
        ],
    )  # fmt: skip
    return get_rollout(connection, rollout)


def _coordinator_may_return(connection: Connection, rollout: AnyRow) -> bool:
    """Whether the stage that began a rollout can still go on with it."""
    query = (
        select(t.stages.c.state)
        .join(t.releases, and_(t.releases.c.run_id == t.stages.c.run_id, t.releases.c.position == t.stages.c.position))
        .where(t.releases.c.id == rollout.release, t.releases.c.epoch == t.stages.c.epoch)
    )
    state = connection.execute(query).scalar()
    return state is not None and state not in STAGE_ENDED


def _give_up(connection: Connection, context: Context, rollout: AnyRow) -> None:
    """Ends a rollout that nobody coordinates any more. Its hosts go on to whatever is rolled out next."""
    reason = "its coordinator was lost"
    now = context.clock()
    abandon(connection, rollout.id)
    connection.execute(
        update(t.rollouts)
        .where(t.rollouts.c.id == rollout.id)
        .values(state=RolloutState.FAILED, reason=reason, finished=now)
    )
    _end_release(connection, context, rollout, RolloutState.FAILED, reason)


def get_rollout(connection: Connection, rollout: int) -> Rollout:
    return rollout_of(connection, one(connection, t.rollouts, f"rollout {rollout}", t.rollouts.c.id == rollout))


def coordinated(connection: Connection, attempt: str, token: str, rollout: int) -> AnyRow:
    """The rollout, if this attempt coordinates it. Raises LeaseLost."""
    held_attempt(connection, attempt, token)
    row = one(connection, t.rollouts, f"rollout {rollout}", t.rollouts.c.id == rollout)
    if row.attempt != attempt:
        raise LeaseLost(f"rollout {rollout} is coordinated by attempt {row.attempt}")
    return row


def update_rollout(
    connection: Connection, context: Context, attempt: str, token: str, rollout: int, change: RolloutUpdate
) -> Rollout:
    row = coordinated(connection, attempt, token, rollout)
    if row.state in ROLLOUT_ENDED:
        if change.state is not None and change.state != row.state:
            raise Conflict(f"rollout {rollout} has ended: {row.state}")
        return rollout_of(connection, row)
    for host in change.hosts:
        changed = connection.execute(
            update(t.rollout_hosts)
            .where(t.rollout_hosts.c.rollout_id == rollout, t.rollout_hosts.c.host == host.host)
            .values(state=host.state, detail=host.detail, data=json.dumps(host.data))
        )
        if changed.rowcount == 0:
            raise NotFound(f"{host.host} is not one of rollout {rollout}'s hosts")
    values: dict[str, object] = {}
    if change.reason is not None:
        values["reason"] = change.reason
    if change.state is not None:
        values["state"] = change.state
        if change.state in ROLLOUT_ENDED:
            values["finished"] = context.clock()
            _end_release(connection, context, row, change.state, change.reason or row.reason)
    if values:
        connection.execute(update(t.rollouts).where(t.rollouts.c.id == rollout).values(**values))
    return get_rollout(connection, rollout)


def _end_release(connection: Connection, context: Context, row: AnyRow, state: RolloutState, reason: str) -> None:
    now = context.clock()
    mine = update(t.releases).where(t.releases.c.id == row.release)
    if state is not RolloutState.DONE:
        connection.execute(mine.values(state=ReleaseState.FAILED, error=reason))
        return
    connection.execute(
        update(t.releases)
        .where(t.releases.c.service == row.service, t.releases.c.state == ReleaseState.LIVE)
        .values(state=ReleaseState.SUPERSEDED)
    )
    connection.execute(mine.values(state=ReleaseState.LIVE, live=now))
    spec = select(t.releases.c.spec).where(t.releases.c.id == row.release).scalar_subquery()
    connection.execute(
        update(t.services).where(t.services.c.name == row.service).values(live=row.release, spec=spec, updated=now)
    )


def abandon(connection: Connection, rollout: int) -> None:
    """Its steps that are not over."""
    connection.execute(
        update(t.steps)
        .where(t.steps.c.rollout_id == rollout, t.steps.c.state.in_(_OPEN_STEPS))
        .values(state=StepState.ABANDONED, token=None)
    )
