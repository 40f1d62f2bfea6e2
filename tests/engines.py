"""The engine that a whole test session shares. Tests that end an engine start one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import needs
from tests.engine.containers.daemon import running


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """The address of an engine with the image `busybox:1.35`."""
    needs.root()
    with running() as daemon:
        yield daemon.url
