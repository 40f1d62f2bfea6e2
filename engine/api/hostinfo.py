"""What this host is, for `docker info` and `docker version`."""

from __future__ import annotations

import os
import platform
import uuid
from functools import lru_cache
from pathlib import Path

MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def engine_id(instance: str) -> str:
    """What tells this engine from all others, whatever machine it was copied to."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{_machine_id()}/{instance}"))


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return platform.node()


def architecture() -> str:
    """This machine's name in Go's spelling."""
    return MACHINES.get(platform.machine(), platform.machine())


@lru_cache
def operating_system() -> tuple[str, str]:
    """(pretty name, version) from os-release."""
    values: dict[str, str] = {}
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.exists():
            for line in path.read_text(errors="replace").splitlines():
                key, _, value = line.partition("=")
                values[key] = value.strip().strip("\"'")
            break
    return values.get("PRETTY_NAME", "Linux"), values.get("VERSION_ID", "")


def memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cgroup_version() -> str:
    """`2` where all controllers are in the unified hierarchy, else `1`."""
    return "2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "1"


def file_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
