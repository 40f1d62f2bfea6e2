"""Which state follows which: the whole life of a stage and of an attempt as two tables."""

from __future__ import annotations

from enum import StrEnum

from pipeline.run.states import AttemptState, StageState


class StageEvent(StrEnum):
    UNBLOCK = "unblock"
    ASK = "ask"
    APPROVE = "approve"
    DISPATCH = "dispatch"
    CLAIM = "claim"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    AGAIN = "again"
    """Its attempt failed or was lost, and it may be tried again."""
    SKIP = "skip"
    CANCEL = "cancel"
    REOPEN = "reopen"
    """Somebody asked for a retry of the run."""


class AttemptEvent(StrEnum):
    CLAIM = "claim"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    CANCEL = "cancel"
    LOSE = "lose"


class IllegalTransition(ValueError):
    """The event can't happen in this state."""


_S, _E = StageState, StageEvent
STAGE: dict[tuple[StageState, StageEvent], StageState] = {
    (_S.PENDING, _E.UNBLOCK): _S.READY,
    (_S.PENDING, _E.ASK): _S.WAITING,
    (_S.PENDING, _E.SKIP): _S.SKIPPED,
    (_S.PENDING, _E.CANCEL): _S.CANCELLED,
    (_S.WAITING, _E.APPROVE): _S.PENDING,
    (_S.WAITING, _E.CANCEL): _S.CANCELLED,
    (_S.READY, _E.DISPATCH): _S.DISPATCHED,
    (_S.READY, _E.CLAIM): _S.RUNNING,
    (_S.READY, _E.FAIL): _S.FAILED,
    (_S.READY, _E.CANCEL): _S.CANCELLED,
    (_S.DISPATCHED, _E.CLAIM): _S.RUNNING,
    (_S.DISPATCHED, _E.FAIL): _S.FAILED,
    (_S.DISPATCHED, _E.CANCEL): _S.CANCELLED,
    (_S.RUNNING, _E.PASS): _S.PASSED,
    (_S.RUNNING, _E.FAIL): _S.FAILED,
    (_S.RUNNING, _E.AGAIN): _S.READY,
    (_S.RUNNING, _E.CANCEL): _S.CANCELLED,
    (_S.PASSED, _E.REOPEN): _S.PENDING,
    (_S.FAILED, _E.REOPEN): _S.PENDING,
    (_S.CANCELLED, _E.REOPEN): _S.PENDING,
    (_S.SKIPPED, _E.REOPEN): _S.PENDING,
}

_A, _F = AttemptState, AttemptEvent
ATTEMPT: dict[tuple[AttemptState, AttemptEvent], AttemptState] = {
    (_A.QUEUED, _F.CLAIM): _A.RUNNING,
    (_A.QUEUED, _F.FAIL): _A.FAILED,
    (_A.QUEUED, _F.CANCEL): _A.CANCELLED,
    (_A.RUNNING, _F.PASS): _A.PASSED,
    (_A.RUNNING, _F.FAIL): _A.FAILED,
    (_A.RUNNING, _F.CANCEL): _A.CANCELLED,
    (_A.RUNNING, _F.LOSE): _A.LOST,
}


def next_stage_state(state: StageState, event: StageEvent) -> StageState:
    try:
        return STAGE[state, event]
    except KeyError:
        raise IllegalTransition(f"a {state} stage can't {event}") from None


def next_attempt_state(state: AttemptState, event: AttemptEvent) -> AttemptState:
    try:
        return ATTEMPT[state, event]
    except KeyError:
        raise IllegalTransition(f"a {state} attempt can't {event}") from None
