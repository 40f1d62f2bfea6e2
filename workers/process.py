"""Small things about Linux processes."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def end_with_parent(signal_number: int) -> None:
    """The kernel sends this process the signal when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)


def owner(pid: int | None = None) -> str:
    """This process, told apart from a later one of the same number by its start time."""
    pid = os.getpid() if pid is None else pid
    return f"{pid}:{_start_time(pid)}"


def owner_lives(word: str) -> bool:
    """Whether the process that `owner` gave this word for still runs."""
    pid, _, started = word.partition(":")
    if not pid.isdigit():
        return False
    return bool(started) and _start_time(int(pid)) == started


def _start_time(pid: int) -> str:
    """Clock ticks since boot, field 22 of proc(5) stat; '' when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
