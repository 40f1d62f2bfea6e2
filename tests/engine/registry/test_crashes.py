"""kill -9 of the one who pulls or pushes, and of the registry: all is whole, and it is done again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("module", "operation"),
    [
        ("crashes", "pull"),
        ("crashes", "push"),
        ("storagecrashes", "push"),
        ("storagecrashes", "delete"),
        ("storagecrashes", "collect"),
    ],
)
def test_killed_at_any_moment(memory: Path, module: str, operation: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.engine.registry.{module}", operation, str(memory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= 50, "so often was it killed"
