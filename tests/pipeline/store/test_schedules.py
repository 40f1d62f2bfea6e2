"""Pipelines that start by themselves."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.store import Store
from tests.pipeline.store.line import Line, push


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def struck(store: Store) -> list[tuple[str, str, str, str]]:
    """Sweeps, and gives the new events."""
    found = store.sweep().events
    events = store.pending_events()
    for number, _ in events:
        store.finish_event(number, state="planned")
    assert len(events) == found
    return [(event.kind, event.repository, event.schedule, event.sha) for _, event in events]


def test_a_schedule_strikes_once_each_time(line: Line) -> None:
    line.clock.now = at("2026-01-01T00:00")
    line.store.set_schedules(push(sha="1" * 40), ["0 3 * * *"])
    assert struck(line.store) == []
    line.clock.now = at("2026-01-01T03:00")
    assert struck(line.store) == [("schedule", "r", "0 3 * * *", "1" * 40)]
    assert struck(line.store) == []
    line.clock.now = at("2026-01-02T03:30")
    assert len(struck(line.store)) == 1
    line.clock.now = at("2026-01-09T02:00")
    assert len(struck(line.store)) == 1, "what was missed is made up for once"
    assert struck(line.store) == []
    line.clock.now = at("2026-01-09T03:00")
    assert len(struck(line.store)) == 1


def test_the_newest_commit_decides(line: Line) -> None:
    line.clock.now = at("2026-01-01T00:00")
    assert not line.store.has_schedules("r")
    line.store.set_schedules(push(), ["0 3 * * *", "0 4 * * *"])
    line.store.set_schedules(push(repository="other"), ["0 3 * * *"])
    line.clock.now = at("2026-01-01T02:59")
    line.store.set_schedules(push(sha="2" * 40), ["0 3 * * *", "30 3 * * *"])
    line.clock.now = at("2026-01-01T04:30")
    assert sorted(struck(line.store)) == sorted(
        [
            ("schedule", "r", "0 3 * * *", "2" * 40),
            ("schedule", "r", "30 3 * * *", "2" * 40),
            ("schedule", "other", "0 3 * * *", push().sha),
        ]
    )
    line.store.set_schedules(push(), [])
    assert not line.store.has_schedules("r")
    assert line.store.has_schedules("other")
