"""Whatever is killed in the middle of whatever: the next start gives back all that no living container has."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest
from docker.errors import DockerException
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from tests import needs
from tests.engine.containers.daemon import Daemon, running
from tests.engine.containers.machine import Holdings, zygote_of
from tests.engine.tars import tar_of
from tests.patience import wait_for

pytestmark = pytest.mark.kernel

KILLS = int(os.environ.get("SHIPWAY_TEST_KILLS", "6"))
"""How many; the more the rarer the moments that they hit."""

_FAILURES = (DockerException, RequestException, HTTPError, OSError, ValueError, KeyError)
_DOCKERFILE = b"FROM busybox:1.35\nRUN usleep 20000; head -c 8 /dev/urandom > /made\n"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    needs.root()
    with running() as started:
        yield started


# Connections that the docker library has lost sight of end with the engine.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_kill_at_any_moment_leaves_nothing(daemon: Daemon) -> None:
    _build(daemon.client)
    _tidy(daemon)
    baseline = _quiet(daemon)
    chance = random.Random(7)
    for turn in range(KILLS):
        victims = ("daemon", "zygote", "both")[turn % 3]
        after = chance.uniform(0.0, 0.4)
        _kill_amid_work(daemon, victims, after)
        _check_owned(daemon)
        _tidy(daemon)
        what = f"kill {turn} of {victims} after {after:.3f} s"
        left: list[Holdings] = []

        def nothing(left: list[Holdings] = left) -> bool:
            left[:] = [Holdings.of(daemon) - baseline, baseline - Holdings.of(daemon)]
            return not any(str(each) for each in left)

        try:
            wait_for(nothing, "the end of everything")
        except AssertionError:
            pytest.fail(f"{what}\nleft:\n{left[0]}\nmissing:\n{left[1]}\n{daemon.log()[-3000:]}")


def _kill_amid_work(daemon: Daemon, victims: str, after: float) -> None:
    """Returns when the engine is back."""
    over = threading.Event()
    zygote = zygote_of(daemon)
    with ThreadPoolExecutor(4) as threads:
        for number, work in enumerate((_live, _live, _network, _build_again)):
            threads.submit(_repeat, daemon.url, work, number, over)
        time.sleep(after)  # the moment is what is tested
        if victims != "daemon":
            os.kill(zygote, signal.SIGKILL)
        if victims != "zygote":
            daemon.process.kill()
            daemon.process.wait()
        else:
            # The daemon lives, sees it, and goes on with another.
            wait_for(lambda: _works(daemon), "another zygote")
        over.set()
    if victims != "zygote":
        daemon.client.close()
        daemon.start()


def _works(daemon: Daemon) -> bool:
    try:
        daemon.client.containers.run("busybox:1.35", ["true"], remove=True, network_mode="none")
    except _FAILURES:
        return False
    return True


def _repeat(url: str, work: Callable[[docker.DockerClient, str], None], number: int, over: threading.Event) -> None:
    turn = 0
    with contextlib.suppress(*_FAILURES), contextlib.closing(docker.DockerClient(url, timeout=20)) as client:
        while not over.is_set():
            turn += 1
            with contextlib.suppress(docker.errors.APIError):
                work(client, f"w{number}-{turn}")


def _live(client: docker.DockerClient, name: str) -> None:
    container = client.containers.create(
        "busybox:1.35",
        ["sleep", "1000"],
        name=name,
        ports={"80/tcp": None},
        volumes=[f"{name}:/data", "/anonymous"],
    )
    container.start()
    container.exec_run(["true"], detach=True)
    container.pause()
    container.unpause()
    container.stop(timeout=0)
    container.start()
    container.remove(force=True, v=True)


def _network(client: docker.DockerClient, name: str) -> None:
    network = client.networks.create(name)
    container = client.containers.run("busybox:1.35", ["sleep", "1000"], detach=True, network=name)
    client.networks.get("bridge").connect(container)
    network.disconnect(container)
    container.kill()
    container.remove()
    network.remove()


def _build(client: docker.DockerClient, tag: str = "made:1") -> None:
    # In memory: the library forgets to close a context of its own where the engine goes away.
    context = io.BytesIO(tar_of({"Dockerfile": _DOCKERFILE}))
    client.images.build(fileobj=context, custom_context=True, tag=tag, nocache=True, rm=True)


def _build_again(client: docker.DockerClient, name: str) -> None:
    _build(client, f"made:{name}")


def _check_owned(daemon: Daemon) -> None:
    """What there is belongs to a container that lives, at once."""
    alive = {str(each.id) for each in daemon.client.containers.list()}

    def owned() -> bool:
        now = Holdings.of(daemon)
        return {group.rpartition("/")[2] for group in now.cgroups} == alive

    wait_for(owned, "groups of living containers only")


def _tidy(daemon: Daemon) -> None:
    client = daemon.client
    for container in client.containers.list(all=True):
        container.remove(force=True, v=True)
    client.networks.prune()
    client.volumes.prune(filters={"all": True})
    for image in client.images.list():
        if any(tag.startswith("made:") for tag in image.tags):
            for tag in image.tags:
                client.images.remove(tag, force=True)
    client.api.prune_builds()
    client.images.prune(filters={"dangling": True})


def _quiet(daemon: Daemon) -> Holdings:
    """What there is once nothing changes any more."""
    before: list[Holdings] = []

    def same() -> bool:
        before.append(Holdings.of(daemon))
        return len(before) > 5 and len(set(before[-5:])) == 1

    wait_for(same, "quiet")
    return before[-1]
