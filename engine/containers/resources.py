"""Limits of a container, as its user wrote them → OCI LinuxResources. Also says which make no sense."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

from engine.containers.hostconfig import Limits, ThrottleDevice
from engine.errors import InvalidInput
from engine.kernel.cgroup.offered import Offered, numbers, offered
from engine.runtime.spec import (
    LinuxBlockIO,
    LinuxCPU,
    LinuxMemory,
    LinuxPids,
    LinuxResources,
    LinuxThrottleDevice,
    LinuxWeightDevice,
)

_SMALLEST_MEMORY = 6 << 20
_PERIOD = 100_000
_CPUSET = frozenset("0123456789,-")


def validate(limits: Limits) -> None:
    """Raises InvalidInput with Docker's words for combinations that Docker refuses."""
    if limits.memory and limits.memory < _SMALLEST_MEMORY:
        raise InvalidInput("Minimum memory limit allowed is 6MB")
    if limits.memory_swap and not limits.memory:
        raise InvalidInput("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < limits.memory_swap < limits.memory:
        raise InvalidInput("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < limits.memory_reservation < _SMALLEST_MEMORY:
        raise InvalidInput("Minimum memory reservation allowed is 6MB")
    if limits.memory and limits.memory_reservation > limits.memory:
        raise InvalidInput("Minimum memory limit can not be less than memory reservation limit, see usage")
    swappiness = limits.memory_swappiness
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidInput(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if limits.nano_cpus and (limits.cpu_period or limits.cpu_quota):
        raise InvalidInput("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    cpus = os.cpu_count() or 1
    if limits.nano_cpus < 0 or limits.nano_cpus > cpus * 10**9:
        raise InvalidInput(f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if limits.cpu_period and not 1000 <= limits.cpu_period <= 1_000_000:
        raise InvalidInput("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < limits.cpu_quota < 1000:
        raise InvalidInput("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if limits.cpu_shares < 0:
        raise InvalidInput(f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer")
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise InvalidInput("Range of blkio weight is from 10 to 1000")
    _cpuset(limits)
    if (limits.cpu_realtime_period or limits.cpu_realtime_runtime) and not offered().cpu_realtime:
        raise InvalidInput("Your kernel does not support CPU real-time scheduler")


def _cpuset(limits: Limits) -> None:
    if not limits.cpuset_cpus and not limits.cpuset_mems:
        return
    there = offered()
    for text, offer, what, name in (
        (limits.cpuset_cpus, there.cpus, "CPUs", "cpus"),
        (limits.cpuset_mems, there.mems, "memory nodes", "mems"),
    ):
        try:
            if not _CPUSET.issuperset(text):
                raise ValueError(text)
            wanted = numbers(text)
        except ValueError:
            raise InvalidInput(f"Invalid value {text!r} for cpuset {name}: write it as 0-2,4") from None
        if not wanted <= offer:
            shown = ",".join(map(str, sorted(offer)))
            raise InvalidInput(f"Requested {what} are not available - requested {text}, available: {shown}")


def discard(limits: Limits, there: Offered | None = None) -> list[str]:
    """Takes out what can't be limited `there`, on this host; a warning for each, in Docker's words."""
    there = there or offered()
    found: list[str] = []
    if limits.memory_swappiness == -1:
        limits.memory_swappiness = None  # older clients write it so

    def drop(has: bool, fields: dict[str, Any], what: str, gone: str) -> None:
        if not has and any(getattr(limits, name) for name in fields):
            lack = f"Your kernel does not support {what} or the cgroup is not mounted."
            found.append(f"{lack} {gone} discarded.")
            for name, value in fields.items():
                setattr(limits, name, value)

    drop(there.memory, {"memory": 0}, "memory limit capabilities", "Limitation")
    drop(there.reservation, {"memory_reservation": 0}, "memory soft limit capabilities", "Limitation")
    drop(there.swappiness, {"memory_swappiness": None}, "memory swappiness capabilities", "Memory swappiness")
    if limits.memory > 0 and limits.memory_swap != -1 and not there.swap:
        found.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        limits.memory_swap = -1
    if limits.oom_kill_disable is not None and not there.oom_kill_disable:
        if limits.oom_kill_disable:
            found.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        limits.oom_kill_disable = None
    drop(there.pids, {"pids_limit": None}, "PIDs limit capabilities", "PIDs limit")
    drop(there.cpu_shares, {"cpu_shares": 0}, "CPU shares", "Shares")
    drop(there.cpu_quota, {"cpu_period": 0, "cpu_quota": 0, "nano_cpus": 0}, "CPU CFS scheduler", "CPU period/quota")
    drop(there.cpuset, {"cpuset_cpus": "", "cpuset_mems": ""}, "cpuset", "Cpuset")
    drop(there.io_weight, {"blkio_weight": 0, "blkio_weight_device": []}, "Block I/O weight", "Weight")
    drop(
        there.io_limits,
        {
            "blkio_device_read_bps": [],
            "blkio_device_write_bps": [],
            "blkio_device_read_iops": [],
            "blkio_device_write_iops": [],
        },
        "Block I/O limits",
        "Block I/O limits",
    )
    return found


def memory_and_swap(limits: Limits) -> int | None:
    """Docker's rule: as much swap again as memory, unless something was said."""
    if limits.memory_swap:
        return limits.memory_swap
    return 2 * limits.memory if limits.memory else None


def resources(limits: Limits) -> LinuxResources:
    """Everything but the device rules. What is unset stays out, so that an update leaves it alone."""
    quota, period = limits.cpu_quota or None, limits.cpu_period or None
    if limits.nano_cpus:
        quota, period = limits.nano_cpus * _PERIOD // 10**9, _PERIOD
    pids, swappiness = limits.pids_limit, limits.memory_swappiness
    return LinuxResources(
        memory=LinuxMemory(
            limit=limits.memory or None,
            reservation=limits.memory_reservation or None,
            swap=memory_and_swap(limits),
            swappiness=None if swappiness is None or swappiness < 0 else swappiness,
            disable_oom_killer=limits.oom_kill_disable or None,
        ),
        cpu=LinuxCPU(
            shares=limits.cpu_shares or None,
            quota=quota,
            period=period,
            cpus=limits.cpuset_cpus or None,
            mems=limits.cpuset_mems or None,
            realtime_period=limits.cpu_realtime_period or None,
            realtime_runtime=limits.cpu_realtime_runtime or None,
        ),
        pids=None if pids is None else LinuxPids(limit=pids if pids > 0 else -1),
        block_io=_block_io(limits),
    )


def _block_io(limits: Limits) -> LinuxBlockIO | None:
    block = LinuxBlockIO(
        weight=limits.blkio_weight or None,
        weight_device=[
            LinuxWeightDevice(*_numbers(device.path), weight=device.weight) for device in limits.blkio_weight_device
        ],
        throttle_read_bps_device=_throttle(limits.blkio_device_read_bps),
        throttle_write_bps_device=_throttle(limits.blkio_device_write_bps),
        throttle_read_iops_device=_throttle(limits.blkio_device_read_iops),
        throttle_write_iops_device=_throttle(limits.blkio_device_write_iops),
    )
    return None if block == LinuxBlockIO() else block


def _throttle(devices: Sequence[ThrottleDevice]) -> list[LinuxThrottleDevice]:
    return [LinuxThrottleDevice(*_numbers(device.path), rate=device.rate) for device in devices]


def _numbers(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidInput(f"no such block device {path!r}: {error.strerror}") from None
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidInput(f"{path!r} is not a block device")
    return os.major(status.st_rdev), os.minor(status.st_rdev)
