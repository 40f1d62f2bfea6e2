from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.supervise import Part, PartFailedError, Supervisor
from tests.patience import wait_for


def make_part(folder: Path, code: str, ready: Callable[[], bool], **options: float) -> Part:
    argv = (sys.executable, "-c", code)
    return Part("clock", argv, dict(os.environ), ready, folder / "logs" / "clock.log", **options)


RUNS = "import os, time, pathlib; pathlib.Path({path!r}).write_text(str(os.getpid())); time.sleep(60)"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_part_is_ready_before_start_returns_and_gone_after_stop(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    supervisor = Supervisor(print)
    took = supervisor.start(make_part(tmp_path, RUNS.format(path=str(pidfile)), lambda: bool(_pid(pidfile))))
    pid = _pid(pidfile)
    assert took > 0
    assert alive(pid)
    supervisor.stop()
    assert not alive(pid)


def test_a_large_log_is_begun_anew(tmp_path: Path) -> None:
    part = make_part(tmp_path, "raise SystemExit('short')", lambda: False)
    part.log.parent.mkdir()
    with part.log.open("wb") as log:
        log.truncate(9 << 20)
    with pytest.raises(PartFailedError):
        Supervisor(print).start(part)
    assert part.log.read_text().strip() == "short"
    assert part.log.with_name("clock.log.old").stat().st_size == 9 << 20


def test_a_part_that_ends_at_its_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    supervisor = Supervisor(print)
    part = make_part(tmp_path, "raise SystemExit('no clock on this wall')", lambda: False)
    with pytest.raises(PartFailedError, match="clock ended at its start: no clock on this wall"):
        supervisor.start(part)


def test_a_part_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    supervisor = Supervisor(print)
    part = make_part(tmp_path, "import time; time.sleep(60)", lambda: False, start_timeout=0.1)
    try:
        with pytest.raises(PartFailedError, match="was not ready within"):
            supervisor.start(part)
    finally:
        supervisor.stop()


def test_a_part_that_is_killed_comes_back(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    said: list[str] = []
    supervisor = Supervisor(said.append)
    supervisor.start(make_part(tmp_path, RUNS.format(path=str(pidfile)), lambda: bool(_pid(pidfile))))
    first = _pid(pidfile)
    watcher = threading.Thread(target=supervisor.watch, daemon=True)
    watcher.start()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: _pid(pidfile) not in (0, first), "the next one", 10)
    supervisor.stop()
    assert said[0].startswith("clock ended with -9; starting it again")


def test_a_part_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    said: list[str] = []
    supervisor = Supervisor(said.append)
    supervisor.start(make_part(tmp_path, code, ready.exists, stop_timeout=0.1))
    supervisor.stop()
    assert said == ["clock did not stop in 0 s: killed"]


def _pid(file: Path) -> int:
    text = file.read_text() if file.exists() else ""
    return int(text or 0)
