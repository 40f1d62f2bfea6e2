"""What holds for every test: nothing of ours may stay behind on the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator

import pytest

from tests.engines import engine
from tests.leftovers import Leftovers

__all__ = ["engine"]

_PR_SET_CHILD_SUBREAPER = 36


def _bury() -> None:
    """The orphans that have ended: the first process of their pid namespace ends only after them."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    """Compares the machine before and after. Orphans of a test become ours, so that they are seen."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = Leftovers.now()
    yield
    deadline = time.monotonic() + 5
    # What has been told to end may still be at it.
    while (fresh := Leftovers.now() - before) and time.monotonic() < deadline:
        _bury()
        time.sleep(0.05)
    # Other work on this machine may come and go; a build machine sets CI, and there it counts.
    if fresh and (os.environ.get("CI") or fresh.processes):
        pytest.fail(f"the tests left behind:\n{fresh}", pytrace=False)
