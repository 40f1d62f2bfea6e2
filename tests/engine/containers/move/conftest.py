from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import needs
from tests.engine.containers.daemon import running
from tests.engine.containers.move.pair import Pair


@pytest.fixture(scope="module")
def engines() -> Iterator[Pair]:
    needs.root()
    with running() as here, running() as there:
        yield Pair(here, there)


@pytest.fixture
def pair(engines: Pair) -> Iterator[Pair]:
    """Both engines; what a test made is gone after it."""
    yield engines
    for daemon in (engines.here, engines.there):
        client = daemon.client
        for container in client.containers.list(all=True):
            container.remove(force=True, v=True)
        for volume in client.volumes.list():
            volume.remove()
        client.networks.prune()
