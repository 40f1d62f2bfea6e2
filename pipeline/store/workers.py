"""Workers: who there is, and how each host is."""

from __future__ import annotations

import json

from sqlalchemy import Connection, delete, insert, select, update

from pipeline.errors import Conflict
from pipeline.protocol import Heartbeat, HeartbeatReply, Registration, StepState, WorkerInfo
from pipeline.run.states import AttemptState
from pipeline.store import tables as t
from pipeline.store.context import Context
from pipeline.store.rows import one


def register(connection: Connection, context: Context, info: WorkerInfo) -> Registration:
    now = context.clock()
    values = {
        "labels": json.dumps(info.labels),
        "address": info.address,
        "version": info.version,
        "engine": info.engine,
        "concurrency": info.concurrency,
        "registered": now,
        "seen": now,
    }
    known = update(t.workers).where(t.workers.c.name == info.name).values(**values)
    if connection.execute(known).rowcount == 0:
        empty = {"engine_ok": True, "detail": "", "containers": "{}", "replicas": "[]"}
        connection.execute(insert(t.workers).values(name=info.name, **empty, **values))
    return Registration(
        lease_seconds=context.lease_seconds,
        heartbeat_seconds=context.heartbeat_seconds,
        registry=context.registry,
    )


def forget(connection: Connection, context: Context, worker: str) -> None:
    """A host that will not come back: services are not rolled out to it any more. One that does, registers anew.

    Raises NotFound, and Conflict while its worker speaks.
    """
    row = one(connection, t.workers, f"worker {worker}", t.workers.c.name == worker)
    if row.seen >= context.lost_before:
        raise Conflict(f"worker {worker} is online: stop it first")
    connection.execute(delete(t.workers).where(t.workers.c.name == worker))


def heartbeat(connection: Connection, context: Context, beat: Heartbeat) -> HeartbeatReply:
    changed = connection.execute(
        update(t.workers)
        .where(t.workers.c.name == beat.worker)
        .values(
            engine_ok=beat.engine_ok,
            detail=beat.detail,
            containers=json.dumps(beat.containers),
            replicas=json.dumps([replica.model_dump(mode="json") for replica in beat.replicas]),
            seen=context.clock(),
        )
    )
    if changed.rowcount == 0:
        return HeartbeatReply(known=False)
    stop: list[str] = []
    if beat.attempts:
        query = (
            select(t.attempts.c.id, t.attempts.c.state, t.attempts.c.worker, t.runs.c.cancelled)
            .join(t.runs, t.runs.c.id == t.attempts.c.run_id)
            .where(t.attempts.c.id.in_(beat.attempts))
        )
        alive = {
            row.id
            for row in connection.execute(query)
            if row.state == AttemptState.RUNNING and row.worker == beat.worker and not row.cancelled
        }
        stop = [attempt for attempt in beat.attempts if attempt not in alive]
    return HeartbeatReply(cancelled=tuple(stop), steps=tuple(pending_steps(connection, beat.worker)))


def pending_steps(connection: Connection, worker: str) -> list[int]:
    query = (
        select(t.steps.c.id)
        .where(t.steps.c.host == worker, t.steps.c.state == StepState.PENDING)
        .order_by(t.steps.c.id)
    )
    return [int(step) for step in connection.execute(query).scalars()]
