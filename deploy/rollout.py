"""A release's way over all its hosts: it ends as the new release everywhere, or as the old one everywhere.

The coordinator keeps nothing in memory that matters. What each host has reached is in the rollout's row
(`Journal`), what hosts are asked to do is in steps with fixed keys (`Driver`). Whoever coordinates next, after
a crash, asks for the same steps by the same keys and goes on.

    RUNNING ── all hosts updated ──► BAKING ── stayed healthy ──► DONE
       │                               │
       └──────── any failure ──────────┴──► REVERTING ── all reverted ──► REVERTED
                                               └── a host can't ─────────► FAILED
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from deploy.plan import waves
from pipeline.protocol import (
    ROLLOUT_ENDED,
    HostState,
    Rollout,
    RolloutHost,
    RolloutState,
    RolloutUpdate,
    StepState,
)
from pipeline.services import NamedService

REVERT_TRIES = 3
_PATIENCE = 60.0
"""Seconds allowed to a step beyond its own work: for its hint, its claim and the service's lock."""


class Action(StrEnum):
    """What a host can be asked to do. All can be repeated."""

    PREPARE = "prepare"
    """Pull the image."""
    UPDATE = "update"
    """Run the rollout's release, and nothing else of the service."""
    WATCH = "watch"
    """See that its replicas stay healthy for `seconds`."""
    REVERT = "revert"
    """Run the release that was live before; none if there was none."""


@dataclass(frozen=True)
class StepReport:
    """How a step stands."""

    state: StepState
    error: str = ""


class Driver(Protocol):
    """Hands steps to hosts."""

    def request(self, host: str, key: str, action: Action, payload: Mapping[str, Any], deadline: float) -> None:
        """Asks for a step. The same key again is the same step."""
        ...

    def reports(self) -> Mapping[str, StepReport]:
        """All steps of this rollout by key."""
        ...

    def abandon(self) -> None:
        """Steps that are not over stop."""
        ...


class Journal(Protocol):
    """The rollout's row."""

    def read(self) -> Rollout: ...

    def write(self, update: RolloutUpdate) -> Rollout: ...


class Stopped(Exception):
    """`check` raises this, or a kind of it, for a cancelled rollout: it is undone on all hosts."""


@dataclass
class Coordinator:
    """Drives one rollout to its end. `check` raises Stopped when it was cancelled, and anything else when
    another coordinator has taken over: then nothing more is touched."""

    service: NamedService
    driver: Driver
    journal: Journal
    check: Callable[[], None]
    say: Callable[[str], None]
    poll: float = 0.03
    sleep: Callable[[float], None] = time.sleep
    _cancelled: bool = field(default=False, init=False)

    def run(self) -> Rollout:
        """Until the rollout has ended; returns its row."""
        while (rollout := self.journal.read()).state not in ROLLOUT_ENDED:
            try:
                match rollout.state:
                    case RolloutState.RUNNING:
                        self._update(rollout)
                    case RolloutState.BAKING:
                        self._bake(rollout)
                    case RolloutState.REVERTING:
                        self._revert(rollout)
            except Stopped as reason:
                self._cancelled = True
                self._give_up(str(reason) or "cancelled")
        return rollout

    def _update(self, rollout: Rollout) -> None:
        names = [host.host for host in rollout.hosts]
        if problem := self._together(names, Action.PREPARE):
            self._give_up(problem)
            return
        for wave in waves(names):
            self._mark(wave, HostState.UPDATING)
            if problem := self._together(wave, Action.UPDATE):
                self._give_up(problem)
                return
            self._mark(wave, HostState.UPDATED)
            self.say(f"{', '.join(wave)}: updated")
        self.journal.write(RolloutUpdate(state=RolloutState.BAKING))

    def _bake(self, rollout: Rollout) -> None:
        seconds = self.service.rollout.bake
        if seconds > 0:
            self.say(f"watching the new release for {seconds:g} s")
            names = [host.host for host in rollout.hosts]
            if problem := self._together(names, Action.WATCH, {"seconds": seconds}):
                self._give_up(problem)
                return
        self.journal.write(RolloutUpdate(state=RolloutState.DONE))

    def _give_up(self, reason: str) -> None:
        self.say(f"returning every host to the old release: {reason}")
        # Before it is written down: a successor that finds abandoned steps comes to the same end.
        self.driver.abandon()
        self.journal.write(RolloutUpdate(state=RolloutState.REVERTING, reason=reason[:4096]))

    def _revert(self, rollout: Rollout) -> None:
        touched = [host for host in rollout.hosts if host.state is not HostState.PENDING]
        open_hosts = [host.host for host in touched if host.state is not HostState.REVERTED]
        for attempt in range(1, REVERT_TRIES + 1):
            self._mark(open_hosts, HostState.REVERTING)
            reports = self._steps(open_hosts, Action.REVERT, {}, f"{Action.REVERT}-{attempt}")
            good = [host for host in open_hosts if reports[host].state is StepState.DONE]
            self._mark(good, HostState.REVERTED)
            open_hosts = [host for host in open_hosts if host not in good]
            if not open_hosts:
                self.journal.write(RolloutUpdate(state=RolloutState.REVERTED))
                return
        problems = "; ".join(f"{host}: {reports[host].error}" for host in open_hosts)
        self._mark(open_hosts, HostState.FAILED)
        reason = f"{rollout.reason}; and the old release could not be restored: {problems}"
        self.journal.write(RolloutUpdate(state=RolloutState.FAILED, reason=reason[:4096]))

    def _together(self, hosts: Sequence[str], action: Action, payload: Mapping[str, Any] | None = None) -> str | None:
        """Asks all hosts at once. None: all did it; else what went wrong, as soon as anything did."""
        reports = self._steps(hosts, action, payload or {}, action, stop_early=True)
        failed = [(host, report) for host, report in reports.items() if _bad(report)]
        if not failed:
            return None
        return "; ".join(f"{host}: {report.error or report.state}" for host, report in failed)

    def _steps(
        self,
        hosts: Sequence[str],
        action: Action,
        payload: Mapping[str, Any],
        name: str,
        *,
        stop_early: bool = False,
    ) -> dict[str, StepReport]:
        deadline = self._deadline(action)
        for host in hosts:
            self.driver.request(host, f"{name}@{host}", action, payload, deadline)
        # The server fails what is not done by its deadline. Should it not, this is the last word.
        ends = time.monotonic() + deadline + _PATIENCE
        while True:
            self._check()
            known = self.driver.reports()
            reports = {host: known.get(f"{name}@{host}", StepReport(StepState.PENDING)) for host in hosts}
            if stop_early and any(_bad(report) for report in reports.values()):
                return reports
            if all(_over(report) for report in reports.values()):
                return reports
            if time.monotonic() > ends:
                late = StepReport(StepState.FAILED, f"{action} was not done within {deadline:.0f} s")
                return {host: report if _over(report) else late for host, report in reports.items()}
            self.sleep(self.poll)

    def _check(self) -> None:
        try:
            self.check()
        except Stopped:
            # Once undoing has begun, a cancelled rollout is just one that is being undone.
            if not self._cancelled and self.journal.read().state is not RolloutState.REVERTING:
                raise
            self._cancelled = True

    def _mark(self, hosts: Sequence[str], state: HostState) -> None:
        if hosts:
            changed = tuple(RolloutHost(host=host, state=state) for host in hosts)
            self.journal.write(RolloutUpdate(hosts=changed))

    def _deadline(self, action: Action) -> float:
        """Seconds that a host may reasonably need."""
        if action is Action.PREPARE:
            return 1800.0
        if action is Action.WATCH:
            return self.service.rollout.bake + _PATIENCE
        health = self.service.health
        one = self.service.rollout.drain + 15.0
        if health is not None:
            one += health.start_period + health.retries * (health.interval + health.timeout)
        return self.service.replicas * one + _PATIENCE


def _over(report: StepReport) -> bool:
    return report.state not in (StepState.PENDING, StepState.RUNNING)


def _bad(report: StepReport) -> bool:
    return _over(report) and report.state is not StepState.DONE
