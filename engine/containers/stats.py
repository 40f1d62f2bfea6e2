"""What a container uses, as Docker's statistics JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engine.containers import times
from engine.containers.model import Container

_NO_LIMIT = 2**64 - 1
_TICK = 10**9 // os.sysconf("SC_CLK_TCK")


def sample(container: Container, usage: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """One reading. `usage` is the control group's; `before` an earlier result of this function, or None."""
    cpu, pids = usage["cpu"], usage["pids"]
    now = {
        "name": f"/{container.name}",
        "id": container.id,
        "read": times.rfc3339(times.now()),
        "preread": before["read"] if before else times.ZERO,
        "pids_stats": {"current": pids["current"], "limit": pids["limit"] or _NO_LIMIT},
        "blkio_stats": _block_io(usage["blkio"]),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": cpu["total"],
                **({"percpu_usage": cpu["per_cpu"]} if cpu["per_cpu"] else {}),
                "usage_in_kernelmode": cpu["system"],
                "usage_in_usermode": cpu["user"],
            },
            "system_cpu_usage": _system_cpu(),
            "online_cpus": os.cpu_count() or 1,
            "throttling_data": {
                "periods": cpu["periods"],
                "throttled_periods": cpu["throttled_periods"],
                "throttled_time": cpu["throttled_time"],
            },
        },
        "memory_stats": _memory(usage["memory"]),
    }
    now["precpu_stats"] = before["cpu_stats"] if before else _NO_CPU
    networks = interfaces(container)
    if networks:
        now["networks"] = networks
    return now


_NO_CPU: dict[str, Any] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


def stopped(container: Container) -> dict[str, Any]:
    """What Docker answers for a container that does not run."""
    return {
        "name": f"/{container.name}",
        "id": container.id,
        "read": times.ZERO,
        "preread": times.ZERO,
        "pids_stats": {},
        "blkio_stats": _block_io({"bytes": [], "operations": []}),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _NO_CPU,
        "precpu_stats": _NO_CPU,
        "memory_stats": {},
    }


def _memory(memory: dict[str, Any]) -> dict[str, Any]:
    """Both versions of control groups, each with its own names; `max_usage` is told by v1 alone, as by Docker."""
    is_v1 = "hierarchical_memory_limit" in memory["stats"]
    names = _MEMORY_V1 if is_v1 else _MEMORY_V2
    return {
        "usage": memory["usage"],
        **({"max_usage": memory["max_usage"] or 0} if is_v1 else {}),
        "stats": {name: memory["stats"].get(name, 0) for name in names},
        "failcnt": memory["failcnt"],
        "limit": memory["limit"] or total_memory(),
    }


_COUNTED_V1 = (
    "cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault pgmajfault inactive_anon active_anon "
    "inactive_file active_file unevictable"
)
_MEMORY_V1 = [
    *_COUNTED_V1.split(),
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    *(f"total_{name}" for name in _COUNTED_V1.split()),
]
_COUNTED_V2 = (
    "anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp inactive_anon active_anon "
    "inactive_file active_file unevictable slab_reclaimable slab_unreclaimable pgfault pgmajfault workingset_refault "
    "workingset_activate workingset_nodereclaim pgrefill pgscan pgsteal pgactivate pgdeactivate pglazyfree pglazyfreed "
    "thp_fault_alloc thp_collapse_alloc"
)
_MEMORY_V2 = _COUNTED_V2.split()


def _block_io(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    names = ("io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time")
    return {
        "io_service_bytes_recursive": found["bytes"] or None,
        "io_serviced_recursive": found["operations"] or None,
        **{f"{name}_recursive": None for name in names},
        "sectors_recursive": None,
    }


def _system_cpu() -> int:
    """Nanoseconds that all CPUs of the host have spent, idle ones included."""
    with open("/proc/stat", encoding="ascii") as file:
        return sum(int(field) for field in file.readline().split()[1:8]) * _TICK


def total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def interfaces(container: Container) -> dict[str, dict[str, int]]:
    """Counters of the container's own interfaces, seen from inside its network namespace."""
    if not container.state.pid or container.host_config.network_mode == "host":
        return {}
    try:
        text = Path(f"/proc/{container.state.pid}/net/dev").read_text(encoding="ascii")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines()[2:]:
        name, _, counters = line.partition(":")
        fields = [int(field) for field in counters.split()]
        if name.strip() == "lo" or len(fields) < 12:
            continue
        found[name.strip()] = {
            "rx_bytes": fields[0],
            "rx_packets": fields[1],
            "rx_errors": fields[2],
            "rx_dropped": fields[3],
            "tx_bytes": fields[8],
            "tx_packets": fields[9],
            "tx_errors": fields[10],
            "tx_dropped": fields[11],
        }
    return found
