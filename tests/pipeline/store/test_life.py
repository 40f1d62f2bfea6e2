"""Whatever happens, in whatever order: no run is in two states, and every run can be brought to its end."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from pipeline.errors import Conflict, LeaseLost
from pipeline.plan.models import Condition, PlannedStage
from pipeline.protocol import Claim, LeaseState, Outcome, Result
from pipeline.run.states import ATTEMPT_ENDED, RUN_ENDED, STAGE_CLAIMABLE, STAGE_ENDED, AttemptState, StageState
from pipeline.views import RunView
from tests.pipeline.store.line import LEASE, Clock, Line, stage

NAMES = "abcd"


@st.composite
def plans(draw: st.DrawFn) -> list[PlannedStage]:
    """Any graph of up to four stages."""
    found: list[PlannedStage] = []
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        needs = draw(st.lists(st.sampled_from([each.name for each in found] or [""]), unique=True, max_size=2))
        found.append(
            stage(
                name,
                *(need for need in needs if need),
                condition=draw(st.sampled_from(Condition)),
                retries=draw(st.integers(0, 1)),
                allow_failure=draw(st.booleans()),
                approval=draw(st.integers(0, 4)) == 0,
                lock=draw(st.sampled_from([None, "x"])),
                skip=draw(st.sampled_from([None, None, None, "no"])),
                timeout=draw(st.sampled_from([5.0, 3600.0])),
            )
        )
    return found


class Life(RuleBasedStateMachine):
    claims: Bundle[Claim] = Bundle("claims")

    @initialize()
    def open(self) -> None:
        self.stack = ExitStack()
        self.place = Path(tempfile.mkdtemp(prefix="swlife"))
        self.clock = Clock()
        self.line = self.stack.enter_context(Line.open(f"sqlite:///{self.place}/x.db", self.clock, self.place / "s"))

    @property
    def store(self):  # type: ignore[no-untyped-def]
        return self.line.store

    def runs(self) -> list[RunView]:
        views: list[RunView] = self.store.list_runs()
        return views

    @rule(plan=plans(), group=st.sampled_from([None, "g"]), cancel=st.sampled_from(["none", "superseded"]))
    def begin(self, plan: list[PlannedStage], group: str | None, cancel: str) -> None:
        if len(self.runs()) < 4:
            self.line.begin(*plan, group=group, cancel=cancel)

    @rule(target=claims, data=st.data())
    def claim(self, data: st.DataObject) -> Claim:
        attempts = [each.id for run in self.runs() for view in run.stages for each in view.attempts]
        if attempts and (claim := self.store.claim(data.draw(st.sampled_from(attempts)), "w1")):
            found: Claim = claim
            return found
        return Claim.model_construct(attempt="none", token="none")

    @rule(claim=claims, result=st.sampled_from(Result), retryable=st.booleans())
    def finish(self, claim: Claim, result: Result, retryable: bool) -> None:
        held = self.store.renew(claim.attempt, claim.token).state is not LeaseState.LOST
        try:
            self.store.finish(claim.attempt, claim.token, Outcome(result=result, retryable=retryable))
        except LeaseLost:
            assert not held

    @rule(seconds=st.sampled_from([1.0, LEASE + 1, 60.0]))
    def wait(self, seconds: float) -> None:
        self.clock.tick(seconds)
        self.store.sweep()

    @rule(data=st.data(), what=st.sampled_from(["cancel", "retry", "retry from", "approve", "advance"]))
    def wish(self, data: st.DataObject, what: str) -> None:
        runs = self.runs()
        if not runs:
            return
        run = data.draw(st.sampled_from(runs))
        name = data.draw(st.sampled_from([each.name for each in run.stages]))
        with suppress(Conflict):
            match what:
                case "cancel":
                    self.store.cancel(run.id)
                case "retry":
                    self.store.retry(run.id)
                case "retry from":
                    self.store.retry(run.id, from_stage=name)
                case "approve":
                    self.store.approve(run.id, name)
                case "advance":
                    self.store.advance(run.id)

    @invariant()
    def one_state_each(self) -> None:
        if not hasattr(self, "line"):
            return
        holders: list[str] = []
        running: list[int] = []
        for run in self.runs():
            over = all(view.state in STAGE_ENDED for view in run.stages)
            assert (run.state in RUN_ENDED) == over == (run.finished is not None), run
            planned = {each.name: each for each in self.store.plan_of(run.id).stages}
            for view in run.stages:
                open_attempts = [each for each in view.attempts if each.state not in ATTEMPT_ENDED]
                expected = {StageState.RUNNING: [AttemptState.RUNNING]}
                expected |= {state: [AttemptState.QUEUED] for state in STAGE_CLAIMABLE}
                assert [each.state for each in open_attempts] == expected.get(view.state, []), view
                assert open_attempts in ([], list(view.attempts[-1:])), view
                assert [each.number for each in view.attempts] == list(range(1, len(view.attempts) + 1))
                if view.state in (*STAGE_CLAIMABLE, StageState.RUNNING):
                    holders += [planned[view.name].lock or ""]
            if run.state == "running" and self.store.plan_of(run.id).concurrency:
                running.append(run.id)
        assert sum(lock == "x" for lock in holders) <= 1, "two hold one lock"
        assert len(running) <= 1, "two of one group run"

    def teardown(self) -> None:
        if not hasattr(self, "line"):
            return
        try:
            self.all_can_end()
        finally:
            self.stack.close()
            shutil.rmtree(self.place)

    def all_can_end(self) -> None:
        """With workers that do their work, and somebody who approves, every run comes to its end."""
        for _ in range(60):
            self.clock.tick(LEASE + 1)
            self.store.sweep()
            for run in self.runs():
                for view in run.stages:
                    if view.state is StageState.WAITING:
                        self.store.approve(run.id, view.name)
                    elif view.attempts and (claim := self.store.claim(view.attempts[-1].id, "w1")):
                        self.store.finish(claim.attempt, claim.token, Outcome(result=Result.PASSED))
            self.one_state_each()
            if all(run.state in RUN_ENDED for run in self.runs()):
                return
        raise AssertionError([run.model_dump() for run in self.runs() if run.state not in RUN_ENDED])


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
