"""One host's part of a rollout: from whatever is there to the release that is wanted.

There is no progress to lose: each turn looks at the engine and the traffic switch, asks the planner for the
next step and does it. Killed at any point and called again, it goes on; called when all is done, it does
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from deploy.connections import open_connections
from deploy.desired import Desired, Records
from deploy.errors import ReplicaFailed
from deploy.health import Watch, wait_healthy
from deploy.plan import (
    Await,
    Condition,
    Discard,
    HostView,
    ReplicaView,
    Retire,
    Route,
    Start,
    Step,
    Wanted,
    next_step,
)
from deploy.releases import Target
from deploy.replicas import Found, Replicas
from deploy.traffic import base
from deploy.traffic.base import Traffic
from pipeline.services import Health, NamedService

T = TypeVar("T")
Check = Callable[[], None]
"""Raises when the work should stop: its lease is lost, or it was cancelled."""
Say = Callable[[str], None]

_PARALLEL = 8
_POLL = 0.02
_SETTLE = 0.05
"""Seconds in which a connection that was under way at the switch shows up at its replica."""
_WORDS = 200
"""Characters of a replica's last line that are told with its failure."""
_ANY_HEALTH = Health(tcp=True)
"""How patient to be with a replica whose service has no health check."""


def _silent(_: str) -> None:
    return


@dataclass
class Host:
    """What this host has: its engine's replicas, its traffic switch, and what it should run."""

    replicas: Replicas
    traffic: Traffic
    records: Records
    lock_timeout: float = 120.0
    say: Say = field(default=_silent)

    def prepare(self, target: Target) -> None:
        """Makes the image present, before anything is changed anywhere. Raises EngineError."""
        self.replicas.pull(target.image)

    def converge(self, target: Target, secrets: Mapping[str, str], check: Check) -> None:
        """Runs exactly this release, by the rolling strategy. Raises DeployError, or what `check` raises."""
        rollout = target.service.rollout
        wanted = Wanted(target.release, target.names, rollout.surge, rollout.unavailable)
        with self.records.lock(target.service.name, check=check, timeout=self.lock_timeout):
            self._turns(_Work(self, target, wanted, secrets, check))
            self.records.write(Desired(target=target, serving=target.names))

    def withdraw(self, target: Target, check: Check) -> None:
        """Runs nothing of the service any more. Raises DeployError, or what `check` raises."""
        name = target.service.name
        with self.records.lock(name, check=check, timeout=self.lock_timeout):
            self._turns(_Work(self, target, Wanted(), {}, check))
            self.traffic.remove(name)
            self.records.forget(name)

    def watch(self, target: Target, seconds: float, check: Check) -> None:
        """Keeps probing for `seconds`. Raises ReplicaFailed as soon as a replica is unhealthy or ends."""
        found = [self._present(name) for name in target.names]
        health = target.service.health or _ANY_HEALTH
        now = time.monotonic()
        watches = {each.name: Watch(health.model_copy(update={"start_period": 0.0}), started=now) for each in found}
        ends = now + seconds
        while (now := time.monotonic()) < ends:
            check()
            for each in found:
                gone = self.replicas.ended(each.name, each.restarts)
                problem = gone or self.replicas.probe(each, target.service.health)()
                verdict = watches[each.name].saw(problem, time.monotonic())
                if gone or verdict is False:
                    raise ReplicaFailed(f"{each.name} did not stay healthy: {problem}")
            time.sleep(max(0.0, min(health.interval, 1.0, ends - time.monotonic())))

    def _present(self, name: str) -> Found:
        found = self.replicas.get(name)
        if found is None:
            raise ReplicaFailed(f"{name}: its container is gone")
        return found

    def _turns(self, work: _Work) -> None:
        while True:
            work.check()
            step = work.next()
            if step is None:
                return
            work.do(step)


@dataclass
class _Work:
    """One convergence, while the service's lock is held."""

    host: Host
    target: Target
    wanted: Wanted
    secrets: Mapping[str, str]
    check: Check
    healthy: set[str] = field(default_factory=set)

    @property
    def service(self) -> NamedService:
        return self.target.service

    def next(self) -> Step | None:
        found = self.host.replicas.find(self.service.name)
        self._heal(found)
        return next_step(self._view(found), self.wanted)

    def do(self, step: Step) -> None:
        match step:
            case Start(names):
                self.host.say(f"starting {', '.join(names)}")
                self._each(names, self._start)
                self._wait(names)
            case Await(names):
                self._wait(names)
            case Route(names):
                self._route(names)
            case Retire(names):
                self.host.say(f"retiring {', '.join(names)}")
                self._drain(names)
                self._each(names, self.host.replicas.remove)
            case Discard(names):
                self._each(names, lambda name: self.host.replicas.remove(name, grace=0))

    def _view(self, found: Sequence[Found]) -> HostView:
        switched = self.service.publish is not None
        routed = self._routed(found) if switched else frozenset()
        return HostView(
            tuple(ReplicaView(f.name, f.release, self._condition(f), f.name in routed) for f in found), switched
        )

    def _condition(self, found: Found) -> Condition:
        if not found.running:
            return Condition.STOPPED
        return Condition.HEALTHY if found.name in self.healthy else Condition.RUNNING

    def _routed(self, found: Sequence[Found]) -> frozenset[str]:
        """Who serves. The record is written before each switch, so it tells whom the switch was meant to lead
        to; without one, addresses tell."""
        record = self.host.records.read(self.service.name)
        if record is not None:
            return frozenset(f.name for f in found if f.backend is not None and f.name in record.serving)
        route = self._route_now()
        backends = set(route.backends) if route else set()
        return frozenset(f.name for f in found if f.backend in backends)

    def _route_now(self) -> base.Route | None:
        routes = self.host.traffic.routes()
        return next((route for route in routes if route.service == self.service.name), None)

    def _heal(self, found: Sequence[Found]) -> None:
        """Completes a switch that was interrupted; leads away from what is gone, has moved to another address,
        or from another port, before anything else."""
        route = self._route_now()
        if self.service.publish is None:
            if route is not None:
                self.host.traffic.remove(self.service.name)
            return
        routed = self._routed(found)
        living = {f.backend for f in found if f.name in routed}
        if route is None and not living:
            return
        if route is None or set(route.backends) != living or route.port != self.service.publish:
            self._route(tuple(sorted(routed)))

    def _start(self, name: str) -> None:
        self.host.replicas.start(self.target, int(name.rpartition("-")[2]), self.secrets)

    def _wait(self, names: Sequence[str]) -> None:
        problems = [problem for problem in self._each(names, self._wait_one) if problem]
        if problems:
            raise ReplicaFailed("; ".join(problems))
        self.healthy.update(names)

    def _wait_one(self, name: str) -> str | None:
        found = self.host._present(name)
        health = self.service.health
        problem = wait_healthy(
            self.host.replicas.probe(found, health),
            health or _ANY_HEALTH,
            died=lambda: self.host.replicas.ended(name, found.restarts),
            check=self.check,
        )
        if problem is None:
            return None
        words = self.host.replicas.last_words(name)
        for line in words:
            self.host.say(f"{name}: {line}")
        # The host's own log is far from who reads of the failure: the end of it goes along.
        said = f"; it said: {words[-1][:_WORDS]}" if words else ""
        return f"{name} did not become healthy: {problem}{said}"

    def _route(self, names: Sequence[str]) -> None:
        if self.service.publish is None:
            return
        backends = {f.name: f.backend for f in self.host.replicas.find(self.service.name)}
        chosen = [(name, backend) for name in names if (backend := backends.get(name)) is not None]
        lost = [name for name in names if name in self.healthy and backends.get(name) is None]
        if lost:
            raise ReplicaFailed(f"{', '.join(lost)} ended before it could serve")
        self.host.records.write(Desired(target=self.target, serving=tuple(name for name, _ in chosen)))
        self.host.traffic.switch(
            base.Route(self.service.name, self.service.publish, tuple(backend for _, backend in chosen))
        )
        self.host.say(f"port {self.service.publish} leads to {', '.join(n for n, _ in chosen) or 'nobody'}")

    def _drain(self, names: Sequence[str]) -> None:
        """Waits until the replicas have no connection left, or the service's patience has ended."""
        if self.service.publish is None:
            return
        retiring = [f for f in self.host.replicas.find(self.service.name) if f.name in names and f.running]
        began = time.monotonic()
        while time.monotonic() < began + max(self.service.rollout.drain, _SETTLE):
            self.check()
            busy = [f for f in retiring if f.port and (open_connections(f.pid, f.port) or 0) > 0]
            if not busy and time.monotonic() >= began + _SETTLE:
                return
            time.sleep(_POLL)
        self.host.say(f"{', '.join(names)}: some connections outlasted {self.service.rollout.drain:g} s")

    def _each(self, names: Sequence[str], work: Callable[[str], T]) -> list[T]:
        """All side by side; every one ends before the first error is raised."""
        if len(names) == 1:
            return [work(names[0])]
        with ThreadPoolExecutor(min(len(names), _PARALLEL)) as pool:
            futures = [pool.submit(work, name) for name in names]
        return [future.result() for future in futures]
