"""`--init`: who stays as the container's first process, passes signals on to the program and reaps what is left behind.

It is the zygote's child itself, which begets the program in place of becoming it: no file of the host and no package is
needed. It is still the engine's interpreter, though, and stays where the program can look for it. So nobody in there,
whatever ids they have, can open it: it can't be dumped, and its memory belongs to the host's user namespace, in which
alone CAP_SYS_PTRACE would help. It has no descriptors, and fewer rights than the program. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket

from engine.kernel import capabilities, libc

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any, NoReturn

ANNOTATION = "shipway.init"
"""In a spec: whoever runs it asks for an init."""
_NAME = b"init"
_NOT_PASSED_ON = (signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU)
_ARGUMENTS = slice(45, 47)
"""Where the command line begins and ends, in /proc/PID/stat after the name."""


def stay(sync: socket.socket, process: dict[str, Any], seccomp: str | None) -> None:
    """Returns in a child, which is to become the program; this process stays as its init, and ends as it ends.

    Raises OSError, with nobody left behind, for the first process's end is everybody's.
    """
    signals = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child == 0:
        _lead()
        return
    _hide()
    _drop(process, seccomp)
    sync.close()
    libc.close_range(0, 0x7FFFFFFF)
    _serve(child, signals)


def _lead() -> None:
    """A process group of its own, in the foreground where there is a terminal: keys reach the program, not its init."""
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):
        os.tcsetpgrp(0, os.getpid())


def _hide() -> None:
    """Shows as `init`, not as what the zygote was called with."""
    libc.prctl(libc.PR_SET_NAME, _NAME)
    try:
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return
    start, end = (int(field) for field in fields[_ARGUMENTS])
    if end - start > len(_NAME):
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, _NAME, len(_NAME))


def _drop(process: dict[str, Any], seccomp: str | None) -> None:
    """The program's ids and filter; of its capabilities only the one to signal those who change their ids."""
    user = process.get("user", {})
    sets = capabilities.masks(process.get("capabilities") or {})
    kill = capabilities.mask(["CAP_KILL"]) & sets["effective"]
    if os.getpid() != 1:
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    capabilities.drop_bounding(kill)
    libc.prctl(libc.PR_SET_KEEPCAPS, 1)
    os.setgroups(user.get("additionalGids", []))
    os.setresgid(*[user.get("gid", 0)] * 3)
    os.setresuid(*[user.get("uid", 0)] * 3)
    capabilities.apply({"effective": kill, "permitted": kill, "inheritable": 0, "ambient": 0})
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    # Changed ids have undone it.
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if seccomp:
        libc.seccomp_load(bytes.fromhex(seccomp))


def _serve(child: int, signals: set[signal.Signals]) -> NoReturn:
    while True:
        number = signal.sigwaitinfo(signals).si_signo
        if number not in _NOT_PASSED_ON:
            with contextlib.suppress(OSError):
                os.kill(child, number)
        # One SIGCHLD may stand for many, and comes too when somebody has only been stopped.
        while True:
            pid, status = _ended()
            if not pid:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)


def _ended() -> tuple[int, int]:
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0
