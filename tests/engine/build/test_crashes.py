"""kill -9 at any moment of a build: nothing half-made is used, and the next build takes up what was done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[3]


def test_killed_at_any_moment(memory: Path) -> None:
    words = [sys.executable, "-m", "tests.engine.build.crashes", str(memory)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 30, "so often was it killed"
