"""What the zygote knows of a container and of a process in it. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Callable

from engine.runtime.zygote import protocol
from engine.runtime.zygote.detached import is_bind
from engine.runtime.zygote.logpump import LogFile, Stream

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

    Answer = Callable[[dict[str, Any]], None]

_OWN_FILES = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
"""What an engine mounts into each of its containers."""
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

    def hear(self) -> bytes | None:
        """One report; b"" when the other side has closed, None when there is nothing yet, or a terminal has come."""
        try:
            message, ancillary, _, _ = self.sync.recvmsg(65536, 64, _HEAR_FLAGS)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        if message == b"terminal":
            self.terminal = protocol.descriptors_in(ancillary)[0]
            return None
        return message


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

    def __init__(self, name: str, spec: dict[str, Any], log: dict[str, Any] | None) -> None:
        super().__init__(name)
        linux = spec["linux"]
        self.cgroup: str = linux["cgroupsPath"]
        self.tty = bool(spec["process"].get("terminal"))
        self.mappings = {key: linux[key] for key in ("uidMappings", "gidMappings") if linux.get(key)}
        namespaces = linux.get("namespaces", ())
        self.users = any(namespace["type"] == "user" for namespace in namespaces)
        self.own_pids = any(each["type"] == "pid" and not each.get("path") for each in namespaces)
        self.status = "created"
        self.error: dict[str, Any] | None = None
        """Why it will never run."""
        self.ready = False
        self.begun = False
        """Whether the gate before its program has been opened."""
        self.creator: Answer | None = None
        self.starter: Answer | None = None
        self.onlookers: list[Answer] = []
        """Who waits for it to be ready, or to fail."""
        self.stdin: int | None = None
        self.output: tuple[int, int] = (-1, -1)
        self.streams: list[Stream] = []
        self.log_wanted = log
        self.log: LogFile | None = None
        self.execs: dict[str, Exec] = {}
        self.oom_base = 0
        self.started_at = 0.0
        self.finished_at = 0.0
        self.code = 0
        self.oom_killed = False
        self.doomed = False
        self.deleters: list[Callable[[], None]] = []
        self.mounts = -1
        """Its mount namespace, held so that its end is not put off until all is taken down."""

    def begin(self, pid: int, sync: socket.socket, stdio: list[int]) -> None:
        self.pid = pid
        self.sync = sync
        self.pidfd = os.pidfd_open(pid)
        if stdio:
            self.stdin = stdio[0] if stdio[0] >= 0 else None
            self.output = (stdio[1], stdio[2])

    def hold_mounts(self, spec: dict[str, Any]) -> None:
        """Unless something of the host is mounted in it: when it has ended, the host may want to unmount that."""
        if all(not is_bind(mount) or mount["destination"] in _OWN_FILES for mount in spec.get("mounts", ())):
            # It may be dead already.
            with contextlib.suppress(OSError):
                self.mounts = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def resize(self, rows: int, cols: int) -> None:
        if self.terminal is not None:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def end(self, code: int, oom_killed: bool) -> None:
        self.code, self.oom_killed = code, oom_killed
        if self.status == "running":
            self.status = "stopped"
        self.finished_at = time.time()
        self.close_stdin()
        if not self.streams:
            for fd in (*self.output, -1 if self.terminal is None else self.terminal):
                if fd >= 0:
                    os.close(fd)
        if self.log is not None:
            self.log.close()
        self.terminal = None
        os.close(self.pidfd)
        self.pidfd = -1
        self.sync.close()

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


def exit_code(result: os.waitid_result | None) -> int:
    """As a shell and Docker count: the exit status, or 128 and the signal's number."""
    assert result is not None
    status = int(result.si_status)
    return status if result.si_code == os.CLD_EXITED else 128 + status
