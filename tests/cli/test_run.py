"""`shipway run` on a real engine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from cli.layout import Layout
from cli.local import open_checkout
from cli.system import answers_on_socket
from pipeline.settings import load_settings
from tests import needs
from tests.cli.conftest import Shipway
from tests.deploy import registries
from workers.executors.base import OWNER_LABEL

pytestmark = pytest.mark.kernel

FILE = """
pipelines:
  web:
    params: {fail: false}
    stages:
      image: {build: {args: {WORD: "${git.short_sha}"}}}
      unit:
        needs: image
        matrix: {v: [1, 2]}
        test:
          run: ["cat /hello > kept", "echo $CI_STAGE ${matrix.v} $WORD >> kept", "test ${params.fail} = false"]
          source: /src
          artifacts: [kept]
        env: {WORD: "${git.branch}"}
        runs_on: {role: nowhere}
      snap: {needs: image, test: {run: "echo tested > /tested", snapshot: true}}
      last: {needs: [unit, snap], run: {image: "${stages.snap.snapshot}", run: [cat /tested, cat uncommitted]}}
"""


@pytest.fixture
def checkout(shipway: Shipway, engine: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project, and an engine that the settings name."""
    monkeypatch.setenv("SHIPWAY_ENGINE", engine)
    Path("Dockerfile").write_text("FROM busybox:1.35\nARG WORD\nRUN echo hello $WORD > /hello\n")
    Path("pipelines.yaml").write_text(FILE)
    Path("uncommitted").write_text("as it is\n")
    yield Path.cwd()
    client = docker.DockerClient(engine)
    left: Any = client.api.containers(all=True, filters={"label": OWNER_LABEL})
    client.close()
    assert [container["Names"] for container in left if container["Labels"][OWNER_LABEL]] == []


def lines(out: str, stage: str) -> list[str]:
    """What a stage said itself."""
    return [line.partition("| ")[2] for line in out.splitlines() if line.startswith(stage) and "| " in line]


def stages(out: str) -> dict[str, str]:
    found = json.loads(out)["stages"]
    return {stage["name"]: stage["state"] + ("" if stage["attempts"] else " before") for stage in found}


def test_a_pipeline_runs_from_its_checkout(shipway: Shipway, checkout: Path) -> None:
    answer = shipway("run")
    assert (answer.code, answer.err) == (0, "")
    assert lines(answer.out, "last") == ["tested", "as it is"]
    assert "image       passed in " in answer.out
    assert answer.out.splitlines()[-1].startswith("web passed in ")
    kept = [line.partition(": ")[2] for line in answer.out.splitlines() if line.startswith("unit (v=2) kept kept: ")]
    with tarfile.open(kept[0]) as tar:
        file = tar.extractfile("kept")
        assert file is not None
        assert file.read() == b"hello 00000000\nunit (v=2) 2\n"


def test_a_run_that_fails_is_taken_up_where_it_failed(shipway: Shipway, checkout: Path) -> None:
    answer = shipway("run", "--set", "fail=true")
    assert answer.code == 1
    assert answer.err.startswith("shipway: web failed after ")
    assert answer.err.endswith(
        ": unit (v=1): the lines ended with exit code 1: mend it, and go on with `shipway run web --from unit`\n"
    )
    assert "last        skipped: unit (v=1) failed" in answer.out

    answer = shipway("run", "web", "--from", "unit", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert stages(answer.out) == {
        "image": "passed before", "unit (v=1)": "passed", "unit (v=2)": "passed",
        "snap": "passed before", "last": "passed",
    }  # fmt: skip
    answer = shipway("run", "--only", "last", "--json")
    assert stages(answer.out)["last"] == "passed"
    assert list(stages(answer.out).values()).count("passed") == 1


def test_what_never_passed_can_not_be_left_out(shipway: Shipway, checkout: Path) -> None:
    answer = shipway("run", "--from", "last")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "shipway: the stage image must pass before, and never did in this checkout: begin with --from image\n"
    )


def test_a_failure_for_programs(shipway: Shipway, checkout: Path) -> None:
    Path("pipelines.yaml").write_text(
        "pipelines: {p: {stages: {a: {run: {image: 'busybox:1.35', run: exit 7}}, b: {needs: a, build: .}}}}"
    )
    answer = shipway("run", "--json")
    view = json.loads(answer.out)
    assert (answer.code, answer.err) == (1, "")
    assert (view["state"], view["reason"]) == ("failed", "a: the lines ended with exit code 7")
    assert view["stages"][0]["attempts"][0]["exit_code"] == 7


def test_secrets_are_given_and_masked(shipway: Shipway, checkout: Path) -> None:
    folder = Path(os.environ["SHIPWAY_DATA"]) / "secrets"
    folder.mkdir(parents=True)
    (folder / "TOKEN").write_text("s3same")
    Path("pipelines.yaml").write_text(
        "pipelines: {p: [{run: {image: 'busybox:1.35', run: ['echo $TOKEN', 'test $TOKEN = s3same']}, secrets: TOKEN}]}"
    )
    answer = shipway("run")
    assert answer.code == 0
    assert "s3same" not in answer.out
    assert "•••" in answer.out


APPROVAL = "pipelines: {p: {stages: {a: {run: {image: 'busybox:1.35', run: echo done}}}}}"


def test_a_deploy_waits_for_approval_and_is_refused_where_nobody_can_be_asked(shipway: Shipway, checkout: Path) -> None:
    digest = "sha256:" + "0" * 64
    Path("pipelines.yaml").write_text(
        "services: {clilive: {port: 80}}\n"
        f"pipelines: {{p: [{{deploy: {{service: clilive, image: 'localhost:1/x@{digest}', approval: required}}}}]}}"
    )
    answer = shipway("run")
    assert answer.code == 1
    assert "shipway: deploy waits for approval: run again with --yes\n" in answer.err
    assert "was cancelled after " in answer.err
    answer = shipway("run", "--yes")
    assert answer.code == 1
    assert "rolled back: " in answer.err
    assert "nothing serves, as before" in answer.err


@pytest.fixture
def start(checkout: Path, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a run that takes long, as a process, and waits until its stage has begun."""
    Path("pipelines.yaml").write_text(
        "pipelines: {p: [{run: {image: 'busybox:1.35', run: [echo begun, sleep 100]}}, {run: {image: a, run: b}}]}"
    )
    out = tmp_path / "out"
    started = []

    def begin() -> subprocess.Popen[bytes]:
        with out.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli", "run"], stdout=file, stderr=file, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            )  # fmt: skip
        started.append(process)
        deadline = time.monotonic() + 30
        while b"| begun" not in out.read_bytes():
            assert process.poll() is None, out.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_everything(
    start: Callable[[], subprocess.Popen[bytes]], number: signal.Signals, tmp_path: Path
) -> None:
    process = start()
    process.send_signal(number)
    assert process.wait(30) == 130
    text = (tmp_path / "out").read_text()
    assert "run-2  cancelled" in text
    assert "shipway: p was cancelled after " in text
    assert text.endswith(": interrupted\n")
    assert "Traceback" not in text


def test_a_reader_that_has_seen_enough_ends_the_run(checkout: Path) -> None:
    Path("pipelines.yaml").write_text(
        "pipelines: {p: [{run: {image: 'busybox:1.35', run: ['while sleep 0.1; do echo more; done']}}]}"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, "-m", "cli", "run"], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    while b"more" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    assert process.wait(30) == 1


def test_what_a_killed_run_left_is_removed_by_the_next(
    start: Callable[[], subprocess.Popen[bytes]], shipway: Shipway
) -> None:
    process = start()
    answer = shipway("run")
    assert answer.code == 1
    assert answer.err == f"shipway: another `shipway run` is at work in {Path.cwd()}: wait until it has ended\n"
    process.kill()
    process.wait()
    Path("pipelines.yaml").write_text(APPROVAL)
    assert shipway("run").code == 0
    with open_checkout(Path.cwd(), load_settings(), os.environ["SHIPWAY_ENGINE"]) as checkout:
        first, second = checkout.store.list_runs()
        assert (first.state, second.reason) == ("passed", "its process ended")


def test_an_engine_that_is_not_there(shipway: Shipway, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pipelines.yaml").write_text(APPROVAL)
    monkeypatch.setenv("SHIPWAY_ENGINE", "unix:///nonexistent/e.sock")
    answer = shipway("run")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        "shipway: no engine answers at unix:///nonexistent/e.sock: start one with `shipway engine`, as root\n"
    )


def test_without_an_engine_it_starts_one_and_stops_it(shipway: Shipway, tmp_path: Path) -> None:
    settings = load_settings()
    if answers_on_socket(Path(settings.engine.removeprefix("unix://")), "/_ping"):
        needs.lacking("a machine without an engine of its own")
    layout = Layout.of(settings.data)
    shutil.copy("/bin/busybox", "sh")
    Path("Dockerfile").write_text("FROM scratch\nCOPY sh /bin/sh\n")
    Path("pipelines.yaml").write_text("pipelines: {p: [{build: .}, {test: echo from scratch}]}")
    try:
        answer = shipway("run")
        assert (answer.code, answer.err) == (0, "")
        assert lines(answer.out, "test") == ["from scratch"]
        assert not answers_on_socket(layout.engine_socket, "/_ping")
        words = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        assert [line for line in words if str(tmp_path) in line] == []

        Path("pipelines.yaml").write_text("services: {s: {}}\npipelines: {p: [{deploy: {service: s, image: a}}]}")
        answer = shipway("run")
        assert answer.code == 2
        assert "a deploy needs an engine that stays" in answer.err
    finally:
        shutil.rmtree(layout.run, ignore_errors=True)


def test_a_data_folder_that_can_not_be(shipway: Shipway, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPWAY_DATA", "/proc/nothing")
    answer = shipway("run")
    assert answer.code == 1
    assert answer.err.endswith("no such file or directory: set SHIPWAY_DATA to a folder that you may write to\n")


def test_what_one_engine_has_built_another_takes_from_the_registry(
    shipway: Shipway, checkout: Path, engine: str, tmp_path: Path
) -> None:
    with registries.ours(tmp_path) as url, contextlib.closing(docker.APIClient(engine)) as api:
        name = f"{url.removeprefix('http://')}/web:cache"
        Path("pipelines.yaml").write_text(
            f"pipelines: {{web: [{{build: {{shared_cache: '{name}', args: {{WORD: x}}}}}}]}}"
        )
        assert "Using cache" not in shipway("run").out
        api.prune_builds()  # now it is as good as any other engine
        again = shipway("run").out
        assert again.count("Using cache") == 2  # ARG and RUN
        assert "Warning" not in again
