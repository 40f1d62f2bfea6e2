from __future__ import annotations

import pytest

from engine.containers.filters import check, matcher, matches_labels
from engine.containers.hostconfig import HostConfig, PortBinding
from engine.containers.model import (
    Container,
    ContainerConfig,
    EndpointSettings,
    Health,
    MountPoint,
    NetworkSettings,
    State,
)
from engine.errors import InvalidInput, NotFound


def container(number: int, **more: object) -> Container:
    fields: dict[str, object] = {
        "id": f"{number}" * 64,
        "name": f"box{number}",
        "created": f"2024-01-0{number}T00:00:00Z",
        "image": f"sha256:{number}",
        "config": ContainerConfig(),
        "host_config": HostConfig(),
    }
    return Container(**(fields | more))  # type: ignore[arg-type]


ALL = [
    container(1, config=ContainerConfig(labels={"a": "1", "b": ""}), state=State(status="running")),
    container(
        2,
        config=ContainerConfig(labels={"a": "2"}, exposed_ports={"80/tcp": {}}),
        state=State(status="exited", exit_code=3),
        mounts=[MountPoint(type="volume", name="data", destination="/data")],
        host_config=HostConfig(port_bindings={"80/tcp": [PortBinding()], "53/udp": []}),
    ),
    container(
        3,
        name="web",
        state=State(status="exited", health=Health(status="healthy")),
        network_settings=NetworkSettings(networks={"front": EndpointSettings(network_id="abcdef")}),
    ),
]


def lookup(ref: str) -> Container:
    for each in ALL:
        if ref in (each.name, each.id):
            return each
    raise NotFound(f"No such container: {ref}")


def images(name: str) -> list[str]:
    if name != "base":
        raise NotFound(name)
    return ["sha256:1", "sha256:3"]


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({}, "123"),
        ({"id": ["11", "22222"]}, "12"),
        ({"id": ["x"]}, ""),
        ({"name": ["box"]}, "12"),
        ({"name": ["^/box1$"]}, "1"),
        ({"name": ["^ox"]}, ""),
        ({"name": ["ox$"]}, ""),
        ({"label": ["a"]}, "12"),
        ({"label": ["a=1", "b"]}, "1"),
        ({"label": ["a=1", "a=2"]}, ""),
        ({"label!": ["a=1"]}, "23"),
        ({"label!": ["a"]}, "3"),
        ({"status": ["running", "paused"]}, "1"),
        ({"status": ["exited"], "exited": ["3"]}, "2"),
        ({"exited": ["0", "3"]}, "23"),
        ({"health": ["healthy"]}, "3"),
        ({"health": ["none"]}, "12"),
        ({"volume": ["data"]}, "2"),
        ({"volume": ["/data"]}, "2"),
        ({"network": ["front"]}, "3"),
        ({"network": ["abc"]}, "3"),
        ({"publish": ["80"]}, "2"),
        ({"publish": ["53/udp"]}, "2"),
        ({"publish": ["53"]}, ""),
        ({"expose": ["80/tcp"]}, "2"),
        ({"ancestor": ["base"]}, "13"),
        ({"ancestor": ["nothing"]}, ""),
        ({"before": ["box2"]}, "1"),
        ({"since": ["box1"], "before": ["web"]}, "2"),
        ({"until": ["2024-01-02T12:00:00Z"]}, "12"),
    ],
)
def test_filters(filters: dict[str, list[str]], numbers: str) -> None:
    matches = matcher(filters, lookup, images)
    assert "".join(each.id[0] for each in ALL if matches(each)) == numbers


@pytest.mark.parametrize(
    "filters",
    [
        {"nope": ["x"]},
        {"status": ["up"]},
        {"health": ["fine"]},
        {"exited": ["x"]},
        {"exited": ["--"]},
        {"exited": ["²"]},
    ],
)
def test_filters_that_mean_nothing(filters: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidInput, match="invalid filter"):
        check(filters)


def test_before_nobody() -> None:
    with pytest.raises(NotFound):
        matcher({"before": ["nobody"]}, lookup, images)


def test_labels_alone() -> None:
    assert matches_labels({"a": "b=c"}, {"label": ["a=b=c"]})
    assert not matches_labels({"a": ""}, {"label": ["a=b"]})


def test_labels() -> None:
    labels = {"a": "1", "b": ""}
    assert matches_labels(labels, {"label": ["a", "a=1", "b"]})
    assert not matches_labels(labels, {"label": ["a=2"]})
    assert not matches_labels(labels, {"label": ["c"]})
