"""cgroup v2, the unified hierarchy (Documentation/admin-guide/cgroup-v2)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from engine.kernel.cgroup.base import Cgroup, flat, number, read, write
from engine.kernel.cgroup.devices import restrict

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

    from engine.kernel.cgroup.base import Resources

_WANTED = ("cpuset", "cpu", "io", "memory", "pids")
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
            offered = read(f"{folder}/cgroup.controllers").split()
            enabled = read(f"{folder}/cgroup.subtree_control").split()
            for controller in _WANTED:
                if controller in offered and controller not in enabled:
                    write(f"{folder}/cgroup.subtree_control", f"+{controller}")
            folder = f"{folder}/{part}"
            os.makedirs(folder, exist_ok=True)

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
        memory = resources.get("memory") or {}
        limit, swap = memory.get("limit"), memory.get("swap")
        self._set("memory.max", unlimited(limit))
        if swap is not None and os.path.exists(f"{self._folder}/memory.swap.max"):
            # The specification's swap is memory and swap together, the kernel's is swap alone.
            self._set("memory.swap.max", "max" if swap < 0 else max(0, swap - (limit or 0)))
        self._set("memory.low", unlimited(memory.get("reservation")))
        cpu = resources.get("cpu") or {}
        if cpu.get("shares"):
            self._set("cpu.weight", weight_of_shares(cpu["shares"]))
        if cpu.get("quota") is not None or cpu.get("period") is not None:
            quota = cpu.get("quota") or -1
            self._set("cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100000}")
        self._set("cpuset.cpus", cpu.get("cpus"))
        self._set("cpuset.mems", cpu.get("mems"))
        pids = (resources.get("pids") or {}).get("limit")
        if pids is not None:
            self._set("pids.max", pids if pids > 0 else "max")
        block = resources.get("blockIO") or {}
        if block.get("weight") and os.path.exists(f"{self._folder}/io.weight"):
            self._set("io.weight", f"default {1 + (block['weight'] - 10) * 9999 // 990}")
        for key, word in _LIMITS.items():
            for device in block.get(key) or ():
                self._set("io.max", f"{device['major']}:{device['minor']} {word}={device['rate']}")
        if resources.get("devices"):
            restrict(self._folder, resources["devices"])

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

    def oom_kills(self) -> int:
        return flat(read(f"{self._folder}/memory.events")).get("oom_kill", 0)

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


def unlimited(value: int | None) -> object:
    return "max" if value is not None and value < 0 else value


def weight_of_shares(shares: int) -> int:
    """v1's 2 to 262144 on v2's 1 to 10000, as the OCI runtimes map it."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142
