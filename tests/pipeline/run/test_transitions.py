"""The tables of states."""

from __future__ import annotations

import pytest

from pipeline.run.states import ATTEMPT_ENDED, STAGE_ENDED, AttemptState, StageState
from pipeline.run.transitions import (
    ATTEMPT,
    STAGE,
    AttemptEvent,
    IllegalTransition,
    StageEvent,
    next_attempt_state,
    next_stage_state,
)


def test_only_a_wish_leads_out_of_an_end() -> None:
    assert {event for (state, event) in STAGE if state in STAGE_ENDED} == {StageEvent.REOPEN}
    assert {state for (state, event) in STAGE if event is StageEvent.REOPEN} == STAGE_ENDED
    assert not [state for state, _ in ATTEMPT if state in ATTEMPT_ENDED]


def test_every_state_can_be_reached_and_every_one_leads_to_an_end() -> None:
    for table, first, ends in (
        (STAGE, StageState.PENDING, STAGE_ENDED),
        (ATTEMPT, AttemptState.QUEUED, ATTEMPT_ENDED),
    ):
        steps: dict[str, set[str]] = {}
        for (state, _), after in table.items():  # type: ignore[attr-defined]
            steps.setdefault(state, set()).add(after)
        assert _reached(steps, first) == set(type(first))
        for state in type(first):
            assert _reached(steps, state) & ends, state


def _reached(steps: dict[str, set[str]], first: str) -> set[str]:
    found, queue = {first}, [first]
    while queue:
        for after in steps.get(queue.pop(), set()) - found:
            found.add(after)
            queue.append(after)
    return found


def test_every_event_happens_somewhere() -> None:
    assert {event for _, event in STAGE} == set(StageEvent)
    assert {event for _, event in ATTEMPT} == set(AttemptEvent)


def test_everything_that_has_not_ended_can_be_cancelled() -> None:
    for state in set(StageState) - STAGE_ENDED:
        assert next_stage_state(state, StageEvent.CANCEL) is StageState.CANCELLED
    for attempt in set(AttemptState) - ATTEMPT_ENDED:
        assert next_attempt_state(attempt, AttemptEvent.CANCEL) is AttemptState.CANCELLED


def test_what_can_not_happen() -> None:
    with pytest.raises(IllegalTransition, match="a passed stage can't claim"):
        next_stage_state(StageState.PASSED, StageEvent.CLAIM)
    with pytest.raises(IllegalTransition, match="a lost attempt can't pass"):
        next_attempt_state(AttemptState.LOST, AttemptEvent.PASS)
