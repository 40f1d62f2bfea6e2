"""The story of `scripts/demo`, from an empty folder to an empty folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.hosts import ROOT
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.redis, pytest.mark.timeout(180)]


def test_the_whole_story_happens() -> None:
    ports = [free_port() for _ in range(4)]
    options = ("--server-port", "--registry-port", "--metrics-port", "--publish-port")
    told = subprocess.run(
        [
            *(sys.executable, "-m", "scripts.story", "--exit"),
            *(word for option, port in zip(options, ports, strict=True) for word in (option, str(port))),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "not one of them failed" in told.stdout
    assert "nothing is left behind" in told.stdout
