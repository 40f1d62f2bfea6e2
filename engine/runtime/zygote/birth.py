"""How a container's first process is born: the clone into its namespaces, its ids, whose its pipes are."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Callable

from engine.kernel import libc
from engine.kernel.cgroup.base import Cgroup, write

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any, NoReturn

_KINDS = {
    "pid": libc.CLONE_NEWPID,
    "network": libc.CLONE_NEWNET,
    "ipc": libc.CLONE_NEWIPC,
    "uts": libc.CLONE_NEWUTS,
    "mount": libc.CLONE_NEWNS,
    "user": libc.CLONE_NEWUSER,
    "cgroup": libc.CLONE_NEWCGROUP,
}


def born(spec: dict[str, Any], group: Cgroup, live: Callable[[], NoReturn]) -> int:
    """Clones a child into the spec's new namespaces and the group, where `live` runs; returns its pid here.

    The namespaces that are given by path are entered by a helper first, whose child this process still is the parent
    of: the child itself may no longer look at whom they are of.
    """
    flags = _new(spec)
    paths = {kind: path for kind in _KINDS if (path := _path(spec, kind))}
    if not paths:
        return group.bear(libc.clone, flags) or live()
    read, write = os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        try:
            fds = {kind: os.open(path, os.O_RDONLY | os.O_CLOEXEC) for kind, path in paths.items()}
            for kind in sorted(fds, key="user".__eq__):  # last, for the others need the host's rights
                libc.setns(fds[kind], _KINDS[kind])
            pid = group.bear(libc.clone, flags | libc.CLONE_PARENT)
            if pid == 0:
                live()
            os.write(write, b"%d" % pid)
        except OSError as error:
            os.write(write, b"-%d" % (error.errno or 1))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        pid = int(answer.read() or -1)
    os.waitpid(helper, 0)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid), " ".join(paths.values()))
    return pid


def born_beside(pidfd: int, group: Cgroup, live: Callable[[], NoReturn]) -> int:
    """Clones a child into the pid namespace of another process; `live` has to enter the rest itself."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # It changes where children are born, not where this process is.
        libc.setns(pidfd, libc.CLONE_NEWPID)
        try:
            return group.bear_outside(libc.clone, 0) or live()
        finally:
            libc.setns(own, libc.CLONE_NEWPID)
    finally:
        os.close(own)


def map_ids(pid: int, spec: dict[str, Any]) -> int | None:
    """Gives a new user namespace its ids; returns the namespace's descriptor, None where there is none."""
    linux = spec.get("linux", {})
    if linux.get("uidMappings") and not _path(spec, "user"):
        for file, key in (("uid_map", "uidMappings"), ("gid_map", "gidMappings")):
            lines = "".join(f"{item['containerID']} {item['hostID']} {item['size']}\n" for item in linux[key])
            write(f"/proc/{pid}/{file}", lines)
    elif not _path(spec, "user"):
        return None
    return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def user_namespace(linux: dict[str, Any]) -> int:
    """The descriptor of a new user namespace with these mappings, which no process is in."""
    pid = libc.clone(libc.CLONE_NEWUSER)
    if pid == 0:
        while True:
            signal.pause()
    try:
        users = map_ids(pid, {"linux": linux})
        assert users is not None
        return users
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def owned(fds: list[int], spec: dict[str, Any]) -> None:
    """Gives pipes to the user who will run the program, that /dev/stdout can be opened by its name."""
    user = spec["process"].get("user", {})
    uid, gid = outside(spec, user.get("uid", 0), user.get("gid", 0))
    for fd in fds:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, uid, gid)


def score_oom(pid: int, score: int | None) -> None:
    if score is not None:
        # Lowering it needs CAP_SYS_RESOURCE, which not every host's root has.
        with contextlib.suppress(PermissionError):
            write(f"/proc/{pid}/oom_score_adj", str(score))


def outside(spec: dict[str, Any], uid: int, gid: int) -> tuple[int, int]:
    """The host's numbers of ids inside."""
    linux = spec.get("linux", {})
    return _outside(uid, linux.get("uidMappings")), _outside(gid, linux.get("gidMappings"))


def _outside(number: int, mappings: list[dict[str, int]] | None) -> int:
    for item in mappings or ():
        if item["containerID"] <= number < item["containerID"] + item["size"]:
            return item["hostID"] + number - item["containerID"]
    return number


def _new(spec: dict[str, Any]) -> int:
    flags = libc.CLONE_NEWNS
    for namespace in spec.get("linux", {}).get("namespaces", ()):
        if not namespace.get("path"):
            flags |= _KINDS.get(namespace["type"], 0)
    return flags


def _path(spec: dict[str, Any], kind: str) -> str:
    namespaces = spec.get("linux", {}).get("namespaces", ())
    return next((each["path"] for each in namespaces if each["type"] == kind and each.get("path")), "")
