"""Kills a process of its own at one system call after another, to see what it leaves behind.

The work runs in a fork; `os`'s functions that change something are counted there, and the one whose turn it is never
happens. What SQLite does is counted at each statement and each commit.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from engine.images.catalog import Catalog

CHANGING = (
    *("open", "write", "pwrite", "close", "fsync", "ftruncate", "rename", "replace", "unlink", "rmdir", "mkdir"),
    *("mknod", "link", "symlink", "chown", "fchown", "chmod", "fchmod", "utime", "setxattr", "removexattr"),
)


class Counter:
    """Counts system calls; at number `last` the process is no more."""

    def __init__(self, last: int) -> None:
        self.count = 0
        self._last = last
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._last:
                os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        for name in CHANGING:
            setattr(os, name, self._counted(getattr(os, name)))
        Catalog._do = self._counted(Catalog._do)  # type: ignore[method-assign]
        Catalog.transaction = self._around(Catalog.transaction)  # type: ignore[method-assign]

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            self.step()
            return real(*args, **named)

        return call

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        import contextlib

        @contextlib.contextmanager
        def transaction(*args: Any) -> Any:
            with real(*args):
                yield
                self.step()  # before the commit
            self.step()

        return transaction


def run_until(last: int, work: Callable[[], object]) -> int | None:
    """Does `work` in a fork until call number `last`; the number of calls if it came to its end before."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        counter = Counter(last)
        try:
            counter.arm()
            work()
            os.write(writer, str(counter.count).encode())
            sys.stdout.flush()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    assert status == 0, f"the work failed by itself: {status}"
    return int(told)


def at_points(most: int, work: Callable[[], object], after: Callable[[], object]) -> int:
    """Kills `work` at up to `most` points, evenly over all its calls; `after` looks at what is left and mends it.

    Returns at how many.
    """
    total = run_until(-1, work)
    assert total is not None
    after()
    step = max(1, -(-total // most))
    points = range(1, total + 1, step)
    killed = 0
    for point in points:
        killed += run_until(point, work) is None
        after()
    return killed
