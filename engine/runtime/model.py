"""What a launcher is given and gives: roots, logs, streams, and how what ran has ended."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineError

_ENOENT, _ENOTDIR = 2, 20


@dataclass(frozen=True)
class Overlay:
    """A root made of layers. `lower` is topmost first; `upper` and `work` are empty or a former run's."""

    lower: tuple[Path, ...]
    upper: Path
    work: Path
    volatile: bool = False


@dataclass(frozen=True)
class LogConfig:
    """Where output is kept, as Docker's json-file: rotated at `max_size` bytes, `max_files` files at most."""

    path: Path
    max_size: int | None = None
    max_files: int = 1


@dataclass(frozen=True)
class Exit:
    """How a process ended: its status, or 128 and the signal. Times are unix seconds."""

    code: int
    oom_killed: bool
    started_at: float
    finished_at: float


@dataclass(frozen=True)
class RuntimeState:
    """A container as the zygote has it. `status` is created, running, paused or stopped."""

    id: str
    pid: int
    cgroup: str
    status: str
    tty: bool
    started_at: float
    exit: Exit | None


class ExecFailed(EngineError):
    """The program could not be started: `exit_code` is 127 where it was not found, else 126."""

    def __init__(self, errno: int, message: str, stage: str = "exec") -> None:
        super().__init__(message)
        self.errno = errno
        self.stage = stage

    @property
    def exit_code(self) -> int:
        return 127 if self.errno in (_ENOENT, _ENOTDIR) else 126


@dataclass(frozen=True)
class Attachment:
    """Live streams of a container: descriptors to read from, and stdin's to write to; the holder's to close.

    What is in the log up to `at` (unix nanoseconds) does not come through them, all that is later does.
    """

    stdout: int
    stderr: int | None
    stdin: int | None
    at: int = 0

    def close(self) -> None:
        for fd in (self.stdout, self.stderr, self.stdin):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
