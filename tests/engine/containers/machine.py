"""All that one engine holds of the machine, from the kernel's and the disk's own lists."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from engine.kernel.cgroup.host import groups_below
from tests.engine.containers.daemon import Daemon

_CHANGING = re.compile(r"counter packets \d+ bytes \d+| # handle \d+")


@dataclass(frozen=True)
class Holdings:
    """Each kind of thing as a set of lines for people."""

    processes: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]
    folders: frozenset[str]

    @classmethod
    def of(cls, daemon: Daemon) -> Holdings:
        config = daemon.config
        instance = config.instance
        names = os.listdir("/sys/class/net")
        return cls(
            processes=frozenset(_processes(config.cgroup_parent)),
            mounts=frozenset(_mounts(str(daemon.place), {"host": os.getpid(), "zygote": zygote_of(daemon)})),
            cgroups=frozenset(groups_below(config.cgroup_parent)),
            links=frozenset(name for name in names if name.startswith((f"v{instance}", f"s{instance}"))),
            rules=frozenset(_rules(config.nft_table)),
            folders=frozenset(_folders(config.data_root, config.exec_root)),
        )

    def __str__(self) -> str:
        return "\n".join(f"  {each.name}: {line}" for each in fields(self) for line in sorted(getattr(self, each.name)))

    def __sub__(self, other: Holdings) -> Holdings:
        return Holdings(**{each.name: getattr(self, each.name) - getattr(other, each.name) for each in fields(self)})


def zygote_of(daemon: Daemon) -> int:
    """Its pid, 0 for none: of all processes that look like it the one that is not born of another."""
    parents: dict[int, int] = {}
    for process in psutil.process_iter(["cmdline", "ppid"]):
        line = " ".join(process.info["cmdline"] or ())
        if "engine.runtime.zygote" in line and str(daemon.config.exec_root) in line:
            parents[process.pid] = process.info["ppid"]
    return next((pid for pid, parent in parents.items() if parent not in parents), 0)


def _processes(parent: str) -> Iterator[str]:
    """Those in a container's control group."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                group = (process / "cgroup").read_text()
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{parent}/" in group and line:
                yield f"{process.name} {line!r}"


def _mounts(place: str, processes: dict[str, int]) -> Iterator[str]:
    for name, process in processes.items():
        for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines():
            where = line.split()[4]
            if place in line and not where.endswith("/zygote.sock"):
                yield f"{name} {where}"


def _rules(table: str) -> Iterator[str]:
    listed = subprocess.run(["nft", "list", "table", "inet", table], capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        yield _CHANGING.sub("", line).strip()


def _folders(data: Path, run: Path) -> Iterator[str]:
    for folder, pattern in (
        *((data / "containers", each) for each in ("[0-9a-f]*", ".removed/*")),
        *((data / name, "*") for name in ("volumes", "moves", "images/ingest")),
        *((run / name, "*") for name in ("containers", "steps", "rootfs", "lower")),
    ):
        for path in folder.glob(pattern):
            yield f"{folder.name}/{path.name}"
