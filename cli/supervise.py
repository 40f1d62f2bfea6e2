"""Keeps the parts of a system running: starts them in order, restarts what dies, stops them in reverse."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.errors import CommandError

_PR_SET_PDEATHSIG = 1
_LARGE_LOG = 8 << 20
"""Bytes from which a part begins a new log; the old one stays as `.old` until the next time."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Part:
    """One process of the system. `ready` says whether it serves yet; times are in seconds."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], bool]
    log: Path
    start_timeout: float = 20.0
    stop_timeout: float = 20.0


class PartFailedError(CommandError):
    """A part ended, or did not become ready in time."""


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes]
    deaths: list[float] = field(default_factory=list)
    restart_at: float | None = None


class Supervisor:
    """Runs parts as child processes in sessions of their own.

    A part that dies is started again, at once the first time and then after 1, 2, 4 ... 30 s while it keeps
    dying. If this process is killed outright, the kernel sends each part SIGTERM.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._running: list[_Running] = []

    def start(self, part: Part) -> float:
        """Starts `part` and waits until it is ready; returns the seconds that took.

        Raises PartFailedError, with the last words of its log, when it ends or takes too long.
        """
        began = time.monotonic()
        running = _Running(part, _spawn(part))
        self._running.append(running)
        while not part.ready():
            if running.process.poll() is not None:
                raise PartFailedError(f"{part.name} ended at its start: {_last_words(part.log)}; see {part.log}")
            if time.monotonic() - began > part.start_timeout:
                raise PartFailedError(f"{part.name} was not ready within {part.start_timeout:.0f} s; see {part.log}")
            time.sleep(0.01)
        return time.monotonic() - began

    def watch(self) -> None:
        """Restarts parts that died. Returns never; SIGINT raises KeyboardInterrupt as usual."""
        while True:
            now = time.monotonic()
            for running in self._running:
                self._tend(running, now)
            time.sleep(0.2)

    def _tend(self, running: _Running, now: float) -> None:
        if running.process.poll() is None:
            return
        if running.restart_at is None:
            running.deaths = [t for t in running.deaths if now - t < 60] + [now]
            recent = len(running.deaths) - 1
            pause = min(30.0, 2.0 ** (recent - 1)) if recent else 0.0
            running.restart_at = now + pause
            status = running.process.returncode
            self._report(f"{running.part.name} ended with {status}; starting it again in {pause:.0f} s")
        if now >= running.restart_at:
            running.restart_at = None
            running.process = _spawn(running.part)

    def stop(self) -> None:
        """Stops everything, last started first: SIGTERM, then SIGKILL after the part's own time."""
        for running in reversed(self._running):
            process = running.process
            if process.poll() is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(running.part.stop_timeout)
            except subprocess.TimeoutExpired:
                self._report(f"{running.part.name} did not stop in {running.part.stop_timeout:.0f} s: killed")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._running.clear()


def _spawn(part: Part) -> subprocess.Popen[bytes]:
    part.log.parent.mkdir(parents=True, exist_ok=True)
    if part.log.exists() and part.log.stat().st_size > _LARGE_LOG:
        part.log.replace(part.log.with_name(part.log.name + ".old"))
    with part.log.open("ab") as log:
        return subprocess.Popen(
            part.argv,
            env=dict(part.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
