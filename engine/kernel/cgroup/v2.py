"""cgroup v2, the unified hierarchy (Documentation/admin-guide/cgroup-v2)."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections.abc import Callable

from engine.kernel.cgroup.base import Cgroup, flat, make, number, read, weigh, write
from engine.kernel.cgroup.devices import restrict

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

    from engine.kernel.cgroup.base import Resources

_WANTED = ("cpuset", "cpu", "io", "memory", "pids")
_LEAF = "init"
_LIMITS = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


class CgroupV2(Cgroup):
    """`root` is where the hierarchy is mounted."""

    def __init__(self, path: str, root: str) -> None:
        super().__init__(path)
        self._root = root
        self._folder = f"{root}{path}"

    def folders(self) -> list[str]:
        return [self._folder]

    def create(self) -> None:
        """Makes the folder, with every controller that there is handed down to it."""
        folder = self._root
        for part in self.path.strip("/").split("/"):
            hand_down(folder)
            folder = f"{folder}/{part}"
            make(folder)

    def bear(self, clone: Callable[[int, int | None], int], flags: int) -> int:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        pid = clone(flags, fd)
        if pid:
            os.close(fd)
        return pid

    def bear_outside(self, clone: Callable[[int, int | None], int], flags: int) -> int:
        return self.bear(clone, flags)

    def join(self) -> None:
        # Whoever was born here need not wait for the grace period that a move takes.
        if read("/proc/self/cgroup").rpartition("0::")[2].strip() != self.path:
            write(f"{self._folder}/cgroup.procs", "0")

    def _set(self, file: str, value: object) -> None:
        if value is not None:
            write(f"{self._folder}/{file}", str(value))

    def apply(self, resources: Resources) -> None:
        self._apply_memory(resources.get("memory") or {})
        self._apply_cpu(resources.get("cpu") or {})
        pids = (resources.get("pids") or {}).get("limit")
        if pids is not None:
            self._set("pids.max", pids if pids > 0 else "max")
        self._apply_block_io(resources.get("blockIO") or {})
        if resources.get("devices"):
            restrict(self._folder, resources["devices"])

    def _apply_memory(self, memory: dict[str, Any]) -> None:
        limit, swap = memory.get("limit"), memory.get("swap")
        self._set("memory.max", unlimited(limit))
        if swap is not None and os.path.exists(f"{self._folder}/memory.swap.max"):
            # The specification's swap is memory and swap together, the kernel's is swap alone.
            memory_alone = number(f"{self._folder}/memory.max") if limit is None else limit
            self._set("memory.swap.max", "max" if swap < 0 else max(0, swap - max(0, memory_alone)))
        self._set("memory.low", 0 if memory.get("reservation") == -1 else memory.get("reservation"))

    def _apply_cpu(self, cpu: dict[str, Any]) -> None:
        if cpu.get("shares"):
            self._set("cpu.weight", weight_of_shares(cpu["shares"]))
        quota, period = cpu.get("quota"), cpu.get("period")
        if quota is not None or period is not None:
            had = read(f"{self._folder}/cpu.max").split() or ["max", "100000"]
            now = had[0] if quota is None else quota if quota > 0 else "max"
            self._set("cpu.max", f"{now} {period or had[1]}")
        self._set("cpuset.cpus", cpu.get("cpus"))
        self._set("cpuset.mems", cpu.get("mems"))

    def _apply_block_io(self, block: dict[str, Any]) -> None:
        # The first counts for disks with the scheduler BFQ, the second for those with io.cost: there may be both.
        for file, convert in (("io.bfq.weight", int), ("io.weight", io_weight)):
            if not os.path.exists(f"{self._folder}/{file}"):
                continue
            if block.get("weight"):
                self._set(file, f"default {convert(block['weight'])}")
            for device in block.get("weightDevice") or ():
                weigh(f"{self._folder}/{file}", device, convert(device["weight"]))
        for key, word in _LIMITS.items():
            for device in block.get(key) or ():
                self._set("io.max", f"{device['major']}:{device['minor']} {word}={device['rate']}")

    def freeze(self) -> None:
        self._freeze("1")

    def thaw(self) -> None:
        self._freeze("0")

    def frozen(self) -> bool:
        return read(f"{self._folder}/cgroup.freeze").strip() == "1"

    def _freeze(self, wanted: str) -> None:
        self._set("cgroup.freeze", wanted)
        deadline = time.monotonic() + 10
        while flat(read(f"{self._folder}/cgroup.events")).get("frozen") != int(wanted):
            if time.monotonic() > deadline:
                self._set("cgroup.freeze", "0")
                raise OSError(errno.ETIMEDOUT, "the processes did not freeze within 10 s")
            time.sleep(0.001)

    def end(self, patience: float = 10.0) -> None:
        # From Linux 5.14 on the kernel kills all at once, whoever forks meanwhile included.
        with contextlib.suppress(OSError):
            self._set("cgroup.kill", 1)
        super().end(patience)

    def oom_kills(self) -> int:
        return flat(read(f"{self._folder}/memory.events")).get("oom_kill", 0)

    def oom_bell(self) -> tuple[int, int]:
        return os.open(f"{self._folder}/memory.events", os.O_RDONLY | os.O_CLOEXEC), select.EPOLLPRI

    def stats(self) -> dict[str, Any]:
        cpu = flat(read(f"{self._folder}/cpu.stat"))
        memory = flat(read(f"{self._folder}/memory.stat"))
        return {
            "cpu": {
                "total": cpu.get("usage_usec", 0) * 1000,
                "user": cpu.get("user_usec", 0) * 1000,
                "system": cpu.get("system_usec", 0) * 1000,
                "periods": cpu.get("nr_periods", 0),
                "throttled_periods": cpu.get("nr_throttled", 0),
                "throttled_time": cpu.get("throttled_usec", 0) * 1000,
                "per_cpu": [],
            },
            "memory": {
                "usage": number(f"{self._folder}/memory.current"),
                "max_usage": number(f"{self._folder}/memory.peak") or None,
                "failcnt": flat(read(f"{self._folder}/memory.events")).get("oom", 0),
                "limit": number(f"{self._folder}/memory.max"),
                "stats": memory,
            },
            "pids": {
                "current": number(f"{self._folder}/pids.current"),
                "limit": number(f"{self._folder}/pids.max"),
            },
            "blkio": {
                "bytes": self._block_io(read="rbytes", write="wbytes"),
                "operations": self._block_io(read="rios", write="wios"),
            },
        }

    def pressure(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for kind in ("cpu", "memory", "io"):
            for line in read(f"{self._folder}/{kind}.pressure").splitlines():
                who, *_, total = line.split()
                found.setdefault(kind, {})[who] = int(total.removeprefix("total="))
        return found

    def _block_io(self, **words: str) -> list[dict[str, Any]]:
        found = []
        for line in read(f"{self._folder}/io.stat").splitlines():
            device, *pairs = line.split()
            major, minor = device.split(":")
            values = dict(pair.split("=") for pair in pairs if "=" in pair)
            found += [
                {"major": int(major), "minor": int(minor), "op": op, "value": int(values[key])}
                for op, key in words.items()
                if key in values
            ]
        return found


def hand_down(folder: str) -> None:
    """Gives the groups below a group its controllers."""
    offered = read(f"{folder}/cgroup.controllers").split()
    enabled = read(f"{folder}/cgroup.subtree_control").split()
    missing = " ".join(f"+{name}" for name in _WANTED if name in offered and name not in enabled)
    if not missing:
        return
    # In one go: after those that can handle threads alone, the kernel takes the group for one of threads.
    try:
        write(f"{folder}/cgroup.subtree_control", missing)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _vacate(folder)
        write(f"{folder}/cgroup.subtree_control", missing)


def _vacate(folder: str) -> None:
    """A group that hands down controllers must have no processes itself. In a container the hierarchy's root is such
    a group, and the engine is in it: all that are there move to a leaf."""
    leaf = f"{folder}/{_LEAF}"
    make(leaf)
    for pid in read(f"{folder}/cgroup.procs").split():
        # It may have ended meanwhile.
        with contextlib.suppress(ProcessLookupError):
            write(f"{leaf}/cgroup.procs", pid)


def unlimited(value: int | None) -> object:
    return "max" if value is not None and value < 0 else value


def io_weight(weight: int) -> int:
    """v1's 10 to 1000 on v2's 1 to 10000, as the OCI runtimes map it."""
    return 1 + (weight - 10) * 9999 // 990


def weight_of_shares(shares: int) -> int:
    """v1's 2 to 262144 on v2's 1 to 10000, as the OCI runtimes map it."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142
