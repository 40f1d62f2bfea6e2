"""What the server does by itself: events become runs, hints are sent, time is watched.

Two threads: one turns stored events into runs, in their order; one sweeps. Both go on after any error, for
all they need is in the rows: what did not work now is found again by the next sweep.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future

from deploy.rollback import NothingToReturnTo, UnknownRelease, choose
from pipeline.definition.load import load
from pipeline.definition.models import Definition
from pipeline.definition.problems import DefinitionErrors
from pipeline.errors import Conflict, NotFound, PipelineError, SourceError
from pipeline.plan.compile import PlanContext, compile_plan
from pipeline.plan.models import DeploySpec, Plan, PlannedStage
from pipeline.protocol import Release
from pipeline.settings import Repository, Settings
from pipeline.source.git import Source
from pipeline.store import Store
from pipeline.triggers.event import Event
from pipeline.triggers.match import pipelines_for
from pipeline.views import Ready, RunView, StepReady
from server.dispatch import Dispatcher
from server.live import Feed

log = logging.getLogger("shipway.server")
_GIT_TRIES = 3
_STOP_SECONDS = 1.0


class Conductor:
    def __init__(self, settings: Settings, store: Store, dispatcher: Dispatcher, feed: Feed) -> None:
        self.settings = settings
        self.store = store
        self.dispatcher = dispatcher
        self.feed = feed
        self._news = threading.Event()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._tries: dict[int, int] = {}
        self._accepting = threading.Lock()
        self._awaited: dict[int, Future[list[RunView]]] = {}
        self.broker_ok = True

    def start(self) -> None:
        for name, loop in (("events", self._events_loop), ("sweep", self._sweep_loop)):
            thread = threading.Thread(target=loop, name=f"shipway-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Ends the threads. One that waits for git is left behind: its event is still there at the next start."""
        self._stop.set()
        self._news.set()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    @property
    def alive(self) -> bool:
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    # Events

    def accept(self, event: Event, *, hook: str, delivery: str | None) -> int | None:
        """Stores an event; its runs come soon after. None: this delivery was here before."""
        number = self.store.record_event(event, hook=hook, delivery=delivery)
        if number is not None:
            self._news.set()
        return number

    def accept_and_plan(
        self, event: Event, *, hook: str, delivery: str | None, patience: float
    ) -> tuple[int, list[RunView]] | None:
        """As `accept`, with the event's runs as far as they were made within `patience` seconds."""
        with self._accepting:
            number = self.accept(event, hook=hook, delivery=delivery)
            if number is None:
                return None
            planned = self._awaited[number] = Future()
        try:
            return number, planned.result(patience)
        except TimeoutError:
            return number, []
        finally:
            del self._awaited[number]

    def _pending(self) -> list[tuple[int, Event]]:
        with self._accepting:  # whoever has stored one waits for it by now
            return self.store.pending_events()

    def _events_loop(self) -> None:
        while not self._stop.is_set():
            self._news.clear()
            try:
                for number, event in self._pending():
                    if self._stop.is_set():
                        return
                    self._plan_event(number, event)
            except Exception:
                log.exception("planning events failed; trying again")
                self._stop.wait(1.0)
            self._news.wait(timeout=max(1.0, self.settings.sweep_seconds))

    def _plan_event(self, number: int, event: Event) -> None:
        runs: list[RunView] = []
        try:
            runs = self.plan_event(number, event)
        except Exception:
            # One that can't be planned must not hold up the others.
            log.exception("planning event %s failed; trying again", number)
        awaited = self._awaited.get(number)
        if awaited is not None and not awaited.done():
            awaited.set_result(runs)

    def plan_event(self, number: int, event: Event) -> list[RunView]:
        """The runs that an event starts. The event is done with afterwards, whatever came of it."""
        repository = self.settings.repositories.get(event.repository)
        if repository is None or event.deleted:
            self.store.finish_event(number, state="ignored", error="" if event.deleted else "unknown repository")
            return []
        try:
            runs = self._runs_of(number, event, repository)
        except SourceError as error:
            tries = self._tries[number] = self._tries.get(number, 0) + 1
            if tries < _GIT_TRIES:
                log.warning("event %s: %s; trying again", number, error)
                return []
            runs = [self.store.refuse_run(event, reason=str(error), event_id=number)]
        except (DefinitionErrors, PipelineError) as error:
            runs = [self.store.refuse_run(event, reason=str(error), event_id=number)]
        self._tries.pop(number, None)
        self.store.finish_event(number, state="planned" if runs else "ignored")
        for run in runs:
            self.advance(run.id)
        self.feed.touch()
        return runs

    def _runs_of(self, number: int, event: Event, repository: Repository) -> list[RunView]:
        token = repository.token.get_secret_value() if repository.token else None
        with Source(repository.url, event.sha, ref=event.ref, token=token) as source:
            text = source.read(repository.pipelines_file)
            definition = load(text, repository.pipelines_file)
            commit = source.commit()
            event = event.model_copy(
                update={
                    "url": repository.url,
                    "message": commit.message,
                    "author": commit.author,
                    "committed": commit.committed,
                }
            )
            names = pipelines_for(definition, event, lambda: self._changed(source, event))
            self._note_schedules(source, event, definition)
        context = PlanContext(event=event, filename=repository.pipelines_file)
        plans = [compile_plan(definition, name, context) for name in names]
        return [self.store.create_run(plan, event, event_id=number) for plan in plans]

    def _note_schedules(self, source: Source, event: Event, definition: Definition) -> None:
        """A push to the default branch says when its pipelines start by themselves."""
        schedules = {pipeline.on.schedule for pipeline in definition.pipelines.values() if pipeline.on.schedule}
        if event.kind != "push" or not (schedules or self.store.has_schedules(event.repository)):
            return
        if source.default_branch() == event.ref:
            self.store.set_schedules(event, schedules)

    @staticmethod
    def _changed(source: Source, event: Event) -> Iterable[str] | None:
        return event.files if event.files is not None else source.changed(event.before)

    # Runs

    def advance(self, run: int) -> None:
        self.send(self.store.advance(run))
        self.feed.touch()

    def send(self, ready: Iterable[Ready], steps: Iterable[StepReady] = ()) -> None:
        """Hands hints to the broker. One that can't be sent is due again soon, by the store's own clock."""
        try:
            for hint in ready:
                self.dispatcher.attempt(hint.attempt, hint.labels, hint.near)
            for step in steps:
                self.dispatcher.step(step.step, step.host)
        except Exception as error:
            if self.broker_ok:
                log.warning("hints can't be sent now: %s", error)
            self.broker_ok = False
        else:
            self.broker_ok = True

    def _sweep_loop(self) -> None:
        while not self._stop.wait(self.settings.sweep_seconds):
            try:
                self.sweep()
            except Exception:
                log.exception("the sweep failed; trying again")

    def sweep(self) -> None:
        swept = self.store.sweep()
        for attempt in swept.lost:
            log.warning("attempt %s lost its worker", attempt)
        self.send(swept.ready, swept.steps)
        if swept.events:
            self._news.set()
        if swept.ready or swept.lost or swept.stranded:
            self.feed.touch()

    # Wishes

    def deploy(self, service: str, image: str | None, *, who: str = "") -> RunView:
        """A run that rolls out an image as a service, with its live configuration."""
        view = self.store.get_service(service)
        if image is None:
            if view.release is None:
                raise Conflict(f"{service} has no live release: name an image")
            image = view.release.image
        if "@sha256:" not in image:
            raise Conflict("name the image by its digest: repository@sha256:…")
        spec = DeploySpec(service=view.spec, image=image)
        return self._manual(view.repository, spec, f"deploy {service} {image}", who)

    def rollback(self, service: str, release: str | None, *, who: str = "") -> RunView:
        """A run that rolls out an earlier release again: its image and its configuration."""
        target = self._rollback_target(service, release)
        spec = DeploySpec(service=target.spec, image=target.image, environment=target.environment, rollback=True)
        return self._manual(target.repository, spec, f"roll {service} back to {target.id}", who, target.commit)

    def _rollback_target(self, service: str, release: str | None) -> Release:
        try:
            return choose(self.store.list_releases(service, limit=500), release)
        except UnknownRelease as error:
            raise NotFound(str(error)) from None
        except NothingToReturnTo as error:
            raise Conflict(f"{service}: {error}") from None

    def earlier_release(self, service: str) -> Release | None:
        """Where a rollback without a named release leads."""
        try:
            return choose(self.store.list_releases(service, limit=500))
        except NothingToReturnTo:
            return None

    def _manual(self, repository: str, spec: DeploySpec, title: str, who: str, commit: str = "") -> RunView:
        stage = PlannedStage(name="deploy", base="deploy", spec=spec, lock=f"deploy:{spec.service.name}")
        plan = Plan(pipeline="deploy", stages=(stage,))
        event = Event(kind="manual", repository=repository, sha=commit, author=who)
        run = self.store.create_run(plan, event, title=title)
        self.advance(run.id)
        return run
