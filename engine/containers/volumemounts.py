"""Volumes that are mounts of their own: `docker volume create -o type=nfs -o device=:/path -o o=addr=10.0.0.1,rw`.

They are mounted while a container that uses them lives. What a container has of them is a mount of its own, so it stays
whatever happens to the one here.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from engine.errors import InvalidInput, SystemFailure
from engine.kernel import libc

_KNOWN = frozenset(("type", "device", "o"))
_FLAGS = {
    "ro": libc.MS_RDONLY,
    "nosuid": libc.MS_NOSUID,
    "nodev": libc.MS_NODEV,
    "noexec": libc.MS_NOEXEC,
    "sync": libc.MS_SYNCHRONOUS,
    "dirsync": libc.MS_DIRSYNC,
    "noatime": libc.MS_NOATIME,
    "nodiratime": libc.MS_NODIRATIME,
    "relatime": libc.MS_RELATIME,
    "strictatime": libc.MS_STRICTATIME,
    "bind": libc.MS_BIND,
    "rbind": libc.MS_BIND | libc.MS_REC,
}
_DEFAULTS = frozenset(("rw", "suid", "dev", "exec", "async", "atime", "defaults"))
_REMOTE = frozenset(("nfs", "nfs4", "cifs"))


def check(options: Mapping[str, str]) -> None:
    """Raises InvalidInput for options that make no mount."""
    for name in options:
        if name not in _KNOWN:
            raise InvalidInput(f'invalid option: "{name}": a volume takes type, device and o')
    for needed in ("device", "type"):
        if options and not options.get(needed):
            raise InvalidInput(f'missing required option: "{needed}"')


class VolumeMounts:
    """Mounts on `_data` folders. Thread-safe; blocks as long as a mount does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: defaultdict[Path, set[str]] = defaultdict(set)

    def hold(self, path: Path, options: Mapping[str, str], container_id: str) -> None:
        """Have it mounted for a container. Raises SystemFailure where the kernel refuses."""
        with self._lock:
            if not _is_mounted(path):
                _mount(path, options)
            self._holders[path].add(container_id)

    def release(self, path: Path, container_id: str, *, used: bool) -> None:
        """`used` tells that another container of an earlier daemon's life still has it. Idempotent."""
        with self._lock:
            self._holders[path].discard(container_id)
            if not self._holders[path]:
                del self._holders[path]
                if not used:
                    unmount(path)


def unmount(path: Path) -> None:
    """Whatever is mounted there. Idempotent. Raises OSError: then what is below is not the volume's own to delete."""
    while True:
        try:
            libc.umount(str(path), libc.MNT_DETACH | libc.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise


def _mount(path: Path, options: Mapping[str, str]) -> None:
    kind, device = options["type"], options["device"]
    flags, data = _parse(options.get("o", ""), remote=kind in _REMOTE)
    try:
        libc.mount(device, str(path), kind, flags, data)
        rest = flags & ~(libc.MS_BIND | libc.MS_REC)
        if flags & libc.MS_BIND and rest:
            # A bind takes its flags only once it is there.
            libc.mount(None, str(path), None, libc.MS_REMOUNT | libc.MS_BIND | rest)
    except OSError as error:
        unmount(path)
        raise SystemFailure(
            f"error while mounting volume '{path}': failed to mount local volume: mount {device}:{path}, "
            f"flags: {flags:#x}, data: {data or ''}: {os.strerror(error.errno or 0).lower()}",
            error.errno,
        ) from None


def _parse(text: str, *, remote: bool) -> tuple[int, str | None]:
    """mount(2)'s flags and data. The kernel wants addresses, so a host's name is looked up."""
    flags, data = 0, []
    for word in filter(None, text.split(",")):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word not in _DEFAULTS:
            name, _, value = word.partition("=")
            if remote and name == "addr":
                try:
                    word = f"addr={socket.gethostbyname(value)}"
                except OSError as error:
                    raise SystemFailure(f"failed to resolve address {value}: {error}") from None
            data.append(word)
    return flags, ",".join(data) or None


def _is_mounted(path: Path) -> bool:
    wanted = str(path).replace("\\", r"\134").replace(" ", r"\040").replace("\t", r"\011").replace("\n", r"\012")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ", 5)[4] == wanted for line in table)
