"""kill -9 at any moment of a build: nothing half-made is used, and the next build takes up what was done."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[3]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder that costs no disk: the kernel keeps what a killed process has written, so memory will do."""
    needs.root()
    root = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="shipway-", dir=root if root.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def test_killed_at_any_moment(memory: Path) -> None:
    words = [sys.executable, "-m", "tests.engine.build.crashes", str(memory)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 30, "so often was it killed"
