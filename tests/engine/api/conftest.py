from __future__ import annotations

import contextlib
from collections.abc import Iterator

import docker
import pytest

from tests.engine.api.wire import Wire


@pytest.fixture(scope="session")
def wire(engine: str) -> Wire:
    """The engine's API without any library in between."""
    return Wire(engine.removeprefix("unix://"))


@pytest.fixture
def client(engine: str) -> Iterator[docker.DockerClient]:
    """The docker library on the session's engine. What a test made there is gone after it."""
    with contextlib.closing(docker.DockerClient(engine, timeout=30)) as client:
        networks = {network.id for network in client.networks.list()}
        yield client
        for container in client.containers.list(all=True):
            container.remove(force=True, v=True)
        for network in client.networks.list():
            if network.id not in networks:
                network.remove()
        for volume in client.volumes.list():
            volume.remove()
