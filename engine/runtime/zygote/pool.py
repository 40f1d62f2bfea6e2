"""Children that wait for a container, born before anybody asked: a start then need not wait for their birth.

A clone into seven namespaces and the first pages that its child touches are half of what a start costs. None of it
depends on the container, if it has new namespaces of each kind, as it has by default; only the control group's can't
be made beforehand, for it shows the group that its first process is in. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import socket

from engine.kernel import libc
from engine.runtime.zygote import child, protocol

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

SIZE = 4
_KINDS = {"pid", "network", "ipc", "uts", "mount", "user", "cgroup"}
_FLAGS = (
    libc.CLONE_NEWNS
    | libc.CLONE_NEWNET
    | libc.CLONE_NEWIPC
    | libc.CLONE_NEWUTS
    | libc.CLONE_NEWPID
    | libc.CLONE_NEWUSER
)


class Pool:
    """Used by the zygote alone, in its one thread. Who waits here dies with the zygote."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, socket.socket]] = []
        self._size = 0
        """Nobody waits where no container comes that could be waited for."""
        self._last = b""
        """The last request that somebody who waited could take."""

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._size

    @property
    def waits(self) -> bool:
        """Whether there is anybody."""
        return bool(self._waiting)

    def give_up(self) -> None:
        """Whoever waits is still taken; nobody follows until the next container."""
        self._size = 0

    def fill(self) -> None:
        """Makes one more wait."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = libc.clone(_FLAGS)
        if pid == 0:
            child.wait_for_container(theirs, self._last)
        theirs.close()
        self._waiting.append((pid, ours))

    def hand_over(
        self, request: dict[str, Any], packet: bytes, doors: list[int], stdio: list[int]
    ) -> tuple[int, socket.socket] | None:
        """Gives a container to one who waits; returns its pid and our end of its socket.

        `packet` is the request as it came. `doors` are descriptors by which it brings itself into the container's
        control group. None where nobody waits, or where the container is not of the kind that they were born for.
        """
        if not _fits(request):
            return None
        self._size, self._last = SIZE, packet
        while self._waiting:
            pid, sync = self._waiting.pop(0)
            try:
                _give(sync, packet, doors, stdio)
            except OSError:
                # It was killed meanwhile, by the kernel for want of memory say.
                _dismiss(pid, sync)
                continue
            return pid, sync
        return None

    def close(self) -> None:
        """Sends everybody away, until there is work again."""
        self.give_up()
        while self._waiting:
            _dismiss(*self._waiting.pop())


def _fits(request: dict[str, Any]) -> bool:
    namespaces = request["spec"].get("linux", {}).get("namespaces", ())
    wanted = {each["type"] for each in namespaces if not each.get("path")}
    return bool(request.get("rootfs")) and wanted == _KINDS and len(namespaces) == len(_KINDS)


def _give(sync: socket.socket, packet: bytes, doors: list[int], stdio: list[int]) -> None:
    """The request goes through memory of its own: it may be larger than a packet of a narrow socket."""
    memory = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        os.write(memory, packet)
        protocol.send_raw(sync, b"%d" % len(doors), (memory, *doors, *stdio))
    finally:
        os.close(memory)


def _dismiss(pid: int, sync: socket.socket) -> None:
    sync.close()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
