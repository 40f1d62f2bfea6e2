"""Who holds an attempt, for how long, and what happens when nobody does."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pipeline.errors import LeaseLost, NotFound
from pipeline.plan.models import BuildSpec, RunSpec
from pipeline.protocol import Claim, LogLine, NewHostStep, Outcome, Outputs, Result, RolloutUpdate
from pipeline.run.scheduler import MAX_LOSSES
from pipeline.secrets import MASK
from tests.pipeline.store.line import LEASE, SHA, Line, deploy_stage, push, stage


def lines(*texts: str, first: int = 0) -> list[LogLine]:
    return [LogLine(seq=first + index, time=1.5, text=text) for index, text in enumerate(texts)]


# Claiming


def test_a_claim_tells_all_that_a_worker_needs(line: Line) -> None:
    (line.secrets / "TOKEN").write_text("s3same\n")
    spec = RunSpec(image="a", run=("true",), resources={"memory": 8 << 20})
    event = push(message="m", author="Ada")
    run = line.begin(
        stage("unit", spec=spec, env={"A": "b", "CI": "mine"}, secrets=("TOKEN",), timeout=90), event=event
    )
    claim = line.claim(run, "unit")
    assert (claim.number, claim.fence, claim.stage, claim.kind, claim.timeout) == (1, 1, "unit", "run", 90)
    assert claim.lease_seconds == LEASE
    assert claim.spec == spec
    assert claim.secrets == {"TOKEN": "s3same"}
    assert claim.env == {
        "CI": "mine", "CI_SYSTEM": "shipway", "CI_RUN": str(run), "CI_PIPELINE": "web", "CI_STAGE": "unit",
        "CI_ATTEMPT": "1", "CI_COMMIT": SHA, "CI_BRANCH": "main", "CI_TAG": "", "CI_REPOSITORY": "r",
        "CI_EVENT": "push", "A": "b",
    }  # fmt: skip
    assert claim.labels == {
        "shipway.run": str(run), "shipway.pipeline": "web", "shipway.stage": "unit", "shipway.attempt": claim.attempt,
    }  # fmt: skip
    assert claim.source is not None
    assert (claim.source.url, claim.source.sha, claim.source.ref, claim.source.path) == (
        "/r", SHA, "refs/heads/main", None,
    )  # fmt: skip
    assert (claim.run.id, claim.run.pipeline, claim.run.message, claim.run.author) == (run, "web", "m", "Ada")
    assert "s3same" not in repr(claim)
    assert claim.token not in repr(claim)


def test_a_folder_on_this_machine_is_a_source_too(line: Line) -> None:
    claim = line.claim(line.begin(stage("a"), event=push(url="", local="/here")), "a")
    assert claim.source is not None
    assert claim.source.path == "/here"
    assert line.claim(line.begin(stage("a"), event=push(url="")), "a").source is None


def test_an_attempt_is_claimed_once(line: Line) -> None:
    run = line.begin(stage("a"))
    claim = line.claim(run, "a")
    assert line.store.claim(claim.attempt, "w1") is None
    line.finish(claim)
    assert line.store.claim(claim.attempt, "w1") is None


def test_what_is_not_to_be_had(line: Line) -> None:
    run = line.begin(stage("a", runs_on={"role": "web"}))
    assert line.store.claim("1.0.1-000000", "w1") is None
    assert line.try_claim(run, "a") is None, "it has not the label"
    assert line.try_claim(run, "a", "stranger") is None, "nobody knows it"
    line.worker("w2", role="db")
    assert line.try_claim(run, "a", "w2") is None
    line.worker("w3", role="web", more="yes")
    assert line.try_claim(run, "a", "w3") is not None


def test_of_many_who_claim_at_once_one_gets_it(line: Line) -> None:
    workers = [f"worker-{number}" for number in range(6)]
    for worker in workers:
        line.worker(worker)
    run = line.begin(stage("a"), stage("b"))
    for name in ("a", "b"):
        attempt, gate = line.attempt(run, name).id, threading.Barrier(len(workers))
        got: list[Claim | None] = []

        def claim(worker: str, attempt: str = attempt, gate: threading.Barrier = gate, got: Any = got) -> None:
            gate.wait()
            got.append(line.store.claim(attempt, worker))

        threads = [threading.Thread(target=claim, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == len(workers)
        (winner,) = [each for each in got if each is not None]
        assert line.attempt(run, name).state == "running"
        line.finish(winner)
    assert line.run(run).state == "passed"


def test_outputs_of_earlier_stages_are_put_in(line: Line) -> None:
    spec = RunSpec(image="${stages.image.image}", run=("echo ${stages.image.image_id} $${HOME} $$",))
    run = line.begin(
        stage("image", spec=BuildSpec()), stage("a", "image", spec=spec, env={"X": "$$${stages.image.image}"})
    )
    line.do(run, "image", outputs=Outputs(image="i", image_id="sha256:" + "0" * 64))
    claim = line.claim(run, "a")
    assert isinstance(claim.spec, RunSpec)
    assert claim.spec.image == "i"
    assert claim.spec.run == (f"echo sha256:{'0' * 64} ${{HOME}} $$",)
    assert claim.env["X"] == "$${stages.image.image}", "two dollars are for the two characters"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"secrets": ("NONE",)}, "there is no secret NONE: write its value into "),
        (
            {"spec": RunSpec(image="${stages.image.snapshot}", run=("x",))},
            "the stage image gave no snapshot: run it again",
        ),
        ({"spec": RunSpec(image="${stages.gone.image}", run=("x",))}, "the stage gone gave no image: run it again"),
    ],
)
def test_what_can_not_be_claimed_fails_in_one_line(line: Line, options: dict[str, Any], reason: str) -> None:
    run = line.begin(stage("image"), stage("a", "image", **options), stage("b", "a"))
    line.do(run, "image")
    assert line.try_claim(run, "a") is None
    view = line.stage(run, "a")
    assert view.state == "failed"
    assert view.reason.startswith(reason)
    assert "\n" not in view.reason
    assert view.attempts[-1].error == view.reason
    assert line.run(run).state == "failed"
    assert line.states(run)["b"] == "skipped"


# Leases


def test_a_lease_is_renewed(line: Line) -> None:
    claim = line.claim(line.begin(stage("a")), "a")
    for _ in range(5):
        line.clock.tick(LEASE - 1)
        assert line.store.sweep().lost == ()
        renewal = line.store.renew(claim.attempt, claim.token)
        assert (renewal.state, renewal.expires_in) == ("ok", LEASE)
    line.finish(claim)


def test_a_lease_that_ran_out_still_holds_until_it_is_fenced(line: Line) -> None:
    claim = line.claim(line.begin(stage("a")), "a")
    line.clock.tick(LEASE * 3)
    assert line.store.renew(claim.attempt, claim.token).state == "ok"
    assert line.store.sweep().lost == ()


def test_after_the_fence_the_old_worker_is_not_heard(line: Line) -> None:
    run = line.begin(deploy_stage("a"))
    old = line.claim(run, "a")
    release = line.release(old)
    rollout = line.rollout(old, release).id
    assert line.lose() == (old.attempt,)
    assert line.stage(run, "a").reason == "lost its worker w1"
    assert line.attempt(run, "a").number == 2

    held = (old.attempt, old.token)
    assert line.store.renew(*held).state == "lost"
    words = [
        lambda: line.store.append_logs(*held, lines("late")),
        lambda: line.store.finish(*held, Outcome(result=Result.PASSED)),
        lambda: line.release(old),
        lambda: line.rollout(old, release),
        lambda: line.store.update_rollout(*held, rollout, RolloutUpdate(reason="late")),
        lambda: line.store.request_step(*held, rollout, NewHostStep(key="k", host="w1", action="update")),
        lambda: line.store.abandon_steps(*held, rollout),
    ]
    for word in words:
        with pytest.raises(LeaseLost):
            word()
    assert line.states(run) == {"a": "dispatched"}
    assert line.store.read_logs(run, "a") == []
    assert line.store.get_rollout(rollout).reason == ""

    new = line.claim(run, "a")
    assert (new.number, new.fence) == (2, 2)
    for word in words:
        with pytest.raises(LeaseLost):
            word()
    line.finish(new)
    assert [each.state for each in line.stage(run, "a").attempts] == ["lost", "passed"]


def test_a_wrong_token_is_nobodys(line: Line) -> None:
    claim = line.claim(line.begin(stage("a")), "a")
    assert line.store.renew(claim.attempt, "wrong").state == "lost"
    assert line.store.renew("gone", claim.token).state == "lost"
    for attempt, token in ((claim.attempt, "wrong"), ("gone", claim.token), (claim.attempt, "")):
        with pytest.raises(LeaseLost):
            line.store.finish(attempt, token, Outcome(result=Result.PASSED))


def test_what_is_said_twice_is_heard_once(line: Line) -> None:
    run = line.begin(stage("a", retries=1))
    claim = line.claim(run, "a")
    for _ in range(2):
        line.finish(claim, Result.FAILED, error="no")
    assert line.attempt(run, "a").number == 2
    assert line.states(run) == {"a": "ready"}
    again = line.claim(run, "a")
    line.finish(claim, Result.PASSED)  # the same attempt's word, whatever it says now
    assert line.states(run) == {"a": "running"}
    line.finish(again)
    line.finish(again)
    assert line.run(run).state == "passed"


def test_a_stage_that_loses_every_worker_is_given_up(line: Line) -> None:
    run = line.begin(stage("a"))
    for _ in range(MAX_LOSSES + 1):
        line.claim(run, "a")
        assert line.run(run).state == "running"
        line.lose()
    assert line.run(run).state == "lost"
    assert line.run(run).reason == f"a: lost its worker {MAX_LOSSES + 1} times, the last was w1"
    line.store.retry(run)
    line.do(run, "a")
    assert line.run(run).state == "passed"


def test_a_failure_that_talks_of_losing_is_a_failure(line: Line) -> None:
    run = line.begin(stage("a"))
    line.do(run, "a", Result.FAILED, error="lost the connection to the database")
    assert line.run(run).state == "failed"


def test_losses_are_no_failures(line: Line) -> None:
    run = line.begin(stage("a", retries=1))
    line.claim(run, "a")
    line.lose()
    line.do(run, "a", Result.FAILED)
    assert line.states(run) == {"a": "ready"}


def test_a_stage_has_its_time(line: Line) -> None:
    """Its worker may say so itself; a worker that renews and renews is fenced some time later."""
    run = line.begin(stage("a", timeout=60, retries=3))
    claim = line.claim(run, "a")
    for _ in range(9):
        line.clock.tick(LEASE - 1)
        line.store.renew(claim.attempt, claim.token)
        assert line.store.sweep().lost == ()
    line.clock.tick(LEASE)
    line.store.renew(claim.attempt, claim.token)
    assert line.store.sweep().lost == (claim.attempt,)
    assert line.run(run).state == "failed"
    assert line.run(run).reason == "a: it took longer than its timeout of 1 min 0 s"
    with pytest.raises(LeaseLost):
        line.finish(claim)


def test_time_stands_still_for_what_waits(line: Line) -> None:
    run = line.begin(stage("a", timeout=1))
    line.clock.tick(1_000_000)
    line.store.sweep()
    assert line.states(run) == {"a": "dispatched"}


# Logs


def test_lines_are_kept_once_and_in_order(line: Line) -> None:
    run = line.begin(stage("a"))
    claim = line.claim(run, "a")
    line.store.append_logs(claim.attempt, claim.token, [])
    line.store.append_logs(claim.attempt, claim.token, lines("one", "two"))
    line.store.append_logs(claim.attempt, claim.token, lines("one", "two", "three"))
    line.store.append_logs(claim.attempt, claim.token, lines("nul\0", "fünf \N{SNOWMAN}", "", first=3))
    found = line.store.read_logs(run, "a")
    assert [each.text for each in found] == [
        "one",
        "two",
        "three",
        "nul\N{REPLACEMENT CHARACTER}",
        "fünf \N{SNOWMAN}",
        "",
    ]
    assert [each.seq for each in found] == list(range(6))
    assert [each.id for each in found] == sorted(each.id for each in found)
    assert [each.text for each in line.store.read_logs(run, "a", after=found[1].id, limit=2)] == [
        "three",
        found[3].text,
    ]
    assert [each.text for each in line.store.read_logs(run, "a", tail=2)] == ["fünf \N{SNOWMAN}", ""]
    assert line.store.read_logs(run, "a", tail=0) == []
    with pytest.raises(NotFound, match=f'no stage "b" in run {run}'):
        line.store.read_logs(run, "b")


def test_lines_of_each_attempt(line: Line) -> None:
    run = line.begin(stage("a", retries=1), stage("b"))
    for name, word, result in (
        ("a", "first", Result.FAILED),
        ("b", "other", Result.PASSED),
        ("a", "second", Result.PASSED),
    ):
        claim = line.claim(run, name)
        line.store.append_logs(claim.attempt, claim.token, lines(word))
        line.finish(claim, result)
    assert [each.text for each in line.store.read_logs(run, "a")] == ["first", "second"]
    assert [each.text for each in line.store.read_logs(run, "a", attempt=2)] == ["second"]


def test_secrets_are_not_in_the_log(line: Line) -> None:
    for name, value in (("SHORT", "pass"), ("LONG", "password123"), ("TINY", "abc"), ("KEY", "line one\nline two\n")):
        (line.secrets / name).write_text(value)
    run = line.begin(stage("a", secrets=("SHORT", "LONG", "TINY", "KEY")))
    claim = line.claim(run, "a")
    line.store.append_logs(
        claim.attempt, claim.token, lines("password123 pass abc", "it is line two.", "bypass", "plain")
    )
    assert [each.text for each in line.store.read_logs(run, "a")] == [
        f"{MASK} {MASK} abc", f"it is {MASK}.", f"by{MASK}", "plain",
    ]  # fmt: skip
