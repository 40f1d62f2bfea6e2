"""What the zygote knows of a container and of a process in it. Standard library only."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
import time
from collections.abc import Callable

from engine.runtime.zygote.logpump import LogFile, Stream

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

_HEAR_FLAGS = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT


class Process:
    """A child: its pid, the pidfd that tells of its end, and the socket over which it reports until it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = 0
        self.pidfd = -1
        self.sync: socket.socket
        self.terminal: int | None = None
        self.failed = False

    def hear(self) -> tuple[bytes | None, list[int]]:
        """One report and its descriptors; b"" when the other side has closed, None when there is nothing yet."""
        try:
            message, ancillary, _, _ = self.sync.recvmsg(65536, 64, _HEAR_FLAGS)
        except BlockingIOError:
            return None, []
        except OSError:
            return b"", []
        descriptors = array.array("i")
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        return message, list(descriptors)


class Exec(Process):
    """A further process in a container."""

    def __init__(self, name: str, sync: socket.socket) -> None:
        super().__init__(name)
        self.sync = sync
        self.exit: dict[str, Any] | None = None
        self.announced = False
        self._started_at = time.time()

    def begin(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def end(self, code: int) -> None:
        os.close(self.pidfd)
        self.pidfd = -1
        self.exit = {
            "code": code,
            "oom_killed": False,
            "started_at": self._started_at,
            "finished_at": time.time(),
        }


class Container(Process):
    """One container. `status` is created, running or stopped."""

    def __init__(self, name: str, cgroup: str, spec: dict[str, Any], folder: str) -> None:
        super().__init__(name)
        self.cgroup = cgroup
        self.folder = folder
        self.tty = bool(spec["process"].get("terminal"))
        linux = spec.get("linux", {})
        self.mappings = {key: linux[key] for key in ("uidMappings", "gidMappings") if linux.get(key)}
        self.users = any(namespace["type"] == "user" for namespace in linux.get("namespaces", ()))
        self.status = "created"
        self.stdin: int | None = None
        self.output: tuple[int, int] = (-1, -1)
        self.streams: list[Stream] = []
        self.log: LogFile | None = None
        self.execs: dict[str, Exec] = {}
        self.oom_base = 0
        self.started_at = 0.0
        self.finished_at = 0.0
        self.code = 0
        self.oom_killed = False
        self.doomed = False
        self.deleters: list[Callable[[], None]] = []

    def begin(self, pid: int, sync: socket.socket, stdio: list[int]) -> None:
        self.pid = pid
        self.sync = sync
        self.pidfd = os.pidfd_open(pid)
        if stdio:
            self.stdin = stdio[0] if stdio[0] >= 0 else None
            self.output = (stdio[1], stdio[2])
        self.record()

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def resize(self, rows: int, cols: int) -> None:
        if self.terminal is not None:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def end(self, code: int, oom_killed: bool) -> None:
        self.status, self.code, self.oom_killed = "stopped", code, oom_killed
        self.finished_at = time.time()
        self.close_stdin()
        if not self.streams:
            for fd in self.output:
                if fd >= 0:
                    os.close(fd)
        if self.log is not None:
            self.log.close()
        self.terminal = None
        os.close(self.pidfd)
        self.pidfd = -1
        self.sync.close()
        self.record()

    def exit_record(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "oom_killed": self.oom_killed,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
        }

    def state(self) -> dict[str, Any]:
        state = {
            "container": self.name,
            "pid": self.pid,
            "status": self.status,
            "cgroup": self.cgroup,
            "tty": self.tty,
            "started_at": self.started_at,
        }
        return state | ({"exit": self.exit_record()} if self.status == "stopped" else {})

    def record(self) -> None:
        """Writes the state down, so that it can be known even when nobody is left to tell it."""
        path = f"{self.folder}/state.json"
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(self.state(), file)
        os.rename(f"{path}.new", path)

    def erase(self) -> None:
        for name in ("state.json", "state.json.new"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/{name}")
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.folder)


def exit_code(result: os.waitid_result | None) -> int:
    """As a shell and Docker count: the exit status, or 128 and the signal's number."""
    assert result is not None
    status = int(result.si_status)
    return status if result.si_code == os.CLD_EXITED else 128 + status
