"""A further process in a running container: the helper that enters its namespaces, and the process it leaves there."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import Any, NoReturn

from engine.kernel import libc
from engine.kernel.cgroup.host import cgroup
from engine.runtime.zygote import child
from engine.runtime.zygote.birth import owned, score_oom

_ALL = (
    libc.CLONE_NEWNS
    | libc.CLONE_NEWPID
    | libc.CLONE_NEWNET
    | libc.CLONE_NEWIPC
    | libc.CLONE_NEWUTS
    | libc.CLONE_NEWCGROUP
)


def run_exec(target: int, group: str, sync: socket.socket, fds: list[int], request: dict[str, Any]) -> NoReturn:
    """In the zygote's fork. `fds` are stdin, stdout and stderr; for a terminal none."""
    process = request["process"]
    stage = "enter"
    try:
        pidfd = os.pidfd_open(target)
        wanted = [*(fds[:3] or [os.open("/dev/null", os.O_RDWR)] * 3), sync.fileno(), pidfd]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in wanted]
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=number < 3)
        libc.close_range(len(wanted), 0x7FFFFFFF)
        sync, pidfd = socket.socket(fileno=3), 4
        cgroup(group).join(os.getpid())
        child.limits(process)
        score_oom(os.getpid(), process.get("oomScoreAdj"))
        owned(list(range(3)), request["spec"] | {"process": process})
        libc.setns(pidfd, _ALL | (libc.CLONE_NEWUSER if request["users"] else 0))
        os.close(pidfd)
        # Its parent is to be the zygote, which will see its end; this helper is gone by then.
        pid = libc.clone(libc.CLONE_PARENT)
        if pid:
            sync.send(b"pid %d" % pid)
            os._exit(0)
        os.setsid()
        if process.get("terminal"):
            stage = "terminal"
            child._terminal(sync, process.get("consoleSize"))
        child.become(sync, process, request.get("seccomp"))
    except OSError as error:
        child.tell(sync, stage, error)
