"""Releases, and rollouts that their coordinators may leave at any moment."""

from __future__ import annotations

import pytest

from pipeline.errors import Conflict, LeaseLost, NotFound
from pipeline.plan.models import PushSpec, TestSpec
from pipeline.protocol import (
    Claim,
    HostState,
    NewHostStep,
    Outputs,
    Result,
    RolloutHost,
    RolloutState,
    RolloutUpdate,
    StepOutcome,
    StepState,
)
from tests.pipeline.store.line import DIGEST, LEASE, SHA, Line, deploy_stage, push, stage


def deploying(line: Line, **options: object) -> Claim:
    return line.claim(line.begin(deploy_stage(**options)), "live")  # type: ignore[arg-type]


def end(line: Line, claim: Claim, rollout: int, state: RolloutState = RolloutState.DONE, reason: str = "") -> None:
    line.store.update_rollout(claim.attempt, claim.token, rollout, RolloutUpdate(state=state, reason=reason or None))


def live(line: Line) -> Claim:
    """A release that went live."""
    claim = deploying(line)
    end(line, claim, line.rollout(claim, line.release(claim)).id)
    line.finish(claim)
    return claim


# Releases


def test_a_release_remembers_where_it_comes_from(line: Line) -> None:
    test = TestSpec(image="a", run=("x",))
    push_spec = PushSpec(image="a", to="localhost:1/a")
    run = line.begin(
        stage("unit", spec=test), stage("other", spec=test), stage("bad", spec=test, allow_failure=True),
        stage("publish", "unit", "bad", spec=push_spec), deploy_stage("live", "publish"),
    )  # fmt: skip
    unit = line.do(run, "unit")
    line.do(run, "other")
    line.do(run, "bad", Result.FAILED)
    line.do(run, "publish", outputs=Outputs(image=f"r/web@{DIGEST}", digest=DIGEST))
    claim = line.claim(run, "live")
    release = line.release(claim, environment="eu")
    assert (release.id, release.service, release.number, release.state) == ("web-1", "web", 1, "rolling")
    assert (release.run, release.commit, release.repository, release.environment) == (run, SHA, "r", "eu")
    assert release.tests == (unit.attempt,), "the tests that passed before it, and no others"
    assert line.store.get_release("web-1") == release
    assert line.store.current_release("web") is None


def test_a_stage_makes_one_release_however_often_it_asks(line: Line) -> None:
    run = line.begin(deploy_stage())
    first = line.claim(run, "live")
    release = line.release(first)
    assert line.release(first) == release
    line.lose()
    second = line.claim(run, "live")
    assert line.release(second) == release
    line.finish(second, Result.FAILED)
    line.store.retry(run)
    assert line.release(line.claim(run, "live")).id == "web-2"


def test_releases_of_a_service_are_numbered(line: Line) -> None:
    for number in (1, 2, 3):
        claim = deploying(line)
        assert line.release(claim).number == number
        line.finish(claim, Result.FAILED)
    claim = deploying(line, service="api")
    assert line.release(claim, "api").id == "api-1"
    assert [release.id for release in line.store.list_releases("web")] == ["web-3", "web-2", "web-1"]
    assert [release.id for release in line.store.list_releases("web", limit=1)] == ["web-3"]
    for missing in ("wbe", "web-9"):
        with pytest.raises(NotFound):
            line.store.list_releases(missing)
        with pytest.raises(NotFound):
            line.store.get_release(missing)


def test_a_service_belongs_to_the_repository_that_deployed_it_first(line: Line) -> None:
    claim = deploying(line)
    line.release(claim)
    line.finish(claim, Result.FAILED)
    thief = line.claim(line.begin(deploy_stage(), event=push(repository="other")), "live")
    with pytest.raises(Conflict, match="web belongs to the repository r: choose another name"):
        line.release(thief)
    line.finish(thief, Result.FAILED)
    by_hand = line.claim(line.begin(deploy_stage(), event=push(repository="")), "live")
    assert line.release(by_hand).id == "web-2"


# Rollouts


def test_a_rollout_makes_its_release_live(line: Line) -> None:
    live(line)
    claim = deploying(line)
    release = line.release(claim)
    rollout = line.rollout(claim, release, "w2", "w1", "w2")
    assert (rollout.service, rollout.release, rollout.previous, rollout.state) == ("web", "web-2", "web-1", "running")
    assert [host.host for host in rollout.hosts] == ["w2", "w1"]
    changed = RolloutUpdate(hosts=(RolloutHost(host="w1", state=HostState.UPDATED, detail="ok", data={"a": [1]}),))
    rollout = line.store.update_rollout(claim.attempt, claim.token, rollout.id, changed)
    assert [(host.host, host.state, host.data) for host in rollout.hosts] == [
        ("w2", "pending", {}), ("w1", "updated", {"a": [1]}),
    ]  # fmt: skip
    end(line, claim, rollout.id, RolloutState.BAKING)
    assert line.store.current_release("web") == line.store.get_release("web-1")
    line.clock.tick(5)
    end(line, claim, rollout.id)
    ended = line.store.get_rollout(rollout.id)
    assert (ended.state, ended.finished) == ("done", line.clock.now)
    assert line.store.get_release("web-1").state == "superseded"
    current = line.store.current_release("web")
    assert current is not None
    assert (current.id, current.state, current.live) == ("web-2", "live", line.clock.now)
    view = line.store.get_service("web")
    assert (view.release, view.rollout) == (current, ended)


@pytest.mark.parametrize("state", [RolloutState.REVERTED, RolloutState.FAILED])
def test_a_rollout_that_fails_leaves_the_old_release_live(line: Line, state: RolloutState) -> None:
    live(line)
    claim = deploying(line)
    rollout = line.rollout(claim, line.release(claim)).id
    end(line, claim, rollout, RolloutState.REVERTING, "unhealthy")
    end(line, claim, rollout, state)
    failed = line.store.get_release("web-2")
    assert (failed.state, failed.error) == ("failed", "unhealthy")
    current = line.store.current_release("web")
    assert current is not None
    assert current.id == "web-1"
    with pytest.raises(Conflict, match=f"has ended: {state}"):
        end(line, claim, rollout, RolloutState.DONE)
    end(line, claim, rollout, state)  # said twice


def test_the_next_attempt_goes_on_with_the_rollout(line: Line) -> None:
    run = line.begin(deploy_stage())
    first = line.claim(run, "live")
    rollout = line.rollout(first, line.release(first), "w1", "w2").id
    done = RolloutUpdate(hosts=(RolloutHost(host="w1", state=HostState.UPDATED),))
    line.store.update_rollout(first.attempt, first.token, rollout, done)
    line.lose()
    second = line.claim(run, "live")
    found = line.rollout(second, line.release(second), "w1", "w2", "w3")
    assert found.id == rollout
    assert [(host.host, host.state) for host in found.hosts] == [("w1", "updated"), ("w2", "pending")]
    end(line, second, rollout)


def test_a_host_that_is_not_in_the_rollout(line: Line) -> None:
    claim = deploying(line)
    rollout = line.rollout(claim, line.release(claim)).id
    with pytest.raises(NotFound, match="w9 is not one of rollout"):
        line.store.update_rollout(claim.attempt, claim.token, rollout, RolloutUpdate(hosts=(RolloutHost(host="w9"),)))
    with pytest.raises(NotFound, match="there is no rollout 9"):
        line.store.get_rollout(9)


def test_two_rollouts_of_a_service_do_not_overlap(line: Line) -> None:
    # Without the lock that a plan gives each deploy.
    spec = deploy_stage().spec
    first = line.claim(line.begin(stage("live", spec=spec)), "live")
    line.rollout(first, line.release(first))
    second = line.claim(line.begin(stage("live", spec=spec)), "live")
    release = line.release(second)
    with pytest.raises(Conflict, match="web is being rolled out to web-1: wait for it to end"):
        line.rollout(second, release)
    line.lose()
    second = line.claim(2, "live")
    with pytest.raises(Conflict, match="web is being rolled out to web-1"):
        line.rollout(second, release)


@pytest.mark.parametrize("how", ["failed", "retried", "tried again"])
def test_a_rollout_whose_coordinator_never_returns_holds_nobody_up(line: Line, how: str) -> None:
    run = line.begin(deploy_stage(retries=1 if how == "tried again" else 0))
    first = line.claim(run, "live")
    orphan = line.rollout(first, line.release(first)).id
    step = line.store.request_step(first.attempt, first.token, orphan, NewHostStep(key="k", host="w1", action="update"))
    line.finish(first, Result.FAILED, error="its engine is gone")
    if how == "retried":
        line.store.retry(run)
    second = line.claim(line.begin(deploy_stage()) if how == "failed" else run, "live")
    release = line.release(second)
    assert release.id == "web-2"
    assert line.rollout(second, release).state == "running"
    ended = line.store.get_rollout(orphan)
    assert (ended.state, ended.reason) == ("failed", "its coordinator was lost")
    assert line.store.get_release("web-1").state == "failed"
    assert line.store.steps(orphan)[0].state == "abandoned"
    assert line.store.claim_step(step.id, "w1") is None


def test_a_predecessor_can_not_touch_the_rollout(line: Line) -> None:
    spec = deploy_stage().spec
    run = line.begin(stage("live", spec=spec), stage("more", spec=spec))
    claim, stranger = line.claim(run, "live"), line.claim(run, "more")
    rollout = line.rollout(claim, line.release(claim)).id
    with pytest.raises(LeaseLost, match=f"is coordinated by attempt {claim.attempt}"):
        end(line, stranger, rollout)


# Steps


def step_of(line: Line, claim: Claim, rollout: int, key: str = "k", host: str = "w1", **options: object) -> int:
    new = NewHostStep(key=key, host=host, action="update", **options)  # type: ignore[arg-type]
    return line.store.request_step(claim.attempt, claim.token, rollout, new).id


def test_a_step_is_asked_for_once_and_done_by_its_host(line: Line) -> None:
    (line.secrets / "TOKEN").write_text("x")
    claim = deploying(line)
    rollout = line.rollout(claim, line.release(claim), "w1", "w2").id
    step = step_of(line, claim, rollout, payload={"a": 1})
    assert step_of(line, claim, rollout, payload={"a": 2}) == step
    other = step_of(line, claim, rollout, host="w2", key="k2")
    assert line.store.pending_steps("w1") == [step]
    assert [(hint.step, hint.host) for hint in line.store.sweep().steps] == [(step, "w1"), (other, "w2")]
    assert line.store.claim_step(step, "w2") is None
    assert line.store.claim_step(99, "w1") is None
    taken = line.store.claim_step(step, "w1")
    assert taken is not None
    assert line.store.claim_step(step, "w1") is None
    assert (taken.step.state, taken.step.payload, taken.release.id, taken.previous) == (
        "running",
        {"a": 1},
        "web-1",
        None,
    )
    for _ in range(2):
        line.store.finish_step(step, taken.token, StepOutcome(ok=True, result={"r": 1}))
    (done, waiting) = line.store.steps(rollout)
    assert (done.state, done.result, waiting.state) == ("done", {"r": 1}, "pending")
    with pytest.raises(LeaseLost):
        line.store.finish_step(step, "wrong", StepOutcome(ok=True))


def test_a_step_that_fails(line: Line) -> None:
    claim = deploying(line)
    rollout = line.rollout(claim, line.release(claim)).id
    taken = line.store.claim_step(step_of(line, claim, rollout), "w1")
    assert taken is not None
    line.store.finish_step(taken.step.id, taken.token, StepOutcome(ok=False, error="no"))
    (step,) = line.store.steps(rollout)
    assert (step.state, step.error) == (StepState.FAILED, "no")


def test_a_step_whose_host_falls_silent_waits_again(line: Line) -> None:
    run = line.begin(deploy_stage())
    claim = line.claim(run, "live")
    rollout = line.rollout(claim, line.release(claim)).id
    taken = line.store.claim_step(step_of(line, claim, rollout), "w1")
    assert taken is not None
    line.clock.tick(LEASE - 1)
    assert line.store.renew_step(taken.step.id, taken.token).state == "ok"
    line.store.renew(claim.attempt, claim.token)
    line.clock.tick(LEASE + 1)
    line.store.renew(claim.attempt, claim.token)
    assert [hint.step for hint in line.store.sweep().steps] == [taken.step.id]
    assert line.store.renew_step(taken.step.id, taken.token).state == "lost"
    with pytest.raises(LeaseLost):
        line.store.finish_step(taken.step.id, taken.token, StepOutcome(ok=True))
    again = line.store.claim_step(taken.step.id, "w1")
    assert again is not None
    line.store.finish_step(again.step.id, again.token, StepOutcome(ok=True))


def test_a_step_has_its_time(line: Line) -> None:
    claim = deploying(line)
    rollout = line.rollout(claim, line.release(claim)).id
    step_of(line, claim, rollout, deadline=5.0)
    line.clock.tick(6)
    line.store.sweep()
    (step,) = line.store.steps(rollout)
    assert (step.state, step.error) == ("failed", "its host did not do it in time")


def test_abandoned_steps_are_lost_to_their_hosts(line: Line) -> None:
    claim = deploying(line)
    rollout = line.rollout(claim, line.release(claim), "w1", "w2").id
    taken = line.store.claim_step(step_of(line, claim, rollout), "w1")
    assert taken is not None
    waiting = step_of(line, claim, rollout, key="k2", host="w2")
    line.store.abandon_steps(claim.attempt, claim.token, rollout)
    assert line.store.renew_step(taken.step.id, taken.token).state == "lost"
    assert line.store.claim_step(waiting, "w2") is None
    with pytest.raises(LeaseLost):
        line.store.finish_step(taken.step.id, taken.token, StepOutcome(ok=True))


def test_past_releases_tell_who_approved_them_and_how_they_ended(line: Line) -> None:
    run = line.begin(deploy_stage(approval=True), event=push(author="Bob"))
    line.store.approve(run, "live", who="Ada")
    claim = line.claim(run, "live")
    release = line.release(claim)
    (past,) = line.store.past_releases("web")
    assert (past.id, past.outcome, past.who) == (release.id, None, "Bob, approved by Ada")
    rollout = line.rollout(claim, release)
    line.clock.tick(5)
    line.store.update_rollout(claim.attempt, claim.token, rollout.id, RolloutUpdate(state=RolloutState.REVERTED))
    line.finish(claim, Result.FAILED, retryable=False)
    line.store.retry(run)
    (past,) = line.store.past_releases("web")
    assert past.outcome == "reverted"
    assert past.started is not None
    assert past.finished == past.started + 5
    assert past.who == "Bob"  # a retry asks for leave again
