from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests import needs
from tests.engine.containers.harness import Rooms, opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rooms(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rooms]:
    """One engine for a file's tests: each uses containers of its own."""
    needs.root()
    async with opened(tmp_path_factory.mktemp("engine")) as made:
        yield made
