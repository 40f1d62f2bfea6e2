"""How a container comes to be on the host: its group, its first process, its mounts. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable

from engine.kernel.cgroup.base import Cgroup
from engine.kernel.cgroup.host import cgroup
from engine.runtime.zygote import child, detached, protocol
from engine.runtime.zygote.birth import born, map_ids, owned, score_oom, user_namespace
from engine.runtime.zygote.container import Container
from engine.runtime.zygote.ownmounts import HostMounts
from engine.runtime.zygote.pool import Pool

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

FOLDERS = ("rootfs", "containers", "lower", "upper")
"""Below the exec root: where a root is mounted, notes of control groups, where layers are mounted for a moment."""


class Maker:
    """Of all containers of one exec root; the pool's children become those that they can."""

    def __init__(self, exec_root: str, cgroup_parent: str, hosts: HostMounts, pool: Pool) -> None:
        self._root, self._parent = exec_root, cgroup_parent
        self._hosts, self._pool = hosts, pool
        for folder in FOLDERS:
            os.makedirs(f"{exec_root}/{folder}", mode=0o700, exist_ok=True)

    def make(
        self, container: Container, request: dict[str, Any], packet: bytes, watch: Callable[[Container], None]
    ) -> None:
        """`packet` is the request as it came; `watch` is called as soon as there is a process whose end can be seen."""
        spec = request["spec"]
        group = cgroup(container.cgroup)
        group.create()
        self._note_group(container)
        container.oom_base = group.oom_kills()
        stdio, far = ([], []) if container.tty else _pipes(request.get("open_stdin", False))
        try:
            owned(far, spec)
            pid, ours = self._beget(group, request, packet, far)
        except OSError:
            for fd in (*stdio, *far):
                if fd >= 0:
                    os.close(fd)
            raise
        for fd in far:
            os.close(fd)
        container.begin(pid, ours, stdio)
        watch(container)
        container.hold_mounts(spec)
        users = None
        try:
            users = map_ids(pid, spec)
            # Only now: under a limit of one process nobody could be born beside the visiting zygote.
            group.apply(spec["linux"].get("resources") or {})
            score_oom(pid, spec["process"].get("oomScoreAdj"))
            trees = detached.mounts(request, users, self._root, self._hosts)
            try:
                protocol.send_raw(ours, b"go", tuple(trees))
            finally:
                for fd in trees:
                    os.close(fd)
        except OSError:
            # Its end is seen and cleared up as any other's.
            container.doomed = True
            signal.pidfd_send_signal(container.pidfd, signal.SIGKILL)
            raise
        finally:
            if users is not None:
                os.close(users)

    def _note_group(self, container: Container) -> None:
        """A group that is not below the engine's own is found by this note, should nobody be left to tell of it."""
        if not container.cgroup.startswith(f"{self._parent}/"):
            with open(f"{self._root}/containers/{container.name}", "w", encoding="utf-8") as note:
                note.write(container.cgroup)

    def _beget(
        self, group: Cgroup, request: dict[str, Any], packet: bytes, stdio: list[int]
    ) -> tuple[int, socket.socket]:
        """The container's first process, from the pool or newly born: its pid, and our end of its socket."""
        doors = group.doors()
        if doors is not None:
            try:
                taken = self._pool.hand_over(request, packet, doors, stdio)
            finally:
                for door in doors:
                    os.close(door)
            if taken is not None:
                return taken
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = born(request["spec"], group, lambda: child.run_init(theirs, stdio, request))
        theirs.close()
        return pid, ours

    def mount(self, rootfs: dict[str, Any], linux: dict[str, Any]) -> int:
        """A mount of `rootfs`, as a container with these mappings would see it; the caller's to close."""
        users = user_namespace(linux) if linux.get("uidMappings") else None
        try:
            (tree,) = detached.mounts({"rootfs": rootfs, "spec": {"linux": linux}}, users, self._root, self._hosts)
        finally:
            if users is not None:
                os.close(users)
        return tree

    def forget(self, container: Container) -> None:
        """Its group and the note of it."""
        try:
            cgroup(container.cgroup).remove()
        except OSError as error:
            print(f"{container.name}: its cgroup stays: {error}", file=sys.stderr, flush=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._root}/containers/{container.name}")

    def close(self) -> None:
        for folder in FOLDERS:
            os.rmdir(f"{self._root}/{folder}")
        cgroup(self._parent).remove()


def _pipes(open_stdin: bool) -> tuple[list[int], list[int]]:
    """Near ends [stdin or -1, stdout, stderr] and far ends in the same order."""
    out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    if open_stdin:
        read, write = os.pipe2(os.O_CLOEXEC)
    else:
        read, write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    return [write, out[0], err[0]], [read, out[1], err[1]]
