"""The face of the store: each method is one transaction. Thread-safe and blocking."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType

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
    Outputs,
    Registration,
    Release,
    Renewal,
    Rollout,
    RolloutUpdate,
    StepClaim,
    StepOutcome,
    WorkerInfo,
)
from pipeline.secrets import SecretFolder
from pipeline.store import attempts, history, logs, releases, runs, services, steps, workers
from pipeline.store import figures as counting
from pipeline.store import schedules as scheduling
from pipeline.store import sweep as sweeping
from pipeline.store import tables as t
from pipeline.store.context import LOG_SIZE, WORKER_PATIENCE, Context, known_hosts
from pipeline.store.database import Database
from pipeline.store.figures import Figures
from pipeline.store.rows import one
from pipeline.triggers.event import Event
from pipeline.views import PastRelease, Ready, RunView, ServiceView, StoredLine, Swept


class Store:
    """See each method. Raises NotFound, Conflict, LeaseLost."""

    def __init__(self, database: Database, context: Context) -> None:
        self._database = database
        self._context = context

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Events and runs

    def record_event(self, event: Event, *, hook: str = "", delivery: str | None = None) -> int | None:
        """The event's id; None when this delivery of this hook is here already."""
        with self._database.write() as connection:
            return runs.record_event(connection, self._context, event, hook, delivery)

    def pending_events(self) -> list[tuple[int, Event]]:
        """Those stored and not yet turned into runs."""
        with self._database.read() as connection:
            return runs.pending_events(connection)

    def finish_event(self, event: int, *, state: str, error: str = "") -> None:
        """`planned`, `ignored` or `failed`: it is not pending any more."""
        with self._database.write() as connection:
            runs.finish_event(connection, event, state, error)

    def refuse_run(
        self, event: Event, *, reason: str, pipeline: str = "pipelines.yaml", event_id: int | None = None
    ) -> RunView:
        """Records a run that failed before it had stages, so that people see why nothing happened."""
        with self._database.write() as connection:
            return runs.refuse_run(connection, self._context, event, event_id, pipeline, reason)

    def create_run(
        self,
        plan: Plan,
        event: Event,
        *,
        event_id: int | None = None,
        title: str = "",
        done: Mapping[str, Outputs] = MappingProxyType({}),
    ) -> RunView:
        """A run with its stages, none begun. `done` are those that passed in an earlier run, with what they gave.

        The same event and pipeline give the same run.
        """
        with self._database.write() as connection:
            return runs.create_run(connection, self._context, plan, event, event_id, title, done)

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
        with self._database.read() as connection:
            return runs.list_runs(
                connection,
                self._context,
                limit=limit,
                before=before,
                pipeline=pipeline,
                branch=branch,
                states=states,
                repository=repository,
            )

    def get_run(self, run: int) -> RunView:
        with self._database.read() as connection:
            return runs.get_run(connection, self._context, run)

    def plan_of(self, run: int) -> Plan:
        with self._database.read() as connection:
            row = one(connection, t.runs, f"run {run}", t.runs.c.id == run)
            return Plan.model_validate_json(row.plan)

    def advance(self, run: int) -> list[Ready]:
        """Decides what may start or must be skipped now, and marks it; gives the hints to send."""
        with self._database.write() as connection:
            runs.advance(connection, self._context, run)
            return sweeping.due_hints(connection, self._context)

    def cancel(self, run: int, *, reason: str = "") -> RunView:
        """What has not started never will; what runs is told at its next renewal."""
        with self._database.write() as connection:
            runs.cancel(connection, self._context, run, reason)
            return runs.get_run(connection, self._context, run)

    def retry(self, run: int, *, from_stage: str | None = None) -> RunView:
        """Runs an ended run again from a stage on, or what did not pass."""
        with self._database.write() as connection:
            runs.retry(connection, self._context, run, from_stage)
            return runs.get_run(connection, self._context, run)

    def approve(self, run: int, stage: str, *, who: str = "") -> RunView:
        with self._database.write() as connection:
            runs.approve(connection, self._context, run, stage, who)
            return runs.get_run(connection, self._context, run)

    # Schedules

    def set_schedules(self, event: Event, schedules: Iterable[str]) -> None:
        """Makes these the schedules of the event's repository, to start runs of its commit. Raises ValueError."""
        with self._database.write() as connection:
            scheduling.set_schedules(connection, self._context, event, schedules)

    def has_schedules(self, repository: str) -> bool:
        with self._database.read() as connection:
            return scheduling.has_schedules(connection, repository)

    # Attempts

    def claim(self, attempt: str, worker: str) -> Claim | None:
        with self._database.write() as connection:
            return attempts.claim(connection, self._context, attempt, worker)

    def renew(self, attempt: str, token: str) -> Renewal:
        with self._database.write() as connection:
            return attempts.renew(connection, self._context, attempt, token)

    def append_logs(self, attempt: str, token: str, lines: Sequence[LogLine]) -> None:
        with self._database.write() as connection:
            logs.append(connection, self._context, attempt, token, lines)

    def finish(self, attempt: str, token: str, outcome: Outcome) -> int:
        """The id of its run: `advance` it."""
        with self._database.write() as connection:
            run = attempts.finish(connection, self._context, attempt, token, outcome)
            runs.advance(connection, self._context, run)
            return run

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
        with self._database.read() as connection:
            return logs.read(connection, run, stage, attempt=attempt, after=after, limit=limit, tail=tail)

    def sweep(self) -> Swept:
        """Fences leases that ran out, ends deadlines, makes events of schedules, and finds hints to send (again)."""
        with self._database.write() as connection:
            return sweeping.sweep(connection, self._context)

    def figures(self) -> Figures:
        """Numbers for the metrics."""
        with self._database.read() as connection:
            return counting.figures(connection, self._context)

    # Workers

    def register_worker(self, info: WorkerInfo) -> Registration:
        with self._database.write() as connection:
            return workers.register(connection, self._context, info)

    def heartbeat(self, beat: Heartbeat) -> HeartbeatReply:
        with self._database.write() as connection:
            return workers.heartbeat(connection, self._context, beat)

    def forget_worker(self, worker: str) -> None:
        with self._database.write() as connection:
            workers.forget(connection, self._context, worker)

    def hosts(self, labels: dict[str, str] | None = None) -> list[HostInfo]:
        with self._database.read() as connection:
            return known_hosts(connection, self._context, labels or {})

    # Services, releases, rollouts

    def list_services(self) -> list[ServiceView]:
        with self._database.read() as connection:
            return services.list_services(connection, self._context)

    def get_service(self, service: str) -> ServiceView:
        with self._database.read() as connection:
            return services.get_service(connection, self._context, service)

    def list_releases(self, service: str, *, limit: int = 50) -> list[Release]:
        """The newest first."""
        with self._database.read() as connection:
            return releases.list_releases(connection, service, limit)

    def past_releases(self, service: str, *, limit: int = 50) -> list[PastRelease]:
        """The newest first, with how each was rolled out."""
        with self._database.read() as connection:
            return history.past_releases(connection, service, limit)

    def get_release(self, release: str) -> Release:
        with self._database.read() as connection:
            return releases.get_release(connection, release)

    def current_release(self, service: str) -> Release | None:
        with self._database.read() as connection:
            return releases.current_release(connection, service)

    def record_release(self, attempt: str, token: str, release: NewRelease) -> Release:
        with self._database.write() as connection:
            return releases.record_release(connection, self._context, attempt, token, release)

    def begin_rollout(self, attempt: str, token: str, rollout: NewRollout) -> Rollout:
        with self._database.write() as connection:
            return releases.begin_rollout(connection, self._context, attempt, token, rollout)

    def get_rollout(self, rollout: int) -> Rollout:
        with self._database.read() as connection:
            return releases.get_rollout(connection, rollout)

    def update_rollout(self, attempt: str, token: str, rollout: int, update: RolloutUpdate) -> Rollout:
        with self._database.write() as connection:
            return releases.update_rollout(connection, self._context, attempt, token, rollout, update)

    def request_step(self, attempt: str, token: str, rollout: int, step: NewHostStep) -> HostStep:
        with self._database.write() as connection:
            return steps.request_step(connection, self._context, attempt, token, rollout, step)

    def abandon_steps(self, attempt: str, token: str, rollout: int) -> None:
        with self._database.write() as connection:
            steps.abandon_steps(connection, attempt, token, rollout)

    def steps(self, rollout: int) -> list[HostStep]:
        with self._database.read() as connection:
            return steps.list_steps(connection, rollout)

    def pending_steps(self, worker: str) -> list[int]:
        with self._database.read() as connection:
            return workers.pending_steps(connection, worker)

    def claim_step(self, step: int, worker: str) -> StepClaim | None:
        with self._database.write() as connection:
            return steps.claim_step(connection, self._context, step, worker)

    def renew_step(self, step: int, token: str) -> Renewal:
        with self._database.write() as connection:
            return steps.renew_step(connection, self._context, step, token)

    def finish_step(self, step: int, token: str, outcome: StepOutcome) -> None:
        with self._database.write() as connection:
            steps.finish_step(connection, step, token, outcome)


def open_store(
    url: str,
    *,
    lease_seconds: float = 10.0,
    heartbeat_seconds: float = 2.0,
    registry: str = "",
    log_size: int = LOG_SIZE,
    worker_patience: float = WORKER_PATIENCE,
    secrets_folder: Path | None = None,
    clock: Callable[[], float] = time.time,
) -> Store:
    """Opens the database, makes or upgrades its tables. `sqlite:////path/file.db` or PostgreSQL's URL.

    Raises SettingsError when it can't be reached, is somebody else's, or is newer than this program.
    """
    database = Database(url)
    try:
        database.migrate()
    except BaseException:
        database.close()
        raise
    context = Context(
        lease_seconds=lease_seconds,
        heartbeat_seconds=heartbeat_seconds,
        registry=registry,
        log_size=log_size,
        worker_patience=worker_patience,
        secrets=SecretFolder(secrets_folder),
        clock=clock,
    )
    return Store(database, context)
