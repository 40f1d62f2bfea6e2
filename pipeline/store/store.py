"""The face of the store: each method is one transaction. Thread-safe and blocking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from pipeline.plan.models import Plan
from pipeline.protocol import (
    Claim,
    Heartbeat,
    HeartbeatReply,
    HostInfo,
    HostStep,
    LogLine,
    NewHostStep,
    NewRelease,
    NewRollout,
    Outcome,
    Registration,
    Release,
    Renewal,
    Rollout,
    RolloutUpdate,
    StepClaim,
    StepOutcome,
    WorkerInfo,
)
from pipeline.triggers.event import Event
from pipeline.views import Ready, RunView, ServiceView, StoredLine, Swept


class Store:
    """See each method. Raises NotFound, Conflict, LeaseLost."""

    def close(self) -> None: ...

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Events and runs

    def record_event(self, event: Event, *, hook: str = "", delivery: str | None = None) -> int | None:
        """The event's id; None when this delivery of this hook is here already."""
        raise NotImplementedError

    def create_run(
        self, plan: Plan, event: Event, *, event_id: int | None = None, title: str = ""
    ) -> RunView:
        raise NotImplementedError

    def list_runs(
        self,
        *,
        limit: int = 50,
        before: int | None = None,
        pipeline: str | None = None,
        branch: str | None = None,
        states: Iterable[str] = (),
        repository: str | None = None,
    ) -> list[RunView]:
        """The newest first."""
        raise NotImplementedError

    def get_run(self, run: int) -> RunView:
        raise NotImplementedError

    def plan_of(self, run: int) -> Plan:
        raise NotImplementedError

    def advance(self, run: int) -> list[Ready]:
        """Decides what may start or must be skipped now, and marks it; gives the hints to send."""
        raise NotImplementedError

    def cancel(self, run: int, *, reason: str = "") -> RunView:
        """What has not started never will; what runs is told at its next renewal."""
        raise NotImplementedError

    def retry(self, run: int, *, from_stage: str | None = None) -> RunView:
        """Runs an ended run again from a stage on, or what did not pass."""
        raise NotImplementedError

    def approve(self, run: int, stage: str, *, who: str = "") -> RunView:
        raise NotImplementedError

    # Attempts

    def claim(self, attempt: str, worker: str) -> Claim | None:
        raise NotImplementedError

    def renew(self, attempt: str, token: str) -> Renewal:
        raise NotImplementedError

    def append_logs(self, attempt: str, token: str, lines: Sequence[LogLine]) -> None:
        raise NotImplementedError

    def finish(self, attempt: str, token: str, outcome: Outcome) -> int:
        """The id of its run: `advance` it."""
        raise NotImplementedError

    def read_logs(
        self,
        run: int,
        stage: str,
        *,
        attempt: int | None = None,
        after: int = 0,
        limit: int = 1000,
        tail: int | None = None,
    ) -> list[StoredLine]:
        """Lines of a stage's attempts (all of them, or the one of that number) in order, after an id."""
        raise NotImplementedError

    def sweep(self, now: float | None = None) -> Swept:
        """Fences leases that ran out, ends deadlines, and finds hints to send (again)."""
        raise NotImplementedError

    # Workers

    def register_worker(self, info: WorkerInfo) -> Registration:
        raise NotImplementedError

    def heartbeat(self, beat: Heartbeat) -> HeartbeatReply:
        raise NotImplementedError

    def hosts(self, labels: dict[str, str] | None = None) -> list[HostInfo]:
        raise NotImplementedError

    # Services, releases, rollouts

    def list_services(self) -> list[ServiceView]:
        raise NotImplementedError

    def get_service(self, service: str) -> ServiceView:
        raise NotImplementedError

    def list_releases(self, service: str, *, limit: int = 50) -> list[Release]:
        """The newest first."""
        raise NotImplementedError

    def get_release(self, release: str) -> Release:
        raise NotImplementedError

    def current_release(self, service: str) -> Release | None:
        raise NotImplementedError

    def record_release(self, attempt: str, token: str, release: NewRelease) -> Release:
        raise NotImplementedError

    def begin_rollout(self, attempt: str, token: str, rollout: NewRollout) -> Rollout:
        raise NotImplementedError

    def get_rollout(self, rollout: int) -> Rollout:
        raise NotImplementedError

    def update_rollout(self, attempt: str, token: str, rollout: int, update: RolloutUpdate) -> Rollout:
        raise NotImplementedError

    def request_step(self, attempt: str, token: str, rollout: int, step: NewHostStep) -> HostStep:
        raise NotImplementedError

    def abandon_steps(self, attempt: str, token: str, rollout: int) -> None:
        raise NotImplementedError

    def steps(self, rollout: int) -> list[HostStep]:
        raise NotImplementedError

    def pending_steps(self, worker: str) -> list[int]:
        raise NotImplementedError

    def claim_step(self, step: int, worker: str) -> StepClaim | None:
        raise NotImplementedError

    def renew_step(self, step: int, token: str) -> Renewal:
        raise NotImplementedError

    def finish_step(self, step: int, token: str, outcome: StepOutcome) -> None:
        raise NotImplementedError


def open_store(
    url: str,
    *,
    lease_seconds: float = 10.0,
    heartbeat_seconds: float = 2.0,
    registry: str = "",
    secrets_folder: Path | None = None,
) -> Store:
    """Opens the database, makes or upgrades its tables. `sqlite:////path/file.db` or PostgreSQL's URL."""
    raise NotImplementedError
