"""What every part of the store knows, and the few changes that several of them make."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select, update

from pipeline.errors import LeaseLost, NotFound
from pipeline.protocol import HostInfo
from pipeline.run.states import AttemptState, StageState
from pipeline.run.transitions import AttemptEvent, StageEvent, next_attempt_state, next_stage_state
from pipeline.secrets import SecretFolder
from pipeline.store import tables as t
from pipeline.store.rows import AnyRow, host_of
from pipeline.values import matches_labels

LOG_SIZE = 64 << 20
WORKER_PATIENCE = 120.0


@dataclass(frozen=True)
class Context:
    lease_seconds: float = 10.0
    heartbeat_seconds: float = 2.0
    registry: str = ""
    log_size: int = LOG_SIZE
    """Bytes that are kept of one attempt's log."""
    worker_patience: float = WORKER_PATIENCE
    """Seconds that a stage waits for a silent worker that alone has its image."""
    silences: dict[str, float] = field(default_factory=dict)
    """Silent workers, and since when this process knows."""
    secrets: SecretFolder = field(default_factory=lambda: SecretFolder(None))
    clock: Callable[[], float] = time.time

    @property
    def lost_before(self) -> float:
        """A worker last seen before this is lost."""
        return self.clock() - 3 * self.heartbeat_seconds


def new_token() -> str:
    return secrets.token_urlsafe(24)


def same_stage(row: AnyRow) -> Any:
    """The condition that finds the stage of a stage's or an attempt's row."""
    return and_(t.stages.c.run_id == row.run_id, t.stages.c.position == row.position)


def stage_of(connection: Connection, attempt: AnyRow) -> AnyRow:
    row = connection.execute(select(t.stages).where(same_stage(attempt))).first()
    if row is None:
        raise NotFound(f"attempt {attempt.id} has no stage")
    return row


def move_stage(connection: Connection, stage: AnyRow, event: StageEvent, **values: Any) -> StageState:
    """Changes a stage's state by the table, exactly from the state that was read."""
    state = next_stage_state(StageState(stage.state), event)
    changed = connection.execute(
        update(t.stages).where(same_stage(stage), t.stages.c.state == stage.state).values(state=state, **values)
    )
    assert changed.rowcount == 1, "a writer overlapped another"
    return state


def move_attempt(connection: Connection, attempt: AnyRow, event: AttemptEvent, **values: Any) -> AttemptState:
    state = next_attempt_state(AttemptState(attempt.state), event)
    changed = connection.execute(
        update(t.attempts)
        .where(t.attempts.c.id == attempt.id, t.attempts.c.state == attempt.state)
        .values(state=state, **values)
    )
    assert changed.rowcount == 1, "a writer overlapped another"
    return state


def queue_attempt(connection: Connection, stage: AnyRow, now: float) -> str:
    """A new attempt of a stage that is ready. Its id is unique, also over databases that share an engine."""
    number = stage.attempts + 1
    attempt = f"{stage.run_id}.{stage.position}.{number}-{secrets.token_hex(3)}"
    connection.execute(
        insert(t.attempts).values(
            id=attempt,
            run_id=stage.run_id,
            position=stage.position,
            number=number,
            state=AttemptState.QUEUED,
            created=now,
            error="",
            timings="",
        )
    )
    connection.execute(update(t.stages).where(same_stage(stage)).values(attempts=number, hints=0, hint_at=None))
    return attempt


def last_attempt(connection: Connection, stage: AnyRow) -> AnyRow | None:
    return connection.execute(
        select(t.attempts).where(
            t.attempts.c.run_id == stage.run_id,
            t.attempts.c.position == stage.position,
            t.attempts.c.number == stage.attempts,
        )
    ).first()


def held_attempt(connection: Connection, attempt: str, token: str) -> AnyRow:
    """The attempt, if this token holds it now. Raises LeaseLost."""
    row = connection.execute(select(t.attempts).where(t.attempts.c.id == attempt)).first()
    if row is None or row.token is None or not secrets.compare_digest(row.token, token):
        raise LeaseLost(f"attempt {attempt} is not held by this token")
    if row.state != AttemptState.RUNNING:
        raise LeaseLost(f"attempt {attempt} is over: {row.state}")
    return row


def known_hosts(connection: Connection, context: Context, labels: dict[str, str]) -> list[HostInfo]:
    rows = connection.execute(select(t.workers).order_by(t.workers.c.name))
    hosts = [host_of(row, lost_before=context.lost_before) for row in rows]
    return [host for host in hosts if matches_labels(labels, host.labels)]


def count(connection: Connection, table: Any, *conditions: Any) -> int:
    return connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()


def values_of(states: Iterable[str]) -> list[str]:
    return [str(state) for state in states]
