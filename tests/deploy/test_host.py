"""One host's part of a rollout: a real engine, real containers, the kernel's own traffic switch."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from deploy.desired import Records
from deploy.errors import Busy, ReplicaFailed
from deploy.host import Host
from deploy.releases import Target
from deploy.replicas import Replicas
from deploy.traffic.base import Route
from deploy.traffic.nftables import NftTraffic
from tests.deploy.services import published_port, release

pytestmark = pytest.mark.kernel

TABLE = "shipway_traffic_hosttest"


class Killed(BaseException):
    """The host's process ends here."""


def calm() -> None:
    return


def ask(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        return answer.read().decode().strip()
    finally:
        connection.close()


@dataclass
class Visitor:
    """Asks almost without a pause, and notes what it is told, in order and without repetition."""

    port: int
    seen: list[str] = field(default_factory=list)
    count: int = 0
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Visitor:
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._walk)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()

    def _walk(self) -> None:
        while not self._leave.wait(0.002):
            try:
                word = ask(self.port)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(repr(error))
                continue
            self.count += 1
            if not self.seen or self.seen[-1] != word:
                self.seen.append(word)


@dataclass
class Lab:
    """A host that can be killed and started again: what it knows is in the engine, the kernel and the records."""

    replicas: Replicas
    records: Records
    port: int
    said: list[str] = field(default_factory=list)

    @property
    def traffic(self) -> NftTraffic:
        return NftTraffic(TABLE)

    def host(self, say: Callable[[str], None] | None = None) -> Host:
        return Host(self.replicas, self.traffic, self.records, lock_timeout=5.0, say=say or self.said.append)

    def release(self, number: int, **keys: Any) -> Target:
        return release(number, **{"replicas": 2, "publish": self.port, **keys})

    def names(self) -> list[str]:
        return [found.name for found in self.replicas.find("web")]

    def led_to(self) -> set[str]:
        """Whom new connections reach, as the kernel says."""
        routes = [route for route in self.traffic.routes() if route.service == "web"]
        backends = {found.backend: found.name for found in self.replicas.find("web")}
        return {backends[backend] for route in routes for backend in route.backends}


@pytest.fixture
def lab(replicas: Replicas, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(replicas, Records(tmp_path / "services"), published_port())
    yield made
    made.traffic.clear()


def test_the_first_release_and_nothing_to_do_again(lab: Lab):
    first = lab.release(1)
    lab.host().converge(first, {}, calm)
    assert lab.names() == ["web-1-1", "web-1-2"] == sorted(lab.led_to())
    assert ask(lab.port) == "web-1"
    record = lab.records.read("web")
    assert record is not None
    assert (record.target, record.serving) == (first, ("web-1-1", "web-1-2"))

    before = {found.name: found.pid for found in lab.replicas.find()}
    lab.said.clear()
    lab.host().converge(first, {}, calm)
    assert lab.said == []
    assert {found.name: found.pid for found in lab.replicas.find()} == before


def test_the_next_release_drops_nobody(lab: Lab):
    lab.host().converge(lab.release(1), {}, calm)
    with Visitor(lab.port) as visitor:
        lab.host().converge(lab.release(2), {}, calm)
        count = visitor.count
        deadline = time.monotonic() + 10
        while visitor.count < count + 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert visitor.failures == []
    assert visitor.seen[0] == "web-1"
    assert visitor.seen[-1] == "web-2"
    assert lab.names() == ["web-2-1", "web-2-2"] == sorted(lab.led_to())


def test_who_was_being_served_is_served_to_the_end(lab: Lab):
    """A connection made before the switch stays with its replica, which is not stopped before it has ended."""
    lab.host().converge(lab.release(1, replicas=1, rollout={"drain": "60s"}), {}, calm)
    with socket.create_connection(("127.0.0.1", lab.port), timeout=20) as held:
        update = threading.Thread(
            target=lab.host().converge,
            args=(lab.release(2, replicas=1, rollout={"drain": "60s"}), {}, calm),
        )
        update.start()
        deadline = time.monotonic() + 20
        while "retiring web-1-1" not in lab.said:
            assert time.monotonic() < deadline, lab.said
            time.sleep(0.01)
        assert ask(lab.port) == "web-2"
        assert lab.names() == ["web-1-1", "web-2-1"]
        held.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: held.recv(4096), b""))
    update.join(30)
    assert answer.endswith(b"web-1\n")
    assert lab.names() == ["web-2-1"]


def test_patience_with_old_connections_ends(lab: Lab):
    lab.host().converge(lab.release(1, replicas=1), {}, calm)
    with socket.create_connection(("127.0.0.1", lab.port), timeout=20):
        lab.host().converge(lab.release(2, replicas=1, rollout={"drain": "200ms"}), {}, calm)
    assert "web-1-1: some connections outlasted 0.2 s" in lab.said
    assert lab.names() == ["web-2-1"]


def test_it_may_be_killed_at_any_word(lab: Lab):
    """Each time a new process goes on from what it finds. Users notice nothing."""
    lab.host().converge(lab.release(1), {}, calm)
    steps = 0
    with Visitor(lab.port) as visitor:
        for number in range(2, 12):
            words = iter(range(number - 2))

            def say(line: str, words: Iterator[int] = words) -> None:
                if next(words, None) is None:
                    raise Killed(line)

            try:
                lab.host(say).converge(lab.release(number), {}, calm)
            except Killed:
                steps += 1
                lab.host().converge(lab.release(number), {}, calm)
                assert lab.names() == [f"web-{number}-1", f"web-{number}-2"] == sorted(lab.led_to())
            else:
                break
    assert visitor.failures == []
    assert steps == 6, "two are started, two are led to, two are retired"
    assert visitor.seen[-1] == f"web-{number}"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("true", r"web-2-1 did not become healthy: GET / answered 404; it said: web-2 serves"),
        ("echo no tide; exit 3", r"web-2-1 did not become healthy: .*; it said: no tide"),
    ],
    ids=["sick", "dead"],
)
def test_a_release_that_can_not_serve_changes_nothing_for_users(lab: Lab, before: str, words: str):
    lab.host().converge(lab.release(1), {}, calm)
    with Visitor(lab.port) as visitor:
        with pytest.raises(ReplicaFailed) as caught:
            lab.host().converge(lab.release(2, before=before), {}, calm)
        assert lab.led_to() == {"web-1-1", "web-1-2"}
        lab.host().converge(lab.release(1), {}, calm)
    assert re.fullmatch(words, str(caught.value)), str(caught.value)
    assert any(line.startswith("web-2-1: ") for line in lab.said), "its last words are told"
    assert (visitor.seen, visitor.failures) == (["web-1"], [])
    assert lab.names() == ["web-1-1", "web-1-2"]


def test_the_watch_sees_one_that_ends_and_one_that_falls_ill(lab: Lab, engine: docker.DockerClient):
    target = lab.release(1)
    lab.host().converge(target, {}, calm)
    lab.host().watch(target, 0.3, calm)
    engine.containers.get("web-1-2").exec_run(["rm", "/tmp/www/index.html"])
    with pytest.raises(ReplicaFailed, match="web-1-2 did not stay healthy: GET / answered 404"):
        lab.host().watch(target, 30, calm)
    engine.containers.get("web-1-1").exec_run(["kill", "1"], detach=True)
    with pytest.raises(ReplicaFailed, match=r"web-1-\d did not stay healthy"):
        lab.host().watch(target, 30, calm)
    lab.replicas.remove("web-1-1", grace=0)
    with pytest.raises(ReplicaFailed, match="web-1-1: its container is gone"):
        lab.host().watch(target, 30, calm)


def test_another_port(lab: Lab):
    lab.host().converge(lab.release(1), {}, calm)
    other = published_port()
    lab.host().converge(lab.release(2, publish=other), {}, calm)
    assert ask(other) == "web-2"
    with pytest.raises(OSError, match="refused"):
        ask(lab.port)
    assert [route.port for route in lab.traffic.routes()] == [other]


def test_a_switch_that_was_lost_is_made_again(lab: Lab):
    first = lab.release(1)
    lab.host().converge(first, {}, calm)
    backend = next(found.backend for found in lab.replicas.find() if found.name == "web-1-1")
    assert backend is not None
    for spoil in (lab.traffic.clear, lambda: lab.traffic.switch(Route("web", lab.port, (backend,)))):
        spoil()
        lab.host().converge(first, {}, calm)
        assert lab.led_to() == {"web-1-1", "web-1-2"}
        assert ask(lab.port) == "web-1"


def test_a_service_without_a_port(lab: Lab):
    keys = {"publish": None, "port": None, "health": None}
    lab.host().converge(lab.release(1, **keys), {}, calm)
    lab.host().converge(lab.release(2, **keys), {}, calm)
    assert lab.names() == ["web-2-1", "web-2-2"]
    assert lab.traffic.routes() == []


def test_more_and_fewer_replicas_of_one_release(lab: Lab):
    lab.host().converge(lab.release(1, replicas=3), {}, calm)
    assert len(lab.led_to()) == 3
    lab.host().converge(lab.release(1, replicas=1), {}, calm)
    assert lab.names() == ["web-1-1"] == sorted(lab.led_to())


def test_nothing_is_left_of_a_service_that_is_withdrawn(lab: Lab):
    first = lab.release(1)
    lab.host().converge(first, {}, calm)
    lab.host().withdraw(first, calm)
    lab.host().withdraw(first, calm)
    assert (lab.names(), lab.traffic.routes(), lab.records.read("web")) == ([], [], None)
    with pytest.raises(OSError, match="refused"):
        ask(lab.port)


def test_it_stops_when_its_lease_is_lost(lab: Lab):
    def check() -> None:
        raise Killed

    with pytest.raises(Killed):
        lab.host().converge(lab.release(1), {}, check)
    assert lab.names() == []
    lab.host().converge(lab.release(1), {}, calm)
    host = lab.host()
    host.lock_timeout = 0.05
    with lab.records.lock("web", check=calm, timeout=0.0), pytest.raises(Busy):
        host.converge(lab.release(2), {}, calm)
    assert lab.names() == ["web-1-1", "web-1-2"]
