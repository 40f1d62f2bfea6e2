"""Workers, and what the server knows of their hosts."""

from __future__ import annotations

import pytest

from pipeline.errors import Conflict, NotFound
from pipeline.protocol import Heartbeat, Replica, ReplicaState
from tests.pipeline.store.line import Line, stage


def test_a_worker_is_known_by_its_labels(line: Line) -> None:
    line.worker("w2", role="web", zone="a")
    assert [host.name for host in line.store.hosts()] == ["w1", "w2"]
    assert [host.name for host in line.store.hosts({"role": "web"})] == ["w2"]
    line.worker("w2", role="db")
    assert line.store.hosts({"role": "web"}) == []
    assert line.store.hosts({"role": "db"})[0].labels == {"role": "db"}


def test_a_silent_worker_is_lost_and_comes_back(line: Line) -> None:
    beat = Heartbeat(
        worker="w1",
        containers={"running": 2},
        replicas=(Replica(service="web", release="web-1", name="web-1-1", state=ReplicaState.HEALTHY),),
    )
    assert line.store.heartbeat(beat).known
    (host,) = line.store.hosts()
    assert (host.state, host.engine_ok, host.containers, host.replicas) == (
        "online",
        True,
        {"running": 2},
        beat.replicas,
    )
    line.clock.tick(7)
    assert line.store.hosts()[0].state == "lost"
    line.store.heartbeat(Heartbeat(worker="w1", engine_ok=False))
    (host,) = line.store.hosts()
    assert (host.state, host.engine_ok, host.replicas) == ("online", False, ())


def test_a_stranger_is_told_to_register(line: Line) -> None:
    assert not line.store.heartbeat(Heartbeat(worker="w9")).known


def test_a_worker_is_told_which_of_its_attempts_to_stop(line: Line) -> None:
    line.worker("w2")
    run, other = line.begin(stage("a")), line.begin(stage("a"))
    mine, theirs = line.claim(run, "a"), line.claim(other, "a", "w2")
    beat = Heartbeat(worker="w1", attempts=(mine.attempt, theirs.attempt, "gone"))
    assert line.store.heartbeat(beat).cancelled == (theirs.attempt, "gone")
    line.store.cancel(run)
    assert line.store.heartbeat(beat).cancelled == beat.attempts


def test_a_host_that_will_not_come_back_is_forgotten(line: Line) -> None:
    with pytest.raises(Conflict, match="worker w1 is online: stop it first"):
        line.store.forget_worker("w1")
    line.clock.tick(7)
    line.store.forget_worker("w1")
    assert line.store.hosts() == []
    assert not line.store.heartbeat(Heartbeat(worker="w1")).known, "should it come back, it registers again"
    with pytest.raises(NotFound, match="w1"):
        line.store.forget_worker("w1")
