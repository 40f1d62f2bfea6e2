"""What became of each release of a service: its rollout's outcome, when, and by whom."""

from __future__ import annotations

from sqlalchemy import Connection, and_, select

from pipeline.store import tables as t
from pipeline.store.rows import one, release_of
from pipeline.views import PastRelease


def past_releases(connection: Connection, service: str, limit: int) -> list[PastRelease]:
    """The newest first."""
    one(connection, t.services, f"service {service}", t.services.c.name == service)
    # A stage that is run again asks for leave again: its approver belongs to its last release.
    stage = and_(
        t.stages.c.run_id == t.releases.c.run_id,
        t.stages.c.position == t.releases.c.position,
        t.stages.c.epoch == t.releases.c.epoch,
    )
    query = (
        select(
            t.releases,
            t.runs.c.author,
            t.stages.c.approver,
            t.rollouts.c.state.label("outcome"),
            t.rollouts.c.reason,
            t.rollouts.c.started,
            t.rollouts.c.finished,
        )
        .join(t.runs, t.runs.c.id == t.releases.c.run_id)
        .outerjoin(t.rollouts, t.rollouts.c.release == t.releases.c.id)
        .outerjoin(t.stages, stage)
        .where(t.releases.c.service == service)
        .order_by(t.releases.c.number.desc())
        .limit(limit)
    )
    return [
        PastRelease(
            **release_of(row).model_dump(),
            author=row.author,
            approver=row.approver or "",
            outcome=row.outcome,
            reason=row.reason or "",
            started=row.started,
            finished=row.finished,
        )
        for row in connection.execute(query)
    ]
