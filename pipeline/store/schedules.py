"""When pipelines start by themselves: what the file at the tip of each default branch asked for."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select, update

from pipeline.store import tables as t
from pipeline.store.context import Context
from pipeline.store.runs import record_event
from pipeline.triggers.cron import next_time
from pipeline.triggers.event import Event


def set_schedules(connection: Connection, context: Context, event: Event, schedules: Iterable[str]) -> None:
    now = context.clock()
    wanted = set(schedules)
    mine = t.schedules.c.repository == event.repository
    known = set(connection.execute(select(t.schedules.c.schedule).where(mine)).scalars())
    connection.execute(delete(t.schedules).where(mine, t.schedules.c.schedule.not_in(wanted)))
    connection.execute(update(t.schedules).where(mine).values(ref=event.ref, sha=event.sha))
    for schedule in sorted(wanted - known):
        due = next_time(schedule, now)
        if due is not None:
            row = {"repository": event.repository, "schedule": schedule, "ref": event.ref, "sha": event.sha, "due": due}
            connection.execute(insert(t.schedules).values(**row))


def has_schedules(connection: Connection, repository: str) -> bool:
    query = select(t.schedules.c.schedule).where(t.schedules.c.repository == repository).limit(1)
    return connection.execute(query).first() is not None


def strike(connection: Connection, context: Context) -> int:
    """Records an event for each schedule that is due: once, however often it was missed. Gives how many."""
    now = context.clock()
    rows = connection.execute(select(t.schedules).where(t.schedules.c.due <= now)).all()
    for row in rows:
        event = Event(kind="schedule", repository=row.repository, ref=row.ref, sha=row.sha, schedule=row.schedule)
        record_event(connection, context, event, "schedule", None)
        connection.execute(
            update(t.schedules)
            .where(t.schedules.c.repository == row.repository, t.schedules.c.schedule == row.schedule)
            .values(due=next_time(row.schedule, now))
        )
    return len(rows)
