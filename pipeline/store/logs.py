"""The lines that attempts say: stored once each, bounded an attempt, read in order.

Of a log that grows over the bound the head and the tail stay. The head is the first quarter of the bound; what
comes after it goes, the oldest first, a quarter of the bound at a time, and a line in its place says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, LargeBinary, cast, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.errors import NotFound
from pipeline.protocol import LogLine
from pipeline.secrets import mask, names_of
from pipeline.store import tables as t
from pipeline.store.context import Context, held_attempt, stage_of
from pipeline.store.rows import AnyRow, planned_of
from pipeline.views import StoredLine

_LINE = 64
"""Bytes that a stored line costs beside its text."""


def append(connection: Connection, context: Context, attempt: str, token: str, lines: Sequence[LogLine]) -> None:
    row = held_attempt(connection, attempt, token)
    wanted = [line for line in lines if not _was_cut(row, line.seq)]
    if not wanted:
        return
    planned = planned_of(stage_of(connection, row))
    names = names_of(planned.secrets, planned.spec)
    values = context.secrets.known(names) if names else []
    rows: list[dict[str, Any]] = [
        {
            "attempt": attempt,
            "seq": line.seq,
            "stream": line.stream,
            "time": line.time,
            "text": mask(line.text, values),
        }
        for line in wanted
    ]
    new = _insert(connection, rows)
    if new:
        _bound(connection, row, context.log_size, sum(_cost(each["text"]) for each in rows if each["seq"] in new), new)


def _was_cut(row: AnyRow, seq: int) -> bool:
    """Whether this line was here and is gone: it may be sent twice, but not come back."""
    return row.log_cut_to is not None and row.log_cut_from <= seq <= row.log_cut_to


def _insert(connection: Connection, rows: list[dict[str, Any]]) -> set[int]:
    """Gives the numbers of those that were not here yet."""
    made = postgresql.insert(t.logs) if connection.dialect.name == "postgresql" else sqlite.insert(t.logs)
    statement: Any = made.on_conflict_do_nothing().returning(t.logs.c.seq)
    return set(connection.execute(statement, rows).scalars())


def _cost(text: str) -> int:
    return len(text.encode(errors="replace")) + _LINE


def _bound(connection: Connection, row: AnyRow, most: int, grown: int, new: set[int]) -> None:
    """Counts what came; cuts when it is too much."""
    size = row.log_size + grown
    values: dict[str, int] = {}
    if row.log_cut_from is None and size > most // 4:
        values["log_cut_from"] = max(new) + 1
    elif row.log_cut_from is not None and size > most:
        newest = max(new)
        freed, last = _oldest(connection, row, size - most * 3 // 4, newest)
        if last is not None:
            size -= freed
            values |= {"log_cut_to": last, "log_cut_size": row.log_cut_size + freed}
            _cut(connection, row, last, row.log_cut_size + freed, most)
    connection.execute(update(t.attempts).where(t.attempts.c.id == row.id).values(log_size=size, **values))


def _oldest(connection: Connection, row: AnyRow, excess: int, newest: int) -> tuple[int, int | None]:
    """How many bytes the oldest lines after the head take that must go, and the number of the last of them."""
    after = row.log_cut_from - 1 if row.log_cut_to is None else row.log_cut_to
    text = t.logs.c.text
    length = (
        func.octet_length(text) if connection.dialect.name == "postgresql" else func.length(cast(text, LargeBinary))
    )
    query = (
        select(t.logs.c.seq, length)
        .where(t.logs.c.attempt == row.id, t.logs.c.seq > after, t.logs.c.seq < newest)
        .order_by(t.logs.c.seq)
        .execution_options(yield_per=1000)
    )
    freed, last = 0, None
    with connection.execute(query) as found:
        for seq, size in found:
            freed += size + _LINE
            last = seq
            if freed >= excess:
                break
    return freed, last


def _cut(connection: Connection, row: AnyRow, last: int, size: int, most: int) -> None:
    """Removes the lines up to `last`; the first of them becomes the one that says so."""
    of_attempt = t.logs.c.attempt == row.id
    connection.execute(delete(t.logs).where(of_attempt, t.logs.c.seq > row.log_cut_from, t.logs.c.seq <= last))
    said = (
        f"… {last - row.log_cut_from + 1} lines ({_mebibytes(size)}) are left out here:"
        f" of an attempt's log {_mebibytes(most)} are kept (setting log_size)"
    )
    mark = update(t.logs).where(of_attempt, t.logs.c.seq == row.log_cut_from)
    connection.execute(mark.values(stream="system", text=said))


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def read(
    connection: Connection,
    run: int,
    stage: str,
    *,
    attempt: int | None,
    after: int,
    limit: int,
    tail: int | None,
) -> list[StoredLine]:
    row = connection.execute(select(t.stages).where(t.stages.c.run_id == run, t.stages.c.name == stage)).first()
    if row is None:
        raise NotFound(f'there is no stage "{stage}" in run {run}')
    of_stage = select(t.attempts.c.id).where(t.attempts.c.run_id == run, t.attempts.c.position == row.position)
    if attempt is not None:
        of_stage = of_stage.where(t.attempts.c.number == attempt)
    query = select(t.logs).where(t.logs.c.attempt.in_(of_stage), t.logs.c.id > after)
    if tail is not None:
        query = query.order_by(t.logs.c.id.desc()).limit(min(tail, limit))
        found = list(connection.execute(query))[::-1]
    else:
        found = list(connection.execute(query.order_by(t.logs.c.id).limit(limit)))
    return [StoredLine(id=r.id, attempt=r.attempt, seq=r.seq, stream=r.stream, time=r.time, text=r.text) for r in found]
