"""The worker's main process: speaks for its host, keeps it in order, and keeps the stage process alive."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from kombu.connection import Connection

from deploy.replicas import Replicas
from deploy.traffic.base import TrafficError
from pipeline.errors import Busy, PipelineError
from pipeline.protocol import Heartbeat, Registration, WorkerInfo
from pipeline.settings import Settings
from workers.app import make_app
from workers.client import HttpStageClient
from workers.engine import connect
from workers.executors.base import ATTEMPT_LABEL, StageFailed
from workers.exposition import Door
from workers.keeping import Keeping
from workers.keeping import sweep as keep_artifacts
from workers.place import broker_url, metrics_folder, ready_file, traffic_of, work_folder
from workers.runner import Runner
from workers.steps import Steps
from workers.upkeep import Upkeep, every, sweep

log = logging.getLogger(__name__)

_CONVERGE_SECONDS = 2.0
_SWEEP_SECONDS = 5.0
_KEEP_SECONDS = 60.0
_STOP_SECONDS = 10.0


class Agent:
    """One worker. `run` returns after SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, listen: tuple[str, int], *, clear_traffic: bool = False) -> None:
        self._settings = settings
        self._client = HttpStageClient(settings.server_url, settings.read_worker_token)
        self._traffic = traffic_of(settings)
        self._runner = Runner(self._client, settings.engine, work_folder(settings), settings.worker_name, self._traffic)
        self._clear_traffic = clear_traffic
        self._stopping = threading.Event()
        self._registered = threading.Event()
        self._registration: Registration | None = None
        self._upkeep: Upkeep | None = None
        self._nudge = threading.Event()
        self._stages: subprocess.Popen[bytes] | None = None
        self._starts: list[float] = []
        self._door = Door(
            listen,
            ready=self._ready,
            metrics_folder=str(metrics_folder(settings)),
            engine_url=settings.engine,
        )
        connection = make_app(broker_url(settings)).connection_for_read()
        assert isinstance(connection, Connection)
        self._steps = Steps(connection, self._runner)

    def run(self) -> None:
        """Until told to stop; the stage process ends with it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        ready_file(self._settings).unlink(missing_ok=True)
        self._door.start()
        threads = [
            threading.Thread(target=loop, name=loop.__name__, daemon=True)
            for loop in (self._beat_loop, self._converge_loop, self._sweep_loop, self._keep_loop, self._event_loop)
        ]
        for thread in threads:
            thread.start()
        self._steps.start()
        try:
            while not self._stopping.wait(0.1):
                self._tend_stages()
        finally:
            self._close()

    def _ready(self) -> bool:
        return self._registered.is_set() and ready_file(self._settings).exists()

    def _tend_stages(self) -> None:
        """Starts the stage process; starts it again, with growing pauses, when it died."""
        if self._stages is not None and self._stages.poll() is None:
            return
        now = time.monotonic()
        if self._stages is not None:
            log.warning("the stage process ended with %s", self._stages.returncode)
            ready_file(self._settings).unlink(missing_ok=True)
        self._starts = [start for start in self._starts if now - start < 60]
        if self._starts and self._stopping.wait(min(10.0, 0.2 * 2 ** len(self._starts))):
            return
        self._starts.append(now)
        self._stages = subprocess.Popen(
            [sys.executable, "-m", "workers.stages"], stdin=subprocess.DEVNULL, start_new_session=True
        )

    def _beat_loop(self) -> None:
        while not self._stopping.is_set():
            pause = 1.0
            try:
                pause = self._beat()
            except Busy as error:
                log.info("%s", error)
            except PipelineError as error:
                log.warning("the server refuses this worker: %s", error)
            except Exception:
                log.exception("heartbeat")
            self._stopping.wait(pause)

    def _beat(self) -> float:
        """One word to the server; gives the seconds until the next."""
        if self._registration is None:
            self._registration = self._client.register_worker(self._info())
            self._registered.set()
            log.info("registered as %s", self._settings.worker_name)
        reply = self._client.heartbeat(self._state())
        if not reply.known:
            self._registration = None
            return 0.1
        for step in reply.steps:
            self._steps.take(step)
        return self._registration.heartbeat_seconds

    def _info(self) -> WorkerInfo:
        engine = ""
        with suppress(Exception):
            about: Any = self._runner.engine().version()
            engine = f"{(about.get('Platform') or {}).get('Name') or 'engine'} {about.get('Version', '')}".strip()
        return WorkerInfo(
            name=self._settings.worker_name,
            labels=self._settings.worker_labels,
            concurrency=self._settings.worker_concurrency,
            version=_version(),
            engine=engine,
        )

    def _state(self) -> Heartbeat:
        name = self._settings.worker_name
        try:
            api: Any = self._runner.engine().api
            containers = api.containers(all=True)
            upkeep = self._upkeep_of()
            replicas = tuple(upkeep.replicas())
        except Exception as error:
            return Heartbeat(worker=name, engine_ok=False, detail=" ".join(str(error).split())[:500])
        states: dict[str, int] = {}
        attempts = set()
        for container in containers:
            state = str(container.get("State", "unknown"))
            states[state] = states.get(state, 0) + 1
            if attempt := (container.get("Labels") or {}).get(ATTEMPT_LABEL):
                attempts.add(attempt)
        return Heartbeat(worker=name, containers=states, replicas=replicas, attempts=tuple(sorted(attempts)))

    def _upkeep_of(self) -> Upkeep:
        if self._upkeep is None:
            self._upkeep = Upkeep(Replicas(self._runner.engine()), self._traffic, self._runner.records)
        return self._upkeep

    def _converge_loop(self) -> None:
        """At start, every few seconds, and at once when a replica starts or ends."""

        def look() -> None:
            try:
                self._upkeep_of().converge()
            except StageFailed as error:
                log.info("%s", error)

        def wait(seconds: float) -> bool:
            self._nudge.wait(seconds)
            self._nudge.clear()
            return self._stopping.is_set()

        every(_CONVERGE_SECONDS, look, wait)

    def _event_loop(self) -> None:
        filters = {"type": "container", "event": ["start", "die"], "label": "shipway.service"}
        while not self._stopping.is_set():
            with suppress(Exception):
                engine = connect(self._settings.engine)
                for _ in engine.events(filters=filters):
                    self._nudge.set()
            self._stopping.wait(1.0)

    def _sweep_loop(self) -> None:
        def look() -> None:
            self._runner.workspaces.sweep()
            with suppress(StageFailed):
                sweep(self._runner.engine())

        every(_SWEEP_SECONDS, look, self._stopping.wait)

    def _keep_loop(self) -> None:
        """On its own: it looks at every file, and what it removes may be large."""
        settings = self._settings
        keeping = Keeping(settings.artifacts_keep, settings.artifacts_most, settings.artifacts_size)
        every(_KEEP_SECONDS, lambda: keep_artifacts(self._runner.artifacts, keeping), self._stopping.wait)

    def _close(self) -> None:
        self._stopping.set()
        self._nudge.set()
        self._steps.stop()
        self._stop_stages()
        with suppress(StageFailed):
            sweep(self._runner.engine())
        if self._clear_traffic:
            with suppress(TrafficError):
                self._traffic.clear()
        ready_file(self._settings).unlink(missing_ok=True)
        self._door.close()

    def _stop_stages(self) -> None:
        """At once: what it was doing is fenced by its leases and done again elsewhere."""
        process = self._stages
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _version() -> str:
    try:
        return version("shipway")
    except PackageNotFoundError:
        return ""
