"""A store with the server's and the workers' parts done by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.plan.models import Concurrency, DeploySpec, Plan, PlannedStage, RunSpec
from pipeline.protocol import Claim, NewRelease, NewRollout, Outcome, Outputs, Release, Result, Rollout, WorkerInfo
from pipeline.services import NamedService
from pipeline.store import Store, open_store
from pipeline.triggers.event import Event
from pipeline.views import AttemptView, RunView, StageView

SHA = "a1" * 20
DIGEST = "sha256:" + "d" * 64
LEASE = 10.0


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds


def stage(name: str, *needs: str, **options: Any) -> PlannedStage:
    spec = options.pop("spec", RunSpec(image="a", run=("true",)))
    return PlannedStage(name=name, base=options.pop("base", name), needs=needs, spec=spec, **options)


def deploy_stage(name: str = "live", *needs: str, service: str = "web", **options: Any) -> PlannedStage:
    spec = DeploySpec(service=NamedService(name=service), image=f"r/web@{DIGEST}")
    return stage(name, *needs, spec=spec, lock=f"deploy:{service}", **options)


def push(**options: Any) -> Event:
    return Event(**{"kind": "push", "repository": "r", "ref": "refs/heads/main", "sha": SHA, "url": "/r", **options})


@dataclass
class Line:
    store: Store
    clock: Clock
    secrets: Path

    @classmethod
    @contextmanager
    def open(cls, url: str, clock: Clock, secrets: Path) -> Iterator[Line]:
        secrets.mkdir(exist_ok=True)
        with open_store(url, lease_seconds=LEASE, secrets_folder=secrets, clock=clock) as store:
            line = cls(store, clock, secrets)
            line.worker("w1")
            yield line

    def worker(self, name: str, **labels: str) -> None:
        self.store.register_worker(WorkerInfo(name=name, labels=labels))

    def begin(self, *stages: PlannedStage, event: Event | None = None, **options: Any) -> int:
        group, cancel = options.pop("group", None), options.pop("cancel", "none")
        concurrency = Concurrency(group=group, cancel=cancel) if group else None
        plan = Plan(pipeline=options.pop("pipeline", "web"), stages=stages, concurrency=concurrency)
        run = self.store.create_run(plan, event or push(), **options)
        self.store.advance(run.id)
        return run.id

    def run(self, run: int) -> RunView:
        return self.store.get_run(run)

    def stage(self, run: int, name: str) -> StageView:
        found = self.run(run).stage(name)
        assert found is not None
        return found

    def states(self, run: int) -> dict[str, str]:
        return {each.name: each.state.value for each in self.run(run).stages}

    def attempt(self, run: int, name: str) -> AttemptView:
        return self.stage(run, name).attempts[-1]

    def try_claim(self, run: int, name: str, worker: str = "w1") -> Claim | None:
        return self.store.claim(self.attempt(run, name).id, worker)

    def claim(self, run: int, name: str, worker: str = "w1") -> Claim:
        claim = self.try_claim(run, name, worker)
        assert claim is not None
        return claim

    def finish(self, claim: Claim, result: Result = Result.PASSED, **outcome: Any) -> None:
        self.store.finish(claim.attempt, claim.token, Outcome(result=result, **outcome))

    def do(self, run: int, name: str, result: Result = Result.PASSED, **outcome: Any) -> Claim:
        """Claims the stage and ends it."""
        claim = self.claim(run, name)
        self.finish(claim, result, **outcome)
        return claim

    def lose(self) -> tuple[str, ...]:
        """Nobody renews for a whole lease."""
        self.clock.tick(LEASE + 1)
        return self.store.sweep().lost

    def release(self, claim: Claim, service: str = "web", **options: Any) -> Release:
        new = NewRelease(service=NamedService(name=service), image=f"r/web@{DIGEST}", digest=DIGEST, **options)
        return self.store.record_release(claim.attempt, claim.token, new)

    def rollout(self, claim: Claim, release: Release, *hosts: str) -> Rollout:
        return self.store.begin_rollout(
            claim.attempt, claim.token, NewRollout(release=release.id, hosts=hosts or ("w1",))
        )


def image(name: str = "image") -> Outputs:
    return Outputs(image=name, image_id=DIGEST)
