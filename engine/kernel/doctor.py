"""What this host's kernel offers and lacks, and what to do about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.kernel.cgroup.host import hierarchies

_OLDEST = (5, 11)
_IDMAPPED_OVERLAY = (5, 19)
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


@dataclass(frozen=True)
class Finding:
    """One thing looked at. Where it is `required` and not `ok`, the engine cannot work here."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = True


def inspect_kernel() -> list[Finding]:
    """Looks, changes nothing."""
    return [
        _root(),
        _version(),
        *_namespaces(),
        _user_namespaces(),
        _overlay(),
        _cgroups(),
        _seccomp(),
        _nftables(),
    ]


def _root() -> Finding:
    is_root = os.geteuid() == 0
    return Finding("root", is_root, "running as root" if is_root else "not root", "run it with sudo")


def _version() -> Finding:
    release = os.uname().release
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    return Finding("kernel", numbers >= _OLDEST, release, f"Linux {_OLDEST[0]}.{_OLDEST[1]} or later is needed")


def _namespaces() -> Iterator[Finding]:
    missing = [name for name in _NAMESPACES if not os.path.exists(f"/proc/self/ns/{name}")]
    yield Finding(
        "namespaces",
        not missing,
        f"missing: {', '.join(missing)}" if missing else ", ".join(_NAMESPACES),
        "use a kernel that was built with them",
    )


def _user_namespaces() -> Finding:
    """Containers of their own ids also need layers shown with them: idmapped mounts below overlayfs, Linux 5.19."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    limit = Path("/proc/sys/user/max_user_namespaces")
    most = int(limit.read_text()) if limit.exists() else 0
    if numbers < _IDMAPPED_OVERLAY:
        detail, remedy = (
            "overlayfs takes no idmapped layers",
            "Linux 5.19 or later has it; root in containers is root here",
        )
    elif not most:
        detail, remedy = "none allowed", "sysctl user.max_user_namespaces=100000; root in containers is root here"
    else:
        return Finding("user namespaces", True, f"up to {most}, with idmapped layers", required=False)
    return Finding("user namespaces", False, detail, remedy, required=False)


def _overlay() -> Finding:
    there = any(line.split()[-1] == "overlay" for line in Path("/proc/filesystems").read_text().splitlines())
    return Finding("overlayfs", there, "there" if there else "not loaded", "modprobe overlay")


def _cgroups() -> Finding:
    here = hierarchies()
    offered = Path(f"{here.v2}/cgroup.controllers").read_text().split() if here.mode == "v2" else sorted(here.v1)
    missing = [name for name in ("cpu", "memory", "pids") if name not in offered]
    detail = f"{here.mode}: {', '.join(offered) or 'no controllers'}"
    return Finding("cgroups", not missing, detail, f"mount or enable the controllers {', '.join(missing)}")


def _seccomp() -> Finding:
    there = os.path.exists("/proc/sys/kernel/seccomp/actions_avail")
    return Finding("seccomp", there, "filters" if there else "no filters", "CONFIG_SECCOMP_FILTER is needed")


def _nftables() -> Finding:
    there = "nf_tables" in Path("/proc/modules").read_text() if os.path.exists("/proc/modules") else False
    there = there or os.path.exists("/proc/net/netfilter") or os.path.exists("/sys/module/nf_tables")
    return Finding("nftables", there, "there" if there else "not found", "modprobe nf_tables")
