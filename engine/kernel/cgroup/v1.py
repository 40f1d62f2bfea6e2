"""cgroup v1: one hierarchy a controller (Documentation/admin-guide/cgroup-v1). Also the hybrid layout's part of it."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import time
from collections.abc import Callable

from engine.kernel.cgroup.base import Cgroup, flat, number, read, triples, weigh, write

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

    from engine.kernel.cgroup.base import Resources

WANTED = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
_THROTTLES = {
    "throttleReadBpsDevice": "blkio.throttle.read_bps_device",
    "throttleWriteBpsDevice": "blkio.throttle.write_bps_device",
    "throttleReadIOPSDevice": "blkio.throttle.read_iops_device",
    "throttleWriteIOPSDevice": "blkio.throttle.write_iops_device",
}


class CgroupV1(Cgroup):
    """`roots` maps each controller to where its hierarchy is mounted."""

    def __init__(self, path: str, roots: dict[str, str]) -> None:
        super().__init__(path)
        self._roots = {name: roots[name] for name in WANTED if name in roots}

    def folders(self) -> list[str]:
        return list(dict.fromkeys(f"{root}{self.path}" for root in self._roots.values()))

    def _at(self, controller: str, file: str) -> str | None:
        root = self._roots.get(controller)
        return f"{root}{self.path}/{file}" if root else None

    def create(self) -> None:
        super().create()
        # A new cpuset is empty, and nobody can join it before it has what its parents have.
        if "cpuset" in self._roots:
            try:
                self._inherit_cpuset()
            except OSError:
                # The groups above were removed and made anew since they were last looked at.
                _cpuset_of.cache_clear()
                self._inherit_cpuset()

    def _inherit_cpuset(self) -> None:
        root, (*above, _) = self._roots["cpuset"], self.path.strip("/").split("/")
        for file, value in zip(("cpuset.cpus", "cpuset.mems"), _cpuset_of(root, tuple(above)), strict=True):
            write(f"{root}{self.path}/{file}", value)

    def join(self) -> None:
        # A write to cgroup.procs waits for an RCU grace period, 5 to 20 ms on an idle machine. A thread that moves only
        # itself, through `tasks`, waits for nothing.
        for folder in self.folders():
            write(f"{folder}/tasks", "0")

    def doors(self) -> list[int] | None:
        opened: list[int] = []
        try:
            for folder in self.folders():
                opened.append(os.open(f"{folder}/tasks", os.O_WRONLY | os.O_CLOEXEC))  # noqa: PERF401
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def bear(self, clone: Callable[[int, int | None], int], flags: int) -> int:
        """Goes in itself, for a child is born where its parent is, and comes back."""
        own = _own_folders(tuple(self._roots.items()))
        try:
            self.join()
            pid = clone(flags, None)
        except BaseException:
            _return(own)
            raise
        if pid:
            _return(own)
        return pid

    def bear_outside(self, clone: Callable[[int, int | None], int], flags: int) -> int:
        return clone(flags, None)

    def _set(self, controller: str, file: str, value: object) -> None:
        path = self._at(controller, file)
        if path is not None and value is not None:
            write(path, str(value))

    def apply(self, resources: Resources) -> None:
        self._apply_memory(resources.get("memory") or {})
        cpu = resources.get("cpu") or {}
        self._set("cpu", "cpu.shares", cpu.get("shares"))
        self._set("cpu", "cpu.cfs_period_us", cpu.get("period"))
        self._set("cpu", "cpu.cfs_quota_us", cpu.get("quota"))
        self._set("cpu", "cpu.rt_period_us", cpu.get("realtimePeriod"))
        self._set("cpu", "cpu.rt_runtime_us", cpu.get("realtimeRuntime"))
        self._set("cpuset", "cpuset.cpus", cpu.get("cpus"))
        self._set("cpuset", "cpuset.mems", cpu.get("mems"))
        pids = (resources.get("pids") or {}).get("limit")
        if pids is not None:
            self._set("pids", "pids.max", pids if pids > 0 else "max")
        self._apply_block_io(resources.get("blockIO") or {})
        for rule in resources.get("devices") or ():
            self._set("devices", f"devices.{'allow' if rule['allow'] else 'deny'}", device_rule(rule))

    def _apply_memory(self, memory: dict[str, Any]) -> None:
        limit, swap = memory.get("limit"), memory.get("swap")
        if limit is not None:
            # Memory can never be above memory and swap: the order depends on the way both move.
            both = self._at("memory", "memory.memsw.limit_in_bytes")
            swap_first = swap is not None and both is not None and os.path.exists(both)
            if swap_first and (limit < 0 or limit > number(both or "")):
                self._set("memory", "memory.memsw.limit_in_bytes", swap)
            self._set("memory", "memory.limit_in_bytes", limit)
        if swap is not None:
            # A kernel that keeps no account of swap has no such file: the memory limit alone holds.
            with contextlib.suppress(FileNotFoundError):
                self._set("memory", "memory.memsw.limit_in_bytes", swap)
        self._set("memory", "memory.soft_limit_in_bytes", memory.get("reservation"))
        self._set("memory", "memory.swappiness", memory.get("swappiness"))
        if memory.get("disableOOMKiller"):
            self._set("memory", "memory.oom_control", 1)

    def _apply_block_io(self, block: dict[str, Any]) -> None:
        # Which of them there are depends on the kernel's age and on the disk's scheduler.
        for kind in ("blkio.weight", "blkio.bfq.weight"):
            path = self._at("blkio", kind)
            if path is None or not os.path.exists(path):
                continue
            if block.get("weight"):
                write(path, str(block["weight"]))
            for device in block.get("weightDevice") or ():
                weigh(f"{path}_device", device, device["weight"])
            break
        for key, file in _THROTTLES.items():
            for device in block.get(key) or ():
                self._set("blkio", file, f"{device['major']}:{device['minor']} {device['rate']}")

    def freeze(self) -> None:
        self._freezer("FROZEN")

    def thaw(self) -> None:
        self._freezer("THAWED")

    def frozen(self) -> bool:
        path = self._at("freezer", "freezer.state")
        return path is not None and read(path).strip() in ("FROZEN", "FREEZING")

    def _freezer(self, state: str) -> None:
        path = self._at("freezer", "freezer.state")
        if path is None:
            raise OSError(errno.ENOTSUP, "this kernel has no freezer cgroup")
        deadline = time.monotonic() + 10
        while True:
            write(path, state)
            if read(path).strip() == state:
                return
            if time.monotonic() > deadline:
                write(path, "THAWED")
                raise OSError(errno.ETIMEDOUT, "the processes did not freeze within 10 s")
            time.sleep(0.001)

    def oom_kills(self) -> int:
        path = self._at("memory", "memory.oom_control")
        return flat(read(path)).get("oom_kill", 0) if path else 0

    def oom_bell(self) -> tuple[int, int]:
        path, control = self._at("memory", "memory.oom_control"), self._at("memory", "cgroup.event_control")
        if path is None or control is None:
            raise OSError(errno.ENOTSUP, "this host has no memory cgroup")
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            write(control, f"{bell} {file}")
        except OSError:
            os.close(bell)
            raise
        finally:
            os.close(file)
        return bell, select.EPOLLIN

    def stats(self) -> dict[str, Any]:
        memory = flat(read(self._at("memory", "memory.stat") or ""))
        usage = self._at("cpuacct", "cpuacct.stat")
        ticks = flat(read(usage)) if usage else {}
        tick = 10**9 // os.sysconf("SC_CLK_TCK")
        throttling = flat(read(self._at("cpu", "cpu.stat") or ""))
        limit = number(self._at("memory", "memory.limit_in_bytes") or "")
        return {
            "cpu": {
                "total": number(self._at("cpuacct", "cpuacct.usage") or ""),
                "user": ticks.get("user", 0) * tick,
                "system": ticks.get("system", 0) * tick,
                "periods": throttling.get("nr_periods", 0),
                "throttled_periods": throttling.get("nr_throttled", 0),
                "throttled_time": throttling.get("throttled_time", 0),
                "per_cpu": [int(part) for part in read(self._at("cpuacct", "cpuacct.usage_percpu") or "").split()],
            },
            "memory": {
                "usage": number(self._at("memory", "memory.usage_in_bytes") or ""),
                "max_usage": number(self._at("memory", "memory.max_usage_in_bytes") or ""),
                "failcnt": number(self._at("memory", "memory.failcnt") or ""),
                "limit": 0 if limit >= 1 << 60 else limit,
                "stats": memory,
            },
            "pids": {
                "current": number(self._at("pids", "pids.current") or ""),
                "limit": number(self._at("pids", "pids.max") or ""),
            },
            "blkio": {"bytes": self._block_io("io_service_bytes"), "operations": self._block_io("io_serviced")},
        }

    def pressure(self) -> dict[str, dict[str, int]]:
        return {}

    def _block_io(self, what: str) -> list[dict[str, Any]]:
        # Groups below are counted in from Linux 5.3 on only.
        for file in (f"blkio.throttle.{what}_recursive", f"blkio.throttle.{what}"):
            path = self._at("blkio", file)
            if path is not None and (text := read(path)):
                return triples(text)
        return []


@functools.cache
def _cpuset_of(root: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    """The processors and memory nodes of a group, given to it from above where it has none."""
    folder = "/".join((root, *parts))
    found = []
    for at, file in enumerate(("cpuset.cpus", "cpuset.mems")):
        value = read(f"{folder}/{file}").strip()
        if not value and parts:
            value = _cpuset_of(root, parts[:-1])[at]
            write(f"{folder}/{file}", value)
        found.append(value)
    return tuple(found)


@functools.cache
def _own_folders(roots: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Where this process lives, looked up once: it never moves for good."""
    folders = []
    for line in read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        folders += [f"{root}{path.rstrip('/')}" for name, root in roots if name in controllers.split(",")]
    return tuple(dict.fromkeys(folders))


def _return(folders: tuple[str, ...]) -> None:
    for folder in folders:
        write(f"{folder}/tasks", "0")


def device_rule(rule: dict[str, Any]) -> str:
    """`c 1:3 rwm`, as devices.allow and devices.deny read it."""
    kind = rule.get("type") or "a"
    major, minor = ("*" if rule.get(side) in (None, -1) else str(rule[side]) for side in ("major", "minor"))
    return f"{kind} {major}:{minor} {rule.get('access') or 'rwm'}"
