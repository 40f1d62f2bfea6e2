"""Whether a replica can serve: one probe, and the waiting until it succeeds."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable

from pipeline.services import Health

Probe = Callable[[], str | None]
"""One try. None: it serves; else why not, in a few words."""

_FIRST_PAUSE = 0.01


def http_probe(address: str, port: int, path: str, timeout: float) -> Probe:
    """A GET request; 2xx and 3xx are good."""

    def probe() -> str | None:
        connection = http.client.HTTPConnection(address, port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"User-Agent": "shipway-health", "Connection": "close"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"GET {path}: {_say(error)}"
        finally:
            connection.close()
        return None if 200 <= status < 400 else f"GET {path} answered {status}"

    return probe


def tcp_probe(address: str, port: int, timeout: float) -> Probe:
    """A connection is enough."""

    def probe() -> str | None:
        try:
            socket.create_connection((address, port), timeout).close()
        except OSError as error:
            return f"port {port}: {_say(error)}"
        return None

    return probe


class Watch:
    """Counts failures in a row, as `health` says. One for each replica."""

    def __init__(self, health: Health, *, started: float) -> None:
        self._health = health
        self._grace_ends = started + health.start_period
        self._failures = 0
        self._succeeded = False

    def saw(self, problem: str | None, now: float) -> bool | None:
        """The verdict after one probe: True healthy, False unhealthy, None not known yet."""
        if problem is None:
            self._failures = 0
            self._succeeded = True
            return True
        if not self._succeeded and now < self._grace_ends:
            return None
        self._failures += 1
        return False if self._failures >= self._health.retries else None


def wait_healthy(
    probe: Probe,
    health: Health,
    *,
    died: Callable[[], str | None],
    check: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Probes until the replica serves. None: it does; else why it never will.

    Asks often at first, for most start in a moment, then at the health check's own interval. `died` says why
    the replica's process is gone, if it is; `check` raises to give up.
    """
    watch = Watch(health, started=clock())
    pause = _FIRST_PAUSE
    while True:
        check()
        problem = probe()
        verdict = watch.saw(problem, clock())
        if verdict:
            return None
        if verdict is False:
            return problem
        gone = died()
        if gone is not None:
            return gone
        sleep(min(pause, health.interval))
        pause *= 1.5


def _say(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
