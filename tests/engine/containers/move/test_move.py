"""A container that moves is there what it was here; what stands in the way is said before anything happens."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from docker.types import EndpointConfig, Mount

from tests.engine.certificates import make_certificates
from tests.engine.containers.daemon import Daemon, lines_of
from tests.engine.containers.move.pair import COUNT, MoveFailed, Pair, holdings, status, wired
from tests.patience import wait_for

pytestmark = pytest.mark.kernel
IDLE = "trap 'exit 0' TERM; while :; do usleep 10000; done"


def test_all_of_it_moves_and_comes_back(pair: Pair) -> None:
    here, there = pair.here, pair.there
    here.client.networks.create("front", labels={"net": "1"})
    here.client.volumes.create("data", labels={"of": "web"})
    config = EndpointConfig("1.47", aliases=["www"])
    api: Any = here.client.containers
    web = api.create(
        "busybox:1.35",
        ["sh", "-c", f"echo $K > /note; rm -f /etc/issue; {COUNT}"],
        name="web",
        environment={"K": "v"},
        labels={"a": "b"},
        network="front",
        networking_config={"front": config},
        ports={"80/tcp": ("127.0.0.1", 0)},
        volumes=["/anonymous"],
        mounts=[Mount("/data", "data")],
        restart_policy={"Name": "unless-stopped"},
        healthcheck={"test": ["CMD", "true"], "interval": 50_000_000},
        mem_limit="64m",
    )
    web.start()
    wait_for(lambda: len(lines_of(web)) > 50, "output")
    assert here.exec(web, "sh", "-c", "echo kept > /anonymous/kept; touch /x; chown 7:8 /x")[0] == 0
    before = here.client.api.inspect_container("web")

    assert pair.move("web") == web.id
    assert holdings(here)["containers"] == holdings(here)["volumes"] == set()
    after = there.client.api.inspect_container("web")
    for key in ("Id", "Name", "Created", "Path", "Args", "Config", "HostConfig", "Image"):
        assert after[key] == before[key], key
    assert after["State"]["Health"]["Status"] == "healthy"
    assert after["NetworkSettings"]["Networks"]["front"]["Aliases"] == ["www"]
    assert there.client.networks.get("front").attrs["Labels"] == {"net": "1"}
    assert there.client.volumes.get("data").attrs["Labels"] == {"of": "web"}
    moved = there.client.containers.get("web")
    look = "cat /note /anonymous/kept; ls /etc/issue; stat -c %u:%g /x"
    said = there.exec(moved, "sh", "-c", look)[1].decode()
    assert "v\nkept\n" in said
    assert "7:8\n" in said
    assert "/etc/issue: No such file" in said
    # Its log is one: what it said here, and then what it says there.
    found = [int(line) for line in lines_of(moved)]
    end = found.index(0, 1)
    assert found[:end] == list(range(end))
    assert end > 50

    Pair(there, here).move("web")
    assert holdings(there)["containers"] == holdings(there)["volumes"] == set()
    back = here.client.containers.get("web")
    assert here.exec(back, "cat", "/anonymous/kept") == (0, b"kept\n")
    assert back.attrs["HostConfig"] == before["HostConfig"]


def test_layers_that_are_there_are_not_sent(pair: Pair) -> None:
    here, there = pair.here, pair.there
    made = here.run("head -c 300000 /dev/urandom > /big", name="made")
    made.wait()
    here.client.api.commit("made", repository="app", tag="1")
    made.remove()
    sent: list[str] = []
    for name in ("one", "two"):
        here.client.containers.run("app:1", ["sh", "-c", IDLE], name=name, detach=True, network_mode="none")
        with wired(there, lambda point, after: None if after else sent.append(point)) as address:
            pair.move(name, address)
    assert len([point for point in sent if "blobs" in point]) == 1
    assert there.client.images.get("app:1").id == here.client.images.get("app:1").id
    assert there.exec(there.client.containers.get("two"), "stat", "-c", "%s", "/big") == (0, b"300000\n")


@pytest.mark.parametrize("running", [True, False])
def test_a_copy_leaves_it_as_it_is(pair: Pair, running: bool) -> None:
    web = pair.here.run(
        COUNT if running else "echo x > /data/n; exit 3", name="web", volumes={"data": {"bind": "/data"}}
    )
    if not running:
        web.wait()
    wait_for(lambda: lines_of(web) or not running, "output")
    copied = pair.move("web", Copy=True)
    assert copied != web.id
    assert status(pair.here, "web") == status(pair.there, "web") == ("running" if running else "exited")
    assert pair.there.client.containers.get("web").attrs["State"]["ExitCode"] == (0 if running else 3)
    assert {"data"} <= holdings(pair.here)["volumes"] & holdings(pair.there)["volumes"]


def test_it_can_be_moved_without_being_started(pair: Pair) -> None:
    pair.here.run(COUNT, name="web", volumes={"data": {"bind": "/data"}})
    pair.move("web", Start=False)
    assert (status(pair.here, "web"), status(pair.there, "web")) == ("", "exited")
    pair.there.client.containers.get("web").start()
    assert status(pair.there, "web") == "running"


def test_one_that_goes_with_its_end_survives_its_move(pair: Pair) -> None:
    pair.here.run(IDLE, name="web", auto_remove=True)
    pair.move("web")
    assert (status(pair.here, "web"), status(pair.there, "web")) == ("", "running")
    pair.there.client.containers.get("web").stop()
    wait_for(lambda: status(pair.there, "web") == "", "its removal")


Wish = dict[str, Any]


def _name(pair: Pair) -> Wish:
    pair.there.run("true", name="web")
    return {}


def _volume(pair: Pair) -> Wish:
    pair.there.client.volumes.create("data")
    return {"volumes": {"data": {"bind": "/data"}}}


def _port(pair: Pair) -> Wish:
    pair.there.run(IDLE, name="other", network_mode="bridge", ports={"80/tcp": ("127.0.0.2", 28080)})
    return {"network_mode": "bridge", "ports": {"80/tcp": ("127.0.0.1", 28080)}}


def _bind(pair: Pair) -> Wish:
    folder = pair.here.place / "bound"
    folder.mkdir(exist_ok=True)
    return {"volumes": {str(folder): {"bind": "/bound"}}}


def _companion(pair: Pair) -> Wish:
    pair.here.run(IDLE, name="other")
    return {"network_mode": "container:other"}


@pytest.mark.parametrize(
    ("obstacle", "word"),
    [
        (_name, "The container name .* is already in use"),
        (_volume, "volume data is there already"),
        (_port, "port 28080/tcp is in use"),
        (_bind, "which is not there"),
        (_companion, "move it first"),
    ],
)
def test_what_is_in_the_way_is_told_first(pair: Pair, obstacle: Any, word: str) -> None:
    wish = obstacle(pair)
    web = pair.here.run(IDLE, name="web", **wish)
    if obstacle is _bind:
        (pair.here.place / "bound").rmdir()
    before = holdings(pair.there)
    with pytest.raises(MoveFailed, match=word):
        pair.move("web")
    web.reload()
    assert web.status == "running"
    assert web.attrs["RestartCount"] == 0
    assert holdings(pair.there) == before
    # It is as free as it was.
    web.restart(timeout=0)


def test_volumes_that_are_there_are_taken_as_they_are_on_request(pair: Pair) -> None:
    pair.there.run("echo theirs > /data/n", name="first", volumes={"data": {"bind": "/data"}}).wait()
    pair.there.client.containers.get("first").remove()
    pair.here.run(f"echo ours > /data/n; {IDLE}", name="web", volumes={"data": {"bind": "/data"}})
    pair.move("web", UseVolumes=True, Start=False)
    place = Path(pair.there.client.volumes.get("data").attrs["Mountpoint"])
    assert (place / "n").read_text() == "theirs\n"
    # What was not taken along is not thrown away.
    assert (Path(pair.here.client.volumes.get("data").attrs["Mountpoint"]) / "n").read_text() == "ours\n"


@pytest.mark.parametrize(
    ("script", "check", "word"),
    [
        ("[ -e /once ] && exit 5; touch /once; " + IDLE, None, "ended at once with exit code 5"),
        (IDLE, {"test": ["CMD-SHELL", "echo ill; exit 1"], "interval": 10_000_000, "retries": 2}, "is unhealthy: ill"),
    ],
)
def test_one_that_does_not_do_well_there_stays(pair: Pair, script: str, check: Any, word: str) -> None:
    web = pair.here.run(script, name="web", healthcheck=check, volumes={"data": {"bind": "/data"}})
    wait_for(lambda: pair.here.exec(web, "true")[0] == 0, "its life")
    before = holdings(pair.there)
    if "once" in script:
        wait_for(lambda: pair.here.exec(web, "test", "-e", "/once")[0] == 0, "its mark")
    with pytest.raises(MoveFailed, match=word):
        pair.move("web")
    assert holdings(pair.there) == before
    if check is not None:
        assert status(pair.here, "web") == "running"
    # It was down for it: its policy and its user's wish are as before.
    assert holdings(pair.here)["volumes"] == {"data"}
    assert not pair.here.client.containers.get("web").attrs["HostConfig"]["RestartPolicy"]["MaximumRetryCount"]


def test_whoever_leaves_calls_it_off(pair: Pair) -> None:
    web = pair.here.run(COUNT, name="web", volumes={"data": {"bind": "/data"}})
    before = holdings(pair.there)
    reached, go = threading.Event(), threading.Event()

    def hold(point: str, after: bool) -> None:
        if point == "PUT trees/files" and not after:
            reached.set()
            go.wait(20)

    with wired(pair.there, hold) as address:
        moving = threading.Thread(target=_try, args=(pair, address))
        moving.start()
        assert reached.wait(20)
        client: Any = pair.here.client.api
        for forbidden in (client.remove_container, lambda name: client.rename(name, "other")):
            with pytest.raises(APIError, match="is being moved"):
                forbidden("web")
        with pytest.raises(MoveFailed, match="is being moved already"):
            pair.move("web")
        answer = client.post(client._url("/containers/web/move/abort"))
        assert answer.status_code == 204, answer.text
        go.set()
        moving.join(20)
        assert pair.settled("web") is pair.here
    wait_for(lambda: holdings(pair.there) == before, "an empty place")
    assert lines_of(web)[0] == b"0"


def test_a_last_word_that_is_lost_is_said_again(pair: Pair) -> None:
    pair.here.run(IDLE, name="web")
    lost: list[str] = []

    def lose(point: str, after: bool) -> None:
        if point == "POST commit" and not lost:
            lost.append(point)
            raise ConnectionResetError

    with wired(pair.there, lose) as address:
        pair.move("web", address)
    assert lost
    assert pair.settled("web") is pair.there
    # It is no longer being moved.
    Pair(pair.there, pair.here).move("web")
    assert pair.settled("web") is pair.here


def _try(pair: Pair, address: str) -> None:
    with pytest.raises(MoveFailed, match="called off"):
        pair.move("web", address)


def test_an_engine_that_is_none(pair: Pair) -> None:
    pair.here.run(IDLE, name="web")
    for host, word in (
        ("unix:///nowhere/e.sock", "can't be reached"),
        ("tcp://127.0.0.1:1", "can't be reached"),
        ("ssh://host", "invalid host"),
        ("tcp://host", "invalid host"),
    ):
        with pytest.raises(MoveFailed, match=word):
            pair.move("web", host)
    assert status(pair.here, "web") == "running"


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Daemon, str, Wish]]:
    """An engine that lets in only who has a certificate; its address, and that certificate."""
    files = make_certificates(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    names = {"Authority": "ca.pem", "Certificate": "client.pem", "Key": "client-key.pem"}
    daemon = Daemon()
    try:
        daemon.start(
            *("--host", address, "--tlsverify", "--tlscacert", str(files / "ca.pem")),
            *("--tlscert", str(files / "server.pem"), "--tlskey", str(files / "server-key.pem")),
        )
        yield daemon, address, {name: (files / file).read_text() for name, file in names.items()}
        for container in daemon.client.containers.list(all=True):
            container.remove(force=True)
        daemon.stop()
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
        shutil.rmtree(daemon.place)


def test_over_tls_and_with_every_layer(pair: Pair, secure: tuple[Daemon, str, Wish]) -> None:
    there, address, certificate = secure
    pair.here.run(IDLE, name="web")
    with pytest.raises(MoveFailed, match=r"TLS failed|can't be reached|went away"):
        pair.move("web", address, Tls={**certificate, "Certificate": "", "Key": ""})
    with pytest.raises(MoveFailed, match="no usable certificate"):
        pair.move("web", address, Tls={**certificate, "Key": "none"})
    assert status(pair.here, "web") == "running"
    pair.move("web", address, Tls=certificate)
    assert (status(pair.here, "web"), status(there, "web")) == ("", "running")
    assert there.client.images.get("busybox:1.35").tags == ["busybox:1.35"]


@pytest.fixture
def small() -> Iterator[Daemon]:
    """An engine whose disk has 24 MiB."""
    daemon = Daemon()
    root = daemon.config.data_root
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "shipway-small", root], check=True)
    try:
        daemon.start()
        yield daemon
        daemon.stop()
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
        subprocess.run(["umount", root], check=True)
        shutil.rmtree(daemon.place)


def test_a_full_disk_there(pair: Pair, small: Daemon) -> None:
    web = pair.here.run(
        f"head -c 40000000 /dev/urandom > /data/big; echo full; {IDLE}", name="web", volumes={"data": {"bind": "/data"}}
    )
    wait_for(lambda: lines_of(web) == [b"full"], "a large volume")
    before = holdings(small)
    with pytest.raises(MoveFailed, match=r"no space left|No space left"):
        pair.move("web", small.url)
    web.reload()
    assert web.status == "running"
    wait_for(lambda: holdings(small) == before, "an empty place")
