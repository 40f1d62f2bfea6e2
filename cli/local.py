"""A whole run in this process: the server's store and scheduler, and a worker's hands, without either.

Each checkout has a folder of its own with its runs, so that a later run can go on where an earlier one ended.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from cli.api import me
from cli.errors import CommandError, UsageError
from cli.progress import Progress
from cli.selection import Selection
from deploy.replicas import Replicas
from deploy.traffic.nftables import DEFAULT_TABLE, NftTraffic
from pipeline.local import LocalStageClient
from pipeline.plan.models import DeploySpec
from pipeline.protocol import Claim, Heartbeat, Outputs, WorkerInfo
from pipeline.run.states import RUN_ENDED, STAGE_ENDED, RunState, StageState
from pipeline.settings import Settings
from pipeline.store import Store, open_store
from pipeline.triggers.event import Event
from pipeline.views import RunView
from workers.runner import Runner
from workers.upkeep import sweep as sweep_engine

WORKER = "local"
_POLL = 0.05
_SWEEP_SECONDS = 1.0
_RENEW_WITHIN = 2.0
"""Seconds: how soon a stage hears that it was cancelled."""

_KEPT_RUNS = 20
"""Whose artifacts are kept."""

Approve = Callable[[str], bool]
"""Asks whether a stage may go on."""


class _Client(LocalStageClient):
    """As the server's, but stages look at their lease more often: asking costs nothing here."""

    def claim(self, attempt: str, worker: str) -> Claim | None:
        claim = super().claim(attempt, worker)
        return claim and claim.model_copy(update={"lease_seconds": min(_RENEW_WITHIN, claim.lease_seconds)})


class Checkout:
    """The runs of one checkout, and an engine to do them with. Made by `open_checkout`."""

    def __init__(self, store: Store, engine: str, folder: Path, concurrency: int) -> None:
        self.store = store
        self._concurrency = concurrency
        table = f"{DEFAULT_TABLE}_{folder.name.rpartition('-')[2]}"
        self._runner = Runner(_Client(store), engine, folder / "work", WORKER, NftTraffic(table), inline=True)
        self._news = threading.Event()
        self._interrupts = 0
        self._failure: Exception | None = None

    def close(self) -> None:
        self._runner.close()

    def begin(self, selection: Selection, event: Event) -> RunView:
        """Records the run. Raises UsageError when it needs a stage that never passed here."""
        names = [stage.name for stage in selection.plan.stages if stage.name in selection.earlier]
        done = {name: self._earlier(selection, name) for name in names}
        return self.store.create_run(selection.plan, event, done=done)

    def _earlier(self, selection: Selection, name: str) -> Outputs:
        pipeline = selection.plan.pipeline
        for run in self.store.list_runs(pipeline=pipeline, limit=500):
            stage = run.stage(name)
            if stage is not None and stage.state is StageState.PASSED:
                return stage.outputs
        if name in selection.optional:
            return Outputs()
        base = selection.plan.stage(name).base
        raise UsageError(f"the stage {name} must pass before, and never did in this checkout: begin with --from {base}")

    def check_services(self, selection: Selection) -> None:
        """Raises UsageError when the run would deploy a service that somebody else runs on this machine."""
        stages = [stage for stage in selection.plan.stages if stage.name not in selection.earlier]
        wanted = {stage.spec.service.name for stage in stages if isinstance(stage.spec, DeploySpec)}
        if not wanted:
            return
        ours = {
            release.id
            for view in self.store.list_services()
            for release in self.store.list_releases(view.name, limit=500)
        }
        for found in Replicas(self._runner.engine()).find():
            if found.service in wanted and found.release not in ours:
                raise UsageError(
                    f"the service {found.service} runs here already and was not deployed from this checkout:"
                    " push to deploy it, or leave the stage out with --only"
                )

    def drive(self, run: int, progress: Progress, approve: Approve) -> RunView:
        """Does the run to its end. The first SIGINT or SIGTERM cancels it, a second one ends this process."""
        sweep_engine(self._runner.engine())
        self.store.register_worker(WorkerInfo(name=WORKER, concurrency=self._concurrency))
        told: dict[str, int | None] = {}
        swept, cancelled = 0.0, False
        with self._interruptible(), ThreadPoolExecutor(self._concurrency, thread_name_prefix="stage") as pool:
            try:
                while True:
                    self._news.clear()
                    now = time.monotonic()
                    ready = list(self.store.advance(run))
                    if now - swept >= _SWEEP_SECONDS:
                        swept = now
                        self.store.heartbeat(Heartbeat(worker=WORKER))
                        ready += self.store.sweep().ready
                    for hint in ready:
                        if hint.run == run:
                            pool.submit(self._attempt, hint.attempt)
                    view = self.store.get_run(run)
                    self._tell(view, progress, told)
                    if self._failure is not None:
                        raise self._failure
                    if view.state in RUN_ENDED:
                        return view
                    if self._interrupts and not cancelled:
                        cancelled = True
                        self._cancel(run, "interrupted")
                    self._ask(view, progress, approve)
                    self._news.wait(_POLL)
            except BaseException:
                # Nobody looks any more: such as a reader that has seen enough.
                self._cancel(run, "its process ended")
                raise

    def _attempt(self, attempt: str) -> None:
        try:
            self._runner.attempt(attempt)
        except Exception as error:
            # A stage's failures are outcomes; this is the store's, or ours.
            self._failure = error
        finally:
            self._news.set()

    def _tell(self, view: RunView, progress: Progress, told: dict[str, int | None]) -> None:
        """The log first, then the states: a stage's last words come before its end. `told` is kept between calls."""
        for stage in view.stages:
            after = told.get(stage.name, 0) if stage.attempts else None
            while after is not None and (lines := self.store.read_logs(view.id, stage.name, after=after)):
                progress.log(stage.name, lines)
                after = told[stage.name] = lines[-1].id
            if stage.state in STAGE_ENDED:
                told[stage.name] = None
        progress.show(view)

    def _ask(self, view: RunView, progress: Progress, approve: Approve) -> None:
        """Approvals are asked for when nothing else is under way."""
        waiting = [stage.name for stage in view.stages if stage.state is StageState.WAITING]
        if not waiting or self._interrupts or any(stage.state is StageState.RUNNING for stage in view.stages):
            return
        progress.pause()
        if approve(waiting[0]):
            self.store.approve(view.id, waiting[0], who=me())
        else:
            self._cancel(view.id, f"{waiting[0]} was not approved")

    def _cancel(self, run: int, reason: str) -> None:
        if self.store.get_run(run).state not in RUN_ENDED:
            self.store.cancel(run, reason=reason)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        def interrupt(*_: object) -> None:
            self._interrupts += 1
            if self._interrupts > 1:
                os._exit(130)  # what the stages left behind is removed by the next run
            self._news.set()

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def open_checkout(folder: Path, settings: Settings, engine: str) -> Iterator[Checkout]:
    """The runs of the checkout at `folder`, for this process alone. Raises CommandError."""
    mark = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    place = settings.data / "local" / f"{folder.name or 'root'}-{mark}"
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (place / "lock").open("a")
    except OSError as error:
        remedy = "set SHIPWAY_DATA to a folder that you may write to"
        raise CommandError(f"{place}: {(error.strerror or 'unusable').lower()}: {remedy}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(f"another `shipway run` is at work in {folder}: wait until it has ended") from None
        url = f"sqlite:///{place / 'runs.db'}"
        with open_store(
            url,
            registry=settings.registry_url,
            log_size=settings.log_size,
            secrets_folder=settings.secrets_folder,
        ) as store:
            for dead in store.list_runs(states=(RunState.QUEUED, RunState.RUNNING), limit=500):
                store.cancel(dead.id, reason="its process ended")
            _forget_artifacts(place / "work" / "artifacts", store)
            with closing(Checkout(store, engine, place, max(2, settings.worker_concurrency))) as checkout:
                yield checkout


def _forget_artifacts(folder: Path, store: Store) -> None:
    """Keeps those of the last runs. An attempt's folder begins with the number of its run."""
    newest = next((run.id for run in store.list_runs(limit=1)), 0)
    for kept in folder.glob("*.*"):
        run = kept.name.partition(".")[0]
        if run.isdigit() and int(run) <= newest - _KEPT_RUNS:
            shutil.rmtree(kept, ignore_errors=True)
