"""A stage whose image is only on a worker that has gone silent."""

from __future__ import annotations

import pytest

from pipeline.plan.models import BuildSpec
from pipeline.protocol import Heartbeat
from tests.pipeline.store.line import Line, image, stage

WAITS = "waits for worker w2, which is silent and alone has its image"


@pytest.fixture
def run(line: Line) -> int:
    """Its image was made on w2, which says no more."""
    line.worker("w2")
    run = line.begin(stage("image", spec=BuildSpec()), stage("unit", "image", near="image", retries=3))
    line.finish(line.claim(run, "image", "w2"), outputs=image())
    line.clock.tick(100_000)  # nobody swept: the server itself was away
    line.store.sweep()
    return run


def test_it_waits_and_says_for_whom_until_the_worker_is_back(line: Line, run: int) -> None:
    assert (line.stage(run, "unit").state, line.stage(run, "unit").reason) == ("dispatched", WAITS)
    line.clock.tick(119)
    line.store.sweep()
    assert line.stage(run, "unit").reason == WAITS
    line.store.heartbeat(Heartbeat(worker="w2"))
    line.store.sweep()
    assert line.stage(run, "unit").reason == ""
    assert line.try_claim(run, "unit", "w2") is not None


@pytest.mark.parametrize(("forgotten", "what"), [(False, "was silent for 2 min 0 s"), (True, "is gone")])
def test_it_fails_in_the_end_and_its_image_is_made_elsewhere(line: Line, run: int, forgotten: bool, what: str) -> None:
    if forgotten:
        line.store.forget_worker("w2")
    else:
        line.clock.tick(120)
    line.store.sweep()
    reason = f'its image is only on worker w2, which {what}: make it again with `shipway retry {run} --from "image"`'
    assert line.stage(run, "unit").reason.startswith(reason)
    assert line.attempt(run, "unit").error.startswith(reason)
    assert (line.run(run).state, line.run(run).reason.startswith(f"unit: {reason}")) == ("failed", True)
    line.store.retry(run, from_stage="image")
    line.do(run, "image", outputs=image())
    line.do(run, "unit")
    assert line.run(run).state == "passed"
