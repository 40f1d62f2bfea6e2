from __future__ import annotations

from pathlib import Path

from engine.containers import links, times
from engine.containers.hostconfig import HostConfig
from engine.containers.model import Container, ContainerConfig, EndpointSettings, NetworkSettings
from engine.containers.registry import Registry
from engine.containers.store import ContainerStore


def container(registry: Registry, prefix: str, name: str, *linked: str) -> Container:
    made = Container(
        id=prefix * 32,
        name=registry.free_name(name, prefix * 32),
        created=times.rfc3339(0),
        image="sha256:x",
        config=ContainerConfig(),
        host_config=HostConfig(links=list(linked)),
        network_settings=NetworkSettings(networks={"bridge": EndpointSettings()}),
    )
    registry.add(made)
    return made


def test_one_to_the_beginning_of_several_ids_names_nobody(tmp_path: Path) -> None:
    registry = Registry(ContainerStore(tmp_path))
    first, owner = container(registry, "a1", "first"), container(registry, "b1", "owner", "a:alias", "first:one")
    assert links.names_of(first, registry) == ["/owner/alias", "/owner/one"]
    container(registry, "a2", "second")
    assert links.names_of(first, registry) == ["/owner/one"]
    assert links.shown(owner, registry) == ["/a:/owner/alias", "/first:/owner/one"]
    assert links.in_hosts(owner, registry, strict=False) == []
