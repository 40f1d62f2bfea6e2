"""What a rollout has its hosts do, one step each."""

from __future__ import annotations

import json
import secrets

from sqlalchemy import Connection, insert, select, update

from pipeline.errors import LeaseLost
from pipeline.protocol import (
    HostStep,
    LeaseState,
    NewHostStep,
    Renewal,
    StepClaim,
    StepOutcome,
    StepState,
)
from pipeline.store import tables as t
from pipeline.store.context import Context, new_token
from pipeline.store.releases import abandon, coordinated, get_release
from pipeline.store.rows import AnyRow, one, step_of


def request_step(
    connection: Connection, context: Context, attempt: str, token: str, rollout: int, new: NewHostStep
) -> HostStep:
    row = coordinated(connection, attempt, token, rollout)
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
    coordinated(connection, attempt, token, rollout)
    abandon(connection, rollout)


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
