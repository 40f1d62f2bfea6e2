"""Limits of containers, on whichever version of control groups this host has; `scripts/test-cgroup2` tries v2."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from engine.containers.hostconfig import Limits
from engine.containers.model import from_json
from engine.errors import InvalidInput
from engine.kernel import quota
from engine.kernel.cgroup.host import cgroup, hierarchies
from tests.engine.containers.harness import Rooms, host
from tests.patience import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

HOG = "x=; while :; do x=$x$(head -c 1000000 /dev/zero | tr '\\0' x); done"


async def test_a_memory_hog_is_killed_and_it_shows(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", HOG, host=host(Memory=16 << 20, MemorySwap=16 << 20))
    exited = await rooms.containers.wait(made)
    assert (exited.code, rooms.get(made).state.oom_killed) == (137, True)
    await rooms.containers.remove(made)


async def test_the_end_of_a_child_for_want_of_memory_is_told_while_its_parent_runs(rooms: Rooms) -> None:
    script = f"(echo 1000 >/proc/self/oom_score_adj; {HOG}) & wait; exec sleep 100"
    told = asyncio.create_task(rooms.events.next(lambda event: event.action == "oom"))
    await asyncio.sleep(0)
    made = await rooms.start("sh", "-c", script, host=host(Memory=16 << 20, MemorySwap=16 << 20))
    assert (await told).actor == made
    state = rooms.get(made).state
    assert (state.status, state.oom_killed) == ("running", True)
    kills, pressure = await rooms.containers.usage.strain(rooms.get(made))
    assert kills >= 1
    assert bool(pressure) == (hierarchies().mode == "v2" and os.path.exists("/proc/pressure"))
    await rooms.containers.remove(made, force=True)


async def test_an_execution_is_held_by_the_same_limits(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100", host=host(PidsLimit=20, Memory=64 << 20, OomScoreAdj=77))
    assert (await rooms.exec(made, "cat", "/proc/self/oom_score_adj"))[1] == "77\n"
    group = cgroup(f"{rooms.config.cgroup_parent}/{made}")
    _, told = await rooms.exec(made, "sh", "-c", "for i in $(seq 30); do sleep 100 & done; wait")
    assert "can't fork" in told
    assert len(group.processes()) <= 20
    # Each sees its own group as the root.
    _, seen = await rooms.exec(made, "cat", "/proc/self/cgroup")
    assert {line.rpartition(":")[2] for line in seen.splitlines() if ":name=" not in line} <= {"/", ""} or (
        hierarchies().mode == "hybrid"
    )
    await rooms.containers.remove(made, force=True)


async def test_only_devices_that_were_given_can_be_used(rooms: Rooms) -> None:
    """Without a user namespace of its own, where the device rules alone are in the way."""
    devices = [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/given", "CgroupPermissions": "r"}]
    made = await rooms.start("sleep", "100", host=host(Devices=devices, UsernsMode="host"))
    script = (
        "true </dev/given && echo ok; true >/dev/given; true <>/dev/given; "
        "mknod /tmp/mem c 1 1 && true </tmp/mem; true <>/dev/null"
    )
    _, said = await rooms.exec(made, "sh", "-c", script)
    first, *rest = said.splitlines()
    assert first == "ok"
    assert len(rest) == 3
    assert all("not permitted" in line for line in rest), rest
    await rooms.containers.remove(made, force=True)


async def test_a_rule_lets_a_device_be_used(rooms: Rooms) -> None:
    script = "mknod /tmp/fuse c 10 229 && : <>/tmp/fuse"
    for rules, code in ((["c 10:229 rwm"], 0), (["c 10:* rw"], 0), (["c 10:229 rm"], 1), ([], 1)):
        wanted = host(UsernsMode="host", DeviceCgroupRules=rules)
        exited, _, err = await rooms.run("sh", "-c", script, host=wanted)
        assert (exited.code, "not permitted" in err) == (code, bool(code)), rules


async def test_every_limit_can_be_changed_while_it_runs(rooms: Rooms) -> None:
    made = await rooms.start("sleep", "100", host=host(Memory=32 << 20, NanoCpus=500_000_000))
    group = cgroup(f"{rooms.config.cgroup_parent}/{made}")
    change = Limits(
        memory=64 << 20,
        memory_swap=-1,
        memory_reservation=16 << 20,
        nano_cpus=250_000_000,
        cpu_shares=512,
        cpuset_cpus="0",
        cpuset_mems="0",
        pids_limit=7,
    )
    await rooms.containers.update(made, change)
    stats = group.stats()
    assert (stats["memory"]["limit"], stats["pids"]["limit"]) == (64 << 20, 7)
    _, seen = await rooms.exec(made, "grep", "Cpus_allowed_list", "/proc/self/status")
    assert seen.split() == ["Cpus_allowed_list:", "0"]
    folder = next(path for path in map(Path, group.folders()) if list(path.glob("cpu.*")))
    if hierarchies().mode == "v2":
        found = [
            (folder / name).read_text().strip() for name in ("cpu.max", "cpu.weight", "memory.low", "memory.swap.max")
        ]
        assert found == ["25000 100000", "20", str(16 << 20), "max"]
    else:
        assert [int((folder / f"cpu.{name}").read_text()) for name in ("cfs_quota_us", "shares")] == [25_000, 512]
    await rooms.containers.update(made, Limits(pids_limit=0))
    assert group.stats()["pids"]["limit"] == 0
    with pytest.raises(InvalidInput, match="as NanoCPUs has already been set"):
        await rooms.containers.update(made, Limits(cpu_quota=10_000))
    await rooms.containers.remove(made, force=True)


@pytest.fixture
def disk(tmp_path: Path) -> tuple[str, str]:
    """A node of a whole disk, and its number; where the host has none, any other whole block device will do."""
    blocks = sorted(Path("/sys/block").iterdir(), key=lambda block: (not (block / "device").exists(), block.name))
    if not blocks:
        pytest.skip("this kernel has no block device")
    number = (blocks[0] / "dev").read_text().strip()
    major, minor = map(int, number.split(":"))
    node = tmp_path / "disk"
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(major, minor))
    return str(node), number


async def test_disk_rates_are_kept_and_changed(rooms: Rooms, disk: tuple[str, str]) -> None:
    node, number = disk
    rates = {
        "BlkioDeviceReadBps": [{"Path": node, "Rate": 1 << 20}],
        "BlkioDeviceWriteBps": [{"Path": node, "Rate": 2 << 20}],
        "BlkioDeviceReadIOps": [{"Path": node, "Rate": 300}],
        "BlkioDeviceWriteIOps": [{"Path": node, "Rate": 400}],
    }
    made = await rooms.start("sleep", "100", host=host(BlkioWeight=500, **rates))
    folders = [Path(folder) for folder in cgroup(f"{rooms.config.cgroup_parent}/{made}").folders()]

    def kept() -> list[str]:
        if hierarchies().mode == "v2":
            return (folders[0] / "io.max").read_text().split()
        (folder,) = (each for each in folders if list(each.glob("blkio.throttle.*")))
        kinds = ("read_bps", "write_bps", "read_iops", "write_iops")
        return [(folder / f"blkio.throttle.{kind}_device").read_text().strip() for kind in kinds]

    def wanted(read: int) -> list[str]:
        if hierarchies().mode == "v2":
            return [number, f"rbps={read}", f"wbps={2 << 20}", "riops=300", "wiops=400"]
        return [f"{number} {value}" for value in (read, 2 << 20, 300, 400)]

    assert kept() == wanted(1 << 20)
    await rooms.containers.update(made, from_json(Limits, {"BlkioDeviceReadBps": [{"Path": node, "Rate": 3 << 20}]}))
    assert kept() == wanted(3 << 20)
    await rooms.containers.remove(made, force=True)


async def test_statistics_are_dockers(rooms: Rooms) -> None:
    made = await rooms.start(
        "sh", "-c", "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; exec sleep 100", host=host(Memory=64 << 20)
    )
    group = cgroup(f"{rooms.config.cgroup_parent}/{made}")
    await eventually(lambda: group.stats()["cpu"]["total"], "any use of a processor")
    stats = await rooms.containers.usage.stats(rooms.get(made), one_shot=True)
    memory = stats["memory_stats"]
    assert memory["limit"] == 64 << 20
    assert 0 < memory["usage"] < memory["limit"]
    # What `docker stats` takes off the usage.
    assert ("total_inactive_file" if "max_usage" in memory else "inactive_file") in memory["stats"]
    assert ("max_usage" in memory) == (hierarchies().mode != "v2")
    cpu = stats["cpu_stats"]
    assert cpu["cpu_usage"]["total_usage"] > 0
    assert ("percpu_usage" in cpu["cpu_usage"]) == (hierarchies().mode != "v2")
    assert cpu["system_cpu_usage"] > 0
    assert stats["pids_stats"]["current"] == 1
    await rooms.containers.remove(made, force=True)


async def test_the_paused_stand_still(rooms: Rooms) -> None:
    made = await rooms.start("sh", "-c", "while :; do :; done", host=host())
    group = cgroup(f"{rooms.config.cgroup_parent}/{made}")
    await rooms.containers.pause(made)
    before = group.stats()["cpu"]["total"]
    assert group.frozen()
    await asyncio.sleep(0.05)  # in which it would have run
    assert group.stats()["cpu"]["total"] == before
    await rooms.containers.unpause(made)
    await eventually(lambda: group.stats()["cpu"]["total"] > before, "going on")
    await rooms.containers.remove(made, force=True)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"CpusetCpus": "0,999"}, "Requested CPUs are not available"),
        ({"CpusetMems": "77"}, "Requested memory nodes are not available"),
        ({"CpusetCpus": "3-x"}, "Invalid value"),
        ({"MemoryReservation": 1}, "Minimum memory reservation allowed is 6MB"),
        ({"StorageOpt": {"size": "much"}}, "write it as size=10g"),
        ({"StorageOpt": {"size": "0"}}, "write it as size=10g"),
    ],
)
async def test_what_can_not_be_limited_is_refused(rooms: Rooms, limits: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        await rooms.create("true", host=host(**limits))


async def test_a_disk_hog_meets_its_quota_or_is_refused(rooms: Rooms) -> None:
    wanted = host(StorageOpt={"size": "8m"})
    if not quota.offered(str(rooms.config.data_root)):
        with pytest.raises(InvalidInput, match="mount it"):
            await rooms.create("true", host=wanted)
        return
    script = "head -c 100000000 /dev/zero >/file; wc -c </file; head -c 1000000 /dev/zero >/tmp/more"
    exited, out, err = await rooms.run("sh", "-c", script, host=wanted)
    assert exited.code != 0
    assert 4 << 20 < int(out) <= 8 << 20
    assert "No space left" in err or "quota exceeded" in err
    exited, out, _ = await rooms.run("sh", "-c", "head -c 20000000 /dev/zero >/file; wc -c </file", host=host())
    assert int(out) == 20_000_000
