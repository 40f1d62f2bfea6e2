"""Holding what was claimed: a thread that renews, and tells the work when to stop.

Whoever works calls `check()` wherever it pauses. What can't pause, a container for instance, is registered
with `on_stop` and is ended the moment the lease is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pipeline.errors import LeaseLost, PipelineError
from pipeline.protocol import LeaseState, Renewal


class Cancelled(Exception):
    """Somebody cancelled the run: stop, clean up, finish as cancelled."""


class TimedOut(Exception):
    """The stage took longer than it may."""


class Lease:
    """Renews until closed. A context manager.

    `renew` asks the server once. When the server has not answered for a whole lease, the lease counts as lost
    here too, for it may be somebody else's by now.
    """

    def __init__(
        self,
        renew: Callable[[], Renewal],
        seconds: float,
        *,
        timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._renew = renew
        self._seconds = seconds
        self._clock = clock
        self._expires = clock() + seconds
        self._deadline = None if timeout is None else clock() + timeout
        self._timeout = timeout
        self._reason: Exception | None = None
        self._stoppers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def check(self) -> None:
        """Raises LeaseLost, Cancelled or TimedOut when the work should stop."""
        if self._reason is not None:
            raise self._reason

    @property
    def stopped(self) -> bool:
        return self._reason is not None

    def on_stop(self, stopper: Callable[[], None]) -> None:
        """Calls `stopper`, once and from another thread, when the work should stop; at once if it should
        already. Its errors are ignored."""
        with self._lock:
            if self._reason is None:
                self._stoppers.append(stopper)
                return
        _quietly(stopper)

    def stop(self, reason: Exception) -> None:
        """Ends the work from here. The first reason stays."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            stoppers, self._stoppers = self._stoppers, []
        for stopper in stoppers:
            _quietly(stopper)

    def _run(self) -> None:
        while not self._closed.wait(self._pause()):
            if self._deadline is not None and self._clock() >= self._deadline:
                self.stop(TimedOut(f"it took longer than {self._timeout:g} s"))
                self._deadline = None
            self._ask()

    def _pause(self) -> float:
        pause = self._seconds / 4
        if self._deadline is not None:
            pause = min(pause, self._deadline - self._clock())
        return max(0.01, pause)

    def _ask(self) -> None:
        asked = self._clock()
        try:
            state = self._renew().state
        except PipelineError:
            # The server is away: it may be back before the lease runs out.
            if self._clock() > self._expires:
                self.stop(LeaseLost("the server did not answer for the whole lease"))
            return
        if state is LeaseState.LOST:
            self.stop(LeaseLost("the attempt was given to another worker"))
        elif state is LeaseState.CANCELLED:
            self.stop(Cancelled("the run was cancelled"))
            self._expires = asked + self._seconds
        else:
            self._expires = asked + self._seconds


def _quietly(stopper: Callable[[], None]) -> None:
    with suppress(Exception):
        stopper()
