"""`shipway move` between two real engines."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator

import pytest

from tests import needs
from tests.cli.conftest import Shipway
from tests.engine.containers.daemon import Daemon, running

pytestmark = pytest.mark.kernel
IDLE = "trap 'exit 0' TERM; while :; do usleep 10000; done"


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Daemon, Daemon]]:
    needs.root()
    with running() as here, running() as there:
        yield here, there


def test_a_container_moves(engines: tuple[Daemon, Daemon], shipway: Shipway, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = engines
    monkeypatch.setenv("DOCKER_HOST", here.url)
    here.run(IDLE, name="web")
    moved = shipway("move", "web", there.url)
    assert (moved.code, moved.err) == (0, "")
    assert moved.out.splitlines()[-1] == f"web is at {there.url}"
    assert there.client.containers.get("web").status == "running"

    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("SHIPWAY_ENGINE", there.url)
    back = shipway("move", "web", here.url, "--keep", "--no-start", "--json")
    assert (back.code, json.loads(back.out)["Host"]) == (0, here.url)
    assert there.client.containers.get("web").status == "running"
    assert here.client.containers.get("web").status == "exited"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["nobody", "unix:///nowhere.sock"], 1, "No such container: nobody"),
        (["web"], 2, "say where to"),
        (["--abort", "web", "web2"], 2, "--abort takes the container alone"),
        (["--abort", "nobody"], 1, "No such container"),
        (["nobody", "tcp://host"], 1, "No such container"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_line(
    engines: tuple[Daemon, Daemon],
    shipway: Shipway,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    word: str,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engines[0].url)
    answer = shipway("move", *arguments)
    assert answer.code == code
    assert word in answer.err
    assert answer.err.count("\n") == 1


# docker-py does not close a socket that could not be connected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nobody_answers(shipway: Shipway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    answer = shipway("move", "web", "tcp://host:1")
    assert answer.code == 1
    assert "no engine answers at unix:///nowhere.sock" in answer.err
    gc.collect()
