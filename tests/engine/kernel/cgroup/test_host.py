from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.kernel import libc
from engine.kernel.cgroup.base import Cgroup, read
from engine.kernel.cgroup.host import cgroup, groups_below, parse
from engine.kernel.cgroup.v1 import device_rule
from engine.kernel.cgroup.v2 import CgroupV2, unlimited, weight_of_shares

V1 = "34 31 0:29 / /sys/fs/cgroup/{0} rw,relatime - cgroup cgroup rw,{0}"
V2 = "40 31 0:35 / {0} rw,relatime - cgroup2 cgroup2 rw"


def test_each_layout_is_recognised() -> None:
    v1 = "\n".join(V1.format(name) for name in ("memory", "pids"))
    assert parse(v1).mode == "v1"
    hybrid = parse(v1 + "\n" + V2.format("/sys/fs/cgroup/unified"))
    assert (hybrid.mode, hybrid.v1["pids"]) == ("hybrid", "/sys/fs/cgroup/pids")
    unified = parse(V2.format("/sys/fs/cgroup"))
    assert (unified.mode, unified.v2) == ("v2", "/sys/fs/cgroup")


def test_mounts_of_any_name() -> None:
    odd = "50 31 0:40 / /media/Zo\u00eb\u00a0one\rtwo rw - tmpfs  rw,size=1k"
    assert parse(odd + "\n" + V2.format("/sys/fs/cgroup") + "\n").v2 == "/sys/fs/cgroup"


def test_a_list_is_read_to_its_end() -> None:
    assert len(read("/proc/self/maps")) > os.sysconf("SC_PAGE_SIZE")


def test_controllers_that_share_a_mount() -> None:
    here = parse("34 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct")
    assert here.v1 == {"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct"}


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


def test_device_rules() -> None:
    assert device_rule({"allow": False, "access": "rwm"}) == "a *:* rwm"
    assert device_rule({"allow": True, "type": "c", "major": 1, "minor": 3}) == "c 1:3 rwm"


def test_v2_writes_what_the_kernel_reads(tmp_path: Path) -> None:
    """The unified hierarchy's own files, on an ordinary file system."""
    folder = tmp_path / "shipway"
    folder.mkdir()
    for file in ("memory.max", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight", "pids.max", "io.weight"):
        (folder / file).touch()
    group = CgroupV2("/shipway", str(tmp_path))
    group.apply(
        {
            "memory": {"limit": 1000, "swap": 3000, "reservation": 500},
            "cpu": {"quota": 50000, "period": 100000, "shares": 1024},
            "pids": {"limit": -1},
            "blockIO": {"weight": 10},
        }
    )
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "memory.max": "1000",
        "memory.swap.max": "2000",
        "memory.low": "500",
        "cpu.max": "50000 100000",
        "cpu.weight": "39",
        "pids.max": "max",
        "io.weight": "default 1",
    }
    assert unlimited(-1) == "max"


@pytest.fixture
def group() -> Iterator[Cgroup]:
    group = cgroup(f"/shipway/test-{os.getpid()}/one")
    group.create()
    yield group
    group.remove()
    cgroup(f"/shipway/test-{os.getpid()}").remove()


@pytest.mark.kernel
def test_a_group_limits_freezes_counts_and_goes(group: Cgroup) -> None:
    group.apply({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}, "cpu": {"quota": 50000, "period": 100000}})
    process = subprocess.Popen(["sleep", "100"], preexec_fn=group.join)
    try:
        assert group.processes() == [process.pid]
        stats = group.stats()
        assert (stats["memory"]["limit"], stats["pids"]["limit"], stats["pids"]["current"]) == (64 << 20, 50, 1)
        group.freeze()
        group.thaw()
        assert group.oom_kills() == 0
        assert groups_below(f"/shipway/test-{os.getpid()}") == [group.path]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.kernel
def test_a_limit_moves_both_ways(group: Cgroup) -> None:
    for limit in (32 << 20, 128 << 20, 16 << 20):
        group.apply({"memory": {"limit": limit, "swap": limit}})
        assert group.stats()["memory"]["limit"] == limit


@pytest.mark.kernel
def test_a_child_is_born_inside_and_its_parent_comes_back(group: Cgroup) -> None:
    before = Path("/proc/self/cgroup").read_text()
    read, write = os.pipe()
    pid = group.bear(libc.clone, 0)
    if pid == 0:
        os.read(read, 1)
        os._exit(0)
    try:
        assert group.processes() == [pid]
        assert Path("/proc/self/cgroup").read_text() == before
    finally:
        os.write(write, b"x")
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)


@pytest.fixture
def unified(tmp_path: Path) -> Iterator[str]:
    """Where the unified hierarchy is mounted: every kernel has it, not every host shows it."""
    libc.mount("cgroup", str(tmp_path), "cgroup2")
    yield str(tmp_path)
    libc.umount(str(tmp_path))


@pytest.mark.kernel
def test_a_child_is_born_in_a_v2_group(unified: str) -> None:
    group = CgroupV2(f"/shipway-test-{os.getpid()}", unified)
    os.mkdir(group.folders()[0])
    read, write = os.pipe()
    try:
        pid = group.bear(libc.clone, 0)
        if pid == 0:
            os.read(read, 1)
            os._exit(0)
        assert group.processes() == [pid]
        os.write(write, b"x")
        os.waitpid(pid, 0)
    finally:
        os.close(read)
        os.close(write)
        group.remove()
