"""Devices of a container and what its device cgroup lets through."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.containers.hostconfig import DeviceMapping
from engine.errors import InvalidInput
from engine.runtime.spec import LinuxDevice, LinuxDeviceCgroup

_RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})", re.ASCII)
_PERMISSIONS = re.compile(r"[rwm]{1,3}")
_MOST = 1024

# null zero full random urandom tty console ptmx pts. Any node may be made, as in Docker, but not be used.
_DEFAULT: tuple[tuple[str, int | None, int | None, str], ...] = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)


def rules(extra: Sequence[LinuxDeviceCgroup], *, privileged: bool) -> list[LinuxDeviceCgroup]:
    """The device cgroup's list, in order: everything denied, then what is allowed."""
    if privileged:
        return [LinuxDeviceCgroup(allow=True, access="rwm")]
    return [
        LinuxDeviceCgroup(allow=False, access="rwm"),
        *(LinuxDeviceCgroup(allow=True, type=t, major=a, minor=i, access=p) for t, a, i, p in _DEFAULT),
        *extra,
    ]


def parse_rule(text: str) -> LinuxDeviceCgroup:
    """`--device-cgroup-rule`: `c 1:3 rwm`."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidInput(f"invalid device cgroup rule format: {text!r}: write it as 'c 1:3 rwm'")
    kind, major, minor, access = match.groups()
    return LinuxDeviceCgroup(
        allow=True,
        type=kind,
        major=None if major == "*" else int(major),
        minor=None if minor == "*" else int(minor),
        access=access,
    )


def mapped(mappings: Sequence[DeviceMapping]) -> tuple[list[LinuxDevice], list[LinuxDeviceCgroup]]:
    """`--device`: the nodes to make, and the rules that let them be used. Reads the host's /dev."""
    nodes: list[LinuxDevice] = []
    allowed: list[LinuxDeviceCgroup] = []
    for mapping in mappings:
        access = mapping.cgroup_permissions or "rwm"
        if _PERMISSIONS.fullmatch(access) is None:
            raise InvalidInput(f"invalid device mode {access!r} for {mapping.path_on_host}")
        source = Path(mapping.path_on_host)
        target = mapping.path_in_container or mapping.path_on_host
        if not target.startswith("/") or ".." in target.split("/"):
            raise InvalidInput(f"invalid device path {target!r}: it must be absolute")
        found = list(_nodes(source, target))
        if not found:
            what = "not a device node" if source.exists() else "no such file or directory"
            raise InvalidInput(f'error gathering device information while adding custom device "{source}": {what}')
        for node in found:
            nodes.append(node)
            allowed.append(
                LinuxDeviceCgroup(allow=True, type=node.type, major=node.major, minor=node.minor, access=access)
            )
    return nodes, allowed


def all_of_host() -> list[LinuxDevice]:
    """Every node below the host's /dev but terminals and what a container gets anyway: `--privileged`."""
    made_anyway = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"}
    nodes: list[LinuxDevice] = []
    for entry in sorted(os.scandir("/dev"), key=lambda entry: entry.name):
        if entry.name in made_anyway or entry.name in {"pts", "shm", "mqueue", "fd"} or entry.is_symlink():
            continue
        nodes += _nodes(Path(entry.path), entry.path)
    return nodes[:_MOST]


def _nodes(source: Path, target: str) -> Iterator[LinuxDevice]:
    try:
        status = source.stat()
    except OSError:
        return
    if stat.S_ISDIR(status.st_mode):
        for entry in sorted(source.iterdir()):
            if not entry.is_symlink():
                yield from _nodes(entry, f"{target}/{entry.name}")
        return
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else None
    if kind is None:
        return
    yield LinuxDevice(
        path=target,
        type=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        file_mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        # Where it is itself: a link's folder may be closed to the container's root.
        source=os.path.realpath(source),
    )
