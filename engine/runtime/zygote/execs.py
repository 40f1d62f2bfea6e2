"""Further processes in running containers, as the zygote starts and reaps them. Standard library only."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from functools import partial

from engine.kernel.cgroup.host import cgroup
from engine.runtime.zygote.birth import born_beside, owned, score_oom
from engine.runtime.zygote.container import Container, Exec, exit_code
from engine.runtime.zygote.enter import run_exec
from engine.runtime.zygote.loop import Loop

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

Answer = Callable[..., None]


class Execs:
    """Of all containers, on one loop; by `announce` it tells of what ends."""

    def __init__(self, loop: Loop, announce: Callable[[dict[str, Any]], None]) -> None:
        self._loop, self._announce = loop, announce

    def start(self, container: Container, request: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """`fds` are its streams, none for a terminal; `answer` is called once it runs or can't."""
        if container.status != "running":
            raise OSError(errno.ESRCH, f"the container is {container.status}", container.name)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        owned(fds, {"linux": container.mappings, "process": request["process"]})
        group = cgroup(container.cgroup)
        pid = born_beside(
            container.pidfd, group, lambda: run_exec(container.pidfd, group, theirs, fds, request, container.users)
        )
        theirs.close()
        score_oom(pid, request["process"].get("oomScoreAdj"))
        run = Exec(request["exec"], ours)
        run.begin(pid)
        self._loop.watch(run.pidfd, partial(self._reap, container, run))
        container.execs[run.name] = run
        self._loop.watch(run.sync.fileno(), partial(self._heard, container, run, answer))

    def _heard(self, container: Container, run: Exec, answer: Answer) -> None:
        """What it reports until it is the program."""
        message = run.hear()
        if message is None:
            return
        self._loop.unwatch(run.sync.fileno())
        run.sync.close()
        if message:
            run.failed = True
            if run.terminal is not None:
                os.close(run.terminal)
            if run.exit is not None:
                container.execs.pop(run.name, None)
            answer({"error": json.loads(message)})
            return
        terminal = (run.terminal,) if run.terminal is not None else ()
        answer({"ok": {"pid": run.pid}}, terminal)
        for fd in terminal:
            os.close(fd)
        run.announced = True
        if run.exit is not None:
            self._over(container, run)

    def _reap(self, container: Container, run: Exec) -> None:
        self._loop.unwatch(run.pidfd)
        run.end(exit_code(os.waitid(os.P_PIDFD, run.pidfd, os.WEXITED)))
        # What it reported before its end may not have been read yet: then it is over when that is.
        if run.announced:
            self._over(container, run)
        elif run.failed:
            container.execs.pop(run.name, None)

    def _over(self, container: Container, run: Exec) -> None:
        container.execs.pop(run.name, None)
        self._announce({"event": "exit", "container": container.name, "exec": run.name, **(run.exit or {})})
