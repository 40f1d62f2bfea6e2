from __future__ import annotations

import http.client
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deploy.traffic.base import Backend, Route, TrafficError
from deploy.traffic.nftables import NftTraffic

TABLE = "shipway_traffic_test"
BRIDGE = "10.9.0.0/24"


def route(*numbers: int, service: str = "web", port: int = 80) -> Route:
    return Route(service, port, tuple(Backend(f"10.9.0.{n}", 8000, BRIDGE) for n in numbers))


def get(address: str, port: int = 80) -> str:
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def loop(address: str, stop: threading.Event, answers: Counter[str], failures: list[str]) -> None:
    while not stop.is_set():
        try:
            answers[get(address).split()[0]] += 1
        except OSError as error:
            failures.append(repr(error))


def test_says_what_is_missing():
    with pytest.raises(TrafficError, match="install the package nftables"):
        NftTraffic(TABLE, command=("/nonexistent/nft",)).routes()
    with pytest.raises(TrafficError, match="can't be a service's name"):
        NftTraffic(TABLE, command=("sh", "-c", "echo '{}'")).switch(route(2, service='a" drop'))


def test_a_chain_never_ends_without_a_replica(tmp_path: Path):
    """A lookup in the rule of before fails while a switch is made: what follows it must still lead somewhere."""
    script = tmp_path / "script"
    shell = f"case $1 in -f) cat > {script};; *) echo '{{}}';; esac"
    NftTraffic(TABLE, command=("sh", "-c", shell, "nft"), proc_sys=_allowed(tmp_path)).switch(route(2, 3))
    rules = [line for line in script.read_text().splitlines() if line.startswith(f"add rule ip {TABLE} port_80 ")]
    assert len(rules) == 2
    assert rules[1].endswith("meta l4proto tcp dnat ip to 10.9.0.2:8000")


def _allowed(folder: Path) -> Path:
    for name in ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1\n")
    return folder


@pytest.mark.kernel
def test_new_connections_never_fail_across_switches(netlab: Any):
    for number in (2, 3, 4, 5):
        netlab.serve(netlab.container(number), f"r{number}")
    neighbour = netlab.container(9)
    traffic = NftTraffic(TABLE)
    netlab.run(netlab.host, lambda: traffic.switch(route(2, 3)))

    stop, failures = threading.Event(), []
    answers: dict[str, Counter[str]] = {}
    loops = []
    for space, address in (
        (netlab.client, "192.168.9.1"),
        (netlab.host, "127.0.0.1"),
        (neighbour, "10.9.0.1"),
    ):
        seen = answers.setdefault(address, Counter())
        loops.append(netlab.spawn(space, lambda a=address, s=seen: loop(a, stop, s, failures)))

    held = netlab.run(netlab.client, lambda: http.client.HTTPConnection("192.168.9.1", 80, timeout=5))
    netlab.run(netlab.client, held.connect)

    def words() -> str:
        held.request("GET", "/")
        return held.getresponse().read().decode()

    before = words()
    for _ in range(40):
        netlab.run(netlab.host, lambda: traffic.switch(route(4, 5)))
        netlab.run(netlab.host, lambda: traffic.switch(route(3, 4)))
    netlab.run(netlab.host, lambda: traffic.switch(route(4, 5)))
    stop.set()
    for finished in loops:
        finished()

    reached = {
        netlab.run(netlab.client, lambda: get("192.168.9.1").split()[0]),
        netlab.run(netlab.client, lambda: get("192.168.9.1").split()[0]),
    }

    assert failures == []
    assert reached == {"r4", "r5"}
    assert words() == before, "a connection made before stays with its replica"
    assert before.endswith(" 192.168.9.2"), "replicas see the client's own address"
    for address, seen in answers.items():
        assert sum(seen.values()) > 20, address
    held.close()


@pytest.mark.kernel
def test_routes_are_read_back_and_replaced(netlab: Any):
    traffic = NftTraffic(TABLE)

    def story() -> None:
        assert traffic.routes() == []
        traffic.remove("web")
        traffic.switch(route(2, 3))
        traffic.switch(route(4, service="api", port=81))
        assert traffic.routes() == [route(2, 3), route(4, service="api", port=81)]
        traffic.switch(route(2, 3, port=8080))
        assert traffic.routes() == [route(4, service="api", port=81), route(2, 3, port=8080)]
        traffic.switch(route(port=8080))
        assert traffic.routes()[1].backends == ()
        traffic.remove("web")
        traffic.remove("web")
        assert [kept.service for kept in traffic.routes()] == ["api"]
        traffic.clear()
        traffic.clear()
        assert traffic.routes() == []

    netlab.run(netlab.host, story)


@pytest.mark.kernel
def test_loopback_services_stay_private(netlab: Any):
    """route_localnet must not open 127.0.0.1 to the neighbours."""
    neighbour = netlab.container(9)
    netlab.run(netlab.host, lambda: NftTraffic(TABLE).switch(route(2)))
    netlab.serve(netlab.host, "private")
    netlab._ip("-n", neighbour, "route", "add", "127.0.0.9", "via", "10.9.0.1", "table", "local")

    def trespass() -> None:
        connection = http.client.HTTPConnection("127.0.0.9", 8000, timeout=0.3, source_address=("10.9.0.9", 0))
        connection.request("GET", "/")

    with pytest.raises(OSError):  # noqa: PT011
        netlab.run(neighbour, trespass)
