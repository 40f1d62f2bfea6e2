from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from deploy.rollout import Action, Coordinator, StepReport, Stopped
from pipeline.protocol import HostState, Rollout, RolloutHost, RolloutState, RolloutUpdate, StepState
from pipeline.services import NamedService


class Crash(Exception):
    """The coordinator's process ends here."""


@dataclass
class World:
    """Hosts, the journal's row and the steps: what outlives a coordinator."""

    rollout: Rollout
    running: dict[str, str]
    broken: Callable[[str, Action], str | None] = lambda host, action: None
    steps: dict[str, StepReport] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    abandoned: int = 0

    def request(self, host: str, key: str, action: Action, payload: Mapping[str, Any], deadline: float) -> None:
        assert deadline > 0
        if key in self.steps:
            return
        self.order.append(key)
        problem = self.broken(host, action)
        if problem:
            if action is Action.UPDATE:
                self.running[host] = "half"
            self.steps[key] = StepReport(StepState.FAILED, problem)
            return
        if action is Action.UPDATE:
            self.running[host] = "new"
        if action is Action.REVERT:
            self.running[host] = "old"
        self.steps[key] = StepReport(StepState.DONE)

    def reports(self) -> Mapping[str, StepReport]:
        return dict(self.steps)

    def abandon(self) -> None:
        self.abandoned += 1

    def read(self) -> Rollout:
        return self.rollout

    def write(self, update: RolloutUpdate) -> Rollout:
        hosts = {host.host: host for host in self.rollout.hosts} | {host.host: host for host in update.hosts}
        changes: dict[str, Any] = {"hosts": tuple(hosts.values())}
        if update.state is not None:
            changes["state"] = update.state
        if update.reason is not None:
            changes["reason"] = update.reason
        self.rollout = self.rollout.model_copy(update=changes)
        return self.rollout


def world(*hosts: str, **options: Any) -> World:
    rollout = Rollout(
        id=1,
        service="web",
        release="web-2",
        previous="web-1",
        state=RolloutState.RUNNING,
        hosts=tuple(RolloutHost(host=host) for host in hosts),
        started=0.0,
    )
    return World(rollout, dict.fromkeys(hosts, "old"), **options)


def coordinator(there: World, check: Callable[[], None] = lambda: None, bake: float = 1.0) -> Coordinator:
    service = NamedService.model_validate({"name": "web", "rollout": {"bake": bake}})
    return Coordinator(service, there, there, check, lambda line: None, sleep=lambda seconds: None)


def test_the_new_release_everywhere():
    there = world("a", "b", "c")
    assert coordinator(there).run().state is RolloutState.DONE
    assert set(there.running.values()) == {"new"}
    assert there.order[3] == "update@a", "one host goes first, after all have the image"
    assert there.order[-1].startswith("watch@")


def test_a_failed_pull_changes_no_host():
    there = world("a", "b", broken=lambda host, action: "no" if (host, action) == ("b", "prepare") else None)
    ended = coordinator(there).run()
    assert ended.state is RolloutState.REVERTED
    assert "b: no" in ended.reason
    assert not any(key.startswith(("update", "revert")) for key in there.order)


@pytest.mark.parametrize("failing", ["a", "b", "c"])
@pytest.mark.parametrize("action", [Action.UPDATE, Action.WATCH])
def test_any_failure_takes_every_host_back(failing: str, action: Action):
    there = world("a", "b", "c", broken=lambda h, act: "sick" if (h, act) == (failing, action) else None)
    ended = coordinator(there).run()
    assert ended.state is RolloutState.REVERTED
    assert set(there.running.values()) == {"old"}
    assert f"{failing}: sick" in ended.reason
    assert there.abandoned == 1


def test_a_host_that_can_not_return_is_named():
    def broken(host: str, action: Action) -> str | None:
        if action is Action.WATCH:
            return "sick"
        return "disk is full" if (host, action) == ("b", Action.REVERT) else None

    there = world("a", "b", broken=broken)
    ended = coordinator(there).run()
    assert ended.state is RolloutState.FAILED
    assert "b: disk is full" in ended.reason
    assert {host.host: host.state for host in ended.hosts} == {"a": HostState.REVERTED, "b": HostState.FAILED}
    assert there.order.count("revert-3@b") == 1


def test_cancelled_means_undone():
    there = world("a", "b")

    def check() -> None:
        if "update@a" in there.steps:
            raise Stopped("cancelled by Ada")

    ended = coordinator(there, check).run()
    assert ended.state is RolloutState.REVERTED
    assert ended.reason == "cancelled by Ada"
    assert set(there.running.values()) == {"old"}


@pytest.mark.parametrize("sick", [None, "a", "c"])
@pytest.mark.parametrize("seed", range(25))
def test_a_coordinator_may_die_anywhere(seed: int, sick: str | None):
    """Whoever comes next ends the rollout, all new or all old."""
    chance = random.Random(seed)
    there = world("a", "b", "c", broken=lambda h, act: "sick" if (h, act) == (sick, "update") else None)

    class Frail(World):
        def __getattribute__(self, name: str) -> Any:
            if name in ("request", "reports", "write", "read", "abandon") and chance.random() < 0.15:
                raise Crash
            return super().__getattribute__(name)

    there.__class__ = Frail
    for _ in range(500):
        try:
            ended = coordinator(there).run()
            break
        except Crash:
            continue
    else:
        raise AssertionError("it never ended")
    there.__class__ = World
    assert ended.state is (RolloutState.REVERTED if sick else RolloutState.DONE)
    assert set(there.running.values()) == {"old" if sick else "new"}
