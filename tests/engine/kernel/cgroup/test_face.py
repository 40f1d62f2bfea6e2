"""What every version of control groups must do. Which one is tried is this host's; `scripts/test-cgroup2` tries v2."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.kernel import libc
from engine.kernel.cgroup.base import Cgroup
from engine.kernel.cgroup.host import cgroup, hierarchies
from engine.kernel.cgroup.v2 import CgroupV2
from tests.patience import wait_for

pytestmark = pytest.mark.kernel

NOTHING = {"allow": False, "access": "rwm"}
NULL = {"type": "c", "major": 1, "minor": 3, "access": "rwm"}
ZERO = {"type": "c", "major": 1, "minor": 5, "access": "rwm"}


@pytest.fixture
def group() -> Iterator[Cgroup]:
    group = cgroup(f"/shipway/face-{os.getpid()}/one")
    group.create()
    yield group
    group.end()
    cgroup(f"/shipway/face-{os.getpid()}").remove()


@contextlib.contextmanager
def inside(group: Cgroup, live: Callable[[], None]) -> Iterator[int]:
    """A process of the group that lives so; its pid."""
    pid = group.bear(libc.clone, 0)
    if pid == 0:
        try:
            live()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        with contextlib.suppress(ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def tried(group: Cgroup, trial: Callable[[], None]) -> int:
    """The errno that the trial ends with inside, 0 for none."""
    pid = group.bear(libc.clone, 0)
    if pid == 0:
        code = 0
        try:
            trial()
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def spin() -> None:
    while True:
        pass


def test_a_child_that_takes_too_much_memory_is_counted_while_its_parent_lives(group: Cgroup) -> None:
    group.apply({"memory": {"limit": 16 << 20, "swap": 16 << 20}})

    def parent() -> None:
        if os.fork() == 0:
            Path("/proc/self/oom_score_adj").write_text("1000")
            held = bytearray(64 << 20)
            held[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(held[:: os.sysconf("SC_PAGE_SIZE")])
        signal.pause()

    with inside(group, parent) as pid:
        wait_for(group.oom_kills, "a kill", 60)
        assert pid in group.processes()


def test_there_are_no_more_processes_than_allowed(group: Cgroup) -> None:
    group.apply({"pids": {"limit": 2}})

    def two_children() -> None:
        for _ in range(2):
            if os.fork() == 0:
                signal.pause()

    assert tried(group, two_children) == errno.EAGAIN
    group.apply({"pids": {"limit": 0}})
    assert group.stats()["pids"]["limit"] == 0


def test_a_quota_holds_back(group: Cgroup) -> None:
    group.apply({"cpu": {"quota": 2_000, "period": 10_000, "shares": 512}})
    with inside(group, spin):
        wait_for(lambda: group.stats()["cpu"]["throttled_time"], "holding it back", 60)
    cpu = group.stats()["cpu"]
    assert cpu["total"] > 0
    assert cpu["throttled_periods"] <= cpu["periods"]
    group.apply({"cpu": {"period": 20_000}})
    group.apply({"cpu": {"quota": -1}})


def test_the_frozen_do_nothing(group: Cgroup) -> None:
    with inside(group, spin):
        wait_for(lambda: group.stats()["cpu"]["total"], "any use of a processor", 60)
        group.freeze()
        assert group.frozen()
        before = group.stats()["cpu"]["total"]
        time.sleep(0.05)  # in which it would have run
        assert group.stats()["cpu"]["total"] == before
        group.thaw()
        assert not group.frozen()
        wait_for(lambda: group.stats()["cpu"]["total"] > before, "going on", 60)


def test_processors_and_memory_nodes(group: Cgroup) -> None:
    group.apply({"cpu": {"cpus": "0", "mems": "0"}})
    assert tried(group, lambda: os._exit(len(os.sched_getaffinity(0)))) == 1


def test_a_reservation_and_every_limit_can_be_lifted(group: Cgroup) -> None:
    group.apply({"memory": {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20}})
    assert group.stats()["memory"]["limit"] == 64 << 20
    group.apply({"memory": {"limit": -1, "swap": -1, "reservation": -1}})
    assert group.stats()["memory"]["limit"] == 0


def test_only_the_devices_of_the_rules_can_be_used(group: Cgroup) -> None:
    group.apply({"devices": [NOTHING, {"allow": True, **NULL}, {"allow": True, **ZERO, "access": "r"}]})
    assert tried(group, lambda: os.close(os.open("/dev/null", os.O_RDWR))) == 0
    assert tried(group, lambda: os.close(os.open("/dev/zero", os.O_RDONLY))) == 0
    assert tried(group, lambda: os.close(os.open("/dev/zero", os.O_RDWR))) == errno.EPERM
    assert tried(group, lambda: os.close(os.open("/dev/full", os.O_RDONLY))) == errno.EPERM


@pytest.mark.parametrize(
    ("rules", "null", "zero"),
    [
        ([{"allow": True, **NULL, "access": "r"}, {"allow": True, **NULL, "access": "wm"}], 0, errno.EPERM),
        ([{"allow": True, "type": "c", "access": "rw"}, {"allow": False, **NULL, "access": "w"}], 0, 0),
        ([{"allow": True, **NULL}, {"allow": False, **NULL, "access": "w"}], errno.EPERM, errno.EPERM),
        ([{"allow": True, "access": "rwm"}, {"allow": False, **ZERO, "access": "w"}], 0, errno.EPERM),
    ],
)
def test_both_versions_read_rules_alike(rules: list[dict[str, object]], null: int, zero: int) -> None:
    here = hierarchies()
    groups = [cgroup(f"/shipway-rules-{os.getpid()}")]
    if here.mode == "hybrid" and here.v2:
        groups.append(CgroupV2(f"/shipway-rules-{os.getpid()}", here.v2))
    for group in groups:
        group.create()
        try:
            group.apply({"devices": [NOTHING, *rules]})
            assert tried(group, lambda: os.close(os.open("/dev/null", os.O_RDWR))) == null, group
            assert tried(group, lambda: os.close(os.open("/dev/zero", os.O_RDWR))) == zero, group
        finally:
            group.end()


def test_what_v2_alone_tells(group: Cgroup) -> None:
    waited = group.pressure()
    if hierarchies().mode == "v2" and os.path.exists("/proc/pressure"):
        assert {"some", "full"} <= waited["memory"].keys()
    else:
        assert waited == {}


def test_in_a_container_the_engine_makes_room_for_groups_below_its_own(group: Cgroup, tmp_path: Path) -> None:
    """cgroup v2's rule of no internal processes, where the hierarchy's root is the group that the engine is in."""
    if hierarchies().mode != "v2":
        pytest.skip("only v2 has that rule")

    def engine() -> None:
        libc.unshare(libc.CLONE_NEWCGROUP | libc.CLONE_NEWNS)
        libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE)
        libc.mount("cgroup", str(tmp_path), "cgroup2")
        below = CgroupV2("/shipway/inner", str(tmp_path))
        below.create()
        below.apply({"memory": {"limit": 64 << 20}, "pids": {"limit": 5}})
        child = below.bear(libc.clone, 0)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    assert tried(group, engine) == 0


def test_reads_and_writes_of_a_disk_are_counted(group: Cgroup, tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    if not os.path.exists(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"):
        pytest.skip("the temporary folder is on no disk")
    file = tmp_path / "file"

    def write() -> None:
        with file.open("wb") as disk:
            disk.write(b"x" * (1 << 20))
            os.fsync(disk.fileno())

    assert tried(group, write) == 0
    blkio = group.stats()["blkio"]
    assert sum(entry["value"] for entry in blkio["bytes"] if entry["op"].lower() == "write") >= 1 << 20
    assert sum(entry["value"] for entry in blkio["operations"] if entry["op"].lower() == "write") >= 1
