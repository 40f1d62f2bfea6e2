"""Waiting for what must happen."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

PATIENCE = float(os.environ.get("SHIPWAY_TEST_PATIENCE", "1"))
"""How many times longer than elsewhere a test waits: emulated machines are slow."""


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 20.0) -> Any:
    """The first true value of `condition()`."""
    deadline = time.monotonic() + timeout * PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:g} s"
        time.sleep(0.005)
    return value


async def eventually(condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
    """The same on a loop, which goes on meanwhile."""
    deadline = time.monotonic() + timeout * PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:g} s"
        await asyncio.sleep(0.005)
    return value
