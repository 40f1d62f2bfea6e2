"""The numbers of the metrics."""

from __future__ import annotations

from typing import Any

from pipeline.protocol import Result, RolloutState, RolloutUpdate
from pipeline.store.figures import Histogram
from tests.pipeline.store.line import Line, deploy_stage, push, stage


def total(histograms: tuple[Histogram, ...], *labels: str) -> tuple[int, float]:
    (found,) = [each for each in histograms if each.labels == labels]
    assert [count for _, count in found.buckets] == sorted(count for _, count in found.buckets)
    return found.count, found.sum


def test_nothing_yet(line: Line) -> None:
    figures = line.store.figures()
    assert figures.runs == {}
    assert total(figures.trigger_to_start) == (0, 0.0)
    assert [host.name for host in figures.hosts] == ["w1"]


def test_runs_and_stages_are_counted(line: Line) -> None:
    number = line.store.record_event(push())
    line.clock.tick(1)
    for result in (Result.PASSED, Result.FAILED):
        run = line.begin(stage("a"), event_id=number if result is Result.PASSED else None)
        line.clock.tick(2)
        claim = line.claim(run, "a")
        line.clock.tick(4)
        line.finish(claim, result)
    line.begin(stage("a", runs_on={"role": "web", "zone": "a"}), stage("b"))
    figures = line.store.figures()
    assert figures.runs == {("web", "passed"): 1, ("web", "failed"): 1}
    assert total(figures.run_duration, "web") == (2, 8.0)
    assert total(figures.stage_duration, "web", "a", "run", "passed") == (1, 4.0)
    assert total(figures.stage_queue) == (2, 4.0)
    assert total(figures.trigger_to_start) == (2, 5.0)
    assert figures.waiting == {"any": 1, "role=web,zone=a": 1}


def test_deployments_are_counted(line: Line) -> None:
    def deploy(state: RolloutState | None, **options: Any) -> None:
        event = push(committed=line.clock.now - 100)
        claim = line.claim(line.begin(deploy_stage(), event=event), "live")
        rollout = line.rollout(claim, line.release(claim, **options)).id
        line.clock.tick(10)
        line.store.update_rollout(claim.attempt, claim.token, rollout, RolloutUpdate(state=state))
        line.finish(claim, Result.PASSED if state is RolloutState.DONE else Result.FAILED)

    deploy(RolloutState.DONE)
    deploy(RolloutState.REVERTED)
    deploy(RolloutState.FAILED)
    line.clock.tick(30)
    deploy(RolloutState.DONE, rollback=True)
    figures = line.store.figures()
    assert figures.deployments == {("web", "production", "passed"): 2, ("web", "production", "failed"): 2}
    assert figures.rollbacks == {("web", "failed_rollout"): 1, ("web", "manual"): 1}
    assert total(figures.lead_time) == (1, 110.0), "going back is no delivery"
    assert total(figures.time_to_restore) == (2, 10.0 + 50.0)
