"""Live restore: the daemon is killed under busy containers, and then the zygote, and then both."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException
from docker.models.containers import Container
from requests.exceptions import RequestException

from engine.kernel.cgroup.host import groups_below
from tests import needs
from tests.engine.containers.daemon import Daemon, is_alive, lines_of, links, running
from tests.patience import wait_for

pytestmark = pytest.mark.kernel

BUSY = 50
COUNT = "i=0; while :; do echo $i; i=$((i+1)); usleep 10000; done"
EXECUTED = "while [ ! -e /gate/go ]; do echo here; usleep 2000; done; echo x > /counted"
WAIT = "while [ ! -e /gate/go ]; do usleep 2000; done; echo through; exit {}"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    needs.root()
    with running() as started:
        yield started


@pytest.fixture
def gate() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="swg"))
    yield folder
    shutil.rmtree(folder)


def test_a_daemon_killed_under_busy_containers(daemon: Daemon, gate: Path) -> None:
    binds = {str(gate): {"bind": "/gate", "mode": "ro"}}
    busy = [daemon.run(COUNT, name=f"busy{number}") for number in range(BUSY)]
    ends = [daemon.run(WAIT.format(code), volumes=binds) for code in (0, 7)]
    again = daemon.run(f"echo start; {WAIT.format(1)}", volumes=binds, restart_policy={"Name": "on-failure"})
    removed = daemon.run(WAIT.format(0), volumes=binds, auto_remove=True)
    paused = daemon.run(COUNT)
    paused.pause()
    typed = daemon.run("while read x; do echo got $x; done", stdin_open=True, volumes=binds)
    healthy = daemon.run("sleep 1000", healthcheck={"test": ["CMD", "true"], "interval": 50_000_000})
    daemon.client.api.exec_start(daemon.client.api.exec_create(typed.id, ["sh", "-c", EXECUTED])["Id"], detach=True)
    living = [*busy, paused, typed, healthy]
    for container in (*living, *ends, again, removed):
        container.reload()
    pids = {container.id: container.attrs["State"]["Pid"] for container in (*living, *ends, again, removed)}
    before = [len(lines_of(container)) for container in busy]
    daemon.kill()

    (gate / "go").touch()
    leaving = [pids[container.id] for container in (*ends, again, removed)]
    wait_for(lambda: not any(is_alive(pid) for pid in leaving), "the ends")
    assert all(is_alive(pids[container.id]) for container in living)

    daemon.start()
    known = {container.id: container for container in daemon.client.containers.list(all=True)}
    assert {known[container.id].attrs["State"]["Pid"] for container in living} == {pids[each.id] for each in living}
    assert [known[container.id].status for container in living] == [*["running"] * BUSY, "paused", "running", "running"]
    assert [known[container.id].attrs["State"]["ExitCode"] for container in ends] == [0, 7]
    assert [known[container.id].attrs["State"]["Status"] for container in ends] == ["exited", "exited"]
    assert all(lines_of(known[container.id]) == [b"through"] for container in ends)
    wait_for(lambda: removed.id not in {each.id for each in daemon.client.containers.list(all=True)}, "the removal")
    wait_for(lambda: lines_of(known[again.id]).count(b"start") >= 2, "the restart")
    known[again.id].remove(force=True)

    # Not a line is missing, and more come.
    for container, least in zip(busy, before, strict=True):
        found = lines_of(known[container.id])
        assert found == [b"%d" % number for number in range(len(found))]
        assert len(found) > least
    first = known[busy[0].id]
    count = len(lines_of(first))
    wait_for(lambda: len(lines_of(first)) > count, "more lines")

    # They are still the engine's own in every way.
    since = int(time.time())
    known[paused.id].unpause()
    events = daemon.client.api.events(
        since=since, until=int(time.time()) + 1, filters={"container": paused.id}, decode=True
    )
    assert "unpause" in {event["Action"] for event in events}
    numbers = [int(line) for line in daemon.next_lines(first, 3)]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert daemon.exec(known[typed.id], "sh", "-c", "[ -s /counted ]; echo $?") == (0, b"0\n")
    assert daemon.exec(first, "sh", "-c", "echo in; exit 3") == (3, b"in\n")
    assert first.stats(stream=False)["pids_stats"]["current"] >= 1
    daemon.type_to(known[typed.id], b"hello\n")
    wait_for(lambda: lines_of(known[typed.id]) == [b"got hello"], "what was typed")
    wait_for(lambda: daemon.client.api.inspect_container(healthy.id)["State"]["Health"]["Log"], "a probe")
    known[busy[1].id].stop(timeout=0)
    known[busy[1].id].reload()
    assert known[busy[1].id].attrs["State"]["ExitCode"] == 137


def test_policies_and_health_outlive_a_daemon(daemon: Daemon) -> None:
    def state(container: Container) -> Any:
        return daemon.client.api.inspect_container(str(container.id))

    policies = {name: {"Name": name} for name in ("always", "unless-stopped")}
    falls = {name: daemon.run("echo x; exit 1", name=name, restart_policy=policy) for name, policy in policies.items()}
    gives_up = daemon.run("exit 3", restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
    ill = daemon.run("sleep 1000", healthcheck={"test": ["CMD", "false"], "interval": 10_000_000, "retries": 2})
    stopped = [daemon.run("exit 1", name=f"stopped-{name}", restart_policy=policy) for name, policy in policies.items()]
    for container in stopped:
        # Between two of its starts, or in one.
        wait_for(lambda one=container: state(one)["RestartCount"] >= 2, "a few restarts")
        container.stop(timeout=0)
    wait_for(lambda: state(gives_up)["State"]["Status"] == "exited", "the last try")
    wait_for(lambda: state(ill)["State"]["Health"]["Status"] == "unhealthy", "its illness")
    wait_for(lambda: state(falls["always"])["State"]["Status"] == "restarting", "a pause between two starts")
    daemon.kill()

    before = {
        name: (daemon.config.data_root / f"containers/{each.id}/{each.id}-json.log").read_bytes().count(b"\n")
        for name, each in falls.items()
    }
    daemon.start()
    assert (state(gives_up)["RestartCount"], state(gives_up)["State"]["Status"]) == (2, "exited")
    assert state(gives_up)["State"]["ExitCode"] == 3
    assert state(ill)["State"]["Health"]["Status"] == "unhealthy"
    for name, container in falls.items():
        wait_for(lambda one=container, least=before[name]: len(lines_of(one)) > least + 1, "more starts")
    # A user's stop outlives the daemon for the one policy, and not for the other.
    always, unless = (state(container)["State"] for container in stopped)
    assert always["Status"] in ("running", "restarting")
    assert unless["Status"] == "exited"


def test_an_address_stays_served_while_the_daemon_is_dead(daemon: Daemon) -> None:
    script = "while :; do echo -e 'HTTP/1.0 200 OK\r\n\r\nhello' | nc -l -p 80; done"
    server = daemon.run(script, network_mode="bridge", ports={"80/tcp": ("127.0.0.1", None)})
    server.reload()
    (binding,) = server.ports["80/tcp"]
    address = ("127.0.0.1", int(binding["HostPort"]))
    inside = server.attrs["NetworkSettings"]["IPAddress"]

    def asked() -> bool:
        try:
            with socket.create_connection(address, timeout=1) as connection:
                return b"hello" in connection.recv(1000)
        except OSError:
            return False

    wait_for(asked, "an answer")
    daemon.kill()
    wait_for(asked, "an answer without a daemon")
    daemon.start()
    wait_for(asked, "an answer again")
    # What it has is not given to another.
    other = daemon.run("sleep 1000", network_mode="bridge", ports={"80/tcp": None})
    other.reload()
    assert other.attrs["NetworkSettings"]["IPAddress"] != inside
    server.remove(force=True)
    wait_for(lambda: not asked(), "the end of the answers")


def test_the_zygotes_death(daemon: Daemon) -> None:
    """The containers die with it. The daemon sees it, clears up, and starts those again that want it."""
    dies = daemon.run(COUNT)
    # Its processes are the host's: nobody dies with the first one.
    hides = daemon.run("(sleep 1000 & sleep 1000) & sleep 1000", pid_mode="host", name="hides")
    paused = daemon.run("sleep 1000", restart_policy={"Name": "always"})
    paused.pause()
    again = daemon.run("echo start; sleep 1000", restart_policy={"Name": "always"})
    old = daemon.client.api.inspect_container(again.id)["State"]["Pid"]
    wait_for(lambda: len(daemon.client.api.top(hides.id)["Processes"]) >= 3, "the children")
    pids = [int(line[1]) for line in daemon.client.api.top(hides.id)["Processes"]]
    waiting = daemon.client.api.wait
    os.kill(daemon.zygote, signal.SIGKILL)
    assert waiting(dies.id)["StatusCode"] == 137
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "the end of all")
    wait_for(lambda: lines_of(again).count(b"start") >= 2, "the restart")
    paused.reload()
    wait_for(lambda: daemon.client.api.inspect_container(paused.id)["State"]["Running"], "the restart of the paused")
    assert daemon.client.api.inspect_container(again.id)["State"]["Pid"] != old
    # All is as before.
    assert daemon.exec(again, "true") == (0, b"")
    assert daemon.run("exit 4").wait()["StatusCode"] == 4


def test_the_death_of_both(daemon: Daemon) -> None:
    before = links()
    lost = daemon.run(COUNT, network_mode="bridge", ports={"80/tcp": None}, name="lost")
    frozen = daemon.run("sleep 1000", network_mode="bridge")
    frozen.pause()
    hides = daemon.run("(sleep 1000 & sleep 1000) & sleep 1000", pid_mode="host")
    again = daemon.run("echo start; sleep 1000", restart_policy={"Name": "unless-stopped"})
    elsewhere = daemon.run("sleep 1000", cgroup_parent="/shipway-elsewhere", pid_mode="host")
    wait_for(lambda: len(daemon.client.api.top(hides.id)["Processes"]) >= 3, "the children")
    lost.reload()
    pids = [int(line[1]) for each in (hides, elsewhere, lost) for line in daemon.client.api.top(each.id)["Processes"]]
    step = daemon.config.exec_root / "steps/step-left"
    step.mkdir(parents=True)
    zygote = daemon.zygote
    daemon.kill()
    os.kill(zygote, signal.SIGKILL)

    daemon.start()
    assert not any(is_alive(pid) for pid in pids)
    states = {each.id: each.attrs["State"] for each in daemon.client.containers.list(all=True)}
    for container in (lost, frozen, hides, elsewhere):
        assert (states[container.id]["Status"], states[container.id]["ExitCode"]) == ("exited", 255)
    wait_for(lambda: lines_of(again).count(b"start") == 2, "the restart")
    found = lines_of(lost)
    assert found == [b"%d" % number for number in range(len(found))]
    assert groups_below(daemon.config.cgroup_parent) == [f"{daemon.config.cgroup_parent}/{again.id}"]
    assert groups_below("/shipway-elsewhere") == []
    assert not step.exists()
    assert not {name for name in links() - before if "veth" in name or name.startswith(f"sv{daemon.config.instance}")}
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    address = lost.attrs["NetworkSettings"]["IPAddress"]
    assert address
    assert address not in listed
    # Their addresses and ports are free again.
    lost.start()
    lost.reload()
    assert lost.attrs["NetworkSettings"]["IPAddress"] == address or lost.attrs["NetworkSettings"]["IPAddress"]
    for root in Path("/sys/fs/cgroup").iterdir():
        if (root / "shipway-elsewhere").is_dir():
            (root / "shipway-elsewhere").rmdir()


@pytest.mark.parametrize("pause", [0.005, 0.015, 0.03, 0.06])
def test_a_start_that_a_crash_cut_short_is_undone(daemon: Daemon, pause: float) -> None:
    """The daemon dies somewhere between a request and its answer."""

    def start(container: Container) -> None:
        with contextlib.suppress(RequestException, DockerException):
            container.start()

    made = [daemon.client.containers.create("busybox:1.35", ["sleep", "1000"], network_mode="bridge") for _ in range(3)]
    with ThreadPoolExecutor() as threads:
        for container in made:
            threads.submit(start, container)
        time.sleep(pause)
        daemon.kill()
    daemon.start()
    for container in daemon.client.containers.list(all=True):
        assert container.status in ("created", "running", "exited")
        if container.status == "running":
            assert daemon.exec(container, "true")[0] == 0
        container.remove(force=True)
    assert groups_below(daemon.config.cgroup_parent) == []
