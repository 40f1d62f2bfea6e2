"""Which control groups this host has, and the right kind of group for it."""

from __future__ import annotations

import functools
import os

from engine.kernel.cgroup.base import Cgroup, read
from engine.kernel.cgroup.v1 import WANTED, CgroupV1
from engine.kernel.cgroup.v2 import CgroupV2


class Hierarchies:
    """Where controllers are mounted. `mode` is v1, hybrid (v1 with a v2 tree beside it) or v2."""

    # Not a dataclass: the zygote would carry what makes one, a megabyte and a half.
    def __init__(self, mode: str, v1: dict[str, str], v2: str | None) -> None:
        self.mode, self.v1, self.v2 = mode, v1, v2


def parse(mountinfo: str) -> Hierarchies:
    """The hierarchies in a /proc/PID/mountinfo text."""
    v1: dict[str, str] = {}
    v2 = None
    # What else separates words and lines may be in a name; what a mount is of may be empty.
    for line in filter(None, mountinfo.split("\n")):
        before, _, after = line.partition(" - ")
        target, (fstype, _, options) = before.split(" ")[4], after.split(" ", 2)
        if fstype == "cgroup2":
            v2 = v2 or target
        elif fstype == "cgroup":
            for controller in options.split(","):
                if controller in WANTED:
                    v1.setdefault(controller, target)
    mode = "v2" if v2 and not v1 else "hybrid" if v2 else "v1"
    return Hierarchies(mode, v1, v2)


@functools.cache
def hierarchies() -> Hierarchies:
    return parse(read("/proc/self/mountinfo"))


def cgroup(path: str) -> Cgroup:
    """The group at `path`, counted from the hierarchy's root. Nothing is made yet."""
    here = hierarchies()
    if here.mode == "v2" and here.v2:
        return CgroupV2(path, here.v2)
    return CgroupV1(path, here.v1)


def groups_below(parent: str) -> list[str]:
    """The paths of the groups right below `parent`, over all hierarchies."""
    here = hierarchies()
    roots = {here.v2} if here.mode == "v2" else set(here.v1.values())
    found: set[str] = set()
    for root in roots:
        try:
            entries = list(os.scandir(f"{root}{parent}"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        found.update(f"{parent}/{entry.name}" for entry in entries if entry.is_dir())
    return sorted(found)
