"""kill -9 at any moment: the store is whole, and what was interrupted is done again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("operation", ["load", "build", "commit", "lend", "collect"])
def test_killed_at_any_moment(memory: Path, operation: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.images.crashes", operation, str(memory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 50, "so often was it killed"
