"""Services, their releases, and rollouts over hosts."""

from __future__ import annotations

import json
import secrets

from sqlalchemy import Connection, and_, insert, select, update

from pipeline.errors import Conflict, LeaseLost, NotFound
from pipeline.plan.graph import ancestors
from pipeline.plan.models import Kind
from pipeline.protocol import (
    ROLLOUT_ENDED,
    HostState,
    HostStep,
    LeaseState,
    NewHostStep,
    NewRelease,
    NewRollout,
    Release,
    ReleaseState,
    Renewal,
    Rollout,
    RolloutState,
    RolloutUpdate,
    StepClaim,
    StepOutcome,
    StepState,
)
from pipeline.run.states import STAGE_ENDED, AttemptState, StageState
from pipeline.services import NamedService
from pipeline.store import tables as t
from pipeline.store.context import Context, held_attempt, known_hosts, new_token, stage_of
from pipeline.store.rows import AnyRow, one, planned_of, release_of, rollout_of, step_of
from pipeline.store.runs import stage_rows
from pipeline.triggers.event import Event
from pipeline.views import HostReplicas, ServiceView

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
    _abandon(connection, rollout.id)
    connection.execute(
        update(t.rollouts)
        .where(t.rollouts.c.id == rollout.id)
        .values(state=RolloutState.FAILED, reason=reason, finished=now)
    )
    _end_release(connection, context, rollout, RolloutState.FAILED, reason)


def get_rollout(connection: Connection, rollout: int) -> Rollout:
    return rollout_of(connection, one(connection, t.rollouts, f"rollout {rollout}", t.rollouts.c.id == rollout))


def _coordinated(connection: Connection, attempt: str, token: str, rollout: int) -> AnyRow:
    """The rollout, if this attempt coordinates it. Raises LeaseLost."""
    held_attempt(connection, attempt, token)
    row = one(connection, t.rollouts, f"rollout {rollout}", t.rollouts.c.id == rollout)
    if row.attempt != attempt:
        raise LeaseLost(f"rollout {rollout} is coordinated by attempt {row.attempt}")
    return row


def update_rollout(
    connection: Connection, context: Context, attempt: str, token: str, rollout: int, change: RolloutUpdate
) -> Rollout:
    row = _coordinated(connection, attempt, token, rollout)
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


# Steps


def request_step(
    connection: Connection, context: Context, attempt: str, token: str, rollout: int, new: NewHostStep
) -> HostStep:
    row = _coordinated(connection, attempt, token, rollout)
    mine = select(t.steps).where(t.steps.c.rollout_id == rollout, t.steps.c.key == new.key)
    known = connection.execute(mine).first()
    if known is None:
        now = context.clock()
        connection.execute(
            insert(t.steps).values(
                rollout_id=rollout,
                key=new.key,
                host=new.host,
                action=new.action,
                payload=json.dumps(new.payload),
                state=StepState.PENDING,
                error="",
                result="",
                deadline=now + new.deadline,
                hint_at=now,
                created=now,
            )
        )
        known = connection.execute(mine).one()
    return step_of(known, row.service)


def abandon_steps(connection: Connection, attempt: str, token: str, rollout: int) -> None:
    _coordinated(connection, attempt, token, rollout)
    _abandon(connection, rollout)


def _abandon(connection: Connection, rollout: int) -> None:
    connection.execute(
        update(t.steps)
        .where(t.steps.c.rollout_id == rollout, t.steps.c.state.in_(_OPEN_STEPS))
        .values(state=StepState.ABANDONED, token=None)
    )


def list_steps(connection: Connection, rollout: int) -> list[HostStep]:
    row = one(connection, t.rollouts, f"rollout {rollout}", t.rollouts.c.id == rollout)
    query = select(t.steps).where(t.steps.c.rollout_id == rollout).order_by(t.steps.c.id)
    return [step_of(step, row.service) for step in connection.execute(query)]


def claim_step(connection: Connection, context: Context, step: int, worker: str) -> StepClaim | None:
    row = connection.execute(select(t.steps).where(t.steps.c.id == step)).first()
    if row is None or row.state != StepState.PENDING or row.host != worker:
        return None
    rollout = one(connection, t.rollouts, f"rollout {row.rollout_id}", t.rollouts.c.id == row.rollout_id)
    token = new_token()
    connection.execute(
        update(t.steps)
        .where(t.steps.c.id == step)
        .values(state=StepState.RUNNING, token=token, lease_until=context.clock() + context.lease_seconds)
    )
    release = get_release(connection, rollout.release)
    previous = get_release(connection, rollout.previous) if rollout.previous else None
    names = (*release.spec.secrets, *(previous.spec.secrets if previous else ()))
    values = {name: value for name in names for value in context.secrets.known([name])}
    taken = connection.execute(select(t.steps).where(t.steps.c.id == step)).one()
    return StepClaim(
        step=step_of(taken, rollout.service),
        token=token,
        lease_seconds=context.lease_seconds,
        release=release,
        previous=previous,
        secrets=values,
    )


def _held_step(connection: Connection, step: int, token: str) -> AnyRow:
    row = connection.execute(select(t.steps).where(t.steps.c.id == step)).first()
    if row is None or row.token is None or not secrets.compare_digest(row.token, token):
        raise LeaseLost(f"step {step} is not held by this token")
    return row


def renew_step(connection: Connection, context: Context, step: int, token: str) -> Renewal:
    try:
        row = _held_step(connection, step, token)
    except LeaseLost:
        return Renewal(state=LeaseState.LOST)
    if row.state != StepState.RUNNING:
        return Renewal(state=LeaseState.LOST)
    until = context.clock() + context.lease_seconds
    connection.execute(update(t.steps).where(t.steps.c.id == step).values(lease_until=until))
    return Renewal(state=LeaseState.OK, expires_in=context.lease_seconds)


def finish_step(connection: Connection, step: int, token: str, outcome: StepOutcome) -> None:
    row = _held_step(connection, step, token)
    if row.state != StepState.RUNNING:
        if row.state in (StepState.DONE, StepState.FAILED):
            return  # said twice
        raise LeaseLost(f"step {step} is over: {row.state}")
    connection.execute(
        update(t.steps)
        .where(t.steps.c.id == step)
        .values(
            state=StepState.DONE if outcome.ok else StepState.FAILED,
            error=outcome.error,
            result=json.dumps(outcome.result),
        )
    )


# Services


def list_services(connection: Connection, context: Context) -> list[ServiceView]:
    rows = connection.execute(select(t.services).order_by(t.services.c.name))
    return [_view(connection, context, row) for row in rows.all()]


def get_service(connection: Connection, context: Context, service: str) -> ServiceView:
    row = one(connection, t.services, f"service {service}", t.services.c.name == service)
    return _view(connection, context, row)


def _view(connection: Connection, context: Context, row: AnyRow) -> ServiceView:
    spec = NamedService.model_validate_json(row.spec)
    rollout = connection.execute(
        select(t.rollouts).where(t.rollouts.c.service == row.name).order_by(t.rollouts.c.id.desc()).limit(1)
    ).first()
    hosts = []
    for host in known_hosts(connection, context, {}):
        replicas = tuple(replica for replica in host.replicas if replica.service == row.name)
        wanted = all(host.labels.get(key) == value for key, value in spec.hosts.items())
        if wanted or replicas:
            hosts.append(HostReplicas(host=host.name, online=host.state == "online", replicas=replicas))
    return ServiceView(
        name=row.name,
        repository=row.repository,
        spec=spec,
        release=get_release(connection, row.live) if row.live else None,
        rollout=rollout_of(connection, rollout) if rollout is not None else None,
        hosts=tuple(hosts),
    )
