"""A further process in a running container: how it comes to see what the others see."""

from __future__ import annotations

import fcntl
import os
import socket

from engine.kernel import libc
from engine.kernel.cgroup.base import Cgroup
from engine.runtime.zygote import child

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any, NoReturn

_ALL = libc.CLONE_NEWNS | libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS | libc.CLONE_NEWCGROUP


def run_exec(
    pidfd: int, group: Cgroup, sync: socket.socket, fds: list[int], request: dict[str, Any], enter_users: bool
) -> NoReturn:
    """In the zygote's child, which is in the container's pid namespace already. `fds` are stdin, stdout and stderr;
    for a terminal none."""
    process = request["process"]
    stage = "enter"
    try:
        wanted = [*(fds[:3] or [os.open("/dev/null", os.O_RDWR)] * 3), sync.fileno(), pidfd]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in wanted]
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=number < 3)
        libc.close_range(len(wanted), 0x7FFFFFFF)
        sync, pidfd = socket.socket(fileno=3), 4
        group.join()
        child.limits(process)
        libc.setns(pidfd, _ALL | (libc.CLONE_NEWUSER if enter_users else 0))
        os.close(pidfd)
        os.setsid()
        if process.get("terminal"):
            stage = "terminal"
            child.open_terminal(sync, process.get("consoleSize"))
        child.become(sync, process, request.get("seccomp"))
    except OSError as error:
        child.tell(sync, stage, error)
