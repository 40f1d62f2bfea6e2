"""Either engine is killed at the points of a move: in the end exactly one of them runs the container."""

from __future__ import annotations

import contextlib
import itertools
import threading

import pytest
from docker.errors import DockerException
from requests.exceptions import RequestException

from tests.engine.containers.daemon import lines_of
from tests.engine.containers.move.pair import COUNT, MoveFailed, Pair, holdings, wired
from tests.patience import wait_for

pytestmark = pytest.mark.kernel

POINTS = [
    ("POST container", False, "here"),
    ("POST container", True, "there"),
    ("PUT trees/files", True, "here"),
    ("PUT trees/volume.data", False, "there"),
    ("POST start", False, "here"),
    ("POST start", False, "there"),
    ("POST start", True, "here"),
    ("POST start", True, "there"),
    ("POST commit", False, "there"),
    ("POST commit", True, "here"),
]
"""A request, whether its answer is there, and which engine is killed then."""


@pytest.mark.parametrize(("point", "after", "victim"), POINTS)
def test_a_kill_leaves_one(pair: Pair, point: str, after: bool, victim: str) -> None:
    here, there = pair.here, pair.there
    here.run(COUNT, name="web", volumes={"data": {"bind": "/data"}})
    before = holdings(there)
    dead = threading.Event()
    daemon = here if victim == "here" else there

    def kill(reached: str, is_after: bool) -> None:
        if (reached, is_after) == (point, after) and not dead.is_set():
            daemon.process.kill()
            daemon.process.wait()
            dead.set()

    with wired(there, kill) as address:
        moving = threading.Thread(target=_move, args=(pair, address))
        moving.start()
        wait_for(dead.is_set, "the kill")
        daemon.client.close()
        daemon.start()
        moving.join(30)
        assert not moving.is_alive()
        place = pair.settled("web")
        # It counts on from where it was, or has begun anew: nothing of what it said is lost.
        found = [int(line) for line in lines_of(place.client.containers.get("web"))]
        assert all(now in (last + 1, 0) for last, now in itertools.pairwise(found))
        if place is here:
            # What was made for it is gone, and a second try succeeds.
            wait_for(lambda: holdings(there) == before, "an empty place")
            pair.move("web")
    assert holdings(here)["containers"] == holdings(here)["volumes"] == set()
    assert holdings(there)["volumes"] == {"data"}
    assert pair.settled("web") is there


def _move(pair: Pair, address: str) -> None:
    with contextlib.suppress(MoveFailed, RequestException, DockerException):
        pair.move("web", address)
