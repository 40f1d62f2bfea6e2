"""`shipway debug`: a shell in what a stage left, through a real server and a real engine."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from pipeline.plan.models import Plan, PlannedStage, TestSpec
from pipeline.protocol import Outcome, Outputs, Result, WorkerInfo
from pipeline.settings import Settings
from pipeline.triggers.event import Event
from tests.cli.conftest import Shipway
from tests.server.running import running

pytestmark = pytest.mark.kernel
SPEC = TestSpec(image="busybox:1.35", run=("false",), snapshot=True)


@pytest.fixture
def left(
    shipway: Shipway, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[docker.DockerClient]:
    """Run 1: `unit` failed and left a snapshot in the engine, `far` left one elsewhere, `none` left nothing."""
    client = docker.DockerClient(engine)
    made = client.containers.create("busybox:1.35", ["true"])
    snapshot = made.commit(changes=['LABEL shipway.test="debug"']).id
    made.remove()
    with running(Settings(data=tmp_path / "server")) as server:
        names = {"unit": snapshot, "far": "sha256:" + "f" * 64, "none": None}
        stages = tuple(PlannedStage(name=name, base=name, spec=SPEC) for name in names)
        store = server.store
        store.register_worker(WorkerInfo(name="w1"))
        run = store.create_run(Plan(pipeline="web", stages=stages), Event(kind="manual", repository="r", sha="a" * 40))
        store.advance(run.id)
        for stage in store.get_run(run.id).stages:
            claim = store.claim(stage.attempts[-1].id, "w1")
            assert claim is not None
            outcome = Outcome(result=Result.FAILED, outputs=Outputs(snapshot=names[stage.name]), retryable=False)
            store.finish(claim.attempt, claim.token, outcome)
        monkeypatch.setenv("SHIPWAY_SERVER_URL", server.url)
        monkeypatch.setenv("SHIPWAY_ENGINE", engine)
        yield client
    assert client.api.containers(all=True, filters={"label": "shipway.debug"}) == []
    client.images.remove(snapshot)
    client.close()


COMMAND = [sys.executable, "-m", "cli", "debug", "1/unit"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("last", "code"), [(b"exit 3\n", 3), (b"", 0)])
def test_without_a_terminal_the_shell_reads_lines_to_their_end(
    left: docker.DockerClient, last: bytes, code: int
) -> None:
    lines = b"echo said\necho wrong >&2\n" + last
    done = subprocess.run(COMMAND, input=lines, capture_output=True, timeout=60, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"said\n", b"wrong\n")


def test_on_a_terminal_it_is_one_in_the_container_too(left: docker.DockerClient) -> None:
    mine, theirs = pty.openpty()
    with subprocess.Popen(COMMAND, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT) as process:
        os.close(theirs)
        os.write(mine, b"test -t 0 && echo ter''minal\nexit 4\n")
        said = b""
        while select.select([mine], [], [], 60)[0]:
            try:
                said += os.read(mine, 4096)
            except OSError:  # EIO: nobody has the other end any more
                break
        assert process.wait(60) == 4, said
    os.close(mine)
    assert b"terminal" in said


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_it_leaves_nothing_when_its_terminal_or_its_host_goes(
    left: docker.DockerClient, number: signal.Signals
) -> None:
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"echo here\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"here\n"
        process.send_signal(number)
        assert process.wait(60) == 130


@pytest.mark.parametrize(
    ("target", "code", "told"),
    [
        ("1/far", 1, "sha256:ffffffffffff of 1/far is on worker w1, not in the engine at unix://"),
        ("1/none", 1, "1/none left no snapshot: it is failed; set `snapshot: true` and run it again"),
        ("1/x", 1, 'there is no stage "x" in run 1: use one of unit, far, none'),
        ("unit", 2, "'unit' names no stage: write RUN/STAGE, such as 12/unit"),
    ],
)
def test_where_there_is_nothing_to_look_at_it_says_so(
    left: docker.DockerClient, shipway: Shipway, target: str, code: int, told: str
) -> None:
    answer = shipway("debug", target)
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith(f"shipway: {told}")
