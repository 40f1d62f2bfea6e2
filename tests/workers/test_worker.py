"""A whole worker as its users start it, against a real store, broker and engine."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from pipeline.plan.models import Plan, PlannedStage, RunSpec, TestSpec
from pipeline.store import Store
from pipeline.triggers.event import Event
from pipeline.views import RunView
from workers.broker import Broker
from workers.dispatch import Dispatcher
from workers.executors.base import OWNER_LABEL

pytestmark = [pytest.mark.redis, pytest.mark.kernel]

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "busybox:1.35"


@dataclass
class Line:
    """A server's part, done by hand: runs are made, hints are sent."""

    store: Store
    dispatcher: Dispatcher
    process: subprocess.Popen[bytes]
    metrics: int
    engine: docker.DockerClient
    eventually: Callable[..., Any]

    def begin(self, *stages: PlannedStage) -> RunView:
        event = Event(kind="manual", repository="r", sha="a" * 40, ref="refs/heads/main", local=str(ROOT / "examples"))
        run = self.store.create_run(Plan(pipeline="p", stages=stages), event)
        self.hint(run.id)
        return run

    def hint(self, run: int) -> None:
        for ready in self.store.advance(run):
            self.dispatcher.attempt(ready.attempt, ready.labels, ready.near)

    def sweep(self) -> None:
        for ready in self.store.sweep().ready:
            self.dispatcher.attempt(ready.attempt, ready.labels, ready.near)

    def ended(self, run: int) -> RunView:
        def over() -> RunView | None:
            self.sweep()
            view = self.store.get_run(run)
            return view if view.state in ("passed", "failed", "cancelled") else None

        return self.eventually(over, f"the end of run {run}")

    def log(self, run: int, stage: str) -> list[str]:
        return [line.text for line in self.store.read_logs(run, stage)]

    def containers(self) -> list[Any]:
        return self.engine.api.containers(all=True, filters={"label": OWNER_LABEL})

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def line(
    tmp_path_factory: pytest.TempPathFactory,
    store: Store,
    api: Any,
    broker: Broker,
    engine: str,
    eventually: Callable[..., Any],
) -> Iterator[Line]:
    tmp_path = tmp_path_factory.mktemp("worker")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "SHIPWAY_DATA": str(tmp_path / "data"),
        "SHIPWAY_SERVER_URL": api.url,
        "SHIPWAY_BROKER_URL": broker.url,
        "SHIPWAY_ENGINE": engine,
        "SHIPWAY_WORKER_NAME": "w1",
        "SHIPWAY_WORKER_LABELS": "role=web",
        "SHIPWAY_WORKER_TOKEN": "secret",
    }
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "--metrics", f"127.0.0.1:{port}", "--clear-traffic"],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    dispatcher = Dispatcher(broker.url)
    client = docker.DockerClient(engine)
    there = Line(store, dispatcher, process, port, client, eventually)

    def ready() -> bool:
        assert process.poll() is None, (tmp_path / "worker.log").read_text()
        try:
            return there.get("/readyz")[0] == 200
        except OSError:
            return False

    try:
        eventually(ready, "the worker's start")
        yield there
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        dispatcher.close()
        client.close()
    assert process.returncode == 0, (tmp_path / "worker.log").read_text()


def stage(name: str, *lines: str, **options: Any) -> PlannedStage:
    spec = {
        key: options.pop(key) for key in ("snapshot", "artifacts", "source", "resources", "services") if key in options
    }
    kind = options.pop("kind", RunSpec)
    return PlannedStage(name=name, base=name, spec=kind(image=IMAGE, run=lines, **spec), **options)


def test_stages_run_and_tell_how(line: Line):
    run = line.begin(
        stage("good", "echo out; echo err >&2; echo $CI_STAGE $WORD", env={"WORD": "hello"}),
        stage("bad", "echo before; false; echo after", runs_on={"role": "web"}),
    )
    view = line.ended(run.id)
    states = {each.name: each for each in view.stages}
    assert states["good"].state == "passed"
    assert set(line.log(run.id, "good")) >= {"out", "err", "good hello"}
    assert states["bad"].state == "failed"
    assert states["bad"].reason == "the lines ended with exit code 1"
    assert "before" in line.log(run.id, "bad")
    assert "after" not in line.log(run.id, "bad")
    assert line.containers() == []
    status, text = line.get("/metrics")
    assert status == 200
    assert 'shipway_worker_attempts_total{kind="run",result="passed"} 1.0' in text
    assert "shipway_engine_" in text


def test_a_snapshot_holds_files_and_no_secret(line: Line):
    run = line.begin(
        stage("unit", "echo done > /result; echo $WORD", kind=TestSpec, snapshot=True, env={"WORD": "sesame"})
    )
    view = line.ended(run.id)
    assert view.state == "passed"
    snapshot = view.stages[0].outputs.snapshot
    image = line.engine.images.get(snapshot)
    base = line.engine.images.get(IMAGE)
    for key in ("Cmd", "Entrypoint", "Env", "User"):
        assert (image.attrs["Config"].get(key) or None) == (base.attrs["Config"].get(key) or None), key
    assert "sesame" not in str(image.attrs)
    assert not image.attrs["Config"]["Labels"].get(OWNER_LABEL)
    assert line.engine.containers.run(snapshot, ["cat", "/result"], remove=True) == b"done\n"


def test_cancelling_ends_the_container(line: Line):
    run = line.begin(stage("long", "echo begun; sleep 60"))
    line.eventually(lambda: "begun" in line.log(run.id, "long"), "the first line")
    line.store.cancel(run.id)
    began = time.monotonic()
    assert line.ended(run.id).state == "cancelled"
    assert time.monotonic() - began < 5
    line.eventually(lambda: not line.containers(), "the clean-up")


def test_a_stage_that_takes_too_long(line: Line):
    run = line.begin(stage("long", "sleep 60", timeout=1.0))
    view = line.ended(run.id)
    assert view.state == "failed"
    assert "took longer than 1 s" in view.stages[0].reason
    assert line.containers() == []


def test_a_killed_process_costs_seconds_and_leaves_nothing(line: Line):
    run = line.begin(stage("once", "echo begun; [ $CI_ATTEMPT = 2 ] || sleep 60"))
    line.eventually(lambda: "begun" in line.log(run.id, "once"), "the first line")
    owner = line.containers()[0]["Labels"][OWNER_LABEL].partition(":")[0]
    os.kill(int(owner), signal.SIGKILL)
    began = time.monotonic()
    view = line.ended(run.id)
    assert view.state == "passed"
    assert time.monotonic() - began < 10
    line.eventually(lambda: not line.containers(), "the clean-up")
