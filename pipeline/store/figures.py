"""Numbers for the metrics, counted in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from pipeline.protocol import HostInfo, ReleaseState, RolloutState
from pipeline.run.states import RUN_ENDED, STAGE_CLAIMABLE, STAGE_ENDED
from pipeline.store import tables as t
from pipeline.store.context import Context, known_hosts, values_of
from pipeline.store.rows import planned_of
from pipeline.values import Frozen

SHORT = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LONG = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
DAYS = (60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 86400.0, 7 * 86400.0)


class Histogram(Frozen):
    labels: tuple[str, ...]
    buckets: tuple[tuple[float, int], ...]
    """(upper bound, number of values at or below it)"""
    count: int
    sum: float


class Figures(Frozen):
    runs: dict[tuple[str, str], int] = Field(default_factory=dict)
    run_duration: tuple[Histogram, ...] = ()
    stage_duration: tuple[Histogram, ...] = ()
    stage_queue: tuple[Histogram, ...] = ()
    trigger_to_start: tuple[Histogram, ...] = ()
    deployments: dict[tuple[str, str, str], int] = Field(default_factory=dict)
    rollbacks: dict[tuple[str, str], int] = Field(default_factory=dict)
    lead_time: tuple[Histogram, ...] = ()
    time_to_restore: tuple[Histogram, ...] = ()
    waiting: dict[str, int] = Field(default_factory=dict)
    """Stages that wait for a claim, by the labels they ask for (`any` for none)."""
    hosts: tuple[HostInfo, ...] = ()


def figures(connection: Connection, context: Context) -> Figures:
    ended = t.runs.c.state.in_(values_of(RUN_ENDED))
    by_result = select(t.runs.c.pipeline, t.runs.c.state, func.count()).where(ended)
    stages = t.stages.join(t.runs, t.runs.c.id == t.stages.c.run_id)
    stage_over = and_(
        t.stages.c.state.in_(values_of(STAGE_ENDED)), t.stages.c.started.is_not(None),
        t.stages.c.finished.is_not(None),
    )  # fmt: skip
    stage_labels = (t.runs.c.pipeline, t.stages.c.base, t.stages.c.kind, t.stages.c.state)
    claimed = and_(t.attempts.c.started.is_not(None), t.attempts.c.worker.is_not(None))
    live = t.releases.c.live.is_not(None)
    return Figures(
        runs={
            (row[0], row[1]): row[2]
            for row in connection.execute(by_result.group_by(t.runs.c.pipeline, t.runs.c.state))
        },
        run_duration=_histogram(
            connection, t.runs, t.runs.c.finished - t.runs.c.started, LONG,
            and_(ended, t.runs.c.started.is_not(None)), t.runs.c.pipeline,
        ),
        stage_duration=_histogram(
            connection, stages, t.stages.c.finished - t.stages.c.started, LONG, stage_over, *stage_labels
        ),
        stage_queue=_histogram(
            connection, t.attempts, t.attempts.c.started - t.attempts.c.created, SHORT, claimed
        ),
        trigger_to_start=_histogram(
            connection, t.runs, t.runs.c.started - t.runs.c.triggered, SHORT, t.runs.c.started.is_not(None)
        ),
        deployments=_deployments(connection),
        rollbacks=_rollbacks(connection),
        lead_time=_histogram(
            connection, t.releases, t.releases.c.live - t.releases.c.committed, DAYS,
            and_(live, t.releases.c.committed.is_not(None), t.releases.c.rollback.is_(False)),
        ),
        time_to_restore=_restores(connection),
        waiting=_waiting(connection),
        hosts=tuple(known_hosts(connection, context, {})),
    )  # fmt: skip


def _histogram(
    connection: Connection,
    source: Any,
    value: ColumnElement[Any],
    bounds: Sequence[float],
    condition: ColumnElement[bool],
    *labels: Any,
) -> tuple[Histogram, ...]:
    buckets = [func.sum(case((value <= bound, 1), else_=0)) for bound in bounds]
    query = select(*labels, func.count(), func.sum(value), *buckets).select_from(source).where(condition)
    if labels:
        query = query.group_by(*labels)
    width = len(labels)
    return tuple(
        Histogram(
            labels=tuple(str(each) for each in row[:width]),
            buckets=tuple(zip(bounds, (int(each or 0) for each in row[width + 2 :]), strict=True)),
            count=int(row[width]),
            sum=float(row[width + 1] or 0.0),
        )
        for row in connection.execute(query)
    )


def _deployments(connection: Connection) -> dict[tuple[str, str, str], int]:
    query = (
        select(t.releases.c.service, t.releases.c.environment, t.releases.c.state, func.count())
        .where(t.releases.c.state != ReleaseState.ROLLING)
        .group_by(t.releases.c.service, t.releases.c.environment, t.releases.c.state)
    )
    found: dict[tuple[str, str, str], int] = {}
    for service, environment, state, number in connection.execute(query):
        result = "failed" if state == ReleaseState.FAILED else "passed"
        key = (service, environment, result)
        found[key] = found.get(key, 0) + number
    return found


def _rollbacks(connection: Connection) -> dict[tuple[str, str], int]:
    undone = (
        select(t.rollouts.c.service, func.count())
        .where(t.rollouts.c.state == RolloutState.REVERTED)
        .group_by(t.rollouts.c.service)
    )
    wished = (
        select(t.releases.c.service, func.count()).where(t.releases.c.rollback.is_(True)).group_by(t.releases.c.service)
    )
    found = {(row[0], "failed_rollout"): int(row[1]) for row in connection.execute(undone)}
    return found | {(row[0], "manual"): int(row[1]) for row in connection.execute(wished)}


def _restores(connection: Connection) -> tuple[Histogram, ...]:
    """From the start of a rollout that failed until the service was whole again: undone, or the next done."""
    query = select(t.rollouts).where(t.rollouts.c.finished.is_not(None)).order_by(t.rollouts.c.id)
    broken: dict[str, float] = {}
    values: list[float] = []
    for row in connection.execute(query):
        if row.state == RolloutState.REVERTED:
            values.append(row.finished - row.started)
        elif row.state == RolloutState.FAILED:
            broken.setdefault(row.service, row.started)
        elif row.service in broken:
            values.append(row.finished - broken.pop(row.service))
    buckets = tuple((bound, sum(value <= bound for value in values)) for bound in LONG)
    return (Histogram(labels=(), buckets=buckets, count=len(values), sum=sum(values)),)


def _waiting(connection: Connection) -> dict[str, int]:
    query = select(t.stages).where(t.stages.c.state.in_(values_of(STAGE_CLAIMABLE)))
    found: dict[str, int] = {"any": 0}
    for row in connection.execute(query):
        labels = planned_of(row).runs_on
        queue = ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "any"
        found[queue] = found.get(queue, 0) + 1
    return found


__all__ = ["Figures", "Histogram", "figures"]
