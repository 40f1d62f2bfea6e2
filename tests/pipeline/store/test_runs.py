"""The life of events and runs, seen through the store."""

from __future__ import annotations

import pytest

from pipeline.errors import Conflict, NotFound
from pipeline.plan.models import BuildSpec, Condition, Plan
from pipeline.protocol import Outputs, Result
from pipeline.run.retries import hint_delay
from pipeline.run.states import RUN_ENDED
from tests.pipeline.store.line import LEASE, Line, deploy_stage, image, push, stage

FAILED = Result.FAILED


# Events


def test_a_delivery_is_taken_once(line: Line) -> None:
    first = line.store.record_event(push(), hook="github", delivery="d1")
    assert first is not None
    assert line.store.record_event(push(), hook="github", delivery="d1") is None
    assert line.store.record_event(push(), hook="gitlab", delivery="d1") is not None
    assert line.store.record_event(push()) is not None
    assert line.store.record_event(push()) is not None
    assert len(line.store.pending_events()) == 4


def test_events_wait_in_order_until_they_are_done_with(line: Line) -> None:
    events = [push(message=text) for text in ("a", "b", "c\N{SNOWMAN}")]
    numbers = [line.store.record_event(event) for event in events]
    assert line.store.pending_events() == list(zip(numbers, events, strict=True))
    line.store.finish_event(numbers[1] or 0, state="failed", error="x" * 10_000)
    assert [event.message for _, event in line.store.pending_events()] == ["a", "c\N{SNOWMAN}"]


def test_no_text_of_a_stranger_breaks_the_database(line: Line) -> None:
    event = push(message="nul \0 \N{SNOWMAN}\n", author="\0", ref="refs/heads/a\0b")
    number = line.store.record_event(event, hook="h", delivery="d")
    assert line.store.pending_events() == [(number, event)]
    run = line.begin(stage("a"), event=event, event_id=number, title="\0")
    line.do(run, "a", FAILED, error="it said \0")
    view = line.run(run)
    assert (view.message, view.author, view.branch) == ("nul \ufffd \N{SNOWMAN}", "\ufffd", "a\ufffdb")
    assert view.reason == "a: it said \ufffd"


def test_an_event_makes_one_run_a_pipeline(line: Line) -> None:
    number = line.store.record_event(push())
    plans = [Plan(pipeline=name, stages=(stage("a"),)) for name in ("web", "api")]
    line.clock.tick(5)
    web = line.store.create_run(plans[0], push(), event_id=number)
    assert line.store.create_run(plans[0], push(), event_id=number) == web
    assert line.store.create_run(plans[1], push(), event_id=number).id != web.id
    assert len(line.store.list_runs()) == 2


def test_a_run_of_an_event_that_is_not_there(line: Line) -> None:
    with pytest.raises(NotFound, match="there is no event 77"):
        line.store.create_run(Plan(pipeline="web", stages=()), push(), event_id=77)
    assert line.store.list_runs() == []


def test_a_refused_run_says_why_and_can_not_be_tried_again(line: Line) -> None:
    run = line.store.refuse_run(push(), reason="p.yaml:1:1: wrong\n" * 1000, event_id=line.store.record_event(push()))
    assert run.state == "failed"
    assert run.reason.startswith("p.yaml:1:1: wrong")
    assert run.stages == ()
    with pytest.raises(Conflict, match="never had stages"):
        line.store.retry(run.id)
    with pytest.raises(Conflict, match="has ended: failed"):
        line.store.cancel(run.id)


# From queued to passed


def test_a_run_goes_from_queued_to_passed(line: Line) -> None:
    event = push(message="first line\nsecond", author="Ada", pusher="ada")
    plan = Plan(pipeline="web", stages=(stage("a"), stage("b", "a")))
    run = line.store.create_run(plan, event, title="a try").id
    view = line.run(run)
    assert (view.state, view.started, view.duration) == ("queued", None, None)
    assert (view.branch, view.tag, view.message, view.author, view.title) == ("main", "", "first line", "Ada", "a try")
    assert line.store.plan_of(run) == plan

    (hint,) = line.store.advance(run)
    assert (hint.stage, hint.attempt) == ("a", line.attempt(run, "a").id)
    assert line.states(run) == {"a": "dispatched", "b": "pending"}
    assert line.run(run).state == "running"

    line.clock.tick(2)
    claim = line.claim(run, "a")
    assert line.run(run).started == line.clock.now
    assert line.states(run) == {"a": "running", "b": "pending"}
    line.clock.tick(3)
    assert line.run(run).duration == 3
    assert line.stage(run, "a").duration == 3
    line.finish(claim, exit_code=0, timings={"run": 2.5}, outputs=Outputs(snapshot="s"))
    attempt = line.attempt(run, "a")
    assert (attempt.state, attempt.exit_code, attempt.worker) == ("passed", 0, "w1")
    assert attempt.timings == {"queue": 2, "run": 2.5}
    assert line.stage(run, "a").outputs == Outputs(snapshot="s")

    assert line.states(run) == {"a": "passed", "b": "ready"}
    line.do(run, "b")
    view = line.run(run)
    assert (view.state, view.duration, view.reason) == ("passed", 3, "")


def test_a_run_without_stages_has_passed(line: Line) -> None:
    assert line.run(line.begin()).state == "passed"


def test_all_that_can_start_starts_at_once_and_what_needs_both_waits(line: Line) -> None:
    run = line.begin(stage("a"), stage("b"), stage("both", "a", "b"))
    assert line.states(run) == {"a": "dispatched", "b": "dispatched", "both": "pending"}
    line.do(run, "b")
    assert line.states(run)["both"] == "pending"
    line.do(run, "a")
    assert line.states(run)["both"] == "ready"


def test_a_failure_skips_what_needs_it_and_fails_the_run(line: Line) -> None:
    run = line.begin(stage("a"), stage("b", "a"), stage("c", "b"), stage("other"))
    line.do(run, "a", FAILED, error="it broke\nbadly", exit_code=3)
    view = line.run(run)
    assert view.state == "running"
    assert line.states(run) == {"a": "failed", "b": "skipped", "c": "skipped", "other": "dispatched"}
    assert [each.reason for each in view.stages] == ["it broke", "a failed", "b was skipped", ""]
    line.do(run, "other")
    assert (line.run(run).state, line.run(run).reason) == ("failed", "a: it broke")


def test_a_failure_without_words_tells_its_exit_code(line: Line) -> None:
    run = line.begin(stage("a"))
    line.do(run, "a", FAILED, exit_code=3)
    assert line.run(run).reason == "a: exit code 3"


def test_a_failure_that_is_allowed(line: Line) -> None:
    run = line.begin(stage("a", allow_failure=True), stage("b", "a"))
    line.do(run, "a", FAILED)
    assert line.states(run)["b"] == "ready"
    line.do(run, "b")
    assert line.run(run).state == "passed"


@pytest.mark.parametrize(("result", "sorry"), [(Result.PASSED, "skipped"), (FAILED, "ready")])
def test_conditions_on_how_others_ended(line: Line, result: Result, sorry: str) -> None:
    run = line.begin(
        stage("a"),
        stage("b", "a"),
        stage("sorry", "b", condition=Condition.FAILURE),
        stage("always", "b", condition=Condition.ALWAYS),
    )
    line.do(run, "a", result)
    if result is Result.PASSED:
        line.do(run, "b")
    assert line.states(run)["sorry"] == sorry
    assert line.states(run)["always"] == "ready"


def test_a_false_condition_skips_at_once(line: Line) -> None:
    run = line.begin(stage("a", skip="its condition is false: git.tag"), stage("b", "a"), stage("c"))
    assert line.states(run) == {"a": "skipped", "b": "skipped", "c": "dispatched"}
    line.do(run, "c")
    assert line.run(run).state == "passed"


def test_stages_that_passed_before_are_not_run_again(line: Line) -> None:
    plan = Plan(pipeline="web", stages=(stage("image", spec=BuildSpec()), stage("unit", "image")))
    run = line.store.create_run(plan, push(), done={"image": image()}).id
    line.store.advance(run)
    assert line.states(run) == {"image": "passed", "unit": "dispatched"}
    assert line.stage(run, "image").outputs == image()
    line.do(run, "unit")
    assert line.run(run).state == "passed"


# Hints


def test_a_hint_is_sent_again_while_nobody_claims(line: Line) -> None:
    run = line.begin(stage("a", runs_on={"role": "web"}))
    assert line.store.advance(run) == []
    for sent in range(1, 6):
        line.clock.tick(hint_delay(sent) - 0.1)
        assert line.store.sweep().ready == ()
        line.clock.tick(0.2)
        (hint,) = line.store.sweep().ready
        assert (hint.run, hint.stage, hint.attempt) == (run, "a", line.attempt(run, "a").id)
        assert (hint.labels, hint.near) == ({"role": "web"}, None)
    line.worker("web", role="web")
    line.claim(run, "a", "web")
    line.clock.tick(LEASE / 2)
    assert line.store.sweep().ready == ()


def test_a_stage_is_hinted_to_the_worker_that_has_its_image(line: Line) -> None:
    line.worker("w2")
    run = line.begin(stage("image", spec=BuildSpec()), stage("unit", "image", near="image"))
    line.finish(line.claim(run, "image", "w2"), outputs=image())
    (hint,) = line.store.advance(run)
    assert hint.near == "w2"
    assert line.try_claim(run, "unit", "w1") is None
    assert line.try_claim(run, "unit", "w2") is not None


# Tries


def test_a_failure_is_tried_again_as_often_as_asked(line: Line) -> None:
    run = line.begin(stage("a", retries=2))
    for number in (1, 2):
        assert line.attempt(run, "a").number == number
        line.do(run, "a", FAILED, error=f"try {number}")
        assert line.states(run) == {"a": "ready"}
        assert line.stage(run, "a").reason == f"try {number}"
    line.do(run, "a", FAILED, error="try 3")
    assert (line.run(run).state, line.run(run).reason) == ("failed", "a: try 3")
    assert [each.state for each in line.stage(run, "a").attempts] == ["failed"] * 3


def test_what_can_not_get_better_is_not_tried_again(line: Line) -> None:
    run = line.begin(stage("a", retries=5))
    line.do(run, "a", FAILED, error="the Dockerfile is wrong", retryable=False)
    assert line.run(run).state == "failed"


def test_a_worker_that_gives_back_costs_no_try(line: Line) -> None:
    run = line.begin(stage("a"))
    line.do(run, "a", Result.CANCELLED, error="stopping")
    assert line.states(run) == {"a": "ready"}
    line.do(run, "a")
    assert line.run(run).state == "passed"
    assert [each.state for each in line.stage(run, "a").attempts] == ["cancelled", "passed"]


# Cancelling


def test_cancelling_what_has_not_begun(line: Line) -> None:
    run = line.begin(stage("a"), stage("b", "a"), stage("c", approval=True))
    attempt = line.attempt(run, "a").id
    view = line.store.cancel(run, reason="no longer wanted")
    assert (view.state, view.reason) == ("cancelled", "no longer wanted")
    assert set(line.states(run).values()) == {"cancelled"}
    assert line.store.claim(attempt, "w1") is None
    assert line.store.sweep().ready == ()


def test_cancelling_what_runs(line: Line) -> None:
    run = line.begin(stage("a"), stage("b", "a"))
    claim = line.claim(run, "a")
    assert line.store.cancel(run).state == "running"
    assert line.store.renew(claim.attempt, claim.token).state == "cancelled"
    line.finish(claim, Result.CANCELLED, error="stopped")
    assert line.run(run).state == "cancelled"
    assert line.states(run) == {"a": "cancelled", "b": "cancelled"}


def test_what_passes_although_cancelled_has_passed_but_its_run_is_cancelled(line: Line) -> None:
    run = line.begin(stage("a"), stage("b", "a"))
    claim = line.claim(run, "a")
    line.store.cancel(run)
    line.finish(claim)
    assert line.states(run) == {"a": "passed", "b": "cancelled"}
    assert line.run(run).state == "cancelled"


def test_a_cancelled_stage_whose_worker_is_gone(line: Line) -> None:
    run = line.begin(stage("a"))
    line.claim(run, "a")
    line.store.cancel(run)
    line.lose()
    assert line.run(run).state == "cancelled"


def test_a_run_that_has_ended_can_not_be_cancelled(line: Line) -> None:
    run = line.begin(stage("a"))
    line.do(run, "a")
    with pytest.raises(Conflict, match=f"run {run} has ended: passed"):
        line.store.cancel(run)
    with pytest.raises(NotFound, match="there is no run 77"):
        line.store.cancel(77)


# Trying a run again


def failed_run(line: Line) -> int:
    run = line.begin(stage("image", spec=BuildSpec()), stage("unit", "image"), stage("more", "unit"), stage("other"))
    line.do(run, "image", outputs=image())
    line.do(run, "other")
    line.do(run, "unit", FAILED)
    assert line.run(run).state == "failed"
    return run


def test_a_retry_takes_up_what_did_not_pass(line: Line) -> None:
    run = failed_run(line)
    line.store.retry(run)
    assert line.states(run) == {"image": "passed", "unit": "ready", "more": "pending", "other": "passed"}
    assert line.run(run).state == "running"
    line.do(run, "unit")
    line.do(run, "more")
    assert line.run(run).state == "passed"
    assert [each.number for each in line.stage(run, "unit").attempts] == [1, 2]


def test_a_retry_from_a_stage_runs_all_after_it(line: Line) -> None:
    run = failed_run(line)
    line.store.retry(run, from_stage="image")
    assert line.states(run) == {"image": "ready", "unit": "pending", "more": "pending", "other": "passed"}
    assert line.stage(run, "image").outputs == Outputs()


def test_a_retry_from_a_stage_with_a_matrix_runs_all_its_cells(line: Line) -> None:
    run = line.begin(stage("unit (v=1)", base="unit"), stage("unit (v=2)", base="unit"), stage("a", "unit (v=1)"))
    for name in line.states(run):
        line.do(run, name)
    line.store.retry(run, from_stage="unit (v=2)")
    assert line.states(run) == {"unit (v=1)": "passed", "unit (v=2)": "ready", "a": "passed"}
    line.do(run, "unit (v=2)")
    line.store.retry(run, from_stage="unit")
    assert line.states(run) == {"unit (v=1)": "ready", "unit (v=2)": "ready", "a": "pending"}


def test_retries_that_make_no_sense(line: Line) -> None:
    run = line.begin(stage("a"))
    with pytest.raises(Conflict, match="has not ended"):
        line.store.retry(run)
    line.do(run, "a")
    with pytest.raises(Conflict, match="passed: say from which stage"):
        line.store.retry(run)
    with pytest.raises(NotFound, match='has no stage "b": use "a"'):
        line.store.retry(run, from_stage="b")


def test_a_retry_has_all_its_tries_again(line: Line) -> None:
    run = line.begin(stage("a", retries=1))
    for _ in range(2):
        line.do(run, "a", FAILED)
    line.store.retry(run)
    line.do(run, "a", FAILED)
    assert line.states(run) == {"a": "ready"}


# Approvals


def test_a_stage_waits_for_approval(line: Line) -> None:
    run = line.begin(stage("a"), stage("live", "a", approval=True))
    with pytest.raises(Conflict, match="does not wait for approval: it is pending"):
        line.store.approve(run, "live")
    line.do(run, "a")
    assert line.states(run) == {"a": "passed", "live": "waiting"}
    assert line.stage(run, "live").attempts == ()
    line.clock.tick(1_000_000)
    line.store.sweep()
    assert line.run(run).state == "running"
    line.store.approve(run, "live", who="Ada")
    assert line.states(run)["live"] == "ready"
    with pytest.raises(Conflict, match="it is ready"):
        line.store.approve(run, "live")
    with pytest.raises(NotFound, match='has no stage "liv": did you mean "live"'):
        line.store.approve(run, "liv")
    line.do(run, "live")
    assert line.run(run).state == "passed"
    assert (line.stage(run, "live").approved, line.stage(run, "live").approver) == (True, "Ada")


def test_who_approves_may_say_so_at_length(line: Line) -> None:
    run = line.begin(stage("a", lock="x"), stage("live", approval=True, lock="x"))
    line.store.approve(run, "live", who="A" * 300)
    live = line.stage(run, "live")
    assert (live.approver, live.reason) == ("A" * 200, f"approved by {'A' * 200}")


def test_a_retry_asks_for_approval_again(line: Line) -> None:
    run = line.begin(stage("live", approval=True))
    line.store.approve(run, "live", who="Ada")
    line.do(run, "live", FAILED)
    line.store.retry(run)
    assert line.states(run) == {"live": "waiting"}
    assert line.stage(run, "live").approver == ""


# Groups and locks


def test_runs_of_one_group_take_turns(line: Line) -> None:
    first, second, third = (line.begin(stage("a"), group="g") for _ in range(3))
    other = line.begin(stage("a"), group="g", event=push(repository="other"))
    assert [line.states(run)["a"] for run in (first, second, third)] == ["dispatched", "pending", "pending"]
    assert line.states(other)["a"] == "dispatched"
    line.do(first, "a")
    assert [line.run(run).state for run in (first, second, third)] == ["passed", "running", "queued"]
    line.store.cancel(second)
    assert line.run(third).state == "running"


def test_a_newer_run_takes_the_place_of_older_ones(line: Line) -> None:
    first = line.begin(stage("a"), group="g", cancel="superseded")
    claim = line.claim(first, "a")
    second = line.begin(stage("a"), group="g", cancel="superseded")
    third = line.begin(stage("a"), group="g", cancel="superseded")
    assert line.run(second).state == "cancelled"
    assert line.run(second).reason == f"superseded by run {third}"
    # The first is told, and the third waits until it has stopped.
    assert line.store.renew(claim.attempt, claim.token).state == "cancelled"
    assert line.run(third).state == "queued"
    line.finish(claim, Result.CANCELLED)
    assert line.run(third).state == "running"


def test_an_older_run_tried_again_waits_for_the_newer_one(line: Line) -> None:
    first = line.begin(stage("a"), group="g")
    line.do(first, "a", FAILED)
    second = line.begin(stage("a"), group="g")
    line.store.retry(first)
    assert [line.run(run).state for run in (first, second)] == ["queued", "running"]
    line.do(second, "a")
    assert line.states(first) == {"a": "ready"}


def test_one_deploy_of_a_service_at_a_time(line: Line) -> None:
    first, second = line.begin(deploy_stage()), line.begin(deploy_stage())
    other = line.begin(deploy_stage(service="api"))
    assert [line.states(run)["live"] for run in (first, second, other)] == ["dispatched", "pending", "dispatched"]
    line.claim(first, "live")
    assert line.states(second)["live"] == "pending"
    line.lose()
    assert line.states(second)["live"] == "pending", "the lock is the stage's, not the attempt's"
    line.do(first, "live", FAILED)
    assert line.states(second)["live"] == "ready"


def test_two_deploys_in_one_run_take_turns(line: Line) -> None:
    run = line.begin(deploy_stage("eu"), deploy_stage("us"))
    assert line.states(run) == {"eu": "dispatched", "us": "pending"}
    line.do(run, "eu")
    assert line.states(run) == {"eu": "passed", "us": "ready"}


# Lists


def test_runs_are_listed_from_the_newest(line: Line) -> None:
    for pipeline, branch in (("web", "main"), ("api", "main"), ("web", "next")):
        line.begin(stage("a"), pipeline=pipeline, event=push(ref=f"refs/heads/{branch}"))
    line.store.cancel(2)
    assert [run.id for run in line.store.list_runs()] == [3, 2, 1]
    assert [run.id for run in line.store.list_runs(limit=1)] == [3]
    assert [run.id for run in line.store.list_runs(before=3, limit=1)] == [2]
    assert [run.id for run in line.store.list_runs(pipeline="web")] == [3, 1]
    assert [run.id for run in line.store.list_runs(branch="main")] == [2, 1]
    assert [run.id for run in line.store.list_runs(states=RUN_ENDED)] == [2]
    assert [run.id for run in line.store.list_runs(repository="x")] == []
    assert line.store.list_runs(states=["running"], pipeline="web", branch="next")[0].stages[0].name == "a"
    with pytest.raises(NotFound, match="there is no run 9"):
        line.run(9)
