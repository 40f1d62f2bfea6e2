"""What should happen next, decided from the present states alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan.models import Condition
from pipeline.run.scheduler import Decision, StageFacts, conclude, decide
from pipeline.run.states import STAGE_ENDED, RunState, StageState
from pipeline.run.transitions import StageEvent, next_stage_state

S, E = StageState, StageEvent


def facts(name: str, state: StageState = S.PENDING, *needs: str, **options: Any) -> StageFacts:
    return StageFacts(name=name, state=state, needs=needs, **options)


def decided(*stages: StageFacts, **options: Any) -> dict[str, StageEvent]:
    return {decision.stage: decision.event for decision in decide(stages, **options)}


def test_what_needs_nothing_starts() -> None:
    assert decided(facts("a"), facts("b")) == {"a": E.UNBLOCK, "b": E.UNBLOCK}


@pytest.mark.parametrize("state", [S.PENDING, S.WAITING, S.READY, S.DISPATCHED, S.RUNNING])
def test_what_needs_something_that_has_not_ended_waits(state: StageState) -> None:
    assert "b" not in decided(facts("a", state), facts("b", S.PENDING, "a"))


@pytest.mark.parametrize(
    ("condition", "after", "event"),
    [
        (Condition.SUCCESS, S.PASSED, E.UNBLOCK),
        (Condition.SUCCESS, S.FAILED, E.SKIP),
        (Condition.SUCCESS, S.SKIPPED, E.SKIP),
        (Condition.SUCCESS, S.CANCELLED, E.SKIP),
        (Condition.FAILURE, S.PASSED, E.SKIP),
        (Condition.FAILURE, S.FAILED, E.UNBLOCK),
        (Condition.FAILURE, S.SKIPPED, E.SKIP),
        (Condition.ALWAYS, S.PASSED, E.UNBLOCK),
        (Condition.ALWAYS, S.FAILED, E.UNBLOCK),
        (Condition.ALWAYS, S.SKIPPED, E.UNBLOCK),
    ],
)
def test_conditions(condition: Condition, after: StageState, event: StageEvent) -> None:
    assert decided(facts("a", after), facts("b", S.PENDING, "a", condition=condition)) == {"b": event}


def test_a_failure_is_seen_through_what_it_made_skip() -> None:
    sorry = facts("c", S.PENDING, "b", condition=Condition.FAILURE)
    assert decided(facts("a", S.FAILED), facts("b", S.SKIPPED, "a"), sorry) == {"c": E.UNBLOCK}


def test_reasons_name_the_first_that_stands_in_the_way() -> None:
    stages = [facts("a", S.PASSED), facts("b", S.FAILED), facts("c", S.SKIPPED), facts("d", S.PENDING, "a", "b", "c")]
    assert decide(stages) == [Decision("d", E.SKIP, "b failed")]


def test_a_failure_that_is_allowed_stops_nobody() -> None:
    assert decided(facts("a", S.FAILED, allow_failure=True), facts("b", S.PENDING, "a")) == {"b": E.UNBLOCK}


def test_a_skip_that_is_planned_waits_for_nobody() -> None:
    assert decided(facts("a", S.RUNNING), facts("b", S.PENDING, "a", skip="no")) == {"b": E.SKIP}


def test_approval_is_asked_for_when_all_else_is_there() -> None:
    waiting = facts("b", S.PENDING, "a", approval=True)
    assert decided(facts("a", S.RUNNING), waiting) == {}
    assert decided(facts("a", S.PASSED), waiting) == {"b": E.ASK}
    assert decided(facts("a", S.PASSED), facts("b", S.PENDING, "a", approval=True, approved=True)) == {"b": E.UNBLOCK}
    assert decided(facts("b", S.WAITING, approval=True)) == {}


def test_locks() -> None:
    a, b, c = facts("a", lock="x"), facts("b", lock="x"), facts("c", lock="y")
    assert decided(a, b, c) == {"a": E.UNBLOCK, "c": E.UNBLOCK}
    assert decided(a, b, c, held={"x"}) == {"c": E.UNBLOCK}


def test_a_cancelled_run_starts_nothing() -> None:
    stages = [facts("a", S.PASSED), facts("b", S.RUNNING), facts("c"), facts("d", S.WAITING), facts("e", skip="no")]
    assert decided(*stages, cancelled=True) == {"c": E.CANCEL, "d": E.CANCEL, "e": E.CANCEL}


@pytest.mark.parametrize(
    ("states", "cancelled", "expected"),
    [
        ([], False, RunState.PASSED),
        ([S.PASSED, S.SKIPPED], False, RunState.PASSED),
        ([S.PASSED, S.RUNNING], False, None),
        ([S.PASSED, S.WAITING], False, None),
        ([S.FAILED, S.PENDING], False, None),
        ([S.FAILED, S.SKIPPED], False, RunState.FAILED),
        ([S.FAILED, S.CANCELLED], False, RunState.CANCELLED),
        ([S.PASSED], True, RunState.CANCELLED),
        ([S.RUNNING], True, None),
    ],
)
def test_how_a_run_ends(states: list[StageState], cancelled: bool, expected: RunState | None) -> None:
    stages = [facts(str(number), state) for number, state in enumerate(states)]
    assert conclude(stages, cancelled=cancelled) is expected


def test_a_run_that_lost_its_workers_is_lost_and_what_is_allowed_to_fail_may_be_lost_too() -> None:
    assert conclude([facts("a", S.FAILED, lost=True), facts("b", S.FAILED)]) is RunState.LOST
    assert conclude([facts("a", S.FAILED, lost=True, allow_failure=True)]) is RunState.PASSED


@st.composite
def runs(draw: st.DrawFn) -> list[StageFacts]:
    found: list[StageFacts] = []
    for number in range(draw(st.integers(0, 6))):
        needs = draw(st.lists(st.sampled_from([each.name for each in found]), max_size=3)) if found else []
        found.append(
            facts(
                str(number), draw(st.sampled_from(StageState)), *needs,
                condition=draw(st.sampled_from(Condition)), allow_failure=draw(st.booleans()),
                approval=draw(st.booleans()), approved=draw(st.booleans()),
                lock=draw(st.sampled_from([None, "x"])), skip=draw(st.sampled_from([None, "no"])),
            )
        )  # fmt: skip
    return found


@given(runs(), st.booleans())
@settings(deadline=None)
def test_every_decision_can_be_done_and_leads_on(stages: list[StageFacts], cancelled: bool) -> None:
    for decision in decide(stages, cancelled=cancelled):
        (stage,) = [each for each in stages if each.name == decision.stage]
        assert next_stage_state(stage.state, decision.event) != stage.state
    # Nothing that might still happen is left without anybody who could make it happen.
    alive = [each for each in stages if each.state not in STAGE_ENDED]
    stuck = [each for each in alive if each.state is S.PENDING]
    if alive == stuck and stuck:
        assert decide(stages, cancelled=cancelled) or any(each.lock for each in stuck)
    assert (conclude(stages, cancelled=cancelled) is None) == bool(alive)
