from __future__ import annotations

from pathlib import Path

import pytest

from engine.containers import inspection, times
from engine.containers.hostconfig import HostConfig, PortBinding
from engine.containers.model import (
    Container,
    ContainerConfig,
    ContainerPaths,
    EndpointSettings,
    Health,
    MountPoint,
    NetworkSettings,
    State,
)

SECOND = 10**9
NOW = 1_700_000_000 * SECOND


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (2700, "45 minutes"),
        (2800, "About an hour"),
        (7200, "2 hours"),
        (3 * 86400, "3 days"),
        (15 * 86400, "2 weeks"),
        (70 * 86400, "2 months"),
        (800 * 86400, "2 years"),
        (-5, "Less than a second"),
    ],
)
def test_durations_in_dockers_words(seconds: int, words: str) -> None:
    assert inspection.human(seconds * SECOND) == words


AGO = times.rfc3339(NOW - 5 * SECOND)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (State(), "Created"),
        (State(status="running", started_at=AGO), "Up 5 seconds"),
        (State(status="running", started_at=AGO, health=Health()), "Up 5 seconds (health: starting)"),
        (State(status="running", started_at=AGO, health=Health(status="healthy")), "Up 5 seconds (healthy)"),
        (State(status="paused", started_at=AGO), "Up 5 seconds (Paused)"),
        (State(status="exited", exit_code=137, finished_at=AGO), "Exited (137) 5 seconds ago"),
        (State(status="restarting", exit_code=1, finished_at=AGO), "Restarting (1) 5 seconds ago"),
        (State(status="removing"), "Removal In Progress"),
        (State(status="dead"), "Dead"),
    ],
)
def test_status_lines(state: State, line: str) -> None:
    assert inspection.status_line(state, NOW) == line


@pytest.fixture
def container() -> Container:
    return Container(
        id="a" * 64,
        name="web",
        created=AGO,
        image="sha256:1",
        path="sleep",
        args=["1"],
        config=ContainerConfig(image="box", labels={"a": "b"}),
        host_config=HostConfig(network_mode="default"),
        state=State(status="running", pid=7, started_at=AGO),
        network_settings=NetworkSettings(
            ports={"80/tcp": [PortBinding("0.0.0.0", "8080")], "81/tcp": None},
            networks={"bridge": EndpointSettings(ip_address="10.0.0.2", ip_prefix_len=24, endpoint_id="e")},
            sandbox_key="/proc/7/ns/net",
        ),
        mounts=[
            MountPoint(type="volume", name="v", source="/vols/v", destination="/v", driver="local", anonymous=True),
            MountPoint(type="bind", source="/b", destination="/c", rw=False, mode="ro", propagation="rprivate"),
        ],
    )


def test_inspect(container: Container) -> None:
    shown = inspection.inspect(container, ContainerPaths(Path("/data"), container.id), lower=["/l1", "/l2"])
    assert shown["Name"] == "/web"
    assert shown["State"]["Running"] is True
    assert shown["State"]["Pid"] == 7
    assert "Health" not in shown["State"]
    assert shown["GraphDriver"]["Data"]["LowerDir"] == "/l1:/l2"
    assert shown["NetworkSettings"]["IPAddress"] == "10.0.0.2"
    assert shown["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None}
    volume, bind = shown["Mounts"]
    assert set(volume) == {"Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"}
    assert bind["Destination"] == "/c"
    assert bind["RW"] is False
    assert "Name" not in bind


@pytest.mark.parametrize("asked", [None, 0])
def test_what_was_asked_for_is_shown_though_it_is_nothing(container: Container, asked: int | None) -> None:
    container.config.stop_timeout = asked
    container.host_config.init = None if asked is None else bool(asked)
    shown = inspection.inspect(container, ContainerPaths(Path("/data"), container.id))
    assert shown["Config"].get("StopTimeout") == asked
    assert shown["HostConfig"].get("Init") == asked
    assert ("StopTimeout" in shown["Config"], "Init" in shown["HostConfig"]) == (asked == 0, asked == 0)


def test_a_line_of_the_list(container: Container) -> None:
    shown = inspection.summary(container)
    assert shown["Names"] == ["/web"]
    assert shown["Command"] == "sleep 1"
    assert shown["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "Type": "tcp", "PublicPort": 8080},
        {"PrivatePort": 81, "Type": "tcp"},
    ]
    container.state.status = "exited"
    assert inspection.summary(container)["Ports"] == []
