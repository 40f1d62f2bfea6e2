"""The states that runs, stages and attempts go through."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its workers were lost again and again."""


class StageState(StrEnum):
    PENDING = "pending"
    """Needs stages that have not ended."""
    WAITING = "waiting"
    """For somebody's approval."""
    READY = "ready"
    """May start; nobody has been told."""
    DISPATCHED = "dispatched"
    """A hint was sent; no worker has claimed it."""
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class AttemptState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its lease ran out: its worker's later words are refused."""


RUN_ENDED = frozenset({RunState.PASSED, RunState.FAILED, RunState.CANCELLED, RunState.LOST})
STAGE_ENDED = frozenset({StageState.PASSED, StageState.FAILED, StageState.CANCELLED, StageState.SKIPPED})
STAGE_CLAIMABLE = frozenset({StageState.READY, StageState.DISPATCHED})
ATTEMPT_ENDED = frozenset({AttemptState.PASSED, AttemptState.FAILED, AttemptState.CANCELLED, AttemptState.LOST})
