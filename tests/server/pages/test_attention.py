"""What is said first, and what is not said at all."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.plan.models import Kind
from pipeline.protocol import HostInfo, Release, ReleaseState, Replica, ReplicaState, Rollout, RolloutState
from pipeline.run.states import RunState, StageState
from pipeline.views import HostReplicas, RunView, ServiceView, StageView
from server.pages.attention import Notice, notices, of_replicas, of_rollout
from tests.server.story import WEB, digest_of, replicas

LIVE = Release(
    id="web-2", service="web", number=2, state=ReleaseState.LIVE, spec=WEB, image="web", digest=digest_of("2"),
    environment="production", run=1, created=1.0, live=2.0,
)  # fmt: skip


def rollout(state: RolloutState, **more: Any) -> Rollout:
    values = {"id": 1, "service": "web", "release": "web-3", "previous": "web-2", "hosts": (), "started": 10.0}
    finished = 20.0 if state in ("done", "reverted", "failed") else None
    return Rollout.model_validate({**values, "state": state, "finished": finished, **more})


def service(*found: Replica, online: bool = True, **more: Any) -> ServiceView:
    hosts = (HostReplicas(host="web1", online=online, replicas=found),)
    return ServiceView(name="web", spec=WEB, release=LIVE, hosts=hosts).model_copy(update=more)


def host(**more: Any) -> HostInfo:
    return HostInfo.model_validate({"name": "web1", "labels": {}, "state": "online", **more})


def said(*services: ServiceView, hosts: tuple[HostInfo, ...] = (), broker_ok: bool = True) -> list[Notice]:
    return notices(services, (), hosts, broker_ok=broker_ok)


def test_when_all_is_well_nothing_is_said() -> None:
    good = service(*replicas("web", "web-2"), rollout=rollout(RolloutState.DONE))
    assert said(good, hosts=(host(),)) == []


@pytest.mark.parametrize(
    ("state", "look", "words"),
    [
        (RolloutState.RUNNING, "busy", "web-3 is being rolled out in place of web-2"),
        (RolloutState.BAKING, "busy", "web-3 serves and is watched: should it fail, web-2 returns"),
        (RolloutState.REVERTING, "warn", "is being undone"),
        (RolloutState.REVERTED, "warn", "was undone: web-2 serves"),
        (RolloutState.FAILED, "bad", "could not be undone everywhere"),
    ],
)
def test_a_rollout_that_is_not_done_says_how_it_stands(state: RolloutState, look: str, words: str) -> None:
    (notice,) = of_rollout(service(rollout=rollout(state, reason="web1: no")))
    assert notice.look == look
    assert words in notice.what
    assert notice.since == (20.0 if state in (RolloutState.REVERTED, RolloutState.FAILED) else 10.0)
    assert (notice.why == "web1: no") is (look != "busy")


def test_only_a_rollout_that_is_stuck_between_two_asks_for_a_command() -> None:
    commands = {state: [n.command for n in of_rollout(service(rollout=rollout(state)))] for state in RolloutState}
    assert commands.pop(RolloutState.FAILED) == ["shipway rollback web"]
    assert all(command in ([], [""]) for command in commands.values())


def test_the_first_release_has_nothing_before_it() -> None:
    (notice,) = of_rollout(service(rollout=rollout(RolloutState.REVERTED, previous=None)))
    assert "there was none before it" in notice.what


def test_too_few_replicas_are_told_unless_a_rollout_is_under_way() -> None:
    (notice,) = of_replicas(service(*replicas("web", "web-2", 1)))
    assert notice.what == "web has 1 of 2 replicas on web1"
    assert not list(of_replicas(service(*replicas("web", "web-2", 1), rollout=rollout(RolloutState.RUNNING))))


@pytest.mark.parametrize("state", [ReplicaState.UNHEALTHY, ReplicaState.EXITED])
def test_a_replica_that_does_not_serve_is_told_with_its_reason(state: ReplicaState) -> None:
    ill = Replica(service="web", release="web-2", name="web-2-2", state=state, detail="out of memory")
    (notice,) = of_replicas(service(ill, *replicas("web", "web-2", 1)))
    assert (notice.what, notice.why) == (f"web-2-2 on web1 is {state}", "out of memory")


def test_what_runs_on_a_silent_host_is_not_guessed() -> None:
    assert not list(of_replicas(service(online=False)))
    (notice,) = said(service(online=False), hosts=(host(state="lost"),))
    assert notice.what == "web1 is silent"


def test_hosts_and_the_broker_are_told() -> None:
    found = said(hosts=(host(engine_ok=False),), broker_ok=False)
    assert [notice.what for notice in found] == ["The engine of web1 does not answer", "The broker can't be reached"]


def test_the_worst_comes_first() -> None:
    undone = service(*replicas("web", "web-2"), rollout=rollout(RolloutState.REVERTED))
    rolling = service(*replicas("web", "web-2"), rollout=rollout(RolloutState.RUNNING))
    found = said(rolling, undone, hosts=(host(state="lost"),))
    assert [notice.look for notice in found] == ["bad", "warn", "busy"]


def test_a_stage_that_waits_names_the_command() -> None:
    stage = StageView(name="production", base="production", kind=Kind.DEPLOY, position=0, state=StageState.WAITING)
    run = RunView(id=7, pipeline="web", state=RunState.RUNNING, message="Greet", created=1.0, stages=(stage,))
    (notice,) = notices((), (run,), (), broker_ok=True)
    assert (notice.command, notice.why, notice.link) == ("shipway approve 7/production", "Greet", "/runs/7")
