from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.broker import Broker, stop


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for socket names."""
    path = Path(tempfile.mkdtemp(prefix="sww"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def broker(short_path: Path) -> Iterator[Broker]:
    broker = Broker(short_path / "data", short_path / "b.sock")
    process = broker.start()
    yield broker
    stop(process)
