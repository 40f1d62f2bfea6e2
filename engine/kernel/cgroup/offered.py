"""What the control groups of this host can limit. Looks, changes nothing."""

from __future__ import annotations

import functools
import glob
import os
from dataclasses import dataclass

from engine.kernel.cgroup.base import read
from engine.kernel.cgroup.host import Hierarchies, hierarchies

_MOST = 1 << 16
"""More processors or memory nodes than any kernel knows."""


@dataclass(frozen=True)
class Offered:
    """Each is whether there is such a limit; `cpus` and `mems` are those that there are. `mode` is v1, hybrid or v2."""

    mode: str
    controllers: frozenset[str]
    memory: bool
    swap: bool
    reservation: bool
    swappiness: bool
    oom_kill_disable: bool
    cpu_shares: bool
    cpu_quota: bool
    cpu_realtime: bool
    cpuset: bool
    pids: bool
    io_weight: bool
    io_limits: bool
    cpus: frozenset[int] = frozenset()
    mems: frozenset[int] = frozenset()


@functools.cache
def offered() -> Offered:
    here = hierarchies()
    return _v2(here.v2) if here.mode == "v2" and here.v2 else _v1(here)


def numbers(text: str) -> frozenset[int]:
    """`0-2,4`. Raises ValueError, also for numbers that nothing here can have."""
    found: set[int] = set()
    left = _MOST
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            if int(last or first) >= _MOST:
                raise ValueError(f"{part} is too large")
            span = range(int(first), int(last or first) + 1)
            left -= len(span)
            if left < 0:
                raise ValueError("too many numbers")
            found.update(span)
    return frozenset(found)


def _v1(here: Hierarchies) -> Offered:
    def has(controller: str, *files: str) -> bool:
        root = here.v1.get(controller)
        return root is not None and any(glob.glob(f"{root}/{file}") for file in files)

    cpuset = here.v1.get("cpuset", "")
    return Offered(
        mode=here.mode,
        controllers=frozenset(here.v1),
        memory="memory" in here.v1,
        swap=has("memory", "memory.memsw.limit_in_bytes"),
        reservation=has("memory", "memory.soft_limit_in_bytes"),
        swappiness=has("memory", "memory.swappiness"),
        oom_kill_disable=has("memory", "memory.oom_control"),
        cpu_shares=has("cpu", "cpu.shares"),
        cpu_quota=has("cpu", "cpu.cfs_quota_us"),
        cpu_realtime=has("cpu", "cpu.rt_runtime_us"),
        cpuset=bool(cpuset),
        pids="pids" in here.v1,
        # Of the newer name only groups below the root have the file.
        io_weight=has("blkio", "blkio.weight", "blkio.bfq.weight", "*/blkio.bfq.weight"),
        io_limits=has("blkio", "blkio.throttle.read_bps_device"),
        cpus=numbers(read(f"{cpuset}/cpuset.cpus")) if cpuset else frozenset(),
        mems=numbers(read(f"{cpuset}/cpuset.mems")) if cpuset else frozenset(),
    )


def _v2(root: str) -> Offered:
    controllers = frozenset(read(f"{root}/cgroup.controllers").split())
    # The root itself has no limits; some group below it may show what there is.
    groups = [folder for folder in glob.glob(f"{root}/*/") if os.path.exists(f"{folder}memory.max")]
    return Offered(
        mode="v2",
        controllers=controllers,
        memory="memory" in controllers,
        swap="memory" in controllers and (not groups or os.path.exists(f"{groups[0]}memory.swap.max")),
        reservation="memory" in controllers,
        swappiness=False,
        oom_kill_disable=False,
        cpu_shares="cpu" in controllers,
        cpu_quota="cpu" in controllers,
        cpu_realtime=False,
        cpuset="cpuset" in controllers,
        pids="pids" in controllers,
        io_weight="io" in controllers,
        io_limits="io" in controllers,
        cpus=numbers(read(f"{root}/cpuset.cpus.effective")),
        mems=numbers(read(f"{root}/cpuset.mems.effective")),
    )
