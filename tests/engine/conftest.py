"""What tests of several rooms need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder that costs no disk: the kernel keeps what a killed process has written, so memory will do."""
    needs.root()
    root = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="shipway-", dir=root if root.is_dir() else None))
    yield folder
    shutil.rmtree(folder)
