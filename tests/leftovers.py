"""Everything of Shipway's that a machine holds now."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Leftovers:
    """Each kind of thing as a set of lines for people."""

    processes: frozenset[str]
    mounts: frozenset[str]
    namespaces: frozenset[str]
    links: frozenset[str]
    cgroups: frozenset[str]
    tables: frozenset[str]
    files: frozenset[str]

    @classmethod
    def now(cls) -> Leftovers:
        return cls(
            processes=frozenset(_processes()),
            mounts=frozenset(_mounts()),
            namespaces=frozenset(_below(Path("/run/netns"), "sw*")),
            links=frozenset(_below(Path("/sys/class/net"), "sw*") | _below(Path("/sys/class/net"), "veth*")),
            cgroups=frozenset(_below(Path("/sys/fs/cgroup"), "shipway/*/*", "*/shipway/*/*")),
            tables=frozenset(_tables()),
            files=frozenset(_below(Path(tempfile.gettempdir()), "shipway-*") | _below(Path("/run"), "shipway*")),
        )

    def __sub__(self, other: Leftovers) -> Leftovers:
        return Leftovers(**{each.name: getattr(self, each.name) - getattr(other, each.name) for each in fields(self)})

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))

    def __str__(self) -> str:
        return "\n".join(f"  {each.name}: {line}" for each in fields(self) for line in sorted(getattr(self, each.name)))


def _processes() -> set[str]:
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                found.add(f"{child.pid} {' '.join(child.cmdline())[:160]}")
        except psutil.NoSuchProcess:
            continue
    return found


def _mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line for line in lines if "shipway" in line or "pytest-of-" in line}


def _below(folder: Path, *patterns: str) -> set[str]:
    return {str(path) for pattern in patterns for path in folder.glob(pattern)}


def _tables() -> set[str]:
    nft = shutil.which("nft")
    if nft is None or os.geteuid() != 0:
        return set()
    listed = subprocess.run([nft, "-j", "list", "tables"], capture_output=True, text=True, check=True).stdout
    tables = [entry["table"] for entry in json.loads(listed)["nftables"] if "table" in entry]
    return {f"{table['family']} {table['name']}" for table in tables if table["name"].startswith("shipway")}
